//! What may be asked of a run, as typed.
//!
//! Not here: whether it can be done. Invariant: what [`Asked::words`] makes of a request is read as the same request.

use std::ffi::OsStr;

use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};
use clap::{Arg, Command, Parser, Subcommand, ValueEnum};
use engine::Whom;
use tracing::level_filters::LevelFilter;

/// The words of a request.
#[derive(Debug, Parser)]
#[command(
    name = "pktxpmgr ctl SOCK",
    bin_name = "pktxpmgr ctl SOCK",
    no_binary_name = true,
    disable_help_flag = true,
    disable_help_subcommand = true
)]
pub(super) struct Request {
    #[command(subcommand)]
    pub(super) asked: Asked,
}

#[derive(Debug, Clone, Subcommand)]
pub(super) enum Asked {
    /// Show sessions past START, counts, limits, or what is served
    #[command(before_help = SHOW, after_help = SHOW_NOTES)]
    Show {
        /// Which of them
        #[arg(value_enum, default_value_t = Shown::Stat, value_name = "WHAT")]
        what: Shown,
    },
    /// End the session of this number, or all of an endpoint's key
    #[command(before_help = KILL, after_help = KILL_NOTES)]
    Kill {
        /// A session's number, or 8 digits at least of an endpoint's key
        #[arg(value_name = "ID|KEY", value_parser = whom)]
        whom: Whom,
    },
    /// No new endpoints, as a first signal
    #[command(before_help = DRAIN, after_help = DRAIN_NOTES)]
    Drain,
    /// End every session, as a second signal
    #[command(before_help = STOP, after_help = STOP_NOTES)]
    Stop,
    /// Read the configuration again, as SIGHUP
    #[command(before_help = RELOAD, after_help = RELOAD_NOTES)]
    Reload,
    /// Have this limit from now on
    #[command(before_help = SET, after_help = SET_NOTES)]
    Set {
        /// An option for limits without its dashes
        #[arg(value_parser = LimitParser)]
        limit: String,
        /// As the option takes it; 0 takes away what has no limit by default
        value: String,
    },
    /// Log more, or less
    #[command(before_help = LOGLEVEL, after_help = LOGLEVEL_NOTES)]
    Loglevel {
        /// The least important that is logged
        #[arg(value_enum)]
        level: Level,
    },
}

const SHOW: &str = "\
Examples:
  pktxpmgr ctl SOCK show                        counts of the whole run
  pktxpmgr ctl SOCK show sessions               those past START
  pktxpmgr ctl SOCK show sessions --json        the same for programs, whole
  pktxpmgr ctl SOCK show limits                 each limit as it is now";

const SHOW_NOTES: &str = "\
A terminal shows of a table what fits it. Bytes of sessions are a second old at
most; - stands for what is not known.";

const KILL: &str = "\
Examples:
  pktxpmgr ctl SOCK kill 12                     end session 12
  pktxpmgr ctl SOCK kill 6b23f2c2b025           end all of this endpoint's key";

const KILL_NOTES: &str = "\
The mlet reads the end of its session, gets TERM after --eof-grace and KILL
after --term-grace. The outcome is killed.";

const DRAIN: &str = "\
Examples:
  pktxpmgr ctl SOCK drain                       let the run come to its end";

const DRAIN_NOTES: &str = "\
Sessions that were not sent START end; the others and all mlets go on to their
end, as long as they take or --drain-limit allows.";

const STOP: &str = "\
Examples:
  pktxpmgr ctl SOCK stop                        end the run now";

const STOP_NOTES: &str = "\
Mlets read the end of their sessions, get TERM after --eof-grace and KILL after
--term-grace. The run ends with exit code 143.";

const RELOAD: &str = "\
Examples:
  pktxpmgr ctl SOCK reload                      read the configuration again";

const RELOAD_NOTES: &str = "\
All or nothing: if anything cannot be used everything stays as it is, and the
answer says why. Sessions that run keep what they began with.";

const SET: &str = "\
Examples:
  pktxpmgr ctl SOCK set idle-timeout 5m         for new sessions
  pktxpmgr ctl SOCK set handshakes-max 200      at once
  pktxpmgr ctl SOCK set deadline 0              no deadline any more";

const SET_NOTES: &str = "\
For new sessions: timeouts of the handshake, set-up, drain, linger, idle. At
once: all others. A reload keeps what is set.

