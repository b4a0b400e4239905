//! A connection of ours to a broker or proxy, on the control thread's runtime.
//!
//! Invariant: an operation under way is never dropped, which would lose its bytes; what is to end it
//! early shuts the socket down and waits for it to finish.

use std::fmt;
use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::time::{Duration, Instant};

use nix::libc;
use socket2::SockRef;
use tokio::io::Interest;
use tokio::sync::watch;
use tokio::time::sleep_until;

use super::clock::now;
use super::runtime::Stream;
use crate::driver::Backend;
use crate::sys::socket;
use crate::sys::watch::Watched;

/// The most bytes that one read takes.
const READ_LEN: usize = 4096;

/// How long the last bytes before a close may take to leave. They fit into any socket's buffer.
const FAREWELL_TIMEOUT: Duration = Duration::from_millis(50);

/// Tells tasks to end.
#[derive(Debug, Clone)]
pub(super) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// One that is given with `true`.
    pub(super) fn new() -> (watch::Sender<bool>, Self) {
        let (sender, receiver) = watch::channel(false);
        (sender, Self(receiver))
    }

    /// Waits until it is given.
    pub(super) async fn given(&mut self) {
        // It fails when nobody can give it any more, which ends the tasks as well.
        let _ = self.0.wait_for(|given| *given).await;
    }
}

/// Why a connection is of no more use.
#[derive(Debug)]
pub(super) enum PeerError {
    /// It cannot be made.
    Connect(SocketAddr, io::Error),
    /// There is no address at which it could be made.
    NotFound,
    /// It broke.
    Broken(io::Error),
    /// Something did not happen in time.
    TimedOut,
    /// We are to end.
    Stopped,
}

impl fmt::Display for PeerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(address, error) => write!(f, "cannot connect to {address}: {error}"),
            Self::NotFound => {
                f.write_str("its name cannot be found; SIGHUP has it looked up again")
            }
            Self::Broken(error) => write!(f, "the connection broke: {error}"),
            Self::TimedOut => f.write_str("no answer in time"),
            Self::Stopped => f.write_str("stopped"),
        }
    }
}

impl std::error::Error for PeerError {}

/// The connection.
pub(super) struct Peer {
    /// A duplicate of `socket`, for the runtime.
    stream: Stream,
    socket: OwnedFd,
    address: SocketAddr,
    stop: Stop,
    buffer: Vec<u8>,
}

impl Peer {
    /// Connects to the first address of `addresses` that lets us, each within `timeout`.
    ///
    /// # Errors
    /// The last address's.
    pub(super) async fn connect(
        addresses: &[SocketAddr],
        timeout: Duration,
        backend: Backend,
        stop: &Stop,
    ) -> Result<Self, PeerError> {
        let mut last = PeerError::NotFound;
        for address in addresses {
            match Self::connect_one(*address, now() + timeout, backend, stop.clone()).await {
                Err(error) if !matches!(error, PeerError::Stopped) => last = error,
                ended => return ended,
            }
        }
        Err(last)
    }

    async fn connect_one(
        address: SocketAddr,
        deadline: Instant,
        backend: Backend,
        mut stop: Stop,
    ) -> Result<Self, PeerError> {
        let failed = |error| PeerError::Connect(address, error);
        let socket = socket::start_connecting(address).map_err(failed)?;
        let socket = Watched::new(socket).map_err(failed)?;
        while !socket::finish_connecting(&socket.inner).map_err(failed)? {
            // Only readiness is waited for, so a wait that is dropped loses nothing.
            tokio::select! {
                ready = socket.ready(Interest::WRITABLE) => ready.map_err(failed)?,
                () = sleep_until(deadline.into()) => {
                    return Err(failed(io::ErrorKind::TimedOut.into()));
                }
                () = stop.given() => return Err(PeerError::Stopped),
            }
        }
        let socket: std::net::TcpStream = socket.into_inner().into();
        let stream = socket.try_clone().and_then(|socket| Stream::new(backend, socket));
        let stream = stream.map_err(failed)?;
        Ok(Self { stream, socket: socket.into(), address, stop, buffer: Vec::new() })
    }

    /// The other side.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Our side's IP address.
    ///
    /// # Errors
    /// The connection is gone.
    pub(super) fn local_ip(&self) -> Result<IpAddr, PeerError> {
        let address = SockRef::from(&self.socket).local_addr().map_err(PeerError::Broken)?;
        let address = address.as_socket().map(|address| address.ip());
        address.ok_or_else(|| PeerError::Broken(io::Error::from_raw_os_error(libc::EAFNOSUPPORT)))
    }

    /// Receives bytes until `deadline`; none are the end of the stream.
    ///
    /// # Errors
    /// Nothing more can be received.
    pub(super) async fn read(&mut self, deadline: Instant) -> Result<&[u8], PeerError> {
        self.read_unless(sleep_until(deadline.into())).await
    }

