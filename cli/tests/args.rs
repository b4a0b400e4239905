//! The command line as a user meets it: exit codes, and what goes to which stream. How words are
//! understood is tested beside `args.rs`.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;
#[path = "../../engine/tests/common/help_pages.rs"]
mod help_pages;

use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use common::debug_forms::assert_no_debug_form;
use common::option_pairs::{EXCLUSIVE, REFUSED, ROWS};
use common::{Home, PKTCRED, PKTXPMGR, assert_says, full, run};

fn run_words(words: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(PKTXPMGR).args(words).env_clear().output().unwrap();
    let text = |bytes| {
        let text = String::from_utf8(bytes).unwrap();
        assert_no_debug_form(&text);
        text
    };
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Items 1, 3, 4.
#[test]
fn usage_errors_go_to_stderr_with_code_2() {
    let cases: [&[&str]; 9] = [
        &[],
        &["-s"],
        &["-x", "./m"],
        &["--unknown", "./m"],
        &["-n", "0", "./m"],
        &["-n", "abc", "./m"],
        &["-n"],
        &["--cores", "0", "./m"],
        &["--handshake-timeout", "10", "./m"],
    ];
    for words in cases {
        let (code, stdout, stderr) = run_words(words);
        assert_eq!((code, &*stdout), (Some(2), ""), "{words:?}");
        assert_says(&stderr, &["error: "]);
    }
    assert_says(&run_words(&["-x", "./m"]).2, &["-x", "Usage: pktxpmgr"]);
    assert_says(&run_words(&[]).2, &["MLET", "Usage: pktxpmgr"]);
}

/// Each is told both options, and nothing has been made or begun.
#[test]
fn options_that_do_not_go_together_are_a_usage_error_that_names_both() {
    let home = Home::new();
    let words_of = |option| ROWS.iter().find(|row| row.option == option).unwrap().words;
    let exclusive =
        EXCLUSIVE.map(|[one, other]| ([words_of(one), words_of(other)].concat(), [one, other]));
    let refused = REFUSED.iter().map(|(words, names)| (words.to_vec(), *names));
    for (words, names) in exclusive.into_iter().chain(refused) {
        let before = files(&home);
        let ended = run(home.command().args(&words).arg("./mlet"));
        assert_eq!((ended.code, &*ended.stdout), (Some(2), ""), "{words:?}: {}", ended.stderr);
        assert_says(ended.stderr.lines().next().unwrap(), &[&["error: "], &names[..]].concat());
        assert_eq!(files(&home), before, "{words:?}");
    }
}

/// What each run has to do with its results, with the real program: whatever is not refused gets as far as its config file.
#[test]
fn every_pair_of_options_for_results_that_is_not_refused_is_taken() {
    const RESULTS: [&str; 29] = [
        "--out",
        "--resume",
        "--resume-anyway",
        "--only",
        "--skip",
        "--once-per-endpoint",
        "--keep",
        "--stream",
        "--max-output",
        "--tag",
        "--note",
        "--events",
        "--joblog",
        "--latency",
        "--latency-sample",
        "--fail-on",
        "--halt",
        "--require",
        "--deadline",
        "--drain-limit",
        "--mlet-timeout",
        "--idle-timeout",
        "--check",
        "--dry-run",
        "--single",
        "--single-facts",
        "--count",
        "--quiet",
        "--verbose",
    ];
    let home = Home::new();
    home.write("these", b"ab\n");
    home.write("those", b"cd\n");
    let rows: Vec<_> = ROWS.iter().filter(|row| RESULTS.contains(&row.option)).collect();
    assert_eq!(rows.len(), RESULTS.len());
    let mut refused = 0;
    for (index, one) in rows.iter().enumerate() {
        for other in &rows[index + 1..] {
            let words = [&["-c", "nowhere.conf"], one.words, other.words, &["./mlet"]].concat();
            let ended = run(home.bare_command().args(&words));
            assert_eq!(ended.stdout, "", "{words:?}");
            if ended.code == Some(2) {
                refused += 1;
                assert_says(&ended.stderr, &["do not go together"]);
            } else {
                assert_eq!(ended.code, Some(3), "{words:?}: {}", ended.stderr);
                assert_says(&ended.stderr, &["cannot read the config file nowhere.conf"]);
            }
        }
    }
    // Of --single and --single-facts each four, and -q with -v, and the two checks.
    assert_eq!(refused, 10);
    assert!(!home.path("r").exists());
}

/// What is in a home.
fn files(home: &Home) -> Vec<String> {
    let entries = std::fs::read_dir(home.path("")).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

/// A script that asks for it gets it or hears that it did not.
#[test]
fn help_and_version_that_cannot_be_written_are_a_failure_with_its_reason() {
    for program in [PKTXPMGR, PKTCRED] {
        for word in ["--help", "--version"] {
            let mut command = Command::new(program);
            let output = command.arg(word).env_clear().stdout(full()).output().unwrap();
            assert_eq!(output.status.code(), Some(1), "{program} {word}");
            let said = String::from_utf8(output.stderr).unwrap();
            assert_says(&said, &["cannot write to standard output: No space left on device"]);
            // A reader that has had enough is none.
            let (reader, writer) = std::io::pipe().unwrap();
            drop(reader);
            let status = Command::new(program).arg(word).stdout(writer).status().unwrap();
            assert_eq!(status.code(), Some(0), "{program} {word}");
        }
    }
}

/// Item 2, as changed by the design.
#[test]
fn help_and_version_go_to_stdout_with_code_0() {
    for words in [["-h"], ["--help"]] {
        let (code, stdout, stderr) = run_words(&words);
        assert_eq!((code, &*stderr), (Some(0), ""));
        assert_says(
            &stdout,
            &["Examples:", "Usage: pktxpmgr", "--handshake-timeout", "Exit codes:"],
        );
        assert!(!stdout.contains('\x1b'), "no colour in a pipe");
    }
    for words in [["-V"], ["--version"]] {
        let (code, stdout, _) = run_words(&words);
        assert_eq!(code, Some(0));
        assert!(stdout.starts_with("pktxpmgr "), "{stdout}");
    }
}

/// A word that would be a command is a mlet once there is such a file.
#[test]
fn completions_are_printed_for_every_shell_unless_a_file_has_the_name() {
    let home = Home::new();
    for (program, name) in [(PKTXPMGR, "pktxpmgr"), (PKTCRED, "pktcred")] {
        for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
            let mut command = Command::new(program);
            let ended = command.args(["completions", shell]).env_clear().output().unwrap();
            assert!(ended.status.success() && ended.stderr.is_empty(), "{program} {shell}");
            let script = String::from_utf8(ended.stdout).unwrap();
            assert_says(&script, &[name, "completions"]);
        }
    }
    // What clap leaves out for this shell.
    let fish = run(Command::new(PKTXPMGR).args(["completions", "fish"]).env_clear()).stdout;
    let seen = "__fish_seen_subcommand_from ctl; and __fish_seen_subcommand_from";
    for (request, word) in [("show", "stat"), ("set", "deadline"), ("loglevel", "trace")] {
        let line = format!("complete -c pktxpmgr -n \"{seen} {request}\" -f -a \"{word}\"\n");
        assert!(fish.contains(&line), "{line}");
    }
    let mut command = Command::new(PKTXPMGR);
    let ended = command.args(["completions", "bash"]).env_clear().stdout(full()).output().unwrap();
    assert_eq!(ended.status.code(), Some(74));
    home.write("completions", b"#!/bin/sh\n");
    let ended = run(home.bare_command().args(["completions", "bash"]));
    assert_eq!((ended.code, &*ended.stdout), (Some(3), ""));
    assert_says(&ended.stderr, &["cannot run the mlet completions: it is not executable"]);
}

/// What a shell asks its script, and what that answers.
#[test]
fn bash_completes_options_and_commands_with_the_script() {
    let complete = |program: &str, name: &str, line: &str| {
        let script = r#"source <("$0" completions bash); COMP_WORDS=($2); COMP_CWORD=$((${#COMP_WORDS[@]} - 1));
            "_$1" "$1" "${COMP_WORDS[$COMP_CWORD]}"; printf '%s\n' "${COMPREPLY[@]}""#;
        let mut bash = Command::new("bash");
        let ended = run(bash.args(["-c", script, program, name, line]));
        assert_eq!((ended.code, &*ended.stderr), (Some(0), ""), "{line}");
        ended.stdout
    };
    assert_eq!(complete(PKTXPMGR, "pktxpmgr", "pktxpmgr --publish-a"), "--publish-addr\n");
    assert_eq!(complete(PKTXPMGR, "pktxpmgr", "pktxpmgr resu"), "results\n");
    assert_eq!(complete(PKTXPMGR, "pktxpmgr", "pktxpmgr results ls --outc"), "--outcome\n");
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.t");
    let completed = complete(PKTXPMGR, "pktxpmgr", &format!("pktxpmgr ctl {file}"));
    assert_eq!(completed, concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml\n"));
    let ctl =
        |words: &str| complete(PKTXPMGR, "pktxpmgr", &format!("pktxpmgr ctl ctl.sock {words}"));
    for (words, completed) in [
        ("re", "reload\n"),
        ("lo", "loglevel\n"),
        ("show s", "sessions\nstat\n"),
        ("set drain-", "drain-timeout\ndrain-limit\n"),
        ("set linfo", "\n"),
        ("loglevel w", "warn\n"),
        ("show sessions --js", "--json\n"),
    ] {
        assert_eq!(ctl(words), completed, "{words}");
    }
    assert_eq!(complete(PKTCRED, "pktcred", "pktcred sign delp"), "delpriv\n");
    assert_eq!(complete(PKTCRED, "pktcred", "pktcred sign delpriv --deleg"), "--delegate\n");
    assert_eq!(complete(PKTCRED, "pktcred", "pktcred sign agent --deleg"), "\n");
}

#[test]
fn a_manual_page_is_written_for_each_command_that_help_tells_of() {
    let home = Home::new();
    let dir = home.path("man1");
    for program in [PKTXPMGR, PKTCRED] {
        let ended = run(Command::new(program).arg("man").arg(&dir).env_clear());
        assert_eq!((ended.code, &*ended.stderr), (Some(0), ""), "{program}");
    }
    let pages = |program, words: &[&str]| help_pages::assert_pages_fit(program, words);
    let of = |name: &str, pages: Vec<String>| -> Vec<String> {
        pages.iter().map(|page| format!("{name} {page}").trim().replace(' ', "-") + ".1").collect()
    };
    let mut expected = of("pktxpmgr", pages(PKTXPMGR, &[]));
    for command in ["results", "report", "campaign", "ctl", "completions"] {
        expected.extend(of("pktxpmgr", pages(PKTXPMGR, &[command])));
    }
    expected.extend(of("pktcred", pages(PKTCRED, &[])));
    expected.sort_unstable();
    let mut written: Vec<_> = std::fs::read_dir(&dir).unwrap().collect();
    written.sort_unstable_by_key(|entry| entry.as_ref().unwrap().file_name());
    let names = written.iter().map(|entry| entry.as_ref().unwrap().file_name());
    assert_eq!(names.map(|name| name.into_string().unwrap()).collect::<Vec<_>>(), expected);
    for entry in written {
        let page = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        assert_says(&page, &[".TH ", ".SH NAME\n", ".SH SYNOPSIS\n", ".SH EXAMPLES\n"]);
        let title = page.lines().find(|line| line.starts_with(".TH ")).unwrap();
        assert_says(title, &[concat!(env!("CARGO_PKG_VERSION"), "\"")]);
    }
    let page = std::fs::read_to_string(dir.join("pktxpmgr.1")).unwrap();
    assert_says(
        &page,
        &["\\-\\-handshake\\-timeout", "Exit codes: 0 as asked", "pktxpmgr\\-results(1)"],
    );
    // Where they cannot be written, whoever asked hears of it.
    let mut command = Command::new(PKTXPMGR);
    let ended = run(command.args(["man", "/dev/null/man1"]).env_clear());
    assert_eq!(ended.code, Some(74));
    assert_says(&ended.stderr, &["cannot write manual pages to /dev/null/man1"]);
}

/// In a pipe as in a terminal of any width.
#[test]
fn no_page_of_help_is_wider_than_80_columns() {
    let pages = |words: &[&str]| help_pages::assert_pages_fit(PKTXPMGR, words);
    assert_eq!(pages(&[]), [""]);
    let of_results = ["", " ls", " show", " cat", " stats", " export"];
    assert_eq!(pages(&["results"]), of_results.map(|page| format!("results{page}")));
    let of_ctl = ["", " show", " kill", " drain", " stop", " reload", " set", " loglevel"];
    assert_eq!(pages(&["ctl"]), of_ctl.map(|page| format!("ctl{page}")));
    for command in ["report", "completions", "man"] {
        assert_eq!(pages(&[command]), [command]);
    }
    let mut expected = vec!["".to_owned(), "init".into(), "key".into()];
    for command in ["csr", "sign"] {
        let types = ["", " subcmd", " pubcmd", " exppriv", " delpriv", " agent"];
        expected.extend(types.map(|of_type| format!("{command}{of_type}")));
    }
    let others = ["show", "verify", "digest", "add-privilege", "completions"];
    expected.extend(others.map(str::to_owned));
    assert_eq!(help_pages::assert_pages_fit(PKTCRED, &[]), expected);
    assert_eq!(help_pages::assert_pages_fit(PKTCRED, &["man"]), ["man"]);
}

#[test]
fn every_command_refuses_what_it_does_not_know_with_code_2() {
    let pages = |words: &[&str]| help_pages::assert_pages_fit(PKTXPMGR, words);
    for words in [&[][..], &["results"], &["report"], &["ctl"], &["completions"], &["man"]] {
        help_pages::assert_usage_errors(PKTXPMGR, &pages(words));
    }
    let pages = help_pages::assert_pages_fit(PKTCRED, &[]);
    help_pages::assert_usage_errors(PKTCRED, &[&pages[..], &["man".into()]].concat());
}

/// What else is wrong with a command line than words that nobody knows.
#[test]
fn usage_errors_of_every_kind_have_code_2() {
    for (program, line) in [
        (PKTXPMGR, "results"),
        (PKTXPMGR, "results ls"),
        (PKTXPMGR, "results ls DIR --sort height"),
        (PKTXPMGR, "results show DIR"),
        (PKTXPMGR, "results show DIR xyz"),
        (PKTXPMGR, "results help"),
        (PKTXPMGR, "report"),
        (PKTXPMGR, "report DIR MORE"),
        (PKTXPMGR, "completions"),
        (PKTXPMGR, "completions tcsh"),
        (PKTXPMGR, "man"),
        (PKTCRED, ""),
        (PKTCRED, "nothing"),
        (PKTCRED, "init --broker :"),
        (PKTCRED, "init --no-broker --broker b.example"),
        (PKTCRED, "key"),
        (PKTCRED, "key a/b --no-passphrase"),
        (PKTCRED, "csr"),
        (PKTCRED, "csr passport --key k"),
        (PKTCRED, "csr agent"),
        (PKTCRED, "csr delpriv --key k"),
        (PKTCRED, "csr agent --key k --path-len 1"),
        (PKTCRED, "sign subcmd --signer k --max-send-byte 1"),
        (PKTCRED, "sign pubcmd --signer k --delegate exppriv"),
        (PKTCRED, "sign exppriv --signer k --delegate exppriv"),
        (PKTCRED, "sign agent --signer k"),
        (PKTCRED, "sign agent --signer k --csr a --subject b"),
        (PKTCRED, "show"),
        (PKTCRED, "verify file"),
        (PKTCRED, "verify --as nobody file"),
        (PKTCRED, "digest"),
        (PKTCRED, "add-privilege --cert a"),
        (PKTCRED, "completions tcsh"),
        (PKTCRED, "key k --home"),
    ] {
        let mut command = Command::new(program);
        let ended = run(command.args(line.split_whitespace()).env_clear());
        assert_eq!((ended.code, &*ended.stdout), (Some(2), ""), "{line}: {}", ended.stderr);
        assert!(!ended.stderr.is_empty(), "{line}");
    }
}

#[test]
fn a_mlet_that_cannot_run_is_code_3_before_anything_else() {
    let home = Home::new();
    home.make_directory("folder");
    home.make_directory("report");
    home.write("plain", b"#!/bin/sh\n");
    for (mlet, reason) in [
        ("./nowhere", "No such file"),
        ("./folder", "it is not a regular file"),
        ("./plain", "it is not executable; chmod +x it"),
        ("true", "not searched in PATH"),
        ("results", "results, report and completions must be the first word: pktxpmgr results ls"),
        ("result", "must be the first word"),
        ("report", "must be the first word"),
        ("help", "help is printed by pktxpmgr --help"),
        ("version", "the version is printed by pktxpmgr --version"),
        ("status", "kill -USR1 PID"),
        ("stop", "kill -INT PID"),
        ("run", "the mlet is named at once: pktxpmgr [OPTIONS] ./MLET"),
        ("list", "pktxpmgr results ls DIR"),
        ("check", "a check is pktxpmgr --check [MLET]"),
        ("man", "pktxpmgr man DIR"),
        ("sign", "pktcred --help"),
        ("demo", "pktfleet --help"),
        ("./results", "not searched in PATH"),
        ("", "No such file"),
    ] {
        let ended = run(home.bare_command().args(["-c", "nowhere.conf", "--", mlet]));
        assert_eq!(ended.code, Some(3), "{mlet}");
        assert_says(&ended.stderr, &["FATAL", "mlet", reason]);
    }
    symlink("mlet", home.path("link")).unwrap();
    assert!(run(home.command().arg("./link")).loaded);
}

/// Items 13, 14.
#[test]
fn neither_stdin_nor_stdout_is_used() {
    let home = Home::new();
    let ended = run(home.command().arg("./mlet").stdin(Stdio::null()));
    assert!(ended.loaded);
    assert_eq!(ended.stdout, "");
    // A shell closes fd 0 for us.
    let script = "exec \"$0\" -c xpmgr.conf -a 127.0.0.1: ./mlet <&-";
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script, PKTXPMGR]).current_dir(home.path("")).env_clear();
    assert!(run(&mut command).loaded);
}

