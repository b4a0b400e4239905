//! What a recorder is started for.
//!
//! Not here: what it is told of each mlet (`message.rs`).

use std::path::PathBuf;

/// What is done with the output of mlets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecorderPlan {
    /// The folder below which files are; absolute. It need not be there yet.
    pub results: Option<PathBuf>,
    /// Bytes of each stream that are kept; what is beyond is read and counted.
    pub output_max: Option<u64>,
    /// Lines of standard output go to ours behind a tag, those of standard error to the manager.
    pub is_tagged: bool,
}
