//! Text from outside, made safe to show on a terminal and to write into a log line.
//!
//! Not a wire encoding: nothing parses what comes out of here. The invariant: the output holds no
//! control character (C0, DEL, C1, so no ESC and no line break), no bidirectional override and no
//! invisible formatting character, whatever the bytes are.

use std::fmt;
use std::sync::OnceLock;

/// Shows bytes as text: printable UTF-8 as it is, a backslash doubled, anything that could steer a
/// terminal or break a line as `\n`, `\xNN` (bytes that are not UTF-8) or `\u{NN}`.
#[derive(Debug, Clone, Copy)]
pub struct Escaped<'a>(pub &'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            let mut rest = chunk.valid();
            while !rest.is_empty() {
                // Most text passes as it is, in runs: a peer must not make each character of it cost a call.
                let mut others = rest.char_indices();
                let special = others.find(|(_, character)| !is_plain(*character));
                let run_len = special.map_or(rest.len(), |(position, _)| position);
                f.write_str(&rest[..run_len])?;
                match special {
                    Some((_, ascii)) if ascii.is_ascii() => ascii.escape_debug().fmt(f)?,
                    // Not escape_debug(), which would look once more whether it can be printed.
                    Some((_, character)) => character.escape_unicode().fmt(f)?,
                    None => {}
                }
                rest = others.as_str();
            }
            for byte in chunk.invalid() {
                byte.escape_ascii().fmt(f)?;
            }
        }
        Ok(())
    }
}

/// Passes as it is. Quotes are harmless in a log line and escaping them only hurts the reader.
fn is_plain(character: char) -> bool {
    match character {
        ' '..='~' => character != '\\',
        _ => !character.is_ascii() && is_printable(character),
    }
}

/// Characters of one page, a bit each.
const PAGE_LEN: usize = u64::BITS as usize;

/// What Unicode data say of the first two planes. For these the standard library searches a list, which takes up to half
/// a microsecond a character, so each page is looked up once in a run, when it is met first.
static PRINTABLE: [OnceLock<u64>; 0x2_0000 / PAGE_LEN] =
    [const { OnceLock::new() }; 0x2_0000 / PAGE_LEN];

/// Not a control, unprintable, or an invisible or combining character, in any plane.
fn is_printable(character: char) -> bool {
    let code = character as usize;
    let Some(page) = PRINTABLE.get(code / PAGE_LEN) else { return is_shown(character) };
    let printable = page.get_or_init(|| {
        let first = code - code % PAGE_LEN;
        let bit = |place| char::from_u32((first + place) as u32).is_some_and(is_shown);
        (0..PAGE_LEN).fold(0, |bits, place| bits | u64::from(bit(place)) << place)
    });
    printable >> (code % PAGE_LEN) & 1 == 1
}

/// As the standard library's Debug form shows it, which is to be known by Unicode data alone.
fn is_shown(character: char) -> bool {
    character.escape_debug().eq([character])
}

/// The front of a text that a message repeats, so that whoever wrote the text does not choose the message's length.
#[must_use]
pub fn clipped(text: &str, len_max: usize) -> String {
    if text.len() <= len_max {
        return text.to_owned();
    }
    format!("{}...", front(text, len_max))
}

