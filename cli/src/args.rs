//! The command line, as typed. Nothing is opened or resolved here.
//!
//! The original's seven short options keep their meaning (spec/pktxpmgr.md 1.1): getopt clustering
//! (`-sn 3`, `-n3`), the last of a repeated option wins, and the first word that is no option is the
//! mlet; what follows belongs to the mlet.

mod campaign;
mod conflicts;
mod judging;
mod limits;
mod typed;

use std::ffi::{OsStr, OsString};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Command, CommandFactory, FromArgMatches, Parser, ValueHint};
use engine::config::{Judging, Layout, Limits, Messages, SingletonForm, Traced};
use engine::sys::recorder::RecorderPlan;

use crate::logging::LogFormat;
use crate::monitoring::MetricsAddress;
use campaign::CampaignArgs;
use command_line::cores::Cores;
use command_line::usage;
use judging::JudgingArgs;
use limits::LimitArgs;
pub(crate) use limits::SetLimits;
use packetlab::escape::Escaped;
pub(crate) use typed::KeepArg;
use typed::{Count, IoArg, MletIoArg, kept_size};

/// Heading of the options for what a run leaves.
const RESULTS: &str = "Results";

/// From so many sessions on, output is kept in one file: three files of each would be more than many a file system likes.
const STREAM_FROM: u64 = 10_000;

/// Heading of the options for who is measured, and who is measured again.
const AGAIN: &str = "Which endpoints";

/// Heading of the options for who watches a run.
const WATCHING: &str = "Watching a run";

const EXAMPLES: &str = "\
Examples:
  pktxpmgr -c lab.conf -n 20 ./mlet 192.0.2.1     20 endpoints, an argument
  pktxpmgr --cores 0,2-3 ./mlet -v                until Ctrl-C; -v is the mlet's";

const NOTES: &str = "\
More: pktxpmgr results, report, campaign, ctl, completions, each with --help.
Exit codes: 0 as asked, 1 not good enough (Judging), 2 usage, 3 config, key, ..,
4 cannot listen or reach proxy or database, 5 publication, 6 resource missing,
70 internal error, 74 records lost, 124 time over, 130/143 second SIGINT/TERM.";

/// Runs one mlet against many PacketLab endpoints.
#[derive(Debug, Parser)]
#[command(
    name = "pktxpmgr",
    version,
    about = "runs one mlet against many PacketLab endpoints",
    before_help = EXAMPLES,
    after_help = NOTES,
    override_usage = "pktxpmgr [OPTIONS] MLET [ARG]...",
    args_override_self = true
)]
pub(crate) struct Args {
    /// Own address, or proxies [default: 0.0.0.0:20556]
    #[arg(short = 'a', long, value_name = "HOST[:PORT]", allow_hyphen_values = true)]
    pub(crate) addr: Option<String>,

    /// Config file [default: ~/.pktlab/xpmgr.conf]
    #[arg(short = 'c', long, value_name = "FILE", allow_hyphen_values = true)]
    pub(crate) config: Option<PathBuf>,

    /// Address to publish instead of the config file's
    #[arg(short = 'p', long, value_name = "ADDR", allow_hyphen_values = true)]
    pub(crate) publish_addr: Option<String>,

    /// End after so many sessions (as in C; < 0: never)
    #[arg(short = 'n', long, value_name = "COUNT", allow_hyphen_values = true, value_parser = Count::parse)]
    pub(crate) count: Option<Count>,

    /// Pattern of endpoint host ids to publish
    #[arg(short = 'i', long, value_name = "GLOB", allow_hyphen_values = true)]
    pub(crate) hostid: Option<String>,

    /// One mlet for all sessions instead of one each
    #[arg(short = 's', long)]
    pub(crate) single: bool,

    /// With -s: tell it session, key and snikey as well
    #[arg(long)]
    pub(crate) single_facts: bool,

    /// CPUs: 3 is a count, 0,2-3 a list [default: all]
    #[arg(long, value_name = "N|LIST", value_parser = Cores::parse)]
    pub(crate) cores: Option<Cores>,

