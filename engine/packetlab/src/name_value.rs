//! `name=value;` text: experiment descriptors, endpoint attributes, certificate fields (spec/protocol.md 1.7).
//!
//! Not here: what the names mean. There is no escaping and no trimming, so text and pairs are each
//! other's exact image: encoding what was parsed gives the same text.

use std::collections::BTreeSet;
use std::fmt;

/// How often a character of an attribute's value is looked at, at most, by one descriptor's patterns.
/// Real ones, such as `IO91*`, cost nothing, `*site*` costs 1.
pub const SEARCH_COST_MAX: usize = 32;

/// Which of the four forms of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `xdescr`: values may hold the wildcards `*` and `?`, names may repeat.
    Descriptor,
    /// `dattr`: no wildcards, every name once.
    Attributes,
    /// `cert_info`: no wildcards, every name once.
    CertInfo,
    /// `cert_limit`: as `CertInfo`, and a name may start with `*`, "optional". `x` and `*x` are two names.
    CertLimit,
}

/// One `name=value;`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pair {
    /// Case counts. In certificate limits it keeps its leading `*`.
    pub name: String,
    /// May be empty.
    pub value: String,
}

impl Pair {
    /// A pair whose two parts are checked.
    ///
    /// # Errors
    /// The name is empty, or a character is not allowed in its place.
    pub fn new(dialect: Dialect, name: &str, value: &str) -> Result<Self, NameValueError> {
        dialect.check_name(name.as_bytes(), 0)?;
        dialect.check_value(value.as_bytes(), name.len() + 1)?;
        Ok(Self::from((name, value)))
    }

    /// What [`limit_name`] says of its name.
    #[must_use]
    pub fn limit_name(&self) -> (&str, bool) {
        limit_name(&self.name)
    }
}

/// The name of a certificate limit without its `*`, and whether it had one, that is, is optional.
#[must_use]
pub fn limit_name(name: &str) -> (&str, bool) {
    name.strip_prefix('*').map_or((name, false), |name| (name, true))
}

impl From<(&str, &str)> for Pair {
    fn from((name, value): (&str, &str)) -> Self {
        Self { name: name.to_owned(), value: value.to_owned() }
    }
}

/// The pairs of a text, in order.
///
/// # Errors
/// The text breaks the grammar of its dialect.
pub fn parse(dialect: Dialect, text: &[u8]) -> Result<Vec<Pair>, NameValueError> {
    Ok(pairs(check(dialect, text)?).map(Pair::from).collect())
}

/// Most pairs in a text of a certificate. It names each once, and the original knows thirteen of them
/// (spec/reliability.md 5).
pub const CERTIFICATE_PAIRS_MAX: usize = 64;

/// The same text, known to keep the grammar of its dialect.
///
/// # Errors
/// The text breaks the grammar of its dialect, or has more than [`CERTIFICATE_PAIRS_MAX`] pairs in a certificate.
pub fn check(dialect: Dialect, text: &[u8]) -> Result<&str, NameValueError> {
    if matches!(dialect, Dialect::CertInfo | Dialect::CertLimit) {
        let count = text.iter().filter(|c| **c == b';').count();
        if count > CERTIFICATE_PAIRS_MAX {
            return Err(NameValueError::TooMany { count });
        }
    }
    let mut names = BTreeSet::new();
    let mut offset = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let Some(end) = rest.iter().position(|c| *c == b';') else {
            return Err(NameValueError::Unterminated { offset });
        };
        let (pair, after) = (&rest[..end], &rest[end + 1..]);
        let Some(equals) = pair.iter().position(|c| *c == b'=') else {
            return Err(NameValueError::NoEquals { offset });
        };
        let (name, value) = (&pair[..equals], &pair[equals + 1..]);
        dialect.check_name(name, offset)?;
        dialect.check_value(value, offset + equals + 1)?;
        if dialect != Dialect::Descriptor && !names.insert(name) {
            return Err(NameValueError::Repeated { offset });
        }
        offset += end + 1;
        rest = after;
    }
    // Only ASCII gets this far; the error cannot come up.
    str::from_utf8(text).map_err(|error| NameValueError::BadCharacter {
        byte: text.get(error.valid_up_to()).copied().unwrap_or_default(),
        offset: error.valid_up_to(),
    })
}

/// The text of pairs that keep their dialect's rules ([`parse`] or [`Pair::new`] made them).
#[must_use]
pub fn encode(pairs: &[Pair]) -> String {
    let mut text = String::new();
    for Pair { name, value } in pairs {
        text.extend([name, "=", value, ";"]);
    }
    text
}

/// Whether an experiment's descriptor accepts an endpoint's attributes ([`Patterns::accept`]). An empty text
/// accepts everything, a malformed one nothing.
#[must_use]
pub fn descriptor_matches(xdescr: &[u8], dattr: &[u8]) -> bool {
    let (Ok(xdescr), Ok(dattr)) =
        (parse(Dialect::Descriptor, xdescr), parse(Dialect::Attributes, dattr))
    else {
        return false;
    };
    Patterns::new(xdescr).accept(&dattr).accepted
}

