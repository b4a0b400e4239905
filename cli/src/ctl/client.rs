//! `pktxpmgr ctl`: sends words to a run, and shows what it answers.
//!
//! Not here: what the words mean, which the run knows.

use std::io::{self, BufRead, BufReader, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Command};
use command_line::status_line::columns_of;
use packetlab::escape::Escaped;
use serde_json::{Map, Value, json};

use super::words::Asked;
use crate::private_socket::connect;
use crate::results::failure::Failure;
use crate::results::words;

const EXAMPLES: &str = "\
Examples:
  pktxpmgr ctl SOCK show                        counts of the whole run
  pktxpmgr ctl SOCK show sessions               those past START
  pktxpmgr ctl SOCK kill 12                     end session 12
  pktxpmgr ctl SOCK kill 6b23f2c2b025           end all of this endpoint's key
  pktxpmgr ctl SOCK drain                       let the run come to its end
  pktxpmgr ctl SOCK stop                        end the run now
  pktxpmgr ctl SOCK reload                      read the configuration again
  pktxpmgr ctl SOCK set idle-timeout 5m         for new sessions
  pktxpmgr ctl SOCK loglevel debug              log more
  pktxpmgr ctl SOCK --json show limits          lines of JSON, for programs";

const NOTES: &str = "\
A request has a page of its own: pktxpmgr ctl SOCK kill --help. A mlet of this
name is run by pktxpmgr ./ctl or pktxpmgr -- ctl.

Exit codes: 0 done, 1 the run refused it, 2 usage, 3 no run is there.";

/// What `pktxpmgr ctl` can be told.
#[derive(Debug, Args)]
#[command(before_help = EXAMPLES, after_help = NOTES, subcommand_value_name = "REQUEST")]
#[command(disable_help_subcommand = true)]
pub(crate) struct Options {
    /// The socket that the run was given with --ctl
    #[arg(value_name = "SOCK")]
    socket: PathBuf,

    /// Print the lines of JSON as they come
    #[arg(long, global = true)]
    json: bool,

    #[command(subcommand)]
    asked: Asked,
}

/// How long the run may take to be heard of.
const PATIENCE: Duration = Duration::from_secs(10);

/// The same of a reload: its files may be slow, and the run gives them up before.
const RELOAD_PATIENCE: Duration = Duration::from_secs(120);

/// What of a value is shown in a table.
const VALUE_LEN: usize = 80;

/// Ends what is cut.
const CUT: char = '\u{2026}';

/// The order of columns; others, of a later version, come behind them.
const ORDER: [&str; 17] = [
    "session",
    "key",
    "pid",
    "age_s",
    "to_ep",
    "from_ep",
    "peer",
    "last_outcome",
    "snikey",
    "default",
    "certificates",
    "expires",
    "programs",
    "name",
    "limit",
    "value",
    "in_effect",
];

/// What is shown of a key or a snikey in a table.
const SHORT_LEN: usize = 12;

/// Does what is asked for.
///
/// # Errors
/// There is no run at the socket, it has refused, or nothing can be printed.
pub(crate) fn run(args: &Options) -> Result<(), Failure> {
    let unusable = |problem: &str| Failure::of_path(&args.socket, problem);
    let silent = |error: &io::Error| {
        let is = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
        is.then(|| unusable("the run does not answer (stopped or stalled?)"))
    };
    let patience = if matches!(args.asked, Asked::Reload) { RELOAD_PATIENCE } else { PATIENCE };
    let stream = connect(&args.socket).map_err(|error| {
        let another = || unusable(&format!("{error}; is it the SOCK of --ctl of a run?"));
        silent(&error).unwrap_or_else(another)
    })?;
    stream.set_read_timeout(Some(patience)).map_err(|error| unusable(&error.to_string()))?;
    // Who is turned away is told why before anything is read.
    let asked = writeln!(&stream, "{}", json!({ "words": args.asked.words() }));
    let mut rows = Vec::new();
    for line in BufReader::new(&stream).lines() {
        let line = line.map_err(|error| {
            let another = || unusable(&format!("the run does not answer: {error}"));
            silent(&error).unwrap_or_else(another)
        })?;
        if args.json {
            print(&format!("{line}\n"))?;
        }
        match serde_json::from_str::<Map<String, Value>>(&line) {
            Ok(end) if end.contains_key("done") => {
                let told = end.get("told").and_then(Value::as_str).unwrap_or_default();
                if end.get("done") != Some(&Value::Bool(true)) {
                    return Err(Failure::Refused(lines(told)));
                }
                return if args.json { Ok(()) } else { show(&rows, told) };
            }
            Ok(row) => rows.push(row),
            Err(_) => return Err(unusable("what answers is no run of pktxpmgr")),
        }
    }
    asked.map_err(|error| unusable(&format!("the run does not listen: {error}")))?;
    Err(unusable("the run has ended, and did not answer"))
}