    /// Wait with auto, uring or epoll
    #[arg(
        long,
        value_enum,
        default_value_t,
        value_name = "WAY",
        env = "PKTXPMGR_IO",
        hide_env = true,
        hide_possible_values = true
    )]
    pub(crate) io: IoArg,

    /// Offer mlets: socket, or pipe beside it
    #[arg(
        long,
        value_enum,
        default_value_t,
        value_name = "WHAT",
        hide_default_value = true,
        hide_possible_values = true
    )]
    pub(crate) mlet_io: MletIoArg,

    /// Look for work so long before a core sleeps
    #[arg(long, value_name = "TIME", default_value = "0us", hide_default_value = true)]
    #[arg(value_parser = command_line::units::duration)]
    pub(crate) spin: Duration,

    /// First line: the key's passphrase [default: ask]
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,

    /// Keep output of mlets and all records in this folder
    #[arg(long, value_name = "DIR", help_heading = RESULTS)]
    pub(crate) out: Option<PathBuf>,

    /// Whose output stays: all, failed, none
    #[arg(
        long,
        value_enum,
        default_value_t,
        value_name = "WHOSE",
        help_heading = RESULTS,
        hide_possible_values = true
    )]
    pub(crate) keep: KeepArg,

    /// Keep it in one file [default from -n 10000 on]
    #[arg(long, help_heading = RESULTS)]
    pub(crate) stream: bool,

    /// Keep so much of each output; the rest is counted
    #[arg(long, value_name = "SIZE", value_parser = kept_size, help_heading = RESULTS)]
    pub(crate) max_output: Option<usize>,

    /// Show lines of mlets behind session, key and snikey
    #[arg(long, help_heading = RESULTS)]
    pub(crate) tag: bool,

    /// A remark for the folder's run.json
    #[arg(long, value_name = "TEXT", help_heading = RESULTS)]
    pub(crate) note: Option<String>,

    /// Append a line of JSON per session; - is stdout
    #[arg(long, value_name = "FILE", help_heading = RESULTS)]
    pub(crate) events: Option<PathBuf>,

    /// Append a line per mlet, as GNU parallel; - is stdout
    #[arg(long, value_name = "FILE", help_heading = RESULTS)]
    pub(crate) joblog: Option<PathBuf>,

    /// Go on with DIR, without endpoints that were ok
    #[arg(long, value_name = "DIR", help_heading = AGAIN)]
    pub(crate) resume: Option<PathBuf>,

    /// Go on although the mlet or its arguments have changed
    #[arg(long, help_heading = AGAIN)]
    pub(crate) resume_anyway: bool,

    /// Measure only these keys, or who is ok in this folder
    #[arg(long, value_name = "FILE|DIR", help_heading = AGAIN)]
    pub(crate) only: Option<PathBuf>,

    /// Do not measure these
    #[arg(long, value_name = "FILE|DIR", help_heading = AGAIN)]
    pub(crate) skip: Option<PathBuf>,

    /// Measure no endpoint again that was ok
    #[arg(long, help_heading = AGAIN)]
    pub(crate) once_per_endpoint: bool,

    /// Append relay latency, as an HdrHistogram log
    #[arg(long, value_name = "FILE", help_heading = RESULTS)]
    pub(crate) latency: Option<PathBuf>,

    /// Time one receive in N; 0: none
    #[arg(long, value_name = "N", default_value_t = 10, help_heading = RESULTS)]
    pub(crate) latency_sample: u32,

    /// Metrics over HTTP at PORT, HOST:PORT or unix:PATH
    #[arg(
        long,
        value_name = "ADDR",
        value_parser = MetricsAddress::parse,
        help_heading = WATCHING
    )]
    pub(crate) metrics: Option<MetricsAddress>,

    /// Let `pktxpmgr ctl SOCK` ask and steer the run
    #[arg(long, value_name = "SOCK", help_heading = WATCHING)]
    pub(crate) ctl: Option<PathBuf>,

    /// Log each message between endpoints and mlets
    #[arg(long, help_heading = WATCHING)]
    pub(crate) trace: bool,

    /// Those of session N alone, logged or written
    #[arg(long, value_name = "N", help_heading = WATCHING)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) trace_session: Option<u64>,

    /// Write them as JSON lines, a file per session
    #[arg(long, value_name = "DIR", help_heading = WATCHING)]
    pub(crate) capture: Option<PathBuf>,

    /// Write them for Wireshark (docs/packetlab.lua)
    #[arg(long, value_name = "FILE", help_heading = WATCHING)]
    pub(crate) pcap: Option<PathBuf>,

    /// No line that tells how far the run is
    #[arg(long, help_heading = WATCHING)]
    pub(crate) no_status: bool,

    /// Check config, keys, chains, MLET; no network
    #[arg(long)]
    pub(crate) check: bool,

    /// With --check: run MLET to judge its arguments
    #[arg(long, requires = "mlet_and_arguments")]
    pub(crate) check_mlet: bool,

    /// Check, and print what would be done; no network
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Log more: -v debug, -vv everything
    #[arg(short = 'v', long, action = ArgAction::Count)]
    pub(crate) verbose: u8,

    /// Log less: -q warnings, -qq errors
    #[arg(short = 'q', long, action = ArgAction::Count)]
    pub(crate) quiet: u8,

    /// Log as text, json or journald
    #[arg(
        long,
        value_enum,
        default_value_t,
        value_name = "FORMAT",
        hide_default_value = true,
        hide_possible_values = true
    )]
    pub(crate) log_format: LogFormat,

    /// A path, never searched in PATH; what follows is for the mlet
    #[arg(
        value_name = "MLET",
        required_unless_present = "check",
        trailing_var_arg = true,
        value_hint = ValueHint::FilePath
    )]
    mlet_and_arguments: Vec<OsString>,

    #[command(flatten)]
    pub(crate) campaign: CampaignArgs,

    #[command(flatten)]
    judging: JudgingArgs,

    #[command(flatten)]
    limits: LimitArgs,

    #[arg(skip)]
    limits_in_words: Vec<(String, String)>,

    #[arg(skip)]
    given_in_words: Vec<(String, String)>,
}

