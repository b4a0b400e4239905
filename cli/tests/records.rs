//! Towards TLS peers no record holds bytes of two messages (spec/protocol.md 1.6): asserted on the bytes
//! that a relay between `pktxpmgr` and an endpoint saw, decrypted here with the endpoint's key log
//! (RFC 8446 5.2, 5.3, 7.1, 7.3), so that no TLS library stands between the records and the judgement.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk};
use common::Home;
use common::endpoint::{End, LINFO, MADE_UP, NDATA, START, made_up, message};
use rustls::KeyLog;

/// Content types of records (RFC 8446 5.1).
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

/// TLS_AES_128_GCM_SHA256, the manager's choice, whatever an endpoint would rather have.
const SUITE: [u8; 2] = [0x13, 0x01];

/// Item 85. The mlet writes byte by byte, in threes, many messages at once, and one message of 12 MiB.
#[test]
fn no_record_on_the_wire_holds_bytes_of_two_messages() {
    let streams = [(1, 300, 37), (3, 700, 40), (1 << 20, 20_000, 12), (60_000, 1, 12 << 20)];
    for (piece, count, len) in streams {
        let messages: Vec<Vec<u8>> =
            (0..count).map(|index| message(MADE_UP, &made_up(index, len))).collect();
        let words = ["pieces", &piece.to_string(), &count.to_string(), &len.to_string()];
        let records = captured(&words, &[], count);
        let shortest = records.iter().map(Vec::len).min().unwrap();
        println!(
            "pieces of {piece}: {count} messages in {} records, shortest {shortest}",
            records.len()
        );
        each_is_of_one_message(&records, &messages);
    }
}

/// Items 82, 85, 86. Empty messages, and such as the endpoint packed into one record, LINFO among them.
#[test]
fn what_a_peer_packs_into_one_record_comes_back_in_records_of_one_message_each() {
    let messages: Vec<Vec<u8>> =
        (0..200).map(|len: usize| message(NDATA, &vec![1; len % 3 * 40])).collect();
    let mut sent = messages.concat();
    sent.splice(48..48, message(LINFO, b"\x04name\0\0\0\x02hi"));
    let records = captured(&["echo"], &sent, messages.len());
    each_is_of_one_message(&records, &messages);
}

/// Runs a session through a relay: sends this in one record or more, receives so many messages, ends.
/// Returns the plaintexts of the records with application data behind START.
fn captured(kind: &[&str], sent: &[u8], count: usize) -> Vec<Vec<u8>> {
    let home = Home::new();
    let manager = home.start(&["-n", "1"], kind);
    let (address, relay) = start_relay(manager.address);
    let keys = Arc::new(Keys::default());
    let mut dial = home.dial(&manager);
    dial.address = address;
    let mut config = dial.config();
    config.key_log = Arc::clone(&keys) as Arc<dyn KeyLog>;
    let mut endpoint = dial.configured(config).session();
    endpoint.send(sent);
    for _ in 0..count {
        endpoint.receive().unwrap();
    }
    endpoint.close();
    assert_eq!(endpoint.receive(), Err(End::CloseNotify));
    assert_eq!(manager.ends().code, Some(0));
    drop(endpoint);
    let captured = relay.join().unwrap();
    let mut records = decrypted(&captured, &keys.0.lock().unwrap());
    assert_eq!(records.remove(0), message(START, b""));
    records
}

/// Asserts that the records, put together, are the messages, and that none reaches over a boundary.
fn each_is_of_one_message(records: &[Vec<u8>], messages: &[Vec<u8>]) {
    assert!(records.concat() == messages.concat(), "the bytes are those that the mlet wrote");
    let mut left = messages.iter().map(Vec::len);
    let mut left_of_message = 0;
    for (index, record) in records.iter().enumerate() {
        if left_of_message == 0 {
            left_of_message = left.next().unwrap();
        }
        assert!(!record.is_empty(), "record {index} is empty");
        assert!(record.len() <= left_of_message, "record {index} holds bytes of two messages");
        left_of_message -= record.len();
    }
}

/// Carries one connection to `manager`, and returns in the end every byte that came from there.
fn start_relay(manager: SocketAddr) -> (SocketAddr, JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let relay = thread::spawn(move || {
        let (endpoint, _) = listener.accept().unwrap();
        let manager = TcpStream::connect(manager).unwrap();
        let (mut from, mut to) = (endpoint.try_clone().unwrap(), manager.try_clone().unwrap());
        let upward = thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
        let captured = copy_and_keep(manager, endpoint);
        upward.join().unwrap();
        captured
    });
    (address, relay)
}

