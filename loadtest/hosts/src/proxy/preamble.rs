//! `PKTLAB`, the six bytes by which proxy and controller tell each other that TLS is over and the
//! connection is an endpoint's from here on (spec/protocol.md 5.2).
//!
//! Pure. Not here: the connection.

/// What either side sends; the proxy first.
pub const PREAMBLE: &[u8; 6] = b"PKTLAB";

/// Finds the preamble in a stream, whatever comes before it.
#[derive(Debug, Default)]
pub(crate) struct Finder {
    matched: usize,
}

impl Finder {
    /// Takes the next bytes. Once the preamble is complete: how many of them it and what came before
    /// it used up.
    pub(crate) fn find(&mut self, bytes: &[u8]) -> Option<usize> {
        for (index, byte) in bytes.iter().enumerate() {
            self.matched = match PREAMBLE.get(self.matched) {
                Some(expected) if expected == byte => self.matched + 1,
                // `P` occurs only in front, so that no longer part of the preamble can have begun.
                _ => usize::from(PREAMBLE.first() == Some(byte)),
            };
            if self.matched == PREAMBLE.len() {
                return Some(index + 1);
            }
        }
        None
    }
}

/// Whether the original's controller, having skipped `before`, sees a preamble that follows: on a
/// mismatch it forgets to look at the current byte again (Q6), so that a `P` right before hides it.
pub(crate) fn is_seen_by_the_original_after(before: &[u8]) -> bool {
    let mut matched = 0;
    for byte in before {
        let fits = PREAMBLE.get(matched) == Some(byte);
        matched = if fits { matched + 1 } else { 0 };
    }
    matched == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preamble_is_found_after_anything() {
        for (stream, end) in [
            (&b"PKTLAB"[..], 6),
            (b"PPKTLAB", 7),
            (b"PKPKTLAB", 8),
            (b"PKTLAPKTLAB", 11),
            (b"\x17\x03\x03\x00\x13nineteen bytes here PKTLABrest", 31),
        ] {
            assert_eq!(Finder::default().find(stream), Some(end), "{}", stream.escape_ascii());
        }
        for stream in [&b""[..], b"PKTLA", b"PKTALB", b"pktlab"] {
            assert_eq!(Finder::default().find(stream), None, "{}", stream.escape_ascii());
        }
    }

    #[test]
    fn the_preamble_may_come_byte_by_byte() {
        let mut finder = Finder::default();
        for byte in b"xPKTPKTLA" {
            assert_eq!(finder.find(&[*byte]), None);
        }
        assert_eq!(finder.find(b"BC"), Some(1));
    }

    #[test]
    fn a_p_right_before_hides_the_preamble_from_the_original() {
        for (before, seen) in
            [(&b""[..], true), (b"x", true), (b"P", false), (b"PK", false), (b"PP", true)]
        {
            assert_eq!(is_seen_by_the_original_after(before), seen, "{}", before.escape_ascii());
        }
    }
}
