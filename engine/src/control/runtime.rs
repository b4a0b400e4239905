//! What drives the control thread: tokio-uring, or plain tokio where io_uring is barred.
//!
//! Both run one thread's tasks, with tokio's timers; only how a connection reads and writes differs. Not here: what is
//! said on a connection (`peer.rs` and those who use it), and which driver a run uses (`driver/mod.rs`).

use std::io;
use std::net::TcpStream;

use tokio::task::LocalSet;

use crate::driver::Backend;

/// Runs `work` and the tasks that it spawns with [`tokio::task::spawn_local`].
///
/// # Errors
/// No runtime can be made.
pub(crate) fn block_on<T>(backend: Backend, work: impl Future<Output = T>) -> io::Result<T> {
    match backend {
        Backend::Uring => {
            let runtime = tokio_uring::Runtime::new(&tokio_uring::builder())?;
            Ok(runtime.block_on(work))
        }
        Backend::Epoll => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            Ok(LocalSet::new().block_on(&runtime, work))
        }
    }
}

/// A TCP connection of the runtime.
pub(super) enum Stream {
    /// Its socket blocks; an operation that is dropped loses its bytes.
    Uring(tokio_uring::net::TcpStream),
    /// Its socket does not block.
    Epoll(tokio::net::TcpStream),
}

impl Stream {
    /// One for a connection that is made.
    ///
    /// # Errors
    /// As the kernel says.
    pub(super) fn new(backend: Backend, connection: TcpStream) -> io::Result<Self> {
        connection.set_nonblocking(backend == Backend::Epoll)?;
        Ok(match backend {
            Backend::Uring => Self::Uring(tokio_uring::net::TcpStream::from_std(connection)),
            Backend::Epoll => Self::Epoll(tokio::net::TcpStream::from_std(connection)?),
        })
    }

    /// Receives into the spare room of `buffer`, and gives it back; nothing more is the end of the stream.
    pub(super) async fn read(&self, mut buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        match self {
            Self::Uring(stream) => stream.read(buffer).await,
            Self::Epoll(stream) => loop {
                let ready = stream.readable().await;
                match ready.and_then(|()| stream.try_read_buf(&mut buffer)) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    read => return (read, buffer),
                }
            },
        }
    }

    /// Sends all of `bytes`.
    ///
    /// # Errors
    /// Not all could be sent.
    pub(super) async fn write_all(&self, bytes: Vec<u8>) -> io::Result<()> {
        match self {
            Self::Uring(stream) => stream.write_all(bytes).await.0,
            Self::Epoll(stream) => {
                let mut rest = bytes.as_slice();
                while !rest.is_empty() {
                    stream.writable().await?;
                    match stream.try_write(rest) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        written => rest = rest.get(written?..).unwrap_or_default(),
                    }
                }
                Ok(())
            }
        }
    }
}
