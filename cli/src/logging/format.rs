//! What a log line looks like in each format.
//!
//! Not here: which lines there are. Invariant: a line of JSON is one object, and what was said stays within its string; a
//! line for journald begins with its priority, whatever line ends are in what was said.

use std::fmt;

use clap::ValueEnum;
use serde::Serializer;
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// `--log-format` as typed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// A JSON object a line.
    Json,
    /// The priority as `<4>` before each line, and no time, which the journal knows.
    Journald,
}

/// A level as it is called in JSON, and its priority in syslog(3), as the journal takes it.
type Shown = (&'static str, u8);

/// Of what is told beside the events of the log.
pub(super) const WARN: Shown = ("WARN", 4);
/// Of the reason why the program ends.
pub(super) const FATAL: Shown = ("FATAL", 2);

fn shown(level: Level) -> Shown {
    match level {
        Level::ERROR => ("ERROR", 3),
        Level::WARN => WARN,
        Level::INFO => ("INFO", 6),
        Level::DEBUG => ("DEBUG", 7),
        Level::TRACE => ("TRACE", 7),
    }
}

/// A text that is no event of the log, with the line's end.
pub(super) fn told(log_format: LogFormat, (name, priority): Shown, text: &str) -> String {
    match log_format {
        LogFormat::Text => format!("{text}\n"),
        LogFormat::Json => json(name, vec![("message", text.into())]) + "\n",
        LogFormat::Journald => prioritised(priority, text),
    }
}

/// Each line behind its priority.
fn prioritised(priority: u8, text: &str) -> String {
    text.lines().map(|line| format!("<{priority}>{line}\n")).collect()
}

/// One object, which begins with time and level.
fn json(level: &str, members: Vec<(&'static str, Value)>) -> String {
    let mut out = Vec::new();
    let first = [("time", now().into()), ("level", level.into())];
    // It fails only where writing does, and nothing is written but memory.
    let _ = serde_json::Serializer::new(&mut out).collect_map(first.into_iter().chain(members));
    String::from_utf8(out).unwrap_or_default()
}

/// As in text.
fn now() -> String {
    let mut time = String::new();
    // It fails only where writing does.
    let _ = SystemTime.format_time(&mut Writer::new(&mut time));
    time
}

/// The message and the fields of an event.
#[derive(Default)]
struct Members(Vec<(&'static str, Value)>);

impl Visit for Members {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.push((field.name(), value.into()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.push((field.name(), value.into()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.push((field.name(), value.into()));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.push((field.name(), value.into()));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.push((field.name(), AsLogged(value).to_string().into()));
    }
}

/// What tracing hands on as Debug: the message, and fields by their Display form.
struct AsLogged<'a>(&'a dyn fmt::Debug);

impl fmt::Display for AsLogged<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Layout of one line.
pub(super) enum Line {
    /// Of the log.
    Log {
        log_format: LogFormat,
        /// In text, of levels.
        colour: bool,
    },
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
        let level = *event.metadata().level();
        let (name, priority) = shown(level);
        match self {
            Self::Log { log_format: LogFormat::Text, colour } => {
                SystemTime.format_time(&mut line)?;
                match paint(level).filter(|_| *colour) {
                    Some(paint) => write!(line, " {paint}{level:>5}\x1b[0m ")?,
                    None => write!(line, " {level:>5} ")?,
                }
            }
            Self::Log { log_format: LogFormat::Json, .. } => {
                let mut members = Members::default();
                event.record(&mut members);
                return writeln!(line, "{}", json(name, members.0));
            }
            Self::Log { log_format: LogFormat::Journald, .. } => {
                let mut text = String::new();
                context.format_fields(Writer::new(&mut text), event)?;
                return line.write_str(&prioritised(priority, &text));
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
    fn every_line_of_a_text_has_its_priority() {
        let lines = told(LogFormat::Journald, FATAL, "one\n   | ^^^\n   = two");
        assert_eq!(lines, "<2>one\n<2>   | ^^^\n<2>   = two\n");
        assert_eq!(shown(Level::ERROR).1, 3);
        assert_eq!(shown(Level::TRACE).1, 7);
    }

    #[test]
    fn a_text_stays_within_one_object_whatever_is_in_it() {
        let line = told(LogFormat::Json, WARN, "a \"b\"\n\u{1b}[2J");
        assert_eq!(line.lines().count(), 1);
        let read: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["message"], "a \"b\"\n\u{1b}[2J");
        assert_eq!(read["level"], "WARN");
        assert!(read["time"].as_str().unwrap().ends_with('Z'), "{line}");
    }
}
