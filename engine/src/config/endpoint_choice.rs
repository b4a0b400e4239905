//! Which endpoints are measured.
//!
//! Not here: the choice itself (`proto/endpoint_choice.rs`).

use std::collections::{BTreeMap, HashSet};

use packetlab::key::KeyId;

/// Which endpoints are measured, by their keys; all without a word about it.
#[derive(Debug, Clone, Default)]
pub struct EndpointChoice {
    /// `--only`: these and no others.
    pub only: Option<KeyPrefixes>,
    /// `--skip`: not these.
    pub skip: KeyPrefixes,
    /// `--once-per-endpoint` and `--resume`: none that has been measured with success, or is being measured.
    pub once: bool,
    /// Which have been, before the run.
    pub measured: Vec<KeyId>,
}

/// Keys, or how their ids begin.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyPrefixes {
    /// Of each length, in hexadecimal digits, those there are.
    by_len: BTreeMap<usize, HashSet<String>>,
}

impl KeyPrefixes {
    /// One more: 1 to 64 hexadecimal digits. False if it is none.
    pub fn insert(&mut self, prefix: &str) -> bool {
        let is_prefix = (1..=64).contains(&prefix.len())
            && prefix.bytes().all(|digit| digit.is_ascii_hexdigit());
        if is_prefix {
            let of_len = self.by_len.entry(prefix.len()).or_default();
            of_len.insert(prefix.to_ascii_lowercase());
        }
        is_prefix
    }

    /// The key is among them.
    #[must_use]
    pub fn contain(&self, key: KeyId) -> bool {
        // What has no prefixes at all is asked of every endpoint.
        if self.by_len.is_empty() {
            return false;
        }
        let digits = key.to_string();
        let has = |(len, prefixes): (&usize, &HashSet<String>)| {
            digits.get(..*len).is_some_and(|prefix| prefixes.contains(prefix))
        };
        self.by_len.iter().any(has)
    }
}