/// The command whose usage, which errors show too, names all requests.
pub(crate) fn naming_requests(command: Command) -> Command {
    let names: Vec<_> = command.get_subcommands().map(Command::get_name).collect();
    let usage = "pktxpmgr ctl [OPTIONS] <SOCK> <REQUEST>\n       REQUEST is one of";
    let usage = format!("{usage} {}", names.join(", "));
    command.override_usage(usage)
}

/// Prints rows as a table, and what was told. Only a terminal has an edge that lines must not go beyond.
fn show(rows: &[Map<String, Value>], told: &str) -> Result<(), Failure> {
    let columns = columns_of(io::stdout()).unwrap_or(usize::MAX);
    let text = match (rows, told) {
        ([], "") => "none\n".to_owned(),
        (rows, "") => table(rows, columns),
        (rows, told) => table(rows, columns) + &lines(told) + "\n",
    };
    print(&text)
}

/// What was told, which may have several lines: why a configuration is refused is shown with the place.
fn lines(told: &str) -> String {
    told.lines().map(|line| Escaped(line.as_bytes()).to_string()).collect::<Vec<_>>().join("\n")
}

fn print(text: &str) -> Result<(), Failure> {
    io::stdout().write_all(text.as_bytes()).map_err(Failure::Output)
}

/// Rows below the names of their members, each as wide as its widest value; numbers to the right. Lines have so many columns
/// at most.
fn table(rows: &[Map<String, Value>], columns: usize) -> String {
    let Some(first) = rows.first() else { return String::new() };
    let mut names: Vec<&String> = first.keys().collect();
    names.sort_by_key(|name| ORDER.iter().position(|known| known == name).unwrap_or(ORDER.len()));
    let cells = |row: &Map<String, Value>| -> Vec<String> {
        names.iter().map(|name| cell(name, row.get(*name))).collect()
    };
    let is_number: Vec<bool> = names
        .iter()
        .map(|name| {
            rows.iter().all(|row| matches!(row.get(*name), Some(Value::Number(_) | Value::Null)))
        })
        .collect();
    let mut lines: Vec<Vec<String>> = vec![names.iter().map(|name| (*name).clone()).collect()];
    lines.extend(rows.iter().map(cells));
    let width = |column: usize| {
        lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..names.len()).map(width).collect();
    let shown = |line: &Vec<String>| {
        let cells = line.iter().enumerate().map(|(column, cell)| match is_number[column] {
            true => format!("{cell:>0$}", widths[column]),
            false => format!("{cell:<0$}", widths[column]),
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        cut(line.trim_end(), columns) + "\n"
    };
    lines.iter().map(shown).collect()
}

/// Text of at most so many columns; what is cut ends in a mark, so that it looks like no whole value.
fn cut(text: &str, columns: usize) -> String {
    if text.chars().count() <= columns {
        return text.to_owned();
    }
    text.chars().take(columns.saturating_sub(1)).chain([CUT]).collect()
}

/// A value for people.
fn cell(name: &str, value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".into(),
        Some(Value::Bool(is)) => if *is { "yes" } else { "no" }.into(),
        Some(Value::String(text)) => {
            let text = Escaped(text.as_bytes()).to_string();
            match ["key", "snikey"].contains(&name) {
                true => text.chars().take(SHORT_LEN).collect(),
                false => cut(&text, VALUE_LEN),
            }
        }
        Some(Value::Number(bytes)) if ["to_ep", "from_ep"].contains(&name) => {
            words::size(bytes.as_u64().unwrap_or_default())
        }
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_columns_and_no_line_longer_than_a_terminal() {
        let row = |session: u64, key: &str| {
            let row = json!({ "session": session, "key": key, "peer": "x".repeat(90) });
            row.as_object().unwrap().clone()
        };
        let text = table(&[row(7, &"a".repeat(64)), row(1234, "b")], 60);
        assert!(text.lines().all(|line| line.chars().count() <= 60), "{text}");
        assert_eq!(text.lines().count(), 3);
        assert!(
            text.contains(&"a".repeat(SHORT_LEN)) && !text.contains(&"a".repeat(SHORT_LEN + 1))
        );
        let rows: Vec<&str> = text.lines().collect();
        assert!(rows[1].ends_with(&format!("x{CUT}")) && rows[0].ends_with("peer"), "{text}");
        assert_eq!(table(&[], 60), "");
        let wide = table(&[row(7, "a")], 200);
        assert!(wide.ends_with(&format!("  {}{CUT}\n", "x".repeat(VALUE_LEN - 1))), "{wide}");
        assert_eq!(["abc", "abcd"].map(|text| cut(text, 3)), ["abc", "ab\u{2026}"]);
    }
}
