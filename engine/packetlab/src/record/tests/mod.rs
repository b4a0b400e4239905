//! A peer that seals what it is told to, allowed or not, and the records under test.
//!
//! Records against a rustls client are in `tls/tests.rs`.

mod key_updates;
mod properties;
mod vectors;
mod violations;

use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce, UnboundKey};

use super::format::*;
use super::*;

const SUITES: [Suite; 3] = [Suite::Aes128Gcm, Suite::Aes256Gcm, Suite::ChaCha20Poly1305];

const DATA: u8 = 23;
const CLOSE: [u8; 2] = [1, 0];

/// A secret of as many bytes as the suite's hash has.
fn secret(suite: Suite, byte: u8) -> TrafficSecret {
    let len = if suite == Suite::Aes256Gcm { 48 } else { 32 };
    TrafficSecret::new(suite, &vec![byte; len]).unwrap()
}

/// The records under test, and their peer.
fn connection(suite: Suite) -> (Records, Peer) {
    let (ours, theirs) = (secret(suite, 1), secret(suite, 2));
    (Records::new(ours, theirs), Peer::new(secret(suite, 2), secret(suite, 1)))
}

/// Seals and opens with sequence numbers and nonces of its own making (RFC 8446 5.2, 5.3).
struct Peer {
    seals: Side,
    opens: Side,
}

struct Side {
    secret: TrafficSecret,
    sequence: u64,
}

impl Side {
    fn key(&mut self) -> (LessSafeKey, Nonce) {
        let aead = self.secret.suite().aead();
        let mut key = vec![0; aead.key_len()];
        self.secret.fill(b"key", &mut key);
        let mut iv = [0; 12];
        self.secret.fill(b"iv", &mut iv);
        let iv = u128::from_be_bytes([&[0; 4][..], &iv].concat().try_into().unwrap());
        let nonce = (iv ^ u128::from(self.sequence)).to_be_bytes()[4..].try_into().unwrap();
        self.sequence += 1;
        let key = LessSafeKey::new(UnboundKey::new(aead, &key).unwrap());
        (key, Nonce::assume_unique_for_key(nonce))
    }

    fn update(&mut self) {
        *self = Self { secret: self.secret.next(), sequence: 0 };
    }
}

impl Peer {
    fn new(seals: TrafficSecret, opens: TrafficSecret) -> Self {
        let side = |secret| Side { secret, sequence: 0 };
        Self { seals: side(seals), opens: side(opens) }
    }

    /// A record whose inner plaintext, with type and padding, is this.
    fn seal_inner(&mut self, inner: &[u8]) -> Vec<u8> {
        let (key, nonce) = self.seals.key();
        let [high, low] = ((inner.len() + TAG_LEN) as u16).to_be_bytes();
        let header = [DATA, 3, 3, high, low];
        let mut body = inner.to_vec();
        key.seal_in_place_append_tag(nonce, Aad::from(header), &mut body).unwrap();
        [&header[..], &body].concat()
    }

    fn seal(&mut self, content_type: u8, content: &[u8]) -> Vec<u8> {
        self.seal_inner(&[content, &[content_type]].concat())
    }

    /// A KeyUpdate, and the key that follows it.
    fn seal_key_update(&mut self, asks_for_ours: u8) -> Vec<u8> {
        let record = self.seal(HANDSHAKE, &[KEY_UPDATE, 0, 0, 1, asks_for_ours]);
        self.seals.update();
        record
    }

    /// Content types and contents of the records in `bytes`, of which nothing is left. A KeyUpdate is heeded.
    fn open(&mut self, mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let mut records = Vec::new();
        while let Some((header, behind)) = bytes.split_first_chunk::<HEADER_LEN>() {
            assert_eq!(header[..3], [DATA, 3, 3]);
            let (body, rest) = behind.split_at(u16::from_be_bytes([header[3], header[4]]).into());
            let (key, nonce) = self.opens.key();
            let mut body = body.to_vec();
            let inner = key.open_in_place(nonce, Aad::from(header), &mut body).unwrap();
            let (content_type, content) = inner.split_last().unwrap();
            if *content_type == HANDSHAKE {
                self.opens.update();
            }
            records.push((*content_type, content.to_vec()));
            bytes = rest;
        }
        assert!(bytes.is_empty());
        records
    }
}

/// Gives `input` to the records as one receive; the data it brought, and what ended it.
fn open(records: &mut Records, mut input: &[u8]) -> (Vec<u8>, Result<Next, Violation>) {
    let mut data = vec![0; records.carried_len() + input.len()];
    let opened = records.open(&mut input, &mut data);
    data.truncate(opened.len);
    if opened.next.is_ok() {
        assert!(input.is_empty(), "all is taken");
    }
    (data, opened.next)
}

fn seal(records: &mut Records, piece: &[u8]) -> Vec<u8> {
    let mut sealed = vec![0; piece.len() + SEALED_OVERHEAD_MAX];
    let len = records.seal(piece, &mut sealed);
    sealed.truncate(len);
    sealed
}

fn due(records: &mut Records) -> Vec<u8> {
    let mut sealed = vec![0; 100];
    let len = records.write_due(&mut sealed);
    sealed.truncate(len);
    assert!(!records.has_due());
    sealed
}
