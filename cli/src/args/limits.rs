//! The options for limits: deadlines, sizes and counts of the engine.

use std::time::Duration;

use clap::{ArgMatches, Args, Command, CommandFactory, FromArgMatches, Parser};
use command_line::units::{count, duration, size, time_limit};
use engine::config::Limits;

const HEADING: &str = "Limits (durations 500ms, 10s, 5m, 2h; sizes 4096, 64k)";

/// One option for each field of [`Limits`]. A test holds the defaults equal.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = HEADING)]
pub(super) struct LimitArgs {
    /// Accept to end of TLS handshake
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time_limit)]
    handshake_timeout: Duration,
    /// To START, again to its answer
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = time_limit)]
    setup_timeout: Duration,
    /// Last bytes make no progress
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = time_limit)]
    drain_timeout: Duration,
    /// Discarding input before we close
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = time_limit)]
    linger_timeout: Duration,
    /// Pause without fds or memory
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = time_limit)]
    accept_pause: Duration,
    /// Broker: connect, TLS, answers
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time_limit)]
    broker_timeout: Duration,
    /// Forced end: from EOF to TERM
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = time_limit)]
    eof_grace: Duration,
    /// Forced end: from TERM to KILL
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = time_limit)]
    term_grace: Duration,
    /// A mlet's run, then TERM; 0: none
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = time_or_none)]
    mlet_timeout: Duration,
    /// Session without a byte; 0: none
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = time_or_none)]
    idle_timeout: Duration,
    /// Run, then forced end; 0: none
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = time_or_none)]
    deadline: Duration,
    /// The same, once draining; 0: none
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = time_or_none)]
    drain_limit: Duration,
    /// In set-up at once, per core
    #[arg(long, value_name = "N", default_value = "1024", value_parser = count)]
    handshakes_max: usize,
    /// At once; 0: as many as fds allow
    #[arg(long, value_name = "N", default_value = "0", value_parser = number)]
    sessions_max: usize,
    /// Of one key; 0: no limit [default: 1/4, >= 16]
    #[arg(long, value_name = "N", value_parser = number)]
    sessions_per_key_max: Option<usize>,
    /// In set-up of one address; 0: none
    #[arg(long, value_name = "N", default_value = "0", value_parser = number)]
    per_source_max: usize,
    /// Bytes logged of one LINFO
    #[arg(long, value_name = "SIZE", default_value = "64k", value_parser = size)]
    linfo_max: usize,
    /// LINFOs a second, of one session
    #[arg(long, value_name = "N", default_value = "100")]
    linfos_per_second: u32,
    /// Bytes a second, of one session
    #[arg(long, value_name = "SIZE", default_value = "128k", value_parser = size)]
    linfo_rate_max: usize,
    /// The same of all sessions
    #[arg(long, value_name = "SIZE", default_value = "1m", value_parser = size)]
    linfo_rate_total: usize,
}

impl LimitArgs {
    /// As the engine wants them.
    pub(super) fn limits(&self) -> Limits {
        Limits {
            handshake_timeout: self.handshake_timeout,
            setup_timeout: self.setup_timeout,
            drain_timeout: self.drain_timeout,
            linger_timeout: self.linger_timeout,
            accept_pause: self.accept_pause,
            broker_timeout: self.broker_timeout,
            eof_grace: self.eof_grace,
            term_grace: self.term_grace,
            mlet_timeout: limit(self.mlet_timeout),
            idle_timeout: limit(self.idle_timeout),
            deadline: limit(self.deadline),
            drain_limit: limit(self.drain_limit),
            handshakes_max: self.handshakes_max,
            sessions_max: self.sessions_max,
            sessions_per_key_max: self.sessions_per_key_max,
            per_source_max: self.per_source_max,
            linfo_max: self.linfo_max,
            linfos_per_second: self.linfos_per_second,
            linfo_rate_max: self.linfo_rate_max,
            linfo_rate_total: self.linfo_rate_total,
        }
    }
}

/// Limits as they are set, which may change during a run.
#[derive(Debug, Clone)]
pub(crate) struct SetLimits {
    pub(super) limits: LimitArgs,
    pub(super) words: Vec<(String, String)>,
}

/// Reads one more option of those for limits.
#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true)]
struct OneMore {
    #[command(flatten)]
    limits: LimitArgs,
}

impl SetLimits {
    /// The same with another value of one, which is named as its option without dashes.
    ///
    /// # Errors
    /// There is no such limit, or it cannot have this value; in clap's words.
    pub(crate) fn with(&self, limit: &str, value: &str) -> Result<Self, String> {
        let option = format!("--{limit}");
        if !self.words.iter().any(|(known, _)| *known == option) {
            return Err(format!("there is no limit '{limit}'; `show limits` lists them"));
        }
        let mut set = OneMore { limits: self.limits.clone() };
        // A default would take the place of what was typed at the start.
        let command = OneMore::command_for_update();
        let command = command.mut_args(|arg| arg.default_value(None::<&'static str>));
        command
            .try_get_matches_from([format!("{option}={value}")])
            .and_then(|matches| set.update_from_arg_matches(&matches))
            .map_err(|error| error.to_string())?;
        let mut words = self.words.clone();
        for (_, shown) in words.iter_mut().filter(|(known, _)| *known == option) {
            value.clone_into(shown);
        }
        Ok(Self { limits: set.limits, words })
    }

    /// As the engine wants them.
    pub(crate) fn limits(&self) -> Limits {
        self.limits.limits()
    }

    /// Each without its dashes, and its value.
    pub(crate) fn in_words(&self) -> impl Iterator<Item = (&str, &str)> {
        self.words.iter().map(|(option, value)| (option.trim_start_matches('-'), value.as_str()))
    }
}

/// Each option and its value, as typed or by default. A default that is no plain value is told as in the help.
pub(super) fn in_words(command: &Command, matches: &ArgMatches) -> Vec<(String, String)> {
    let limits = command.get_arguments().filter(|arg| arg.get_help_heading() == Some(HEADING));
    let rows = limits.map(|arg| {
        let typed = matches.get_raw(arg.get_id().as_str()).and_then(Iterator::last);
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let default = help.split_once("[default: ").map_or("none", |(_, rest)| rest);
        let value = typed.map_or_else(
            || default.trim_end_matches(']').to_owned(),
            |typed| typed.to_string_lossy().into_owned(),
        );
        (format!("--{}", arg.get_long().unwrap_or_default()), value)
    });
    rows.collect()
}

/// A duration; also `0`, which is none.
fn time_or_none(text: &str) -> Result<Duration, String> {
    if text == "0" { Ok(Duration::ZERO) } else { duration(text) }
}

fn limit(time: Duration) -> Option<Duration> {
    (!time.is_zero()).then_some(time)
}

fn number(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("'{text}' is no number; write 0 or more"))
}
