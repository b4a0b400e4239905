//! What the endpoints of each mode do, and what is measured meanwhile.

use std::io;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::client::TlsStream;

use super::bare;
use super::error::LoadError;
use super::mode::Mode;
use super::placement::Placement;
use super::process::{Usage, syns_sent_again};
use super::relays::Relay;
use super::report::Report;
use hosts::endpoint::Endpoint;

/// Type of the messages sent: private use, so that the relay has no opinion of them.
const MESSAGE_TYPE: u8 = 0x90;

/// Bytes taken from a stream at once.
const READ_LEN: usize = 64 * 1024;

pub(super) type Stream = TlsStream<TcpStream>;

pub(super) async fn measure(
    (mode, relay, placement): (Mode, Relay, Placement),
    endpoints: Vec<Endpoint>,
    size: usize,
    duration: Duration,
    pid: u32,
) -> Result<Report, LoadError> {
    let mut report = Report::default();
    report.add("endpoints", endpoints.len() as f64, "");
    match mode {
        Mode::Short => short(&mut report, relay, endpoints, duration, pid).await?,
        Mode::Storm => storm(&mut report, endpoints, size, pid).await?,
        Mode::Idle => idle(&mut report, endpoints, duration, pid).await?,
        Mode::Echo => echo(&mut report, placement, endpoints, size, duration, pid).await?,
        Mode::Up => {
            bulk(&mut report, open_all(endpoints, relay).await?, size, duration, pid, send_until)
                .await?;
        }
        Mode::Down => {
            bulk(&mut report, open_all(endpoints, relay).await?, size, duration, pid, take_until)
                .await?;
        }
    }
    Ok(report)
}

/// That something was measured: without a sample there are no figures.
fn is_sampled(count: u64, what: &'static str) -> Result<(), LoadError> {
    if count > 0 { Ok(()) } else { Err(LoadError::NoSample(what)) }
}

pub(super) fn message(size: usize) -> Vec<u8> {
    let mut message = vec![MESSAGE_TYPE];
    message.extend_from_slice(&(size as u32).to_be_bytes()[1..]);
    message.resize(message.len() + size, 0xa5);
    message
}

pub(super) fn histogram() -> Result<Histogram<u64>, LoadError> {
    Histogram::new_with_max(60_000_000_000, 3)
        .map_err(|error| LoadError::Io(io::Error::other(error)))
}

/// Awaits every task; the first failure is the run's.
async fn join<T: 'static>(mut tasks: JoinSet<Result<T, LoadError>>) -> Result<Vec<T>, LoadError> {
    let mut results = Vec::new();
    while let Some(joined) = tasks.join_next().await {
        results.push(joined.map_err(io::Error::other)??);
    }
    Ok(results)
}

async fn open(endpoint: &Endpoint, relay: Relay) -> Result<Stream, LoadError> {
    let opened = match relay {
        Relay::Pktxpmgr | Relay::Tokio => endpoint.open().await,
        Relay::Socat | Relay::Haproxy => endpoint.connect().await,
    };
    opened.map_err(|error| LoadError::Endpoint(error.to_string()))
}

async fn open_all(endpoints: Vec<Endpoint>, relay: Relay) -> Result<Vec<Stream>, LoadError> {
    let mut streams = Vec::new();
    for endpoint in &endpoints {
        streams.push(open(endpoint, relay).await?);
    }
    Ok(streams)
}

/// Reads until the other side closes.
pub(super) async fn read_to_end(stream: &mut Stream) -> Result<(), LoadError> {
    let mut bytes = vec![0; 1024];
    while stream.read(&mut bytes).await? > 0 {}
    Ok(())
}

/// Sends a message and takes what comes back, both at once: the mlet answers before it has all, and what is
/// on the way of a long one finds no room until some of the answer is taken.
pub(super) async fn round_trip(
    stream: &mut Stream,
    message: &[u8],
    answer: &mut [u8],
) -> Result<(), LoadError> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let send = async {
        writer.write_all(message).await?;
        writer.flush().await
    };
    tokio::try_join!(biased; send, reader.read_exact(answer)).map_err(ended_early)?;
    if answer == message { Ok(()) } else { Err(LoadError::Endpoint("wrong echo".into())) }
}

