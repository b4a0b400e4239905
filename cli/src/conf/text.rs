//! The lines of a config file, where things stand in them, and how a complaint about one is shown.
//!
//! Knows nothing of keys or of what values mean (`conf` and `value` do). The invariant: every
//! [`Place`] points inside the [`Source`] it was made from, also when the line was cut at a NUL.

use std::fmt::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use packetlab::escape::Escaped;

/// Most characters of a line that are shown before, in and after the marked part.
const SHOWN_MAX: usize = 48;
/// Most characters of a value that a message repeats. Real paths and addresses are shorter.
const VALUE_SHOWN_MAX: usize = 200;

/// A config file as read.
#[derive(Debug)]
pub(crate) struct Source {
    /// As given on the command line, or derived from HOME.
    pub(crate) path: PathBuf,
    /// Its bytes; not always text.
    pub(crate) text: Vec<u8>,
}

/// A stretch of one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// From 1, ignored lines counted.
    pub(crate) line: usize,
    /// First byte within the line, from 0.
    start: usize,
    /// Length in bytes; may be 0.
    len: usize,
}

/// Something from the file and where it stood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Located<T> {
    /// What.
    pub(crate) value: T,
    /// Where.
    pub(crate) place: Place,
}

/// What is wrong with the file, where, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Complaint {
    /// `None`: something is missing from the whole file.
    pub(crate) place: Option<Place>,
    /// What is wrong.
    pub(crate) problem: String,
    /// What would be right.
    pub(crate) advice: String,
}

/// What was read, or else its complaints are told and reading goes on.
pub(super) fn keep<T>(
    complaints: &mut Vec<Complaint>,
    read: Result<T, impl Into<Vec<Complaint>>>,
) -> Option<T> {
    read.map_err(|told| complaints.extend(told.into())).ok()
}

impl From<Complaint> for Vec<Complaint> {
    fn from(complaint: Complaint) -> Self {
        vec![complaint]
    }
}

/// A stretch of bytes that still knows where it stood: a key, a value or a part of one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Value<'a> {
    /// The bytes.
    pub(crate) bytes: &'a [u8],
    /// Where they stood.
    pub(crate) place: Place,
    /// What it names is to be there.
    pub(crate) must_exist: bool,
}

impl<'a> Value<'a> {
    /// The part from this byte offset with this length; clipped to what there is.
    pub(crate) fn part(&self, offset: usize, len: usize) -> Self {
        let offset = offset.min(self.bytes.len());
        let len = len.min(self.bytes.len() - offset);
        let place = Place { start: self.place.start + offset, len, ..self.place };
        Self { bytes: &self.bytes[offset..offset + len], place, ..*self }
    }

    /// Splits at each separator into at most `parts_max` parts, the last of which keeps the rest.
    pub(crate) fn split(&self, separator: u8, parts_max: usize) -> Vec<Self> {
        let mut offset = 0;
        self.bytes
            .splitn(parts_max, |byte| *byte == separator)
            .map(|part| {
                let value = self.part(offset, part.len());
                offset += part.len() + 1;
                value
            })
            .collect()
    }

    /// The value as text for a message or a parser of text.
    pub(crate) fn text(&self) -> Result<&'a str, Complaint> {
        std::str::from_utf8(self.bytes)
            .map_err(|_| self.complain("this is not text", "write it in ASCII"))
    }

    /// A complaint about this value.
    pub(crate) fn complain(
        &self,
        problem: impl Into<String>,
        advice: impl Into<String>,
    ) -> Complaint {
        Complaint { place: Some(self.place), problem: problem.into(), advice: advice.into() }
    }

    /// Keeps the place beside what was made of the value.
    pub(crate) fn located<T>(&self, value: T) -> Located<T> {
        Located { value, place: self.place }
    }
}

/// For messages: escaped and cut.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Escaped(self.bytes).cut(VALUE_SHOWN_MAX))
    }
}

impl<T> Located<T> {
    /// A complaint about it.
    pub(crate) fn complain(
        &self,
        problem: impl Into<String>,
        advice: impl Into<String>,
    ) -> Complaint {
        Complaint { place: Some(self.place), problem: problem.into(), advice: advice.into() }
    }
}

/// One line that says something.
#[derive(Debug)]
pub(crate) struct KeyValue<'a> {
    /// Up to the first space or tab; empty if the line begins with one.
    pub(crate) key: Value<'a>,
    /// What follows the run of spaces and tabs, trailing blanks included; may be empty.
    pub(crate) value: Value<'a>,
}

