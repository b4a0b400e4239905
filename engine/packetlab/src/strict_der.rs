//! Strict DER (X.690): takes one element after the other, and knows where each stands.
//!
//! Not here: what certificates, requests and keys are made of (`certificate::form`, `key`). x509-parser, which reads
//! contents, is lax: it overlooks surplus elements, wrong constructed bits and numbers with padding. Invariant: an `Element` that exists has the one tag, length and, if it is
//! primitive, content that DER allows. Each byte is looked at once a level.

use std::fmt;
use std::ops::Range;

pub(crate) const BOOLEAN: u8 = 0x01;
pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const OBJECT_ID: u8 = 0x06;
pub(crate) const UTC_TIME: u8 = 0x17;
pub(crate) const GENERALIZED_TIME: u8 = 0x18;
pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const SET: u8 = 0x31;
/// Set in the tag of an element that holds elements.
const CONSTRUCTED: u8 = 0x20;
/// Most levels within an element that may hold anything. Nothing real has more than a few, and each
/// costs a frame of the stack.
const LEVELS_MAX: usize = 32;

/// What is wrong with DER, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flaw {
    /// The byte from which on it is wrong, counted from 0.
    pub offset: usize,
    /// What is wrong there.
    pub problem: &'static str,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "its DER is wrong at byte {}: {}", self.offset, self.problem)
    }
}

type Result<T> = std::result::Result<T, Flaw>;

/// One element and where it stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Element<'a> {
    /// Its first byte.
    pub(crate) tag: u8,
    /// All of it.
    pub(crate) whole: &'a [u8],
    /// Where it begins.
    pub(crate) start: usize,
    /// What stands behind tag and length.
    pub(crate) content: &'a [u8],
    /// Where the content begins.
    pub(crate) offset: usize,
}

impl<'a> Element<'a> {
    /// Where the content stands in what is read.
    pub(crate) fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.content.len()
    }

    /// Reads the content as elements: of a constructed element, or of an OCTET STRING around some.
    pub(crate) fn inside(&self) -> DerReader<'a> {
        DerReader { rest: self.content, offset: self.offset }
    }

    /// Checks the content as that of this universal type, whose tag an implicit one stands for.
    pub(crate) fn check_as(&self, tag: u8) -> Result<()> {
        match misfit(tag, self.content) {
            Some((at, problem)) => Err(Flaw { offset: self.offset + at, problem }),
            None => Ok(()),
        }
    }

    /// Checks all that is within, whatever it is.
    pub(crate) fn check_within(&self) -> Result<()> {
        self.check_levels(LEVELS_MAX)
    }

    fn check_levels(&self, levels: usize) -> Result<()> {
        if self.tag & CONSTRUCTED == 0 {
            return Ok(());
        }
        let mut inside = self.inside();
        let deeper = levels.checked_sub(1).ok_or_else(|| inside.flaw("it is nested too deeply"))?;
        while !inside.is_empty() {
            inside.any()?.check_levels(deeper)?;
        }
        Ok(())
    }
}

/// Elements that follow one another, to be taken in their order.
#[derive(Debug, Clone)]
pub(crate) struct DerReader<'a> {
    rest: &'a [u8],
    /// Where the rest begins.
    offset: usize,
}

impl<'a> DerReader<'a> {
    /// Reads these bytes, the first of which is byte 0 of whatever flaws are told.
    pub(crate) fn new(der: &'a [u8]) -> Self {
        Self { rest: der, offset: 0 }
    }

    /// Whether all has been taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// A flaw at the next byte.
    pub(crate) fn flaw(&self, problem: &'static str) -> Flaw {
        Flaw { offset: self.offset, problem }
    }

