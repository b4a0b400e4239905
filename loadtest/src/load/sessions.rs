//! Sessions as all modes use them: opened, a message sent and answered, ended.
//!
//! Not here: which mode does what with them, and what is measured.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::client::TlsStream;

use super::error::LoadError;
use super::relays::Relay;
use hosts::endpoint::Endpoint;

/// Type of the messages sent: private use, so that the relay has no opinion of them.
const MESSAGE_TYPE: u8 = 0x90;

pub(super) type Stream = TlsStream<TcpStream>;

pub(super) fn message(size: usize) -> Vec<u8> {
    message_of_type(MESSAGE_TYPE, size)
}

pub(super) fn message_of_type(message_type: u8, size: usize) -> Vec<u8> {
    let mut message = vec![message_type];
    message.extend_from_slice(&(size as u32).to_be_bytes()[1..]);
    message.resize(message.len() + size, 0xa5);
    message
}

/// Awaits every task; the first failure is the run's.
pub(super) async fn join<T: 'static>(
    mut tasks: JoinSet<Result<T, LoadError>>,
) -> Result<Vec<T>, LoadError> {
    let mut results = Vec::new();
    while let Some(joined) = tasks.join_next().await {
        results.push(joined.map_err(io::Error::other)??);
    }
    Ok(results)
}

/// That something was measured: without a sample there are no figures.
pub(super) fn is_sampled(count: u64, what: &'static str) -> Result<(), LoadError> {
    if count > 0 { Ok(()) } else { Err(LoadError::NoSample(what)) }
}

pub(super) async fn open(endpoint: &Endpoint, relay: Relay) -> Result<Stream, LoadError> {
    let opened = match relay {
        Relay::Pktxpmgr | Relay::Tokio => endpoint.open().await,
        Relay::Socat | Relay::Haproxy => endpoint.connect().await,
    };
    opened.map_err(|error| LoadError::Endpoint(error.to_string()))
}

pub(super) async fn open_all(
    endpoints: Vec<Endpoint>,
    relay: Relay,
) -> Result<Vec<Stream>, LoadError> {
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
pub(super) fn ended_early(error: io::Error) -> LoadError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::ConnectionReset => LoadError::EndedEarly,
        _ => error.into(),
    }
}
