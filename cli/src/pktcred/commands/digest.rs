//! `pktcred digest`: the digest by which certificates demand a program (spec/protocol.md 6.3).

use std::path::PathBuf;

use clap::Args;
use packetlab::key::Hex;

use crate::failure::{Exit, Failure, print, shown};
use crate::files::Place;

const EXAMPLES: &str = "\
Examples:
  pktcred digest monitor.ebpf
  pktcred digest monitor.ebpf filter.wasm";

#[derive(Debug, Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct Options {
    /// Program files: eBPF text (.ebpf or no suffix) or WebAssembly (.wasm)
    #[arg(value_name = "PROGRAM", required = true)]
    programs: Vec<PathBuf>,
}

/// Prints lines as `sha256sum` does.
pub(crate) fn run(options: &Options, place: &Place) -> Result<Exit, Failure> {
    for name in &options.programs {
        let program = place.program(name)?;
        print(&format!("{}  {}\n", Hex(program.digest()), shown(name)))?;
    }
    Ok(Exit::Success)
}
