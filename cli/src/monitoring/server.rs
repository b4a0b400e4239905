//! The thread that answers, and who may keep it busy.
//!
//! It has a runtime of its own, and one request a connection. Of more connections than are set aside the oldest ends, so
//! that clients who say nothing keep nobody out.
//!
//! Not here: what is answered (`answer.rs`). Invariant: a connection lasts no longer than its time, and takes no more than
//! its buffer.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use engine::RunView;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::{AbortHandle, LocalSet};
use tokio::time::{sleep, timeout};

use super::address::{Listening, MetricsAddress};
use super::answer::answer;
use crate::exit::{Exit, Failure};

/// Connections at once; each is a descriptor that no session gets.
pub(crate) const CONNECTIONS_MAX: usize = 32;

/// How long a request may take to come.
const REQUEST_TIME: Duration = Duration::from_secs(5);

/// How long a connection may last, its answer taken.
const CONNECTION_TIME: Duration = Duration::from_secs(10);

/// What a connection may hold of a request.
const BUFFER_LEN_MAX: usize = 8 << 10;

/// How soon accepting is tried again when it has failed, for want of a descriptor for example.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The address is taken, and nobody is answered yet.
#[derive(Debug)]
pub(crate) struct Monitoring {
    listening: Listening,
    runtime: tokio::runtime::Runtime,
}

impl Monitoring {
    /// Takes the address.
    ///
    /// # Errors
    /// It cannot be had, or no runtime.
    pub(crate) fn listen(address: &MetricsAddress) -> Result<Self, Failure> {
        let refused = |error| {
            let message = format!(
                "cannot listen on {address} for --metrics: {error}; choose another address, or end the \
                 program that uses this one"
            );
            Failure::new(Exit::Listen, message)
        };
        let listening = address.listen().map_err(refused)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Ok(Self { listening, runtime: runtime.map_err(refused)? })
    }

    /// Answers for this run from now on, by a thread that lives as long as the process.
    ///
    /// # Errors
    /// No thread can be had.
    pub(crate) fn answer_for(self, run: RunView) -> io::Result<Answering> {
        tracing::info!("metrics, ready and healthz are at {}", self.listening);
        let path = match &self.listening {
            Listening::Unix(_, path) => Some(path.clone()),
            Listening::Tcp(..) => None,
        };
        thread::Builder::new().name("metrics".into()).spawn(move || self.serve(&run))?;
        Ok(Answering { path })
    }

    fn serve(self, run: &RunView) {
        let Self { listening, runtime } = self;
        let served = LocalSet::new().block_on(&runtime, async move {
            match listening {
                Listening::Tcp(listener, _) => {
                    let listener = TcpListener::from_std(listener)?;
                    accept_all(async || Ok(listener.accept().await?.0), run).await
                }
                Listening::Unix(listener, _) => {
                    let listener = UnixListener::from_std(listener)?;
                    accept_all(async || Ok(listener.accept().await?.0), run).await
                }
            }
        });
        let Err::<Infallible, io::Error>(error) = served;
        tracing::warn!("metrics are not told any more: {error}; the run goes on");
    }
}

/// What is left of it in the file system goes with this.
#[derive(Debug)]
pub(crate) struct Answering {
    path: Option<PathBuf>,
}

impl Drop for Answering {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Serves whom `accept` brings, for ever.
async fn accept_all<S: AsyncRead + AsyncWrite + Unpin + 'static>(
    mut accept: impl AsyncFnMut() -> io::Result<S>,
    run: &RunView,
) -> io::Result<Infallible> {
    let mut connections = VecDeque::<AbortHandle>::new();
    loop {
        let Ok(stream) = accept().await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        connections.retain(|connection| !connection.is_finished());
        if connections.len() >= CONNECTIONS_MAX
            && let Some(oldest) = connections.pop_front()
        {
            oldest.abort();
        }
        let served = tokio::task::spawn_local(serve_connection(stream, run.clone()));
        connections.push_back(served.abort_handle());
    }
}

/// Answers one request.
async fn serve_connection(stream: impl AsyncRead + AsyncWrite + Unpin, run: RunView) {
    let service = service_fn(async |request| Ok::<_, Infallible>(answer(&request, &run)));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIME)
        .max_buf_size(BUFFER_LEN_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // Whoever breaks off, or is too slow, has lost an answer and nothing else.
    let _ = timeout(CONNECTION_TIME, connection).await;
}
