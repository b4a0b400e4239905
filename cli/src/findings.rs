//! Everything that is wrong with what a run was given, in the order in which it is found.
//!
//! Not here: what is only odd, which is a warning of the log.

use crate::exit::{Exit, Failure};

/// What was found wrong so far.
#[derive(Debug, Default)]
pub(crate) struct Findings(Vec<Failure>);

impl Findings {
    /// Adds one.
    pub(crate) fn add(&mut self, failure: Failure) {
        self.0.push(failure);
    }

    /// What was read, or else a finding more.
    pub(crate) fn keep<T>(&mut self, read: Result<T, Failure>) -> Option<T> {
        read.map_err(|failure| self.add(failure)).ok()
    }

    /// Whether nothing is wrong so far.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each of them.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &Failure> {
        self.0.iter()
    }

    /// All of them as one, with the exit code of the first.
    pub(crate) fn into_failure(self) -> Failure {
        let exit = self.0.first().map_or(Exit::Internal, |first| first.exit);
        let messages: Vec<_> = self.0.into_iter().map(|failure| failure.message).collect();
        Failure::new(exit, messages.join("\n"))
    }
}
