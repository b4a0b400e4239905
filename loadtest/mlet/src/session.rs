//! The bytes of a session: over the socket on fd 0, and over the pipes that the manager may offer beside it
//! (behaviour.md "Pipes beside the socket").
//!
//! Whoever writes to the pipe has chosen the pipes. So everything is written there, and read over the socket until
//! its end and over the pipe from then on.
//!
//! Not here: what the bytes say (`conversation`). Invariant: nothing is written to the socket where there are pipes.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;

/// The numbers of the pipes: the one that is read, a comma, and the one that is written.
const PIPES: &str = "PKTLAB_PIPES";

/// The session of a mlet, as a stream of bytes; reads and writes block. It ends with the process, and those that it has
/// started and that have its descriptors.
#[derive(Debug)]
pub struct SessionStream {
    socket: UnixStream,
    pipes: Option<Pipes>,
    /// How long a read waits at most, and a write; `None` is for ever.
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
}

#[derive(Debug)]
struct Pipes {
    read: File,
    /// It does not block, so that a wait for it can end.
    written: File,
    /// All that came over the socket has been read.
    socket_has_ended: bool,
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

    /// Bounds every wait of a read: beyond it is `WouldBlock`.
    ///
    /// # Errors
    /// Fd 0 is no socket, or the time is zero.
    pub(crate) fn set_read_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        // A mlet may be told so often that a call for nothing would count.
        if self.pipes.as_ref().is_none_or(|pipes| !pipes.socket_has_ended) {
            self.socket.set_read_timeout(timeout)?;
        }
        self.read_timeout = timeout;
        Ok(())
    }

    /// Bounds every wait of a write: beyond it is `WouldBlock`.
    ///
    /// # Errors
    /// As [`Self::set_read_timeout`].
    pub(crate) fn set_write_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.socket.set_write_timeout(timeout)?;
        self.write_timeout = timeout;
        Ok(())
    }
}

impl From<UnixStream> for SessionStream {
    fn from(socket: UnixStream) -> Self {
        Self { socket, pipes: None, read_timeout: None, write_timeout: None }
    }
}

impl Read for SessionStream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let Some(pipes) = &mut self.pipes else { return self.socket.read(bytes) };
        if !pipes.socket_has_ended {
            match self.socket.read(bytes) {
                Ok(0) => pipes.socket_has_ended = true,
                read => return read,
            }
        }
        if self.read_timeout.is_some() {
            wait(&pipes.read, PollFlags::IN, self.read_timeout)?;
        }
        pipes.read.read(bytes)
    }
}

impl Write for SessionStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(pipes) = &mut self.pipes else { return self.socket.write(bytes) };
        loop {
            match pipes.written.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    wait(&pipes.written, PollFlags::OUT, self.write_timeout)?;
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
        let path = |number: &str| {
            let number: u32 = number.parse().map_err(|_| unknown())?;
            Ok::<_, io::Error>(format!("/proc/self/fd/{number}"))
        };
        let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).map_err(io::Error::other)?;
        // Opened anew, each has flags of its own. A descriptor that is no pipe any more is somebody else's.
        let read = pipe(OpenOptions::new().read(true).open(path(read)?)?)?;
        let written = OpenOptions::new().write(true).custom_flags(nonblocking).open(path(written)?);
        Ok(Self { read, written: pipe(written?)?, socket_has_ended: false })
    }
}

fn pipe(file: File) -> io::Result<File> {
    match file.metadata()?.file_type().is_fifo() {
        true => Ok(file),
        false => Err(io::Error::other("no pipe")),
    }
}

/// Waits until something of this kind is possible.
fn wait(file: &File, wanted: PollFlags, timeout: Option<Duration>) -> io::Result<()> {
    let timeout = timeout.map(Timespec::try_from).transpose().map_err(io::Error::other)?;
    match poll(&mut [PollFd::new(file, wanted)], timeout.as_ref())? {
        0 => Err(io::ErrorKind::WouldBlock.into()),
        _ => Ok(()),
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
    fn waits_for_a_pipe_are_bounded_as_those_for_a_socket_are() {
        let (mut session, far, _to_mlet, _from_mlet) = piped();
        session.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        session.set_write_timeout(Some(Duration::from_millis(1))).unwrap();
        for is_over in [false, true] {
            let silent = session.read(&mut [0]).unwrap_err();
            assert_eq!(silent.kind(), io::ErrorKind::WouldBlock, "{is_over}");
            far.shutdown(Shutdown::Write).unwrap();
        }
        let full = session.write_all(&vec![0; 4 << 20]).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
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
