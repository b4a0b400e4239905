//! Whole messages from a byte stream, for peers that want whole ones: endpoint, mlet, broker, proxy.
//!
//! Not the relay's way: it passes pieces on without assembling (`cut`). Invariant: memory grows only
//! with bytes received, never with a length announced.

use std::fmt;

use super::message::{HEADER_LEN, Header, MessageType, PAYLOAD_LEN_MAX};

/// Buffer space that is kept when nothing waits, in bytes: enough for the largest NDATA (0x10000 bytes
/// of data) with the room that a growing buffer takes. What exceeds it is freed, so that a peer which
/// got one huge message is cheap again.
const CAPACITY_KEPT_MAX: usize = 128 * 1024;

/// Collects stream bytes and hands out whole messages.
#[derive(Debug)]
pub struct Framer {
    received: Vec<u8>,
    /// Bytes at the front of `received` that were handed out.
    used: usize,
    payload_len_max: usize,
}

impl Framer {
    /// Takes payloads of at most `payload_len_max` bytes; larger ones are an error.
    #[must_use]
    pub fn new(payload_len_max: usize) -> Self {
        Self { received: Vec::new(), used: 0, payload_len_max }
    }

    /// Takes bytes as they came, any number of them.
    pub fn push(&mut self, bytes: &[u8]) {
        // Moves what is left at most once per byte used, so that many small pushes cost linear time.
        if self.used > 0 && self.used >= self.received.len() - self.used {
            self.received.drain(..self.used);
            self.used = 0;
        }
        self.received.extend_from_slice(bytes);
    }

    /// The next whole message, or `None` until more bytes came.
    ///
    /// # Errors
    /// The next message is larger than allowed; there is no way on from here, the stream must end.
    #[expect(clippy::should_implement_trait, reason = "it lends the payload, an Iterator cannot")]
    pub fn next(&mut self) -> Result<Option<(MessageType, &[u8])>, FrameError> {
        if self.is_empty() {
            self.received.clear();
            self.received.shrink_to(CAPACITY_KEPT_MAX);
            self.used = 0;
        }
        let Some((header, rest)) =
            self.received.get(self.used..).and_then(<[u8]>::split_first_chunk::<HEADER_LEN>)
        else {
            return Ok(None);
        };
        let Header { message_type, payload_len } = Header::decode(*header);
        if payload_len > self.payload_len_max {
            let payload_len_max = self.payload_len_max;
            return Err(FrameError { message_type, payload_len, payload_len_max });
        }
        let Some(payload) = rest.get(..payload_len) else {
            return Ok(None);
        };
        self.used += HEADER_LEN + payload_len;
        Ok(Some((message_type, payload)))
    }

    /// Bytes that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.received.len() - self.used
    }

    /// No byte waits: the end of the stream would be a clean one here (spec/protocol.md 1.1).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.used == self.received.len()
    }
}

/// Takes every payload that a header can announce.
impl Default for Framer {
    fn default() -> Self {
        Self::new(PAYLOAD_LEN_MAX)
    }
}

/// A message is larger than its receiver allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameError {
    /// Its type.
    pub message_type: MessageType,
    /// The payload it announces, in bytes.
    pub payload_len: usize,
    /// The largest allowed.
    pub payload_len_max: usize,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { message_type, payload_len, payload_len_max } = self;
        write!(
            f,
            "the peer announces a {message_type} of {payload_len} bytes, more than the allowed \
             {payload_len_max}; end the connection"
        )
    }
}

impl std::error::Error for FrameError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(message_type: u8, payload: &[u8]) -> Vec<u8> {
        let header = Header { message_type: MessageType(message_type), payload_len: payload.len() };
        [&header.encode().unwrap(), payload].concat()
    }

    fn drain(framer: &mut Framer) -> Vec<(u8, Vec<u8>)> {
        let mut messages = Vec::new();
        while let Some((message_type, payload)) = framer.next().unwrap() {
            messages.push((message_type.0, payload.to_vec()));
        }
        messages
    }

    #[test]
    fn a_message_appears_with_its_last_byte_and_not_before() {
        let mut framer = Framer::default();
        for byte in frame(0x62, b"abc").split_last().unwrap().1 {
            framer.push(&[*byte]);
            assert_eq!(framer.next(), Ok(None));
            assert!(!framer.is_empty());
        }
        framer.push(b"c");
        assert_eq!(framer.next(), Ok(Some((MessageType::NDATA, b"abc".as_slice()))));
        assert_eq!(framer.next(), Ok(None));
        assert!(framer.is_empty());
    }

    #[test]
    fn a_payload_larger_than_allowed_is_refused_at_its_header() {
        let mut framer = Framer::new(4);
        framer.push(&frame(0x40, &[0; 4]));
        framer.push(&[0x65, 0, 0, 5]);
        assert!(framer.next().unwrap().is_some());
        let refused =
            FrameError { message_type: MessageType::LINFO, payload_len: 5, payload_len_max: 4 };
        assert_eq!(framer.next(), Err(refused));
        framer.push(&[0; 5]);
        assert_eq!(framer.next(), Err(refused), "there is no way on after it");
        assert!(refused.to_string().contains("LINFO (0x65) of 5 bytes, more than the allowed 4"));
    }

    #[test]
    fn an_announced_length_allocates_nothing() {
        let mut framer = Framer::default();
        framer.push(&[0x62, 0xFF, 0xFF, 0xFF]);
        assert_eq!(framer.next(), Ok(None));
        assert!(framer.received.capacity() < 64);
    }

    #[test]
    fn a_huge_message_leaves_no_huge_buffer_behind() {
        let mut framer = Framer::default();
        let huge = frame(0x62, &vec![7; PAYLOAD_LEN_MAX]);
        for piece in huge.chunks(16 * 1024) {
            framer.push(piece);
        }
        assert_eq!(framer.next().unwrap().unwrap().1.len(), PAYLOAD_LEN_MAX);
        assert_eq!(framer.next(), Ok(None));
        assert!(framer.received.capacity() <= CAPACITY_KEPT_MAX);
    }

    #[test]
    fn unread_messages_are_not_moved_for_every_one_that_is_read() {
        let mut framer = Framer::default();
        let one = frame(0x40, &[]);
        framer.push(&one.repeat(100));
        for _ in 0..40 {
            framer.next().unwrap().unwrap();
        }
        framer.push(&one);
        assert_eq!(framer.used, 40 * one.len(), "most of the bytes still wait");
        assert_eq!(drain(&mut framer).len(), 61);
    }

    proptest! {
        #[test]
        fn any_cut_of_the_stream_gives_the_same_messages(
            messages in prop::collection::vec(
                (any::<u8>(), prop::collection::vec(any::<u8>(), 0..40)), 0..12),
            cuts in prop::collection::vec((1_usize..60, any::<bool>()), 1..40),
        ) {
            let stream: Vec<u8> =
                messages.iter().flat_map(|(id, payload)| frame(*id, payload)).collect();
            let (mut framer, mut seen, mut rest) = (Framer::default(), Vec::new(), &stream[..]);
            for (len, read) in cuts.iter().cycle().take(stream.len()) {
                let (piece, after) = rest.split_at((*len).min(rest.len()));
                framer.push(piece);
                rest = after;
                if *read {
                    seen.extend(drain(&mut framer));
                }
            }
            seen.extend(drain(&mut framer));
            prop_assert!(framer.is_empty());
            prop_assert_eq!(seen, messages);
        }
    }
}
