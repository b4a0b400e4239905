//! One generation of the keys of one direction: it alone makes nonces, seals and opens.
//!
//! Not here: what records hold (`opening.rs`, `sealing.rs`). Invariant: no nonce is used twice. The sequence number is made
//! with the key, begins at 0 and only grows, and nothing can copy a [`Generation`] or set its number; a KeyUpdate makes a
//! new one (RFC 8446 5.3, 7.2).

use aws_lc_rs::aead::{Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

use super::format::{APPLICATION_DATA, CONTENT_LEN_MAX, HEADER_LEN, RECORD_OVERHEAD, TAG_LEN};
use super::secret::TrafficSecret;

/// The longest key of a suite.
const KEY_LEN_MAX: usize = 32;

/// The version in each header (5.2).
const LEGACY_VERSION: [u8; 2] = [3, 3];

/// Secret, key, IV and sequence number of one direction until its next KeyUpdate.
pub(super) struct Generation {
    secret: TrafficSecret,
    key: LessSafeKey,
    iv: Zeroizing<[u8; NONCE_LEN]>,
    sequence: u64,
}

impl Generation {
    pub(super) fn new(secret: TrafficSecret) -> Self {
        let aead = secret.suite().aead();
        let mut key = Zeroizing::new([0; KEY_LEN_MAX]);
        let key = &mut key[..aead.key_len()];
        secret.fill(b"key", key);
        let mut iv = Zeroizing::new([0; NONCE_LEN]);
        secret.fill(b"iv", &mut *iv);
        let key = UnboundKey::new(aead, key).expect("the key is as long as its suite says");
        Self { secret, key: LessSafeKey::new(key), iv, sequence: 0 }
    }

    /// The keys behind a KeyUpdate.
    pub(super) fn next(&self) -> Self {
        Self::new(self.secret.next())
    }

    /// How many records have been sealed or opened.
    pub(super) fn records(&self) -> u64 {
        self.sequence
    }

    /// As if so many had been.
    #[cfg(test)]
    pub(super) fn skip_to(&mut self, records: u64) {
        self.sequence = records;
    }

    /// Opens the record with this header and body into `into`, which has the length of its inner plaintext. `None` if it
    /// is not what the peer has sealed next; then what is in `into` is nobody's.
    pub(super) fn open(
        &mut self,
        header: [u8; HEADER_LEN],
        body: &[u8],
        into: &mut [u8],
    ) -> Option<()> {
        let nonce = self.next_nonce()?;
        let (ciphertext, tag) = body.split_at(body.len().checked_sub(TAG_LEN)?);
        self.key.open_separate_gather(nonce, Aad::from(header), ciphertext, tag, into).ok()
    }

    /// Seals `content` into a record at the front of `into`; returns its length. `None` if that cannot be done, after which
    /// the number it would have had is not used again.
    pub(super) fn seal(
        &mut self,
        content_type: u8,
        content: &[u8],
        into: &mut [u8],
    ) -> Option<usize> {
        assert!(content.len() <= CONTENT_LEN_MAX, "the content of a record is limited");
        let record = &mut into[..content.len() + RECORD_OVERHEAD];
        let (header, body) = record.split_first_chunk_mut::<HEADER_LEN>()?;
        let [high, low] = (body.len() as u16).to_be_bytes();
        *header = [APPLICATION_DATA, LEGACY_VERSION[0], LEGACY_VERSION[1], high, low];
        let nonce = self.next_nonce()?;
        let (ciphertext, type_and_tag) = body.split_at_mut(content.len());
        self.key
            .seal_out_of_place_scatter(
                nonce,
                Aad::from(*header),
                content,
                ciphertext,
                &[content_type],
                type_and_tag,
            )
            .ok()?;
        Some(record.len())
    }

    /// The nonce of the next record (5.3); `None` when there is no number left for it.
    fn next_nonce(&mut self) -> Option<Nonce> {
        let number = self.sequence;
        self.sequence = number.checked_add(1)?;
        let mut nonce = *self.iv;
        for (byte, of_number) in nonce[NONCE_LEN - 8..].iter_mut().zip(number.to_be_bytes()) {
            *byte ^= of_number;
        }
        Some(Nonce::assume_unique_for_key(nonce))
    }
}
