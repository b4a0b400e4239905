//! What counts as a good run, and when a bad one ends early.
//!
//! Not here: the verdict (`control/judging.rs`).

/// What counts as a good run, and when a bad one ends early. Failed are sessions past START that are not `ok`, and set-ups
/// that failed after a verified certificate.
#[derive(Debug, Clone, Default)]
pub struct Judging {
    /// `--fail-on`: so many failed are too many.
    pub fail_on: Option<Share>,
    /// `--halt`: when the run ends before its time.
    pub halt: Option<Halt>,
    /// `--require`: so many have to be `ok`.
    pub require: Option<u64>,
    /// How many were `ok` in earlier runs whose results this one goes on with; they count for `require` and `--halt ok=N`.
    pub oks_before: u64,
}

/// A number of failed sessions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Share {
    /// So many, at least 1.
    Sessions(u64),
    /// So many in a hundred of those that ended `ok` or failed; more than 0.
    Percent(f64),
}

/// `--halt`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Halt {
    /// How it ends.
    pub how: HaltHow,
    /// Upon what.
    pub on: HaltOn,
}

/// How a run ends before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HaltHow {
    /// Running sessions are waited for, as after a first signal.
    Soon,
    /// They are ended, as after a second.
    Now,
}

/// Upon what.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum HaltOn {
    /// So many failed; percentages from 20 ended sessions on.
    Failed(Share),
    /// So many `ok`.
    Ok(u64),
}
