//! Records of a handshake from outside: where each ends, so that rustls is given one at a time, since what is behind the last
//! one is not for it and it keeps what it is given; and which headers may come, of which rustls takes too many.
//!
//! Not here: what is in a record, and which message may come when, which rustls says. Invariant: rustls is given no record
//! whose header RFC 8446 5 forbids.

use rustls::{ContentType, Error, InvalidMessage};

use crate::record::{BODY_LEN_MAX, CONTENT_LEN_MAX, HEADER_LEN};

/// How much of the record under way has come.
#[derive(Debug, Default)]
pub(super) struct Framing {
    header: [u8; HEADER_LEN],
    header_len: usize,
    body_left: usize,
    /// A sealed record has come, so that none of the peer's is in the clear any more.
    has_sealed: bool,
}

impl Framing {
    /// The front of `input` up to the end of the record under way; `input` is advanced behind it. `is_sealed` says whether
    /// the peer must seal what it sends by now.
    ///
    /// # Errors
    /// No such record may come. What is behind it has no meaning.
    pub(super) fn take_of_record<'a>(
        &mut self,
        input: &mut &'a [u8],
        is_sealed: bool,
    ) -> Result<&'a [u8], Error> {
        let header_part_len = input.len().min(HEADER_LEN - self.header_len);
        let (header_part, body) = input.split_at(header_part_len);
        self.header[self.header_len..][..header_part_len].copy_from_slice(header_part);
        self.header_len += header_part_len;
        if self.header_len == HEADER_LEN && header_part_len > 0 {
            self.body_left = self.body_len(is_sealed)?;
        }
        let body_part_len = body.len().min(self.body_left);
        self.body_left -= body_part_len;
        if self.header_len == HEADER_LEN && self.body_left == 0 {
            self.header_len = 0;
        }
        let (taken, rest) = input.split_at(header_part_len + body_part_len);
        *input = rest;
        Ok(taken)
    }

    /// How long the body is behind the header that has come (RFC 8446 5, 5.1, 5.2).
    fn body_len(&mut self, is_sealed: bool) -> Result<usize, Error> {
        use ContentType::{Alert, ApplicationData, ChangeCipherSpec, Handshake};
        let [record_type, _, _, high, low] = self.header;
        let (record_type, len) =
            (ContentType::from(record_type), usize::from(u16::from_be_bytes([high, low])));
        let (expected, max) =
            if is_sealed { (ApplicationData, BODY_LEN_MAX) } else { (Handshake, CONTENT_LEN_MAX) };
        let may_come = match record_type {
            ApplicationData | ChangeCipherSpec => true,
            Handshake => !is_sealed,
            Alert => !self.has_sealed,
            _ => false,
        };
        if !may_come {
            let expect_types = vec![expected];
            return Err(Error::InappropriateMessage { expect_types, got_type: record_type });
        }
        self.has_sealed |= is_sealed && record_type == ApplicationData;
        match len {
            0 if record_type != ApplicationData => Err(InvalidMessage::InvalidEmptyPayload.into()),
            len if len > max => Err(Error::PeerSentOversizedRecord),
            len => Ok(len),
        }
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
            [b"\x16\x03\x01\0\x03abc", b"\x17\x03\x03\0\0", b"\x17\x03\x03\0\x01x", b"\x17\x03"];
        let bytes = records.concat();
        for cut_len in 1..=bytes.len() {
            let (mut framing, mut found) = (Framing::default(), vec![Vec::<u8>::new()]);
            for mut cut in bytes.chunks(cut_len) {
                while !cut.is_empty() {
                    found
                        .last_mut()
                        .unwrap()
                        .extend(framing.take_of_record(&mut cut, false).unwrap());
                    if framing.is_between_records() {
                        found.push(Vec::new());
                    }
                }
            }
            assert_eq!(found, records, "in cuts of {cut_len}");
        }
    }
}
