//! How many connections are how far in their set-up.
//!
//! Not here: how far one is (`admission.rs`). Invariant: each counts at the stage at which it was last looked at.

use crate::proto::session::SetUpStage;

/// How many connections in set-up are at each stage.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Stages([u64; 6]);

impl Stages {
    /// A connection begins at this one.
    pub(super) fn enter(&mut self, stage: SetUpStage) {
        self.0[stage as usize] += 1;
    }

    /// A connection goes on from one to another.
    pub(super) fn change(&mut self, before: SetUpStage, stage: SetUpStage) {
        self.leave(before);
        self.enter(stage);
    }

    /// A connection that was at this one is not in set-up any more.
    pub(super) fn leave(&mut self, stage: SetUpStage) {
        self.0[stage as usize] -= 1;
    }

    /// How many are at this one.
    pub(super) fn at(&self, stage: SetUpStage) -> u64 {
        self.0[stage as usize]
    }
}
