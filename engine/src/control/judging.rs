//! Whether a run is good enough (`--fail-on`, `--require`), and whether it is to end before its time (`--halt`).
//!
//! Not here: which sessions have failed (`records`), and how a run ends (`ending.rs`). Invariant: no rule is passed for want
//! of sessions.

use tracing::{info, warn};

use super::{Control, RunPhase};
use crate::config::{HaltHow, HaltOn, Judging, Share};
use crate::proto::session_end::Force;
use crate::records::{OutcomeKind, Summary};
use crate::run_error::RunError;

/// Before so many sessions have ended, a percentage of them ends no run.
const ENDED_MIN: u64 = 20;

/// What a rule is asked of.
#[derive(Debug, Clone, Copy)]
struct Tally {
    failed: u64,
    /// With those of earlier runs.
    oks: u64,
    /// Of this run, failed or `ok`.
    ended: u64,
}

impl Tally {
    fn of(summary: &Summary, judging: &Judging) -> Self {
        let (failed, oks) = (summary.failed, summary.count(OutcomeKind::Ok));
        Self { failed, oks: oks + judging.oks_before, ended: failed + oks }
    }

    fn has_reached(self, share: Share) -> bool {
        match share {
            Share::Sessions(sessions) => self.failed >= sessions,
            Share::Percent(percent) => self.failed as f64 * 100.0 >= percent * self.ended as f64,
        }
    }
}

/// Why the run ends before its time, if it does, and whether that is for failures.
fn halt(judging: &Judging, summary: &Summary) -> Option<(HaltHow, bool, String)> {
    let halt = judging.halt?;
    let tally = Tally::of(summary, judging);
    let Tally { failed, oks, ended } = tally;
    let (is_due, told) = match halt.on {
        HaltOn::Ok(enough) => (oks >= enough, format!("{oks} sessions are ok")),
        HaltOn::Failed(share) => {
            let counts = matches!(share, Share::Sessions(_)) || ended >= ENDED_MIN;
            (counts && tally.has_reached(share), format!("{failed} of {ended} sessions failed"))
        }
    };
    let is_failure = matches!(halt.on, HaltOn::Failed(_));
    is_due.then(|| (halt.how, is_failure, format!("{told} (--halt)")))
}

/// Why the run that is over is not good enough, if it is not.
pub(super) fn verdict(judging: &Judging, summary: &Summary) -> Option<String> {
    let tally = Tally::of(summary, judging);
    let Tally { failed, oks, ended } = tally;
    if let Some(required) = judging.require.filter(|required| oks < *required) {
        return Some(format!("{oks} sessions are ok, and {required} are asked for (--require)"));
    }
    let share = judging.fail_on?;
    if ended == 0 && oks == 0 {
        return Some("no session was measured (--fail-on)".into());
    }
    let is_too_much = failed > 0 && tally.has_reached(share);
    is_too_much.then(|| format!("{failed} of {ended} sessions failed (--fail-on)"))
}

impl Control {
    /// Ends the run before its time, if what has ended so far asks for it.
    pub(super) fn tend_halt(&mut self) {
        let goes_on = matches!(self.phase, RunPhase::Running | RunPhase::Draining { .. });
        if !goes_on || self.is_halted {
            return;
        }
        let halted = self.view.sums(|sums| halt(&self.judging, sums));
        let Some((how, is_failure, why)) = halted else { return };
        self.is_halted = true;
        match how {
            HaltHow::Soon => info!("{why}: no new endpoints; running sessions go on"),
            HaltHow::Now => warn!("{why}: ending every session and mlet"),
        }
        if is_failure {
            self.note_failure(RunError::Halted(why));
        }
        match how {
            HaltHow::Soon => self.drain(),
            HaltHow::Now => self.force(Force::Stop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Halt;

    fn summary(oks: u64, failed: u64) -> Summary {
        let outcomes = [(OutcomeKind::Ok, oks), (OutcomeKind::MletFailed, failed)].into();
        Summary { outcomes, failed, ..Summary::default() }
    }

    fn halts(on: HaltOn, oks_before: u64, (oks, failed): (u64, u64)) -> bool {
        let halting = Some(Halt { how: HaltHow::Soon, on });
        let judging = Judging { halt: halting, oks_before, ..Judging::default() };
        halt(&judging, &summary(oks, failed)).is_some()
    }

    #[test]
    fn a_run_halts_at_a_number_of_failures_or_at_a_share_of_enough_sessions() {
        let three = HaltOn::Failed(Share::Sessions(3));
        assert!(!halts(three, 0, (100, 2)) && halts(three, 0, (0, 3)));
        let tenth = HaltOn::Failed(Share::Percent(10.0));
        assert!(!halts(tenth, 0, (0, 19)), "too few to tell");
        assert!(halts(tenth, 0, (18, 2)) && !halts(tenth, 0, (19, 2)));
        assert!(!halts(HaltOn::Ok(5), 0, (4, 9)) && halts(HaltOn::Ok(5), 0, (5, 0)));
        assert!(halts(HaltOn::Ok(5), 3, (2, 0)), "with those of earlier runs");
    }

    #[test]
    fn a_verdict_names_the_rule_and_none_is_passed_on_no_data() {
        let told = |fail_on, require, oks_before, (oks, failed)| {
            let judging = Judging { fail_on, require, oks_before, halt: None };
            verdict(&judging, &summary(oks, failed))
        };
        let any = Some(Share::Sessions(1));
        assert_eq!(told(None, None, 0, (0, 9)), None, "without a rule as the original");
        assert_eq!(told(any, None, 0, (9, 0)), None);
        let failed = "1 of 10 sessions failed (--fail-on)".to_owned();
        assert_eq!(told(any, None, 0, (9, 1)), Some(failed.clone()));
        assert_eq!(told(Some(Share::Percent(10.0)), None, 0, (9, 1)), Some(failed));
        assert_eq!(told(Some(Share::Percent(10.1)), None, 0, (9, 1)), None);
        let nothing = "no session was measured (--fail-on)".to_owned();
        assert_eq!(told(any, None, 0, (0, 0)), Some(nothing));
        assert_eq!(told(any, None, 7, (0, 0)), None, "earlier runs have measured");
        let few = "9 sessions are ok, and 10 are asked for (--require)".to_owned();
        assert_eq!(told(None, Some(10), 0, (9, 0)), Some(few));
        assert_eq!(told(None, Some(10), 1, (9, 0)), None);
    }
}
