//! The bytes of a session: over the socket on fd 0, and over the pipes that the manager may offer beside it
//! (behaviour.md "Pipes beside the socket").
//!
//! Whoever writes to the pipe has chosen the pipes. So everything is written there, and read over the socket until
//! its end and over the pipe from then on.
//!
//! Not here: what the bytes say (`exchange`). Invariant: nothing is written to the socket where there are pipes.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, send};

/// The numbers of the pipes: the one that is read, a comma, and the one that is written.
const PIPES: &str = "PKTLAB_PIPES";

/// The session of a mlet, as a stream of bytes; reads and writes block. It ends with the process, and those that it has
/// started and that have its descriptors.
#[derive(Debug)]
pub struct SessionStream {
    socket: UnixStream,
    pipes: Option<Pipes>,
}

/// Neither blocks, so that a wait can end.
#[derive(Debug)]
struct Pipes {
    read: File,
    written: File,
    /// All that came over the socket has been read.
    socket_has_ended: bool,
}

/// What is waited for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) read: bool,
    pub(crate) write: bool,
}

impl SessionStream {
    /// The session that this process was started for: the socket on fd 0, and the pipes beside it if it is offered some.
    ///
    /// # Errors
    /// There is no fd 0.
    pub fn on_stdin() -> io::Result<Self> {
        let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        let offered = std::env::var(PIPES).ok();
        // Without them the socket does as well.
        let pipes = offered.and_then(|numbers| Pipes::open(&numbers).ok());
        Ok(Self { pipes, ..socket.into() })
    }

    /// It is offered pipes, which are used from its first write on.
    #[must_use]
    pub fn has_pipes(&self) -> bool {
        self.pipes.is_some()
    }

    /// Fails if this is no socket.
    pub(crate) fn check(&self) -> io::Result<()> {
        rustix::net::sockopt::socket_type(&self.socket)?;
        Ok(())
    }

    /// Reads what has come; `WouldBlock` if nothing has.
    pub(crate) fn read_now(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let of_socket = |socket: &UnixStream, bytes: &mut [u8]| {
            let (len, _) = rustix::net::recv(socket, bytes, RecvFlags::DONTWAIT)?;
            Ok(len)
        };
        let Some(pipes) = &mut self.pipes else { return of_socket(&self.socket, bytes) };
        if !pipes.socket_has_ended {
            match of_socket(&self.socket, bytes) {
                Ok(0) => pipes.socket_has_ended = true,
                read => return read,
            }
        }
        pipes.read.read(bytes)
    }

    /// Writes what there is room for; `WouldBlock` if there is none.
    pub(crate) fn write_now(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.pipes {
            Some(pipes) => pipes.written.write(bytes),
            // SIGPIPE is ignored in mlets, and here where this is no mlet.
            None => Ok(send(&self.socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?),
        }
    }

    /// Waits until one of those is possible, something comes over `bell`, or the time is over.
    pub(crate) fn wait(
        &self,
        wanted: Wanted,
        bell: Option<BorrowedFd<'_>>,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        let socket = self.socket.as_fd();
        let (read, written) = match &self.pipes {
            Some(Pipes { read, written, socket_has_ended: true }) => {
                (read.as_fd(), written.as_fd())
            }
            Some(Pipes { written, .. }) => (socket, written.as_fd()),
            None => (socket, socket),
        };
        let mut fds = Vec::with_capacity(3);
        if wanted.read {
            fds.push(PollFd::from_borrowed_fd(read, PollFlags::IN));
        }
        if wanted.write {
            fds.push(PollFd::from_borrowed_fd(written, PollFlags::OUT));
        }
        fds.extend(bell.map(|bell| PollFd::from_borrowed_fd(bell, PollFlags::IN)));
        // A time too long to be told is none.
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl From<UnixStream> for SessionStream {
    fn from(socket: UnixStream) -> Self {
        Self { socket, pipes: None }
    }
}

impl Read for SessionStream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.pipes.as_ref().is_none_or(|pipes| !pipes.socket_has_ended) {
            match self.socket.read(bytes) {
                Ok(0) if self.pipes.is_some() => {}
                read => return read,
            }
        }
        loop {
            match self.read_now(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait(Wanted { read: true, write: false }, None, None)?;
                }
                read => return read,
            }
        }
    }
}

