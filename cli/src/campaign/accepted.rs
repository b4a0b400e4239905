//! The results that a campaign has accepted, ticked off as they are found in managers' folders.
//!
//! Not here: the folders, and the database. Of each result there is its endpoint, its claim and a digest, so that a million of
//! them take some hundred megabytes. Invariant: each is taken once.

use std::collections::{BTreeMap, HashMap};

use ::campaign::administration::{Accepted, JournalResult};
use packetlab::escape::Escaped;
use packetlab::key::KeyId;
use packetlab::words::counted;

/// So many endpoints of each host are named.
const NAMED: usize = 5;

#[derive(Default)]
pub(super) struct AcceptedResults {
    of_endpoints: HashMap<KeyId, Result>,
    /// Of managers.
    hosts: Vec<String>,
}

struct Result {
    digest: [u8; 32],
    epoch: u32,
    /// Which of the hosts.
    host: u32,
    found: Found,
}

/// Where.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Found {
    Nowhere,
    /// Only with a record that is not the one that was accepted.
    Different,
    Here,
}

impl AcceptedResults {
    pub(super) fn add(&mut self, Accepted { endpoint, epoch, host, digest }: Accepted) {
        let host = host.unwrap_or_else(|| "a manager that the database has forgotten".to_owned());
        let known = self.hosts.iter().position(|known| *known == host);
        let index = known.unwrap_or_else(|| {
            self.hosts.push(host);
            self.hosts.len() - 1
        });
        let host = u32::try_from(index).unwrap_or(u32::MAX);
        let found = Found::Nowhere;
        self.of_endpoints.insert(KeyId(endpoint), Result { digest, epoch, host, found });
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.of_endpoints.len()
    }

    /// Whether a result is the accepted one of its endpoint, and has not been taken before.
    pub(super) fn take(&mut self, result: JournalResult) -> bool {
        let of_endpoint = self.of_endpoints.get_mut(&KeyId(result.endpoint));
        let Some(accepted) = of_endpoint.filter(|accepted| accepted.epoch == result.epoch) else {
            return false;
        };
        let found = match accepted.digest == result.digest() {
            true => Found::Here,
            false => Found::Different,
        };
        let is_new = accepted.found < found;
        accepted.found = accepted.found.max(found);
        is_new && found == Found::Here
    }

    /// How many were not taken, and a sentence for each host that they are of.
    pub(super) fn missing(&self) -> (usize, Vec<String>) {
        let mut missing = BTreeMap::<_, Vec<KeyId>>::new();
        for (endpoint, result) in &self.of_endpoints {
            if result.found != Found::Here {
                missing.entry((result.host, result.found)).or_default().push(*endpoint);
            }
        }
        let count = missing.values().map(Vec::len).sum();
        let told = missing.into_iter().map(|((host, found), mut endpoints)| {
            endpoints.sort_unstable_by_key(|endpoint| endpoint.0);
            let host = usize::try_from(host).ok().and_then(|index| self.hosts.get(index));
            let host = Escaped(host.map_or("", String::as_str).as_bytes());
            let results = counted(endpoints.len() as u64, "accepted result");
            let why = match found {
                Found::Nowhere => "in none of these folders",
                _ => "only with a record that is not the one that was accepted",
            };
            let more = if endpoints.len() > NAMED { ", ..." } else { "" };
            let endpoints = endpoints.iter().take(NAMED).map(KeyId::short).collect::<Vec<_>>();
            format!("{host}: {results} {why}: endpoint {}{more}", endpoints.join(", "))
        });
        (count, told.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(endpoint: u8, epoch: u32, record: &str) -> JournalResult {
        let (outcome, record) = ("ok".to_owned(), record.to_owned());
        let (host, at) = (None, None);
        JournalResult { endpoint: [endpoint; 32], epoch, session: 7, host, at, outcome, record }
    }

    #[test]
    fn each_accepted_result_is_taken_once_and_nothing_else_is() {
        let mut accepted = AcceptedResults::default();
        for (endpoint, host) in [(1, "a"), (2, "a"), (3, "b"), (4, "b"), (5, "b")] {
            let digest = result(endpoint, 2, "{}").digest();
            let host = Some(host.to_owned());
            accepted.add(Accepted { endpoint: [endpoint; 32], epoch: 2, host, digest });
        }
        assert!(!accepted.take(result(1, 1, "{}")), "an earlier claim");
        assert!(accepted.take(result(1, 2, "{}")));
        assert!(!accepted.take(result(1, 2, "{}")), "of a copy of the folder");
        assert!(!accepted.take(result(9, 2, "{}")), "nobody's");
        for endpoint in [2, 3] {
            assert!(!accepted.take(result(endpoint, 2, "[]")), "another record");
        }
        assert!(accepted.take(result(2, 2, "{}")), "another folder has the right one");
        let (count, told) = accepted.missing();
        assert_eq!((accepted.len(), count), (5, 3));
        let [nowhere, different] = &*told else { panic!("{told:?}") };
        assert_eq!(
            nowhere,
            "b: 2 accepted results in none of these folders: endpoint 040404040404, 050505050505"
        );
        assert!(different.starts_with("b: 1 accepted result only with a record that is not"));
    }
}
