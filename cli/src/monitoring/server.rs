//! The thread that answers, and who may keep it busy.
//!
//! It has a runtime of its own, and one request a connection. Of more connections than are set aside the oldest ends, so
//! that clients who say nothing keep nobody out. Those on which a page is told what changes have places of their own, and
//! end when nothing is taken any more.
//!
//! Not here: what is answered (`answer.rs`). Invariant: a connection lasts no longer than its time, and takes no more than
//! its buffer.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::os::fd::AsFd;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use engine::sys::lack::Lack;
use engine::{RunView, Steering};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::socket::{setsockopt, sockopt::SndBuf};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, LocalSet, spawn_local};
use tokio::time::{Instant, sleep, timeout_at};

use super::address::{Listening, MetricsAddress};
use super::answer::{Site, answer};
use super::live::{Place, STREAMS_MAX, Watched, page};
use crate::exit::{Exit, Failure};
use crate::private_socket::SocketFile;

/// Connections at once; each is a descriptor that no session gets.
pub(crate) const CONNECTIONS_MAX: usize = 32;

/// Of these, those that are no streams.
const REQUESTS_MAX: usize = CONNECTIONS_MAX - STREAMS_MAX;

/// How long a request may take to come.
const REQUEST_TIME: Duration = Duration::from_secs(5);

/// How long a connection may last, its answer taken.
const CONNECTION_TIME: Duration = Duration::from_secs(10);

/// How long the end of the program waits for those who watch the run to hear that it is over.
const END_PATIENCE: Duration = Duration::from_secs(1);

/// What a connection may hold of a request.
const BUFFER_LEN_MAX: usize = 8 << 10;

/// What the kernel may hold of an answer that is not taken; it takes twice as much memory.
const SEND_BUFFER_LEN: usize = 8 << 10;

/// How soon accepting is tried again when it has failed, for want of a descriptor for example.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// For [`Lack`]: what answering takes.
const LISTENING: &str = "listen for --metrics (socket, setsockopt, fchmod, bind, listen, ioctl, epoll_create1, eventfd2)";

/// The address is taken, and nobody is answered yet.
#[derive(Debug)]
pub(crate) struct Monitoring {
    listening: Listening,
    /// Of the socket, if it has one.
    file: Option<SocketFile>,
    /// The host that was typed, if any was.
    host: Option<String>,
    runtime: tokio::runtime::Runtime,
}

impl Monitoring {
    /// Takes the address.
    ///
    /// # Errors
    /// It cannot be had, or no runtime.
    pub(crate) fn listen(address: &MetricsAddress) -> Result<Self, Failure> {
        let refused = |error: io::Error| {
            if Lack::is_why(&error) {
                return Lack::new(LISTENING, error).into();
            }
            let advice = match (error.kind(), address) {
                (io::ErrorKind::PermissionDenied, MetricsAddress::Unix(_)) => {
                    "choose a path in a folder of yours"
                }
                (io::ErrorKind::PermissionDenied, MetricsAddress::Tcp(_)) => {
                    "a port below 1024 takes CAP_NET_BIND_SERVICE; choose another"
                }
                _ => "choose another address, or end the program that uses this one",
            };
            let message = format!("cannot listen on {address} for --metrics: {error}; {advice}");
            Failure::new(Exit::Listen, message)
        };
        let (listening, file) = address.listen().map_err(refused)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let host = match address {
            MetricsAddress::Tcp(typed) => Some(typed.host.clone()),
            MetricsAddress::Unix(_) => None,
        };
        Ok(Self { listening, file, host, runtime: runtime.map_err(refused)? })
    }

