//! What passes between the control thread's loop and the shards: every message of theirs, and what is done about it.
//!
//! Not here: the queues (`mailbox/queue.rs`), and permits (`permit_news.rs`).

use std::time::Duration;

use tokio::io::Interest;
use tracing::{error, warn};

use super::clock::now;
use super::{Control, RunPhase, SEND_RETRY, at};
use crate::mailbox::{FromShard, Mailer, QUEUE_LEN, ToShard};
use crate::proto::session_end::Force;
use crate::run_error::{RunError, WAITING, lack};

/// How long a forced end waits for shards to tell of what they still have, for which they need a few turns.
const SHARD_PATIENCE: Duration = Duration::from_millis(500);

impl Control {
    /// Waits until every shard is ready to take connections.
    ///
    /// # Errors
    /// One cannot.
    pub(crate) async fn await_shards(
        &mut self,
        shards: Vec<Mailer<ToShard>>,
    ) -> Result<(), RunError> {
        self.shards = shards;
        while self.shards_running < self.shards.len() {
            self.inbox.ready(Interest::READABLE).await.map_err(lack(WAITING))?;
            self.take_all_mail();
            if let Some(error) = self.failure.take() {
                return Err(error);
            }
        }
        Ok(())
    }

    /// No more than fits into the queue at once: shards that keep filling it must not keep the loop from signals
    /// and mlets.
    pub(super) fn take_all_mail(&mut self) {
        self.inbox.inner.silence();
        if !self.take_mail_at_hand() {
            self.inbox.inner.ring();
        }
    }

    /// Takes what was in the queue when it began, if not more. True if nothing is left.
    pub(super) fn take_mail_at_hand(&mut self) -> bool {
        for _ in 0..QUEUE_LEN {
            let Some(message) = self.inbox.inner.next() else { return true };
            self.take_mail(message);
        }
        false
    }

    fn take_mail(&mut self, message: FromShard) {
        match message {
            // Nothing is started any more: the mlet's socket is closed, and its session ends.
            FromShard::Served { .. } | FromShard::StartMlet { .. }
                if self.phase == RunPhase::Over => {}
            FromShard::Served { place, session } => self.begin_session(place, session),
            FromShard::StartMlet { id, ends, facts } => self.start_mlet(id, ends, &facts),
            FromShard::PermitWanted(place, holder) => self.want_permit(place, holder),
            FromShard::PermitFreed(id) => self.free_permit(id),
            FromShard::BacklogTaken(registration) => self.take_backlog_taken(&registration),
            FromShard::BacklogLost { registration, ended } => {
                self.take_backlog_lost(&registration, ended);
            }
            FromShard::EndpointGone { id, reason } => self.sessions.endpoint_gone(id, &reason),
            FromShard::IdleTimeout(id) => self.end_idle_mlet(id),
            FromShard::Relayed { shard, sessions } => {
                self.session_list.take_told(shard, sessions);
            }
            FromShard::Ended(ended) => self.sessions.ended(ended, now()),
            FromShard::SourceRefused(source) => {
                self.sessions.refused(now());
                self.log_refusal(source);
            }
            FromShard::AcceptPaused(error) => self.note_accept_pause(&error),
            FromShard::NoSocketPair { id, error } => {
                warn!(session = id, "no socket pair for the mlet: {error}; the session ends");
            }
            FromShard::NoPipes { id, error } => self.log_no_pipes(id, &error),
            FromShard::Ready => self.shards_running += 1,
            FromShard::NotReady(error) => self.fail(error),
            FromShard::Stopped(Ok(totals)) => {
                self.shards_running -= 1;
                self.shard_totals.push(totals);
                self.sessions.shard_ended(totals);
            }
            FromShard::Stopped(Err(error)) => self.lose_shard(error),
        }
    }

    fn lose_shard(&mut self, error: String) {
        error!("a shard broke down and its sessions are lost: {error}");
        self.shards_running -= 1;
        self.note_failure(RunError::Internal(error));
        self.drain();
    }

    /// True when nothing is left to send to them.
    pub(super) fn flush_shards(&mut self) -> bool {
        let mut is_all = true;
        for shard in &mut self.shards {
            is_all &= shard.flush();
        }
        is_all
    }

    /// Ends what is left on the shards where the run is ended by force, so that every session is told of.
    pub(super) async fn end_shards(&mut self) -> Result<(), RunError> {
        let by = match self.phase {
            RunPhase::Forced { by, .. } => by,
            RunPhase::Running | RunPhase::Draining { .. } | RunPhase::Over => Force::Stop,
        };
        self.phase = RunPhase::Over;
        if self.shards_running > 0 {
            for shard in &mut self.shards {
                shard.push(ToShard::RunOver(by));
            }
        }
        let until = now() + SHARD_PATIENCE;
        while self.shards_running > 0 && now() < until {
            let due = if self.flush_shards() { until } else { now() + SEND_RETRY };
            tokio::select! {
                ready = self.inbox.ready(Interest::READABLE) => ready.map_err(lack(WAITING))?,
                () = at(Some(due)) => {}
            }
            self.take_all_mail();
        }
        Ok(())
    }
}
