//! Each guard, its words and its test.

use std::fs;

use guards::Guard;

use super::{root, sources};

/// Each guard stands in the code once or more, in docs/reliability.md, and in the list of tests that miss it, in whose
/// place a test of that name is.
#[test]
fn every_guard_is_used_is_documented_and_has_a_test_that_misses_it() {
    let members = ["engine", "cli", "loadtest"].map(|member| sources(&root().join(member)));
    let texts: Vec<String> = members.into_iter().flatten().map(|(_, text)| text).collect();
    let page = fs::read_to_string(root().join("docs/reliability.md")).expect("a readable page");
    let list = include_str!("../../guards/tests.csv").lines().skip(1);
    let listed: Vec<Vec<&str>> = list.map(|line| line.split(',').collect()).collect();
    let names = Guard::ALL.iter().map(|guard| guard.name()).collect::<Vec<_>>();
    assert_eq!(listed.iter().map(|row| row[0]).collect::<Vec<_>>(), names, "each once, in order");
    for row in listed {
        let [guard, package, program, test] = row[..] else { panic!("{row:?}") };
        let is_used = texts.iter().any(|text| text.contains(&format!("(Guard::{guard})")));
        assert!(is_used, "nothing asks whether {guard} holds");
        assert!(page.contains(&format!("`{guard}`")), "docs/reliability.md has no {guard}");
        let folder = root().join(match package {
            "cli" => "cli",
            "engine" => "engine",
            _ => "engine/packetlab",
        });
        let (path, name) = test.rsplit_once("::").unwrap_or(("", test));
        let parts = path.split("::").filter(|part| !part.is_empty());
        let place = match program {
            "lib" => parts.fold(folder.join("src"), |place, part| place.join(part)),
            program => folder.join("tests").join(program),
        };
        // Short ones stand at the end of what they test.
        let is_there = place.ancestors().take(2).any(|place| {
            let text = fs::read_to_string(place.with_extension("rs")).unwrap_or_default();
            text.contains(&format!("fn {name}("))
        });
        assert!(is_there, "{guard}: {} has no test {name}", place.display());
    }
}
