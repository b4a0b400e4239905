//! The examples of pages of help, held to the command line that they are of.
//!
//! Included by path where a program defines its command line. Not here: what the examples do.

use clap::Command;

/// Fails unless each page of help begins with examples that are of this page and are understood, from the program's name
/// to where one says what it does or where its output goes.
#[track_caller]
pub(crate) fn assert_on_every_page(mut command: Command) {
    command.build();
    let mut pages = 0;
    assert_page(&command, &command, &mut pages);
    assert!(pages > 1, "the walk over the commands has found none");
}

#[track_caller]
fn assert_page(whole: &Command, page: &Command, pages: &mut usize) {
    *pages += 1;
    let name = page.get_bin_name().unwrap_or_else(|| page.get_name());
    let examples = page.get_before_help().map(ToString::to_string).unwrap_or_default();
    let lines: Vec<_> = examples.lines().collect();
    assert!(lines.len() > 1 && lines[0] == "Examples:", "{name}: no examples: {examples}");
    for line in &lines[1..] {
        let example = line.trim().split("  ").next().unwrap_or_default();
        let example = example.split(" >").next().unwrap_or_default();
        // A value may stand before a command, as in `ctl SOCK show`.
        let is_word = |word: &&str| !word.bytes().all(|byte| byte.is_ascii_uppercase());
        let words = example.split(' ').filter(is_word).collect::<Vec<_>>().join(" ");
        assert!(words == name || words.starts_with(&format!("{name} ")), "{name}: {example}");
        let refused = whole.clone().try_get_matches_from(example.split(' ')).err();
        let refused = refused.map(|error| error.to_string()).unwrap_or_default();
        assert!(refused.is_empty(), "{example}: {refused}");
    }
    for below in page.get_subcommands().filter(|below| below.get_name() != "help") {
        assert_page(whole, below, pages);
    }
}
