//! The supervisor with real processes: what a mlet gets, how its end is told, and that nothing is ever left over.
//!
//! Without libtest, because the supervisor must be forked while there is one thread. The same program plays the manager
//! that is killed and the mlet that says what it was given (`roles`). Every mlet carries a mark in its environment, by
//! which anything left over is found.

#![allow(
    clippy::unwrap_used,
    reason = "a test; clippy.toml allows it in functions that libtest knows only"
)]

mod cases;
mod rig;
mod roles;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Some(role) = words.first().and_then(|word| word.strip_prefix("role=")) {
        roles::play(role, words.get(1..).unwrap_or_default());
        return ExitCode::SUCCESS;
    }
    let cases: Vec<_> = cases::ALL.iter().filter(|(name, _)| is_wanted(name, &words)).collect();
    if words.iter().any(|word| word == "--list") {
        cases.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} tests", cases.len());
    let mut failed = 0;
    for (name, case) in &cases {
        // A case that hangs ends the whole program by SIGALRM.
        nix::unistd::alarm::set(60);
        // Nothing is shared between cases that a panic could leave half done.
        let passed = catch_unwind(AssertUnwindSafe(case)).is_ok();
        let passed = if passed { rig::nothing_is_left(name) } else { rig::await_the_rest() };
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        failed += usize::from(!passed);
    }
    let passed = cases.len() - failed;
    let left_out = cases::ALL.len() - cases.len();
    let result = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {result}. {passed} passed; {failed} failed; 0 ignored; 0 measured; {left_out} filtered out\n"
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Whether libtest would take this case; none is ignored.
fn is_wanted(name: &str, words: &[String]) -> bool {
    // The word behind `--format`, with which `cargo nextest` lists, is no filter.
    let (mut filter, mut is_value) = (None, false);
    for word in words {
        if !word.starts_with('-') && !is_value {
            filter = filter.or(Some(word));
        }
        is_value = word == "--format";
    }
    let is_exact = words.iter().any(|word| word == "--exact");
    let only_ignored = words.iter().any(|word| word == "--ignored");
    !only_ignored
        && filter.is_none_or(
            |filter| {
                if is_exact { name == filter } else { name.contains(filter.as_str()) }
            },
        )
}
