//! `pktxpmgr results ls`: a line for each session.
//!
//! Not here: the columns that programs get (`columns.rs`).

use std::io::{self, BufWriter, Write};

use clap::{Args, ValueEnum};

use super::chosen::{Chosen, Sort, Wanted};
use super::columns::{self, Format};
use super::failure::Failure;
use super::record::Session;
use super::words;

const EXAMPLES: &str = "\
Examples:
  pktxpmgr results ls DIR
  pktxpmgr results ls DIR --outcome failed --sort bytes
  pktxpmgr results ls DIR --format jsonl";

#[derive(Debug, Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct Options {
    #[command(flatten)]
    wanted: Wanted,

    /// What comes first: the lowest number, the earliest, the longest run, the most bytes
    #[arg(long, value_enum, default_value_t, value_name = "BY")]
    sort: Sort,

    /// A table for people, or what export writes
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: ListFormat,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum ListFormat {
    #[default]
    Table,
    Csv,
    Jsonl,
}

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let Options { wanted, sort, format } = options;
    match format {
        ListFormat::Csv => list(wanted, *sort, Format::Csv),
        ListFormat::Jsonl => list(wanted, *sort, Format::Jsonl),
        ListFormat::Table => table(wanted, *sort),
    }
}

/// Writes the columns of the sessions that are wanted.
pub(crate) fn list(wanted: &Wanted, sort: Sort, format: Format) -> Result<(), Failure> {
    let folder = wanted.open()?;
    let chosen = Chosen::find(&folder, &wanted.filter, sort)?;
    let mut out = BufWriter::new(io::stdout().lock());
    columns::write_names(&mut out, format)?;
    for session in chosen.sessions(&folder) {
        columns::write_session(&mut out, format, &session?)?;
    }
    Ok(out.flush()?)
}

fn table(wanted: &Wanted, sort: Sort) -> Result<(), Failure> {
    let folder = wanted.open()?;
    let chosen = Chosen::find(&folder, &wanted.filter, sort)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let [session, key, outcome, exit] = ["session", "key", "outcome", "exit"];
    let [run, bytes, started] = ["run", "bytes", "started (UTC)"];
    writeln!(out, "{session:>7} {key:12} {outcome:19} {exit:>6} {run:>8} {bytes:>8} {started}")?;
    for session in chosen.sessions(&folder) {
        writeln!(out, "{}", row(&session?))?;
    }
    Ok(out.flush()?)
}

/// At most 80 columns, unless numbers are beyond all measure.
fn row(session: &Session) -> String {
    let key = words::front(session.ep.key.as_deref());
    let outcome = words::shown(&session.outcome);
    let exit = words::end_of_mlet(session.exit, session.signal);
    let run = session.ms.run.map_or_else(|| "-".into(), words::duration);
    let bytes = words::size(session.bytes_relayed());
    let started = words::short_time(session.accepted.as_deref());
    let number = session.number;
    format!("{number:>7} {key:12} {outcome:19} {exit:>6} {run:>8} {bytes:>8} {started}")
}
