//! Accepting connections within a limit, and ending them all.
//!
//! Invariant: every connection is served by a task of the [`Service`], and none outlives it.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::Listening;

/// Pause in accepting when open files or memory ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Between two log lines about a limit that is reached.
const LIMIT_LOG_PAUSE: Duration = Duration::from_secs(10);
/// How long connections may take to end tidily.
const END_GRACE: Duration = Duration::from_secs(2);

/// Listening sockets and the connections that came in through them.
#[derive(Debug)]
pub(crate) struct Service {
    ending: watch::Sender<bool>,
    doors: JoinSet<()>,
}

/// Tells when the service ends.
#[derive(Debug, Clone)]
pub(crate) struct Ending(watch::Receiver<bool>);

impl Ending {
    /// Waits for the end.
    pub(crate) async fn wait(&mut self) {
        // An error means that the service is gone.
        let _ = self.0.wait_for(|ended| *ended).await;
    }
}

impl Service {
    /// A service that serves nothing yet.
    pub(crate) fn new() -> Self {
        Self { ending: watch::Sender::new(false), doors: JoinSet::new() }
    }

    /// Tells when this service ends.
    pub(crate) fn ending(&self) -> Ending {
        Ending(self.ending.subscribe())
    }

    /// Serves connections, each in a task of its own that gives `room` back with its permit. Without
    /// room nobody is refused: the kernel's queue waits. `whom` is for the log.
    pub(crate) fn serve<F, S>(
        &mut self,
        sockets: Listening,
        room: &Arc<Semaphore>,
        whom: &'static str,
        serve: F,
    ) where
        F: Fn(TcpStream, SocketAddr, OwnedSemaphorePermit) -> S + Clone + Send + 'static,
        S: Future<Output = ()> + Send + 'static,
    {
        for address in sockets.addresses() {
            tracing::info!("listening on {address} for {whom}");
        }
        for listener in sockets.into_sockets() {
            let door = Door {
                listener,
                room: Arc::clone(room),
                whom,
                ending: self.ending(),
                connections: JoinSet::new(),
                logged: None,
            };
            self.doors.spawn(door.run(serve.clone()));
        }
    }

    /// Stops accepting, lets every connection end, and ends those that take too long.
    pub(crate) async fn end(mut self) {
        self.ending.send_replace(true);
        while self.doors.join_next().await.is_some() {}
    }
}

/// One listening socket.
struct Door {
    listener: TcpListener,
    room: Arc<Semaphore>,
    whom: &'static str,
    ending: Ending,
    connections: JoinSet<()>,
    /// When a limit was logged last.
    logged: Option<Instant>,
}

impl Door {
    async fn run<F, S>(mut self, serve: F)
    where
        F: Fn(TcpStream, SocketAddr, OwnedSemaphorePermit) -> S,
        S: Future<Output = ()> + Send + 'static,
    {
        let mut ending = self.ending.clone();
        loop {
            tokio::select! {
                () = ending.wait() => break,
                Some(_) = self.connections.join_next() => {}
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, peer)) => {
                        let permit = tokio::select! {
                            () = ending.wait() => break,
                            permit = self.permit() => permit,
                        };
                        if let Some(permit) = permit {
                            self.connections.spawn(serve(stream, peer, permit));
                        }
                    }
                    Err(error) => self.pause(&error).await,
                },
            }
        }
        drop(self.listener);
        let all_ended = async { while self.connections.join_next().await.is_some() {} };
        // What is left is aborted when the set is dropped.
        let _ = timeout(END_GRACE, all_ended).await;
    }

    async fn permit(&mut self) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() {
            return Some(permit);
        }
        self.log_limit("all connections that the limits allow are in use");
        // The error would be a closed semaphore; nobody closes it.
        Arc::clone(&self.room).acquire_owned().await.ok()
    }

    /// Errors of one connection pass; a lack of open files or memory takes some time to pass.
    async fn pause(&mut self, error: &io::Error) {
        let of_one_connection = matches!(
            error.kind(),
            io::ErrorKind::ConnectionAborted
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::Interrupted
        );
        if !of_one_connection {
            self.log_limit(&error.to_string());
            sleep(ACCEPT_PAUSE).await;
        }
    }

    fn log_limit(&mut self, what: &str) {
        let now = Instant::now();
        if self.logged.is_none_or(|logged| now - logged >= LIMIT_LOG_PAUSE) {
            self.logged = Some(now);
            tracing::warn!("new {} have to wait: {what}", self.whom);
        }
    }
}