/// What it means that a session in which the mlet was to stay fails.
fn ended_early(error: io::Error) -> LoadError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::ConnectionReset => LoadError::EndedEarly,
        _ => error.into(),
    }
}

async fn short(
    report: &mut Report,
    relay: Relay,
    endpoints: Vec<Endpoint>,
    duration: Duration,
    pid: u32,
) -> Result<(), LoadError> {
    let (before, began) = (Usage::of(pid)?, Instant::now());
    let mut tasks = JoinSet::new();
    for endpoint in endpoints {
        tasks.spawn(async move {
            let mut times = Vec::new();
            while began.elapsed() < duration {
                let session_began = Instant::now();
                let mut stream = open(&endpoint, relay).await?;
                read_to_end(&mut stream).await?;
                // It is the endpoint's turn to close, or the manager would linger.
                stream.shutdown().await?;
                times.push(session_began.elapsed());
            }
            Ok(times)
        });
    }
    let mut histogram = histogram()?;
    for time in join(tasks).await?.into_iter().flatten() {
        histogram.saturating_record(time.as_nanos() as u64);
    }
    let (elapsed, used) = (began.elapsed(), Usage::of(pid)?);
    is_sampled(histogram.len(), "session")?;
    report.add("sessions", histogram.len() as f64, "");
    report.add("sessions", histogram.len() as f64 / elapsed.as_secs_f64(), "/s");
    report.add_times(&histogram);
    add_cpu(report, before, used, elapsed, histogram.len(), "cpu per session");
    report.add("fds at end", used.fds as f64, "");
    Ok(())
}

async fn storm(
    report: &mut Report,
    endpoints: Vec<Endpoint>,
    size: usize,
    pid: u32,
) -> Result<(), LoadError> {
    let syns_before = syns_sent_again()?;
    let (before, began) = (Usage::of(pid)?, Instant::now());
    let message = message(size);
    let mut tasks = JoinSet::new();
    for endpoint in endpoints {
        let message = message.clone();
        tasks.spawn(async move {
            let stream = open(&endpoint, Relay::Pktxpmgr).await?;
            Ok((stream, began.elapsed(), message))
        });
    }
    let sessions = join(tasks).await?;
    report.add_time("all set up after", began.elapsed());
    let held = Usage::of(pid)?;
    let mut ups = histogram()?;
    let mut requests = JoinSet::new();
    for (mut stream, up, message) in sessions {
        ups.saturating_record(up.as_nanos() as u64);
        requests.spawn(async move {
            let mut answer = vec![0; message.len()];
            round_trip(&mut stream, &message, &mut answer).await?;
            Ok(stream)
        });
    }
    let answered = join(requests).await?;
    is_sampled(answered.len() as u64, "session")?;
    report.add("answered", answered.len() as f64, "");
    report.add_time("all answered after", began.elapsed());
    report.add("SYNs sent again", (syns_sent_again()? - syns_before) as f64, "");
    report.add_times(&ups);
    add_cpu(report, before, held, began.elapsed(), answered.len() as u64, "cpu per session");
    add_held(report, before, held, answered.len());
    Ok(())
}

async fn idle(
    report: &mut Report,
    endpoints: Vec<Endpoint>,
    duration: Duration,
    pid: u32,
) -> Result<(), LoadError> {
    let before = Usage::of(pid)?;
    let streams = open_all(endpoints, Relay::Pktxpmgr).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let held = Usage::of(pid)?;
    tokio::time::sleep(duration).await;
    let after = Usage::of(pid)?;
    is_sampled(streams.len() as u64 * u64::from(!duration.is_zero()), "idle session")?;
    add_held(report, before, held, streams.len());
    report.add("cpu while idle", 100.0 * (after.cpu - held.cpu).div_duration_f64(duration), "%");
    Ok(())
}