deadline counts from the start of the run, and drain-limit from when no new
endpoints are taken. One that is over by then ends the run at once, by force.";

const LOGLEVEL: &str = "\
Examples:
  pktxpmgr ctl SOCK loglevel debug              log more
  pktxpmgr ctl SOCK loglevel warn               log warnings and errors alone";

const LOGLEVEL_NOTES: &str = "\
It holds for all of the run's log, from now on.";

/// What can be set while a run goes on.
const SETTABLE: [&str; 14] = [
    "handshake-timeout",
    "setup-timeout",
    "drain-timeout",
    "linger-timeout",
    "accept-pause",
    "eof-grace",
    "term-grace",
    "mlet-timeout",
    "idle-timeout",
    "deadline",
    "drain-limit",
    "handshakes-max",
    "sessions-max",
    "per-source-max",
];

/// Tells what can be set, and takes any word: the run says why another cannot be.
#[derive(Debug, Clone)]
struct LimitParser;

impl TypedValueParser for LimitParser {
    type Value = String;

    fn parse_ref(
        &self,
        command: &Command,
        arg: Option<&Arg>,
        value: &OsStr,
    ) -> Result<String, clap::Error> {
        StringValueParser::new().parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(SETTABLE.iter().map(|limit| PossibleValue::new(*limit))))
    }
}

impl Asked {
    /// The words that were typed, or others that mean the same.
    pub(super) fn words(&self) -> Vec<String> {
        let named = |request: &str, value: &dyn ToString| vec![request.into(), value.to_string()];
        match self {
            Self::Show { what } => named("show", &name(*what)),
            Self::Kill { whom } => named("kill", whom),
            Self::Drain => vec!["drain".into()],
            Self::Stop => vec!["stop".into()],
            Self::Reload => vec!["reload".into()],
            Self::Set { limit, value } => vec!["set".into(), limit.clone(), value.clone()],
            Self::Loglevel { level } => named("loglevel", &name(*level)),
        }
    }
}

/// As it is typed.
fn name(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Shown {
    /// Past START: number, key, process, age, bytes, address, last outcome
    Sessions,
    /// How far the run is: sessions by phase, outcomes, bytes
    Stat,
    /// Each limit as it is now
    Limits,
    /// What is served
    Experiments,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl From<Level> for LevelFilter {
    fn from(typed: Level) -> Self {
        match typed {
            Level::Error => Self::ERROR,
            Level::Warn => Self::WARN,
            Level::Info => Self::INFO,
            Level::Debug => Self::DEBUG,
            Level::Trace => Self::TRACE,
        }
    }
}

/// The least of a key that is taken for one: shorter ones are numbers of sessions, or could mean anybody.
const KEY_DIGITS_MIN: usize = 8;

/// The number of a session, or the beginning of a key id.
fn whom(text: &str) -> Result<Whom, String> {
    let is_key = text.len() >= KEY_DIGITS_MIN && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match text.parse() {
        Ok(id) if text.len() < KEY_DIGITS_MIN => Ok(Whom::Session(id)),
        _ if is_key => Ok(Whom::Key(text.to_ascii_lowercase())),
        _ => Err(format!(
            "give the number of a session (below 10,000,000), or at least {KEY_DIGITS_MIN} hexadecimal digits of a key"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_sent_as_words_that_are_read_as_the_same_request() {
        for line in [
            "show sessions",
            "show stat",
            "kill 12",
            "kill abcdef0123",
            "drain",
            "stop",
            "reload",
            "set linfo-max 5",
            "loglevel trace",
        ] {
            let request = Request::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(request.asked.words().join(" "), line);
        }
    }

    #[test]
    fn few_digits_are_a_session_and_many_the_beginning_of_a_key() {
        assert!(matches!(whom("12"), Ok(Whom::Session(12))));
        assert!(matches!(whom("9999999"), Ok(Whom::Session(9_999_999))));
        assert!(matches!(whom("10000000"), Ok(Whom::Key(key)) if key == "10000000"));
        assert!(matches!(whom("ABCDEF01"), Ok(Whom::Key(key)) if key == "abcdef01"));
        for text in ["", "abc", "abcdefg1", "-1", "1.5"] {
            assert!(whom(text).is_err(), "{text}");
        }
    }
}
