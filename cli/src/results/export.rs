//! `pktxpmgr results export`: everything that records say, for programs.
//!
//! Not here: the columns (`columns.rs`).

use clap::Args;

use super::chosen::{Sort, Wanted};
use super::columns::Format;
use super::failure::Failure;
use super::ls;

const EXAMPLES: &str = "\
Examples:
  pktxpmgr results export DIR >campaign.csv
  pktxpmgr results export DIR --format jsonl --outcome ok";

#[derive(Debug, Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct Options {
    /// CSV with a line of names, or a JSON object a line
    #[arg(long, value_enum, default_value = "csv", value_name = "FORMAT")]
    format: Format,

    #[command(flatten)]
    wanted: Wanted,
}

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    ls::list(&options.wanted, Sort::Session, options.format)
}
