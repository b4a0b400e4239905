//! What programs get of a session: flat columns with stable names, as CSV (RFC 4180) or JSON lines.
//!
//! Invariant: columns are only ever added, at the end, and units are part of their names (results.md "Columns").

use std::borrow::Cow;
use std::io::{self, Write};

use clap::ValueEnum;

use super::record::{BothWays, Output, RelayLatency, Session};

/// One value.
#[derive(Debug, PartialEq)]
pub(crate) enum Value<'a> {
    Text(&'a str),
    Number(u64),
    Integer(i64),
    Real(f64),
    Flag(bool),
}

/// A column: its name, and what it holds of a session; nothing if that is not known.
pub(crate) struct Column {
    pub(crate) name: &'static str,
    value: for<'a> fn(&'a Session) -> Option<Value<'a>>,
}

const fn column(name: &'static str, value: for<'a> fn(&'a Session) -> Option<Value<'a>>) -> Column {
    Column { name, value }
}

/// Every column, in its order.
pub(crate) const COLUMNS: [Column; 43] = [
    column("session", |s| number(s.number)),
    column("run", |s| Some(Value::Text(&s.run))),
    column("key", |s| text(&s.ep.key)),
    column("root", |s| text(&s.ep.root)),
    column("snikey", |s| text(&s.ep.snikey)),
    column("peer", |s| text(&s.ep.peer)),
    column("via", |s| text(&s.ep.via)),
    column("core", |s| s.core.map(Value::Number)),
    column("accepted", |s| text(&s.accepted)),
    column("ended", |s| Some(Value::Text(&s.t))),
    column("outcome", |s| Some(Value::Text(&s.outcome))),
    column("failed", |s| Some(Value::Flag(s.failed))),
    column("reason", |s| text(&s.reason)),
    column("exit", |s| s.exit.map(Value::Integer)),
    column("signal", |s| s.signal.map(|signal| Value::Integer(signal.into()))),
    column("tls_ms", |s| s.ms.tls.map(Value::Real)),
    column("programs_ms", |s| s.ms.programs.map(Value::Real)),
    column("start_ms", |s| s.ms.start.map(Value::Real)),
    column("spawn_ms", |s| s.ms.spawn.map(Value::Real)),
    column("run_ms", |s| s.ms.run.map(Value::Real)),
    column("total_ms", |s| s.ms.total.map(Value::Real)),
    column("to_ep_bytes", |s| number(s.bytes.to_ep)),
    column("from_ep_bytes", |s| number(s.bytes.from_ep)),
    column("to_ep_msgs", |s| number(s.msgs.to_ep)),
    column("from_ep_msgs", |s| number(s.msgs.from_ep)),
    column("linfos_lost", |s| number(s.linfos_lost)),
    column("relay_to_ep_count", |s| relay(s, |r| r.to_ep).map(|l| Value::Number(l.count))),
    column("relay_to_ep_p50_us", |s| microseconds(s, |r| r.to_ep, |l| l.p50)),
    column("relay_to_ep_p99_us", |s| microseconds(s, |r| r.to_ep, |l| l.p99)),
    column("relay_to_ep_max_us", |s| microseconds(s, |r| r.to_ep, |l| l.max)),
    column("relay_from_ep_count", |s| relay(s, |r| r.from_ep).map(|l| Value::Number(l.count))),
    column("relay_from_ep_p50_us", |s| microseconds(s, |r| r.from_ep, |l| l.p50)),
    column("relay_from_ep_p99_us", |s| microseconds(s, |r| r.from_ep, |l| l.p99)),
    column("relay_from_ep_max_us", |s| microseconds(s, |r| r.from_ep, |l| l.max)),
    column("output_dir", |s| s.output.as_ref().and_then(|output| text(&output.dir))),
    column("stdout_bytes", |s| s.output.as_ref().map(|output| Value::Number(output.stdout))),
    column("stderr_bytes", |s| s.output.as_ref().map(|output| Value::Number(output.stderr))),
    column("truncated", |s| s.output.as_ref().map(|output| Value::Flag(output.truncated))),
    column("shown_key", |s| text(&s.ep.shown_key)),
    column("output_stream", |s| s.output.as_ref().and_then(|output| text(&output.stream))),
    column("stdout_written", |s| written(s, |output| output.stdout_written)),
    column("stderr_written", |s| written(s, |output| output.stderr_written)),
    column("crashed_monitor", |s| s.crashed_monitor.map(|index| Value::Number(index.into()))),
];

/// How programs get them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// RFC 4180, with a line of names; nothing for what is not known.
    Csv,
    /// A JSON object a line; `null` for what is not known.
    Jsonl,
}

/// Writes the line of names, where the format has one.
///
/// # Errors
/// Of the writer.
pub(crate) fn write_names(out: &mut impl Write, format: Format) -> io::Result<()> {
    match format {
        Format::Csv => writeln!(out, "{}", COLUMNS.map(|column| column.name).join(",")),
        Format::Jsonl => Ok(()),
    }
}