async fn echo(
    report: &mut Report,
    placement: Placement,
    endpoints: Vec<Endpoint>,
    size: usize,
    duration: Duration,
    pid: u32,
) -> Result<(), LoadError> {
    // Those that echo do START.
    let streams = open_all(endpoints, Relay::Pktxpmgr).await?;
    let message = message(size);
    let bare = bare::round_trip(message.len(), placement)?;
    let (before, began) = (Usage::of(pid)?, Instant::now());
    let mut tasks = JoinSet::new();
    for mut stream in streams {
        let message = message.clone();
        tasks.spawn(async move {
            let (mut times, mut answer) = (Vec::new(), vec![0; message.len()]);
            while began.elapsed() < duration {
                let trip_began = Instant::now();
                round_trip(&mut stream, &message, &mut answer).await?;
                times.push(trip_began.elapsed());
            }
            Ok(times)
        });
    }
    let mut histogram = histogram()?;
    for time in join(tasks).await?.into_iter().flatten() {
        histogram.saturating_record(time.as_nanos() as u64);
    }
    let (elapsed, used) = (began.elapsed(), Usage::of(pid)?);
    is_sampled(histogram.len(), "round trip")?;
    report.add("round trips", histogram.len() as f64, "");
    report.add("round trips", histogram.len() as f64 / elapsed.as_secs_f64(), "/s");
    report.add_times(&histogram);
    report.add_time("bare TCP + socket pair p50", bare);
    add_cpu(report, before, used, elapsed, histogram.len(), "cpu per round trip");
    Ok(())
}

/// One direction at full speed; `transfer` tells how many bytes it moved.
async fn bulk<F>(
    report: &mut Report,
    streams: Vec<Stream>,
    size: usize,
    duration: Duration,
    pid: u32,
    transfer: fn(Stream, Vec<u8>, Instant) -> F,
) -> Result<(), LoadError>
where
    F: Future<Output = Result<u64, LoadError>> + 'static + Send,
{
    let (before, began) = (Usage::of(pid)?, Instant::now());
    let mut tasks = JoinSet::new();
    for stream in streams {
        tasks.spawn(transfer(stream, message(size), began + duration));
    }
    let bytes: u64 = join(tasks).await?.into_iter().sum();
    let (elapsed, used) = (began.elapsed(), Usage::of(pid)?);
    let messages = bytes / (size as u64 + 4);
    is_sampled(messages, "message")?;
    report.add("throughput", bytes as f64 / 1e6 / elapsed.as_secs_f64(), "MB/s");
    report.add("messages", messages as f64 / elapsed.as_secs_f64(), "/s");
    let cpu = used.cpu - before.cpu;
    report.add("cpu per GB", cpu.as_secs_f64() * 1e9 / bytes as f64, "s");
    report.add("cpu of one core", 100.0 * cpu.div_duration_f64(elapsed), "%");
    Ok(())
}

/// Sends messages, many in one write: an endpoint that batches would have to cut records by message,
/// but the relay accepts anything (spec/protocol.md 1.6).
async fn send_until(mut stream: Stream, message: Vec<u8>, end: Instant) -> Result<u64, LoadError> {
    let batch = message.repeat((READ_LEN / message.len()).max(1));
    let mut sent = 0;
    while Instant::now() < end {
        stream.write_all(&batch).await.map_err(ended_early)?;
        sent += batch.len() as u64;
    }
    Ok(sent)
}

async fn take_until(mut stream: Stream, _message: Vec<u8>, end: Instant) -> Result<u64, LoadError> {
    let (mut taken, mut bytes) = (0, vec![0; READ_LEN]);
    while Instant::now() < end {
        match stream.read(&mut bytes).await.map_err(ended_early)? {
            0 => return Err(LoadError::EndedEarly),
            len => taken += len as u64,
        }
    }
    Ok(taken)
}

fn add_cpu(
    report: &mut Report,
    before: Usage,
    after: Usage,
    elapsed: Duration,
    count: u64,
    name: &'static str,
) {
    let cpu = after.cpu - before.cpu;
    report.add(name, cpu.as_secs_f64() * 1e6 / count.max(1) as f64, "us");
    report.add("cpu of one core", 100.0 * cpu.div_duration_f64(elapsed), "%");
}

/// What each held session costs.
fn add_held(report: &mut Report, before: Usage, held: Usage, sessions: usize) {
    let sessions = sessions.max(1) as f64;
    let pss = held.pss_bytes.saturating_sub(before.pss_bytes) as f64;
    report.add("PSS per session", pss / sessions / 1024.0, "KiB");
    report.add("fds per session", held.fds.saturating_sub(before.fds) as f64 / sessions, "");
    report.add("threads", held.threads as f64, "");
}