    /// The next element, which must have this tag.
    pub(crate) fn take(&mut self, tag: u8) -> Result<Element<'a>> {
        match self.rest.first() {
            Some(&first) if first == tag => self.any(),
            Some(&first) if first ^ tag == CONSTRUCTED => Err(self.flaw(CONSTRUCTED_BIT)),
            _ => Err(self.flaw(expected(tag))),
        }
    }

    /// The next element if it has this tag.
    pub(crate) fn optional(&mut self, tag: u8) -> Result<Option<Element<'a>>> {
        match self.rest.first() {
            Some(&first) if first == tag => self.any().map(Some),
            _ => Ok(None),
        }
    }

    /// The next element, whatever it is. What is within a constructed one is not looked at yet.
    pub(crate) fn any(&mut self) -> Result<Element<'a>> {
        let (start, whole) = (self.offset, self.rest);
        let tag = self.tag()?;
        let len = self.len()?;
        let (content, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(Flaw { offset: start, problem: "this element is longer than what holds it" })?;
        let element = Element {
            tag,
            start,
            whole: whole.get(..self.offset - start + len).unwrap_or(whole),
            content,
            offset: self.offset,
        };
        (self.rest, self.offset) = (rest, self.offset + len);
        element.check_as(tag)?;
        Ok(element)
    }

    /// Nothing may follow.
    pub(crate) fn end(&self) -> Result<()> {
        if self.is_empty() { Ok(()) } else { Err(self.flaw("nothing more may follow here")) }
    }

    fn byte(&mut self) -> Result<u8> {
        let (&byte, rest) =
            self.rest.split_first().ok_or_else(|| self.flaw("it ends too early"))?;
        (self.rest, self.offset) = (rest, self.offset + 1);
        Ok(byte)
    }

    /// The first byte of the tag. No number beyond 30 has a meaning here, but names may hold any.
    fn tag(&mut self) -> Result<u8> {
        let start = self.offset;
        let wrong = |problem| Err(Flaw { offset: start, problem });
        let tag = self.byte()?;
        match (tag, is_constructed_type(tag)) {
            (0 | CONSTRUCTED, _) => return wrong("the tag 0 is reserved"),
            (_, Some(constructed)) if constructed != (tag & CONSTRUCTED != 0) => {
                return wrong(CONSTRUCTED_BIT);
            }
            _ => {}
        }
        if tag & 0x1f == 0x1f {
            let mut number = self.byte()?;
            if number < 0x1f || number == 0x80 {
                return wrong("this tag is written longer than it must be");
            }
            while number & 0x80 != 0 {
                number = self.byte()?;
            }
        }
        Ok(tag)
    }

    fn len(&mut self) -> Result<usize> {
        let start = self.offset;
        let wrong = |problem| Err(Flaw { offset: start, problem });
        let first = self.byte()?;
        let count = match first {
            0..0x80 => return Ok(first.into()),
            0x80 => return wrong("DER has no indefinite lengths"),
            _ => first & 0x7f,
        };
        let mut len = 0_usize;
        for index in 0..count {
            let byte = self.byte()?;
            if index == 0 && byte == 0 {
                return wrong(LONG_LENGTH);
            }
            // Longer than memory: as long as can be told, which nothing holds.
            len = len.checked_mul(0x100).map_or(usize::MAX, |len| len | usize::from(byte));
        }
        if len < 0x80 { wrong(LONG_LENGTH) } else { Ok(len) }
    }
}

const CONSTRUCTED_BIT: &str = "the constructed bit of this tag is wrong";
const LONG_LENGTH: &str = "this length is written longer than it must be";

/// Whether elements of this universal type hold elements; `None` for other tags, which may or may
/// not.
fn is_constructed_type(tag: u8) -> Option<bool> {
    let universal = tag & 0xc0 == 0 && tag & 0x1f != 0x1f;
    // EXTERNAL, EMBEDDED PDV, SEQUENCE, SET, CHARACTER STRING.
    universal.then_some(matches!(tag & 0x1f, 8 | 11 | 16 | 17 | 29))
}

fn expected(tag: u8) -> &'static str {
    match tag {
        BOOLEAN => "a BOOLEAN must stand here",
        INTEGER => "an INTEGER must stand here",
        BIT_STRING => "a BIT STRING must stand here",
        OCTET_STRING => "an OCTET STRING must stand here",
        OBJECT_ID => "an OBJECT IDENTIFIER must stand here",
        SEQUENCE => "a SEQUENCE must stand here",
        SET => "a SET must stand here",
        _ => "another element must stand here",
    }
}

/// What is wrong with the content of a primitive element of a universal type, and from which byte on.
fn misfit(tag: u8, content: &[u8]) -> Option<(usize, &'static str)> {
    let wrong = |at, problem, is_wrong: bool| is_wrong.then_some((at, problem));
    match (tag, content) {
        (BOOLEAN, [0 | 0xff]) => None,
        (BOOLEAN, _) => Some((0, "a BOOLEAN is one byte, 00 or ff")),
        // INTEGER and ENUMERATED.
        (INTEGER | 10, []) => Some((0, "a number has at least one byte")),
        (INTEGER | 10, [0, 0..0x80, ..] | [0xff, 0x80..=0xff, ..]) => {
            Some((0, "this number is written longer than it must be"))
        }
        (BIT_STRING, _) => bits(content),
        (5, _) => wrong(0, "a NULL has no content", !content.is_empty()),
        // OBJECT IDENTIFIER, absolute and relative.
        (OBJECT_ID | 13, _) => object_id(content),
        (12, _) => {
            let valid_len = content.utf8_chunks().next().map_or(0, |chunk| chunk.valid().len());
            wrong(valid_len, "this text is no UTF-8", valid_len < content.len())
        }
        (28, _) => wrong(0, "a character of this text is cut", !content.len().is_multiple_of(4)),
        (30, _) => wrong(0, "a character of this text is cut", !content.len().is_multiple_of(2)),
        _ => None,
    }
}

fn bits(content: &[u8]) -> Option<(usize, &'static str)> {
    match content {
        [] => Some((0, "it does not say how many bits are unused")),
        [1..=0xff] | [8..=0xff, ..] => Some((0, "so many bits cannot be unused")),
        [unused, .., last] if *last & ((1_u8 << *unused) - 1) != 0 => {
            Some((content.len() - 1, "unused bits must be 0"))
        }
        _ => None,
    }
}

fn object_id(content: &[u8]) -> Option<(usize, &'static str)> {
    if content.last().is_none_or(|last| *last >= 0x80) {
        return Some((content.len(), "this OBJECT IDENTIFIER is cut"));
    }
    let starts_number = |at: usize| at == 0 || content.get(at - 1).is_some_and(|byte| *byte < 0x80);
    let padded =
        (0..content.len()).find(|at| content.get(*at) == Some(&0x80) && starts_number(*at))?;
    Some((padded, "a number in this OBJECT IDENTIFIER is written longer than it must be"))
}

#[cfg(test)]
mod tests;
