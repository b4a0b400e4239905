//! The peer's direction: from bytes to records, and what each holds.
//!
//! Not here: what is answered (`mod.rs`), keys and nonces (`key.rs`). Invariants: nothing is looked at before it has been
//! authenticated but a record's header; at most one record is kept between two calls, as far as it has come, and no memory
//! when there is none.

use guards::{Guard, holds};

use super::format::{
    ALERT, APPLICATION_DATA, BODY_LEN_MAX, CLOSE_NOTIFY, HANDSHAKE, HEADER_LEN, KEY_UPDATE,
    KEY_UPDATE_LEN, TAG_LEN,
};
use super::key::Generation;
use super::violation::Violation;

/// How many records in a row may bring no data, and how many KeyUpdates may come without any: as rustls and BoringSSL have
/// it.
pub(super) const WITHOUT_DATA_MAX: u8 = 32;

/// A closure alert that says nothing (RFC 8446 6.1).
const USER_CANCELED: u8 = 90;

/// What the next step on the peer's bytes gave.
pub(super) enum Opened {
    /// So many bytes of data.
    Data(usize),
    /// A record that is no business of whoever reads.
    Nothing,
    /// The peer has changed its key, and may want us to change ours.
    KeyUpdate {
        /// It does.
        asks_for_ours: bool,
    },
    /// The peer sends no more.
    Closed,
    /// The input is used up.
    WantsInput,
    /// The next record needs more room.
    WantsRoom,
}

pub(super) struct Opening {
    generation: Generation,
    /// The record that has not wholly come.
    carried: Vec<u8>,
    /// The KeyUpdate that has not wholly come.
    handshake: [u8; KEY_UPDATE_LEN],
    handshake_len: usize,
    /// Since the last data.
    empty_records: u8,
    key_updates: u8,
}

impl Opening {
    pub(super) fn new(generation: Generation) -> Self {
        Self {
            generation,
            carried: Vec::new(),
            handshake: [0; KEY_UPDATE_LEN],
            handshake_len: 0,
            empty_records: 0,
            key_updates: 0,
        }
    }

    /// How many bytes are kept of a record that has not wholly come.
    pub(super) fn carried_len(&self) -> usize {
        self.carried.len()
    }

    #[cfg(test)]
    pub(super) fn carried_capacity(&self) -> usize {
        self.carried.capacity()
    }

    /// Takes one record from `input`, advancing it, and opens it into `into`.
    pub(super) fn open_next(
        &mut self,
        input: &mut &[u8],
        into: &mut [u8],
    ) -> Result<Opened, Violation> {
        if !self.carried.is_empty() {
            return self.open_carried(input, into);
        }
        let Some((header, behind)) = input.split_first_chunk() else {
            return Ok(self.carry(input, HEADER_LEN));
        };
        let body_len = body_len(header)?;
        let Some((body, rest)) = behind.split_at_checked(body_len) else {
            return Ok(self.carry(input, HEADER_LEN + body_len));
        };
        if into.len() < body_len {
            return Ok(Opened::WantsRoom);
        }
        *input = rest;
        self.open_record(*header, body, into)
    }

    /// The same where a part of the record has come before.
    fn open_carried(&mut self, input: &mut &[u8], into: &mut [u8]) -> Result<Opened, Violation> {
        if self.carried.len() < HEADER_LEN {
            self.carry(input, HEADER_LEN);
        }
        let Some(&header) = self.carried.first_chunk() else { return Ok(Opened::WantsInput) };
        let body_len = body_len(&header)?;
        self.carry(input, HEADER_LEN + body_len);
        if self.carried.len() < HEADER_LEN + body_len {
            return Ok(Opened::WantsInput);
        }
        if into.len() < body_len {
            return Ok(Opened::WantsRoom);
        }
        let record = std::mem::take(&mut self.carried);
        self.open_record(header, &record[HEADER_LEN..], into)
    }

    /// Keeps bytes of `input` until `len` of a record are there.
    fn carry(&mut self, input: &mut &[u8], len: usize) -> Opened {
        let missing_len = len - self.carried.len();
        let (taken, rest) = input.split_at(missing_len.min(input.len()));
        if !taken.is_empty() {
            self.carried.reserve_exact(missing_len);
            self.carried.extend_from_slice(taken);
        }
        *input = rest;
        Opened::WantsInput
    }