impl Write for SessionStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(pipes) = &mut self.pipes else { return self.socket.write(bytes) };
        loop {
            match pipes.written.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut fds = [PollFd::new(&pipes.written, PollFlags::OUT)];
                    poll(&mut fds, None)?;
                }
                written => return written,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Pipes {
    /// Those of these numbers, which stay open beside them.
    fn open(numbers: &str) -> io::Result<Self> {
        let unknown = || io::Error::other("no two numbers");
        let (read, written) = numbers.split_once(',').ok_or_else(unknown)?;
        let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).map_err(io::Error::other)?;
        // Opened anew, each has flags of its own. A descriptor that is no pipe any more is somebody else's.
        let open = |number: &str, options: &mut OpenOptions| {
            let number: u32 = number.parse().map_err(|_| unknown())?;
            let options = options.custom_flags(nonblocking);
            pipe(options.open(format!("/proc/self/fd/{number}"))?)
        };
        let read = open(read, OpenOptions::new().read(true))?;
        let written = open(written, OpenOptions::new().write(true))?;
        Ok(Self { read, written, socket_has_ended: false })
    }
}

fn pipe(file: File) -> io::Result<File> {
    match file.metadata()?.file_type().is_fifo() {
        true => Ok(file),
        false => Err(io::Error::other("no pipe")),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{PipeReader, PipeWriter, pipe};
    use std::net::Shutdown;
    use std::os::fd::AsRawFd;

    use super::*;

    /// A session over pipes, and the manager's ends: socket, pipe to the mlet and from it.
    fn piped() -> (SessionStream, UnixStream, PipeWriter, PipeReader) {
        let (socket, far) = UnixStream::pair().unwrap();
        let ((read, to_mlet), (from_mlet, written)) = (pipe().unwrap(), pipe().unwrap());
        let pipes = Pipes::open(&format!("{},{}", read.as_raw_fd(), written.as_raw_fd())).unwrap();
        (SessionStream { pipes: Some(pipes), ..socket.into() }, far, to_mlet, from_mlet)
    }

    #[test]
    fn what_came_over_the_socket_is_read_before_what_comes_over_the_pipe() {
        let (mut session, mut far, mut to_mlet, _from_mlet) = piped();
        to_mlet.write_all(b" then the pipe").unwrap();
        far.write_all(b"first the socket,").unwrap();
        far.shutdown(Shutdown::Write).unwrap();
        drop(to_mlet);
        let mut came = String::new();
        session.read_to_string(&mut came).unwrap();
        assert_eq!(came, "first the socket, then the pipe");
    }

    #[test]
    fn everything_is_written_to_the_pipe_and_its_end_is_told() {
        let (mut session, far, _to_mlet, mut from_mlet) = piped();
        session.write_all(b"asked").unwrap();
        let mut came = [0; 5];
        from_mlet.read_exact(&mut came).unwrap();
        assert_eq!(&came, b"asked");
        far.set_nonblocking(true).unwrap();
        let nothing = (&far).read(&mut came).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        drop(from_mlet);
        assert_eq!(session.write(b"vain").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn what_would_block_says_so_and_waits_end() {
        let (mut session, far, _to_mlet, from_mlet) = piped();
        let short = Some(Duration::from_millis(1));
        for is_over in [false, true] {
            let silent = session.read_now(&mut [0]).unwrap_err();
            assert_eq!(silent.kind(), io::ErrorKind::WouldBlock, "{is_over}");
            session.wait(Wanted { read: true, write: false }, None, short).unwrap();
            far.shutdown(Shutdown::Write).unwrap();
        }
        let full = loop {
            match session.write_now(&[0; 4096]) {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        session.wait(Wanted { read: false, write: true }, None, short).unwrap();
        drop(from_mlet);
        assert_eq!(session.write_now(&[0]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_bell_ends_a_wait() {
        let (session, _far, _to_mlet, _from_mlet) = piped();
        let (bell, mut hand) = UnixStream::pair().unwrap();
        hand.write_all(b"x").unwrap();
        session.wait(Wanted { read: true, write: false }, Some(bell.as_fd()), None).unwrap();
    }

    #[test]
    fn numbers_that_are_not_those_of_pipes_are_not_used() {
        let (socket, _far) = UnixStream::pair().unwrap();
        let socket = socket.as_raw_fd();
        for numbers in ["", "3", "3,", ",4", "3,4,5", "-1,-1", "x,y", &format!("{socket},{socket}")]
        {
            assert!(Pipes::open(numbers).is_err(), "{numbers}");
        }
    }
}
