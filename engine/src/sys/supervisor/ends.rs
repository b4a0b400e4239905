//! When single mlets are to be signalled that are ended one by one.
//!
//! ```text
//!  added --eof grace--> TERM, if it still runs --term grace--> KILL
//! ```
//! Not here: the signals themselves (`process.rs`), and the end of all mlets at once (`sys/children.rs`). Invariant: an
//! entry names its mlet by owner and process, for the number of a process that has ended may be another's.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use crate::sys::children::Graces;
use crate::sys::mlet_owner::MletOwner;

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// TERM, and KILL so much later.
    Term(Duration),
    /// KILL.
    Kill,
}

/// A step for one mlet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Due {
    at: Instant,
    pub(super) step: Step,
    pub(super) owner: MletOwner,
    pub(super) pid: Pid,
}

/// The steps that are to come, earliest first.
#[derive(Debug, Default)]
pub(super) struct Ends(BinaryHeap<Reverse<Due>>);

impl Ends {
    /// A mlet is to be ended, with these graces from now on.
    pub(super) fn add(&mut self, (owner, pid): (MletOwner, Pid), graces: Graces, now: Instant) {
        let Graces { eof, term } = graces.capped();
        self.0.push(Reverse(Due { at: now + eof, step: Step::Term(term), owner, pid }));
    }

    /// A mlet has got TERM: KILL follows after this grace.
    pub(super) fn add_kill(&mut self, due: Due, grace: Duration, now: Instant) {
        self.0.push(Reverse(Due { at: now + grace, step: Step::Kill, ..due }));
    }

    /// The next step that is due.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Due> {
        self.0.peek().filter(|Reverse(due)| due.at <= now)?;
        self.0.pop().map(|Reverse(due)| due)
    }

    /// Time until one is.
    pub(super) fn next_in(&self, now: Instant) -> Option<Duration> {
        self.0.peek().map(|Reverse(due)| due.at.saturating_duration_since(now))
    }
}
