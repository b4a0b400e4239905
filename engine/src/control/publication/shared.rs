//! Publication in a campaign that several managers share: one of them publishes, the descriptors are those of the campaign, byte
//! for byte, and what stands behind them says which round it is and whom it calls.
//!
//! Not here: who publishes when, which whoever hands out permits knows, and how it is published (`publication.rs`).

use std::rc::Rc;

use tokio::sync::watch;

use super::{Plan, PublicationTask};
use crate::proto::descriptor::{descriptor, end_in_text, publication_end};
use packetlab::time::Ticks;

impl PublicationTask {
    /// Its descriptors are there, and not for this run alone.
    pub(in super::super) fn is_shared(&self) -> bool {
        self.plan.borrow().1.is_shared()
    }

    /// When the last of the campaign's descriptors ends; `None` is never.
    pub(in super::super) fn shared_end(&self) -> Option<Ticks> {
        let (_, plan) = &*self.plan.borrow();
        let ends = (0..plan.experiments.len()).map(|place| plan.end_of(place, None));
        ends.max_by_key(|end| end.unwrap_or(Ticks::MAX)).flatten()
    }

    /// Publishes the campaign's descriptors with this behind them, once it has begun; or not any more.
    pub(in super::super) fn publish_as(&mut self, addition: Option<String>) {
        let id = self.id();
        let plan = Plan { addition, ..Plan::clone(&self.plan.borrow().1) };
        match (&plan.addition, &self.task) {
            (None, _) => {
                // The task ends the conversation with the broker.
                (self.plan, _) = watch::channel((id, Rc::new(plan)));
                self.task = None;
            }
            (Some(_), Some(_)) => drop(self.replace(id, plan)),
            (Some(_), None) => drop(self.plan.send_replace((id, Rc::new(plan)))),
        }
    }

    /// Puts the campaign's descriptors into a plan that was read again.
    ///
    /// # Errors
    /// It describes other experiments.
    pub(in super::super) fn keep_texts(&self, plan: &mut Plan) -> Result<(), String> {
        let (_, before) = &*self.plan.borrow();
        if plan.described() != before.described() {
            return Err("a descriptor would change, which takes another campaign".into());
        }
        plan.publication.texts.clone_from(&before.publication.texts);
        plan.addition.clone_from(&before.addition);
        Ok(())
    }
}

impl Plan {
    /// Its descriptors are there, and not for this run alone.
    pub(in super::super) fn is_shared(&self) -> bool {
        self.publication.texts.is_some()
    }

    /// It is for this run to publish.
    pub(super) fn is_wanted(&self) -> bool {
        !self.is_shared() || self.addition.is_some()
    }

    /// The descriptor of the experiment in this place, where it is there.
    pub(super) fn text(&self, place: usize) -> Option<String> {
        let text = self.publication.texts.as_ref()?.get(place)?;
        Some(format!("{text}{}", self.addition.as_deref().unwrap_or_default()))
    }

    /// When its publication ends, if it does not override that.
    pub(super) fn end_of(&self, place: usize, pub_end: Option<Ticks>) -> Option<Ticks> {
        match self.text(place) {
            Some(text) => end_in_text(&text),
            None => publication_end(&self.experiments[place], pub_end),
        }
    }

    /// The descriptors that the configuration makes, but for the times and addresses that each start makes anew.
    fn described(&self) -> Vec<String> {
        let described = |one| descriptor(&self.publication.called, one, "", None);
        self.experiments.iter().map(described).collect()
    }
}