/// All lines that say something, in file order (spec/pktxpmgr.md 2.1). Lines may be of any length and end
/// in LF or CRLF; as in the original a NUL ends the line, which earns a warning here.
pub(crate) fn entries<'a>(source: &'a Source, warnings: &mut Vec<Complaint>) -> Vec<KeyValue<'a>> {
    let mut entries = Vec::new();
    for (index, line) in source.lines().enumerate() {
        let mut kept = line;
        if let Some(nul) = line.iter().position(|byte| *byte == 0) {
            kept = &line[..nul];
            let place = Place { line: index + 1, start: nul, len: 1 };
            let problem = "a NUL byte ends this line; the rest of it is ignored".to_owned();
            let advice = "save the file as plain text (UTF-8, not UTF-16)".to_owned();
            warnings.push(Complaint { place: Some(place), problem, advice });
        }
        entries.extend(entry(kept, index + 1));
    }
    entries
}

fn entry(line: &[u8], number: usize) -> Option<KeyValue<'_>> {
    if line.is_empty() || line.starts_with(b"#") {
        return None;
    }
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let key_len = line.iter().position(is_blank).unwrap_or(line.len());
    let value_start = key_len + line[key_len..].iter().take_while(|byte| is_blank(byte)).count();
    let place = Place { line: number, start: 0, len: line.len() };
    let whole = Value { bytes: line, place, must_exist: true };
    Some(KeyValue { key: whole.part(0, key_len), value: whole.part(value_start, line.len()) })
}

impl Source {
    /// Lines without their LF or CRLF, and without the byte order mark some editors put in front.
    fn lines(&self) -> impl Iterator<Item = &[u8]> {
        let text = self.text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&self.text);
        text.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line))
    }

    /// `file`, or `file:line:column` with columns counted in characters from 1.
    fn address(&self, place: Option<Place>) -> String {
        let path = Escaped(self.path.as_os_str().as_bytes());
        match place {
            None => path.to_string(),
            Some(place) => {
                let line = self.lines().nth(place.line - 1).unwrap_or_default();
                let before = line.get(..place.start).unwrap_or(line);
                let column = String::from_utf8_lossy(before).chars().count() + 1;
                format!("{path}:{}:{column}", place.line)
            }
        }
    }

    /// The complaint on one line, for the log.
    pub(crate) fn one_line(&self, complaint: &Complaint) -> String {
        format!("{}: {}; {}", self.address(complaint.place), complaint.problem, complaint.advice)
    }

    /// The complaint with its line and a caret beneath what it is about.
    pub(crate) fn with_caret(&self, complaint: &Complaint) -> String {
        let mut shown = format!("{}: {}", self.address(complaint.place), complaint.problem);
        let mut margin = " ".repeat(4);
        if let Some(place) = complaint.place {
            let number = place.line.to_string();
            margin = " ".repeat(number.len() + 1);
            let (text, carets) = self.marked(place);
            let _ = write!(shown, "\n {number} | {text}\n{margin} | {carets}");
        }
        let _ = write!(shown, "\n{margin} = {}", complaint.advice);
        shown
    }

    /// The line around a place, escaped and shortened, and the carets for the line beneath.
    fn marked(&self, place: Place) -> (String, String) {
        let line = self.lines().nth(place.line - 1).unwrap_or_default();
        let (before, rest) = line.split_at_checked(place.start).unwrap_or((line, &[]));
        let (inside, after) = rest.split_at_checked(place.len).unwrap_or((rest, &[]));
        let before = shorten_front(&Escaped(before).to_string());
        let inside = shorten_back(&Escaped(inside).to_string());
        let after = shorten_back(&Escaped(after).to_string());
        let carets =
            " ".repeat(before.chars().count()) + &"^".repeat(inside.chars().count().max(1));
        (before + &inside + &after, carets)
    }
}

fn shorten_front(text: &str) -> String {
    match text.chars().count().checked_sub(SHOWN_MAX) {
        None | Some(0) => text.to_owned(),
        Some(surplus) => "...".chars().chain(text.chars().skip(surplus)).collect(),
    }
}

