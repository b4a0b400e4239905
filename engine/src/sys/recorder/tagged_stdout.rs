//! Our standard output, when whole lines of mlets go there, each behind its tag.
//!
//! Nothing here waits: what is not taken at once is kept, and whoever has more waits until it has gone. Invariant: lines are
//! whole and in order up to the first that cannot be written; behind that one nothing is.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};

use nix::libc;
use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{MsgFlags, send};

use crate::sys::record_files;
use crate::sys::sources::Source;

/// What it is, as far as writing to it differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Others may write to it as well, such as our log.
    Pipe,
    /// It cannot be opened again, so each send says that it does not wait.
    Socket,
    /// A file, which takes all, or a terminal.
    Other,
}

/// Standard output.
#[derive(Debug)]
pub(super) struct TaggedStdout {
    /// It stays open when it has failed: others may have the same, of which no watch could be ended any more.
    out: File,
    has_failed: bool,
    /// What it has not taken yet: the lines of one read at most.
    pending: Vec<u8>,
    /// How many bytes of these it has taken.
    taken: usize,
    kind: Kind,
}

impl TaggedStdout {
    /// Takes descriptor 1. Of a pipe or a terminal, which others may have open too, it makes a description of its own that
    /// does not block; where that is barred, writing waits.
    ///
    /// # Errors
    /// There is no descriptor 1.
    pub(super) fn open() -> io::Result<Self> {
        let shared = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        let kind = shared.metadata()?.file_type();
        let own = if kind.is_fifo() || kind.is_char_device() {
            let mut options = OpenOptions::new();
            options.write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
            options.open("/proc/self/fd/1").ok()
        } else {
            None
        };
        let kind = match () {
            () if kind.is_fifo() => Kind::Pipe,
            () if kind.is_socket() => Kind::Socket,
            () => Kind::Other,
        };
        Ok(Self::of(own.unwrap_or(shared), kind))
    }

    fn of(out: File, kind: Kind) -> Self {
        Self { out, has_failed: false, pending: Vec::new(), taken: 0, kind }
    }

    /// Something waits to be taken.
    pub(super) fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// It is waited for then, and not otherwise.
    pub(super) fn source(&self) -> Source<'_> {
        match self.is_pending() {
            true => Source::Wanted(self.out.as_fd(), EpollFlags::EPOLLOUT),
            false => Source::Aside(self.out.as_fd()),
        }
    }

    /// Writes a line, with one write where it is taken whole.
    ///
    /// # Errors
    /// It is not taken, nor will anything else be. This is told once.
    pub(super) fn write_line(&mut self, tag: &str, line: &[u8]) -> io::Result<()> {
        if self.has_failed {
            return Ok(());
        }
        let was_pending = self.is_pending();
        self.pending.reserve(tag.len() + line.len() + 1);
        self.pending.extend_from_slice(tag.as_bytes());
        self.pending.extend_from_slice(line);
        self.pending.push(b'\n');
        if was_pending { Ok(()) } else { self.flush() }
    }

    /// Writes what waits, as much as is taken.
    ///
    /// # Errors
    /// As of [`Self::write_line`].
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let out = &mut self.out;
        while let Some(rest) = self.pending.get(self.taken..).filter(|rest| !rest.is_empty()) {
            let written = match self.kind {
                Kind::Pipe => out.write(rest.get(..whole_len(rest)).unwrap_or(rest)),
                Kind::Socket => {
                    send(out.as_raw_fd(), rest, MsgFlags::MSG_DONTWAIT).map_err(io::Error::from)
                }
                Kind::Other => out.write(rest),
            };
            match written {
                Ok(0) => return Err(self.fail(io::ErrorKind::WriteZero.into())),
                Ok(len) => self.taken += len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(self.fail(error)),
            }
        }
        self.clear();
        Ok(())
    }

    fn fail(&mut self, error: io::Error) -> io::Error {
        self.has_failed = true;
        self.clear();
        error
    }

    fn clear(&mut self) {
        self.taken = 0;
        self.pending.clear();
        // Of a long line, which is rare.
        self.pending.shrink_to(256 << 10);
    }
}

/// How many of these bytes are written together: whole lines that a pipe takes in one piece, or else one line.
fn whole_len(lines: &[u8]) -> usize {
    let is_end = |byte: &u8| *byte == b'\n';
    let fitting = lines.get(..record_files::WHOLE_LEN_MAX).unwrap_or(lines);
    let last = fitting.iter().rposition(is_end);
    last.or_else(|| lines.iter().position(is_end)).map_or(lines.len(), |end| end + 1)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, pipe};
    use std::os::fd::OwnedFd;

    use nix::fcntl::{FcntlArg, OFlag, fcntl};

    use super::*;

    fn unread() -> (TaggedStdout, io::PipeReader) {
        let (reader, writer) = pipe().unwrap();
        let writer = OwnedFd::from(writer);
        fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        (TaggedStdout::of(writer.into(), Kind::Pipe), reader)
    }

    #[test]
    fn what_is_not_taken_waits_and_comes_out_in_order() {
        let (mut out, mut reader) = unread();
        let line = vec![b'x'; 100_000];
        out.write_line("1\t", &line).unwrap();
        assert!(out.is_pending(), "a pipe takes less");
        assert!(matches!(out.source(), Source::Wanted(..)));
        out.write_line("2\t", b"next").unwrap();
        let expected = [b"1\t", &line[..], b"\n2\tnext\n"].concat();
        let mut read = vec![0; expected.len()];
        let mut len = 0;
        while len < read.len() {
            len += reader.read(&mut read[len..]).unwrap();
            out.flush().unwrap();
        }
        assert!(read == expected);
        assert!(!out.is_pending());
    }

    #[test]
    fn what_a_pipe_takes_in_one_piece_ends_with_a_line() {
        let lines =
            |len: usize, count: usize| [vec![b'x'; len - 1], b"\n".to_vec()].concat().repeat(count);
        assert_eq!(whole_len(&lines(100, 3)), 300);
        assert_eq!(whole_len(&lines(100, 50)), 4000);
        assert_eq!(whole_len(&lines(4096, 2)), 4096);
        assert_eq!(whole_len(&lines(5000, 2)), 5000, "a longer one goes alone");
        assert_eq!(whole_len(b"the rest of one"), 15);
    }

    #[test]
    fn a_socket_that_nobody_reads_makes_nobody_wait() {
        let (reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut out = TaggedStdout::of(OwnedFd::from(writer).into(), Kind::Socket);
        for _ in 0..100 {
            out.write_line("1\t", &[b'x'; 10_000]).unwrap();
        }
        assert!(out.is_pending(), "its buffer holds less");
        drop(reader);
        assert_eq!(out.flush().unwrap_err().raw_os_error(), Some(libc::EPIPE));
    }

    #[test]
    fn a_reader_that_is_gone_is_told_once_and_nothing_waits_for_it() {
        let (mut out, reader) = unread();
        drop(reader);
        let error = out.write_line("1\t", b"line").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPIPE));
        out.write_line("1\t", b"line").unwrap();
        assert!(!out.is_pending());
    }
}
