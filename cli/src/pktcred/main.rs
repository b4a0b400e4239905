//! `pktcred`: keys, certificates, signing requests and homes for PacketLab, exchangeable with those of
//! the original's Python tool.

mod certificate_options;
mod commands;
#[cfg(test)]
#[path = "../../../engine/tests/common/examples.rs"]
mod examples;
mod facts;
mod failure;
mod files;
mod passphrase;
mod validity;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use command_line::pages::Pages;
use command_line::usage;
use packetlab::time::Ticks;
use tracing_subscriber::filter::LevelFilter;

use certificate_options::CertificateCommand;
use failure::Failure;
use files::Place;

const EXAMPLES: &str = "\
Examples:
  pktcred init          make ~/.pktlab: keys, certificates, config files
  pktcred sign exppriv --signer k_eop --csr their.csr -o their.cert
  pktcred add-privilege --cert exppriv.cert --eop-key eop.pub
  pktcred verify --as controller --root eop.pub pubcmd.cert exppriv.cert
  pktcred show --json ~/.pktlab/certs/*.cert";

const NOTES: &str = "\
Exit codes: 0 done, 1 a verified chain or a shown file is not right, 2 usage,
3 a file or key cannot be used or written, 130/143 interrupted at the passphrase
prompt.";

/// Makes, shows and checks PacketLab keys and certificates.
#[derive(Debug, Parser)]
#[command(
    name = "pktcred",
    version,
    about = "makes, shows and checks PacketLab keys and certificates",
    before_help = EXAMPLES,
    after_help = NOTES
)]
struct Args {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a home: keys, certificates, signing requests and config files
    Init(commands::init::Options),
    /// Make a key pair
    Key(commands::key::Options),
    /// Make a signing request, for somebody else to sign
    #[command(subcommand, before_help = commands::issue::CSR_EXAMPLES)]
    Csr(CertificateCommand<commands::issue::CsrOptions>),
    /// Sign a certificate, from a signing request or for a public key
    #[command(subcommand, before_help = commands::issue::SIGN_EXAMPLES)]
    Sign(CertificateCommand<commands::issue::SignOptions>),
    /// Decode keys, certificates, signing requests and programs
    Show(commands::show::Options),
    /// Check a chain of certificates as its peer would
    Verify(commands::verify::Options),
    /// Print the digests of programs, as certificates name them
    Digest(commands::digest::Options),
    /// Put a privilege that you got into home and config files
    AddPrivilege(commands::privilege::Options),
    #[command(flatten)]
    Pages(Pages),
}

fn main() -> ExitCode {
    let matches = definition().try_get_matches();
    let args = matches.and_then(|matches| Args::from_arg_matches(&matches));
    let args = args.unwrap_or_else(|said| usage::told("pktcred", &said));
    warn_on_stderr();
    match run(&args) {
        Ok(exit) => exit.into(),
        Err(failure) => failure.report(),
    }
}

fn definition() -> clap::Command {
    usage::laid_out(Args::command())
}

fn run(args: &Args) -> Result<failure::Exit, Failure> {
    let now = Ticks::from_system_time(std::time::SystemTime::now());
    match &args.command {
        Command::Init(options) => commands::init::run(options, &args.place),
        Command::Key(options) => commands::key::run(options, &args.place),
        Command::Csr(options) => commands::issue::request(options, &args.place),
        Command::Sign(options) => commands::issue::sign(options, &args.place, now),
        Command::Show(options) => commands::show::run(options, &args.place, now),
        Command::Verify(options) => commands::verify::run(options, &args.place, now),
        Command::Digest(options) => commands::digest::run(options, &args.place),
        Command::AddPrivilege(options) => commands::privilege::run(options, &args.place, now),
        Command::Pages(pages) => {
            pages.write(definition()).map(|()| failure::Exit::Success).map_err(Failure::unusable)
        }
    }
}

/// What the shared modules log, such as a key that a group may read.
fn warn_on_stderr() {
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::WARN)
        .with_writer(std::io::stderr)
        .without_time()
        .with_target(false)
        .log_internal_errors(false)
        .finish();
    let _ = tracing::subscriber::set_global_default(subscriber);
}

#[cfg(test)]
mod tests {
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
