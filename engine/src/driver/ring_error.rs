//! Why there is no io_uring, and the cure that the log names.

use std::fmt;
use std::io;

use nix::libc;

/// Why there is no ring, and what to do about it.
#[derive(Debug)]
pub struct RingError {
    pub(super) doing: &'static str,
    pub(super) source: io::Error,
}

impl fmt::Display for RingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cure = match self.source.raw_os_error() {
            Some(libc::ENOSYS) => {
                "this kernel has no io_uring, or a seccomp profile hides it: run Linux 6.1 or newer with \
                 CONFIG_IO_URING, and allow io_uring_setup, io_uring_enter and io_uring_register"
            }
            Some(libc::EPERM) => {
                "io_uring is barred: set `sysctl kernel.io_uring_disabled=0`, and in a container \
                 allow io_uring_setup, io_uring_enter and io_uring_register in the seccomp profile"
            }
            Some(libc::ENOMEM) => "raise the locked-memory limit (`ulimit -l`)",
            Some(libc::EINVAL) => "this kernel's io_uring is too old; run Linux 6.1 or newer",
            Some(libc::EMFILE | libc::ENFILE) => "raise the limit of open files (`ulimit -n`)",
            _ => "see the system's log",
        };
        write!(f, "io_uring cannot be used ({}: {}); {cure}", self.doing, self.source)
    }
}

impl RingError {
    /// Files are used up, which no other driver would mend.
    pub(super) fn is_want_of_files(&self) -> bool {
        matches!(self.source.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
    }
}

impl std::error::Error for RingError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}
