//! The records of TLS 1.3 behind the handshake (RFC 8446 4.6.3, 5, 6, 7.1 to 7.3), between where bytes are received and
//! where they are sent from: nothing is copied on the way, and nothing allocated for a record.
//!
//! Pure, and without a handshake: what is needed of one are the traffic secrets ([`TrafficSecret`]) of both sides. The rules,
//! their reasons and their tests are in `README.md` beside this file. Not here: where secrets come from, and the words for a
//! violation (`tls`).
//!
//! ```
//! use packetlab::record::{Next, Records, SEALED_OVERHEAD_MAX, Suite, TrafficSecret};
//!
//! let secret = |byte| TrafficSecret::new(Suite::Aes128Gcm, &[byte; 32]).unwrap();
//! let mut ours = Records::new(secret(1), secret(2));
//! let mut theirs = Records::new(secret(2), secret(1));
//!
//! let mut sealed = [0; 5 + SEALED_OVERHEAD_MAX];
//! let sealed_len = ours.seal(b"hello", &mut sealed);
//! let mut data = [0; 64];
//! let opened = theirs.open(&mut &sealed[..sealed_len], &mut data);
//! assert_eq!((opened.next, &data[..opened.len]), (Ok(Next::Input), &b"hello"[..]));
//! ```

mod format;
mod key;
mod opening;
mod sealing;
mod secret;
mod suite;
#[cfg(test)]
mod tests;
mod violation;

pub use self::format::CONTENT_LEN_MAX;
pub(crate) use self::format::{BODY_LEN_MAX, HEADER_LEN};
pub use self::sealing::SEALED_OVERHEAD_MAX;
pub use self::secret::TrafficSecret;
pub use self::suite::Suite;
pub use self::violation::Violation;

use self::key::Generation;
use self::opening::{Opened as Step, Opening};
use self::sealing::Sealing;

/// Both directions of one connection.
pub struct Records {
    opening: Opening,
    received: Received,
    sealing: Sealing,
}

/// How far the peer has come to its end.
enum Received {
    Open,
    Closed,
    Failed(Violation),
}

/// What a call of [`Records::open`] has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// So many bytes of data are at the front of the room that was given; they are authentic, whatever came next.
    pub len: usize,
    /// What ended the call.
    pub next: Result<Next, Violation>,
}

/// Why [`Records::open`] stops where nothing is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// All input has been taken.
    Input,
    /// The next record may be longer than the room that is left.
    Room,
    /// The peer has closed its side: what comes behind is not looked at.
    Closed,
}

impl Records {
    /// The connection whose peer seals with the secret `theirs` and on which we seal with `ours`, of which neither has sealed
    /// a record.
    pub fn new(ours: TrafficSecret, theirs: TrafficSecret) -> Self {
        Self {
            opening: Opening::new(Generation::new(theirs)),
            received: Received::Open,
            sealing: Sealing::new(Generation::new(ours)),
        }
    }

    /// Has each of our keys seal no more than so many records.
    #[cfg(test)]
    pub(crate) fn limit_records_per_key(&mut self, max: u64) {
        self.sealing.limit_records_per_key(max);
    }

    /// Opens records from `input`, advancing it, and writes their data to `into`, one behind the other. It needs as much
    /// room as `input` and [`Self::carried_len`] are long, and some of it is overwritten beyond what it tells.
    ///
    /// After a violation our side is closed, and [`Self::write_due`] has the alert for it; every later call tells it again.
    pub fn open(&mut self, input: &mut &[u8], into: &mut [u8]) -> Opened {
        let mut len = 0;
        let next = loop {
            match self.received {
                Received::Open => {}
                Received::Closed => {
                    *input = &[];
                    break Ok(Next::Closed);
                }
                Received::Failed(violation) => break Err(violation),
            }
            match self.opening.open_next(input, &mut into[len..]) {
                Ok(Step::Data(more)) => len += more,
                Ok(Step::Nothing | Step::KeyUpdate { asks_for_ours: false }) => {}
                Ok(Step::KeyUpdate { asks_for_ours: true }) => self.sealing.owe_key_update(),
                Ok(Step::Closed) => self.received = Received::Closed,
                Ok(Step::WantsInput) => break Ok(Next::Input),
                Ok(Step::WantsRoom) => break Ok(Next::Room),
                Err(violation) => {
                    self.received = Received::Failed(violation);
                    self.sealing.fail(violation.alert());
                }
            }
        };
        Opened { len, next }
    }

    /// How many bytes are kept of a record that has not wholly come.
    pub fn carried_len(&self) -> usize {
        self.opening.carried_len()
    }

    /// The peer has closed its side.
    pub fn is_closed_by_peer(&self) -> bool {
        matches!(self.received, Received::Closed)
    }

    /// Seals `piece`, which is not empty and at most [`CONTENT_LEN_MAX`] bytes long, into a record of its own at the front of
    /// `into`, behind KeyUpdates that are due; returns how many bytes were written, none once our side is closed.
    ///
    /// # Panics
    /// `piece` has another length, or `into` less than [`SEALED_OVERHEAD_MAX`] bytes more than it.
    pub fn seal(&mut self, piece: &[u8], into: &mut [u8]) -> usize {
        self.sealing.seal(piece, into)
    }

    /// Closes our side: close_notify is due, unless it is closed already.
    pub fn close(&mut self) {
        self.sealing.close();
    }

    /// Our side is closed, by us or by a violation.
    pub fn is_closed(&self) -> bool {
        self.sealing.is_closed()
    }

    /// A KeyUpdate or an alert is to be sent.
    pub fn has_due(&self) -> bool {
        self.sealing.has_due()
    }

    /// Writes what is due to the front of `into`, as far as there is room; returns how many bytes it was.
    pub fn write_due(&mut self, into: &mut [u8]) -> usize {
        self.sealing.write_due(into)
    }
}
