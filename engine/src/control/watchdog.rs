//! Whether every shard still makes turns.
//!
//! ```text
//! Resting --a second--> Asked: every bell has rung --a part of it--> Resting: who has not heard it stands still
//! ```
//! A shard without work makes no turns, so it is asked. Not here: how that is heard (`mailbox/queue.rs`), and who is told
//! (`init_system.rs`). Invariant: the run counts as well only when all shards have answered since it did last.

use std::time::{Duration, Instant};

use tracing::warn;

use crate::guards::{Guard, holds};
use crate::mailbox::{Mailer, ToShard};

/// How often shards are asked, unless the init system wants to hear more often.
const INTERVAL: Duration = Duration::from_secs(1);
/// No init system is told more often than this.
const INTERVAL_MIN: Duration = Duration::from_millis(50);

/// What is known of the shards' turns.
#[derive(Debug)]
pub(super) struct Watchdog {
    interval: Duration,
    shards: Vec<Asked>,
    phase: Phase,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// The run has not begun.
    Idle,
    Resting {
        until: Instant,
    },
    Asked {
        at: Instant,
    },
}

/// A shard that is asked.
#[derive(Debug)]
struct Asked {
    /// The CPU number of its core.
    core: usize,
    /// What it had heard when it was asked last.
    heard: u64,
    /// It has not answered since it was asked then.
    silent_since: Option<Instant>,
}

impl Watchdog {
    /// Nobody is asked yet. `within` is how long an init system may hear nothing of a run that is well.
    pub(super) fn new(within: Option<Duration>) -> Self {
        // Twice as often as it has to hear it, as sd_watchdog_enabled(3) asks for.
        let interval = within.map_or(INTERVAL, |within| within / 2);
        let interval = interval.clamp(INTERVAL_MIN, INTERVAL);
        Self { interval, shards: Vec::new(), phase: Phase::Idle }
    }

