//! Message boundaries in a byte stream, without assembling messages (spec/protocol.md 1.1).
//!
//! [`Boundaries`] counts bytes: it tells how far the next run of bytes of one message goes. [`Cutter`]
//! hands out pieces that may each become a TLS record: every piece holds bytes of exactly one message
//! (1.6) and a header is never split over two pieces. Neither ever allocates: at most three header
//! bytes are kept, and a message of 16 MiB costs what a small one costs.
//!
//! Not here: the meaning of a payload (`message`) and whole messages (`frame`).

use super::message::HEADER_LEN;

/// Where a byte stream stands between the headers and payloads of messages.
#[derive(Debug, Default, Clone)]
pub struct Boundaries {
    header: [u8; HEADER_LEN],
    /// Header bytes seen of the message that is starting; 0 once the header is whole.
    header_len: u8,
    payload_left: u32,
}

/// A run of bytes that belongs to one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Bytes of the input that this run takes.
    pub len: usize,
    /// Type byte of the message.
    pub message_type: u8,
    /// Bytes at the front of the run that belong to the header.
    pub header_len: usize,
    /// The run holds the first byte of the message.
    pub starts: bool,
    /// The run holds the last byte of the message.
    pub ends: bool,
}

impl Boundaries {
    /// The run at the front of `input`, which must be consumed whole; `None` for empty input.
    ///
    /// A run that completes a header begun in earlier input ends with that header, so that a run
    /// holds either a whole header or only a part of one.
    pub fn next_run(&mut self, input: &[u8]) -> Option<Run> {
        if input.is_empty() {
            return None;
        }
        if self.payload_left > 0 {
            return Some(self.payload_run(input));
        }
        if self.header_len == 0
            && let Some((header, payload)) = input.split_first_chunk()
        {
            self.header = *header;
            self.payload_left = payload_len(header);
            let len = payload.len().min(self.payload_left as usize);
            self.payload_left -= len as u32;
            return Some(Run {
                len: HEADER_LEN + len,
                message_type: self.header[0],
                header_len: HEADER_LEN,
                starts: true,
                ends: self.payload_left == 0,
            });
        }
        Some(self.header_run(input))
    }

    /// The bytes of the whole messages at the front of `input`, up to one of a type that is none of `these`, and how many
    /// they are; none where a message is under way. It costs little more than a look at each header.
    pub fn whole_messages(&self, input: &[u8], these: impl Fn(u8) -> bool) -> (usize, u64) {
        let (mut rest, mut count) = (input, 0);
        while self.between_messages()
            && let Some((header, behind)) = rest.split_first_chunk()
            && these(header[0])
            && let Some(next) = behind.get(payload_len(header) as usize..)
        {
            (rest, count) = (next, count + 1);
        }
        (input.len() - rest.len(), count)
    }

    fn payload_run(&mut self, input: &[u8]) -> Run {
        let len = input.len().min(self.payload_left as usize);
        self.payload_left -= len as u32;
        Run {
            len,
            message_type: self.header[0],
            header_len: 0,
            starts: false,
            ends: self.payload_left == 0,
        }
    }

    fn header_run(&mut self, input: &[u8]) -> Run {
        let had = usize::from(self.header_len);
        let len = input.len().min(HEADER_LEN - had);
        self.header[had..had + len].copy_from_slice(&input[..len]);
        let whole = had + len == HEADER_LEN;
        self.header_len = if whole { 0 } else { (had + len) as u8 };
        if whole {
            self.payload_left = payload_len(&self.header);
        }
        Run {
            len,
            message_type: self.header[0],
            header_len: len,
            starts: had == 0,
            ends: whole && self.payload_left == 0,
        }
    }

    /// The header bytes seen of a message whose header is not whole yet.
    pub fn partial_header(&self) -> &[u8] {
        &self.header[..usize::from(self.header_len)]
    }

    /// No message is under way: an end of the stream here is a clean one.
    pub fn between_messages(&self) -> bool {
        self.payload_left == 0 && self.header_len == 0
    }
}

fn payload_len(header: &[u8; HEADER_LEN]) -> u32 {
    u32::from_be_bytes([0, header[1], header[2], header[3]])
}

/// Cuts a byte stream into pieces that hold bytes of one message each.
#[derive(Debug, Default, Clone)]
pub struct Cutter {
    boundaries: Boundaries,
    messages: u64,
}