/// The pairs of a descriptor, in the order of their names: made once, because it is matched often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patterns(Vec<Pair>);

/// What came of matching.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Matching {
    /// The descriptor accepts the attributes.
    pub accepted: bool,
    /// How many characters were looked at, at most; [`PATTERN_LOOKS`] are counted for each pattern, and for
    /// each run of it, beside them.
    pub looks: usize,
}

/// What beginning with a pattern, or with the search for a run of it, is worth in looks.
pub const PATTERN_LOOKS: usize = 8;

impl Patterns {
    /// Those of a descriptor that was parsed.
    #[must_use]
    pub fn new(mut xdescr: Vec<Pair>) -> Self {
        xdescr.sort_by(|one, other| one.name.cmp(&other.name));
        Self(xdescr)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// How often a character of a value may be looked at ([`check_search`]).
    #[must_use]
    pub fn search_cost(&self) -> usize {
        self.0.iter().map(|pair| search_cost(&pair.value)).sum()
    }

    /// Whether a broker tells an endpoint with these attributes of the descriptor: for every attribute, no
    /// pair of its name may exist or at least one must match its value; in descriptor values `*` is any run
    /// of characters and `?` any one.
    ///
    /// Takes time proportional to the looks that it counts. For every character of the attributes they are at
    /// most twice [`Self::search_cost`] and twice the binary digits of [`Self::count`]; for each pattern whose
    /// name the attributes have, twice its size, and [`PATTERN_LOOKS`] for it and each of its runs.
    #[must_use]
    pub fn accept(&self, attributes: &[Pair]) -> Matching {
        let mut looks = 0;
        let accepted = attributes.iter().all(|Pair { name, value }| {
            let patterns = self.of_name(name, &mut looks);
            let matches = |pattern: &Pair| wildcard_matches(&pattern.value, value, &mut looks);
            patterns.is_empty() || patterns.iter().any(matches)
        });
        Matching { accepted, looks }
    }

    fn of_name(&self, name: &str, looks: &mut usize) -> &[Pair] {
        let Self(pairs) = self;
        let mut compare = |pair: &Pair| {
            *looks += 1 + name.len().min(pair.name.len());
            pair.name.as_str().cmp(name)
        };
        let from = pairs.partition_point(|pair| compare(pair).is_lt());
        let rest = pairs.get(from..).unwrap_or_default();
        let len = rest.partition_point(|pair| compare(pair).is_le());
        rest.get(..len).unwrap_or_default()
    }
}

/// The pairs of a text that was checked ([`check`]), in order.
pub fn pairs(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split_terminator(';').filter_map(|pair| pair.split_once('='))
}

/// Whether a descriptor can be matched in linear time, as brokers want it: how often a character of a
/// value may be looked at, all patterns together, is at most [`SEARCH_COST_MAX`].
///
/// A pattern costs 1 if anything stands between two `*`; if there is a `?` in it, as much as the run has
/// characters. Others cost nothing, because they are compared in their place.
///
/// # Errors
/// The descriptor costs more.
pub fn check_search(xdescr: &[Pair]) -> Result<(), SearchError> {
    let cost: usize = xdescr.iter().map(|pair| search_cost(&pair.value)).sum();
    if cost > SEARCH_COST_MAX { Err(SearchError { cost }) } else { Ok(()) }
}

fn search_cost(pattern: &str) -> usize {
    let mut runs = pattern.split('*');
    // The first and the last stand at the ends of the value.
    let _ = (runs.next(), runs.next_back());
    let cost = |run: &str| match run {
        "" => 0,
        run if run.contains('?') => run.len(),
        _ => 1,
    };
    runs.map(cost).max().unwrap_or_default()
}

/// Whole-string match: what stands before the first `*` and behind the last is compared in its place;
/// every run between is taken where it is first found, because a later place could only leave less room
/// to those behind it. Adds what it looks at to `looks`.
fn wildcard_matches(pattern: &str, value: &str, looks: &mut usize) -> bool {
    // Every character of the pattern is looked at once to take it apart; comparing in place is no more.
    *looks += PATTERN_LOOKS + pattern.len();
    let mut runs = pattern.split('*');
    let first = runs.next().unwrap_or_default();
    let Some(last) = runs.next_back() else {
        return first.len() == value.len() && fits(first.as_bytes(), value.as_bytes());
    };
    let Some((front, rest)) = value.as_bytes().split_at_checked(first.len()) else { return false };
    let Some(between_len) = rest.len().checked_sub(last.len()) else { return false };
    let (between, back) = rest.split_at(between_len);
    let found = || {
        let mut rest = str::from_utf8(between).ok()?;
        for run in runs {
            rest = rest.get(find(run, rest, looks)?..)?;
        }
        Some(())
    };
    fits(first.as_bytes(), front) && fits(last.as_bytes(), back) && found().is_some()
}

/// Where the first occurrence of `run`, which holds no `*`, ends in `text`.
///
/// Without `?` the standard library's search looks twice at a character, at most. With `?` every place is tried, which is cheap
/// for the short runs that [`check_search`] lets pass.
fn find(run: &str, text: &str, looks: &mut usize) -> Option<usize> {
    let (at, looks_each) = if run.contains('?') {
        let mut places = text.as_bytes().windows(run.len());
        (places.position(|place| fits(run.as_bytes(), place)), run.len())
    } else {
        (text.find(run), 2)
    };
    let passed = at.unwrap_or(text.len());
    *looks += PATTERN_LOOKS + run.len() + passed * looks_each;
    at.map(|at| at + run.len())
}

/// Whether the characters of `run` are those of `text` in their places; both are of the same length.
fn fits(run: &[u8], text: &[u8]) -> bool {
    run.iter().zip(text).all(|(wanted, found)| *wanted == b'?' || wanted == found)
}

impl Dialect {
    fn check_name(self, name: &[u8], offset: usize) -> Result<(), NameValueError> {
        if name.is_empty() {
            return Err(NameValueError::NoName { offset });
        }
        let star = usize::from(self == Self::CertLimit && name.starts_with(b"*"));
        check_characters(name, star, offset, is_name_character)
    }

