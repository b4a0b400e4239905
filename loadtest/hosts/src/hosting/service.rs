//! Accepting connections within limits, and ending them all.
//!
//! Invariant: every connection is served by a task of the [`Service`], and none outlives it. Each has a
//! place among the [`Places`].

use std::fmt::Arguments;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep, timeout};

use super::listen::Listening;
use super::log_lines::LogLines;
use super::places::{Place, Places};
use super::source::Source;

/// Pause in accepting when open files or memory ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Between two log lines about a limit that is reached.
const LIMIT_LOG_PAUSE: Duration = Duration::from_secs(10);
/// How long connections may take to end tidily.
const END_GRACE: Duration = Duration::from_secs(2);
/// How often it is told that log lines were left out, when no other line tells it.
const TELL_PAUSE: Duration = Duration::from_secs(10);
/// Who is sent away is closed so much later: original endpoints come again at once.
pub(crate) const HELD_FOR: Duration = Duration::from_secs(1);
/// So many of a listening socket are held meanwhile; further ones are closed at once.
pub(super) const HELD_MAX: usize = 64;
/// A dead peer is found after two minutes, as by pktxpmgr.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(60))
    .with_interval(Duration::from_secs(10))
    .with_retries(6);

/// Listening sockets and the connections that came in through them.
#[derive(Debug)]
pub(crate) struct Service {
    ending: watch::Sender<bool>,
    acceptors: JoinSet<()>,
    log: Arc<LogLines>,
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
        Self { ending: watch::Sender::new(false), acceptors: JoinSet::new(), log: LogLines::new() }
    }

    /// The log of its connections.
    pub(crate) fn log(&self) -> Arc<LogLines> {
        Arc::clone(&self.log)
    }

    /// Tells when this service ends.
    pub(crate) fn ending(&self) -> Ending {
        Ending(self.ending.subscribe())
    }

    /// Serves connections, each in a task of its own that gives its place among `places` back, also when it has to
    /// leave. While one waits for a place, the kernel's queue waits. One that gets none is closed without a
    /// word, after [`HELD_FOR`]. `whom` is for the log.
    pub(crate) fn serve<F, S>(
        &mut self,
        sockets: Listening,
        places: &Arc<Places>,
        whom: &'static str,
        serve: F,
    ) where
        F: Fn(TcpStream, SocketAddr, Place) -> S + Clone + Send + 'static,
        S: Future<Output = ()> + Send + 'static,
    {
        for address in sockets.addresses() {
            tracing::info!("listening on {address} for {whom}");
        }
        for listener in sockets.into_sockets() {
            let acceptor = Acceptor {
                listener,
                places: Arc::clone(places),
                whom,
                log: Arc::clone(&self.log),
                ending: self.ending(),
                connections: JoinSet::new(),
                sent_away: JoinSet::new(),
                logged: None,
            };
            self.acceptors.spawn(acceptor.run(serve.clone()));
        }
    }

    /// Stops accepting, lets every connection end, and ends those that take too long.
    pub(crate) async fn end(mut self) {
        self.ending.send_replace(true);
        while self.acceptors.join_next().await.is_some() {}
        self.log.tell();
    }
}

/// One listening socket.
struct Acceptor {
    listener: TcpListener,
    places: Arc<Places>,
    whom: &'static str,
    log: Arc<LogLines>,
    ending: Ending,
    connections: JoinSet<()>,
    /// At most [`HELD_MAX`].
    sent_away: JoinSet<()>,
    /// When a limit was logged last.
    logged: Option<Instant>,
}

impl Acceptor {
    async fn run<F, S>(mut self, serve: F)
    where
        F: Fn(TcpStream, SocketAddr, Place) -> S,
        S: Future<Output = ()> + Send + 'static,
    {
        let mut ending = self.ending.clone();
        let mut telling = interval(TELL_PAUSE);
        loop {
            tokio::select! {
                () = ending.wait() => break,
                Some(_) = self.connections.join_next() => {}
                Some(_) = self.sent_away.join_next() => {}
                _ = telling.tick() => self.log.tell(),
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, peer)) => {
                        let place = tokio::select! {
                            () = ending.wait() => break,
                            place = self.place(peer) => place,
                        };
                        if let Some(place) = place {
                            // Without it a dead peer is found later.
                            let _ = SockRef::from(&stream).set_tcp_keepalive(&KEEPALIVE);
                            self.connections.spawn(serve(stream, peer, place));
                        } else if self.sent_away.len() < HELD_MAX {
                            self.sent_away.spawn(async move {
                                sleep(HELD_FOR).await;
                                drop(stream);
                            });
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

    async fn place(&mut self, peer: SocketAddr) -> Option<Place> {
        let whom = self.whom;
        if self.places.is_full() {
            self.log_limit(format_args!(
                "new {whom} have to wait: all connections that the limits allow are in use"
            ));
        }
        let places = Arc::clone(&self.places);
        let place = places.enter(Source::of(peer.ip())).await;
        if let Err(reason) = &place {
            self.log_limit(format_args!(
                "one of the {whom}, {}, is sent away: {reason}",
                peer.ip()
            ));
        }
        place.ok()
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
            let whom = self.whom;
            self.log_limit(format_args!("new {whom} have to wait: {error}"));
            sleep(ACCEPT_PAUSE).await;
        }
    }

    fn log_limit(&mut self, what: Arguments<'_>) {
        let now = Instant::now();
        if self.logged.is_none_or(|logged| now - logged >= LIMIT_LOG_PAUSE) {
            self.logged = Some(now);
            tracing::warn!("{what}");
        }
    }
}

#[cfg(test)]
mod tests {
    use packetlab::address::HostPort;
    use tokio::io::AsyncReadExt;

    use super::*;

    /// When each of so many connections beside the one that is served was closed.
    async fn closed_after(count: usize) -> Vec<Duration> {
        let address = HostPort::parse("127.0.0.1:0").unwrap();
        let sockets = Listening::open(&address, 0).await.unwrap();
        let address = sockets.addresses()[0];
        let mut service = Service::new();
        let (connected, mut connections) = tokio::sync::mpsc::unbounded_channel();
        service.serve(sockets, &Places::new(9, 1), "peers", move |stream, _, place| {
            let _ = connected.send((stream, place));
            std::future::ready(())
        });
        let _first = TcpStream::connect(address).await.unwrap();
        let _served = connections.recv().await.unwrap();
        let started = Instant::now();
        let mut closing = JoinSet::new();
        for _ in 0..count {
            let mut stream = TcpStream::connect(address).await.unwrap();
            closing.spawn(async move {
                let ended = timeout(Duration::from_secs(30), stream.read(&mut [0])).await;
                assert!(matches!(ended, Ok(Ok(0) | Err(_))), "{ended:?}");
                started.elapsed()
            });
        }
        closing.join_all().await
    }

    #[tokio::test]
    async fn who_is_sent_away_is_held_for_a_second_unless_there_are_too_many() {
        assert!(closed_after(1).await[0] >= HELD_FOR);
        let held = closed_after(HELD_MAX + 9).await;
        let at_once = held.iter().filter(|elapsed| **elapsed < HELD_FOR).count();
        assert_eq!(at_once, 9, "{held:?}");
    }
}
