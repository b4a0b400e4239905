//! Takes LINFO messages out of what an endpoint sends to its mlet: they are for the log (protocol.md
//! 2.1, design section 8).
//!
//! Bytes of all other messages stay where they are. A message is known by its first byte, so nothing
//! is held back; of a LINFO at most a set number of payload bytes is kept, as they arrive.

use crate::wire::cut::Boundaries;
use crate::wire::message::MessageType;

/// A LINFO payload as far as it was kept.
#[derive(Debug, PartialEq, Eq)]
pub struct Linfo {
    /// The payload, up to the limit.
    pub payload: Vec<u8>,
    /// The payload was longer than the limit.
    pub truncated: bool,
}

/// The filter's place in the endpoint's byte stream.
#[derive(Debug, Default)]
pub struct LinfoFilter {
    boundaries: Boundaries,
    collecting: Option<Box<Linfo>>,
}

impl LinfoFilter {
    /// Moves the bytes that the mlet gets to the front of `bytes`, tells how many they are, and gives
    /// every LINFO that ended here to `log`. Keeps at most `payload_max` bytes of each.
    pub fn filter(
        &mut self,
        bytes: &mut [u8],
        payload_max: usize,
        mut log: impl FnMut(Linfo),
    ) -> usize {
        let mut kept = 0;
        let mut position = 0;
        while let Some(run) = self.boundaries.next_run(&bytes[position..]) {
            let end = position + run.len;
            if run.message_type == MessageType::LINFO.0 {
                let linfo = self.collecting.get_or_insert_with(|| {
                    Box::new(Linfo { payload: Vec::new(), truncated: false })
                });
                let payload = &bytes[position + run.header_len..end];
                let room = payload_max.saturating_sub(linfo.payload.len());
                linfo.payload.extend_from_slice(&payload[..payload.len().min(room)]);
                linfo.truncated |= payload.len() > room;
                if run.ends
                    && let Some(linfo) = self.collecting.take()
                {
                    log(*linfo);
                }
            } else {
                if kept != position {
                    bytes.copy_within(position..end, kept);
                }
                kept += run.len;
            }
            position = end;
        }
        kept
    }

    /// A message has begun and not ended yet.
    pub fn is_inside_message(&self) -> bool {
        !self.boundaries.between_messages()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(message_type: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![message_type];
        bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
        bytes.extend_from_slice(payload);
        bytes
    }

    fn run(chunks: &[Vec<u8>], payload_max: usize) -> (Vec<u8>, Vec<Linfo>) {
        let (mut filter, mut passed, mut logged) = (LinfoFilter::default(), Vec::new(), Vec::new());
        for chunk in chunks {
            let mut bytes = chunk.clone();
            let kept = filter.filter(&mut bytes, payload_max, |linfo| logged.push(linfo));
            passed.extend_from_slice(&bytes[..kept]);
        }
        (passed, logged)
    }

    /// Item 83.
    #[test]
    fn a_linfo_between_messages_is_taken_out_and_logged() {
        let chunk = [message(0x62, b"data"), message(0x65, b"log"), message(0x61, b"")].concat();
        let (passed, logged) = run(&[chunk], 100);
        assert_eq!(passed, [message(0x62, b"data"), message(0x61, b"")].concat());
        assert_eq!(logged, [Linfo { payload: b"log".to_vec(), truncated: false }]);
    }

    #[test]
    fn a_linfo_longer_than_the_limit_is_kept_up_to_it() {
        let (passed, logged) = run(&[message(0x65, &[7; 50])], 8);
        assert!(passed.is_empty());
        assert_eq!(logged, [Linfo { payload: vec![7; 8], truncated: true }]);
    }

    proptest! {
        #[test]
        fn chunking_changes_nothing(
            messages in prop::collection::vec(
                (prop::sample::select(vec![0x65u8, 0x62, 0x99]), prop::collection::vec(any::<u8>(), 0..30)),
                0..12,
            ),
            chunk_len in 1usize..20,
        ) {
            let stream: Vec<u8> =
                messages.iter().flat_map(|(kind, payload)| message(*kind, payload)).collect();
            let expected: Vec<u8> = messages.iter().filter(|(kind, _)| *kind != 0x65)
                .flat_map(|(kind, payload)| message(*kind, payload)).collect();
            let chunks: Vec<_> = stream.chunks(chunk_len).map(<[u8]>::to_vec).collect();
            let (passed, logged) = run(&chunks, 1000);
            prop_assert_eq!(passed, expected);
            let payloads: Vec<_> = messages.iter().filter(|(kind, _)| *kind == 0x65)
                .map(|(_, payload)| payload.clone()).collect();
            prop_assert_eq!(logged.into_iter().map(|linfo| linfo.payload).collect::<Vec<_>>(), payloads);
        }
    }
}