    /// Answers from now on for a run of this mlet, by a thread that lives as long as the process.
    ///
    /// # Errors
    /// No thread can be had.
    pub(crate) fn answer_for(
        mut self,
        mlet: &str,
        (run, steering): (RunView, Steering),
    ) -> io::Result<Answering> {
        tracing::info!("a page, metrics, ready and healthz are at {}", self.listening);
        let file = self.file.take();
        let (over, is_over) = oneshot::channel();
        let page = page(mlet);
        let serve = move || {
            let (host, page) = (self.host.clone(), page.into());
            let watched = Watched::new(run.clone(), steering);
            self.serve(Rc::new(Site { run, watched, page, host }), is_over);
        };
        thread::Builder::new().name("metrics".into()).spawn(serve)?;
        Ok(Answering { _file: file, over: Some(over) })
    }

    fn serve(self, site: Rc<Site>, is_over: oneshot::Receiver<SyncSender<()>>) {
        let Self { listening, runtime, .. } = self;
        let served = LocalSet::new().block_on(&runtime, async move {
            let of_site = Rc::clone(&site);
            spawn_local(async move { of_site.watched.follow(is_over).await });
            match listening {
                Listening::Tcp(listener, _) => {
                    let listener = TcpListener::from_std(listener)?;
                    accept_all(async || Ok(listener.accept().await?.0), &site).await
                }
                Listening::Unix(listener, _) => {
                    let listener = UnixListener::from_std(listener)?;
                    accept_all(async || Ok(listener.accept().await?.0), &site).await
                }
            }
        });
        let Err::<Infallible, io::Error>(error) = served;
        tracing::warn!("metrics are not told any more: {error}; the run goes on");
    }
}

/// When this goes, those who watch the run are told that it is over; what is left of it in the file system goes as well.
#[derive(Debug)]
pub(crate) struct Answering {
    _file: Option<SocketFile>,
    over: Option<oneshot::Sender<SyncSender<()>>>,
}

impl Drop for Answering {
    fn drop(&mut self) {
        let (told, is_told) = sync_channel(1);
        if self.over.take().is_some_and(|over| over.send(told).is_ok()) {
            // Whoever takes longer has lost the end and nothing else.
            let _ = is_told.recv_timeout(END_PATIENCE);
        }
    }
}

/// Until when a connection may last.
#[derive(Debug)]
struct Term {
    end: Instant,
    /// It is a stream, which lasts as long as what is told is taken.
    stream: RefCell<Option<Rc<Place>>>,
}

impl Term {
    fn end(&self) -> Instant {
        self.stream.borrow().as_ref().map_or(self.end, |place| place.due())
    }

    fn is_stream(&self) -> bool {
        self.stream.borrow().is_some()
    }
}

/// Serves whom `accept` brings, for ever.
async fn accept_all<S: AsyncRead + AsyncWrite + AsFd + Unpin + 'static>(
    mut accept: impl AsyncFnMut() -> io::Result<S>,
    site: &Rc<Site>,
) -> io::Result<Infallible> {
    let mut requests = VecDeque::<(AbortHandle, Weak<Term>)>::new();
    loop {
        let Ok(stream) = accept().await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        // It stays as large as the kernel makes it, then.
        let _ = setsockopt(&stream, SndBuf, &SEND_BUFFER_LEN);
        requests.retain(|(_, term)| term.upgrade().is_some_and(|term| !term.is_stream()));
        if requests.len() >= REQUESTS_MAX
            && let Some((oldest, _)) = requests.pop_front()
        {
            oldest.abort();
        }
        let end = Instant::now() + CONNECTION_TIME;
        let term = Rc::new(Term { end, stream: RefCell::default() });
        let entry = Rc::downgrade(&term);
        let served = spawn_local(serve_connection(stream, Rc::clone(site), term));
        requests.push_back((served.abort_handle(), entry));
    }
}

/// Answers one request.
async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    site: Rc<Site>,
    term: Rc<Term>,
) {
    let service = service_fn(async |request| {
        let (answer, place) = answer(&request, &site).await;
        term.stream.replace(place);
        Ok::<_, Infallible>(answer)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIME)
        .max_buf_size(BUFFER_LEN_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    loop {
        let end = term.end();
        // Whoever breaks off, or is too slow, has lost an answer and nothing else.
        if timeout_at(end, &mut connection).await.is_ok() || term.end() <= end {
            return;
        }
    }
}
