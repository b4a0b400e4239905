//! What the configuration is loaded for.

/// What for something is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To be run. What is wrong in one step ends it before the next.
    Run,
    /// To know what is wrong, all of it. No name is looked up and no socket made: a name has no addresses in what is
    /// loaded.
    Check,
}
