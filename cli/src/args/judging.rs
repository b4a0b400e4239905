//! The options for what counts as a good run.

use clap::Args;
use engine::config::{Halt, HaltHow, HaltOn, Judging, Share};

pub(super) const HEADING: &str =
    "Judging (failed: past START and not ok, or verified and not started)";

/// What is asked of a run.
#[derive(Debug, Args)]
#[command(next_help_heading = HEADING)]
pub(super) struct JudgingArgs {
    /// Exit 1 if so many sessions failed
    #[arg(long, value_name = "any|N|N%", value_parser = share)]
    fail_on: Option<Share>,

    /// End early: soon|now,fail=N|fail=N%|ok=N
    #[arg(long, value_name = "RULE", value_parser = halt)]
    halt: Option<Halt>,

    /// Exit 1 if fewer sessions are ok
    #[arg(long, value_name = "N", value_parser = required)]
    require: Option<u64>,
}

impl JudgingArgs {
    /// As the engine wants them; nothing has been measured before.
    pub(super) fn judging(&self) -> Judging {
        let Self { fail_on, halt, require } = *self;
        Judging { fail_on, halt, require, oks_before: 0 }
    }
}

fn share(text: &str) -> Result<Share, String> {
    let share = match text.strip_suffix('%') {
        _ if text == "any" => Some(Share::Sessions(1)),
        Some(percent) => percent
            .parse()
            .ok()
            .filter(|percent| *percent > 0.0 && *percent <= 100.0)
            .map(Share::Percent),
        None => count(text).map(Share::Sessions),
    };
    share.ok_or_else(|| "give a number of sessions from 1 on, a share such as 10%, or any".into())
}

fn count(text: &str) -> Option<u64> {
    text.parse().ok().filter(|count| *count > 0)
}

fn required(text: &str) -> Result<u64, String> {
    count(text).ok_or_else(|| "give a number of sessions from 1 on".into())
}

fn halt(text: &str) -> Result<Halt, String> {
    let parsed = text.split_once(',').and_then(|(how, on)| {
        let how = match how {
            "soon" => HaltHow::Soon,
            "now" => HaltHow::Now,
            _ => return None,
        };
        let on = match on.split_once('=')? {
            ("fail", failed) => HaltOn::Failed(share(failed).ok()?),
            ("ok", enough) => HaltOn::Ok(count(enough)?),
            _ => return None,
        };
        Some(Halt { how, on })
    });
    parsed.ok_or_else(|| "write soon or now, a comma, and fail=N, fail=N% or ok=N".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_number_a_percentage_or_any() {
        assert_eq!(share("any"), Ok(Share::Sessions(1)));
        assert_eq!(share("12"), Ok(Share::Sessions(12)));
        assert_eq!(share("2.5%"), Ok(Share::Percent(2.5)));
        for bad in ["", "0", "-1", "0%", "101%", "NaN%", "inf%", "%", "1 %", "some"] {
            assert!(share(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_rule_for_halting_says_how_and_upon_what() {
        let rule = |how, on| Ok(Halt { how, on });
        assert_eq!(halt("soon,fail=3"), rule(HaltHow::Soon, HaltOn::Failed(Share::Sessions(3))));
        assert_eq!(halt("now,fail=10%"), rule(HaltHow::Now, HaltOn::Failed(Share::Percent(10.0))));
        assert_eq!(halt("now,ok=5"), rule(HaltHow::Now, HaltOn::Ok(5)));
        for bad in
            ["", "soon", "soon,", "later,ok=1", "soon,ok=0", "soon,ok=5%", "now,fail", "ok=1"]
        {
            assert!(halt(bad).is_err(), "{bad:?}");
        }
    }
}
