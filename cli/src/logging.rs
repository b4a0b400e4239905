//! Log lines on stderr: `2026-11-23T11:40:02.113204Z  INFO text field=value`, or what `--log-format` asks for.
//!
//! Levels: `-q` warnings and errors, default information, `-v` debug, `-vv` everything. Colour only
//! on a terminal and never with `NO_COLOR` set. Invariant: whatever is told while there is a log has its format, the last
//! line and those about lost lines too.

mod format;

use std::io::{self, IsTerminal};
use std::sync::Arc;

use command_line::log::{LineWriter, Lines, LogWriter, level, plain};
use engine::{LINFO_TARGET, MLET_TARGET, TRACE_TARGET};
use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;

use format::Line;
pub(crate) use format::LogFormat;

/// Sets what is logged from now on; false if that cannot be set.
pub(crate) type SetLevel = Box<dyn Fn(LevelFilter) -> bool + Send + Sync>;

/// Starts logging for the whole process, and how it is changed later. To be called once, after the supervisor was forked, for it begins a thread.
///
/// # Errors
/// No thread can be had.
pub(crate) fn start(
    (verbose, quiet): (u8, u8),
    log_format: LogFormat,
) -> io::Result<(Arc<LogWriter>, SetLevel)> {
    let of_its_own: fn(&str) -> String = match log_format {
        LogFormat::Text => plain,
        LogFormat::Json => |text| format::told(LogFormat::Json, format::WARN, text),
        LogFormat::Journald => |text| format::told(LogFormat::Journald, format::WARN, text),
    };
    let writer = Arc::new(LogWriter::start(io::stderr(), of_its_own)?);
    let (filter, level) = reload::Layer::new(level(verbose, quiet));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(Lines { log: Arc::clone(&writer), room })
        .event_format(Line::Log { log_format, colour: wants_colour() });
    let subscriber = tracing_subscriber::registry().with(filter).with(lines);
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok((writer, Box::new(move |new| level.reload(new).is_ok())))
}

/// Warnings as plain lines on stderr, for the whole process: for what is no run and has no thread for its log.
pub(crate) fn warnings_alone() {
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(Level::WARN)
        .with_writer(io::stderr)
        .log_internal_errors(false)
        .event_format(Line::Warning)
        .finish();
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// Why the program ends, as its last line or lines. `FATAL` is the word the original used and scripts look for.
pub(crate) fn fatal(log_format: LogFormat, why: &str) -> String {
    match log_format {
        LogFormat::Text => format!("pktxpmgr: FATAL: {why}\n"),
        LogFormat::Json => format::told(log_format, format::FATAL, why),
        LogFormat::Journald => format::told(log_format, format::FATAL, &format!("FATAL: {why}")),
    }
}

/// Bytes that may wait to be written: some ten thousand lines, which is what an hour of a calm run brings.
const QUEUE_LEN: usize = 4 << 20;

/// Of these, what only the last line of the program may use, which says why it ends.
const RESERVE_LEN: usize = 64 << 10;

/// What endpoints log, what mlets write and what both say to each other takes half of the room at most, so that they cannot make the lines about others
/// be lost.
fn room(target: &str) -> usize {
    if [LINFO_TARGET, MLET_TARGET, TRACE_TARGET].contains(&target) {
        QUEUE_LEN / 2
    } else {
        QUEUE_LEN - RESERVE_LEN
    }
}

/// For the last line of the program.
pub(crate) fn last_line(log: &LogWriter) -> LineWriter<'_> {
    log.line(QUEUE_LEN)
}

fn wants_colour() -> bool {
    let forbidden = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stderr().is_terminal() && !forbidden
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_endpoints_log_leaves_half_of_the_room_and_other_lines_leave_some_for_the_last_one() {
        assert_eq!((room(LINFO_TARGET), room("engine")), (QUEUE_LEN / 2, QUEUE_LEN - RESERVE_LEN));
    }
}
