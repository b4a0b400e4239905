//! Log lines: `2026-11-23T11:40:02.113204Z  INFO text field=value` on stderr.
//!
//! Levels: `-q` warnings and errors, default information, `-v` debug, `-vv` everything. Colour only
//! on a terminal and never with `NO_COLOR` set.

use std::fmt;
use std::io::{self, IsTerminal};
use std::sync::Arc;

use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::log_writer::{Lines, LogWriter};

/// Starts logging for the whole process. To be called once, after the supervisor was forked, for it begins a thread.
///
/// # Errors
/// No thread can be had.
pub(crate) fn start(verbose: u8, quiet: u8) -> io::Result<Arc<LogWriter>> {
    let writer = Arc::new(LogWriter::start(io::stderr())?);
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level(verbose, quiet))
        .with_writer(Lines(Arc::clone(&writer)))
        .event_format(Line { colour: wants_colour() })
        .finish();
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(writer)
}

fn level(verbose: u8, quiet: u8) -> LevelFilter {
    match i16::from(verbose) - i16::from(quiet) {
        ..=-2 => LevelFilter::ERROR,
        -1 => LevelFilter::WARN,
        0 => LevelFilter::INFO,
        1 => LevelFilter::DEBUG,
        2.. => LevelFilter::TRACE,
    }
}

fn wants_colour() -> bool {
    let forbidden = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stderr().is_terminal() && !forbidden
}

/// Layout of one line.
struct Line {
    colour: bool,
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
        SystemTime.format_time(&mut line)?;
        let level = *event.metadata().level();
        match paint(level).filter(|_| self.colour) {
            Some(paint) => write!(line, " {paint}{level:>5}\x1b[0m ")?,
            None => write!(line, " {level:>5} ")?,
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
    fn each_v_shows_more_and_each_q_less() {
        let cases = [
            ((0, 0), LevelFilter::INFO),
            ((1, 0), LevelFilter::DEBUG),
            ((2, 0), LevelFilter::TRACE),
            ((9, 0), LevelFilter::TRACE),
            ((0, 1), LevelFilter::WARN),
            ((0, 2), LevelFilter::ERROR),
            ((1, 1), LevelFilter::INFO),
            ((u8::MAX, u8::MAX), LevelFilter::INFO),
        ];
        for ((verbose, quiet), expected) in cases {
            assert_eq!(level(verbose, quiet), expected, "-v x{verbose}, -q x{quiet}");
        }
    }
}
