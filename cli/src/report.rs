//! What the program says on stderr outside of log lines: the reason why it cannot go on.
//!
//! Nothing here or in `logging` may fail because nobody reads: a closed pipe or a full disk behind
//! stderr loses the text and nothing else.

use std::io::Write;

use crate::exit::Failure;

/// Prints why the program ends. `FATAL` is the word the original used and scripts look for.
pub(crate) fn failure(failure: &Failure) {
    let text = format!("pktxpmgr: FATAL: {failure}\n");
    // One write, so that lines of mlets on the same stream do not cut it.
    let _ = std::io::stderr().write_all(text.as_bytes());
}
