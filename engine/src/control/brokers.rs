//! The publications of a run, one at each broker.
//!
//! Each has a conversation, waits and a state of its own and knows nothing of the others; here is what they come to
//! together. The run ends for want of a publication only if nothing was published anywhere, the first try has failed at
//! every broker, and none of them was added since publishing began. All count their ends from the time at which it did.
//! Greeting ends by what was published last, but for what a reload has changed meanwhile.
//!
//! Not here: the conversation with a broker (`publication.rs`).

use std::time::Instant;

use tracing::warn;

use super::clock::{now, until_wall, wall};
use super::publication::news::{FailedTry, PublicationId, PublicationNews};
use super::publication::{Plan, PublicationTask};
use super::tasks::TaskLink;
use crate::run_error::RunError;
use crate::view::{BrokerStage, BrokerState};
use packetlab::time::Ticks;

/// The publications of a run; none where nothing is published.
#[derive(Default)]
pub(super) struct Brokers {
    /// In the order of the file.
    of_each: Vec<AtBroker>,
    /// When the first of them began, from which all ends are counted; `None` before [`Self::begin`].
    began: Option<Ticks>,
    next_id: u64,
    /// Everything was published at one of them, at least, since there are any.
    published_once: bool,
    /// When what was published last ends, at whichever; `None` is never, or that nothing was.
    publication_end: Option<Ticks>,
    /// When greeting ends; `None` is never, or not known before the first publication.
    greet_end: Option<Ticks>,
}

/// The publication at one broker.
struct AtBroker {
    task: PublicationTask,
    stage: BrokerStage,
    /// Whether publishing began with it, so that it may fail the run.
    is_of_beginning: bool,
    /// Why it has failed, before anything was published here.
    first_failure: Option<String>,
}

impl Brokers {
    /// To be published by [`Self::begin`].
    pub(super) fn prepare(&mut self, plans: Vec<Plan>, link: &TaskLink) {
        for plan in plans {
            let task = PublicationTask::new(self.new_id(), plan, link.clone());
            self.of_each.push(AtBroker::new(task));
        }
    }

    /// Begins to publish, also what a reload has added before. The run ends if that fails everywhere. In a campaign it is
    /// published when this run is to, and greeting ends for all managers alike.
    pub(super) fn begin(&mut self) {
        let began = *self.began.insert(wall());
        if let Some(AtBroker { task, .. }) = self.of_each.first().filter(|one| one.task.is_shared())
        {
            let greet_after = task.greet_after();
            self.greet_end = task.shared_end().map(|end| end.saturating_add(greet_after));
        }
        for one in &mut self.of_each {
            // What is for one of several managers to publish fails no run of one.
            one.is_of_beginning = !one.task.is_shared();
            one.task.begin(began, true);
        }
    }

    /// In a campaign: publishes its descriptors with this behind them from now on, or not any more.
    pub(super) fn publish_as(&mut self, addition: Option<&str>) {
        for AtBroker { task, stage, .. } in &mut self.of_each {
            task.publish_as(addition.map(ToOwned::to_owned));
            // Elsewhere it is published by another manager, or will be.
            *stage = match (addition, *stage) {
                (None, _) => BrokerStage::Over,
                (Some(_), BrokerStage::Over) => BrokerStage::NotPublished,
                (Some(_), stage) => stage,
            };
            if addition.is_some()
                && let Some(began) = self.began
            {
                task.begin(began, false);
            }
        }
    }

    /// In a campaign: puts its descriptors into plans that were read again.
    ///
    /// # Errors
    /// They describe other experiments, or none.
    pub(super) fn keep_texts(&self, plans: &mut [Plan]) -> Result<(), String> {
        let Some(before) = self.of_each.first().filter(|one| one.task.is_shared()) else {
            return Ok(());
        };
        if plans.is_empty() {
            return Err(
                "nothing would be published, which each manager of a campaign may have to".into()
            );
        }
        plans.iter_mut().try_for_each(|plan| before.task.keep_texts(plan))
    }

    /// From now on these are published, each by the publication that its broker has, or else by one of a broker that has
    /// none any more: so the new is there before the old goes. True if a broker that stays gets something else than before.
    pub(super) fn replace(&mut self, plans: Vec<Plan>, link: &TaskLink) -> bool {
        if self.of_each.is_empty() {
            self.began = self.began.map(|_| wall());
        }
        let mut before = std::mem::take(&mut self.of_each);
        let mut of_the_same = |plan: &Plan| {
            let position = before.iter().position(|one| one.task.broker() == plan.broker())?;
            Some(before.remove(position))
        };
        let plans: Vec<_> = plans.into_iter().map(|plan| (of_the_same(&plan), plan)).collect();
        // Whose tasks are dropped take leave of their brokers.
        let mut without_plan = before.into_iter();
        let mut changes = false;
        for (same, plan) in plans {
            let one = match same {
                Some(mut one) => {
                    changes |= one.task.replace(one.task.id(), plan);
                    one
                }
                None => AtBroker::new(self.coming(plan, without_plan.next(), link)),
            };
            self.of_each.push(one);
        }
        if self.of_each.is_empty() {
            self.published_once = false;
            (self.publication_end, self.greet_end) = (None, None);
        }
        changes
    }

