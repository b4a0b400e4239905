//! The fault matrix of spec/reliability.md 7 (promise P5), read from `engine/testdata/fault-matrix.csv`: every step of a
//! session, of a registration at a proxy and of a publication, with every fault, and what must become of it.
//!
//! Included by path in the simulated world (`engine/src`) and in the real one (`cli/tests`), which walk the same cells. Not
//! here: how a step is reached, and how a fault is made. Invariant: a cell that is walked nowhere says why.
//!
//! The columns, none of which holds a comma:
//!
//! * `step`, `fault`: as spec/reliability.md 7 numbers them
//! * `world`: `both`, `real` alone, or `n/a` where the pair makes no sense
//! * `outcome`: of the record (docs/events.schema.json). Where there is no session to have one: `goes_on`, `tried_again` (a
//!   registration or publication that fails ends nothing and is made again), `run_ends` (at once, with exit code 0)
//! * `reason`: what the record's reason, or the line of the log, holds
//! * `wait`: the limit that passes first, which is the most time that it takes (`linger` is no more than that: it ends sooner
//!   where no send is under way); `at once`; or `goes on` for what the fault does not end
//! * `told`: what the peer is told: `alert` with its number, `close_notify`, `fin` alone, or `nothing`. Of a peer that is
//!   `gone` nobody can say
//! * `mlet`: `none` has been started; `ended` by itself; `eof`: it has read the end of its input, and no signal was sent to it;
//!   `killed` by the fault; `gone` before the fault
//! * `original`: what the original does, as far as the specification tells
//! * `note`: what is to be said of it; of `n/a` the reason

/// The steps, in the order of the file.
pub(crate) const STEPS: [&str; 23] = [
    "S0", "S1", "S2", "S3", "S4", "S5", "S6", "S7", "S8", "S9", "S10", "S11", "P0", "P1", "P2",
    "P3", "P4", "P5", "B0", "B1", "B2", "B3", "B4",
];

/// The faults, in the order of the file.
pub(crate) const FAULTS: [&str; 12] =
    ["F1", "F2", "F3", "F4", "F5", "F6", "F7", "F8", "F9", "F10", "F11", "F12"];

/// A cell of the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cell {
    /// One of [`STEPS`].
    pub(crate) step: &'static str,
    /// One of [`FAULTS`].
    pub(crate) fault: &'static str,
    /// Where it is walked.
    pub(crate) world: &'static str,
    /// What must come of it.
    pub(crate) expected: Expected,
    /// What the original does.
    pub(crate) original: &'static str,
    /// Why it is so, or not walked.
    pub(crate) note: &'static str,
}

/// What must come of a fault at a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expected {
    /// The outcome of the record, or what there is instead of one.
    pub(crate) outcome: &'static str,
    /// A part of the reason.
    pub(crate) reason: &'static str,
    /// The limit that passes.
    pub(crate) wait: &'static str,
    /// What the peer is told.
    pub(crate) told: &'static str,
    /// What becomes of the mlet.
    pub(crate) mlet: &'static str,
}

/// All cells, in the order of the file.
pub(crate) fn cells() -> impl Iterator<Item = Cell> {
    include_str!("../../testdata/fault-matrix.csv").lines().skip(1).map(|line| {
        let fields: Vec<&str> = line.split(',').collect();
        let Ok(fields) = <[&str; 10]>::try_from(fields) else { panic!("not ten fields: {line}") };
        let [step, fault, world, outcome, reason, wait, told, mlet, original, note] = fields;
        let expected = Expected { outcome, reason, wait, told, mlet };
        Cell { step, fault, world, expected, original, note }
    })
}