    fn open_record(
        &mut self,
        header: [u8; HEADER_LEN],
        body: &[u8],
        into: &mut [u8],
    ) -> Result<Opened, Violation> {
        let inner_len = body.len().checked_sub(TAG_LEN).ok_or(Violation::NotAuthentic)?;
        let inner = &mut into[..inner_len];
        self.generation.open(header, body, inner).ok_or(Violation::NotAuthentic)?;
        let type_at = inner.iter().rposition(|byte| *byte != 0).ok_or(Violation::NoContentType)?;
        let (content, content_type) = (&inner[..type_at], inner[type_at]);
        if self.handshake_len > 0 && content_type != HANDSHAKE {
            return Err(Violation::Interleaved);
        }
        match content_type {
            APPLICATION_DATA if content.is_empty() => self.note_empty(),
            APPLICATION_DATA => {
                (self.empty_records, self.key_updates) = (0, 0);
                Ok(Opened::Data(content.len()))
            }
            ALERT | HANDSHAKE if content.is_empty() => Err(Violation::Empty(content_type)),
            ALERT => self.take_alert(content),
            HANDSHAKE => self.take_handshake(content),
            other => Err(Violation::UnexpectedRecord(other)),
        }
    }

    fn note_empty(&mut self) -> Result<Opened, Violation> {
        if self.empty_records == WITHOUT_DATA_MAX && holds(Guard::BoundsEmptyRecords) {
            return Err(Violation::TooManyEmpty);
        }
        self.empty_records = self.empty_records.saturating_add(1);
        Ok(Opened::Nothing)
    }

    /// What an alert means is told by its description alone (6).
    fn take_alert(&mut self, alert: &[u8]) -> Result<Opened, Violation> {
        match alert {
            [_level, CLOSE_NOTIFY] => Ok(Opened::Closed),
            [_level, USER_CANCELED] => self.note_empty(),
            [_level, description] => Err(Violation::Alert(*description)),
            _ => Err(Violation::MalformedAlert(alert.len())),
        }
    }

    /// Takes a KeyUpdate, or a part of one (4.6.3, 5.1).
    fn take_handshake(&mut self, part: &[u8]) -> Result<Opened, Violation> {
        let missing_len = KEY_UPDATE_LEN - self.handshake_len;
        let (part, behind) = part.split_at(missing_len.min(part.len()));
        self.handshake[self.handshake_len..][..part.len()].copy_from_slice(part);
        self.handshake_len += part.len();
        let [message_type, len @ .., value] = self.handshake;
        if message_type != KEY_UPDATE {
            return Err(Violation::UnexpectedHandshake(message_type));
        }
        let has_len = self.handshake_len > len.len();
        if has_len && len != [0, 0, 1] {
            return Err(Violation::MalformedKeyUpdate);
        }
        if self.handshake_len < KEY_UPDATE_LEN {
            return Ok(Opened::Nothing);
        }
        if !behind.is_empty() {
            return Err(Violation::BehindKeyUpdate);
        }
        if value > 1 {
            return Err(Violation::UnknownKeyUpdate);
        }
        if self.key_updates == WITHOUT_DATA_MAX && holds(Guard::BoundsKeyUpdates) {
            return Err(Violation::TooManyKeyUpdates);
        }
        self.key_updates = self.key_updates.saturating_add(1);
        self.handshake_len = 0;
        self.generation = self.generation.next();
        Ok(Opened::KeyUpdate { asks_for_ours: value == 1 })
    }
}

/// How long the body behind this header is, if it is one of a record that may come now (5.1, 5.2).
fn body_len(header: &[u8; HEADER_LEN]) -> Result<usize, Violation> {
    let [record_type, _, _, high, low] = *header;
    if record_type != APPLICATION_DATA {
        return Err(Violation::UnexpectedRecord(record_type));
    }
    let len = usize::from(u16::from_be_bytes([high, low]));
    if len > BODY_LEN_MAX { Err(Violation::TooLong) } else { Ok(len) }
}
