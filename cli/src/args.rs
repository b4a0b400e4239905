//! The command line, as typed. Nothing is opened or resolved here.
//!
//! The original's seven short options keep their meaning (spec/pktxpmgr.md 1.1): getopt clustering
//! (`-sn 3`, `-n3`), the last of a repeated option wins, and the first word that is no option is the
//! mlet; what follows belongs to the mlet.

use std::ffi::{OsStr, OsString};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgAction, Args as ClapArgs, CommandFactory, FromArgMatches, Parser, ValueEnum};
use engine::config::{Io, Limits};

use crate::c_number::c_number;
use command_line::cores::Cores;
use command_line::units::{count, size, time_limit};
use command_line::usage;

const EXAMPLES: &str = "\
Examples:
  pktxpmgr ./mlet                                 listen on 0.0.0.0:20556, until Ctrl-C
  pktxpmgr -c lab.conf -n 20 ./mlet 192.0.2.1     end after 20 endpoints; one word for the mlet
  pktxpmgr -a '[::]:4000' -p lab.net:4000 ./mlet  listen here, publish another address
  pktxpmgr -c proxy.conf -a proxy.example ./mlet  endpoints come through a proxy
  pktxpmgr --cores 0,2-3 ./mlet -v                on CPUs 0, 2 and 3; -v belongs to the mlet";

const TEMPLATE: &str = "\
{name} {version}: {about}

{before-help}{usage-heading} {usage}

{all-args}

Exit codes: 0 ended as asked, 1 the mlet of -s failed, 2 usage, 3 config or credentials, 4 cannot
listen or reach the proxy, 5 publication, 6 resource missing, 70 internal error, 130/143 forced by
the second SIGINT/SIGTERM.";

/// Runs one mlet against many PacketLab endpoints.
#[derive(Debug, Parser)]
#[command(
    name = "pktxpmgr",
    version,
    about = "runs one measurement applet (mlet) against many PacketLab endpoints",
    before_help = EXAMPLES,
    help_template = TEMPLATE,
    override_usage = "pktxpmgr [OPTIONS] MLET [ARG]...",
    args_override_self = true
)]
pub(crate) struct Args {
    /// Where to listen, or the proxy [default: 0.0.0.0:20556]
    #[arg(short = 'a', long, value_name = "HOST[:PORT]", allow_hyphen_values = true)]
    pub(crate) addr: Option<String>,

    /// Config file [default: ~/.pktlab/xpmgr.conf]
    #[arg(short = 'c', long, value_name = "FILE", allow_hyphen_values = true)]
    pub(crate) config: Option<PathBuf>,

    /// Address to publish, whatever the config file says
    #[arg(short = 'p', long, value_name = "HOST[:PORT]", allow_hyphen_values = true)]
    pub(crate) publish_addr: Option<String>,

    /// End after so many sessions; as in C: 0x10, 010; < 0: no limit
    #[arg(short = 'n', long, value_name = "COUNT", allow_hyphen_values = true, value_parser = Count::parse)]
    pub(crate) count: Option<Count>,

    /// Pattern of endpoint host ids to publish
    #[arg(short = 'i', long, value_name = "GLOB", allow_hyphen_values = true)]
    pub(crate) hostid: Option<String>,

    /// One mlet for all sessions instead of one each
    #[arg(short = 's', long)]
    pub(crate) single: bool,

    /// CPUs to use: 3 is a count, 0,2-3 a list [default: all allowed]
    #[arg(long, value_name = "N|LIST", value_parser = Cores::parse)]
    pub(crate) cores: Option<Cores>,

    /// auto, uring or epoll: what to wait with
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

    /// Its first line is the passphrase of the key [default: ask]
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,

    /// Append a record of each session to this file, a line of JSON each
    #[arg(long, value_name = "FILE", hide = true)]
    pub(crate) events: Option<PathBuf>,

    /// Log more: -v debug, -vv everything
    #[arg(short = 'v', long, action = ArgAction::Count)]
    pub(crate) verbose: u8,

    /// Log less: -q warnings, -qq errors
    #[arg(short = 'q', long, action = ArgAction::Count)]
    pub(crate) quiet: u8,

    /// The mlet, a path that is never searched in PATH; what follows it is for the mlet
    #[arg(value_name = "MLET", required = true, trailing_var_arg = true)]
    mlet_and_arguments: Vec<OsString>,

    #[command(flatten)]
    limits: LimitArgs,
}

