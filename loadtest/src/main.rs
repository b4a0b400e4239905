//! `pktfleet`: the outside of pktxpmgr for demonstrations and tests. Simulated endpoints with real
//! credentials and real sockets, and what they need around them.
//!
//! Not here: anything pktxpmgr does itself; the two share the wire format and nothing else.

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use command_line::pages::Pages;
use command_line::usage;
use hosts::{broker, endpoint, proxy};

mod binaries;
mod console;
mod demo;
#[cfg(test)]
#[path = "../../engine/tests/common/examples.rs"]
mod examples;
mod fleet;
mod load;
mod local_hosts;
mod page;
mod pktxpmgr;
mod records;
mod replay;
#[cfg(test)]
mod tests;
mod try_mlet;
mod web;

const EXAMPLES: &str = "\
Examples:
  pktfleet demo                       a whole experiment on loopback
  pktfleet try ./mlet ARGUMENT        a mlet of yours, over this host's network
  pktfleet broker --agent broker.cert --key broker
  pktfleet load echo --endpoints 100  what a relayed round trip takes";

/// Simulated PacketLab endpoints for pktxpmgr
#[derive(Debug, Parser)]
#[command(name = "pktfleet", version, propagate_version = true, before_help = EXAMPLES)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a whole experiment on loopback and show its pages
    Demo(demo::Options),
    /// Run a mlet once, with nothing configured, over this host's network
    Try(try_mlet::Options),
    /// Run a mlet against what an endpoint has said before
    Replay(replay::Options),
    /// Carry published experiments to the endpoints that subscribe
    Broker(broker::Options),
    /// Join controllers and endpoints that cannot reach one another
    Proxy(proxy::Options),
    /// Be an endpoint, for a broker's experiments or one controller
    Endpoint(endpoint::hosted::Options),
    /// Be many endpoints of one operator that subscribe at a broker
    Fleet(fleet::Options),
    /// Measure what many endpoints cost a pktxpmgr
    Load(load::Options),
    #[command(flatten)]
    Pages(Pages),
}

/// Exit code where pages cannot be written (EX_IOERR).
const NOT_WRITTEN: u8 = 74;

fn main() -> ExitCode {
    let matches = definition().try_get_matches();
    let command_line = matches.and_then(|matches| CommandLine::from_arg_matches(&matches));
    let command_line = command_line.unwrap_or_else(|said| usage::told("pktfleet", &said));
    match command_line.command {
        Command::Demo(options) => demo::run(&options),
        Command::Try(options) => try_mlet::run(&options),
        Command::Replay(options) => replay::run(&options),
        Command::Broker(options) => broker::run(&options),
        Command::Proxy(options) => proxy::run(&options),
        Command::Endpoint(options) => endpoint::hosted::run(&options),
        Command::Fleet(options) => fleet::run(&options),
        Command::Load(options) => load::run(&options),
        Command::Pages(pages) => match pages.write(definition()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(problem) => {
                console::note(format_args!("pktfleet: {problem}"));
                NOT_WRITTEN.into()
            }
        },
    }
}

fn definition() -> clap::Command {
    usage::laid_out(CommandLine::command())
}

#[cfg(test)]
mod help_tests {
    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        definition().debug_assert();
    }

    #[test]
    fn every_page_of_help_begins_with_examples_that_are_understood() {
        examples::assert_on_every_page(definition());
    }
}
