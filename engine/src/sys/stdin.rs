//! Standard input, which pktxpmgr never reads (spec/pktxpmgr.md 1.4).

use std::fs::File;
use std::io;

/// Puts descriptor 0 on `/dev/null`. It stays taken, so no socket can ever become somebody's standard input by
/// accident, and a terminal or pipe that was there is let go.
///
/// # Errors
/// When `/dev/null` cannot be opened.
pub fn discard() -> io::Result<()> {
    Ok(nix::unistd::dup2_stdin(File::open("/dev/null")?)?)
}
