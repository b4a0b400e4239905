//! Rust's Debug forms in text that users read: `Os { code: 2, .. }`, `Some("x")`, `b"x"`. What a program prints
//! is for people; that form is for those who wrote the program.
//!
//! Included by path wherever a test suite reads what our programs print, because the crates that have such
//! suites share nothing else. Not here: reading it.

/// The first Debug form in a line: the value of a type with its fields, or a byte string.
///
/// JSON and prose pass: a type's name begins with a capital and has a small letter, and an opening bracket
/// follows at once, or a space, a brace and the name of a field.
pub(crate) fn debug_form(line: &str) -> Option<&str> {
    let mut words = line.match_indices(is_word_part).map(|(at, _)| at).peekable();
    while let Some(start) = words.next() {
        let mut end = start + 1;
        while words.next_if_eq(&end).is_some() {
            end += 1;
        }
        let (word, behind) = (line.get(start..end)?, line.get(end..)?);
        let before = line.get(..start)?;
        if is_form(before, word, behind) {
            return line.get(start..).map(|form| form.get(..80).unwrap_or(form));
        }
    }
    None
}

fn is_word_part(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn is_form(before: &str, word: &str, behind: &str) -> bool {
    let is_type = word.starts_with(|c: char| c.is_ascii_uppercase())
        && word.contains(|c: char| c.is_ascii_lowercase());
    let has_fields = |behind: &str| {
        let field = behind.trim_start_matches(is_word_part);
        let starts_small = behind.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
        starts_small && field.starts_with(": ")
    };
    let shows_value = behind.starts_with('(') || behind.strip_prefix(" { ").is_some_and(has_fields);
    // A quote in front of it would make the letter a text of its own.
    let begins = before.chars().next_back().is_none_or(|c| " ([=".contains(c));
    (is_type && shows_value) || (begins && word == "b" && behind.starts_with('"'))
}

/// Fails, naming the line, if one of these holds a Debug form.
#[track_caller]
pub(crate) fn assert_no_debug_form(text: &str) {
    for line in text.lines() {
        if let Some(form) = debug_form(line) {
            panic!("a user is shown a Debug form, {form}, in the line\n{line}");
        }
    }
}
