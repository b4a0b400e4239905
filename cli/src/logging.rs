//! Log lines: `2026-11-23T11:40:02.113204Z  INFO text field=value` on stderr.
//!
//! Levels: `-q` warnings and errors, default information, `-v` debug, `-vv` everything. Colour only
//! on a terminal and never with `NO_COLOR` set.

use std::fmt;
use std::io::{self, IsTerminal};
use std::sync::Arc;

use command_line::log::{LineWriter, Lines, LogWriter, level};
use engine::{LINFO_TARGET, MLET_TARGET};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Starts logging for the whole process. To be called once, after the supervisor was forked, for it begins a thread.
///
/// # Errors
/// No thread can be had.
pub(crate) fn start(verbose: u8, quiet: u8) -> io::Result<Arc<LogWriter>> {
    let writer = Arc::new(LogWriter::start(io::stderr())?);
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level(verbose, quiet))
        .with_writer(Lines { log: Arc::clone(&writer), room })
        .event_format(Line::Log { colour: wants_colour() })
        .finish();
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(writer)
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

/// Bytes that may wait to be written: some ten thousand lines, which is what an hour of a calm run brings.
const QUEUE_LEN: usize = 4 << 20;

/// Of these, what only the last line of the program may use, which says why it ends.
const RESERVE_LEN: usize = 64 << 10;

/// What endpoints log, and what mlets write, takes half of the room at most, so that they cannot make the lines about others
/// be lost.
fn room(target: &str) -> usize {
    if [LINFO_TARGET, MLET_TARGET].contains(&target) {
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

/// Layout of one line.
enum Line {
    /// With time and level.
    Log { colour: bool },
    /// Beginning as the last line of the program does, where there is no log.
    Warning,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut line: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        match self {
            Self::Log { colour } => {
                SystemTime.format_time(&mut line)?;
                let level = *event.metadata().level();
                match paint(level).filter(|_| *colour) {
                    Some(paint) => write!(line, " {paint}{level:>5}\x1b[0m ")?,
                    None => write!(line, " {level:>5} ")?,
                }
            }
            Self::Warning => write!(line, "pktxpmgr: WARNING: ")?,
        }
        context.format_fields(line.by_ref(), event)?;
        writeln!(line)
    }
}

fn paint(level: Level) -> Option<&'static str> {
    match level {
        Level::ERROR => Some("\x1b[31m"),
        Level::WARN => Some("\x1b[33m"),
        Level::INFO => None,
        _ => Some("\x1b[2m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_endpoints_log_leaves_half_of_the_room_and_other_lines_leave_some_for_the_last_one() {
        assert_eq!((room(LINFO_TARGET), room("engine")), (QUEUE_LEN / 2, QUEUE_LEN - RESERVE_LEN));
    }
}
