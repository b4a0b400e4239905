//! Our direction: records that are written straight to where they are sent from.
//!
//! Not here: keys and nonces (`key.rs`). Invariants: a KeyUpdate comes before a key has sealed as many records as it may;
//! one that is due comes before anything else; behind the alert that ends our side comes nothing.

use super::format::{
    ALERT, APPLICATION_DATA, CLOSE_NOTIFY, CONTENT_LEN_MAX, HANDSHAKE, KEY_UPDATE, KEY_UPDATE_LEN,
    RECORD_OVERHEAD,
};
use super::key::Generation;

/// How many records a key seals: fewer than the 2^24.5 full ones after which AES-GCM would become weaker (RFC 8446 5.5).
const RECORDS_PER_KEY_MAX: u64 = 1 << 24;

/// The most that sealing adds to one piece: its own record's part, and a KeyUpdate for either reason there can be.
pub const SEALED_OVERHEAD_MAX: usize = RECORD_OVERHEAD + 2 * (RECORD_OVERHEAD + KEY_UPDATE_LEN);

const ALERT_LEN: usize = 2;
const WARNING: u8 = 1;
const FATAL: u8 = 2;

pub(super) struct Sealing {
    generation: Generation,
    records_per_key_max: u64,
    /// The peer has asked for a KeyUpdate that it has not got.
    owes_key_update: bool,
    end: End,
}

/// How far our side has come to its end.
enum End {
    Open,
    /// This alert is to be the last record.
    Due([u8; ALERT_LEN]),
    Over,
}

impl Sealing {
    pub(super) fn new(generation: Generation) -> Self {
        Self {
            generation,
            records_per_key_max: RECORDS_PER_KEY_MAX,
            owes_key_update: false,
            end: End::Open,
        }
    }

    #[cfg(test)]
    pub(super) fn limit_records_per_key(&mut self, max: u64) {
        self.records_per_key_max = max;
    }

    #[cfg(test)]
    pub(super) fn skip_records(&mut self, records: u64) {
        self.generation.skip_to(records);
    }

    /// See [`super::Records::seal`].
    pub(super) fn seal(&mut self, piece: &[u8], into: &mut [u8]) -> usize {
        assert!((1..=CONTENT_LEN_MAX).contains(&piece.len()), "a piece is what one record holds");
        assert!(into.len() >= piece.len() + SEALED_OVERHEAD_MAX, "there is room for its records");
        if !matches!(self.end, End::Open) {
            return 0;
        }
        let mut len = self.write_owed_key_update(into);
        // One number is left for the KeyUpdate, and one for an alert.
        if self.generation.records() + 2 >= self.records_per_key_max {
            len += self.write_key_update(true, &mut into[len..]);
        }
        len + self.write(APPLICATION_DATA, piece, &mut into[len..])
    }

    /// The peer wants our key to change.
    pub(super) fn owe_key_update(&mut self) {
        self.owes_key_update = matches!(self.end, End::Open);
    }

    /// Our side is to end with close_notify, unless it has ended.
    pub(super) fn close(&mut self) {
        if matches!(self.end, End::Open) {
            self.end = End::Due([WARNING, CLOSE_NOTIFY]);
        }
    }

    /// Our side ends because of a violation: with this alert, or at once.
    pub(super) fn fail(&mut self, alert: Option<u8>) {
        self.owes_key_update = false;
        if matches!(self.end, End::Open) {
            self.end = alert.map_or(End::Over, |alert| End::Due([FATAL, alert]));
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        !matches!(self.end, End::Open)
    }

    /// A KeyUpdate or an alert is to be sent.
    pub(super) fn has_due(&self) -> bool {
        self.owes_key_update || matches!(self.end, End::Due(_))
    }

    /// Writes what is due, as far as there is room; returns its length.
    pub(super) fn write_due(&mut self, into: &mut [u8]) -> usize {
        let mut len = self.write_owed_key_update(into);
        if let End::Due(alert) = self.end
            && !self.owes_key_update
            && into.len() - len >= RECORD_OVERHEAD + ALERT_LEN
        {
            len += self.write(ALERT, &alert, &mut into[len..]);
            self.end = End::Over;
        }
        len
    }

    fn write_owed_key_update(&mut self, into: &mut [u8]) -> usize {
        if !self.owes_key_update || into.len() < RECORD_OVERHEAD + KEY_UPDATE_LEN {
            return 0;
        }
        self.owes_key_update = false;
        self.write_key_update(false, into)
    }

    /// Tells the peer that the next key follows, and takes that.
    fn write_key_update(&mut self, asks_for_theirs: bool, into: &mut [u8]) -> usize {
        let message = [KEY_UPDATE, 0, 0, 1, asks_for_theirs.into()];
        let len = self.write(HANDSHAKE, &message, into);
        self.generation = self.generation.next();
        len
    }

    /// Writes one record. What cannot be sealed is not sent, and nothing behind it.
    fn write(&mut self, content_type: u8, content: &[u8], into: &mut [u8]) -> usize {
        self.generation.seal(content_type, content, into).unwrap_or_else(|| {
            self.end = End::Over;
            0
        })
    }
}