/// As much of a text as fits into so many bytes, in whole characters.
pub fn front(text: &str, len_max: usize) -> &str {
    let end = (0..=len_max.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

impl Escaped<'_> {
    /// At most so many characters of what would be shown, with dots for the rest: for messages, in
    /// which a megabyte helps nobody.
    #[must_use]
    pub fn cut(&self, chars_max: usize) -> String {
        let mut shown = String::new();
        // No character is shown by none, so more of them need not be looked at.
        let bytes = self.0.get(..4 * chars_max + 4).unwrap_or(self.0);
        for (index, character) in Escaped(bytes).to_string().chars().enumerate() {
            if index == chars_max {
                shown.push_str("...");
                break;
            }
            shown.push(character);
        }
        shown
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::{Escaped, clipped};
    use proptest::prelude::*;

    #[test]
    fn printable_text_passes_unchanged() {
        let text = "an endpoint's \"name\": Zürich 東京 [::1]:20556";
        assert_eq!(Escaped(text.as_bytes()).to_string(), text);
    }

    #[test]
    fn controls_invalid_bytes_and_backslashes_become_visible() {
        let cases: [(&[u8], &str); 7] = [
            (b"a\x1b[2Jb", "a\\u{1b}[2Jb"),
            (b"one\r\ntwo\tthree", "one\\r\\ntwo\\tthree"),
            (b"nul\0del\x7f", "nul\\0del\\u{7f}"),
            ("c1 \u{9b}31m".as_bytes(), "c1 \\u{9b}31m"),
            ("bidi \u{202e}x\u{2066}".as_bytes(), "bidi \\u{202e}x\\u{2066}"),
            (b"\xff\xc3", "\\xff\\xc3"),
            (b"C:\\x", "C:\\\\x"),
        ];
        for (bytes, shown) in cases {
            assert_eq!(Escaped(bytes).to_string(), shown);
        }
    }

    #[test]
    fn a_text_is_clipped_between_characters_and_says_so() {
        assert_eq!(clipped("short", 5), "short");
        assert_eq!(clipped("a longer one", 5), "a lon...");
        assert_eq!(clipped("a\u{e9}\u{e9}", 2), "a...");
    }

    /// Each character by itself, as plainly as it can be said.
    fn escaped_one_by_one(bytes: &[u8]) -> String {
        let mut shown = String::new();
        for chunk in bytes.utf8_chunks() {
            for character in chunk.valid().chars() {
                match character {
                    '\'' | '"' => shown.push(character),
                    _ => shown.extend(character.escape_debug()),
                }
            }
            shown.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
        }
        shown
    }

    /// Unicode data are searched at first sight alone. A text of 64 KiB took 7 ms of a shard's time.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "it is about time")]
    fn characters_that_have_been_seen_cost_little() {
        let text = "\u{1f600}".repeat(16_000);
        let cost = |show: fn(&str) -> String| {
            let one_run = |_| {
                let start = Instant::now();
                assert_eq!(show(&text), text);
                start.elapsed()
            };
            (0..10).map(one_run).min().unwrap()
        };
        let (ours, plain) = (
            cost(|text| Escaped(text.as_bytes()).to_string()),
            cost(|text| text.escape_debug().collect()),
        );
        assert!(ours < plain / 2, "{ours:?}, {plain:?}");
    }

    #[test]
    fn long_text_is_cut_with_dots() {
        assert_eq!(Escaped(b"12345").cut(5), "12345");
        assert_eq!(Escaped(b"123456").cut(5), "12345...");
        assert_eq!(Escaped("äöüßÄÖ".as_bytes()).cut(5), "äöüßÄ...");
        assert_eq!(Escaped(&[0; 3]).cut(5), "\\0\\0\\...");
        let megabyte = vec![b'x'; 1 << 20];
        assert_eq!(Escaped(&megabyte).cut(8), "xxxxxxxx...");
    }

    #[test]
    fn every_character_comes_out_as_unicode_data_say() {
        for character in ('\0'..='\u{2ffff}').chain('\u{e0000}'..='\u{e01ff}') {
            let text = character.to_string();
            assert_eq!(Escaped(text.as_bytes()).to_string(), escaped_one_by_one(text.as_bytes()));
        }
    }

    proptest! {
        #[test]
        fn runs_come_out_as_their_characters_do(bytes in any::<Vec<u8>>(), text in ".*") {
            prop_assert_eq!(Escaped(&bytes).to_string(), escaped_one_by_one(&bytes));
            prop_assert_eq!(Escaped(text.as_bytes()).to_string(), escaped_one_by_one(text.as_bytes()));
        }

        #[test]
        fn no_character_that_steers_a_terminal_ever_comes_out(bytes in any::<Vec<u8>>()) {
            let shown = Escaped(&bytes).to_string();
            prop_assert!(!shown.chars().any(|c| c.is_control() || is_invisible(c)));
        }

        #[test]
        fn no_invisible_character_passes(c in any::<char>()) {
            let shown = Escaped(c.to_string().as_bytes()).to_string();
            prop_assert!(!shown.chars().any(|c| c.is_control() || is_invisible(c)));
        }
    }

    fn is_invisible(c: char) -> bool {
        matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    }
}
