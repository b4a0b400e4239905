//! Passes bytes between two connections until both directions have ended.
//!
//! Not here: what the bytes mean.
//!
//! Invariant: a direction's end is passed on only after all its bytes. An idle session holds no
//! buffer. A side that waits for our kernel's acknowledgements before it sends on gets them at once.

use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use engine::proto::rhythm::Rhythm;
use engine::sys::socket::acknowledge_at_once;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::{Instant, timeout};

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
    let mut rhythm = Rhythm::default();
    loop {
        from.readable().await?;
        let mut chunk = Vec::with_capacity(CHUNK_LEN);
        match from.try_read_buf(&mut chunk) {
            Ok(0) => return to.shutdown().await,
            Ok(count) => {
                // Where messages end is hidden by TLS, so only late pieces tell that a side waits.
                if rhythm.note_received(count, false, Instant::now().into_std()) {
                    acknowledge_at_once(from.as_ref());
                }
                to.write_all(&chunk).await?;
                passed.fetch_add(count as u64, Ordering::Relaxed);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    async fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (near, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn an_endpoint_with_nagle_on_does_not_wait_for_delayed_acknowledgements() {
        const ROUNDS: usize = 41;
        let (mut endpoint, mut endpoints) = connection().await;
        let (mut controller, mut controllers) = connection().await;
        endpoint.set_nodelay(false).unwrap();
        for stream in [&endpoints, &controllers, &controller] {
            stream.set_nodelay(true).unwrap();
        }
        let rounds = async move {
            let mut times = Vec::new();
            for _ in 0..ROUNDS {
                let start = Instant::now();
                // A message in two pieces, and one answer to the whole.
                endpoint.write_all(&[7; 4]).await.unwrap();
                endpoint.write_all(&[7; 60]).await.unwrap();
                controller.read_exact(&mut [0; 64]).await.unwrap();
                controller.write_all(&[8; 10]).await.unwrap();
                endpoint.read_exact(&mut [0; 10]).await.unwrap();
                times.push(start.elapsed());
            }
            times
        };
        let limit = Duration::from_secs(5);
        let (mut times, (_, ended)) =
            tokio::join!(rounds, splice(&mut endpoints, &mut controllers, limit));
        ended.unwrap();
        times.sort_unstable();
        // Linux delays an acknowledgement by 40 ms, so that each round would take that long.
        assert!(times[ROUNDS / 2] < Duration::from_millis(20), "{times:?}");
    }
}
