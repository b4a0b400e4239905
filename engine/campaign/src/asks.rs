//! What a manager asks the campaign, and what it is told. Plain values: who asks does not wait, and hears on the
//! client's thread.

use std::borrow::Cow;
use std::fmt;

use serde::de::IgnoredAny;

use crate::join_error::JoinError;

/// So long the JSON of a record may be. A longer one is left out, and the outcome reported without it.
pub const RECORD_MAX_BYTES: usize = 16 * 1024;

/// What a manager wants of the campaign. A session's number is never used again in a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// May this session measure this endpoint? Answered by `Won` or `Refused`, within 9 seconds.
    Take {
        /// The number of the session.
        session: u64,
        /// The id of the endpoint's key.
        endpoint: [u8; 32],
    },
    /// The session waits no more, or START was in vain: what it has won, others may have. There is no answer.
    Forget {
        /// The number of the session.
        session: u64,
    },
    /// The session has measured. Answered by `Accepted`, `Duplicate` or `Unreported`.
    Finish {
        /// The number of the session.
        session: u64,
        /// How it ended.
        outcome: String,
        /// Its record as JSON, at most [`RECORD_MAX_BYTES`] long.
        record: String,
    },
    /// So many sessions this manager can have at once from now on. Who can have none does not publish either. It is told at
    /// once.
    Places(u32),
    /// Endpoints may have come to this manager in vain, of which nobody knows: they are called again in another round, when
    /// there is room for them. It is told with the next beat.
    Missed,
}

/// What a manager is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientNews {
    /// The endpoint is this session's, and the database will remember. It is the endpoint's `epoch`-th claim.
    Won {
        /// The number of the session.
        session: u64,
        /// How many claims of the endpoint there have been, with this one.
        epoch: u32,
    },
    /// The session must not begin.
    Refused {
        /// The number of the session.
        session: u64,
        /// Why not.
        why: Refusal,
    },
    /// The result is the campaign's result of the endpoint.
    Accepted {
        /// The number of the session.
        session: u64,
    },
    /// The result is none of the campaign's: the endpoint was taken from the session, and is or will be measured by
    /// another, or is not wanted any more.
    Duplicate {
        /// The number of the session.
        session: u64,
    },
    /// The result could not be reported, and is tried no more. It is in the journal alone; the endpoint is given back as
    /// lost, and may be measured again where lost ones are.
    Unreported {
        /// The number of the session.
        session: u64,
    },
    /// The session's record is longer than [`RECORD_MAX_BYTES`], or no JSON: its outcome is reported alone. One for each
    /// such session: whoever logs them sees to it that they do not flood the log.
    RecordLeftOut {
        /// The number of the session.
        session: u64,
        /// How long the record is.
        len_bytes: usize,
    },
    /// How the campaign stands, with every beat.
    Standing(Standing),
    /// The database has not been reached for too long, or says that this manager is lost: it has no claims any more. With
    /// [`Fence::Kill`] its sessions must end at once.
    Fenced,
    /// The manager is a member again after it was fenced.
    Entered,
    /// The manager was fenced and cannot enter again, for this reason: the campaign is not there any more, or is another. It is
    /// told again as long as that is so.
    ShutOut(JoinError),
    /// The database is not reached, or refuses; what is wrong. Once, until it is something else.
    Trouble(String),
    /// All is well again after trouble.
    Recovered,
}

/// Why a session must not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The endpoint has been measured.
    Done,
    /// Another session has the endpoint.
    Busy,
    /// As many endpoints as the campaign is for have been measured or are being measured.
    Full,
    /// The campaign takes nobody any more.
    Stop,
    /// This manager has just been fenced.
    Fenced,
    /// There was no answer for 9 seconds.
    Unanswered,
    /// The endpoint was tried as often as the campaign allows.
    Spent,
}

/// What becomes of sessions when the database is away for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fence {
    /// They are ended, so that no endpoint is measured twice at once.
    Kill,
    /// They go on, and their results are refused where somebody else has taken the endpoint, or the last place.
    Finish,
}

/// What the operator, or the end of its work, has made of a campaign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Endpoints are taken.
    Open,
    /// None is taken any more; sessions end by themselves.
    Draining,
    /// Sessions are ended.
    Halted,
    /// As many endpoints as it was for have been measured, or it was stopped or halted and its managers are gone.
    Over,
}

/// How a campaign stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether it goes on.
    pub state: State,
    /// For how many endpoints it is.
    pub n: Option<u64>,
    /// Which publication: lost endpoints are called again in another round. From 1.
    pub round: u32,
    /// Which of the plan's waves, from 1; it stays 1 where there are none.
    pub wave: u32,
    /// Whether this manager is the one that publishes.
    pub publish: bool,
    /// Managers that are there.
    pub managers: u32,
    /// How many sessions these can have at once.
    pub places: u64,
    /// Endpoints that are claimed or done.
    pub taken: u64,
    /// Endpoints that are done, whatever the outcome.
    pub done: u64,
    /// Endpoints that were lost with their manager, and wait to be taken again.
    pub lost: u64,
    /// Endpoints that were given back before their session began, and wait.
    pub released: u64,
    /// Endpoints that are not done and are taken no more.
    pub spent: u64,
}

/// The record as the database takes it, if it does. The character U+0000 is replaced: the database keeps it, but whoever asks
/// for a member of a record that has it anywhere is refused.
pub(crate) fn fit(record: &str) -> Option<Cow<'_, str>> {
    const ESCAPED_BACKSLASH: &str = r"\\";
    let is_fit = record.len() <= RECORD_MAX_BYTES && is_json(record);
    // What stands behind an escaped backslash is no escape.
    let replaced = || {
        let between = record.split(ESCAPED_BACKSLASH);
        let between = between.map(|text| text.replace(r"\u0000", r"\ufffd"));
        between.collect::<Vec<_>>().join(ESCAPED_BACKSLASH)
    };
    is_fit.then(|| match record.contains(r"\u0000") {
        true => Cow::Owned(replaced()),
        false => Cow::Borrowed(record),
    })
}

/// Whether it is JSON, down to its escapes: half of a surrogate pair is kept by the database as well, and its readers are refused.
/// Nothing is made of it where there is no escape, as in nearly all records.
fn is_json(record: &str) -> bool {
    match record.contains(r"\u") {
        true => serde_json::from_str::<serde_json::Value>(record).is_ok(),
        false => serde_json::from_str::<IgnoredAny>(record).is_ok(),
    }
}

impl State {
    /// What the database calls it.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "open" => Self::Open,
            "draining" => Self::Draining,
            "halted" => Self::Halted,
            "over" => Self::Over,
            _ => return None,
        })
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Draining => "draining",
            Self::Halted => "halted",
            Self::Over => "over",
        })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Done => "done",
            Self::Busy => "busy",
            Self::Full => "full",
            Self::Stop => "stop",
            Self::Fenced => "fenced",
            Self::Unanswered => "unanswered",
            Self::Spent => "spent",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_gets_a_record_without_the_character_that_breaks_its_readers() {
        assert!(matches!(fit(r#"{"reason":"as it was"}"#), Some(Cow::Borrowed(_))));
        let odd = r#"["\u0000","\\u0000","\\\u0000\u00001"]"#;
        assert_eq!(fit(odd).unwrap(), r#"["\ufffd","\\u0000","\\\ufffd\ufffd1"]"#);
        assert_eq!(fit(r#"{"torn":"\u0000"#), None);
        assert_eq!(fit(r#"{"torn":"#), None);
        assert_eq!(fit(r#"{"half":"\ud83d"}"#), None);
    }
}
