//! `pktxpmgr results`: what a results folder holds, for people and for programs.
//!
//! Not here: how a run writes the folder, and the report (`report_page/`). Nothing is ever written here but standard
//! output, and warnings to standard error. `folder.rs` alone reads the folder.

mod cat;
pub(crate) mod chosen;
mod columns;
mod export;
pub(crate) mod failure;
pub(crate) mod folder;
pub(crate) mod lines;
mod ls;
mod outcome;
pub(crate) mod record;
pub(crate) mod run;
mod show;
mod stats;
pub(crate) mod stream_file;
pub(crate) mod tally;
pub(crate) mod time;
pub(crate) mod words;

use clap::{Args, Subcommand};

use failure::Failure;

const EXAMPLES: &str = "\
Examples:
  pktxpmgr results ls DIR                        a line for each session
  pktxpmgr results ls DIR --outcome failed       those that failed
  pktxpmgr results show DIR 412                  all about session 412
  pktxpmgr results cat DIR --key ab12,cd34       output for two endpoints
  pktxpmgr results cat DIR --outcome ok --tag    every line with its session
  pktxpmgr results stats DIR --since 2026-11-23  counts, reasons, percentiles
  pktxpmgr results export DIR >campaign.csv      for pandas, R, DuckDB";

const NOTES: &str = "\
DIR is the folder that a run was given with --out; it may still be running.
Each command has --help of its own, and so has pktxpmgr report, which makes a
page of a folder. A mlet of this name is run by pktxpmgr ./results or
pktxpmgr -- results.

Exit codes: 0 done, 2 usage, 3 the folder cannot be read, 74 the result cannot
be written.";

/// What `pktxpmgr results` can be told.
#[derive(Debug, Args)]
#[command(before_help = EXAMPLES, after_help = NOTES, disable_help_subcommand = true)]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List sessions, a line each
    Ls(ls::Options),
    /// Show all that is known of one session
    Show(show::Options),
    /// Print what mlets printed, one session after another
    Cat(cat::Options),
    /// Count outcomes and reasons, with percentiles
    Stats(stats::Options),
    /// Write everything as CSV or JSON lines
    Export(export::Options),
}

/// Does what is asked for.
///
/// # Errors
/// Nothing like that is there, or it cannot be read or written.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    match &options.command {
        Command::Ls(options) => ls::run(options),
        Command::Show(options) => show::run(options),
        Command::Cat(options) => cat::run(options),
        Command::Stats(options) => stats::run(options),
        Command::Export(options) => export::run(options),
    }
}
