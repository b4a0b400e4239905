//! What a peer sends behind the handshake. The first byte says into how long chunks it is cut; then come parts: a byte that
//! says what follows, a length of two bytes, and so many bytes. They are sent as they are, or sealed as an inner plaintext, or as
//! data. Only what was sealed as data comes out, in its order; of a record that is not whole no more than one is kept; a
//! violation is final, and behind it comes an alert at most.

#![no_main]

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk};
use libfuzzer_sys::fuzz_target;
use packetlab::record::{CONTENT_LEN_MAX, Records, SEALED_OVERHEAD_MAX, Suite, TrafficSecret};

const OURS: [u8; 32] = [1; 32];
const THEIRS: [u8; 32] = [2; 32];

/// The most that is kept of a record: all but its last byte.
const CARRIED_MAX: usize = 5 + CONTENT_LEN_MAX + 1 + 16 - 1;

fuzz_target!(|input: &[u8]| {
    let Some((&chunk_len, mut parts)) = input.split_first() else { return };
    let secret = |bytes: [u8; 32]| TrafficSecret::new(Suite::Aes128Gcm, &bytes).unwrap();
    let mut records = Records::new(secret(OURS), secret(THEIRS));
    let mut peer = Peer { prk: Prk::new_less_safe(HKDF_SHA256, &THEIRS), sequence: 0 };
    let (mut sent, mut sealed, mut came) = (Vec::new(), Vec::new(), Vec::new());
    while let [kind, high, low, behind @ ..] = parts {
        let len = usize::from(u16::from_be_bytes([*high, *low])).min(behind.len());
        let (part, rest) = behind.split_at(len);
        parts = rest;
        match kind % 4 {
            0 => sent.extend_from_slice(part),
            1 => {
                sent.extend(peer.seal(part));
                if let Some(at) = part.iter().rposition(|byte| *byte != 0) {
                    match part[at] {
                        23 => sealed.extend_from_slice(&part[..at]),
                        22 if part[..at] == [24, 0, 0, 1, 0] || part[..at] == [24, 0, 0, 1, 1] => {
                            peer.update();
                        }
                        _ => {}
                    }
                }
            }
            _ => {
                sent.extend(peer.seal(&[part, &[23]].concat()));
                sealed.extend_from_slice(part);
            }
        }
    }
    let mut failed = None;
    for mut chunk in sent.chunks(usize::from(chunk_len).max(1) * 7) {
        let mut room = vec![0; records.carried_len() + chunk.len()];
        let opened = records.open(&mut chunk, &mut room);
        came.extend_from_slice(&room[..opened.len]);
        assert!(chunk.is_empty() || opened.next.is_err());
        assert!(records.carried_len() <= CARRIED_MAX);
        if let Some(violation) = failed {
            assert_eq!((opened.len, opened.next), (0, Err(violation)));
        }
        failed = opened.next.err();
        let mut room = [0; 1 + SEALED_OVERHEAD_MAX];
        assert_eq!(records.seal(b"x", &mut room) > 0, failed.is_none());
    }
    assert!(sealed.starts_with(&came), "what comes out was sealed as data");
    let mut room = [0; 200];
    assert!(records.write_due(&mut room) <= 24 && !records.has_due());
});

/// The peer's direction, with nonces of its own making.
struct Peer {
    prk: Prk,
    sequence: u64,
}

#[derive(Clone, Copy)]
struct Len(usize);

impl KeyType for Len {
    fn len(&self) -> usize {
        self.0
    }
}

impl Peer {
    fn expand(&self, label: &[u8], into: &mut [u8]) {
        let len = [0, into.len() as u8, 6 + label.len() as u8];
        let info: [&[u8]; 4] = [&len, b"tls13 ", label, &[0]];
        self.prk.expand(&info, Len(into.len())).unwrap().fill(into).unwrap();
    }

    fn update(&mut self) {
        let mut secret = [0; 32];
        self.expand(b"traffic upd", &mut secret);
        *self = Self { prk: Prk::new_less_safe(HKDF_SHA256, &secret), sequence: 0 };
    }

    fn seal(&mut self, inner: &[u8]) -> Vec<u8> {
        let (mut key, mut nonce) = ([0; 16], [0; 12]);
        self.expand(b"key", &mut key);
        self.expand(b"iv", &mut nonce);
        for (byte, of_number) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= of_number;
        }
        self.sequence += 1;
        let [high, low] = ((inner.len() + 16) as u16).to_be_bytes();
        let header = [23, 3, 3, high, low];
        let mut body = inner.to_vec();
        LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key).unwrap())
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(header),
                &mut body,
            )
            .unwrap();
        [&header[..], &body].concat()
    }
}