    /// Receives bytes, unless `over` comes first; none are the end of the stream.
    ///
    /// # Errors
    /// Nothing more can be received.
    pub(super) async fn read_unless(
        &mut self,
        over: impl Future<Output = ()>,
    ) -> Result<&[u8], PeerError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        buffer.reserve(READ_LEN);
        let mut stop = self.stop.clone();
        let operation = self.stream.read(buffer);
        let (result, buffer) =
            finish(operation, over, stop.given(), || self.end(Shutdown::Read)).await?;
        self.buffer = buffer;
        result.map_err(PeerError::Broken)?;
        Ok(&self.buffer)
    }

    /// Sends all of `bytes` until `deadline`.
    ///
    /// # Errors
    /// Not all could be sent.
    pub(super) async fn write(
        &mut self,
        bytes: Vec<u8>,
        deadline: Instant,
    ) -> Result<(), PeerError> {
        let mut stop = self.stop.clone();
        let operation = self.stream.write_all(bytes);
        let over = sleep_until(deadline.into());
        let result = finish(operation, over, stop.given(), || self.end(Shutdown::Write)).await?;
        result.map_err(PeerError::Broken)
    }

    /// Sends the last bytes, if the other side takes them at once, and closes.
    pub(super) async fn close(self, bytes: Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let operation = self.stream.write_all(bytes);
        let over = sleep_until((now() + FAREWELL_TIMEOUT).into());
        let shut = || self.end(Shutdown::Write);
        // Whether they arrived makes no difference to us.
        let _ = finish(operation, over, std::future::pending(), shut).await;
    }

    /// The socket, on which nothing is under way.
    pub(super) fn into_socket(self) -> OwnedFd {
        self.socket
    }

    fn end(&self, direction: Shutdown) {
        // It fails only when the connection is gone, which ends the operation as well.
        let _ = SockRef::from(&self.socket).shutdown(direction);
    }
}

/// Waits for `operation`. If `over` or `stop` comes first, `shut` makes it end, which is waited for.
async fn finish<T>(
    operation: impl Future<Output = T>,
    over: impl Future<Output = ()>,
    stop: impl Future<Output = ()>,
    shut: impl FnOnce(),
) -> Result<T, PeerError> {
    let mut operation = pin!(operation);
    let error = tokio::select! {
        done = &mut operation => return Ok(done),
        () = over => PeerError::TimedOut,
        () = stop => PeerError::Stopped,
    };
    shut();
    operation.await;
    Err(error)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;

    use super::super::runtime::block_on;
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    fn any_port() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    fn on_both(work: impl AsyncFn(Backend)) {
        for backend in [Backend::Uring, Backend::Epoll] {
            block_on(backend, work(backend)).unwrap();
        }
    }

    /// An address at which nobody listens.
    fn dead() -> SocketAddr {
        TcpListener::bind(any_port()).unwrap().local_addr().unwrap()
    }

    #[test]
    fn all_addresses_are_tried_in_order_and_the_first_that_answers_is_taken() {
        let listener = TcpListener::bind(any_port()).unwrap();
        let address = listener.local_addr().unwrap();
        on_both(async |backend| {
            let (_stopper, stop) = Stop::new();
            let peer =
                Peer::connect(&[dead(), address, dead()], TIMEOUT, backend, &stop).await.unwrap();
            assert_eq!(peer.address(), address);
            assert_eq!(peer.local_ip().unwrap(), address.ip());
            let dead = dead();
            let error = Peer::connect(&[dead], TIMEOUT, backend, &stop).await.err().unwrap();
            assert!(error.to_string().contains(&dead.to_string()), "{error}");
        });
    }

    #[test]
    fn a_silent_peer_is_given_up_at_the_deadline_and_can_still_be_taken_leave_of() {
        let listener = TcpListener::bind(any_port()).unwrap();
        let address = listener.local_addr().unwrap();
        on_both(async |backend| {
            let (_stopper, stop) = Stop::new();
            let mut peer = Peer::connect(&[address], TIMEOUT, backend, &stop).await.unwrap();
            let start = now();
            let ended = peer.read(start + Duration::from_millis(50)).await;
            assert!(matches!(ended, Err(PeerError::TimedOut)));
            assert!(start.elapsed() >= Duration::from_millis(50));
            peer.close(b"farewell".to_vec()).await;
            let (mut accepted, _) = listener.accept().unwrap();
            let mut said = String::new();
            accepted.read_to_string(&mut said).unwrap();
            assert_eq!(said, "farewell");
        });
    }

    #[test]
    fn a_peer_that_takes_no_more_is_given_up_at_the_deadline() {
        let listener = TcpListener::bind(any_port()).unwrap();
        let address = listener.local_addr().unwrap();
        on_both(async |backend| {
            let (_stopper, stop) = Stop::new();
            let mut peer = Peer::connect(&[address], TIMEOUT, backend, &stop).await.unwrap();
            let more_than_buffers_hold = vec![0; 64 << 20];
            let deadline = now() + Duration::from_millis(50);
            let ended = peer.write(more_than_buffers_hold, deadline).await;
            assert!(matches!(ended, Err(PeerError::TimedOut)));
        });
    }

    #[test]
    fn a_stop_ends_a_read_at_once_and_whatever_comes_after_it() {
        let listener = TcpListener::bind(any_port()).unwrap();
        let address = listener.local_addr().unwrap();
        on_both(async |backend| {
            let (stopper, stop) = Stop::new();
            let mut peer = Peer::connect(&[address], TIMEOUT, backend, &stop).await.unwrap();
            let reading =
                async { matches!(peer.read(now() + TIMEOUT).await, Err(PeerError::Stopped)) };
            let stopping = async { stopper.send(true).unwrap() };
            let (stopped, ()) = tokio::join!(reading, stopping);
            assert!(stopped);
        });
    }
}
