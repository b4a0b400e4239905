//! What every run needs and the machine does not give, in words for whoever can change that.
//!
//! Not here: io_uring's own refusals, which have reasons of their own (`driver/uring.rs`).

use std::fmt;
use std::io;

use nix::libc;

/// Something that every run does, and why it cannot be done here.
#[derive(Debug)]
pub struct Lack {
    doing: String,
    source: io::Error,
}

impl Lack {
    /// `doing` continues the words "cannot" and names the system call in brackets, where it is the one that may be barred.
    pub fn new(doing: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self { doing: doing.into(), source: source.into() }
    }

    /// As [`Self::new`], for `map_err`.
    pub fn when<E: Into<io::Error>>(doing: &str) -> impl FnOnce(E) -> Self {
        move |source| Self::new(doing, source)
    }

    /// Whether it is the machine that refuses, whatever is asked for, and not the thing itself that is asked for.
    pub fn is_why(error: &io::Error) -> bool {
        use libc::{EMFILE, ENFILE, ENOBUFS, ENOMEM, ENOSYS, EPERM};
        matches!(error.raw_os_error(), Some(EMFILE | ENFILE | ENOBUFS | ENOMEM | ENOSYS | EPERM))
    }

    /// What cannot be done.
    pub(super) fn doing(&self) -> &str {
        &self.doing
    }

    /// The number of the kernel's error; 0 if it is not the kernel's.
    pub(super) fn errno(&self) -> i32 {
        self.source.raw_os_error().unwrap_or_default()
    }
}

/// What to do where the machine refuses with this error.
pub fn remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES | libc::ENOSYS) => {
            "a seccomp profile or the kernel bars it: in a container, allow it in the seccomp profile"
        }
        Some(libc::EAGAIN) => {
            "processes and threads are used up: raise `ulimit -u`, or pids.max of the cgroup"
        }
        Some(libc::EMFILE) => "raise the limit on open files (`ulimit -n`)",
        Some(libc::ENFILE) => "the whole system is out of open files: raise sysctl fs.file-max",
        Some(libc::ENOMEM | libc::ENOBUFS) => {
            "free memory, or raise the limit on it (`ulimit -d`, `-v`, `-l`, memory.max of the cgroup)"
        }
        _ => "see the system's log",
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: {}; {}", self.doing, self.source, remedy(&self.source))
    }
}

impl std::error::Error for Lack {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}