fn copy_and_keep(mut from: TcpStream, mut to: TcpStream) -> Vec<u8> {
    let mut captured = Vec::new();
    let mut bytes = vec![0; 1 << 16];
    while let Ok(len @ 1..) = from.read(&mut bytes) {
        captured.extend_from_slice(&bytes[..len]);
        // The endpoint may have closed; what comes is kept all the same.
        let _ = to.write_all(&bytes[..len]);
    }
    let _ = to.shutdown(Shutdown::Write);
    captured
}

/// Secrets of one connection by their labels.
#[derive(Debug, Default)]
struct Keys(Mutex<BTreeMap<String, Vec<u8>>>);

impl KeyLog for Keys {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        self.0.lock().unwrap().insert(label.to_owned(), secret.to_vec());
    }
}

/// The plaintexts of all records with application data, in order; the last is followed by nothing but
/// close_notify.
fn decrypted(captured: &[u8], secrets: &BTreeMap<String, Vec<u8>>) -> Vec<Vec<u8>> {
    let mut handshake = TrafficKey::of(&secrets["SERVER_HANDSHAKE_TRAFFIC_SECRET"]);
    let mut application = TrafficKey::of(&secrets["SERVER_TRAFFIC_SECRET_0"]);
    let mut plaintexts = Vec::new();
    let mut is_closed = false;
    for record in records(captured) {
        match record[0] {
            HANDSHAKE => assert_eq!(suite_of_server_hello(record), SUITE),
            APPLICATION_DATA => {
                let opened = match application.open(record) {
                    Some(opened) => opened,
                    // Before the first record under the application's key come those of the handshake.
                    None if application.opened == 0 => {
                        handshake.open(record).expect("a record of the handshake");
                        continue;
                    }
                    None => panic!("record {} cannot be decrypted", application.opened),
                };
                assert!(!is_closed, "something comes behind close_notify");
                match opened {
                    (APPLICATION_DATA, plaintext) => plaintexts.push(plaintext),
                    (ALERT, alert) => {
                        assert_eq!(alert, [1, 0]);
                        is_closed = true;
                    }
                    (HANDSHAKE, _ticket) => {}
                    (other, _) => panic!("content type {other}"),
                }
            }
            _change_cipher_spec => {}
        }
    }
    assert!(is_closed, "no close_notify");
    plaintexts
}

/// Splits a stream into records with their headers.
fn records(mut stream: &[u8]) -> Vec<&[u8]> {
    let mut records = Vec::new();
    while !stream.is_empty() {
        let len = usize::from(u16::from_be_bytes([stream[3], stream[4]]));
        let (record, rest) = stream.split_at(5 + len);
        records.push(record);
        stream = rest;
    }
    records
}

/// Behind both headers, the version and the random stands the session id, then the suite.
fn suite_of_server_hello(record: &[u8]) -> [u8; 2] {
    let at = 5 + 4 + 2 + 32;
    let at = at + 1 + usize::from(record[at]);
    [record[at], record[at + 1]]
}

/// One direction's key, which opens records in their order.
struct TrafficKey {
    key: LessSafeKey,
    iv: [u8; 12],
    opened: u64,
}

impl TrafficKey {
    fn of(secret: &[u8]) -> Self {
        let (mut key, mut iv) = ([0; 16], [0; 12]);
        expand_label(secret, b"key", &mut key);
        expand_label(secret, b"iv", &mut iv);
        let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key).unwrap());
        Self { key, iv, opened: 0 }
    }

    /// The content type and plaintext of this record, if it is the next under this key.
    fn open(&mut self, record: &[u8]) -> Option<(u8, Vec<u8>)> {
        let mut nonce = self.iv;
        for (byte, number) in nonce[4..].iter_mut().zip(self.opened.to_be_bytes()) {
            *byte ^= number;
        }
        let (header, ciphertext) = record.split_at(5);
        let mut bytes = ciphertext.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        let plaintext = self.key.open_in_place(nonce, Aad::from(header), &mut bytes).ok()?;
        self.opened += 1;
        let end = plaintext.iter().rposition(|byte| *byte != 0).expect("a content type");
        Some((plaintext[end], plaintext[..end].to_vec()))
    }
}

/// HKDF-Expand-Label without context.
fn expand_label(secret: &[u8], label: &[u8], out: &mut [u8]) {
    struct Len(usize);
    impl KeyType for Len {
        fn len(&self) -> usize {
            self.0
        }
    }
    let len = u16::try_from(out.len()).unwrap().to_be_bytes();
    let label = [b"tls13 ", label].concat();
    let label_len = [u8::try_from(label.len()).unwrap()];
    let info = [&len[..], &label_len, &label, &[0]];
    let secret = Prk::new_less_safe(HKDF_SHA256, secret);
    secret.expand(&info, Len(out.len())).unwrap().fill(out).unwrap();
}
