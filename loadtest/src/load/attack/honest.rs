//! Who is measured: endpoints of the manager, or clients of a broker, each with a pause after all it does.
//!
//! With `echo` all endpoints but one send messages through sessions they hold, and that one opens new
//! sessions; with `short` all do. A set-up lasts from connect() to the first answer of the mlet; at a broker
//! from there until a subscriber has heard of what was published for it.
//!
//! Invariant: nothing is waited for longer than [`PATIENCE`]; what took longer has failed.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::at_hosts::BrokerClient;
use crate::load::error::LoadError;
use crate::load::host_process::Doors;
use crate::load::sessions::{Stream, message, read_to_end, round_trip};
use hosts::endpoint::Endpoint;

/// Longest that one session, round trip or publication may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// Least pause of an endpoint that opens new sessions beside those that hold theirs, and of a client of a broker,
/// which limits how much one key may ask of it in a second.
const NEWCOMER_PAUSE: Duration = Duration::from_millis(50);

/// Everybody who is measured.
pub(super) struct Honest {
    message: Vec<u8>,
    /// Each sends messages through its session.
    holders: Vec<(Endpoint, Option<Stream>)>,
    /// Each opens new sessions.
    newcomers: Vec<Newcomer>,
}

#[derive(Clone)]
enum Newcomer {
    Endpoint(Endpoint),
    Client(BrokerClient),
}

/// What they saw.
#[derive(Debug, Default)]
pub(super) struct Measured {
    pub(super) trips: Vec<Duration>,
    pub(super) trip_failures: usize,
    pub(super) set_ups: Vec<Duration>,
    pub(super) set_up_failures: usize,
}

impl Honest {
    /// Endpoints that come to a manager; with `holds` all but the first hold their sessions.
    pub(super) fn at_manager(mut endpoints: Vec<Endpoint>, holds: bool, size: usize) -> Self {
        let holders = if holds { endpoints.split_off(1) } else { Vec::new() };
        Self {
            message: message(size),
            holders: holders.into_iter().map(|endpoint| (endpoint, None)).collect(),
            newcomers: endpoints.into_iter().map(Newcomer::Endpoint).collect(),
        }
    }

    /// So many clients of the broker behind these doors.
    pub(super) fn at_broker(count: usize, doors: Doors) -> Result<Self, LoadError> {
        let client = |_| BrokerClient::new(doors).map(Newcomer::Client);
        let newcomers = (0..count).map(client).collect::<Result<_, _>>()?;
        Ok(Self { message: Vec::new(), holders: Vec::new(), newcomers })
    }

    /// Opens the sessions that are held.
    pub(super) async fn prepare(&mut self) -> Result<(), LoadError> {
        for (endpoint, session) in &mut self.holders {
            let mut stream = open(endpoint).await?;
            within_patience(echo(&mut stream, &self.message)).await?;
            *session = Some(stream);
        }
        Ok(())
    }

    /// Lets them work for so long, and waits for what they have begun.
    pub(super) async fn measure(
        &mut self,
        duration: Duration,
        pause: Duration,
    ) -> Result<Measured, LoadError> {
        let end = Instant::now() + duration;
        let has_holders = !self.holders.is_empty();
        let mut tasks = JoinSet::new();
        for (endpoint, session) in self.holders.drain(..) {
            tasks.spawn(hold((endpoint, session), self.message.clone(), pause, end));
        }
        for newcomer in &self.newcomers {
            let pause = match newcomer {
                Newcomer::Endpoint(_) if !has_holders => pause,
                Newcomer::Endpoint(_) | Newcomer::Client(_) => pause.max(NEWCOMER_PAUSE),
            };
            tasks.spawn(come(newcomer.clone(), self.message.clone(), pause, end));
        }
        let mut all = Measured::default();
        // Kept, so that the memory after the attack is that of the same sessions.
        let mut kept = Vec::new();
        while let Some(joined) = tasks.join_next().await {
            let (measured, holder) = joined.map_err(std::io::Error::other)?;
            all.trips.extend(measured.trips);
            all.trip_failures += measured.trip_failures;
            all.set_ups.extend(measured.set_ups);
            all.set_up_failures += measured.set_up_failures;
            kept.extend(holder);
        }
        self.holders = kept;
        Ok(all)
    }
}

type Holder = (Endpoint, Option<Stream>);

/// One round trip after the other; a session that fails is replaced.
async fn hold(
    (endpoint, mut session): Holder,
    message: Vec<u8>,
    pause: Duration,
    end: Instant,
) -> (Measured, Option<Holder>) {
    let mut measured = Measured::default();
    while Instant::now() < end {
        let trip = async {
            let mut stream = match session.take() {
                Some(stream) => stream,
                None => open(&endpoint).await?,
            };
            let began = Instant::now();
            echo(&mut stream, &message).await?;
            Ok((stream, began.elapsed()))
        };
        match within_patience(trip).await {
            Ok((stream, time)) => {
                session = Some(stream);
                measured.trips.push(time);
            }
            Err(_) => measured.trip_failures += 1,
        }
        sleep(pause).await;
    }
    (measured, Some((endpoint, session)))
}

/// One session after the other.
async fn come(
    newcomer: Newcomer,
    message: Vec<u8>,
    pause: Duration,
    end: Instant,
) -> (Measured, Option<Holder>) {
    let mut measured = Measured::default();
    while Instant::now() < end {
        let set_up = match &newcomer {
            Newcomer::Endpoint(endpoint) => within_patience(session(endpoint, &message)).await,
            Newcomer::Client(client) => within_patience(client.publish_and_hear()).await,
        };
        match set_up {
            Ok(time) => measured.set_ups.push(time),
            Err(_) => measured.set_up_failures += 1,
        }
        sleep(pause).await;
    }
    (measured, None)
}

/// A whole session; how long until the mlet answered.
async fn session(endpoint: &Endpoint, message: &[u8]) -> Result<Duration, LoadError> {
    let began = Instant::now();
    let mut stream = open(endpoint).await?;
    echo(&mut stream, message).await?;
    let time = began.elapsed();
    stream.shutdown().await?;
    read_to_end(&mut stream).await?;
    Ok(time)
}

async fn open(endpoint: &Endpoint) -> Result<Stream, LoadError> {
    endpoint.open().await.map_err(|error| LoadError::Endpoint(error.to_string()))
}

async fn echo(stream: &mut Stream, message: &[u8]) -> Result<(), LoadError> {
    let mut answer = vec![0; message.len()];
    round_trip(stream, message, &mut answer).await
}

async fn within_patience<T>(
    work: impl Future<Output = Result<T, LoadError>>,
) -> Result<T, LoadError> {
    let late = |_| LoadError::Endpoint(format!("no answer in {} s", PATIENCE.as_secs()));
    timeout(PATIENCE, work).await.map_err(late)?
}
