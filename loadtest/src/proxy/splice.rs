//! Passes bytes between two connections until both directions have ended.
//!
//! Not here: what the bytes mean.
//!
//! Invariant: a direction's end is passed on only after all its bytes. An idle session holds no
//! buffer.

use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::timeout;

/// Bytes taken at once.
const CHUNK_LEN: usize = 32 * 1024;

/// Bytes passed on in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Passed {
    /// From the endpoint to the controller.
    pub(super) up: u64,
    /// From the controller to the endpoint.
    pub(super) down: u64,
}

/// Joins an endpoint and a controller. When one side has closed, the other direction goes on as long
/// as it makes progress every `half_closed_timeout`. An error ends both directions at once.
pub(super) async fn splice(
    endpoint: &mut TcpStream,
    controller: &mut TcpStream,
    half_closed_timeout: Duration,
) -> (Passed, io::Result<()>) {
    let (up, down) = (AtomicU64::new(0), AtomicU64::new(0));
    let (from_endpoint, to_endpoint) = endpoint.split();
    let (from_controller, to_controller) = controller.split();
    let ended = {
        let mut upward = pin!(pass(from_endpoint, to_controller, &up));
        let mut downward = pin!(pass(from_controller, to_endpoint, &down));
        tokio::select! {
            ended = &mut upward => match ended {
                Ok(()) => finish(downward, &down, half_closed_timeout).await,
                error => error,
            },
            ended = &mut downward => match ended {
                Ok(()) => finish(upward, &up, half_closed_timeout).await,
                error => error,
            },
        }
    };
    (Passed { up: up.into_inner(), down: down.into_inner() }, ended)
}

/// The second direction, after the first has ended.
async fn finish(
    mut direction: impl Future<Output = io::Result<()>> + Unpin,
    passed: &AtomicU64,
    limit: Duration,
) -> io::Result<()> {
    loop {
        let before = passed.load(Ordering::Relaxed);
        match timeout(limit, &mut direction).await {
            Ok(ended) => return ended,
            Err(_) if passed.load(Ordering::Relaxed) == before => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            Err(_) => {}
        }
    }
}

async fn pass(from: ReadHalf<'_>, mut to: WriteHalf<'_>, passed: &AtomicU64) -> io::Result<()> {
    loop {
        from.readable().await?;
        let mut chunk = Vec::with_capacity(CHUNK_LEN);
        match from.try_read_buf(&mut chunk) {
            Ok(0) => return to.shutdown().await,
            Ok(count) => {
                to.write_all(&chunk).await?;
                passed.fetch_add(count as u64, Ordering::Relaxed);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}