impl Cutter {
    /// The next piece of `input`, which is advanced past it; `None` when all of `input` is consumed.
    ///
    /// Up to three bytes of an unfinished header are kept back until the header is whole.
    pub fn next_piece<'cut, 'input: 'cut>(
        &'cut mut self,
        input: &mut &'input [u8],
    ) -> Option<&'cut [u8]> {
        let run = self.boundaries.next_run(input)?;
        self.messages += u64::from(run.ends);
        let (bytes, rest) = input.split_at(run.len);
        *input = rest;
        if run.header_len == 0 || run.header_len == HEADER_LEN && run.starts {
            return Some(bytes);
        }
        // A split header: whole now, or (input is then used up) still to be completed.
        let whole = self.boundaries.partial_header().is_empty();
        whole.then_some(&self.boundaries.header[..])
    }

    /// What was kept back of an unfinished header: the last piece of a stream that ended inside it.
    pub fn kept_back(&self) -> &[u8] {
        self.boundaries.partial_header()
    }

    /// How many messages have ended.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// See [`Boundaries::between_messages`].
    pub fn between_messages(&self) -> bool {
        self.boundaries.between_messages()
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

    fn pieces(chunks: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut cutter = Cutter::default();
        let mut pieces = Vec::new();
        for chunk in chunks {
            let mut input = *chunk;
            while let Some(piece) = cutter.next_piece(&mut input) {
                pieces.push(piece.to_vec());
            }
            assert!(input.is_empty(), "a cutter consumes all it is given");
        }
        if !cutter.kept_back().is_empty() {
            pieces.push(cutter.kept_back().to_vec());
        }
        pieces
    }

    #[test]
    fn whole_messages_of_a_kind_end_where_another_kind_or_half_a_message_begins() {
        let mut boundaries = Boundaries::default();
        let bytes = [message(0x65, b""), message(0x65, b"ab"), message(0x62, b"c")].concat();
        let whole = |boundaries: &Boundaries, end: usize| {
            boundaries.whole_messages(&bytes[..end], |other| other == 0x65)
        };
        let each = [0, 3, 4, 9, 10, 11, 15].map(|end| whole(&boundaries, end));
        assert_eq!(each, [(0, 0), (0, 0), (4, 1), (4, 1), (10, 2), (10, 2), (10, 2)]);
        assert_eq!(boundaries.whole_messages(&bytes, |_| true), (15, 3));
        boundaries.next_run(&message(0x65, b"xx")[..5]);
        assert_eq!(whole(&boundaries, 10), (0, 0), "inside a message");
    }

    #[test]
    fn two_messages_in_one_chunk_become_two_pieces() {
        let chunk = [message(0x2b, &[5]), message(0x21, &[])].concat();
        assert_eq!(pieces(&[&chunk]), [message(0x2b, &[5]), message(0x21, &[])]);
    }

    #[test]
    fn a_header_split_over_chunks_goes_out_whole() {
        let bytes = message(0x62, b"abc");
        let cut: Vec<_> = bytes.chunks(1).collect();
        assert_eq!(pieces(&cut), [&bytes[..4], b"a", b"b", b"c"]);
    }

    #[test]
    fn a_stream_that_ends_inside_a_header_leaves_its_bytes() {
        assert_eq!(pieces(&[&[0x40, 0, 0]]), [vec![0x40, 0, 0]]);
    }

    #[test]
    fn the_largest_message_is_cut_through_without_waiting_for_its_end() {
        let mut cutter = Cutter::default();
        let mut input: &[u8] = &[0x99, 0xff, 0xff, 0xff, 1, 2];
        assert_eq!(cutter.next_piece(&mut input), Some(&[0x99, 0xff, 0xff, 0xff, 1, 2][..]));
        assert!(!cutter.between_messages());
        let rest = vec![7; 0xff_ffff - 2];
        let mut input = &rest[..];
        assert_eq!(cutter.next_piece(&mut input).map(<[u8]>::len), Some(0xff_ffff - 2));
        assert!(cutter.between_messages());
    }

    proptest! {
        #[test]
        fn pieces_join_to_the_stream_and_never_hold_two_messages(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..12),
            cuts in prop::collection::vec(1usize..30, 1..40),
        ) {
            let stream: Vec<u8> = payloads.iter().enumerate()
                .flat_map(|(index, payload)| message(index as u8, payload)).collect();
            let mut ends = vec![0];
            for payload in &payloads {
                ends.push(ends[ends.len() - 1] + HEADER_LEN + payload.len());
            }
            let mut chunks = Vec::new();
            let mut rest = &stream[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break; }
                let (chunk, tail) = rest.split_at((*cut).min(rest.len()));
                chunks.push(chunk);
                rest = tail;
            }
            let mut cutter = Cutter::default();
            for mut chunk in chunks.iter().copied() {
                while cutter.next_piece(&mut chunk).is_some() {}
            }
            prop_assert_eq!(cutter.messages(), payloads.len() as u64);
            let mut position = 0;
            for piece in pieces(&chunks) {
                prop_assert!(!piece.is_empty());
                prop_assert_eq!(&stream[position..position + piece.len()], &piece[..]);
                let starts_in = ends.partition_point(|end| *end <= position);
                let last_in = ends.partition_point(|end| *end < position + piece.len());
                prop_assert_eq!(starts_in, last_in, "one piece, one message");
                position += piece.len();
            }
            prop_assert_eq!(position, stream.len());
        }
    }
}
