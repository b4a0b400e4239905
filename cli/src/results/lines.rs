//! The lines of a growing file, each with its number and its place, one in memory at a time.
//!
//! Not here: what they say. Invariant: a line is never longer than [`LEN_MAX`], whatever the file holds.

use std::io::{self, BufRead, Read};

/// Longest line that is looked at, in bytes; the text of a peer in a record is far shorter.
pub(crate) const LEN_MAX: usize = 1 << 20;

/// Where a line is in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// From 1 on.
    pub(crate) number: u64,
    /// Of its first byte.
    pub(crate) offset: u64,
    /// In bytes, without its end.
    pub(crate) len: usize,
}

/// A line, without its end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    pub(crate) place: Place,
    pub(crate) text: &'a [u8],
    /// It has an end; only the last one of a file may have none.
    pub(crate) is_ended: bool,
    /// It is longer than [`LEN_MAX`], and `text` is only its front.
    pub(crate) is_too_long: bool,
}

impl<'a> Line<'a> {
    /// All of it.
    ///
    /// # Errors
    /// It is too long.
    pub(crate) fn whole(&self) -> Result<&'a [u8], String> {
        match self.is_too_long {
            true => Err("it is too long".into()),
            false => Ok(self.text),
        }
    }
}

/// The lines of what is read.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    reader: R,
    number: u64,
    offset: u64,
    text: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self { reader, number: 0, offset: 0, text: Vec::new() }
    }

    /// The next line; `None` at the end.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        self.text.clear();
        let room = LEN_MAX as u64 + 1;
        let mut read = self.reader.by_ref().take(room).read_until(b'\n', &mut self.text)? as u64;
        if read == 0 {
            return Ok(None);
        }
        let mut is_ended = self.text.ends_with(b"\n");
        self.text.truncate(self.text.len() - usize::from(is_ended));
        let is_too_long = self.text.len() > LEN_MAX;
        if is_too_long {
            let (skipped, found) = skip_line(&mut self.reader)?;
            read += skipped;
            is_ended = found;
        }
        self.number += 1;
        let place = Place { number: self.number, offset: self.offset, len: self.text.len() };
        self.offset += read;
        Ok(Some(Line { place, text: &self.text, is_ended, is_too_long }))
    }
}

/// How many bytes there were up to the end of the line, and whether it has one.
fn skip_line(reader: &mut impl BufRead) -> io::Result<(u64, bool)> {
    let mut skipped = 0;
    loop {
        let chunk = reader.fill_buf()?;
        let end = chunk.iter().position(|byte| *byte == b'\n');
        let len = end.map_or(chunk.len(), |end| end + 1);
        if len == 0 {
            return Ok((skipped, false));
        }
        reader.consume(len);
        skipped += len as u64;
        if end.is_some() {
            return Ok((skipped, true));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufReader;

    /// Number, offset, length, whether it is ended, whether it is too long.
    fn told(bytes: &[u8]) -> Vec<(u64, u64, usize, bool, bool)> {
        let mut lines = Lines::new(BufReader::with_capacity(7, bytes));
        let mut told = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            let Place { number, offset, len } = line.place;
            assert_eq!(line.text, &bytes[offset as usize..][..len]);
            told.push((number, offset, len, line.is_ended, line.is_too_long));
        }
        told
    }

    #[test]
    fn every_line_has_its_number_and_its_place() {
        assert_eq!(told(b""), []);
        let expected = [(1, 0, 3, true, false), (2, 4, 0, true, false), (3, 5, 2, false, false)];
        assert_eq!(told(b"one\n\nto"), expected);
    }

    #[test]
    fn of_a_line_without_measure_only_the_front_is_kept_and_the_next_is_found() {
        let mut bytes = vec![b'x'; LEN_MAX + 100];
        bytes.extend(b"\nnext\n");
        let (len, next) = (LEN_MAX + 1, LEN_MAX as u64 + 101);
        assert_eq!(told(&bytes), [(1, 0, len, true, true), (2, next, 4, true, false)]);
        bytes.truncate(LEN_MAX);
        assert_eq!(told(&bytes), [(1, 0, LEN_MAX, false, false)]);
        bytes.push(b'x');
        assert_eq!(told(&bytes), [(1, 0, len, false, true)]);
    }
}