    /// When there is something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.phase {
            Phase::Idle => None,
            Phase::Resting { until } => Some(until),
            Phase::Asked { at } => Some(at + self.patience()),
        }
    }

    /// How long a shard has to answer. Asked each second, one that stands still is told of within one and a half, which
    /// leaves half a second to a control thread that gets no processor.
    fn patience(&self) -> Duration {
        self.interval / 2
    }

    /// The run begins, with a shard on each of these CPUs.
    pub(super) fn begin(&mut self, cores: &[usize], now: Instant) {
        let asked = |core: &usize| Asked { core: *core, heard: 0, silent_since: None };
        self.shards = cores.iter().map(asked).collect();
        self.phase = Phase::Resting { until: now };
    }

    /// Since when each shard has not answered, in their order.
    pub(super) fn silent_since(&self) -> Vec<Option<Instant>> {
        self.shards.iter().map(|shard| shard.silent_since).collect()
    }

    /// Does what is due; whether all shards are well, when that is known anew.
    pub(super) fn tend(&mut self, mailers: &[Mailer<ToShard>], now: Instant) -> Option<bool> {
        if self.due().is_none_or(|due| now < due) {
            return None;
        }
        match self.phase {
            Phase::Idle => None,
            Phase::Resting { .. } => {
                self.ask(mailers, now);
                None
            }
            Phase::Asked { at } => Some(self.judge(mailers, at, now)),
        }
    }

    fn ask(&mut self, mailers: &[Mailer<ToShard>], now: Instant) {
        for (shard, mailer) in self.shards.iter_mut().zip(mailers) {
            if shard.silent_since.is_none() {
                shard.heard = mailer.heard();
            }
            mailer.wake();
        }
        self.phase = Phase::Asked { at: now };
    }

    /// Tells of the shards that have not answered, or do so again. Whether all have.
    fn judge(&mut self, mailers: &[Mailer<ToShard>], at: Instant, now: Instant) -> bool {
        // Whoever was stopped or found no processor for so long itself knows nothing of others.
        let is_late = now - at > self.patience() + self.interval / 2;
        let mut all_answer = true;
        for (number, (shard, mailer)) in self.shards.iter_mut().zip(mailers).enumerate() {
            // One that has ended is asked for nothing.
            if mailer.is_gone() {
                shard.silent_since = None;
                continue;
            }
            let (answers, core) = (mailer.heard() != shard.heard, shard.core);
            all_answer &= answers;
            match shard.silent_since {
                Some(since) if answers => {
                    let lasted = (now - since).as_secs_f64();
                    warn!("shard {number}, on CPU {core}, makes turns again, after {lasted:.1} s");
                    shard.silent_since = None;
                }
                None if !answers && !is_late && holds(Guard::NoticesStandstill) => {
                    let lasted = (now - at).as_secs_f64();
                    warn!(
                        "shard {number}, on CPU {core}, has made no turn for {lasted:.1} s: its \
                         sessions stand still"
                    );
                    shard.silent_since = Some(at);
                }
                _ => {}
            }
        }
        self.phase = Phase::Resting { until: (at + self.interval).max(now) };
        all_answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailbox::{Inbox, mailbox};

    /// Any time will do.
    #[expect(clippy::disallowed_methods, reason = "a test has to begin somewhere")]
    fn now() -> Instant {
        Instant::now()
    }

    fn begun(within: Option<Duration>) -> (Watchdog, Mailer<ToShard>, Inbox<ToShard>, Instant) {
        let (mailer, inbox) = mailbox().unwrap();
        let (mut watchdog, now) = (Watchdog::new(within), now());
        watchdog.begin(&[7], now);
        (watchdog, mailer, inbox, now)
    }

    /// Asks and judges at the times that are due; whether the shard counts as well.
    fn is_well(
        watchdog: &mut Watchdog,
        mailer: &Mailer<ToShard>,
        now: &mut Instant,
        late: Duration,
    ) -> bool {
        *now = watchdog.due().unwrap();
        watchdog.ask(std::slice::from_ref(mailer), *now);
        let at = *now;
        *now = watchdog.due().unwrap() + late;
        watchdog.judge(std::slice::from_ref(mailer), at, *now)
    }

    #[test]
    fn a_shard_is_well_only_if_it_has_heard_the_bell_since_it_was_asked() {
        let (mut watchdog, mailer, inbox, mut now) = begun(None);
        for stalls in [true, false, true, true, false] {
            let at = watchdog.due().unwrap();
            watchdog.ask(std::slice::from_ref(&mailer), at);
            if !stalls {
                inbox.silence();
            }
            now = watchdog.due().unwrap();
            assert_eq!(watchdog.judge(std::slice::from_ref(&mailer), at, now), !stalls);
            assert_eq!(watchdog.shards[0].silent_since.is_some(), stalls);
        }
        // What it heard before it was asked says nothing.
        inbox.silence();
        assert!(!is_well(&mut watchdog, &mailer, &mut now, Duration::ZERO));
        // One that has ended stands nowhere, however often it is looked for.
        assert!(watchdog.shards[0].silent_since.is_some());
        drop(inbox);
        for _ in 0..3 {
            assert!(is_well(&mut watchdog, &mailer, &mut now, Duration::ZERO));
            assert!(watchdog.shards[0].silent_since.is_none());
        }
    }

    #[test]
    fn one_that_stands_still_is_told_of_within_two_seconds() {
        let (watchdog, ..) = begun(None);
        let at_worst = watchdog.interval + watchdog.patience();
        assert!(at_worst <= Duration::from_millis(1_500), "{at_worst:?} leave no time to tell it");
    }

    #[test]
    fn who_was_stopped_itself_accuses_nobody_and_does_not_feed_the_watchdog_either() {
        let (mut watchdog, mailer, _inbox, mut now) = begun(None);
        assert!(!is_well(&mut watchdog, &mailer, &mut now, Duration::from_secs(60)));
        assert!(watchdog.shards[0].silent_since.is_none());
    }

    #[test]
    fn an_impatient_init_system_is_told_twice_as_often_as_it_asks_for() {
        for (within_ms, interval_ms) in [(30_000, 1_000), (1_000, 500), (200, 100), (1, 50)] {
            let (watchdog, ..) = begun(Some(Duration::from_millis(within_ms)));
            assert_eq!(watchdog.interval, Duration::from_millis(interval_ms));
        }
    }
}
