//! The session of a mlet with its endpoint, for many things at once on any executor, or on none.
//!
//! [`AsyncClient`] has the methods of [`Client`] with `&self` and `async`. Its session's bytes are moved by a thread of its
//! own ([`AsyncClient::on_stdin`]), so that it needs no runtime and gets along with each; or by [`Client::block_on`],
//! which is an executor for one future and takes no thread.
//!
//! Not here: what is asked and how it is waited for (`talk`, `requests`, `connection`).
//!
//! Invariant: a future that is dropped gives up what it waited for, and a connection that it was making is closed.

use std::fmt;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use packetlab::message::{Message, Open, Packet, Socket};
use packetlab::program::Program;
use packetlab::time::Ticks;

use crate::client::Client;
use crate::client_error::ClientError;
use crate::connection::Connection;
use crate::dns::LookUp;
use crate::notification::Notification;
use crate::requests::{Received, Sent};
use crate::session::SessionStream;
use crate::talk::{Asked, Talk};
use crate::turn::{READ_LEN, send, turn};

/// The session with the endpoint, as [`Client`] has it. Clones are of the same session, which ends with the last of them
/// or, if [`Client::block_on`] moves its bytes, with the client.
#[derive(Debug, Clone)]
pub struct AsyncClient {
    talk: Talk,
    /// Moves the session's bytes, if nobody else does.
    _driver: Option<Arc<Driver>>,
}

/// Ends a wait for the session's bytes.
struct Bell {
    hand: UnixStream,
    is_over: AtomicBool,
}

impl Bell {
    /// A bell, and what is to be waited for beside the session.
    fn new() -> Result<(Arc<Self>, UnixStream), ClientError> {
        let (hand, heard) = UnixStream::pair().map_err(ClientError::Io)?;
        hand.set_nonblocking(true).map_err(ClientError::Io)?;
        heard.set_nonblocking(true).map_err(ClientError::Io)?;
        Ok((Arc::new(Self { hand, is_over: AtomicBool::new(false) }), heard))
    }

    fn ring(&self) {
        // One that is full has been rung.
        let _ = (&self.hand).write(&[0]);
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }
}

/// Lets a bell be silent again.
fn still(mut heard: &UnixStream) {
    let mut rung = [0; 256];
    while matches!(heard.read(&mut rung), Ok(len) if len == rung.len()) {}
}

/// The thread of a session.
struct Driver {
    bell: Arc<Bell>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").finish_non_exhaustive()
    }
}

