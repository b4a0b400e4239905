//! Where a mlet's descriptors 1 and 2 lead: to files of its own, opened here, so that its output needs nobody to copy it
//! and is not lost whoever ends.
//!
//! Not here: what becomes of the files when the mlet has ended (`records`). Invariant: what is in a file already stays.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use nix::libc;

/// What a mlet's descriptors 1 and 2 are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MletOutput {
    /// The ones that pktxpmgr was started with.
    Inherited,
    /// Nothing is kept of it.
    Discarded,
    /// The files `stdout` and `stderr` in this folder below the results folder. It is made if it is not there.
    Folder(String),
}

/// Descriptors 1 and 2.
pub(super) type OutputFiles = [File; 2];

/// Opens what the mlet is to be given; `None` is what this process has.
pub(super) fn open(output: &MletOutput, results: &Path) -> io::Result<Option<OutputFiles>> {
    match output {
        MletOutput::Inherited => Ok(None),
        MletOutput::Discarded => discarded().map(Some),
        MletOutput::Folder(folder) => {
            let folder = results.join(folder);
            DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
            let open = |name| {
                let mut options = OpenOptions::new();
                options.append(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
                options.open(folder.join(name))
            };
            Ok(Some([open("stdout")?, open("stderr")?]))
        }
    }
}

/// Takes everything and keeps nothing.
pub(super) fn discarded() -> io::Result<OutputFiles> {
    let null = OpenOptions::new().write(true).open("/dev/null")?;
    Ok([null.try_clone()?, null])
}
