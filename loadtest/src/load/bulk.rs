//! `up` and `down`: one direction at full speed.

use std::time::{Duration, Instant};

use clap::ValueEnum;
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use super::conditions::Conditions;
use super::error::LoadError;
use super::process;
use super::report::Report;
use super::sessions::{Stream, ended_early, is_sampled, join, message};
use super::start_times::Window;

/// Bytes taken from a stream at once.
const READ_LEN: usize = 64 * 1024;

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Direction {
    /// To the mlet
    Up,
    /// From the mlet
    Down,
}

/// All sessions at once.
pub(super) async fn bulk(
    report: &mut Report,
    streams: Vec<Stream>,
    direction: Direction,
    conditions: Conditions,
) -> Result<(), LoadError> {
    let window = Window::begin(conditions.pace);
    let mut tasks = JoinSet::new();
    for stream in streams {
        tasks.spawn(transfer(stream, direction, conditions.size, window));
    }
    window.warmed_up().await;
    let (before, began) = (process::cpu_of(conditions.pid)?, Instant::now());
    let bytes: u64 = join(tasks).await?.into_iter().sum();
    let (elapsed, cpu) = (began.elapsed(), process::cpu_of(conditions.pid)? - before);
    let messages = bytes / (conditions.size as u64 + 4);
    is_sampled(messages, "message")?;
    report.add("throughput", megabytes_per_second(bytes, elapsed), "MB/s");
    report.add("messages", messages as f64 / elapsed.as_secs_f64(), "/s");
    report.add("cpu per GB", cpu.as_secs_f64() * 1e9 / bytes as f64, "s");
    report.add("cpu of one core", 100.0 * cpu.div_duration_f64(elapsed), "%");
    Ok(())
}

/// Bytes in a time, as is usual of networks: millions.
pub(super) fn megabytes_per_second(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / 1e6 / time.as_secs_f64()
}

/// Moves messages of this payload until the window is over; how many bytes in its measured part.
pub(super) async fn transfer(
    stream: Stream,
    direction: Direction,
    size: usize,
    window: Window,
) -> Result<u64, LoadError> {
    match direction {
        Direction::Up => send(stream, &message(size), window).await,
        Direction::Down => take(stream, window).await,
    }
}

/// Sends messages, many in one write: an endpoint that batches would have to cut records by message,
/// but the relay accepts anything (spec/protocol.md 1.6).
async fn send(mut stream: Stream, message: &[u8], window: Window) -> Result<u64, LoadError> {
    let batch = message.repeat((READ_LEN / message.len()).max(1));
    let mut sent = 0;
    loop {
        let now = Instant::now();
        if now >= window.end {
            return Ok(sent);
        }
        stream.write_all(&batch).await.map_err(ended_early)?;
        sent += if now >= window.measured_from { batch.len() as u64 } else { 0 };
    }
}

async fn take(mut stream: Stream, window: Window) -> Result<u64, LoadError> {
    let (mut taken, mut bytes) = (0, vec![0; READ_LEN]);
    loop {
        let now = Instant::now();
        if now >= window.end {
            return Ok(taken);
        }
        let len = match stream.read(&mut bytes).await.map_err(ended_early)? {
            0 => return Err(LoadError::EndedEarly),
            len => len as u64,
        };
        taken += if now >= window.measured_from { len } else { 0 };
    }
}
