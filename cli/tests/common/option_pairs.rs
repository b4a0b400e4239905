//! Every option of `pktxpmgr` and every pair of them: what is refused, with both names, and why the others go together.
//!
//! Not here: what an option does. Invariant: an option that has no row fails the tests of the table, so that whoever adds
//! one has to say what it has to do with the others.

/// An option, and how it is given; with the options without which it would mean nothing.
pub struct Row {
    pub option: &'static str,
    pub words: &'static [&'static str],
    /// What it has to do with all options that no table below names beside it.
    pub alone: &'static str,
}

const fn row(option: &'static str, words: &'static [&'static str], alone: &'static str) -> Row {
    Row { option, words, alone }
}

const SETTING: &str = "sets one thing that nothing else sets, in every kind of run";
const BOUND: &str = "bounds something of its own; of two bounds the nearer one strikes first";
const RULE: &str = "is a rule of its own; each that is broken counts, and is told";
const FILE: &str = "writes a file of its own, whatever else is written";
const CHECKS: &str =
    "takes the command line of a run, checks and tells all of it that is there before one";

pub const ROWS: [Row; 71] = [
    row("--addr", &["-a", "127.0.0.1:0"], SETTING),
    row("--config", &["-c", "nowhere.conf"], SETTING),
    row("--publish-addr", &["-p", "127.0.0.1:4"], SETTING),
    row("--count", &["-n", "50"], BOUND),
    row("--hostid", &["-i", "*"], SETTING),
    row(
        "--single",
        &["-s"],
        "says how many mlets there are; what is of each session stays of each",
    ),
    row(
        "--single-facts",
        &["--single-facts", "-s"],
        "says what the one mlet is told; nothing else does",
    ),
    row("--cores", &["--cores", "1"], SETTING),
    row("--io", &["--io", "epoll"], SETTING),
    row("--mlet-io", &["--mlet-io", "socket"], SETTING),
    row("--spin", &["--spin", "50us"], SETTING),
    row("--passphrase-file", &["--passphrase-file", "nowhere"], SETTING),
    row("--check", &["--check"], CHECKS),
    row(
        "--check-mlet",
        &["--check-mlet", "--check"],
        "asks the mlet alone, whatever the run would be",
    ),
    row("--dry-run", &["--dry-run"], CHECKS),
    row("--verbose", &["-v"], "is about the log alone"),
    row("--quiet", &["-q"], "is about the log alone"),
    row("--log-format", &["--log-format", "json"], "is about the log alone"),
    row("--help", &["--help"], "is answered, whatever stands beside it, and nothing is run"),
    row("--version", &["--version"], "is answered, whatever stands beside it, and nothing is run"),
    row("--out", &["--out", "r"], "is a place of its own for output and records"),
    row("--keep", &["--keep", "all", "--out", "r"], "is about the output in the folder alone"),
    row("--stream", &["--stream", "--out", "r"], "says how output lies in the folder"),
    row("--max-output", &["--max-output", "1m", "--out", "r"], BOUND),
    row("--tag", &["--tag"], "shows lines, whatever else is kept of them"),
    row("--note", &["--note", "x", "--out", "r"], "is a remark in the folder's run.json"),
    row("--events", &["--events", "e.jsonl"], FILE),
    row("--joblog", &["--joblog", "jobs"], FILE),
    row("--latency", &["--latency", "relay.hlog"], FILE),
    row(
        "--latency-sample",
        &["--latency-sample", "1"],
        "is seen in each record, in the log and in the file",
    ),
    row("--metrics", &["--metrics", "0"], "looks at the run and changes nothing of it"),
    row("--ctl", &["--ctl", "ctl.sock"], "steers any run alike"),
    row("--trace", &["--trace"], "is about the log alone, whatever runs"),
    row("--trace-session", &["--trace-session", "3"], "is about messages alone, whatever runs"),
    row(
        "--capture",
        &["--capture", "c"],
        "writes to a folder of its own, whatever else is written",
    ),
    row("--pcap", &["--pcap", "m.pcapng"], FILE),
    row("--no-status", &["--no-status"], "is about the line that tells how far the run is alone"),
    row("--resume", &["--resume", "r"], "chooses by what was ok before; counts include it"),
    row("--resume-anyway", &["--resume-anyway", "--resume", "r"], "lifts one check of --resume"),
    row(
        "--only",
        &["--only", "these"],
        "each choice takes away from the endpoints; the rest is measured",
    ),
    row(
        "--skip",
        &["--skip", "those"],
        "each choice takes away from the endpoints; the rest is measured",
    ),
    row(
        "--once-per-endpoint",
        &["--once-per-endpoint"],
        "each choice takes away from the endpoints",
    ),
    row(
        "--campaign",
        &["--campaign", "postgres://u@h/d#n", "--out", "r"],
        "says who else measures; what is done with an endpoint that is this run's stays as it is",
    ),
    row(
        "--campaign-password-file",
        &["--campaign-password-file", "nowhere", "--campaign", "postgres://u@h/d#n", "--out", "r"],
        "is about the campaign's database alone",
    ),
    row(
        "--campaign-root",
        &["--campaign-root", "nowhere", "--campaign", "postgres://u@h/d#n", "--out", "r"],
        "is about the campaign's database alone",
    ),
    row(
        "--campaign-cert",
        &[
            "--campaign-cert",
            "nowhere",
            "--campaign-key",
            "nowhere",
            "--campaign",
            "postgres://u@h/d#n",
            "--out",
            "r",
        ],
        "is about the campaign's database alone",
    ),
    row(
        "--campaign-key",
        &[
            "--campaign-key",
            "nowhere",
            "--campaign-cert",
            "nowhere",
            "--campaign",
            "postgres://u@h/d#n",
            "--out",
            "r",
        ],
        "is about the campaign's database alone",
    ),
    row(
        "--fence",
        &["--fence", "finish", "--campaign", "postgres://u@h/d#n", "--out", "r"],
        "is about sessions whose campaign is not reached any more, and nothing else ends those",
    ),
    row("--fail-on", &["--fail-on", "any"], RULE),
    row("--halt", &["--halt", "soon,fail=3"], RULE),
    row("--require", &["--require", "3"], RULE),
    row("--handshake-timeout", &["--handshake-timeout", "1s"], BOUND),
    row("--setup-timeout", &["--setup-timeout", "1s"], BOUND),
    row("--drain-timeout", &["--drain-timeout", "1s"], BOUND),
    row("--linger-timeout", &["--linger-timeout", "1s"], BOUND),
    row("--accept-pause", &["--accept-pause", "1s"], BOUND),
    row("--broker-timeout", &["--broker-timeout", "1s"], BOUND),
    row("--eof-grace", &["--eof-grace", "1s"], BOUND),
    row("--term-grace", &["--term-grace", "1s"], BOUND),
    row("--mlet-timeout", &["--mlet-timeout", "1s"], BOUND),
    row("--idle-timeout", &["--idle-timeout", "1s"], BOUND),
    row("--deadline", &["--deadline", "1h"], BOUND),
    row("--drain-limit", &["--drain-limit", "1m"], BOUND),
    row("--handshakes-max", &["--handshakes-max", "9"], BOUND),
    row("--sessions-max", &["--sessions-max", "9"], BOUND),
    row("--sessions-per-key-max", &["--sessions-per-key-max", "9"], BOUND),
    row("--per-source-max", &["--per-source-max", "9"], BOUND),
    row("--linfo-max", &["--linfo-max", "9"], BOUND),
    row("--linfos-per-second", &["--linfos-per-second", "9"], BOUND),
    row("--linfo-rate-max", &["--linfo-rate-max", "9"], BOUND),
    row("--linfo-rate-total", &["--linfo-rate-total", "9"], BOUND),
];

/// Options that are refused together, whatever their values.
pub const EXCLUSIVE: [[&str; 2]; 11] = [
    ["--single", "--mlet-timeout"],
    ["--single", "--joblog"],
    ["--single", "--stream"],
    ["--single", "--tag"],
    ["--campaign", "--count"],
    ["--campaign", "--resume"],
    ["--quiet", "--verbose"],
    ["--quiet", "--trace"],
    ["--quiet", "--trace-session"],
    ["--trace", "--trace-session"],
    ["--check", "--dry-run"],
];

/// Words that are refused for an option that is missing, or for their values, and the two options that the reason names.
pub const REFUSED: [(&[&str], [&str; 2]); 52] = [
    (&["--keep", "all"], ["--keep", "--out"]),
    (&["--keep", "none", "--events", "e.jsonl"], ["--keep", "--resume"]),
    (&["--note", "x"], ["--note", "--out"]),
    (&["--stream"], ["--stream", "--out"]),
    (&["--max-output", "1m"], ["--max-output", "--resume"]),
    (&["--stream", "--keep", "none", "--out", "r"], ["--keep none", "--stream"]),
    (&["--max-output", "1m", "--keep", "none", "--out", "r"], ["--keep none", "--max-output"]),
    (&["--tag", "--events", "-", "--out", "r"], ["--events -", "--tag"]),
    (&["--tag", "--events", "-"], ["--events -", "--out"]),
    (&["--resume-anyway"], ["--resume-anyway", "--resume"]),
    (&["--resume-anyway", "--out", "r"], ["--resume-anyway", "--resume"]),
    (&["--campaign", "postgres://u@h/d#n"], ["--campaign", "--out"]),
    (&["--campaign-password-file", "f"], ["--campaign-password-file", "--campaign"]),
    (&["--campaign-root", "f"], ["--campaign-root", "--campaign"]),
    (&["--campaign-cert", "f"], ["--campaign-cert", "--campaign"]),
    (&["--campaign-key", "f"], ["--campaign-key", "--campaign"]),
    (
        &["--campaign-cert", "f", "--campaign", "postgres://u@h/d#n", "--out", "r"],
        ["--campaign-cert", "--campaign-key"],
    ),
    (
        &["--campaign-key", "f", "--campaign", "postgres://u@h/d#n", "--out", "r"],
        ["--campaign-key", "--campaign-cert"],
    ),
    (&["--fence", "kill"], ["--fence", "--campaign"]),
    (&["--single-facts"], ["--single-facts", "--single"]),
    (&["--check-mlet"], ["--check-mlet", "--check"]),
    (&["--check-mlet", "--dry-run"], ["--check-mlet", "--check"]),
    (&["-s", "--mlet-io", "pipe"], ["--single", "--mlet-io pipe"]),
    (&["--events", "-"], ["--events -", "--out"]),
    (&["--events", "-", "-s"], ["--events -", "--resume"]),
    (&["--joblog", "-"], ["--joblog -", "--out"]),
    (&["--tag", "--joblog", "-", "--out", "r"], ["--joblog -", "--tag"]),
    (&["--events", "-", "--joblog", "-", "--out", "r"], ["--events -", "--joblog -"]),
    (&["--out", "r", "--resume", "other"], ["--out", "--resume"]),
    (&["-s", "--keep", "failed", "--out", "r"], ["--single", "--keep failed"]),
    (&["--latency", "relay.hlog", "--latency-sample", "0"], ["--latency", "--latency-sample 0"]),
    (&["--only", "these", "--skip", "these"], ["--only", "--skip"]),
    (&["--only", "r", "--resume", "r"], ["--only", "--resume"]),
    (&["-n", "5", "--require", "6"], ["--count", "--require"]),
    (&["-n", "5", "--require", "6", "--resume", "r"], ["--count", "--require"]),
    (&["-n", "5", "--halt", "soon,ok=6"], ["--count", "--halt ok=N"]),
    (&["--halt", "now,ok=5", "--require", "6"], ["--halt ok=N", "--require"]),
    (&["--events", "f", "--joblog", "f"], ["--events", "--joblog"]),
    (&["--events", "f", "--latency", "f"], ["--events", "--latency"]),
    (&["--joblog", "f", "--latency", "./f"], ["--joblog", "--latency"]),
    (&["--events", "f", "--pcap", "f"], ["--events", "--pcap"]),
    (&["--events", "f", "--capture", "./f"], ["--events", "--capture"]),
    (&["--capture", "f", "--pcap", "f"], ["--capture", "--pcap"]),
    (&["--out", "r", "--capture", "r"], ["--out", "--capture"]),
    (&["--resume", "r", "--capture", "r"], ["--resume", "--capture"]),
    (&["--out", "r", "--events", "r/events.jsonl"], ["--out", "--events"]),
    (&["--resume", "r", "--events", "r/events.jsonl"], ["--resume", "--events"]),
    (&["--out", "r", "--joblog", "r/run.json"], ["--out", "--joblog"]),
    (&["--resume", "r", "--joblog", "r/events.jsonl"], ["--resume", "--joblog"]),
    (&["--out", "r", "--latency", "r/events.jsonl"], ["--out", "--latency"]),
    (&["--resume", "r", "--latency", "r/run.json"], ["--resume", "--latency"]),
    (&["--keep", "failed", "--single-facts", "-s", "--resume", "r"], ["--single", "--keep failed"]),
];

/// How it is known that two options that touch the same thing go together.
pub enum Shown {
    /// By this test, in this file of the repository.
    By(&'static str, &'static str),
    /// By this reason.
    Why(&'static str),
}

const CAPTURE: &str = "cli/tests/capture.rs";
const FOLDER: &str = "cli/tests/results_folder.rs";
const AGAIN: &str = "cli/tests/again.rs";
const SINGLE: &str = "cli/tests/singleton.rs";
const TIMES: &str = "cli/tests/time_limits.rs";
const CHECK: &str = "cli/tests/check/folder.rs";
const DRY_RUN: &str = "cli/tests/check/dry_run.rs";
const POSSIBLE: &str = "what can be reached is taken, what cannot is refused";

/// Options that touch the same thing and go together.
pub const TOGETHER: [(&str, &str, Shown); 38] = [
    ("--out", "--resume", Shown::Why("the same folder, named twice; another one is refused")),
    (
        "--out",
        "--keep",
        Shown::By(FOLDER, "only_output_that_is_to_be_kept_stays_and_every_session_has_its_record"),
    ),
    (
        "--out",
        "--note",
        Shown::By(FOLDER, "a_results_folder_holds_what_each_mlet_wrote_its_record_and_what_ran"),
    ),
    (
        "--out",
        "--events",
        Shown::By(
            FOLDER,
            "records_go_to_standard_output_where_that_is_free_and_to_a_joblog_beside_it",
        ),
    ),
    (
        "--out",
        "--joblog",
        Shown::By(
            FOLDER,
            "records_go_to_standard_output_where_that_is_free_and_to_a_joblog_beside_it",
        ),
    ),
    ("--out", "--single", Shown::By(FOLDER, "the_one_mlet_of_all_sessions_has_one_folder")),
    (
        "--single",
        "--single-facts",
        Shown::By(SINGLE, "a_mlet_that_asks_for_all_facts_gets_address_session_key_and_snikey"),
    ),
    ("--single", "--count", Shown::By(SINGLE, "a_count_ends_the_run_in_singleton_mode_too")),
    (
        "--single",
        "--eof-grace",
        Shown::By(SINGLE, "a_singleton_that_heeds_nothing_is_killed_after_both_graces"),
    ),
    (
        "--single",
        "--term-grace",
        Shown::By(SINGLE, "a_singleton_that_heeds_nothing_is_killed_after_both_graces"),
    ),
    (
        "--single",
        "--idle-timeout",
        Shown::By(TIMES, "an_idle_session_of_a_mlet_for_all_ends_alone"),
    ),
    (
        "--single",
        "--events",
        Shown::By(
            "cli/tests/events.rs",
            "with_one_mlet_for_all_a_record_has_no_exit_code_and_says_which_sessions_it_never_took",
        ),
    ),
    (
        "--count",
        "--once-per-endpoint",
        Shown::By(AGAIN, "an_endpoint_that_was_ok_is_not_measured_again_and_uses_up_no_count"),
    ),
    (
        "--count",
        "--resume",
        Shown::By(AGAIN, "a_killed_run_is_gone_on_with_and_in_the_end_each_endpoint_is_ok_once"),
    ),
    (
        "--count",
        "--keep",
        Shown::By(
            "cli/src/args/tests.rs",
            "output_of_many_sessions_is_one_file_unless_that_of_some_is_to_go_or_one_mlet_serves_all",
        ),
    ),
    (
        "--keep",
        "--stream",
        Shown::By(
            "engine/src/records/tests.rs",
            "what_the_recorder_kept_in_the_file_of_all_sessions_is_told_by_its_place_and_leaves_no_folder",
        ),
    ),
    ("--count", "--require", Shown::Why(POSSIBLE)),
    ("--count", "--halt", Shown::Why(POSSIBLE)),
    ("--halt", "--require", Shown::Why(POSSIBLE)),
    (
        "--halt",
        "--fail-on",
        Shown::Why("the run halts by the one and is judged by both; either is exit 1"),
    ),
    (
        "--resume",
        "--resume-anyway",
        Shown::By(AGAIN, "another_mlet_is_refused_with_what_differs_unless_it_is_meant"),
    ),
    ("--resume", "--once-per-endpoint", Shown::Why("the first implies the second")),
    ("--resume", "--skip", Shown::Why("each takes away from the endpoints")),
    (
        "--resume",
        "--only",
        Shown::Why(
            "each takes away from the endpoints; nobody is left of one folder, which is refused",
        ),
    ),
    (
        "--only",
        "--skip",
        Shown::By(
            "engine/src/proto/endpoint_choice.rs",
            "only_what_is_wanted_and_not_skipped_is_measured",
        ),
    ),
    (
        "--only",
        "--out",
        Shown::By(
            AGAIN,
            "only_those_asked_for_are_measured_by_key_by_its_beginning_or_by_a_folder",
        ),
    ),
    (
        "--capture",
        "--trace-session",
        Shown::By(CAPTURE, "only_the_session_that_is_asked_for_is_written"),
    ),
    (
        "--pcap",
        "--trace-session",
        Shown::By(CAPTURE, "only_the_session_that_is_asked_for_is_written"),
    ),
    (
        "--latency",
        "--latency-sample",
        Shown::By(
            "cli/tests/latency.rs",
            "records_log_and_file_tell_of_every_time_where_one_in_one_is_taken",
        ),
    ),
    (
        "--mlet-timeout",
        "--term-grace",
        Shown::By(
            TIMES,
            "a_mlet_that_ignores_term_when_it_runs_too_long_is_killed_after_the_grace",
        ),
    ),
    (
        "--idle-timeout",
        "--eof-grace",
        Shown::By(
            TIMES,
            "the_mlet_of_an_idle_session_that_heeds_neither_the_end_nor_term_is_killed_after_both_graces",
        ),
    ),
    (
        "--deadline",
        "--drain-limit",
        Shown::By(TIMES, "a_run_that_ends_within_its_limits_ends_well"),
    ),
    (
        "--check",
        "--out",
        Shown::By(
            CHECK,
            "what_a_run_would_refuse_of_its_folder_and_its_lists_is_found_without_one",
        ),
    ),
    (
        "--check",
        "--resume",
        Shown::By(
            CHECK,
            "what_a_run_would_refuse_of_its_folder_and_its_lists_is_found_without_one",
        ),
    ),
    (
        "--check",
        "--only",
        Shown::By(
            CHECK,
            "what_a_run_would_refuse_of_its_folder_and_its_lists_is_found_without_one",
        ),
    ),
    (
        "--check",
        "--skip",
        Shown::By(
            CHECK,
            "what_a_run_would_refuse_of_its_folder_and_its_lists_is_found_without_one",
        ),
    ),
    (
        "--dry-run",
        "--halt",
        Shown::By(DRY_RUN, "a_dry_run_prints_the_options_of_results_choice_and_judgement"),
    ),
    (
        "--dry-run",
        "--out",
        Shown::By(DRY_RUN, "a_dry_run_prints_the_options_of_results_choice_and_judgement"),
    ),
];
