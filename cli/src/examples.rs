//! The examples of a help, held to the command line that they are of: for tests of whoever has some.

use clap::Parser;

/// Asserts that each example is understood as `Options`, from its words behind `before` to where it says what it does or
/// where its output goes.
pub(crate) fn assert_understood<Options: Parser>(examples: &str, before: &str) {
    let lines: Vec<_> = examples.lines().skip(1).map(str::trim).collect();
    assert!(!lines.is_empty(), "there are no examples");
    for line in lines {
        let command = line.split("  ").next().unwrap_or_default();
        let command = command.split(" >").next().unwrap_or_default();
        let words = command.strip_prefix(before).unwrap_or_default();
        let refused = Options::try_parse_from(words.split(' ')).err();
        let refused = refused.map(|error| error.to_string()).unwrap_or_default();
        assert!(refused.is_empty(), "{command}: {refused}");
    }
}
