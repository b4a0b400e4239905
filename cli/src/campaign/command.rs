//! `pktxpmgr campaign`: what an operator does with a campaign that several managers share.
//!
//! Not here: what is done about it in the database (the crate `campaign`), and a manager's part in it (`member.rs`).

use ::campaign::State;
use ::campaign::administration::AdministrationError;
use clap::{Args, Subcommand};

use super::named::{Named, failed};
use super::{create, import, merge, results, status};
use crate::results::failure::Failure;

const EXAMPLES: &str = "\
Examples:
  pktxpmgr campaign create 'postgres://lab@db/lab#eu26' -n 100000 ./mlet
  pktxpmgr campaign status 'postgres://lab@db/lab#eu26'
  pktxpmgr campaign stop 'postgres://lab@db/lab#eu26'
  pktxpmgr campaign results 'postgres://lab@db/lab#eu26' >eu26.jsonl";

const NOTES: &str = "\
URL#NAME is the database and the campaign in it, as a manager is given it with
--campaign; it holds no password. Each command has --help of its own. A mlet of
this name is run by pktxpmgr ./campaign or pktxpmgr -- campaign.

Exit codes: 0 done, 1 refused, or merged without all that was accepted, 2 usage,
3 a file cannot be used, or the tables of the database, 4 the database cannot be
reached, does not let us in, or cannot do it now, 74 the result cannot be
written.";

/// What `pktxpmgr campaign` can be told.
#[derive(Debug, Args)]
#[command(before_help = EXAMPLES, after_help = NOTES, disable_help_subcommand = true)]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Fix what all managers measure
    Create(create::Options),
    /// Tell how it stands, and who measures
    Status(status::Options),
    /// Let no session begin any more
    #[command(before_help = "Examples:\n  pktxpmgr campaign stop 'postgres://lab@db/lab#eu26'")]
    Stop(Named),
    /// End the sessions that run, as well
    #[command(before_help = "Examples:\n  pktxpmgr campaign halt 'postgres://lab@db/lab#eu26'")]
    Halt(Named),
    /// Write the results that were accepted as JSON lines
    Results(results::Options),
    /// Join managers' folders into one
    Merge(merge::Options),
    /// Put managers' results back into the database
    Import(import::Options),
    /// Remove it with all its results
    #[command(before_help = "Examples:\n  pktxpmgr campaign forget 'postgres://lab@db/lab#eu26'")]
    Forget(Named),
}

/// Does what is asked for.
///
/// # Errors
/// It is refused, or the database cannot be reached.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    match &options.command {
        Command::Create(options) => create::run(options),
        Command::Status(options) => status::run(options),
        Command::Stop(named) => tell(named.open()?.stop()),
        Command::Halt(named) => tell(named.open()?.halt()),
        Command::Results(options) => results::run(options),
        Command::Import(options) => import::run(options),
        Command::Merge(options) => merge::run(options),
        Command::Forget(named) => named.open()?.forget().map_err(failed),
    }
}

/// Tells how the campaign stands now.
fn tell(ended: Result<State, AdministrationError>) -> Result<(), Failure> {
    let state = ended.map_err(failed)?;
    status::print(&format!("the campaign is {state}\n"))
}