/// Writes the line of a session.
///
/// # Errors
/// Of the writer.
pub(crate) fn write_session(
    out: &mut impl Write,
    format: Format,
    session: &Session,
) -> io::Result<()> {
    for (index, column) in COLUMNS.iter().enumerate() {
        let value = (column.value)(session);
        match format {
            Format::Csv => {
                out.write_all(if index == 0 { b"" } else { b"," })?;
                value.iter().try_for_each(|value| write_csv(out, value))?;
            }
            Format::Jsonl => {
                out.write_all(if index == 0 { b"{" } else { b"," })?;
                write!(out, "\"{}\":", column.name)?;
                write_json(out, value.as_ref())?;
            }
        }
    }
    out.write_all(if format == Format::Jsonl { b"}\n" } else { b"\n" })
}

fn write_csv(out: &mut impl Write, value: &Value<'_>) -> io::Result<()> {
    match value {
        Value::Text(text) => out.write_all(quoted(text).as_bytes()),
        Value::Number(number) => write!(out, "{number}"),
        Value::Integer(number) => write!(out, "{number}"),
        // With a point even if it is whole, so that every row tells the same type.
        Value::Real(number) => Ok(serde_json::to_writer(out, number)?),
        Value::Flag(flag) => write!(out, "{flag}"),
    }
}

fn write_json(out: &mut impl Write, value: Option<&Value<'_>>) -> io::Result<()> {
    match value {
        None => out.write_all(b"null"),
        Some(Value::Text(text)) => Ok(serde_json::to_writer(out, text)?),
        Some(value) => write_csv(out, value),
    }
}

/// A text as a field of CSV. An empty one has quotation marks, so that it is not taken for none.
fn quoted(text: &str) -> Cow<'_, str> {
    let is_plain = !text.is_empty()
        && !text.contains(['"', ',', '\n', '\r'])
        && text.trim().len() == text.len();
    match is_plain {
        true => Cow::Borrowed(text),
        false => Cow::Owned(format!("\"{}\"", text.replace('"', "\"\""))),
    }
}

fn text(text: &Option<String>) -> Option<Value<'_>> {
    text.as_deref().map(Value::Text)
}

fn number<'a>(number: u64) -> Option<Value<'a>> {
    Some(Value::Number(number))
}

fn written<'a>(session: &Session, part: fn(&Output) -> Option<u64>) -> Option<Value<'a>> {
    session.output.as_ref().and_then(part).map(Value::Number)
}

/// A direction of a session's latency.
type Direction = fn(&BothWays<Option<RelayLatency>>) -> Option<RelayLatency>;

fn relay(session: &Session, direction: Direction) -> Option<RelayLatency> {
    session.relay_us.as_ref().and_then(direction)
}

fn microseconds<'a>(
    session: &Session,
    direction: Direction,
    part: fn(&RelayLatency) -> Option<f64>,
) -> Option<Value<'a>> {
    relay(session, direction).and_then(|latency| part(&latency)).map(Value::Real)
}

#[cfg(test)]
mod tests {
    use serde_json::Value as Json;

    use super::*;
    use crate::results::record::{self, Event};

    fn session() -> Session {
        let line = r#"{"v":1,"t":"2026-11-23T12:00:00Z","ev":"session.end","run":"7f3a","sid":7,
            "outcome":"mlet_failed","failed":true,"reason":"said \"no\", and\nleft","exit":-3,"crashed_monitor":2,"ms":{"tls":41.2},
            "relay_us":{"to_ep":{"count":4,"p50":11.0,"p99":84.5,"max":912},"from_ep":null},
            "output":{"dir":"sessions/000007-nokey","stdout":12,"stderr":0,"truncated":false}}"#;
        match record::read(line.as_bytes()) {
            Ok(Event::Session(session)) => *session,
            other => panic!("{other:?}"),
        }
    }

    fn written(format: Format) -> String {
        let mut out = Vec::new();
        write_names(&mut out, format).unwrap();
        write_session(&mut out, format, &session()).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn csv_quotes_what_would_end_a_field_and_leaves_out_what_is_not_known() {
        let expected = "7,7f3a,,,,,,,,2026-11-23T12:00:00Z,mlet_failed,true,\"said \"\"no\"\", and\nleft\",-3,,\
             41.2,,,,,,0,0,0,0,0,4,11.0,84.5,912.0,,,,,sessions/000007-nokey,12,0,false,,,,,2\n";
        let csv = written(Format::Csv);
        let (names, line) = csv.split_once('\n').unwrap();
        assert_eq!(line, expected);
        assert!(names.starts_with("session,run,key,"));
        assert_eq!(quoted(""), "\"\"");
        assert_eq!(quoted(" a"), "\" a\"");
    }

    #[test]
    fn a_json_line_has_every_column_by_its_name() {
        let line: Json = serde_json::from_str(&written(Format::Jsonl)).unwrap();
        assert_eq!(line.as_object().unwrap().len(), COLUMNS.len());
        assert_eq!(line["reason"], "said \"no\", and\nleft");
        assert_eq!((&line["key"], &line["exit"]), (&Json::Null, &Json::from(-3)));
        assert_eq!(
            (&line["relay_to_ep_max_us"], &line["truncated"]),
            (&912.0.into(), &false.into())
        );
    }
}