impl Args {
    /// Reads the command line of this process. Help, version and usage errors end the process here,
    /// with code 0, 0 and 2.
    pub(crate) fn read() -> Self {
        Self::parse_words(std::env::args_os()).unwrap_or_else(|said| usage::told("pktxpmgr", &said))
    }

    /// Reads these words; the first is the name of the program.
    pub(crate) fn parse_words(
        words: impl IntoIterator<Item = OsString>,
    ) -> Result<Self, clap::Error> {
        let words: Vec<_> = words.into_iter().collect();
        // A negative value is told what is wrong with it, and not how to pass it.
        let mut command = usage::laid_out(Self::command()).mut_args(|arg| match arg.get_action() {
            ArgAction::Set if !arg.is_positional() => arg.allow_negative_numbers(true),
            _ => arg,
        });
        let matches = command
            .try_get_matches_from_mut(&words)
            .map_err(|error| name_what_is_no_text(error, &words))?;
        let mut args = Self::from_arg_matches(&matches)?;
        args.limits_in_words = limits::in_words(&command, &matches);
        args.given_in_words = given_in_words(&command, &matches);
        if let Err(problem) = args.campaign.read_address() {
            return Err(Self::command().error(ErrorKind::ValueValidation, problem));
        }
        let count = args.count.as_ref().and_then(|count| count.sessions);
        if let Some(refusal) = conflicts::refusal(&matches, count.map(NonZeroU64::get)) {
            return Err(Self::command().error(ErrorKind::ArgumentConflict, refusal));
        }
        let before_mlet = words.len() - args.mlet_and_arguments.len();
        if words[..before_mlet].last().is_none_or(|word| word != "--") {
            drop_separator(&mut args.mlet_and_arguments);
        }
        Ok(args)
    }

    /// How output lies in a results folder whose last run had it like that `before`. The one mlet of `-s` has two files anyway,
    /// and what `--keep failed` is to remove can be removed only where each session has a folder.
    pub(crate) fn layout(&self, before: Option<Layout>) -> Layout {
        if self.stream {
            return Layout::Stream;
        }
        if self.single || self.keep == KeepArg::Failed {
            return Layout::Folders;
        }
        let sessions = self.count.as_ref().and_then(|count| count.sessions);
        let are_many = sessions.is_some_and(|sessions| sessions.get() >= STREAM_FROM);
        before.unwrap_or(if are_many { Layout::Stream } else { Layout::Folders })
    }

    /// What the recorder does; `None` if there is nothing to do for one. `results` is where output is kept, and how.
    pub(crate) fn recorder_plan(&self, results: Option<(PathBuf, Layout)>) -> Option<RecorderPlan> {
        let results = results.filter(|_| self.keep != KeepArg::None);
        let output_max = self.max_output.and_then(|max| u64::try_from(max).ok());
        let is_one_file = results.as_ref().is_some_and(|(_, layout)| *layout == Layout::Stream);
        let results = results.map(|(path, _)| path);
        let plan = RecorderPlan { results, output_max, is_tagged: self.tag };
        (self.tag || output_max.is_some() || is_one_file).then_some(plan)
    }

    /// The run goes on with a results folder that holds one.
    pub(crate) fn may_go_on(&self) -> bool {
        self.resume.is_some() || self.campaign.address().is_some()
    }

    /// The results folder, new or gone on with.
    pub(crate) fn results(&self) -> Option<&Path> {
        self.resume.as_deref().or(self.out.as_deref())
    }

    /// Whose messages are shown, and where.
    pub(crate) fn messages(&self) -> Option<Messages> {
        let of = self.trace_session.map_or(Traced::All, Traced::Session);
        let (capture, pcap) = (self.capture.clone(), self.pcap.clone());
        let are_written = capture.is_some() || pcap.is_some();
        let are_logged = self.trace || self.trace_session.is_some() && !are_written;
        (are_logged || are_written).then_some(Messages { of, are_logged, capture, pcap })
    }

