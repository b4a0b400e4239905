//! What a page may load and run: its own style and its own script, by their digests, and nothing else.
//!
//! A browser that heeds it runs nothing that a peer or a mlet has said, should that ever get into a page.

use packetlab::key::sha256;

/// What a page looks like, what it runs, and whom that may ask for more.
#[derive(Debug)]
pub(crate) struct Look {
    pub(crate) style: &'static str,
    pub(crate) script: &'static str,
    /// `'none'`, or `'self'`: whoever the page came from.
    pub(crate) connect: &'static str,
}

/// The Content-Security-Policy of a page that looks so.
pub(crate) fn policy(Look { style, script, connect }: &Look) -> String {
    let source = |text: &str| format!("'sha256-{}'", base64(&sha256(text.as_bytes())));
    let (style, script) = (source(style), source(script));
    format!(
        "default-src 'none'; style-src {style}; script-src {script}; connect-src {connect}; base-uri 'none'; \
         form-action 'none'"
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
}