    fn check_value(self, value: &[u8], offset: usize) -> Result<(), NameValueError> {
        // Tables, because a stranger's chain may hold 60 KiB of values.
        const PLAIN: [bool; 256] = table(false);
        const WITH_WILDCARDS: [bool; 256] = table(true);
        let allowed = if self == Self::Descriptor { &WITH_WILDCARDS } else { &PLAIN };
        check_characters(value, 0, offset, |c| allowed[usize::from(c)])
    }
}

fn check_characters(
    text: &[u8],
    skip: usize,
    offset: usize,
    allowed: impl Fn(u8) -> bool,
) -> Result<(), NameValueError> {
    match text.iter().skip(skip).position(|c| !allowed(*c)) {
        None => Ok(()),
        Some(at) => {
            let at = skip + at;
            Err(NameValueError::BadCharacter { byte: text[at], offset: offset + at })
        }
    }
}

/// Which characters a value may hold.
const fn table(wildcards: bool) -> [bool; 256] {
    let mut table = [false; 256];
    let mut c = 0;
    while c < table.len() {
        let byte = c as u8;
        table[c] = is_value_character(byte) || wildcards && matches!(byte, b'*' | b'?');
        c += 1;
    }
    table
}

const fn is_name_character(c: u8) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-')
}

const fn is_value_character(c: u8) -> bool {
    is_name_character(c)
        || matches!(c, b'.' | b':' | b'[' | b']' | b',' | b'/' | b'(' | b')' | b' ' | b'\t')
}

/// Why a text is not well formed. Offsets are in bytes from the start of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameValueError {
    /// A byte that is not allowed in its place.
    BadCharacter {
        /// Which.
        byte: u8,
        /// Where.
        offset: usize,
    },
    /// A pair without `=`.
    NoEquals {
        /// Start of the pair.
        offset: usize,
    },
    /// Nothing before the `=`.
    NoName {
        /// Start of the pair.
        offset: usize,
    },
    /// The last pair does not end in `;`.
    Unterminated {
        /// Start of the pair.
        offset: usize,
    },
    /// The name came before, and may not in this dialect.
    Repeated {
        /// Start of the second pair.
        offset: usize,
    },
    /// More pairs than a certificate may have.
    TooMany {
        /// How many.
        count: usize,
    },
}

impl fmt::Display for NameValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadCharacter { byte, offset } => write!(
                f,
                "'{}' at position {} is not allowed there; names are of [A-Za-z0-9_-], values also of \
                 . : [ ] , / ( ) blank and tab, those of descriptors also of * and ?",
                byte.escape_ascii(),
                offset + 1
            ),
            Self::NoEquals { offset } => {
                write!(f, "the pair at position {} has no '='; write name=value;", offset + 1)
            }
            Self::NoName { offset } => {
                write!(f, "the pair at position {} has no name before its '='", offset + 1)
            }
            Self::Unterminated { offset } => write!(
                f,
                "the pair at position {} does not end in ';'; the last one must, too",
                offset + 1
            ),
            Self::Repeated { offset } => {
                write!(
                    f,
                    "the pair at position {} repeats an earlier name; name it once",
                    offset + 1
                )
            }
            Self::TooMany { count } => write!(
                f,
                "{count} pairs, but a certificate may have {CERTIFICATE_PAIRS_MAX} in one text"
            ),
        }
    }
}

impl std::error::Error for NameValueError {}

/// A descriptor whose patterns take too long to be searched for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchError {
    /// What it costs; see [`check_search`].
    pub cost: usize,
}

impl fmt::Display for SearchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "its patterns cost {} to search for, more than {SEARCH_COST_MAX}: each with text between two \
             '*' costs 1, or the length of that text if a '?' is in it; use fewer or simpler ones",
            self.cost
        )
    }
}

impl std::error::Error for SearchError {}

#[cfg(test)]
mod tests;
