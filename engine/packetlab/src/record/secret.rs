//! Traffic secrets, and what is made of them (RFC 8446 7.1 to 7.3).
//!
//! Invariant: a secret is never copied, and is overwritten when it is dropped, which aws-lc-rs's `Prk` does.

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hkdf::{KeyType, Prk};

use super::suite::Suite;

/// The secret that keys of one direction come from.
pub struct TrafficSecret {
    suite: Suite,
    prk: Prk,
}

impl TrafficSecret {
    /// The secret with these bytes; `None` if they are not as many as the suite's hash has.
    pub fn new(suite: Suite, bytes: &[u8]) -> Option<Self> {
        let fits = bytes.len() == suite.hkdf().len();
        fits.then(|| Self { suite, prk: Prk::new_less_safe(suite.hkdf(), bytes) })
    }

    pub(super) fn suite(&self) -> Suite {
        self.suite
    }

    /// The secret behind the next KeyUpdate (7.2).
    pub(super) fn next(&self) -> Self {
        let len = self.suite.hkdf();
        let prk = self.expand(b"traffic upd", len, |info| Ok(self.prk.expand(info, len)?.into()));
        Self { suite: self.suite, prk }
    }

    /// Fills `into` with what the label stands for (7.3): a key or an IV.
    pub(super) fn fill(&self, label: &[u8], into: &mut [u8]) {
        let len = Len(into.len());
        self.expand(label, len, |info| self.prk.expand(info, len)?.fill(into));
    }

    /// HKDF-Expand-Label with an empty context (7.1).
    fn expand<T>(
        &self,
        label: &[u8],
        len: impl KeyType,
        expand: impl FnOnce(&[&[u8]]) -> Result<T, Unspecified>,
    ) -> T {
        const PREFIX: &[u8] = b"tls13 ";
        let len = (len.len() as u16).to_be_bytes();
        let label_len = [(PREFIX.len() + label.len()) as u8];
        let no_context = [0];
        expand(&[&len, &label_len, PREFIX, label, &no_context])
            .expect("HKDF gives as much as a key or a hash has")
    }
}

/// So many bytes.
#[derive(Clone, Copy)]
struct Len(usize);

impl KeyType for Len {
    fn len(&self) -> usize {
        self.0
    }
}