/// One option for each field of [`Limits`]. A test holds the defaults equal.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Limits (durations 500ms, 10s, 5m, 2h; sizes 4096, 64k)")]
struct LimitArgs {
    /// From accept to the end of the TLS handshake
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time_limit)]
    handshake_timeout: Duration,
    /// From there to START, and again to its answer
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = time_limit)]
    setup_timeout: Duration,
    /// Without progress while the last bytes are delivered
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = time_limit)]
    drain_timeout: Duration,
    /// Discarding input between our last byte and close
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = time_limit)]
    linger_timeout: Duration,
    /// Pause in accepting when fds or memory ran out
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = time_limit)]
    accept_pause: Duration,
    /// Connecting to the broker, its handshake and answers
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time_limit)]
    broker_timeout: Duration,
    /// Between EOF and TERM for mlets at a forced end
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = time_limit)]
    eof_grace: Duration,
    /// Between TERM and KILL for mlets at a forced end
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = time_limit)]
    term_grace: Duration,
    /// Sessions in set-up at once, per core
    #[arg(long, value_name = "N", default_value = "1024", value_parser = count)]
    handshakes_max: usize,
    /// Sessions at once; 0: as many as fds allow
    #[arg(long, value_name = "N", default_value = "0", value_parser = number)]
    sessions_max: usize,
    /// Sessions of one key at once; 0: no limit [default: 1/4, >= 16]
    #[arg(long, value_name = "N", value_parser = number)]
    sessions_per_key_max: Option<usize>,
    /// In set-up from one address, per core; 0: no limit
    #[arg(long, value_name = "N", default_value = "0", value_parser = number)]
    per_source_max: usize,
    /// Bytes of one LINFO message that are logged
    #[arg(long, value_name = "SIZE", default_value = "64k", value_parser = size)]
    linfo_max: usize,
    /// LINFO messages of a session logged in a second
    #[arg(long, value_name = "N", default_value = "100")]
    linfos_per_second: u32,
    /// Bytes of log of a session's LINFOs in a second
    #[arg(long, value_name = "SIZE", default_value = "128k", value_parser = size)]
    linfo_rate_max: usize,
    /// The same of all sessions together
    #[arg(long, value_name = "SIZE", default_value = "1m", value_parser = size)]
    linfo_rate_total: usize,
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
        let command = Self::command().mut_args(|arg| match arg.get_action() {
            ArgAction::Set if !arg.is_positional() => arg.allow_negative_numbers(true),
            _ => arg,
        });
        let matches = command.try_get_matches_from(&words)?;
        let mut args = Self::from_arg_matches(&matches)?;
        let before_mlet = words.len() - args.mlet_and_arguments.len();
        if words[..before_mlet].last().is_none_or(|word| word != "--") {
            drop_separator(&mut args.mlet_and_arguments);
        }
        Ok(args)
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
        let typed = &self.limits;
        Limits {
            handshake_timeout: typed.handshake_timeout,
            setup_timeout: typed.setup_timeout,
            drain_timeout: typed.drain_timeout,
            linger_timeout: typed.linger_timeout,
            accept_pause: typed.accept_pause,
            broker_timeout: typed.broker_timeout,
            eof_grace: typed.eof_grace,
            term_grace: typed.term_grace,
            handshakes_max: typed.handshakes_max,
            sessions_max: typed.sessions_max,
            sessions_per_key_max: typed.sessions_per_key_max,
            per_source_max: typed.per_source_max,
            linfo_max: typed.linfo_max,
            linfos_per_second: typed.linfos_per_second,
            linfo_rate_max: typed.linfo_rate_max,
            linfo_rate_total: typed.linfo_rate_total,
        }
    }
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

/// `--io` as typed.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub(crate) enum IoArg {
    #[default]
    Auto,
    Uring,
    Epoll,
}

impl From<IoArg> for Io {
    fn from(typed: IoArg) -> Self {
        match typed {
            IoArg::Auto => Self::Auto,
            IoArg::Uring => Self::Uring,
            IoArg::Epoll => Self::Epoll,
        }
    }
}

/// `-n` as typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Count {
    /// How many sessions; `None` is no limit.
    pub(crate) sessions: Option<NonZeroU64>,
    /// What stands behind the number and is ignored, as in the original; worth a warning.
    pub(crate) ignored: String,
}

impl Count {
    /// C's `strtoumax` base 0, as the original: `0x10`, `010`, blanks and sign allowed, rest ignored,
    /// a negative number wraps to what nobody reaches; that, as all above 2^32 - 1, means no limit. A result of 0 is
    /// refused.
    fn parse(text: &str) -> Result<Self, String> {
        let number = c_number(text, 0);
        if number.value == 0 {
            return Err("give the number of sessions, 1 or more; leave -n out for no limit".into());
        }
        let is_limit = number.value <= u64::from(u32::MAX) && !text.trim_start().starts_with('-');
        let sessions = NonZeroU64::new(number.value).filter(|_| is_limit);
        Ok(Self { sessions, ignored: number.rest.to_owned() })
    }
}