#[test]
fn a_stderr_that_nobody_reads_changes_nothing() {
    let home = Home::new();
    let run = |stderr: Stdio| {
        let mut command = home.bare_command();
        command.args(["-vv", "-c", "nowhere.conf", "./mlet"]).stderr(stderr);
        command.status().unwrap().code()
    };
    assert_eq!(run(full().into()), Some(3));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert_eq!(run(writer.into()), Some(3));
}

#[test]
fn log_lines_carry_a_time_a_level_and_no_colour() {
    let home = Home::new();
    let ended = run(home.command().arg("./mlet"));
    let line = ended.stderr.lines().find(|line| line.contains("configuration loaded")).unwrap();
    let (time, rest) = line.split_once(' ').unwrap();
    assert!(time.len() == 27 && time.starts_with("20") && time.ends_with('Z'), "{line}");
    assert!(rest.trim_start().starts_with("INFO configuration loaded"), "{line}");
    assert!(!ended.stderr.contains('\x1b'));
}

#[test]
fn cores_beyond_those_allowed_are_a_usage_error() {
    let home = Home::new();
    let ended = run(home.command().args(["--cores", "1023-1023", "./mlet"]));
    assert_eq!(ended.code, Some(2));
    assert_says(&ended.stderr, &["may not run on CPU 1023", "choose among"]);
}

#[test]
fn what_stands_behind_the_number_of_n_is_warned_of() {
    let home = Home::new();
    let ended = run(home.command().args(["-n", "10k", "./mlet", "-x\x1b[2J"]));
    assert_says(
        &ended.stderr,
        &["WARN -n: 'k'", "ends after sessions: 10 or when", "./mlet $'-x\\033[2J'"],
    );
}

/// Item 6: in C a negative number wraps to one that nobody reaches.
#[test]
fn a_negative_number_of_n_is_told_to_be_no_limit() {
    let home = Home::new();
    for count in ["-5", "-1"] {
        let ended = run(home.command().args(["-n", count, "./mlet"]));
        assert_says(&ended.stderr, &["ends when interrupted: the number of -n is no limit"]);
        assert!(!ended.stderr.contains("ends after"), "{}", ended.stderr);
    }
}
