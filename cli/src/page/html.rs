//! Text of HTML in the making, and the one place that escapes.
//!
//! Not here: what a page says. Invariant: markup is a constant of this program; whatever else there is goes through
//! [`Html::text`] or [`Html::text_within`], and ends neither an element nor an attribute in double quotation marks.

use std::fmt::{self, Write as _};

/// A page in the making.
#[derive(Debug, Default)]
pub(crate) struct Html(String);

impl Html {
    /// Adds markup.
    pub(crate) fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Adds text, escaped: into an element or an attribute's value.
    pub(crate) fn text(&mut self, text: impl fmt::Display) -> &mut Self {
        // Neither a String nor what is shown here fails.
        let _ = write!(Escaping(&mut self.0), "{text}");
        self
    }

    /// Adds as much of the text as takes so many bytes of the page; returns how many that were, and how many bytes of the
    /// text.
    pub(crate) fn text_within(&mut self, text: &str, len_max: usize) -> (usize, usize) {
        let before = self.0.len();
        for (position, character) in text.char_indices() {
            let whole = self.0.len();
            push_escaped(&mut self.0, character);
            if self.0.len() - before > len_max {
                self.0.truncate(whole);
                return (whole - before, position);
            }
        }
        (self.0.len() - before, text.len())
    }

    /// Adds what was made elsewhere.
    pub(crate) fn append(&mut self, part: Self) -> &mut Self {
        self.0.push_str(&part.0);
        self
    }

    /// The page.
    pub(crate) fn finish(self) -> String {
        self.0
    }
}

struct Escaping<'a>(&'a mut String);

impl fmt::Write for Escaping<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().for_each(|character| push_escaped(self.0, character));
        Ok(())
    }
}

/// What is special in HTML as a reference, and what cannot be seen or would turn the text round as a picture of it.
fn push_escaped(html: &mut String, character: char) {
    match character {
        '&' => html.push_str("&amp;"),
        '<' => html.push_str("&lt;"),
        '>' => html.push_str("&gt;"),
        '"' => html.push_str("&quot;"),
        '\'' => html.push_str("&#39;"),
        '\n' | '\t' => html.push(character),
        '\0'..='\u{1f}' => html.extend(char::from_u32(0x2400 + u32::from(character))),
        '\u{7f}' => html.push('\u{2421}'),
        '\u{80}'..='\u{9f}'
        | '\u{61c}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{fdd0}'..='\u{fdef}'
        | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e007f}' => html.push('\u{fffd}'),
        _ => html.push(character),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn escaped(text: &str) -> String {
        let mut html = Html::default();
        html.text(text);
        html.finish()
    }

    #[test]
    fn what_is_special_becomes_a_reference_and_what_cannot_be_seen_a_picture() {
        assert_eq!(
            escaped("<a href=\"x\" b='&'>"),
            "&lt;a href=&quot;x&quot; b=&#39;&amp;&#39;&gt;"
        );
        assert_eq!(
            escaped("a\tb\n\u{1b}[31m\0\r\u{7f}"),
            "a\tb\n\u{241b}[31m\u{2400}\u{240d}\u{2421}"
        );
        assert_eq!(
            escaped("\u{9b}\u{202e}\u{feff}Zürich 東京"),
            "\u{fffd}\u{fffd}\u{fffd}Zürich 東京"
        );
    }

    #[test]
    fn a_text_that_takes_too_much_room_ends_between_characters() {
        let within = |text, len| {
            let mut html = Html::default();
            let taken = html.text_within(text, len);
            (html.finish(), taken)
        };
        assert_eq!(within("a<b", 10), ("a&lt;b".into(), (6, 3)));
        assert_eq!(within("a<b", 5), ("a&lt;".into(), (5, 2)));
        assert_eq!(within("a<b", 4), ("a".into(), (1, 1)));
        assert_eq!(within("é", 1), (String::new(), (0, 0)));
    }

    proptest! {
        #[test]
        fn no_text_ends_an_element_or_an_attribute(text in any::<String>(), len_max in 0..100_usize) {
            let shown = escaped(&text);
            let is_special = shown.contains(['<', '>', '"', '\'', '\0', '\r', '\u{1b}']);
            prop_assert!(!is_special);
            let mut html = Html::default();
            let (len, taken) = html.text_within(&text, len_max);
            let part = html.finish();
            prop_assert!(len <= len_max && len == part.len());
            prop_assert_eq!(part, escaped(&text[..taken]));
        }
    }
}
