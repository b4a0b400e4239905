//! The options for limits: deadlines, sizes and counts of the engine.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::{ArgMatches, Args, Command};
use command_line::units::{count, size, time_limit};
use engine::config::Limits;

/// Heading of these options.
const HEADING: &str = "Limits (durations 500ms, 10s, 5m, 2h; sizes 4096, 64k)";

/// What these options are set to, as typed or by default, by their names.
pub(super) fn texts(command: &Command, matches: &ArgMatches) -> BTreeMap<String, String> {
    let of_limits = command.get_arguments().filter(|arg| arg.get_help_heading() == Some(HEADING));
    let text = |arg: &clap::Arg| {
        let mut values = matches.get_raw(arg.get_id().as_str())?;
        Some((arg.get_long()?.to_owned(), values.next_back()?.to_string_lossy().into_owned()))
    };
    of_limits.filter_map(text).collect()
}

/// One option for each field of [`Limits`]. A test holds the defaults equal.
#[derive(Debug, Args)]
#[command(next_help_heading = HEADING)]
pub(super) struct LimitArgs {
    /// From accept to the end of the TLS handshake
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time_limit)]
    handshake_timeout: Duration,
    /// From there to START, and again to its answer
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = time_limit)]
    setup_timeout: Duration,
    /// Without progress while the last bytes are delivered
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = time_limit)]
    drain_timeout: Duration,
    /// Discarding input between our last byte and close
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = time_limit)]
    linger_timeout: Duration,
    /// Pause in accepting when fds or memory ran out
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = time_limit)]
    accept_pause: Duration,
    /// Connecting to the broker, its handshake and answers
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time_limit)]
    broker_timeout: Duration,
    /// Between EOF and TERM for mlets at a forced end
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = time_limit)]
    eof_grace: Duration,
    /// Between TERM and KILL for mlets at a forced end
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = time_limit)]
    term_grace: Duration,
    /// Sessions in set-up at once, per core
    #[arg(long, value_name = "N", default_value = "1024", value_parser = count)]
    handshakes_max: usize,
    /// Sessions at once; 0: as many as fds allow
    #[arg(long, value_name = "N", default_value = "0", value_parser = number)]
    sessions_max: usize,
    /// Sessions of one key at once; 0: no limit [default: 1/4, >= 16]
    #[arg(long, value_name = "N", value_parser = number)]
    sessions_per_key_max: Option<usize>,
    /// In set-up from one address, per core; 0: no limit
    #[arg(long, value_name = "N", default_value = "0", value_parser = number)]
    per_source_max: usize,
    /// Bytes of one LINFO message that are logged
    #[arg(long, value_name = "SIZE", default_value = "64k", value_parser = size)]
    linfo_max: usize,
    /// LINFO messages of a session logged in a second
    #[arg(long, value_name = "N", default_value = "100")]
    linfos_per_second: u32,
    /// Bytes of log of a session's LINFOs in a second
    #[arg(long, value_name = "SIZE", default_value = "128k", value_parser = size)]
    linfo_rate_max: usize,
    /// The same of all sessions together
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

fn number(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("'{text}' is no number; write 0 or more"))
}