    /// What publishes this at a broker that is new: the task of one that has no plan any more, if there is any. Whatever
    /// came of that, news under way of it too, is not the new broker's.
    fn coming(
        &mut self,
        plan: Plan,
        without_plan: Option<AtBroker>,
        link: &TaskLink,
    ) -> PublicationTask {
        if let Some(AtBroker { mut task, .. }) = without_plan {
            task.replace(self.new_id(), plan);
            return task;
        }
        let mut task = PublicationTask::new(self.new_id(), plan, link.clone());
        if let Some(began) = self.began {
            task.begin(began, false);
        }
        task
    }

    fn new_id(&mut self) -> PublicationId {
        let id = PublicationId(self.next_id);
        self.next_id += 1;
        id
    }

    /// Something became of a publication, which a reload may have ended meanwhile.
    ///
    /// # Errors
    /// None was published, and the first try has failed at every broker.
    pub(super) fn handle(
        &mut self,
        id: PublicationId,
        news: PublicationNews,
    ) -> Result<(), RunError> {
        let Some(one) = self.of_each.iter_mut().find(|one| one.task.id() == id) else {
            return Ok(());
        };
        match news {
            PublicationNews::Published { end, is_outdated } => {
                one.stage = BrokerStage::Published;
                let published_before = std::mem::replace(&mut self.published_once, true);
                // Others may have the new already, which ends otherwise.
                if !(is_outdated && published_before) {
                    self.publication_end = end;
                    let greet_after = one.task.greet_after();
                    self.greet_end = end.map(|end| end.saturating_add(greet_after));
                }
            }
            PublicationNews::Failed(failed) => return self.handle_failed(id, failed),
            PublicationNews::LostBefore => one.stage = BrokerStage::NotPublished,
            PublicationNews::Over => one.stage = BrokerStage::Over,
        }
        Ok(())
    }

    fn handle_failed(&mut self, id: PublicationId, failed: FailedTry) -> Result<(), RunError> {
        let FailedTry { reason, wait, stays } = failed;
        let Some(one) = self.of_each.iter_mut().find(|one| one.task.id() == id) else {
            return Ok(());
        };
        let broker = one.task.broker();
        if !stays {
            one.stage = BrokerStage::NotPublished;
        }
        one.first_failure.get_or_insert_with(|| reason.clone());
        if !self.published_once && self.of_each.iter().all(AtBroker::fails_the_run) {
            let reasons = self.of_each.iter();
            let reasons =
                reasons.filter_map(|one| Some((one.task.broker(), one.first_failure.clone()?)));
            return Err(RunError::Publication(reasons.collect()));
        }
        let seconds = wait.as_secs_f64();
        let stays = if stays { ", as does what was published before" } else { "" };
        warn!(
            "broker {broker}: {reason}; publishing again in {seconds:.1} s, sessions go on{stays}"
        );
        Ok(())
    }

    /// How it stands with each, in the order of the file.
    pub(super) fn states(&self) -> Vec<BrokerState> {
        let state = |one: &AtBroker| BrokerState { name: one.task.broker(), stage: one.stage };
        self.of_each.iter().map(state).collect()
    }

    /// When the publication ends; `None` is never, or that it is not known before the first.
    pub(super) fn publication_end(&self) -> Option<Ticks> {
        self.publication_end
    }

    /// Tells once that greeting is over by now.
    pub(super) fn ends_greeting(&mut self) -> bool {
        self.greet_end.take_if(|end| wall() >= *end).is_some()
    }

    /// When greeting may be over, as far as is known.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.greet_end.map(|end| now() + until_wall(end))
    }

    /// Ends all of them at once, and waits until each has taken leave of its broker.
    pub(super) async fn end(&mut self) {
        let of_each = std::mem::take(&mut self.of_each);
        let tasks: Vec<_> = of_each.into_iter().filter_map(|one| one.task.end()).collect();
        for task in tasks {
            // It fails only if the task panicked, and then there is nobody to take leave.
            let _ = task.await;
        }
    }
}

impl AtBroker {
    fn new(task: PublicationTask) -> Self {
        let stage = match task.is_shared() {
            true => BrokerStage::Over,
            false => BrokerStage::NotPublished,
        };
        Self { task, stage, is_of_beginning: false, first_failure: None }
    }

    fn fails_the_run(&self) -> bool {
        self.is_of_beginning && self.first_failure.is_some()
    }
}
