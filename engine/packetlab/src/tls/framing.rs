//! Where records end in the bytes of a handshake, so that rustls is given one at a time: what is behind the last one is not
//! for it, and it keeps what it is given.
//!
//! Not here: whether a record is acceptable, which rustls says of the same bytes.

use crate::record::HEADER_LEN;

/// How much of the record under way has come.
#[derive(Debug, Default)]
pub(super) struct Framing {
    header: [u8; HEADER_LEN],
    header_len: usize,
    body_left: usize,
}

impl Framing {
    /// The front of `input` up to the end of the record under way; `input` is advanced behind it.
    pub(super) fn take_of_record<'a>(&mut self, input: &mut &'a [u8]) -> &'a [u8] {
        let header_part_len = input.len().min(HEADER_LEN - self.header_len);
        let (header_part, body) = input.split_at(header_part_len);
        self.header[self.header_len..][..header_part_len].copy_from_slice(header_part);
        self.header_len += header_part_len;
        if self.header_len == HEADER_LEN && header_part_len > 0 {
            let [.., high, low] = self.header;
            self.body_left = u16::from_be_bytes([high, low]).into();
        }
        let body_part_len = body.len().min(self.body_left);
        self.body_left -= body_part_len;
        if self.header_len == HEADER_LEN && self.body_left == 0 {
            self.header_len = 0;
        }
        let (taken, rest) = input.split_at(header_part_len + body_part_len);
        *input = rest;
        taken
    }

    /// No record is under way.
    pub(super) fn is_between_records(&self) -> bool {
        self.header_len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_end_where_their_headers_say_wherever_the_bytes_are_cut() {
        let records: [&[u8]; 4] =
            [b"\x16\x03\x01\0\x03abc", b"\x14\x03\x03\0\0", b"\x17\x03\x03\0\x01x", b"\x17\x03"];
        let bytes = records.concat();
        for cut_len in 1..=bytes.len() {
            let (mut framing, mut found) = (Framing::default(), vec![Vec::<u8>::new()]);
            for mut cut in bytes.chunks(cut_len) {
                while !cut.is_empty() {
                    found.last_mut().unwrap().extend(framing.take_of_record(&mut cut));
                    if framing.is_between_records() {
                        found.push(Vec::new());
                    }
                }
            }
            assert_eq!(found, records, "in cuts of {cut_len}");
        }
    }
}
