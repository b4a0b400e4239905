//! The round trip that the relay is compared with: bare TCP on loopback plus a bare socket pair, each
//! between two threads of this process, with the same number of bytes. The threads run where the
//! endpoint, the relay and the mlet of the run do.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use engine::sys::cpu;
use hdrhistogram::Histogram;

use super::placement::Placement;

/// Enough for a median, and longest that it may take: large messages take long.
const ROUND_TRIPS: usize = 5_000;
const TIME_MAX: Duration = Duration::from_secs(1);

/// Median round trip over TCP plus that over a socket pair.
pub(super) fn round_trip(len: usize, on: Placement) -> io::Result<Duration> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let (far, _) = listener.accept()?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let tcp = median((near, on.endpoint), (far, on.relay), len)?;
    let (near, far) = UnixStream::pair()?;
    Ok(tcp + median((near, on.relay), (far, on.mlet), len)?)
}

fn median<S: Read + Write + Send + 'static>(
    (mut near, near_core): (S, Option<usize>),
    (mut far, far_core): (S, Option<usize>),
    len: usize,
) -> io::Result<Duration> {
    let echo = thread::spawn(move || -> io::Result<()> {
        far_core.map_or(Ok(()), cpu::pin_this_thread)?;
        let mut bytes = vec![0; len];
        loop {
            match far.read_exact(&mut bytes) {
                Err(ended) if ended.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                read => read?,
            }
            far.write_all(&bytes)?;
        }
    });
    // A thread of its own, because this one stays where it is.
    let ask = thread::spawn(move || -> io::Result<Duration> {
        near_core.map_or(Ok(()), cpu::pin_this_thread)?;
        let mut histogram =
            Histogram::<u64>::new_with_max(60_000_000_000, 3).map_err(io::Error::other)?;
        let mut bytes = vec![0; len];
        let end = Instant::now() + TIME_MAX;
        for _ in 0..ROUND_TRIPS {
            let began = Instant::now();
            near.write_all(&bytes)?;
            near.read_exact(&mut bytes)?;
            histogram.saturating_record(began.elapsed().as_nanos() as u64);
            if Instant::now() >= end {
                break;
            }
        }
        Ok(Duration::from_nanos(histogram.value_at_quantile(0.5)))
    });
    // Joined first: it drops its end, and the other ends too.
    let median = ask.join().map_err(|_| io::Error::other("the asking thread panicked"))?;
    echo.join().map_err(|_| io::Error::other("the echo thread panicked"))??;
    median
}
