//! What may be asked of a run, as typed.
//!
//! Not here: whether it can be done.

use clap::{Parser, Subcommand, ValueEnum};
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
    Show {
        #[arg(value_enum, default_value_t = Shown::Stat, value_name = "WHAT")]
        what: Shown,
    },
    /// End a session by its number, or all of endpoint keys that begin so
    Kill {
        #[arg(value_name = "ID|KEY", value_parser = whom)]
        whom: Whom,
    },
    /// No new endpoints, as a first signal
    Drain,
    /// End every session, as a second signal
    Stop,
    /// Read the configuration again, as SIGHUP
    Reload,
    /// Have this limit from now on
    Set {
        /// An option without its dashes, such as idle-timeout
        limit: String,
        value: String,
    },
    /// Log more, or less
    Loglevel {
        #[arg(value_enum)]
        level: Level,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Shown {
    Sessions,
    Stat,
    Limits,
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