fn number(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("'{text}' is no number; write 0 or more"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::error::ErrorKind;

    fn parse(words: &[&str]) -> Result<Args, clap::Error> {
        Args::parse_words(["pktxpmgr"].iter().chain(words).map(OsString::from))
    }

    fn parsed(words: &[&str]) -> Args {
        parse(words).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    fn refused(words: &[&str]) -> ErrorKind {
        parse(words).expect_err("must be refused").kind()
    }

    #[test]
    fn the_definition_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_seven_short_options_of_the_original_are_understood() {
        let args =
            parsed(&["-a", "h:1", "-c", "f", "-p", "q:2", "-n", "7", "-i", "HOST*", "-s", "./m"]);
        assert_eq!(args.addr.as_deref(), Some("h:1"));
        assert_eq!(args.config.as_deref(), Some(Path::new("f")));
        assert_eq!(args.publish_addr.as_deref(), Some("q:2"));
        assert_eq!(args.count.unwrap().sessions, NonZeroU64::new(7));
        assert_eq!(args.hostid.as_deref(), Some("HOST*"));
        assert!(args.single);
        assert_eq!(refused(&["-h"]), ErrorKind::DisplayHelp);
    }

    #[test]
    fn every_short_option_has_a_long_name() {
        let args = parsed(&[
            "--addr=h",
            "--config=f",
            "--publish-addr=q",
            "--count=7",
            "--hostid=x",
            "--single",
            "--cores=1",
            "--passphrase-file=p",
            "--verbose",
            "--quiet",
            "./m",
        ]);
        assert_eq!(args.addr.as_deref(), Some("h"));
        assert_eq!(args.count.unwrap().sessions, NonZeroU64::new(7));
        assert!(args.single);
        assert_eq!(args.cores, Some(Cores::Count(1)));
        assert_eq!(args.passphrase_file.as_deref(), Some(Path::new("p")));
        assert_eq!((args.verbose, args.quiet), (1, 1));
        assert_eq!(refused(&["--help"]), ErrorKind::DisplayHelp);
        assert_eq!(refused(&["--version"]), ErrorKind::DisplayVersion);
        assert_eq!(refused(&["-V"]), ErrorKind::DisplayVersion);
    }

    #[test]
    fn options_cluster_as_in_getopt() {
        let args = parsed(&["-sn", "3", "./m"]);
        assert!(args.single);
        assert_eq!(args.count.unwrap().sessions, NonZeroU64::new(3));
        let args = parsed(&["-n3", "-vvsn0x10", "-ch.conf", "./m"]);
        assert!(args.single);
        assert_eq!(args.verbose, 2);
        assert_eq!(args.count.unwrap().sessions, NonZeroU64::new(16));
        assert_eq!(args.config.as_deref(), Some(Path::new("h.conf")));
    }

    /// Item 9.
    #[test]
    fn the_last_of_a_repeated_option_wins() {
        let args = parsed(&["-n", "3", "-a", "x", "-s", "-n", "5", "-s", "-a", "y", "./m"]);
        assert_eq!(args.count.unwrap().sessions, NonZeroU64::new(5));
        assert_eq!(args.addr.as_deref(), Some("y"));
    }

    /// Items 7, 8.
    #[test]
    fn everything_behind_the_mlet_belongs_to_the_mlet() {
        let cases: [(&[&str], &[&str]); 9] = [
            (&["./m", "-x", "--long", "-n", "0"], &["-x", "--long", "-n", "0"]),
            (&["--", "./m", "-x"], &["-x"]),
            (&["-s", "--", "./m", "--", "-x"], &["--", "-x"]),
            // Command lines written for the original, where the separator was needed.
            (&["./m", "--", "-x"], &["-x"]),
            (&["./m", "host", "--", "-x", "--"], &["host", "-x", "--"]),
            (&["./m", "-", "--", "-x"], &["-", "-x"]),
            // These never worked there, so the `--` is the mlet's.
            (&["./m", "-x", "--", "y"], &["-x", "--", "y"]),
            (&["./m", "a", "b"], &["a", "b"]),
            (&["./m"], &[]),
        ];
        for (words, arguments) in cases {
            let args = parsed(words);
            assert_eq!(args.mlet(), Path::new("./m"), "{words:?}");
            assert_eq!(args.mlet_arguments(), arguments, "{words:?}");
        }
    }

    #[test]
    fn a_mlet_may_start_with_a_dash_behind_the_separator() {
        assert_eq!(parsed(&["--", "-m", "-x"]).mlet(), Path::new("-m"));
    }

    #[test]
    fn an_option_takes_the_next_word_whatever_it_looks_like() {
        assert_eq!(parsed(&["-i", "-n", "./m"]).hostid.as_deref(), Some("-n"));
        assert_eq!(parsed(&["-i", "", "./m"]).hostid.as_deref(), Some(""));
        assert_eq!(parsed(&["-n", "-1", "./m"]).count.unwrap().sessions, None);
    }

    /// Items 1, 3.
    #[test]
    fn a_missing_mlet_and_unknown_options_are_usage_errors() {
        assert_eq!(refused(&[]), ErrorKind::MissingRequiredArgument);
        assert_eq!(refused(&["-s"]), ErrorKind::MissingRequiredArgument);
        assert_eq!(refused(&["-s", "--"]), ErrorKind::MissingRequiredArgument);
        assert_eq!(refused(&["-x", "./m"]), ErrorKind::UnknownArgument);
        assert_eq!(refused(&["-sx", "./m"]), ErrorKind::UnknownArgument);
        assert_eq!(refused(&["--single-mlet", "./m"]), ErrorKind::UnknownArgument);
    }

    /// Items 4, 5, 6.
    #[test]
    fn counts_read_as_in_c() {
        let count = |text| parse(&["-n", text, "./m"]).map(|args| args.count.unwrap());
        let of = |n| Count { sessions: NonZeroU64::new(n), ignored: String::new() };
        for (text, expected) in [("1", 1), ("0x10", 16), ("010", 8), (" +3", 3)] {
            assert_eq!(count(text).unwrap(), of(expected), "{text:?}");
        }
        for unlimited in
            ["-1", "-5", " -0x2", "4294967296", "18446744073709551615", "99999999999999999999"]
        {
            assert_eq!(count(unlimited).unwrap(), of(0), "{unlimited:?}");
        }
        let with_rest = Count { sessions: NonZeroU64::new(10), ignored: "k".into() };
        assert_eq!(count("10k").unwrap(), with_rest);
        for refused in ["0", "abc", "", "-", "0x0", "-0"] {
            assert_eq!(
                count(refused).unwrap_err().kind(),
                ErrorKind::ValueValidation,
                "{refused:?}"
            );
        }
    }

    #[test]
    fn without_options_the_limits_are_those_of_the_engine() {
        assert_eq!(parsed(&["./m"]).limits(), Limits::default());
    }

    #[test]
    fn each_limit_has_an_option() {
        let args = parsed(&[
            "--handshake-timeout=1s",
            "--setup-timeout=2s",
            "--drain-timeout=3s",
            "--linger-timeout=4s",
            "--accept-pause=5ms",
            "--broker-timeout=9s",
            "--eof-grace=5500ms",
            "--term-grace=6s",
            "--handshakes-max=7",
            "--sessions-max=8",
            "--sessions-per-key-max=12",
            "--per-source-max=9",
            "--linfo-max=10k",
            "--linfos-per-second=11",
            "--linfo-rate-max=12",
            "--linfo-rate-total=13",
            "./m",
        ]);
        let expected = Limits {
            handshake_timeout: Duration::from_secs(1),
            setup_timeout: Duration::from_secs(2),
            drain_timeout: Duration::from_secs(3),
            linger_timeout: Duration::from_secs(4),
            accept_pause: Duration::from_millis(5),
            broker_timeout: Duration::from_secs(9),
            eof_grace: Duration::from_millis(5500),
            term_grace: Duration::from_secs(6),
            handshakes_max: 7,
            sessions_max: 8,
            sessions_per_key_max: Some(12),
            per_source_max: 9,
            linfo_max: 10 << 10,
            linfos_per_second: 11,
            linfo_rate_max: 12,
            linfo_rate_total: 13,
        };
        assert_eq!(args.limits(), expected);
        for bad in
            ["--handshake-timeout=10", "--accept-pause=0s", "--handshakes-max=0", "--linfo-max=x"]
        {
            assert_eq!(refused(&[bad, "./m"]), ErrorKind::ValueValidation, "{bad}");
        }
    }

    #[test]
    fn a_negative_limit_is_told_to_be_no_number() {
        for (option, expected) in [
            ("--handshakes-max", "'-3' is no number above 0"),
            ("--sessions-max", "'-3' is no number; write 0 or more"),
            ("--eof-grace", "'-3' is no duration"),
        ] {
            let said = parse(&[option, "-3", "./m"]).unwrap_err().to_string();
            assert!(said.contains(expected) && !said.contains("-- -3"), "{said}");
        }
    }

    #[test]
    fn the_help_starts_with_examples_and_fits_two_screens() {
        let help = parse(&["--help"]).unwrap_err().to_string();
        assert!(help.find("Examples:").unwrap() < help.find("Usage:").unwrap());
        assert!(help.lines().count() <= 70, "{} lines", help.lines().count());
        assert!(help.lines().all(|line| line.len() <= 100), "{help}");
    }
}
