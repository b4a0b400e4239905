//! `pktfleet`: the outside of pktxpmgr for demonstrations and tests. Simulated endpoints with real
//! credentials and real sockets, and what they need around them.
//!
//! Not here: anything pktxpmgr does itself; the two share the wire format and nothing else.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod binaries;
mod demo;
mod endpoint;
mod home;
mod load;
mod page;
mod pktxpmgr;
mod report;
mod web;

/// Simulated PacketLab endpoints for pktxpmgr
#[derive(Debug, Parser)]
#[command(version)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a whole experiment on loopback and show the page that came back through each endpoint
    Demo(demo::Options),
    /// Measure what many endpoints cost a pktxpmgr
    Load(load::Options),
}

fn main() -> ExitCode {
    match CommandLine::parse().command {
        Command::Demo(options) => demo::run(&options),
        Command::Load(options) => load::run(&options),
    }
}