    /// `-s`, and what its mlet is told of sessions.
    pub(crate) fn singleton(&self) -> Option<SingletonForm> {
        self.single.then_some(match self.single_facts {
            true => SingletonForm::Facts,
            false => SingletonForm::Address,
        })
    }

    /// What counts as a good run.
    pub(crate) fn judging(&self) -> Judging {
        self.judging.judging()
    }

    /// Whether there is a mlet; only for a check there need not be one.
    pub(crate) fn has_mlet(&self) -> bool {
        !self.mlet_and_arguments.is_empty()
    }

    /// The mlet as typed.
    pub(crate) fn mlet(&self) -> &Path {
        self.mlet_and_arguments.first().map_or_else(|| Path::new(""), Path::new)
    }

    /// The words for the mlet.
    pub(crate) fn mlet_arguments(&self) -> &[OsString] {
        self.mlet_and_arguments.get(1..).unwrap_or_default()
    }

    /// Deadlines and sizes, as the engine wants them.
    pub(crate) fn limits(&self) -> Limits {
        self.limits.limits()
    }

    /// The options for results, choice and judgement that were given, for people.
    pub(crate) fn given_in_words(&self) -> &[(String, String)] {
        &self.given_in_words
    }

    /// The value of one of them, as typed; empty if it was not given.
    pub(crate) fn given(&self, option: &str) -> &str {
        let found = self.given_in_words.iter().find(|(given, _)| given == option);
        found.map_or("", |(_, value)| value)
    }

    /// The limits with which the run begins, to be changed.
    pub(crate) fn set_limits(&self) -> SetLimits {
        SetLimits { limits: self.limits.clone(), words: self.limits_in_words.clone() }
    }

    /// The limits for people: each option and its value, as typed or by default.
    pub(crate) fn limits_in_words(&self) -> impl Iterator<Item = (&str, &str)> {
        self.limits_in_words.iter().map(|(option, value)| (option.as_str(), value.as_str()))
    }
}

/// An error about text names the word that is none, and what stands before it, which is its option.
fn name_what_is_no_text(error: clap::Error, words: &[OsString]) -> clap::Error {
    let place = words.iter().position(|word| word.to_str().is_none());
    let place = place.filter(|_| error.kind() == ErrorKind::InvalidUtf8);
    let Some(place) = place.and_then(|place| words.get(place.saturating_sub(1)..=place)) else {
        return error;
    };
    let shown: Vec<_> =
        place.iter().map(|word| Escaped(word.as_encoded_bytes()).to_string()).collect();
    let problem = format!("'{}' is no UTF-8, which this option takes", shown.join(" "));
    Args::command().error(ErrorKind::InvalidUtf8, problem)
}

/// The options for results, choice and judgement that were given, with their values; a flag has none.
fn given_in_words(command: &Command, matches: &ArgMatches) -> Vec<(String, String)> {
    let headings = [RESULTS, AGAIN, WATCHING, campaign::HEADING, judging::HEADING];
    let arguments = command.get_arguments().filter(|arg| {
        let is_given =
            matches.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine);
        is_given && arg.get_help_heading().is_some_and(|heading| headings.contains(&heading))
    });
    let rows = arguments.map(|arg| {
        let takes_value = matches!(arg.get_action(), ArgAction::Set);
        let value = matches.get_raw(arg.get_id().as_str()).and_then(Iterator::last);
        let value = value.filter(|_| takes_value).map(|value| value.as_encoded_bytes());
        let shown = value.map_or_else(String::new, |value| Escaped(value).to_string());
        (format!("--{}", arg.get_long().unwrap_or_default()), shown)
    });
    rows.collect()
}

/// Removes the `--` of `pktxpmgr ./mlet host -- -x`.
///
/// The original's getopt looked for options behind the mlet too, so users had to write the `--`
/// there, and it never reached the mlet. Whatever else starts with a dash was an error or an option
/// of the manager then and belongs to the mlet now; so only a `--` before all of these is ours.
fn drop_separator(mlet_and_arguments: &mut Vec<OsString>) {
    let is_option = |word: &OsStr| word.len() > 1 && word.as_encoded_bytes()[0] == b'-';
    let first = mlet_and_arguments.iter().skip(1).position(|word| is_option(word));
    if let Some(index) = first.map(|position| position + 1)
        && mlet_and_arguments[index] == "--"
    {
        mlet_and_arguments.remove(index);
    }
}

#[cfg(test)]
mod tests;
