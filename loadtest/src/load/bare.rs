//! The round trip that the relay is compared with: bare TCP on loopback plus a bare socket pair, each
//! between two threads of this process, with the same number of bytes.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

const ROUND_TRIPS: usize = 5_000;

/// Median round trip over TCP plus that over a socket pair.
pub(super) fn round_trip(len: usize) -> io::Result<Duration> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let (far, _) = listener.accept()?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let tcp = median(near, far, len)?;
    let (near, far) = UnixStream::pair()?;
    Ok(tcp + median(near, far, len)?)
}

fn median<S: Read + Write + Send + 'static>(
    mut near: S,
    mut far: S,
    len: usize,
) -> io::Result<Duration> {
    let echo = thread::spawn(move || -> io::Result<()> {
        let mut bytes = vec![0; len];
        for _ in 0..ROUND_TRIPS {
            far.read_exact(&mut bytes)?;
            far.write_all(&bytes)?;
        }
        Ok(())
    });
    let mut histogram =
        Histogram::<u64>::new_with_max(60_000_000_000, 3).map_err(io::Error::other)?;
    let mut bytes = vec![0; len];
    for _ in 0..ROUND_TRIPS {
        let began = Instant::now();
        near.write_all(&bytes)?;
        near.read_exact(&mut bytes)?;
        histogram.saturating_record(began.elapsed().as_nanos() as u64);
    }
    echo.join().map_err(|_| io::Error::other("the echo thread panicked"))??;
    Ok(Duration::from_nanos(histogram.value_at_quantile(0.5)))
}
