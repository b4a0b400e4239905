//! Whose a mlet is, and how that is said in packets.
//!
//! ```text
//! owner   0 | id 8 for one session, 1 for all
//! ```
//! Not here: the packets.

use super::packet::Reader;

const OF_SESSION: u8 = 0;
const OF_ALL_SESSIONS: u8 = 1;

/// Whose a mlet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MletOwner {
    /// The session of this number.
    Session(u64),
    /// All sessions of a run: the one mlet of singleton mode.
    AllSessions,
}

impl MletOwner {
    /// Adds its bytes.
    pub(super) fn encode(self, out: &mut Vec<u8>) {
        match self {
            Self::Session(id) => {
                out.push(OF_SESSION);
                out.extend(id.to_be_bytes());
            }
            Self::AllSessions => out.push(OF_ALL_SESSIONS),
        }
    }

    /// A number that no other owner has.
    pub(super) fn number(self) -> u64 {
        match self {
            Self::Session(id) => id,
            // Sessions are numbered from 1 on.
            Self::AllSessions => 0,
        }
    }

    /// The owner whose bytes are next.
    pub(super) fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        match reader.u8()? {
            OF_SESSION => reader.u64().map(Self::Session),
            OF_ALL_SESSIONS => Some(Self::AllSessions),
            _ => None,
        }
    }
}
