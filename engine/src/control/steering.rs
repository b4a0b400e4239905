//! What whoever operates a run asks of it while it goes on, and what is answered.
//!
//! Not here: what is done about it (`orders.rs`), and who may ask, and in which words (`cli`). Invariant: whoever asks has one
//! order under way and waits for its answer, so that no more wait than there are askers.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::config::Limits;
use crate::metrics::BothWays;
use crate::records::OutcomeKind;
use packetlab::key::KeyId;
use packetlab::snikey::SniKey;
use packetlab::time::Ticks;

/// Orders that wait. More than there are askers at once.
const WAITING_MAX: usize = 64;

/// How long an answer may take: only that to a reload waits for anything, which is its files.
const PATIENCE: Duration = Duration::from_secs(100);

/// What is asked of a run.
#[derive(Debug, Clone)]
pub enum Order {
    /// To tell of sessions past START.
    ListSessions,
    /// To tell what is served.
    ListExperiments,
    /// To change something.
    Change(Change),
}

/// What is to be changed.
#[derive(Debug, Clone)]
pub enum Change {
    /// To end sessions, and their mlets as at a forced end.
    Kill(Whom),
    /// No new endpoints, as at a first signal.
    Drain,
    /// To end every session, as at a second signal.
    Stop,
    /// To read the configuration again.
    Reload,
    /// To have these limits, for new sessions or at once.
    SetLimit {
        /// Which of them differs, and what it is, in words.
        words: String,
        /// What it was, in words.
        before: String,
        /// All of them.
        limits: Box<Limits>,
    },
    /// Something that the run itself has nothing to do with was done, in words; to be recorded.
    Note(String),
}

/// Whose sessions.
#[derive(Debug, Clone)]
pub enum Whom {
    /// The session of this number.
    Session(u64),
    /// All of endpoints whose key id begins with these hexadecimal digits.
    Key(String),
}

impl fmt::Display for Whom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session(id) => write!(f, "{id}"),
            Self::Key(digits) => f.write_str(digits),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(whom) => write!(f, "kill {whom}"),
            Self::Drain => f.write_str("drain"),
            Self::Stop => f.write_str("stop"),
            Self::Reload => f.write_str("reload"),
            Self::SetLimit { words, .. } => write!(f, "set {words}"),
            Self::Note(words) => f.write_str(words),
        }
    }
}

/// What is answered.
#[derive(Debug, Clone)]
pub enum Answer {
    /// Sessions past START, by their numbers.
    Sessions(Arc<[SessionState]>),
    /// What is served, in the order of the file.
    Experiments(Vec<ExperimentState>),
    /// It was done; what came of it.
    Done(String),
    /// It was not done, and why.
    Refused(String),
}

/// A session past START.
#[derive(Debug, Clone)]
pub struct SessionState {
    /// Its number.
    pub id: u64,
    /// Key id of its endpoint; `None` without a certificate.
    pub key: Option<KeyId>,
    /// The TCP peer.
    pub peer: SocketAddr,
    /// Its experiment.
    pub snikey: Option<SniKey>,
    /// The process of its mlet, while that runs.
    pub pid: Option<i32>,
    /// How long ago it was accepted.
    pub age: Duration,
    /// Bytes of messages that it has relayed, a second ago at most; `None` if its shard has not told them.
    pub bytes: Option<BothWays<u64>>,
    /// How the session of its key that ended last did so, if it is known.
    pub last_outcome: Option<OutcomeKind>,
}

/// An experiment that is served.
#[derive(Debug, Clone)]
pub struct ExperimentState {
    /// Its name.
    pub snikey: SniKey,
    /// Serves endpoints that send no name.
    pub is_default: bool,
    /// Certificates of its chain.
    pub certificates: usize,
    /// When the first of them expires.
    pub not_after: Option<Ticks>,
    /// Monitor programs that endpoints are sent.
    pub programs: usize,
}

/// Gives orders to a run, from any thread but its own.
#[derive(Debug, Clone)]
pub struct Steering(mpsc::Sender<Asked>);

/// The end of it that the run hears.
#[derive(Debug)]
pub struct Orders {
    asked: mpsc::Receiver<Asked>,
    /// One that ended a wait.
    heard: Option<Asked>,
}

/// Where an answer goes.
pub(super) struct Asker(Box<dyn FnOnce(Answer) + Send>);

impl Asker {
    /// One that does not want to know.
    #[cfg(test)]
    pub(super) fn deaf() -> Self {
        Self(Box::new(drop))
    }

    /// Answers. Who has gone meanwhile does not want to know.
    pub(super) fn answer(self, answer: Answer) {
        self.0(answer);
    }
}

impl fmt::Debug for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Asker")
    }
}

/// An order, and who waits for its answer.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) order: Order,
    pub(super) asker: Asker,
}

/// Both ends.
#[must_use]
pub fn steering() -> (Steering, Orders) {
    let (sender, asked) = mpsc::channel(WAITING_MAX);
    (Steering(sender), Orders { asked, heard: None })
}

impl Steering {
    /// Gives an order and waits for the answer; there is none once the run is over, or is not to be heard any more. Who waits
    /// for a reload whose files do not come is told so, and does not keep others from asking.
    #[must_use]
    pub fn ask(&self, order: Order) -> Option<Answer> {
        let (sender, answer) = sync_channel(1);
        let asker = Asker(Box::new(move |answer| drop(sender.try_send(answer))));
        self.0.blocking_send(Asked { order, asker }).ok()?;
        match answer.recv_timeout(PATIENCE) {
            Ok(answer) => Some(answer),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => Some(Answer::Refused(format!(
                "it is not done after {} s; the log tells when it is",
                PATIENCE.as_secs()
            ))),
        }
    }

    /// The same of a task, whose thread has more to do than to wait.
    pub async fn ask_and_wait(&self, order: Order) -> Option<Answer> {
        let (sender, answer) = oneshot::channel();
        let asker = Asker(Box::new(move |answer| drop(sender.send(answer))));
        self.0.send(Asked { order, asker }).await.ok()?;
        answer.await.ok()
    }
}

impl Orders {
    /// Waits for an order. A wait that is dropped loses none.
    pub(super) async fn hear(&mut self) {
        if self.heard.is_none() {
            match self.asked.recv().await {
                None => std::future::pending().await,
                asked => self.heard = asked,
            }
        }
    }

    /// The next order, if there is any.
    pub(super) fn next(&mut self) -> Option<Asked> {
        self.heard.take().or_else(|| self.asked.try_recv().ok())
    }
}
