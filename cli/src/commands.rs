//! `results`, `report`, `campaign`, `ctl` and `completions`: words that are commands where a mlet could stand.
//!
//! Not here: what they do. Invariant: an old command line means what it always meant. A word is a command only as the very
//! first one, and only if nothing in the current directory could be run under this name: a mlet is a path, and a folder is
//! none.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use clap::{Command, CommandFactory, FromArgMatches, Parser, Subcommand};
use command_line::pages::Pages;
use command_line::usage;

use crate::args::Args;
use crate::results::failure::Failure;
use crate::{campaign, ctl, report_page, results};

/// A command line whose first word is a command.
#[derive(Debug, Parser)]
#[command(name = "pktxpmgr", version, disable_help_subcommand = true)]
struct CommandLine {
    #[command(subcommand)]
    chosen: Chosen,
}

#[derive(Debug, Subcommand)]
enum Chosen {
    /// Read the folder that a run left (--out DIR)
    Results(results::Options),
    /// Make a page of the folder that a run left (--out DIR)
    Report(report_page::Options),
    /// Create, watch and end a campaign of several managers
    Campaign(campaign::Options),
    /// Ask a run that goes on, or steer it (--ctl SOCK)
    Ctl(ctl::Options),
    #[command(flatten)]
    Pages(Pages),
}

/// Runs the command that these words begin with, if they do; the first is the name of the program. Help and usage errors
/// end the process.
pub(crate) fn run(words: &[OsString]) -> Option<ExitCode> {
    let is_file =
        |name: &OsStr| Path::new(name).symlink_metadata().is_ok() && !Path::new(name).is_dir();
    if !is_command(words.get(1)?, is_file) {
        return None;
    }
    let matches = definition().try_get_matches_from(with_help(words));
    let line = matches.and_then(|matches| CommandLine::from_arg_matches(&matches));
    let line = line.unwrap_or_else(|said| usage::told("pktxpmgr", &said));
    let done = match &line.chosen {
        Chosen::Results(options) => results::run(options),
        Chosen::Report(options) => report_page::run(options),
        Chosen::Campaign(options) => campaign::run(options),
        Chosen::Ctl(options) => ctl::run(options),
        Chosen::Pages(pages) => pages.write(whole()).map_err(Failure::NotWritten),
    };
    Some(done.map_or_else(|failure| failure.report(), |()| ExitCode::SUCCESS))
}

fn definition() -> Command {
    usage::laid_out(CommandLine::command().mut_subcommand("ctl", ctl::naming_requests))
}

/// `ctl SOCK help`, and `ctl help`, are what somebody types who does not know the requests.
fn with_help(words: &[OsString]) -> Vec<OsString> {
    let mut words = words.to_vec();
    let asks = |at: usize| {
        words.get(1).is_some_and(|word| word == "ctl")
            && words.get(at).is_some_and(|word| word == "help")
    };
    let at = if asks(3) { Some(3) } else { Some(2).filter(|at| asks(*at) && words.len() == 3) };
    if let Some(word) = at.and_then(|at| words.get_mut(at)) {
        *word = "--help".into();
    }
    words
}

/// All that pktxpmgr takes, with and without a command.
fn whole() -> Command {
    let run = usage::laid_out(Args::command()).subcommand_negates_reqs(true);
    run.disable_help_subcommand(true).subcommands(definition().get_subcommands().cloned())
}

fn is_command(word: &OsStr, is_file: impl Fn(&OsStr) -> bool) -> bool {
    CommandLine::command().find_subcommand(word).is_some() && !is_file(word)
}

/// What is to be said to who names this as a mlet, and there is none: they mean something else than a file.
pub(crate) fn hint(word: &OsStr) -> Option<&'static str> {
    Some(match word.to_str()? {
        "results" | "result" | "report" | "reports" | "completions" | "completion" => {
            "the commands results, report and completions must be the first word: \
             pktxpmgr results ls DIR"
        }
        "campaign" | "campaigns" => {
            "the command campaign must be the first word: pktxpmgr campaign status URL#NAME"
        }
        "ctl" | "control" => "the command ctl must be the first word: pktxpmgr ctl SOCK show",
        "reload" | "drain" => {
            "a run that has --ctl SOCK hears it from another terminal: pktxpmgr ctl SOCK reload, \
             or drain"
        }
        "help" => "help is printed by pktxpmgr --help",
        "version" => "the version is printed by pktxpmgr --version",
        "run" | "start" | "exec" => "the mlet is named at once: pktxpmgr [OPTIONS] ./MLET",
        "status" | "top" | "ps" => {
            "a run tells how far it is when it gets SIGUSR1: kill -USR1 PID; with --ctl SOCK also \
             pktxpmgr ctl SOCK show; of its folder tells pktxpmgr results stats DIR"
        }
        "stop" | "end" | "kill" => {
            "a run ends when it gets SIGINT, and at once when it gets another: kill -INT PID; with \
             --ctl SOCK also by pktxpmgr ctl SOCK drain, or stop"
        }
        "list" | "ls" | "show" | "cat" | "stats" | "export" => {
            "what a run left is read by pktxpmgr results: pktxpmgr results ls DIR"
        }
        "check" | "test" | "validate" => "a check is pktxpmgr --check [MLET]",
        "man" => "manual pages are written by pktxpmgr man DIR, as its first word",
        "init" | "key" | "csr" | "sign" | "verify" | "digest" | "add-privilege" => {
            "keys and certificates are the matter of pktcred: pktcred --help"
        }
        "demo" | "broker" | "proxy" | "endpoint" | "fleet" | "load" => {
            "that is a command of pktfleet: pktfleet --help"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examples;

    #[test]
    fn a_word_is_a_command_only_if_it_is_no_file() {
        let is = |word: &str, is_file: bool| is_command(OsStr::new(word), |_| is_file);
        for word in ["results", "report", "campaign", "ctl", "completions", "man"] {
            assert!(is(word, false), "{word}");
            assert!(!is(word, true), "{word}");
        }
        for word in ["--", "./results", "result", "Results", "help", "-v", ""] {
            assert!(!is(word, false), "{word}");
        }
    }

    #[test]
    fn the_definition_is_consistent() {
        definition().debug_assert();
        whole().debug_assert();
    }

    #[test]
    fn every_page_of_help_begins_with_examples_that_are_understood() {
        examples::assert_on_every_page(whole());
    }
}
