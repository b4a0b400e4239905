//! A program's pages of help, its own and those of its subcommands, as the program prints them.
//!
//! Included by path wherever a test suite runs programs with such pages. Not here: what stands in them.

use std::process::Command;

/// So wide is a terminal.
const COLUMNS: usize = 80;

/// Fails, naming page and line, if a page of help of the program, called with these words, is wider than a terminal,
/// or one of the subcommands that it tells of. The names of all pages.
#[track_caller]
pub(crate) fn assert_pages_fit(program: &str, words: &[&str]) -> Vec<String> {
    let mut subcommands = Vec::new();
    for option in ["--help", "-h"] {
        let page = page(program, words, option);
        for line in page.lines() {
            let width = line.chars().count();
            assert!(width <= COLUMNS, "{program} {words:?} {option}: {width} columns: {line}");
        }
        subcommands = told_of(&page);
    }
    let mut pages = vec![words.join(" ")];
    for subcommand in &subcommands {
        pages.extend(assert_pages_fit(program, &[words, &[subcommand]].concat()));
    }
    pages
}

/// Fails unless each of these pages, of which [`assert_pages_fit`] has told, is of a command that refuses what it does not
/// know as a usage error: exit code 2, the reason on standard error, nothing on standard output.
#[allow(dead_code, reason = "programs without usage errors of clap have pages too")]
#[track_caller]
pub(crate) fn assert_usage_errors(program: &str, pages: &[String]) {
    for page in pages {
        let mut command = Command::new(program);
        let command = command.args(page.split_whitespace()).arg("--no-such-option");
        let ended = command.env_clear().output().unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!((ended.status.code(), ended.stdout.len()), (Some(2), 0), "{page}: {said}");
        assert!(said.contains("--no-such-option"), "{page}: {said}");
    }
}

#[track_caller]
fn page(program: &str, words: &[&str], option: &str) -> String {
    let ended = Command::new(program).args(words).arg(option).env_clear().output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(ended.status.success() && said.is_empty(), "{program} {words:?} {option}: {said}");
    String::from_utf8(ended.stdout).unwrap()
}

/// The subcommands on a page, but for clap's own, which prints the same pages.
fn told_of(page: &str) -> Vec<String> {
    let list = page.lines().skip_while(|line| *line != "Commands:").skip(1);
    let rows = list.take_while(|line| !line.is_empty());
    let names = rows.filter_map(|row| row.strip_prefix("  ")?.split(' ').next());
    names.filter(|name| !name.is_empty() && *name != "help").map(str::to_owned).collect()
}
