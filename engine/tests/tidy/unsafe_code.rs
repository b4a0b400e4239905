//! Where unsafe code lives.

use super::{code_lines, root, sources};

#[test]
fn unsafe_code_lives_in_three_rooms_alone_and_gives_its_reason() {
    // The last is code for the memory of a monitor program.
    let rooms =
        ["engine/src/sys", "engine/src/driver/uring.rs", "loadtest/hosts/monitors/guest/src"];
    let mut reasons = [0; 3];
    for member in ["engine", "cli", "loadtest", "bench"] {
        for (path, text) in sources(&root().join(member)) {
            for (number, _) in code_lines(&text).filter(|(_, line)| is_unsafe(line)) {
                let room = rooms.iter().position(|room| path.starts_with(root().join(room)));
                let room = room.unwrap_or_else(|| panic!("{}:{number} is unsafe", path.display()));
                let before = text.lines().take(number - 1).collect::<Vec<_>>();
                let gives_reason =
                    |line: &&str| line.contains("SAFETY:") || line.contains("/// # Safety");
                assert!(
                    before.iter().rev().take(4).any(gives_reason),
                    "{}:{number} gives no SAFETY reason",
                    path.display()
                );
                reasons[room] += 1;
            }
        }
    }
    assert!(reasons.iter().all(|reasons| *reasons > 1), "found in each room: {reasons:?}");
}

/// A line of code that takes the compiler's checks away: the word itself outside of texts, and foreign functions, which
/// older editions declare without it.
fn is_unsafe(line: &str) -> bool {
    let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let code = line.split("//").next().unwrap_or_default();
    code.starts_with("extern \"C\" {")
        || code.match_indices(concat!("un", "safe")).any(|(at, word)| {
            let (before, behind) = (&code[..at], &code[at + word.len()..]);
            let is_text = before.matches('"').count() % 2 == 1;
            !is_text && !is_part(before.chars().next_back()) && !is_part(behind.chars().next())
        })
}

#[test]
fn unsafe_code_is_known_from_other_code() {
    for form in [
        "    let x = un! { call() };",
        "pub un! fn at(ip: *const u8) -> Self {",
        "        pub un! extern \"C\" fn check(",
        "un! extern \"C\" {",
        "extern \"C\" {",
        "#[un!(no_mangle)]",
        "un! impl Send for X {}",
        "    let x = un!",
    ] {
        assert!(is_unsafe(&form.replace("un!", concat!("un", "safe"))), "{form}");
    }
    for form in [
        "#[allow(un!_code)]",
        "#![forbid(un!_code)]",
        "let x = 1; // un! if there are two",
        "println!(\"un! {}\", x);",
        "fn un!_code_is_known() {",
    ] {
        assert!(!is_unsafe(&form.replace("un!", concat!("un", "safe"))), "{form}");
    }
}