impl Driver {
    fn start(talk: Talk, mut stream: SessionStream) -> Result<Self, ClientError> {
        let (bell, heard) = Bell::new()?;
        let rung = bell.clone();
        talk.lock().set_bell(move || rung.ring());
        let watched = bell.clone();
        let drive = move || {
            let mut buffer = vec![0; READ_LEN];
            while turn(&talk, &mut stream, &mut buffer, Some(heard.as_fd())) {
                still(&heard);
                // Looked at behind the bell, which is rung when it is set.
                if watched.is_over.load(Ordering::Acquire) {
                    break;
                }
            }
            send(&mut talk.lock().exchange, &mut stream);
        };
        let named = thread::Builder::new().name("session".to_owned());
        let thread = named.spawn(drive).map_err(ClientError::Io)?;
        Ok(Self { bell, thread: Some(thread) })
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.bell.is_over.store(true, Ordering::Release);
        self.bell.ring();
        // It sends what waits, as far as that is taken at once.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Client {
    /// Moves the session's bytes until `doing` is done, which may do many things at once with [`Self::handle`]; whatever
    /// else it waits for has to wake it.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # fn main() -> std::process::ExitCode {
    /// mlet::run("at-once", |client, endpoint, servers| {
    ///     let handle = &client.handle();
    ///     let remotes = servers.iter().map(|server| mlet::resolve(server, 80));
    ///     let remotes: Vec<_> = remotes.collect::<Result<_, _>>()?;
    ///     let connecting = (0..).zip(remotes).map(|(sktid, remote)| {
    ///         handle.connect(Duration::from_secs(10), sktid, remote, 4096)
    ///     });
    ///     let connections = client.block_on(mlet::join_all(connecting))?;
    ///     for (server, connection) in servers.iter().zip(&connections) {
    ///         mlet::JsonLine::new(endpoint).text("server", server).connection(connection).print()?;
    ///     }
    ///     Ok(())
    /// })
    /// # }
    /// ```
    ///
    /// # Errors
    /// There are too many open files.
    pub fn block_on<T>(&mut self, doing: impl Future<Output = T>) -> Result<T, ClientError> {
        let (bell, heard) = Bell::new()?;
        let waker = Waker::from(bell);
        let mut context = Context::from_waker(&waker);
        let mut doing = pin!(doing);
        loop {
            still(&heard);
            if let Poll::Ready(done) = doing.as_mut().poll(&mut context) {
                self.flush();
                return Ok(done);
            }
            self.turn(Some(heard.as_fd()));
        }
    }

    /// The same session for futures, whose bytes move in [`Self::block_on`] alone.
    #[must_use]
    pub fn handle(&self) -> AsyncClient {
        AsyncClient { talk: self.talk(), _driver: None }
    }
}

/// Does all of these at once; what became of each, in their order.
pub async fn join_all<F: Future>(doing: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut doing: Vec<_> = doing.into_iter().map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        let mut is_done = true;
        for (future, output) in &mut doing {
            if output.is_none() {
                match future.as_mut().poll(context) {
                    Poll::Ready(done) => *output = Some(done),
                    Poll::Pending => is_done = false,
                }
            }
        }
        if is_done { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    doing.into_iter().filter_map(|(_, output)| output).collect()
}

impl AsyncClient {
    /// The session on fd 0; see [`Client::on_stdin`]. It takes a thread.
    ///
    /// # Errors
    /// Fd 0 is not a socket, or there can be no thread.
    pub fn on_stdin(silence_max: Duration) -> Result<Self, ClientError> {
        Self::new(SessionStream::on_stdin().map_err(ClientError::Io)?, silence_max)
    }

    /// The session on `stream`, as [`Self::on_stdin`].
    ///
    /// # Errors
    /// It is no socket, or there can be no thread.
    pub fn new(
        stream: impl Into<SessionStream>,
        silence_max: Duration,
    ) -> Result<Self, ClientError> {
        let stream = stream.into();
        stream.check().map_err(ClientError::Io)?;
        let talk = Talk::on_system_clocks(silence_max);
        let driver = Driver::start(talk.clone(), stream)?;
        Ok(Self { talk, _driver: Some(Arc::new(driver)) })
    }

    /// See [`Client::set_session_deadline`].
    pub fn set_session_deadline(&self, deadline: Instant) {
        self.talk.set_session_deadline(Some(deadline));
    }

    /// See [`Client::open`].
    ///
    /// # Errors
    /// As there.
    pub async fn open(
        &self,
        sktid: u8,
        open: Open,
        receive_buffer_len: u32,
    ) -> Result<(), ClientError> {
        self.talk.open(sktid, open, receive_buffer_len).await
    }

    /// See [`Client::connect_within`]. Many are made at once with [`join_all`] and the like.
    ///
    /// # Errors
    /// As there.
    pub async fn connect(
        &self,
        timeout: Duration,
        sktid: u8,
        remote: SocketAddr,
        receive_buffer_len: u32,
    ) -> Result<Connection, ClientError> {
        self.talk.clone().connect(sktid, remote, receive_buffer_len, Some(timeout)).await
    }

    /// See [`Client::send`].
    ///
    /// # Errors
    /// As there.
    pub async fn send(
        &self,
        sktid: u8,
        time: Ticks,
        tag: NonZeroU16,
        packet: Packet<'_>,
    ) -> Result<Ticks, ClientError> {
        self.talk.send(sktid, time, tag, packet).await
    }

    /// See [`Client::wait_until_sent`].
    ///
    /// # Errors
    /// As there.
    pub async fn wait_until_sent(
        &self,
        sktid: u8,
        tag: NonZeroU16,
        timeout: Duration,
    ) -> Result<Sent, ClientError> {
        self.talk.wait_until_sent(sktid, tag, Some(timeout)).await
    }

    /// See [`Client::receive`].
    ///
    /// # Errors
    /// As there.
    pub async fn receive(
        &self,
        sktid: u8,
        timeout: Duration,
    ) -> Result<Option<Received>, ClientError> {
        self.talk.receive(sktid, Some(timeout)).await
    }

    /// See [`Client::look_up`].
    ///
    /// # Errors
    /// As there.
    pub async fn look_up(
        &self,
        sktid: u8,
        name: &str,
        server: SocketAddr,
        timeout: Duration,
    ) -> Result<LookUp, ClientError> {
        self.talk.look_up(sktid, name, server, timeout).await
    }

    /// See [`Client::finish`].
    ///
    /// # Errors
    /// As there.
    pub async fn finish(&self, socket: Socket, time: Ticks) -> Result<(), ClientError> {
        self.talk.finish(socket, time).await
    }

    /// See [`Client::capture`].
    ///
    /// # Errors
    /// As there.
    pub async fn capture(
        &self,
        socket: Socket,
        end: Ticks,
        filter: &Program,
    ) -> Result<(), ClientError> {
        self.talk.capture(socket, end, filter).await
    }

    /// See [`Client::close`].
    ///
    /// # Errors
    /// As there.
    pub async fn close(&self, sktid: u8) -> Result<(), ClientError> {
        self.request(&Message::Nclose { sktid }).await
    }

    /// See [`Client::read_memory`].
    ///
    /// # Errors
    /// As there.
    pub async fn read_memory(&self, address: u32, len: u16) -> Result<Vec<u8>, ClientError> {
        self.talk.read_memory(address, len, None).await
    }

    /// See [`Client::write_memory`].
    ///
    /// # Errors
    /// As there.
    pub async fn write_memory(&self, address: u32, data: &[u8]) -> Result<(), ClientError> {
        self.request(&Message::Mwrite { address, data }).await
    }

    /// See [`Client::clock`].
    ///
    /// # Errors
    /// As there.
    pub async fn clock(&self) -> Result<Ticks, ClientError> {
        self.talk.clock().await
    }

    /// See [`Client::request`].
    ///
    /// # Errors
    /// As there.
    pub async fn request(&self, request: &Message<'_>) -> Result<(), ClientError> {
        self.talk.request(request, None).await.map(drop)
    }

    /// See [`Client::ask`].
    ///
    /// # Errors
    /// As there.
    pub async fn ask(&self, request: &Message<'_>) -> Result<Asked, ClientError> {
        self.talk.ask(request, None).await
    }

    /// See [`Client::answer`].
    ///
    /// # Errors
    /// As there.
    pub async fn answer(
        &self,
        asked: &Asked,
        deadline: Option<Instant>,
    ) -> Result<Notification, ClientError> {
        self.talk.answer(asked, deadline).await
    }

    /// See [`Client::notification`]; by `deadline`, or as long as something comes.
    ///
    /// # Errors
    /// As there.
    pub async fn notification(
        &self,
        deadline: Option<Instant>,
    ) -> Result<Notification, ClientError> {
        self.talk.any_notification(deadline).await
    }

    /// See [`Client::first_of`].
    ///
    /// # Errors
    /// As there.
    pub async fn first_of(
        &self,
        sktids: &[u8],
        timeout: Duration,
    ) -> Result<Notification, ClientError> {
        self.talk.first_of(sktids, Some(timeout)).await
    }
}

#[cfg(test)]
mod tests;
