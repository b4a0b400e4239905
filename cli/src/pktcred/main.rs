//! `pktcred`: keys, certificates, signing requests and homes for PacketLab, exchangeable with those of
//! the original's Python tool.

mod certificate_options;
mod commands;
#[cfg(test)]
#[path = "../examples.rs"]
mod examples;
mod facts;
mod failure;
mod files;
mod passphrase;
mod validity;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use command_line::usage;
use packetlab::time::Ticks;
use tracing_subscriber::filter::LevelFilter;

use failure::Failure;
use files::Place;

const EXAMPLES: &str = "\
Examples:
  pktcred init          make ~/.pktlab: keys, certificates, config files
  pktcred sign exppriv --signer k_eop --csr their.csr -o their.cert
  pktcred add-privilege --cert exppriv.cert --eop-key eop.pub
  pktcred verify --as controller --root eop.pub pubcmd.cert exppriv.cert
  pktcred show --json ~/.pktlab/certs/*.cert";

const TEMPLATE: &str = "\
{name} {version}: {about}

{before-help}{usage-heading} {usage}

{all-args}

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
    help_template = TEMPLATE,
    max_term_width = usage::HELP_COLUMNS
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
    Csr(commands::issue::CsrOptions),
    /// Sign a certificate, from a signing request or for a public key
    Sign(commands::issue::SignOptions),
    /// Decode keys, certificates, signing requests and programs
    Show(commands::show::Options),
    /// Check a chain of certificates as its peer would
    Verify(commands::verify::Options),
    /// Print the digests of programs, as certificates name them
    Digest(commands::digest::Options),
    /// Put a privilege that an endpoint operator gave into the home and its config files
    AddPrivilege(commands::privilege::Options),
}

fn main() -> ExitCode {
    let args = Args::try_parse().unwrap_or_else(|said| usage::told("pktcred", &said));
    warn_on_stderr();
    match run(&args) {
        Ok(exit) => exit.into(),
        Err(failure) => failure.report(),
    }
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
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_example_of_the_help_is_understood() {
        examples::assert_understood::<Args>(EXAMPLES, "");
    }
}
