//! What tests of conversations share: golden credentials, messages, and a TLS server in memory.
//!
//! Not here: sessions between an endpoint and a mlet, which run on a shard (`shard/tests`).

pub(crate) mod credentials;
pub(super) mod tls_server;

use std::ops::Range;

use packetlab::message::{HEADER_LEN, MessageType};

/// A whole message.
pub(crate) fn message(message_type: MessageType, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![message_type.0];
    bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    bytes.extend_from_slice(payload);
    bytes
}

/// The RESULT with which an endpoint agrees.
pub(crate) fn success() -> Vec<u8> {
    message(MessageType::RESULT, &[])
}

/// A message of `len` payload bytes that differ from their neighbours.
pub(crate) fn filled(message_type: MessageType, len: usize) -> Vec<u8> {
    let period: [u8; 251] = std::array::from_fn(|position| position as u8);
    let mut payload = Vec::with_capacity(len + period.len());
    while payload.len() < len {
        payload.extend_from_slice(&period);
    }
    message(message_type, &payload[..len])
}

/// Where the messages of a stream lie; the last may be cut.
pub(crate) fn message_ranges(stream: &[u8]) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let mut start = 0;
    while start < stream.len() {
        let len = stream[start..].first_chunk().map_or(HEADER_LEN, |[_, high, middle, low]| {
            HEADER_LEN + u32::from_be_bytes([0, *high, *middle, *low]) as usize
        });
        let end = stream.len().min(start + len);
        ranges.push(start..end);
        start = end;
    }
    ranges
}

/// Asserts spec/protocol.md 1.6 for the plaintext lengths of consecutive TLS records that carried `stream`.
pub(crate) fn assert_records_hold_one_message_each(record_lens: &[usize], stream: &[u8]) {
    assert_eq!(record_lens.iter().sum::<usize>(), stream.len(), "the records carry the stream");
    let mut messages = message_ranges(stream).into_iter().peekable();
    let mut start = 0;
    for len in record_lens {
        assert!(*len > 0, "no record is empty");
        while messages.peek().is_some_and(|message| message.end <= start) {
            messages.next();
        }
        let message = messages.peek().unwrap();
        let record = start..start + len;
        assert!(record.end <= message.end, "record {record:?} goes beyond message {message:?}");
        start = record.end;
    }
}
