//! What news of permits and results lead to: answers to shards, sessions that end, and the end of the run.
//!
//! Not here: who gets a permit and why (`permits/`), who waits (`permitting.rs`), and what a shard does with an answer
//! (`shard/permit_to_mlet.rs`). Invariant: a session whose permit is lost is ended, whenever its START is told of.

use std::time::Duration;

use tokio::time::timeout_at;
use tracing::{info, warn};

use super::clock::now;
use super::{Control, RunPhase};
use crate::mailbox::{QUEUE_LEN, SessionPlace, ToShard};
use crate::permits::{Holder, News};
use crate::proto::session_end::Force;
use crate::records::SessionId;
use crate::run_error::{RunError, WAITING, lack};
use crate::sys::signals::StopSignal;
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

    /// Does what there is news of. No more than fits into the queue of a shard at once, so that signals and mlets do not wait
    /// for all.
    pub(super) fn take_permits(&mut self) {
        for _ in 0..QUEUE_LEN {
            let Some(news) = self.permitting.next() else { return };
            self.take_permit_news(news);
        }
    }

    fn take_permit_news(&mut self, news: News) {
        match news {
            News::Given { session, epoch } => {
                if let Some(place) = self.permitting.give(session, epoch) {
                    self.shards[place.shard].push(ToShard::Permit(place));
                }
            }
            News::Refused { session, why } => {
                if let Some(place) = self.permitting.refuse(session) {
                    self.shards[place.shard].push(ToShard::Refused(place, why));
                }
            }
            News::Settled { session, verdict } => self.sessions.settle(session, verdict, now()),
            News::Fenced => self.fence(),
            News::Publish(addition) => {
                self.brokers.publish_as(addition.as_deref());
                self.show_brokers();
            }
            News::Standing(standing) => {
                self.view.change(|state| state.campaign = Some(standing));
            }
            News::Enough(why) => {
                if self.phase == RunPhase::Running {
                    info!("{why}; no new endpoints");
                    self.drain();
                }
            }
            News::Stop(why) => {
                if matches!(self.phase, RunPhase::Running | RunPhase::Draining { .. }) {
                    self.stop_hard(&why, StopSignal::Terminate);
                }
            }
        }
    }

    /// Ends the sessions that were permitted START and those that will be told of as such: others may be measuring their
    /// endpoints. The run goes on.
    fn fence(&mut self) {
        if !matches!(self.phase, RunPhase::Running | RunPhase::Draining { .. }) {
            return;
        }
        self.permitting.lose();
        let ids = self.sessions.recorder().lose_claims();
        let sessions = counted(ids.len() as u64, "session");
        warn!("the lease of the campaign was lost: {sessions} and their mlets are being ended");
        ids.into_iter().for_each(|id| self.end_mlet_of(id));
        for shard in &mut self.shards {
            shard.push(ToShard::Fence);
        }
    }

    /// The START of a session has succeeded after its permit was lost, which its shard may have heard of before that.
    pub(super) fn end_fenced(&mut self, id: SessionId) {
        self.end_mlet_of(id);
        for shard in &mut self.shards {
            shard.push(ToShard::EndSession(id, Force::Fenced));
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
