//! Sessions in memory: a [`pair::Pair`] joins one to a real TLS client and a mlet's socket, with a
//! clock that only jumps. Every scenario checks the machine's invariants after every step.

mod backlog;
pub(super) mod credentials;
mod ends;
mod faults;
mod pair;
mod peers;
mod relaying;
mod set_up;
mod simulation;
pub(super) mod tls_server;
mod violations;

use std::ops::Range;

use packetlab::message::{HEADER_LEN, MessageType};

/// A whole message.
fn message(message_type: MessageType, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![message_type.0];
    bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    bytes.extend_from_slice(payload);
    bytes
}

/// The RESULT with which an endpoint agrees.
fn success() -> Vec<u8> {
    message(MessageType::RESULT, &[])
}

/// A message of `len` payload bytes that differ from their neighbours.
fn filled(message_type: MessageType, len: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..len).map(|position| (position % 251) as u8).collect();
    message(message_type, &payload)
}

/// Where the messages of a stream lie; the last may be cut.
fn message_ranges(stream: &[u8]) -> Vec<Range<usize>> {
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
fn assert_records_hold_one_message_each(record_lens: &[usize], stream: &[u8]) {
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

/// A small random generator (SplitMix64), so that a run is known by its seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not 0.
    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// 1 to `max`, small numbers as likely as large ones.
    fn size(&mut self, max: usize) -> usize {
        let bits = usize::BITS - max.leading_zeros();
        let magnitude = self.below(bits as usize);
        (1 + self.below(2 << magnitude)).min(max)
    }
}
