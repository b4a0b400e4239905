//! Command lines as users of the original and of ours type them.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use clap::error::ErrorKind;

use super::*;
use option_pairs::{EXCLUSIVE, REFUSED, ROWS, Row, Shown, TOGETHER};

#[allow(dead_code, unreachable_pub, reason = "the tests of whole programs use it too")]
#[path = "../../tests/common/option_pairs.rs"]
mod option_pairs;

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
        "./m",
    ]);
    assert_eq!(args.addr.as_deref(), Some("h"));
    assert_eq!(args.count.unwrap().sessions, NonZeroU64::new(7));
    assert!(args.single);
    assert_eq!(args.cores, Some(Cores::Count(1)));
    assert_eq!(args.passphrase_file.as_deref(), Some(Path::new("p")));
    assert_eq!((args.verbose, parsed(&["--quiet", "./m"]).quiet), (1, 1));
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

#[test]
fn output_of_many_sessions_is_one_file_unless_that_of_some_is_to_go_or_one_mlet_serves_all() {
    let (stream, folders) = (Layout::Stream, Layout::Folders);
    for (words, expected) in [
        (&["-n", "9999"][..], folders),
        (&["-n", "10000"], stream),
        (&["-n", "10000", "--keep", "all"], stream),
        (&["-n", "10000", "--keep", "failed"], folders),
        (&["-n", "10000", "--keep", "failed", "--stream"], stream),
        (&["-n", "10000", "-s"], folders),
        (&["--stream"], stream),
        (&[], folders),
    ] {
        let layout = parsed(&[&["--out", "r"], words, &["./m"]].concat()).layout(None);
        assert_eq!(layout, expected, "{words:?}");
    }
}

#[test]
fn a_value_that_is_no_text_is_named_with_its_option() {
    use std::os::unix::ffi::OsStringExt;
    let words = |last: &[u8]| {
        let words = ["pktxpmgr", "--out", "r", "--note"].map(OsString::from);
        [&words[..], &[OsString::from_vec(last.to_vec()), "./m".into()]].concat()
    };
    let said = Args::parse_words(words(b"a\xff")).unwrap_err().to_string();
    assert!(said.starts_with("error: '--note a\\xff' is no UTF-8"), "{said}");
    assert!(Args::parse_words(words(b"a")).is_ok());
    let nothing = parse(&["--max-output", "0", "--out", "r", "./m"]).unwrap_err().to_string();
    assert!(nothing.contains("--keep none"), "{nothing}");
}

