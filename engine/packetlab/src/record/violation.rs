//! Why a connection fails, and with which alert the peer is told (RFC 8446 5, 6).

use std::fmt;

/// What a peer has done that ends the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Violation {
    /// A record is not what the peer has sealed next: it was changed, lost, repeated, or sealed with another key.
    NotAuthentic,
    /// A record says that it is longer than any may be.
    TooLong,
    /// A record of this type, inside or outside the encryption, where it has no place.
    UnexpectedRecord(u8),
    /// A record without a content type.
    NoContentType,
    /// An alert or a part of a handshake message that is empty, in a record of this type.
    Empty(u8),
    /// So many records in a row brought nothing that the peer only wants to keep us busy.
    TooManyEmpty,
    /// An alert of this many bytes, which are not two.
    MalformedAlert(usize),
    /// A handshake message of this type.
    UnexpectedHandshake(u8),
    /// A KeyUpdate that is not one byte long.
    MalformedKeyUpdate,
    /// A KeyUpdate that neither asks for ours nor does not.
    UnknownKeyUpdate,
    /// Something in the record behind a KeyUpdate, which the new key should have sealed.
    BehindKeyUpdate,
    /// Something else between two parts of a handshake message.
    Interleaved,
    /// So many KeyUpdates without data that the peer only wants to keep us busy.
    TooManyKeyUpdates,
    /// The peer has told us with this alert that the connection has failed.
    Alert(u8),
}

impl Violation {
    /// The alert that tells the peer; `None` if the peer told us.
    pub fn alert(self) -> Option<u8> {
        const UNEXPECTED_MESSAGE: u8 = 10;
        const BAD_RECORD_MAC: u8 = 20;
        const RECORD_OVERFLOW: u8 = 22;
        const ILLEGAL_PARAMETER: u8 = 47;
        const DECODE_ERROR: u8 = 50;
        match self {
            Self::NotAuthentic => Some(BAD_RECORD_MAC),
            Self::TooLong => Some(RECORD_OVERFLOW),
            Self::UnknownKeyUpdate => Some(ILLEGAL_PARAMETER),
            Self::MalformedAlert(_) | Self::MalformedKeyUpdate => Some(DECODE_ERROR),
            Self::UnexpectedRecord(_)
            | Self::NoContentType
            | Self::Empty(_)
            | Self::TooManyEmpty
            | Self::UnexpectedHandshake(_)
            | Self::BehindKeyUpdate
            | Self::Interleaved
            | Self::TooManyKeyUpdates => Some(UNEXPECTED_MESSAGE),
            Self::Alert(_) => None,
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAuthentic => f.write_str("a record is not authentic"),
            Self::TooLong => f.write_str("a record is too long"),
            Self::UnexpectedRecord(kind) => write!(f, "a record of type {kind} has no place here"),
            Self::NoContentType => f.write_str("a record has no content type"),
            Self::Empty(kind) => write!(f, "a record of type {kind} is empty"),
            Self::TooManyEmpty => f.write_str("too many records in a row bring no data"),
            Self::MalformedAlert(len) => write!(f, "an alert is {len} bytes long instead of two"),
            Self::UnexpectedHandshake(kind) => {
                write!(f, "a handshake message of type {kind} has no place here")
            }
            Self::MalformedKeyUpdate => f.write_str("a KeyUpdate is not one byte long"),
            Self::UnknownKeyUpdate => f.write_str("a KeyUpdate holds neither 0 nor 1"),
            Self::BehindKeyUpdate => f.write_str("something follows a KeyUpdate in its record"),
            Self::Interleaved => f.write_str("a record stands between parts of a KeyUpdate"),
            Self::TooManyKeyUpdates => f.write_str("too many KeyUpdates come without data"),
            Self::Alert(alert) => write!(f, "the peer sent the alert {alert}"),
        }
    }
}

impl std::error::Error for Violation {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_violation_has_words_of_its_own_and_an_alert_unless_the_peer_sent_one() {
        let all = [
            Violation::NotAuthentic,
            Violation::TooLong,
            Violation::UnexpectedRecord(99),
            Violation::NoContentType,
            Violation::Empty(98),
            Violation::TooManyEmpty,
            Violation::MalformedAlert(97),
            Violation::UnexpectedHandshake(96),
            Violation::MalformedKeyUpdate,
            Violation::UnknownKeyUpdate,
            Violation::BehindKeyUpdate,
            Violation::Interleaved,
            Violation::TooManyKeyUpdates,
            Violation::Alert(95),
        ];
        let words: Vec<_> = all.iter().map(ToString::to_string).collect();
        for (violation, told) in all.iter().zip(&words) {
            assert_eq!(words.iter().filter(|other| *other == told).count(), 1, "{told}");
            assert_eq!(violation.alert().is_none(), *violation == Violation::Alert(95), "{told}");
        }
        for number in 95..=99 {
            let told = words.iter().filter(|told| told.contains(&number.to_string()));
            assert_eq!(told.count(), 1, "{number} is told once");
        }
    }
}
