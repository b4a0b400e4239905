//! What is known about a file, as a small tree that is shown in words or as JSON, so that both always
//! say the same.

use std::fmt::Write;
use std::time::Duration;

use packetlab::escape::Escaped;
use serde::{Serialize, Serializer};

/// Names and values, in the order in which they are shown.
#[derive(Debug, Default)]
pub(crate) struct Facts(Vec<(String, Fact)>);

/// One value.
#[derive(Debug)]
pub(crate) enum Fact {
    /// Text, from wherever: it is escaped when shown.
    Text(String),
    /// A number.
    Number(u64),
    /// Nanoseconds: in JSON as they are, in words with their unit as well.
    Time(u64),
    /// Yes or no.
    Flag(bool),
    /// Not there, and what that means: `null` in JSON.
    Absent(&'static str),
    /// Texts of one kind.
    List(Vec<String>),
    /// Facts of their own.
    Group(Facts),
}

impl From<String> for Fact {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Fact {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<u64> for Fact {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<bool> for Fact {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl Facts {
    /// Adds a fact. Names are written as in JSON, with underscores.
    pub(crate) fn add(&mut self, name: &str, fact: impl Into<Fact>) {
        self.0.push((name.to_owned(), fact.into()));
    }

    /// Adds a list, unless it is empty.
    pub(crate) fn add_list<T: ToString>(&mut self, name: &str, items: &[T]) {
        if !items.is_empty() {
            self.add(name, Fact::List(items.iter().map(T::to_string).collect()));
        }
    }

    /// Adds facts of their own, unless there are none.
    pub(crate) fn add_group(&mut self, name: &str, facts: Self) {
        if !facts.0.is_empty() {
            self.add(name, Fact::Group(facts));
        }
    }

    /// Adds all of these.
    pub(crate) fn extend(&mut self, facts: Self) {
        self.0.extend(facts.0);
    }

    /// Lines for people.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        self.write_text(&mut text, 0);
        text
    }

    fn write_text(&self, text: &mut String, indent: usize) {
        for (name, fact) in &self.0 {
            let name = Escaped(name.as_bytes()).to_string().replace('_', " ");
            let _ = write!(text, "{:indent$}{name}:", "");
            match fact {
                Fact::Text(value) => {
                    let _ = writeln!(text, " {}", Escaped(value.as_bytes()));
                }
                Fact::Number(value) => {
                    let _ = writeln!(text, " {value}");
                }
                Fact::Time(nanoseconds) => {
                    let seconds = Duration::from_nanos(*nanoseconds).as_secs_f64();
                    let _ = writeln!(text, " {nanoseconds} ns ({seconds} s)");
                }
                Fact::Flag(value) => text.push_str(if *value { " yes\n" } else { " no\n" }),
                Fact::Absent(meaning) => {
                    let _ = writeln!(text, " {meaning}");
                }
                Fact::List(items) => {
                    text.push('\n');
                    for item in items {
                        let inner = indent + 2;
                        let _ = writeln!(text, "{:inner$}{}", "", Escaped(item.as_bytes()));
                    }
                }
                Fact::Group(facts) => {
                    text.push('\n');
                    facts.write_text(text, indent + 2);
                }
            }
        }
    }

    /// One JSON object (RFC 8259) on one line.
    pub(crate) fn json(&self) -> String {
        serde_json::to_string(self).expect("names are texts, and nothing is written but memory")
    }
}

impl Serialize for Facts {
    fn serialize<S: Serializer>(&self, json: S) -> Result<S::Ok, S::Error> {
        json.collect_map(self.0.iter().map(|(name, fact)| (name, fact)))
    }
}

impl Serialize for Fact {
    fn serialize<S: Serializer>(&self, json: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(value) => json.serialize_str(value),
            Self::Number(value) | Self::Time(value) => json.serialize_u64(*value),
            Self::Flag(value) => json.serialize_bool(*value),
            Self::Absent(_) => json.serialize_unit(),
            Self::List(items) => json.collect_seq(items),
            Self::Group(facts) => facts.serialize(json),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        let mut limits = Facts::default();
        limits.add("max_send_pkt", u64::MAX);
        limits.add_list("valid_dest", &["10.0.0.0/8", "::1"]);
        limits.add_list::<String>("monitor", &[]);
        let mut facts = Facts::default();
        facts.add("description", "a \"b\" \\ \u{1b}[2J\né");
        facts.add("self_signed", true);
        facts.add("period", Fact::Time(2_000_000_000));
        facts.add("path_len", Fact::Absent("any number"));
        facts.add_group("limits", limits);
        facts.add_group("nothing", Facts::default());
        facts
    }

    #[test]
    fn text_and_json_say_the_same() {
        assert_eq!(
            facts().text(),
            "description: a \"b\" \\\\ \\u{1b}[2J\\né\n\
             self signed: yes\n\
             period: 2000000000 ns (2 s)\n\
             path len: any number\n\
             limits:\n  max send pkt: 18446744073709551615\n  valid dest:\n    10.0.0.0/8\n    ::1\n"
        );
        assert_eq!(
            facts().json(),
            "{\"description\":\"a \\\"b\\\" \\\\ \\u001b[2J\\né\",\
             \"self_signed\":true,\"period\":2000000000,\"path_len\":null,\
             \"limits\":{\"max_send_pkt\":18446744073709551615,\
             \"valid_dest\":[\"10.0.0.0/8\",\"::1\"]}}"
        );
    }
}
