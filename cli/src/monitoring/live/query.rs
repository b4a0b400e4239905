//! What is asked of the table of sessions: which words to look for, how to sort, and which page.
//!
//! Not here: the table (`sessions.rs`). Invariant: what is typed is read in a time that its length bounds, and means something
//! whatever it is.

/// What is typed behind so many words is not looked for: each is searched for in every session, by the thread that also
/// answers all others.
const WORDS_MAX: usize = 8;

/// What somebody asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Query {
    /// All of these must be found in a session, in lower case.
    pub(super) words: Vec<String>,
    /// From 1 on.
    pub(super) page: usize,
    pub(super) sort: Sort,
    pub(super) is_descending: bool,
}

/// What sessions are sorted by.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    /// Those that run, oldest first, before those that have ended, latest first.
    #[default]
    State,
    Session,
    Key,
    Peer,
    Age,
    ToEndpoint,
    FromEndpoint,
}

impl Query {
    /// What is behind the question mark: `q`, `page`, `sort` and `order`, as a form sends them. What is not known is as if
    /// it were not there.
    pub(in super::super) fn of(query: &str) -> Self {
        let mut asked = Self { page: 1, ..Self::default() };
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = unescaped(value);
            match name {
                "q" => {
                    let words = value.split_whitespace().take(WORDS_MAX);
                    asked.words = words.map(str::to_lowercase).collect();
                }
                "page" => asked.page = value.parse().unwrap_or(1).max(1),
                "order" => asked.is_descending = value == "descending",
                "sort" => {
                    asked.sort = match &*value {
                        "session" => Sort::Session,
                        "key" => Sort::Key,
                        "peer" => Sort::Peer,
                        "age" => Sort::Age,
                        "to" => Sort::ToEndpoint,
                        "from" => Sort::FromEndpoint,
                        _ => Sort::State,
                    }
                }
                _ => {}
            }
        }
        asked
    }
}

/// `+` is a space, and `%` stands before two hexadecimal digits of a byte.
fn unescaped(value: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = value.as_bytes();
    while let Some((byte, behind)) = rest.split_first() {
        let digits = behind.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let digits = digits.and_then(|digits| str::from_utf8(digits).ok());
        let escaped = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        rest = behind;
        match (byte, escaped) {
            (b'%', Some(escaped)) => {
                bytes.push(escaped);
                rest = &behind[2..];
            }
            (b'+', _) => bytes.push(b' '),
            (byte, _) => bytes.push(*byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percent_sign_stands_before_two_digits_or_for_itself() {
        for (value, text) in [("%4a%4A+%", "JJ %"), ("%+5", "% 5"), ("%-5%5", "%-5%5")] {
            assert_eq!(unescaped(value), text, "{value}");
        }
    }
}
