//! What a reload keeps of what was loaded before it, because it cannot be had again: a key behind a passphrase, and snikeys
//! that were drawn at random.

use std::sync::Arc;

use cli::secret::KeyFile;
use packetlab::key::PrivateKey;
use packetlab::snikey::SniKey;

/// What is kept; nothing before the first time.
#[derive(Default)]
pub(crate) struct Kept {
    /// The encrypted file that was opened last.
    key: Option<(KeyFile, Arc<PrivateKey>)>,
    /// In the order of the entries without SNIKEY.
    snikeys: Vec<SniKey>,
}

impl Kept {
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