#[test]
fn output_goes_on_as_it_lies_unless_something_else_is_asked_for() {
    let (stream, folders) = (Layout::Stream, Layout::Folders);
    for (words, before, expected) in [
        (&[][..], stream, stream),
        (&["-n", "10000"], folders, folders),
        (&["--stream"], folders, stream),
        (&["--keep", "failed"], stream, folders),
    ] {
        let args = parsed(&[&["--resume", "r"], words, &["./m"]].concat());
        assert_eq!(args.layout(Some(before)), expected, "{words:?}");
    }
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
        assert_eq!(count(refused).unwrap_err().kind(), ErrorKind::ValueValidation, "{refused:?}");
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
        "--mlet-timeout=14s",
        "--idle-timeout=15s",
        "--deadline=16h",
        "--drain-limit=17s",
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
        mlet_timeout: Some(Duration::from_secs(14)),
        idle_timeout: Some(Duration::from_secs(15)),
        deadline: Some(Duration::from_secs(16 * 3600)),
        drain_limit: Some(Duration::from_secs(17)),
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
fn a_time_that_is_no_limit_by_default_may_be_zero_and_a_mlet_of_all_sessions_has_none() {
    for option in ["--mlet-timeout", "--idle-timeout", "--deadline", "--drain-limit"] {
        for zero in ["0", "0s"] {
            assert_eq!(parsed(&[option, zero, "./m"]).limits(), Limits::default(), "{option}");
        }
        assert_eq!(refused(&[option, "10", "./m"]), ErrorKind::ValueValidation, "{option}");
    }
    for words in [["-s", "--mlet-timeout=1s"], ["--mlet-timeout=1s", "-s"]] {
        assert_eq!(refused(&[words[0], words[1], "./m"]), ErrorKind::ArgumentConflict);
    }
    assert!(parsed(&["-s", "--idle-timeout=1s", "--deadline=1h", "./m"]).single);
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
fn the_help_starts_with_examples_and_is_no_longer_than_100_lines() {
    let help = parse(&["--help"]).unwrap_err().to_string();
    assert!(help.find("Examples:").unwrap() < help.find("Usage:").unwrap());
    assert!(help.lines().count() <= 100, "{} lines", help.lines().count());
}

/// The options as clap has them: whoever adds one says what it has to do with all others.
#[test]
fn every_option_has_a_row_in_the_table_of_pairs_and_no_row_is_of_none() {
    let mut command = Args::command();
    command.build();
    let options = command.get_arguments().filter_map(|arg| Some(format!("--{}", arg.get_long()?)));
    let rows = ROWS.iter().map(|row| row.option.to_owned());
    assert_eq!(options.collect::<BTreeSet<_>>(), rows.collect::<BTreeSet<_>>());
    assert!(ROWS.iter().all(|row| !row.alone.is_empty()));
}

/// The options that stand in these rows, those without which they mean nothing included.
fn given(rows: [&Row; 2]) -> BTreeSet<&'static str> {
    let words = || rows.iter().flat_map(|row| row.words);
    let is_given = |row: &&Row| words().any(|word| *word == row.words[0]);
    ROWS.iter().filter(is_given).map(|row| row.option).collect()
}

#[test]
fn of_all_pairs_of_options_those_of_the_table_are_refused_and_all_others_taken() {
    for (index, one) in ROWS.iter().enumerate() {
        for other in &ROWS[index + 1..] {
            let words = [one.words, other.words, &["./m"]].concat();
            let given = given([one, other]);
            let refused =
                EXCLUSIVE.iter().find(|pair| pair.iter().all(|name| given.contains(name)));
            let told = parse(&words).err();
            let kind = told.as_ref().map(clap::Error::kind);
            let is_answered =
                matches!(kind, Some(ErrorKind::DisplayHelp | ErrorKind::DisplayVersion));
            assert_eq!(is_answered, given.contains("--help") || given.contains("--version"));
            if is_answered {
                continue;
            }
            assert_eq!(kind, refused.map(|_| ErrorKind::ArgumentConflict), "{words:?}: {told:?}");
            let text = told.map(|told| told.to_string()).unwrap_or_default();
            assert!(
                refused.iter().all(|pair| pair.iter().all(|name| text.contains(name))),
                "{text}"
            );
        }
    }
}

#[test]
fn every_pair_that_is_refused_stands_in_a_row_of_the_table_that_people_read() {
    let page = include_str!("../../../docs/operating.md");
    let (_, table) = page.split_once("\n| refused | because |\n|---|---|\n").unwrap();
    let rows = table.lines().take_while(|line| line.starts_with('|'));
    let rows: Vec<_> = rows.map(|row| row.split(" | ").next().unwrap()).collect();
    let is_named = |row: &str, option: &str| {
        let shown = match option {
            "--single" => "-s",
            "--count" => "-n",
            "--quiet" => "-q",
            "--verbose" => "-v",
            _ => option,
        };
        row.contains(&format!("`{shown}`"))
    };
    for pair in EXCLUSIVE.iter().chain(REFUSED.iter().map(|(_, pair)| pair)) {
        let is_of_pair = |row: &&str| pair.iter().all(|option| is_named(row, option));
        assert!(rows.iter().any(is_of_pair), "{pair:?} is not in {rows:#?}");
    }
}

#[test]
fn what_touches_the_same_thing_and_goes_together_is_shown_by_a_test_that_there_is() {
    for (one, other, shown) in &TOGETHER {
        let row = |option| ROWS.iter().find(|row| row.option == option).unwrap();
        let words = [row(*one).words, row(*other).words, &["./m"]].concat();
        assert!(parse(&words).is_ok(), "{words:?}");
        match shown {
            Shown::Why(reason) => assert!(!reason.is_empty()),
            Shown::By(file, test) => {
                let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
                let text = fs::read_to_string(path).unwrap();
                assert!(text.contains(&format!("fn {test}()")), "{file} has no test {test}");
            }
        }
    }
}
