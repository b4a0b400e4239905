//! What the configuration is loaded for.

/// What for something is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To be run. What is wrong in one step ends it before the next.
    Run,
    /// To go on with: as to be run, but nobody is asked for a passphrase.
    Reload,
    /// To know what is wrong, all of it. No name is looked up and no socket made: a name has no addresses in what is
    /// loaded.
    Check,
}

impl Purpose {
    /// Whether the first step with a finding is the last, and names are looked up.
    pub(super) fn is_a_run(self) -> bool {
        self != Self::Check
    }
}
