//! Everything that is wrong with what a run was given, in the order in which it is found, and what is only odd in its config
//! file.
//!
//! Not here: what else is odd, which is a warning of the log alone.

use crate::exit::{Exit, Failure};

/// What was found wrong so far.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    wrong: Vec<Failure>,
    odd: Vec<String>,
}

impl Findings {
    /// Adds one.
    pub(crate) fn add(&mut self, failure: Failure) {
        self.wrong.push(failure);
    }

    /// Warns of what is only odd, and keeps it for whoever asked for the file to be read.
    pub(crate) fn warn(&mut self, line: String) {
        tracing::warn!("{line}");
        self.odd.push(line);
    }

    /// What was warned of.
    pub(crate) fn into_warnings(self) -> Vec<String> {
        self.odd
    }

    /// What was read, or else a finding more.
    pub(crate) fn keep<T>(&mut self, read: Result<T, Failure>) -> Option<T> {
        read.map_err(|failure| self.add(failure)).ok()
    }

    /// Whether nothing is wrong so far.
    pub(crate) fn is_empty(&self) -> bool {
        self.wrong.is_empty()
    }

    /// Each of them.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &Failure> {
        self.wrong.iter()
    }

    /// All of them as one, with the exit code of the first.
    pub(crate) fn into_failure(self) -> Failure {
        let exit = self.wrong.first().map_or(Exit::Internal, |first| first.exit);
        let messages: Vec<_> = self.wrong.into_iter().map(|failure| failure.message).collect();
        Failure::new(exit, messages.join("\n"))
    }
}
