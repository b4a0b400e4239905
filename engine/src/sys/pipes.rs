//! The two pipes that a mlet is offered beside its socket (`--mlet-io pipe`): one to it, one from it.
//!
//! Not here: who uses them (`shard/mlet_streams.rs`). Invariant: a pipe holds [`PIPE_LEN`] bytes, or there is none: the
//! kernel gives users at their limit pipes of two pages, over which nothing is faster.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd;

/// How many bytes a pipe holds, if each of its pages is full.
pub const PIPE_LEN: usize = 256 * 1024;

/// What the kernel counts by.
const PAGE_LEN: usize = 4096;

/// Bits of CAP_SYS_ADMIN and CAP_SYS_RESOURCE, with either of which a user's pipes are not limited (pipe(7)).
const EXEMPTING_CAPABILITIES: u64 = 1 << 21 | 1 << 24;

/// Two pipes: our ends, then the mlet's, both close-on-exec. The first of either is of the pipe to the mlet, the second of
/// that from it.
///
/// # Errors
/// As the kernel says; EPERM when this user's pipes hold as much as they may.
pub fn session_pipes() -> io::Result<([OwnedFd; 2], [OwnedFd; 2])> {
    let (mlet_reads, we_write) = large_pipe()?;
    let (we_read, mlet_writes) = large_pipe()?;
    Ok(([we_write, we_read], [mlet_reads, mlet_writes]))
}

fn large_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = unistd::pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&writer, FcntlArg::F_SETPIPE_SZ(PIPE_LEN as i32))?;
    Ok((reader, writer))
}

/// For how many sessions a user without rights gets pipes at once, if it has no others; `None` without such a limit.
pub fn sessions_with_pipes_max() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let rights = effective.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    if rights.is_some_and(|rights| rights & EXEMPTING_CAPABILITIES != 0) {
        return None;
    }
    let pages_max = std::fs::read_to_string("/proc/sys/fs/pipe-user-pages-soft").ok()?;
    let pages_max: usize = pages_max.trim().parse().ok()?;
    // 0 is no limit.
    (pages_max > 0).then_some(pages_max / (2 * PIPE_LEN / PAGE_LEN))
}

/// Reads from a pipe that does not block.
///
/// # Errors
/// EAGAIN when nothing is there; otherwise as the kernel says.
pub fn read(pipe: RawFd, memory: &mut [u8]) -> Result<usize, Errno> {
    unistd::read(borrow(pipe), memory)
}

/// Writes to a pipe that does not block; fewer bytes than given may go in.
///
/// # Errors
/// EAGAIN when none does, EPIPE when nobody will read them; otherwise as the kernel says.
pub fn write(pipe: RawFd, bytes: &[u8]) -> Result<usize, Errno> {
    unistd::write(borrow(pipe), bytes)
}

fn borrow<'fd>(number: RawFd) -> BorrowedFd<'fd> {
    #[allow(unsafe_code)]
    // SAFETY: it is only passed to one call, which fails for a number that is no open descriptor, and -1 is none of a pipe.
    unsafe {
        BorrowedFd::borrow_raw(number)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use super::*;
    use crate::sys::socket;

    #[test]
    fn a_pipe_of_a_session_holds_as_much_as_is_said_and_lets_no_mlet_inherit_it() {
        let (ours, mlets) = session_pipes().unwrap();
        for pipe in ours.iter().chain(&mlets) {
            let len = fcntl(pipe, FcntlArg::F_GETPIPE_SZ).unwrap();
            assert_eq!(len as usize, PIPE_LEN);
            assert_eq!(fcntl(pipe, FcntlArg::F_GETFD).unwrap(), nix::libc::FD_CLOEXEC);
        }
        let [we_write, we_read] = ours;
        let [mlet_reads, mlet_writes] = mlets;
        File::from(we_write).write_all(b"to it").unwrap();
        assert_eq!(socket::waiting_len(&mlet_reads), 5);
        File::from(mlet_writes).write_all(b"from").unwrap();
        assert_eq!(socket::waiting_len(&we_read), 4);
    }
}
