//! Where a mlet's descriptors 1 and 2 lead: to files of its own, opened here, so that its output needs nobody to copy it
//! and is not lost whoever ends; or to pipes that the recorder reads.
//!
//! Of a file nobody is told that the mlet could not write to it: when the mlet has ended, its file system is looked at.
//!
//! Not here: what becomes of the files when the mlet has ended (`records`). Invariant: what is in a file already stays.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::statvfs::statvfs;
use nix::unistd::pipe2;

use crate::sys::recorder::{Capture, open_files};

/// What a mlet's descriptors 1 and 2 are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MletOutput {
    /// The ones that pktxpmgr was started with.
    Inherited,
    /// Nothing is kept of it.
    Discarded,
    /// The files `stdout` and `stderr` in this folder below the results folder. It is made if it is not there.
    Folder(String),
    /// Pipes that the recorder reads.
    Recorded(Capture),
}

/// A file system that has less is taken for full. It refuses a large write before it has none: at 16 MB in one write 600 KiB
/// were left of ext4, and 1.9 MB of xfs.
const ROOM_MIN_BYTES: u64 = 2 << 20;

/// Of standard output and standard error.
pub(super) type Pair = [OwnedFd; 2];

/// What a mlet is given, and what somebody else is.
pub(super) struct Opened {
    /// The mlet's descriptors 1 and 2; `None` is what this process has.
    pub(super) of_mlet: Option<Pair>,
    /// The reading ends of pipes, for the recorder.
    pub(super) read_ends: Option<Pair>,
}

/// Opens what the mlet is to be given.
///
/// # Errors
/// As the kernel says; EPIPE if there is no recorder, though there should be one.
pub(super) fn open(output: &MletOutput, results: &Path, has_recorder: bool) -> io::Result<Opened> {
    let of_mlet = match output {
        MletOutput::Inherited => None,
        MletOutput::Discarded => Some(discarded()?),
        MletOutput::Recorded(_) if !has_recorder => return Err(Errno::EPIPE.into()),
        MletOutput::Recorded(_) => {
            // Not O_NONBLOCK, which no program expects of its output.
            let (stdout, stderr) = (pipe2(OFlag::O_CLOEXEC)?, pipe2(OFlag::O_CLOEXEC)?);
            let read_ends = Some([stdout.0, stderr.0]);
            return Ok(Opened { of_mlet: Some([stdout.1, stderr.1]), read_ends });
        }
        MletOutput::Folder(folder) => Some(open_files(&results.join(folder))?.map(OwnedFd::from)),
    };
    Ok(Opened { of_mlet, read_ends: None })
}

/// Whether the file system of this folder has hardly any room left, so that what was written there may not be whole. Not seen
/// are room that has come back since, and quotas of which the file system does not tell here. What is set aside for root is no
/// room.
pub(super) fn is_full(folder: &Path) -> bool {
    statvfs(folder).is_ok_and(|told| {
        let left_bytes = told.blocks_available().saturating_mul(told.fragment_size());
        // One that tells no size, such as a tmpfs without a limit, tells no room either.
        told.blocks() > 0 && left_bytes < ROOM_MIN_BYTES
    })
}

/// Takes everything and keeps nothing.
pub(super) fn discarded() -> io::Result<Pair> {
    let null = OpenOptions::new().write(true).open("/dev/null")?;
    Ok([null.try_clone()?.into(), null.into()])
}
