//! What `pktfleet` says on standard error outside of its log. A write that fails there must not stop the program half-way.

use std::fmt;
use std::io::{self, Write};

/// Tells something beside the result. Nobody reading is no failure.
pub(crate) fn note(text: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "{text}");
}