fn shorten_back(text: &str) -> String {
    match text.char_indices().nth(SHOWN_MAX) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &[u8]) -> Source {
        Source { path: "x.conf".into(), text: text.to_vec() }
    }

    fn read(text: &[u8]) -> (Vec<(usize, String, String)>, Vec<String>) {
        let source = source(text);
        let mut warnings = Vec::new();
        let text = |value: Value<'_>| String::from_utf8(value.bytes.to_vec()).unwrap();
        let entries = entries(&source, &mut warnings)
            .iter()
            .map(|entry| (entry.key.place.line, text(entry.key), text(entry.value)))
            .collect();
        (entries, warnings.iter().map(|warning| source.one_line(warning)).collect())
    }

    fn entry(line: usize, key: &str, value: &str) -> (usize, String, String) {
        (line, key.to_owned(), value.to_owned())
    }

    /// Items 28, 29.
    #[test]
    fn comments_and_empty_lines_are_skipped_and_blanks_separate() {
        let (entries, warnings) =
            read(b"# c\n\nA 1\nB\t2\nC \t \t3 # not a comment \nD\nE  \n F 1\n");
        assert_eq!(
            entries,
            [
                entry(3, "A", "1"),
                entry(4, "B", "2"),
                entry(5, "C", "3 # not a comment "),
                entry(6, "D", ""),
                entry(7, "E", ""),
                entry(8, "", "F 1"),
            ]
        );
        assert!(warnings.is_empty());
    }

    /// Item 47.
    #[test]
    fn crlf_byte_order_marks_and_long_lines_are_read() {
        let long = "x".repeat(10_000);
        let text = format!("\u{feff}A 1\r\nB {long}\r\n\r\n#\r\nC 3");
        let (entries, _) = read(text.as_bytes());
        assert_eq!(entries, [entry(1, "A", "1"), entry(2, "B", &long), entry(5, "C", "3")]);
    }

    #[test]
    fn a_nul_ends_the_line_with_a_warning() {
        let (entries, warnings) = read(b"A 12\x0034\nB 5\n");
        assert_eq!(entries, [entry(1, "A", "12"), entry(2, "B", "5")]);
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].starts_with("x.conf:1:5: a NUL byte"), "{}", warnings[0]);
    }

    #[test]
    fn a_complaint_points_at_its_place() {
        let source = source("# first\nKéy  one,two\n".as_bytes());
        let entries = entries(&source, &mut Vec::new());
        let two = entries[0].value.split(b',', usize::MAX)[1];
        let complaint = two.complain("'two' is wrong", "write 2");
        assert_eq!(
            source.with_caret(&complaint),
            "x.conf:2:10: 'two' is wrong\n 2 | Kéy  one,two\n   |          ^^^\n   = write 2"
        );
        assert_eq!(source.one_line(&complaint), "x.conf:2:10: 'two' is wrong; write 2");
    }

    #[test]
    fn what_is_missing_from_the_file_has_no_line() {
        let complaint =
            Complaint { place: None, problem: "no key".into(), advice: "add it".into() };
        assert_eq!(source(b"").with_caret(&complaint), "x.conf: no key\n     = add it");
    }

    #[test]
    fn an_empty_value_gets_one_caret_behind_the_line() {
        let source = source(b"Key");
        let entries = entries(&source, &mut Vec::new());
        let shown = source.with_caret(&entries[0].value.complain("empty", "fill in"));
        assert_eq!(shown, "x.conf:1:4: empty\n 1 | Key\n   |    ^\n   = fill in");
    }

    #[test]
    fn a_value_of_a_megabyte_is_cut_in_messages() {
        let source = source(format!("Key {}", "x".repeat(1 << 20)).as_bytes());
        let entries = entries(&source, &mut Vec::new());
        let value = entries[0].value;
        let complaint = value.complain(format!("'{value}' is wrong"), "y");
        for shown in [source.one_line(&complaint), source.with_caret(&complaint)] {
            assert!(shown.len() < 500, "{} bytes", shown.len());
            assert!(shown.contains("xxx...' is wrong"), "{shown}");
        }
    }

    #[test]
    fn long_and_hostile_lines_are_shown_short_and_escaped() {
        let text = format!("K {}\x1b[2J{}", "a".repeat(500), "b".repeat(500));
        let source = source(text.as_bytes());
        let entries = entries(&source, &mut Vec::new());
        let shown = source.with_caret(&entries[0].value.part(502, 2).complain("x", "y"));
        assert!(!shown.contains('\x1b'));
        assert!(shown.lines().all(|line| line.len() < 180), "{shown}");
        let carets = shown.lines().nth(2).unwrap();
        assert!(carets.ends_with("^^"), "{shown}");
    }
}
