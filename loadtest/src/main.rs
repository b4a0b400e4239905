//! `pktfleet`: the outside of pktxpmgr for demonstrations and tests. Simulated endpoints with real
//! credentials and real sockets, and what they need around them.
//!
//! Not here: anything pktxpmgr does itself; the two share the wire format and nothing else.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use command_line::usage;
use hosts::{broker, endpoint, proxy};

mod binaries;
mod console;
mod demo;
mod fleet;
mod load;
mod local_hosts;
mod page;
mod pktxpmgr;
mod records;
#[cfg(test)]
mod tests;
mod web;

/// Simulated PacketLab endpoints for pktxpmgr
#[derive(Debug, Parser)]
#[command(
    name = "pktfleet",
    version,
    propagate_version = true,
    max_term_width = usage::HELP_COLUMNS
)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a whole experiment on loopback and show the page that came back through each endpoint
    Demo(demo::Options),
    /// Carry published experiments to the endpoints that subscribe
    Broker(broker::Options),
    /// Bring controllers and endpoints together that cannot reach one another
    Proxy(proxy::Options),
    /// Be an endpoint: subscribe at a broker and serve what it tells of, or serve one controller
    Endpoint(endpoint::hosted::Options),
    /// Be many endpoints of one operator in one process, which subscribe at a broker
    Fleet(fleet::Options),
    /// Measure what many endpoints cost a pktxpmgr
    Load(load::Options),
}

fn main() -> ExitCode {
    let command_line = match CommandLine::try_parse() {
        Ok(command_line) => command_line,
        Err(said) => usage::told("pktfleet", &said),
    };
    match command_line.command {
        Command::Demo(options) => demo::run(&options),
        Command::Broker(options) => broker::run(&options),
        Command::Proxy(options) => proxy::run(&options),
        Command::Endpoint(options) => endpoint::hosted::run(&options),
        Command::Fleet(options) => fleet::run(&options),
        Command::Load(options) => load::run(&options),
    }
}
