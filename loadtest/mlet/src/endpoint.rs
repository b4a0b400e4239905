//! Which endpoint a session is with, as the manager tells it: in the environment, or beside the session where one mlet
//! serves all (behaviour.md "What a mlet finds", "Singleton mode").
//!
//! Not here: the session. What names an endpoint is its key, since many may have one address, and behind a proxy all have.

use std::fmt;

/// Digits of a key that people are shown.
const SHORT_LEN: usize = 12;

/// Stands for a fact that is not known.
const NONE: &str = "-";

/// An endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Endpoint {
    /// Its key id, 64 hexadecimal digits. `None` if it showed no certificate, and with `-s` without `--single-facts`.
    pub key: Option<String>,
    /// The IP address that it came from, which is the proxy's if there is one; empty if it is not known.
    pub address: String,
    /// Number of the session, as in the log and the records of the manager; `None` with `-s` alone.
    pub session: Option<u64>,
    /// The experiment that it asked for; `None` with `-s` alone.
    pub snikey: Option<String>,
}

impl Endpoint {
    /// The one that this process was started for; `None` if it was started for none.
    #[must_use]
    pub fn from_environment() -> Option<Self> {
        let variable = |name| std::env::var(name).ok();
        Some(Self {
            address: variable("EPADDR")?,
            key: variable("PKTLAB_ENDPOINT_KEY").filter(|key| !key.is_empty()),
            session: variable("PKTLAB_SESSION").and_then(|number| number.parse().ok()),
            snikey: variable("PKTLAB_SNIKEY").filter(|snikey| !snikey.is_empty()),
        })
    }

    /// What [`Self::from_environment`] makes the same endpoint of, for a process that is started for it.
    pub fn environment(&self) -> impl Iterator<Item = (&'static str, String)> {
        let facts = self.session.map(|session| {
            let text = |fact: &Option<String>| fact.clone().unwrap_or_default();
            [
                ("PKTLAB_SESSION", session.to_string()),
                ("PKTLAB_ENDPOINT_KEY", text(&self.key)),
                ("PKTLAB_SNIKEY", text(&self.snikey)),
            ]
        });
        std::iter::once(("EPADDR", self.address.clone())).chain(facts.into_iter().flatten())
    }

    /// Of what comes with a session: `ADDRESS`, or `ADDRESS SESSION KEY SNIKEY` with `-` for what is not known. `None` if
    /// it is neither.
    pub(crate) fn of_message(message: &str) -> Option<Self> {
        let known = |fact: &str| (fact != NONE).then(|| fact.to_owned());
        match message.split(' ').collect::<Vec<_>>()[..] {
            [address] => Some(Self { address: address.to_owned(), ..Self::default() }),
            [address, session, key, snikey] => Some(Self {
                address: known(address).unwrap_or_default(),
                session: known(session).map(|number| number.parse()).transpose().ok()?,
                key: known(key),
                snikey: known(snikey),
            }),
            _ => None,
        }
    }

    /// What a line about it begins with: its key and its address, a tab between them, `-` for what is not known.
    #[must_use]
    pub fn columns(&self) -> String {
        let address = Some(&*self.address).filter(|address| !address.is_empty());
        format!("{}\t{}", self.key.as_deref().unwrap_or(NONE), address.unwrap_or(NONE))
    }

    /// Its key, or its address if that is not known.
    #[must_use]
    pub fn name(&self) -> &str {
        self.key.as_deref().unwrap_or(&self.address)
    }
}

/// For people: the first digits of its key, and its address.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.key.as_deref().map(|key| key.get(..SHORT_LEN).unwrap_or(key));
        let parts = key.into_iter().chain([&*self.address]).filter(|part| !part.is_empty());
        f.write_str(&parts.collect::<Vec<_>>().join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_an_address_or_four_facts() {
        let alone = Endpoint::of_message("2001:db8::1").unwrap();
        assert_eq!(alone, Endpoint { address: "2001:db8::1".into(), ..Endpoint::default() });
        assert_eq!(Endpoint::of_message(""), Some(Endpoint::default()));
        let key = "ab12cd34".repeat(8);
        let whole = Endpoint::of_message(&format!("192.0.2.1 41 {key} hello")).unwrap();
        assert_eq!((&*whole.address, whole.session), ("192.0.2.1", Some(41)));
        assert_eq!((whole.key.as_deref(), whole.snikey.as_deref()), (Some(&*key), Some("hello")));
        let keyless = Endpoint::of_message("192.0.2.1 41 - open").unwrap();
        assert_eq!(keyless.key, None);
        for bad in ["192.0.2.1 41", "192.0.2.1 x - open", "192.0.2.1 41 - open more"] {
            assert_eq!(Endpoint::of_message(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_key_comes_first_and_the_address_second() {
        let key = "ab12cd34".repeat(8);
        let mut endpoint = Endpoint::of_message(&format!("192.0.2.1 41 {key} hello")).unwrap();
        assert_eq!(endpoint.columns(), format!("{key}\t192.0.2.1"));
        assert_eq!(
            (endpoint.to_string(), endpoint.name()),
            ("ab12cd34ab12 192.0.2.1".into(), &*key)
        );
        endpoint.key = None;
        assert_eq!(endpoint.columns(), "-\t192.0.2.1");
        assert_eq!((endpoint.to_string(), endpoint.name()), ("192.0.2.1".into(), "192.0.2.1"));
        assert_eq!(Endpoint::default().columns(), "-\t-");
    }

    #[test]
    fn a_process_that_is_started_for_an_endpoint_is_told_what_is_known() {
        let of = |message| Endpoint::of_message(message).unwrap().environment().collect::<Vec<_>>();
        assert_eq!(of("192.0.2.1"), [("EPADDR", "192.0.2.1".to_owned())]);
        let facts = [
            ("EPADDR", "192.0.2.1"),
            ("PKTLAB_SESSION", "41"),
            ("PKTLAB_ENDPOINT_KEY", ""),
            ("PKTLAB_SNIKEY", "open"),
        ];
        let facts = facts.map(|(name, value)| (name, value.to_owned()));
        assert_eq!(of("192.0.2.1 41 - open"), facts);
    }
}
