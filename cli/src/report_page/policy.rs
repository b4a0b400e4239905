//! What the page may load and run: its own style and its own script, by their digests, and nothing else.
//!
//! A browser that heeds it runs no script of a session's output, should one ever get into the page.

use packetlab::key::sha256;

/// The page's style.
pub(super) const STYLE: &str = include_str!("style.css");

/// The page's script.
pub(super) const SCRIPT: &str = include_str!("script.js");

/// The Content-Security-Policy of the page.
pub(super) fn policy() -> String {
    let source = |text: &str| format!("'sha256-{}'", base64(&sha256(text.as_bytes())));
    format!(
        "default-src 'none'; style-src {}; script-src {}; base-uri 'none'; form-action 'none'",
        source(STYLE),
        source(SCRIPT)
    )
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits =
            (0..3).fold(0, |bits, at| bits << 8 | chunk.get(at).map_or(0, |b| u32::from(*b)));
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place)) as usize % DIGITS.len()];
            text.push(if place > chunk.len() { '=' } else { digit.into() });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4648, section 10.
    #[test]
    fn base64_is_that_of_its_standard() {
        for (text, encoded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(text.as_bytes()), encoded);
        }
        assert_eq!(base64(&[0xfb, 0xff]), "+/8=");
    }

    #[test]
    fn style_and_script_end_no_element_and_load_nothing() {
        for text in [STYLE, SCRIPT] {
            for part in ["</", "<!--", "http:", "https:", "url(", "@import", "fetch("] {
                assert!(!text.contains(part), "{part}");
            }
        }
    }
}
