//! A socket in the file system that only its owner can connect to.
//!
//! Not here: who is answered there (`ctl`, `monitoring`). Invariant: no file goes but the socket that was made here, or one
//! that nobody listens on.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr, socket};
use nix::sys::stat::{Mode, fchmod};

/// Listens at this path. A socket that a program has left behind that is gone makes way.
///
/// # Errors
/// The kernel's.
pub(crate) fn listen(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    let bind = || -> io::Result<UnixListener> {
        let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        // Its file gets what the socket has (unix(7)), so that nobody else connects in between.
        fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
        socket::bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
        socket::listen(&socket, Backlog::MAXCONN)?;
        Ok(UnixListener::from(socket))
    };
    let listener = match bind() {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_left_behind(path) => {
            std::fs::remove_file(path)?;
            bind()
        }
        bound => bound,
    }?;
    let file = SocketFile { path: path.to_owned(), identity: identity(path)? };
    Ok((listener, file))
}

fn is_left_behind(path: &Path) -> bool {
    let is_socket = path.symlink_metadata().is_ok_and(|file| file.file_type().is_socket());
    is_socket && connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// Connects, at once or not at all: one that is stopped, and to which as many connect as wait there, does not answer, and
/// the error is that it would block.
pub(crate) fn connect(path: &Path) -> io::Result<UnixStream> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    socket::connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// Which file it is, whatever its name: device and inode.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    path.symlink_metadata().map(|file| (file.dev(), file.ino()))
}

/// The file of a socket. It goes with this, unless another has its name by then.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            // Whoever has removed it has done the same.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    /// As of a run that is stopped.
    #[test]
    fn a_socket_that_takes_nobody_is_no_one_that_was_left_behind_and_nobody_waits_for_it() {
        let path = std::env::temp_dir().join(format!("private-socket-{}", std::process::id()));
        let (listener, _file) = listen(&path).unwrap();
        socket::listen(&listener, Backlog::new(1).unwrap()).unwrap();
        // One more than that, as Linux has it.
        let _waiting = [(); 2].map(|()| connect(&path).unwrap());
        let full = connect(&path).map(drop).map_err(|error| error.kind());
        assert_eq!(full, Err(io::ErrorKind::WouldBlock));
        let (sender, told) = channel();
        let again = path.clone();
        std::thread::spawn(move || {
            sender.send(listen(&again).map(drop).map_err(|error| error.kind()))
        });
        assert_eq!(told.recv_timeout(Duration::from_secs(20)), Ok(Err(io::ErrorKind::AddrInUse)));
        assert!(path.exists());
    }
}
