//! What goes to the database and comes back from it, as values.

use std::sync::Arc;

use crate::asks::{Refusal, Standing};

/// A member of a campaign, for as long as its lease is renewed. The first of a client is drawn; after each fence comes the
/// next number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ManagerId(pub(crate) [u8; 16]);

/// All that goes out at once: three calls, in this order, none of which has two entries of one session.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    /// Who gives back and takes.
    pub(crate) manager: ManagerId,
    pub(crate) give_back: Vec<GivenBack>,
    /// All of one manager, which may have been fenced since.
    pub(crate) finish: Vec<Finished>,
    pub(crate) take: Vec<(u64, [u8; 32])>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GivenBack {
    pub(crate) session: u64,
    pub(crate) endpoint: [u8; 32],
    /// Whether it may have been measured, so that the claim is lost and not free.
    pub(crate) has_begun: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Finished {
    pub(crate) session: u64,
    pub(crate) manager: ManagerId,
    pub(crate) endpoint: [u8; 32],
    pub(crate) epoch: u32,
    pub(crate) outcome: Arc<str>,
    pub(crate) record: Arc<str>,
}

/// What the three calls have told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    /// Which results were accepted: endpoint and epoch.
    pub(crate) accepted: Vec<([u8; 32], u32)>,
    pub(crate) verdicts: Vec<TakeAnswer>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TakeAnswer {
    pub(crate) session: u64,
    pub(crate) verdict: TakeVerdict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TakeVerdict {
    /// With the epoch of the claim.
    Won(u32),
    Refused(Refusal),
    /// The manager is none of the campaign's any more.
    Fenced,
}

/// What `beat` has told.
#[derive(Clone, Debug)]
pub(crate) struct BeatAnswer {
    pub(crate) is_alive: bool,
    /// None if the campaign is gone.
    pub(crate) standing: Option<Standing>,
}
