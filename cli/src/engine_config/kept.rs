//! What a reload keeps of what was loaded before it, because it cannot be had again: a key behind a passphrase, snikeys
//! that were drawn at random, and since when something is published.

use std::sync::Arc;

use cli::secret::KeyFile;
use packetlab::key::PrivateKey;
use packetlab::snikey::SniKey;
use packetlab::time::Ticks;

/// What is kept; nothing before the first time.
#[derive(Default)]
pub(crate) struct Kept {
    /// The encrypted file that was opened last.
    key: Option<(KeyFile, Arc<PrivateKey>)>,
    /// In the order of the entries without SNIKEY.
    snikeys: Vec<SniKey>,
    /// Since when something is published.
    published: Option<Ticks>,
}

impl Kept {
    /// Since when something is published of what is loaded `now`: its period counts from there on.
    pub(super) fn published_since(&mut self, now: Ticks) -> Ticks {
        *self.published.get_or_insert(now)
    }

    /// Nothing is published.
    pub(super) fn unpublished(&mut self) {
        self.published = None;
    }

    /// The key in this file, if the same bytes were opened before.
    pub(super) fn key_of(&self, file: &KeyFile) -> Option<Arc<PrivateKey>> {
        let (before, key) = self.key.as_ref()?;
        before.is_the_same_as(file).then(|| Arc::clone(key))
    }

    /// Keeps the key that was in this file, if it takes a passphrase.
    pub(super) fn keep_key(&mut self, file: KeyFile, key: &Arc<PrivateKey>) {
        self.key = file.is_encrypted().then(|| (file, Arc::clone(key)));
    }

    /// The snikey that was drawn for the entry of this number, from 1, among those without one.
    pub(super) fn snikey(&self, number: usize) -> Option<SniKey> {
        self.snikeys.get(number.checked_sub(1)?).cloned()
    }

    /// Keeps a snikey, which was drawn for the first entry for which none is kept.
    pub(super) fn keep_snikey(&mut self, snikey: SniKey) {
        self.snikeys.push(snikey);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publication_counts_from_when_it_was_first_loaded_until_there_is_none() {
        let mut kept = Kept::default();
        assert_eq!([5, 7, 9].map(|now| kept.published_since(Ticks(now))), [Ticks(5); 3]);
        kept.unpublished();
        assert_eq!(kept.published_since(Ticks(11)), Ticks(11));
    }
}
