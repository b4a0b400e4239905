//! `run.json`: what is known of each run of a folder.
//!
//! Not here: the file itself (`folder.rs`). All but the run's name may be missing.

use std::fmt;

use packetlab::key::Hex;
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Runs {
    runs: Vec<Run>,
}

/// One run.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Run {
    /// Its name, as records have it.
    #[serde(rename = "run")]
    pub(crate) name: String,
    pub(crate) program: Option<String>,
    pub(crate) commit: Option<String>,
    #[serde(default)]
    pub(crate) command: Vec<Word>,
    pub(crate) config: Option<Digested>,
    pub(crate) mlet: Option<Digested>,
    pub(crate) host: Option<String>,
    pub(crate) kernel: Option<String>,
    pub(crate) note: Option<String>,
}

/// A word of a command line, or a path. What is no UTF-8 is no string of JSON, and no two of them may look alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Word {
    /// UTF-8, as it is.
    Text(String),
    /// Anything else, by its bytes.
    Bytes {
        /// Hexadecimal.
        hex: String,
    },
}

impl Word {
    /// Of these bytes.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        match str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Bytes { hex: Hex(bytes).to_string() },
        }
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Bytes { hex } => write!(f, "<hex {hex}>"),
        }
    }
}

/// A file, and what was in it.
#[derive(Debug, Deserialize)]
pub(crate) struct Digested {
    pub(crate) path: String,
    /// Hexadecimal.
    pub(crate) sha256: String,
}

impl Run {
    /// The runs that a file of this text tells of.
    ///
    /// # Errors
    /// It is no such file, in words.
    pub(crate) fn list(text: &[u8]) -> Result<Vec<Self>, String> {
        let runs: Runs = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        Ok(runs.runs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_are_no_text_are_told_apart_and_read_again() {
        let words = [&b"a b"[..], b"a\xff", b"a\xfe", "a\u{fffd}".as_bytes(), b""].map(Word::of);
        let json = serde_json::to_string(&words).unwrap();
        assert_eq!(
            json,
            r#"["a b",{"hex":"61ff"},{"hex":"61fe"},"a\u{fffd}",""]"#
                .replace(r"\u{fffd}", "\u{fffd}")
        );
        let text = format!(r#"{{"runs":[{{"run":"7","command":{json}}}]}}"#);
        assert_eq!(Run::list(text.as_bytes()).unwrap()[0].command, words);
        assert_eq!(words[1].to_string(), "<hex 61ff>");
    }

    #[test]
    fn a_run_may_tell_little_and_may_tell_what_nobody_knows() {
        let text = br#"{"v":1,"runs":[{"run":"7f3a","ended":null,"limits":{"x":1},"new":[],
            "mlet":{"path":"./m","sha256":"ab","arguments":[]}},{"run":"8"}]}"#;
        let runs = Run::list(text).unwrap();
        assert_eq!((runs.len(), &*runs[0].name, &*runs[1].name), (2, "7f3a", "8"));
        assert_eq!(runs[0].mlet.as_ref().unwrap().sha256, "ab");
        assert!(Run::list(b"{").is_err());
    }
}
