//! PEM files (RFC 7468), as people have them: a byte order mark in front, notes around the sections,
//! lines of any length and end, several sections in one file.
//!
//! Not here: what the sections hold (`certificate`, `key`, `request`), and what other files are
//! (`foreign`). Invariant: nothing is picked out of a file silently: where one thing is meant and
//! there are more, that is an error. Decoded bytes may be secret and are wiped when dropped.

use std::fmt;

use der::pem;
use zeroize::Zeroizing;

use super::escape::Escaped;
use super::foreign::{self, BYTE_ORDER_MARK, Foreign};

/// Characters of each line but the last, as the strict decoder wants them.
const LINE_LEN: usize = 64;

/// One section of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Section<'a> {
    /// What stands between `BEGIN` and the dashes.
    pub label: &'a str,
    /// The section alone, a PEM file of its own.
    pub text: &'a [u8],
}

/// All sections of a file in their order, also those that cannot be decoded. One whose `END` is
/// missing reaches up to the next.
#[must_use]
pub fn sections(file: &[u8]) -> Vec<Section<'_>> {
    let mut found: Vec<Section<'_>> = Vec::new();
    // Where the last section begins, while its END has not come.
    let mut open: Option<usize> = None;
    let mut at = 0;
    for line in file.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')) {
        let end = at + line.len();
        // Files that were put together have one before each section.
        let line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
        let start = end - line.len();
        at = end;
        if let Some(label) = boundary(line, "BEGIN") {
            open = Some(start);
            found.push(Section { label, text: &[] });
        }
        let (Some(begin), Some(last)) = (open, found.last_mut()) else { continue };
        last.text = file.get(begin..end).unwrap_or_default();
        if boundary(line, "END") == Some(last.label) {
            open = None;
        }
    }
    found
}

/// The label of a line `-----BEGIN LABEL-----`, or of one with another word.
fn boundary<'a>(line: &'a [u8], word: &str) -> Option<&'a str> {
    let inner = line.trim_ascii().strip_prefix(b"-----")?.strip_suffix(b"-----")?;
    let label = inner.strip_prefix(word.as_bytes())?.strip_prefix(b" ")?;
    std::str::from_utf8(label).ok()
}

/// The one section with one of these labels: its label and what it holds.
///
/// # Errors
/// There is none, there are more, or it cannot be decoded.
pub(crate) fn one(
    file: &[u8],
    wanted: &[&'static str],
) -> Result<(&'static str, Zeroizing<Vec<u8>>), PemError> {
    let mut all = labelled(file, wanted)?;
    match (all.pop(), all.len()) {
        (Some((label, section)), 0) => Ok((label, decode(section, label)?)),
        (_, others) => {
            Err(PemError { wanted: name(wanted), problem: Problem::Several(others + 1) })
        }
    }
}

/// What every section with this label holds, in their order; at least one.
///
/// # Errors
/// There is none, or one cannot be decoded.
pub(crate) fn list(file: &[u8], wanted: &'static str) -> Result<Vec<Zeroizing<Vec<u8>>>, PemError> {
    let all = labelled(file, &[wanted])?;
    all.into_iter().map(|(label, section)| decode(section, label)).collect()
}

fn labelled<'a>(
    file: &'a [u8],
    wanted: &[&'static str],
) -> Result<Vec<(&'static str, Section<'a>)>, PemError> {
    let sections = sections(file);
    let known =
        |section: &Section<'_>| wanted.iter().copied().find(|label| *label == section.label);
    let found: Vec<_> =
        sections.iter().filter_map(|section| Some((known(section)?, *section))).collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let problem = match (foreign::recognise(file), sections.first()) {
        (Some(foreign), _) => Problem::Foreign(foreign),
        (None, Some(section)) => Problem::Other(section.label.to_owned()),
        (None, None) => Problem::Nothing,
    };
    Err(PemError { wanted: name(wanted), problem })
}

/// The plain label stands for its relatives.
fn name(wanted: &[&'static str]) -> &'static str {
    wanted.first().copied().unwrap_or_default()
}

/// Lays the section out as the strict decoder wants it.
fn decode(section: Section<'_>, label: &'static str) -> Result<Zeroizing<Vec<u8>>, PemError> {
    let unreadable = || PemError { wanted: label, problem: Problem::Unreadable };
    let text = section.text.trim_ascii();
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let body = text.strip_prefix(begin.as_bytes()).ok_or_else(unreadable)?;
    let body = body.strip_suffix(end.as_bytes()).ok_or_else(unreadable)?;
    // Room for all at once: growing would leave copies behind that nobody wipes.
    let mut strict = Zeroizing::new(Vec::with_capacity(2 * text.len() + LINE_LEN));
    strict.extend_from_slice(begin.as_bytes());
    for (index, byte) in body.iter().filter(|byte| !byte.is_ascii_whitespace()).enumerate() {
        if index % LINE_LEN == 0 {
            strict.push(b'\n');
        }
        strict.push(*byte);
    }
    strict.push(b'\n');
    strict.extend_from_slice(end.as_bytes());
    let mut decoded = Zeroizing::new(vec![0; body.len()]);
    let len = pem::decode(&strict, &mut decoded).map_err(|_| unreadable())?.1.len();
    decoded.truncate(len);
    Ok(decoded)
}

/// Why a file does not give the section that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PemError {
    wanted: &'static str,
    problem: Problem,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Problem {
    /// No section at all, and no form that is known.
    Nothing,
    /// Sections, the first of which has this label.
    Other(String),
    /// Something that can be converted.
    Foreign(Foreign),
    /// So many, where one is meant.
    Several(usize),
    /// The section is cut, or is no base64.
    Unreadable,
}

impl fmt::Display for PemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wanted = self.wanted;
        match &self.problem {
            Problem::Nothing => write!(f, "holds no readable PEM section `{wanted}`"),
            Problem::Other(label) => {
                let label = Escaped(label.as_bytes()).cut(60);
                write!(f, "holds no readable PEM section `{wanted}`, but `{label}`")
            }
            Problem::Foreign(foreign) => {
                write!(f, "holds no readable PEM section `{wanted}`: {foreign}")
            }
            Problem::Several(count) => write!(
                f,
                "holds {count} PEM sections `{wanted}`, and one is meant; split it into files of one each"
            ),
            Problem::Unreadable => write!(
                f,
                "holds no readable PEM section `{wanted}`: it is cut, or its base64 is wrong"
            ),
        }
    }
}

impl std::error::Error for PemError {}

#[cfg(test)]
mod tests;
