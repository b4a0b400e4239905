//! What is asked of whoever hands out permits, and what a run is told.
//!
//! Not here: the picture (`mod.rs`), and the counts of one run (`counted.rs`). Invariant: a session that asks hears of it at
//! most once, and of its result at most once.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use packetlab::key::KeyId;

/// In whose name a session waits for a permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    /// Its endpoint's key.
    Key(KeyId),
    /// Its endpoint has shown no certificate: its TCP peer.
    Address(IpAddr),
}

/// Hands out permits for START. It is asked and heard on the control thread, which must not be held up. Sessions are named by
/// their numbers, which are unique in a run.
pub trait Permits: Send {
    /// A session waits for a permit.
    fn want(&mut self, session: u64, holder: Holder);

    /// A session gives its permit back, for no experiment comes of it, or waits no more.
    fn free(&mut self, session: u64);

    /// The START of a session that holds a permit has succeeded.
    fn begin(&mut self, session: u64);

    /// The next piece of news, in the order in which they came about; wakes the task of `cx` when there is one.
    fn poll_news(&mut self, cx: &mut Context<'_>) -> Poll<PermitNews>;

    /// So many sessions are possible at once; told before the first of them, when that is changed, and when none is begun any
    /// more.
    fn places(&mut self, _sessions_max: usize) {}

    /// Endpoints may have been missed, of which this run knows nothing: they may be called again. Told when they would be
    /// heard again; never because of who has shown no certificate.
    fn missed(&mut self) {}

    /// Where the results of sessions with permits go, if anybody wants them: each is settled by [`PermitNews::Settled`].
    fn results(&self) -> Option<Results> {
        None
    }
}

/// Takes the result of the session of this number, once its record is in the journal; `None` if that could not be written, or
/// its mlet's output was not kept whole: then it has no result, and others may measure its endpoint. Called on the thread that
/// writes records, or on the one that found no room for it there.
pub type Results = Arc<dyn Fn(u64, Option<SessionResult>) + Send + Sync>;

/// What is handed over of a session that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionResult {
    /// Its outcome, by its name in records.
    pub outcome: String,
    /// Its record, a JSON object without a newline.
    pub record: String,
}

/// What a run is told by whoever hands out permits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PermitNews {
    /// A session may send START.
    Given {
        /// Its number.
        session: u64,
        /// How often START was permitted for its endpoint, this time included, where that is known.
        epoch: Option<u64>,
    },
    /// A session that waits gets no permit.
    Refused {
        /// Its number.
        session: u64,
        /// Why not.
        why: Refusal,
    },
    /// What became of a result that was handed over.
    Settled {
        /// Of which session.
        session: u64,
        /// That.
        verdict: ResultVerdict,
    },
    /// Permits that were given hold no more, and results of their sessions are not wanted: these sessions are to be over
    /// within this time.
    Fenced(Duration),
    /// No permit can be given to this run until it is told that there can be one again: endpoints that wait at a proxy are
    /// left to those who have them.
    TakesPart(bool),
    /// The descriptors are published from now on with this behind each, or not by this run; until then they are not.
    Publish(Option<String>),
    /// How the campaign stands.
    Standing(CampaignSums),
    /// Whoever permits START can be asked, or cannot: until he can be again nothing begins, and results wait.
    Answering(bool),
    /// No more endpoints are wanted, for this reason: as a first signal.
    Enough(String),
    /// Every session is to end, for this reason: as a second signal.
    Stop(String),
}

/// How a campaign stands that several managers share.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CampaignSums {
    /// For how many endpoints it is; `None` is for all that come.
    pub wanted: Option<u64>,
    /// Managers that are there.
    pub managers: u64,
    /// Sessions that these can have at once.
    pub places: u64,
    /// Endpoints with an accepted result.
    pub done: u64,
    /// Of these, those of the last minute.
    pub done_last_minute: u64,
    /// Endpoints that somebody measures.
    pub running: u64,
    /// Endpoints that were lost with their manager.
    pub lost: u64,
    /// Endpoints that were given back before an experiment began.
    pub given_back: u64,
    /// Endpoints without a result that were tried as often as they may be.
    pub out_of_tries: u64,
    /// Which round it is, from 1.
    pub round: u64,
    /// Which wave of that, from 1.
    pub wave: u64,
}

impl CampaignSums {
    /// Its endpoints by how they stand, each with its name.
    #[must_use]
    pub fn endpoints(&self) -> [(&'static str, u64); 5] {
        [
            ("done", self.done),
            ("running", self.running),
            ("lost", self.lost),
            ("given_back", self.given_back),
            ("out_of_tries", self.out_of_tries),
        ]
    }
}

/// Why a session gets no permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// A result of its endpoint has been accepted.
    Done,
    /// Its endpoint is being measured by somebody.
    Busy,
    /// As many endpoints are measured or being measured as are wanted.
    Full,
    /// No more are started.
    Stop,
    /// Whoever asks has been shut out.
    Fenced,
    /// Its endpoint has been tried as often as it may be.
    Spent,
    /// Nobody answered in time.
    Unanswered,
    /// Its endpoint has shown no key by which it could be known.
    NoKey,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Done => "done, a result of the endpoint has been accepted",
            Self::Busy => "busy, the endpoint is being measured already",
            Self::Full => "full, as many endpoints are measured as are wanted",
            Self::Stop => "stop, no more endpoints are measured",
            Self::Fenced => "fenced, this manager's lease was lost",
            Self::Spent => "out of tries, the endpoint has been tried as often as it may be",
            Self::Unanswered => "unanswered, the database did not answer in time",
            Self::NoKey => "the endpoint has shown no key (TRUSTEDEOP_PATH)",
        })
    }
}

/// What became of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResultVerdict {
    /// It is the endpoint's result.
    Accepted,
    /// It is refused: the permit held no more when it came, and somebody else may have measured the endpoint.
    Duplicate,
    /// Nobody could be told of it; it stays in the journal.
    Unreported,
    /// There is none, as its record could not be written, or its mlet's output not kept whole; the permit was given back.
    Unrecorded,
}
