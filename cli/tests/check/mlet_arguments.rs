//! `--check-mlet`: what a mlet says of its arguments, and that nobody is asked without it.

use super::*;

/// A home whose mlet is this script; `told` is a file that it may write.
fn with_script(script: &str) -> Home {
    let home = Home::new();
    home.write("mlet", format!("#!/bin/sh\n{script}\n").as_bytes());
    home
}

/// What `--check --check-mlet` says of it, with these arguments.
fn judged(script: &str, arguments: &[&str]) -> Ended {
    let words = ["--check", "--check-mlet", "./mlet"];
    run_words(&with_script(script), &[&words, arguments].concat())
}

#[test]
fn a_mlet_that_takes_its_arguments_passes_and_is_given_them_and_nothing_else() {
    let script = "[ \"$*\" = '--check-args -x two words' ] && [ $# = 3 ] || exit 2\n\
                  [ -z \"$EPADDR$HOME\" ] && ! read line || exit 3\n\
                  echo arguments ok; echo beside it >&2";
    let ended = judged(script, &["-x", "two words"]);
    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""), "{}", ended.stdout);
    assert!(ended.stdout.ends_with("mlet ./mlet, which takes its arguments\n"), "{}", ended.stdout);
}

#[test]
fn a_mlet_that_does_not_say_so_in_the_agreed_words_does_not_pass() {
    let refusal = "the mlet ./mlet does not take its arguments: mlet: how many?";
    let unasked = "the mlet ./mlet does not judge its arguments (exit code";
    for (script, told) in [
        ("echo 'usage: mlet N' >&2; echo 'mlet: how many?' >&2; exit 2", refusal),
        ("echo 'arguments ok'; echo 'mlet: how many?' >&2; exit 2", refusal),
        ("exit 0", unasked),
        ("echo arguments ok, or not", unasked),
        ("echo 'arguments ok'; exit 1", unasked),
        ("exec >&-; exec 2>&-; exit 7", "(exit code 7); leave out --check-mlet"),
        ("kill -9 $$", "the mlet ./mlet was ended by signal 9 while it judged its arguments"),
        // No more is read of what does not end.
        ("exec yes", "the mlet ./mlet was ended by signal 13 while it judged its arguments"),
    ] {
        let ended = judged(script, &[]);
        assert_eq!((ended.code, &*ended.stdout), (Some(3), ""), "{script}: {}", ended.stderr);
        assert_says(&ended.stderr, &[told, "FATAL: no run can begin: errors: 1"]);
    }
}

#[test]
fn a_mlet_that_does_not_end_is_killed_with_all_that_it_has_started() {
    let home = with_script("sleep 1000 & echo $! $$ > told; wait");
    let ended = run_words(&home, &["--check", "--check-mlet", "./mlet"]);
    assert_says(&ended.stderr, &["did not judge its arguments within 10 s, and was killed"]);
    for pid in fs::read_to_string(home.path("told")).unwrap().split_whitespace() {
        let pid = pid.parse().unwrap();
        // What has been killed ends once it gets a processor, and whoever is its parent now takes it in.
        wait_until("it has ended", || !is_alive(pid));
    }
}

#[test]
fn no_mlet_is_run_without_the_option_nor_one_that_cannot_be() {
    let home = with_script("echo asked > told; echo arguments ok");
    for words in [&["--check"][..], &["--dry-run"]] {
        let ended = run_words(&home, &[words, &["./mlet"]].concat());
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert!(!home.path("told").exists(), "{words:?}");
    }
    accepted(&home, &["--check", "--check-mlet", "mlet"]);
    assert!(home.path("told").exists(), "it would be noticed");
    let missing = run_words(&home, &["--check", "--check-mlet", "./none"]);
    assert_says(&missing.stderr, &["cannot run the mlet ./none", "errors: 1"]);
    let nobody = run_words(&home, &["--check", "--check-mlet"]);
    assert_eq!(nobody.code, Some(2), "{}", nobody.stderr);
}
