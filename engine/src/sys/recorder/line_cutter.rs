//! Lines, cut out of bytes as they come.
//!
//! Not here: what becomes of them. Invariant: what is held is the beginning of a line that has not ended, and no longer than
//! a piece may be; every byte but newlines comes out once, in order.

/// Memory beyond which a buffer that is empty again is given back.
const CAPACITY_KEPT: usize = 64 << 10;

/// One stream of lines.
#[derive(Debug, Default)]
pub(super) struct LineCutter {
    held: Vec<u8>,
}

impl LineCutter {
    /// Bytes of a line that has not ended.
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// Takes the next bytes, and shows each line that ends with them, without its newline; of a line of more than
    /// `len_max` bytes each piece of that length, and what is left.
    pub(super) fn push(&mut self, bytes: &[u8], len_max: usize, mut show: impl FnMut(&[u8])) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, is_ended) = match part.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (part, false),
            };
            self.push_text(text, len_max, &mut show);
            if is_ended {
                show(&self.held);
                self.clear();
            }
        }
    }

    /// Nothing more comes: shows a last line that has no newline.
    pub(super) fn finish(&mut self, mut show: impl FnMut(&[u8])) {
        if !self.held.is_empty() {
            show(&self.held);
        }
        self.held = Vec::new();
    }

    fn push_text(&mut self, mut text: &[u8], len_max: usize, show: &mut impl FnMut(&[u8])) {
        // Only when there is more: a line of exactly that length is no piece, and has none behind it.
        while self.held.len() + text.len() > len_max {
            let (piece, rest) = text.split_at(len_max.saturating_sub(self.held.len()));
            self.hold(piece);
            show(&self.held);
            self.clear();
            text = rest;
        }
        self.hold(text);
    }

    fn hold(&mut self, text: &[u8]) {
        // No more memory than that: a long line is rare, and there may be many of them.
        if self.held.len() + text.len() > self.held.capacity() {
            self.held.reserve_exact(text.len());
        }
        self.held.extend_from_slice(text);
    }

    fn clear(&mut self) {
        self.held.clear();
        if self.held.capacity() > CAPACITY_KEPT {
            self.held = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(pieces: &[&[u8]], len_max: usize) -> Vec<Vec<u8>> {
        let (mut cutter, mut lines) = (LineCutter::default(), Vec::new());
        for piece in pieces {
            cutter.push(piece, len_max, |line| lines.push(line.to_vec()));
            assert!(cutter.held() <= len_max);
        }
        cutter.finish(|line| lines.push(line.to_vec()));
        lines
    }

    #[test]
    fn lines_come_out_whole_however_they_come() {
        let expected: [&[u8]; 4] = [b"one", b"", b"\0\xff", b"end"];
        assert_eq!(lines(&[b"one\n\n\0\xff\nend"], 100), expected);
        assert_eq!(lines(&[b"o", b"ne", b"\n", b"\n\0", b"\xff\nen", b"d"], 100), expected);
        assert_eq!(lines(&[b"end\n"], 100), [b"end"]);
        assert!(lines(&[b""], 100).is_empty());
    }

    #[test]
    fn a_line_that_is_too_long_is_cut_and_one_that_just_fits_has_no_piece_behind_it() {
        assert_eq!(lines(&[b"abcdefg\nh"], 3), [&b"abc"[..], b"def", b"g", b"h"]);
        assert_eq!(lines(&[b"abcdef", b"\nx\n"], 3), [&b"abc"[..], b"def", b"x"]);
        assert_eq!(lines(&[b"abcd"], 3), [&b"abc"[..], b"d"]);
        assert_eq!(lines(&[b"abcdef", b"gh\n"], 8), [b"abcdefgh"]);
        // The length may have become less meanwhile.
        let (mut cutter, mut shown) = (LineCutter::default(), Vec::new());
        cutter.push(b"abcdef", 8, |line| shown.push(line.to_vec()));
        cutter.push(b"gh", 4, |line| shown.push(line.to_vec()));
        assert_eq!((shown, cutter.held()), (vec![b"abcdef".to_vec()], 2));
    }

    proptest! {
        #[test]
        fn no_byte_is_lost_or_comes_twice(
            pieces in prop::collection::vec(prop::collection::vec(0_u8..12, 0..20), 0..20),
            len_max in 1..30_usize,
        ) {
            let all = pieces.concat();
            let refs: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            let cut = lines(&refs, len_max);
            let without_newlines: Vec<u8> = all.iter().copied().filter(|b| *b != b'\n').collect();
            prop_assert_eq!(cut.concat(), without_newlines);
            prop_assert!(cut.iter().all(|line| line.len() <= len_max));
            if all.split(|b| *b == b'\n').all(|line| line.len() <= len_max) {
                let mut whole: Vec<_> = all.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
                if whole.last().is_some_and(Vec::is_empty) {
                    whole.pop();
                }
                prop_assert_eq!(cut, whole);
            }
        }
    }
}
