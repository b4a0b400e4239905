//! What news of permits and results lead to: answers to shards, sessions that end, and the end of the run.
//!
//! Not here: who gets a permit and why (`permits/`), who waits (`permitting.rs`), and what a shard does with an answer
//! (`shard/permit_to_mlet.rs`). Invariant: a session whose permit is lost is ended, whenever its START is told of.

use std::time::Duration;

use tokio::time::timeout_at;
use tracing::{info, warn};

use super::clock::now;
use super::missed::Come;
use super::proxies::Proxies;
use super::{Control, RunPhase};
use crate::mailbox::{QUEUE_LEN, SessionPlace, ToShard};
use crate::permits::{Holder, PermitNews};
use crate::proto::session_end::Force;
use crate::records::SessionId;
use crate::run_error::{RunError, WAITING, lack};
use packetlab::words::counted;

/// How long the end of a run waits to hear what became of its last results.
const VERDICT_PATIENCE: Duration = Duration::from_secs(10);

impl Control {
    pub(super) fn want_permit(&mut self, place: SessionPlace, holder: Holder) {
        self.permitting.want(place, holder);
    }

    pub(super) fn free_permit(&mut self, id: SessionId) {
        self.permitting.free(id);
    }

    /// Tells of endpoints that may have been missed since this was called last.
    pub(super) fn tend_missed(&mut self) {
        if self.phase != RunPhase::Running {
            return;
        }
        let (open, max) = self.counts.places().read();
        let running = self.sessions.running();
        let ready = self.proxies.as_ref().map_or(0, Proxies::ready);
        let mut is_over = self.missed.take_places(open.saturating_sub(ready), running, max);
        if let Some(proxies) = &mut self.proxies {
            is_over |= proxies.take_came_back();
            let (failed, served) = self.view.sums(|sums| (sums.failed_in_set_up, sums.served));
            let come = Come { taken: proxies.taken(), failed, served };
            let in_set_up = open.saturating_sub(proxies.connections() + running) as u64;
            is_over |= match proxies.take_filled_again() {
                true => self.missed.used_up(come, in_set_up),
                false => self.missed.tend_used_up(come, in_set_up, proxies.are_full()),
            };
        }
        if is_over {
            self.permitting.missed();
        }
    }

    /// Does what there is news of. No more than fits into the queue of a shard at once, so that signals and mlets do not wait
    /// for all.
    pub(super) fn take_permits(&mut self) {
        for _ in 0..QUEUE_LEN {
            let Some(news) = self.permitting.next() else { return };
            self.take_permit_news(news);
        }
    }

    fn take_permit_news(&mut self, news: PermitNews) {
        match news {
            PermitNews::Given { session, epoch } => {
                if let Some(place) = self.permitting.give(session, epoch) {
                    self.shards[place.shard].push(ToShard::Permit(place));
                }
            }
            PermitNews::Refused { session, why } => {
                if let Some(place) = self.permitting.refuse(session) {
                    self.shards[place.shard].push(ToShard::Refused(place, why));
                }
            }
            PermitNews::Settled { session, verdict } => {
                self.sessions.settle(session, verdict, now())
            }
            PermitNews::Fenced(within) => self.fence(within),
            PermitNews::TakesPart(takes_part) => self.take_part(takes_part),
            PermitNews::Publish(addition) => {
                self.brokers.publish_as(addition.as_deref());
                self.show_brokers();
            }
            PermitNews::Standing(standing) => {
                self.view.change(|state| state.campaign = Some((standing, now())));
            }
            PermitNews::Answering(true) => self.view.change(|state| state.silent_since = None),
            PermitNews::Answering(false) => self.view.change(|state| {
                state.silent_since.get_or_insert_with(now);
            }),
            PermitNews::Enough(why) => {
                if self.phase == RunPhase::Running {
                    info!("{why}; no new endpoints");
                    self.drain();
                }
            }
            PermitNews::Stop(why) => {
                if matches!(self.phase, RunPhase::Running | RunPhase::Draining { .. }) {
                    self.stop_hard(&why, RunError::Stopped(why.clone()));
                }
            }
        }
    }

    /// Ends the sessions that were permitted START and those that will be told of as such, and has all of it over within
    /// this time, after which others may measure their endpoints. The run goes on.
    fn fence(&mut self, within: Duration) {
        if !matches!(self.phase, RunPhase::Running | RunPhase::Draining { .. }) {
            return;
        }
        self.permitting.lose(now() + within);
        let ids = self.sessions.recorder().lose_claims();
        let sessions = counted(ids.len() as u64, "session");
        let waiting = match self.sessions.unsettled() as u64 {
            0 => String::new(),
            results => format!("; results that wait for the database: {results}"),
        };
        warn!(
            "the lease of the campaign was lost: {sessions} and their mlets are being ended{waiting}"
        );
        ids.into_iter().for_each(|id| self.end_mlet_of(id));
        for shard in &mut self.shards {
            shard.push(ToShard::Fence);
        }
    }

    /// The START of a session has succeeded after its permit was lost, which its shard may have heard of before that.
    pub(super) fn end_fenced(&mut self, id: SessionId) {
        self.permitting.lose_late(now());
        self.end_mlet_of(id);
        for shard in &mut self.shards {
            shard.push(ToShard::EndSession(id, Force::Fenced));
        }
    }

    /// Lets go of endpoints that still take what their mlets wrote, when others may measure them.
    pub(super) fn tend_fenced(&mut self) {
        if self.permitting.take_lost_over(now()) {
            for shard in &mut self.shards {
                shard.push(ToShard::FenceOver);
            }
        }
    }

    /// Waits until every result that was handed over is settled, but not for long, nor when a signal asks to stop.
    pub(super) async fn await_verdicts(&mut self) -> Result<(), RunError> {
        let until = now() + VERDICT_PATIENCE;
        self.take_permits();
        while self.sessions.unsettled() > 0 && now() < until {
            let waited = timeout_at(until.into(), self.wait()).await;
            waited.unwrap_or(Ok(())).map_err(lack(WAITING))?;
            while let Ok(Some(signal)) = self.signals.inner.receive() {
                if self.answer_signal(signal).is_some() {
                    return Ok(());
                }
            }
            self.take_orders();
            self.take_permits();
            self.tend_due();
            self.show();
        }
        Ok(())
    }
}
