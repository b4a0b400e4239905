//! Attacks at `pktxpmgr` before anybody has proven a key: silent, half-open, trickle, hello.
//!
//! Each connection comes from one of many addresses of loopback, as sources take turns at pktxpmgr.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hosts::home::{HomeError, SNIKEY};
use packetlab::tls;
use rustls::{ClientConfig, ClientConnection};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, interval, sleep_until, timeout};

use super::sessions::PATIENCE;
use super::tally::Count;
use crate::load::error::LoadError;

/// From one connection that does not go on to the next in its place. A listener that closes at once would
/// otherwise be a flood of connections, which is another attack.
const REOPEN_PAUSE: Duration = Duration::from_secs(1);
/// Between two parts of a ClientHello that trickles.
const TRICKLE_PAUSE: Duration = Duration::from_secs(1);
/// Where attackers come from: behind the addresses of the honest (`home.rs`).
const SOURCE_BASE: Ipv4Addr = Ipv4Addr::new(127, 2, 0, 0);
/// How often a flood goes on; who shares its thread has its turn between.
const FLOOD_TICK: Duration = Duration::from_millis(1);
/// ClientHellos of one such step, where as many are to be sent as go.
const FLOOD_STEP: f64 = 64.0;
/// Where the random number of a ClientHello is: behind the headers of record and message, and a version.
const RANDOM: std::ops::Range<usize> = 11..19;

/// What connections say that do not go on.
#[derive(Clone)]
pub(super) struct Words {
    /// All of it.
    pub(super) hello: Arc<[u8]>,
    /// So much at once.
    pub(super) part_len: usize,
}

/// The ClientHello of an endpoint with this configuration.
pub(super) fn hello(tls: &Arc<ClientConfig>) -> Result<Arc<[u8]>, LoadError> {
    let name = tls::server_name(Some(SNIKEY)).map_err(HomeError::Tls)?;
    let mut client = ClientConnection::new(Arc::clone(tls), name).map_err(io::Error::other)?;
    let mut hello = Vec::new();
    client.write_tls(&mut hello)?;
    Ok(hello.into())
}

/// The address that number so-and-so of so many comes from.
fn source(number: u64, sources: u32) -> Ipv4Addr {
    let offset = u32::try_from(number % u64::from(sources)).unwrap_or(0);
    Ipv4Addr::from_bits(SOURCE_BASE.to_bits() + offset)
}

/// A connection that says these words and no more, and the next when it is closed.
pub(super) async fn stall(
    door: SocketAddr,
    (number, sources): (u64, u32),
    words: Words,
    count: Count,
) {
    let own = source(number, sources);
    loop {
        let next = Instant::now() + REOPEN_PAUSE;
        count.connection();
        if let Ok(Ok(stream)) = timeout(PATIENCE, connect(own, door)).await {
            count.step();
            // It ends when it is closed.
            let _ = say(stream, &words).await;
        }
        sleep_until(next).await;
    }
}

async fn connect(own: Ipv4Addr, door: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((own, 0).into())?;
    socket.connect(door).await
}

async fn say(mut stream: TcpStream, words: &Words) -> io::Result<()> {
    for part in words.hello.chunks(words.part_len) {
        stream.write_all(part).await?;
        if let Ok(ended) = timeout(TRICKLE_PAUSE, read_to_end(&mut stream)).await {
            return ended;
        }
    }
    read_to_end(&mut stream).await
}

async fn read_to_end(stream: &mut TcpStream) -> io::Result<()> {
    while stream.read(&mut [0; 2048]).await? > 0 {}
    Ok(())
}

/// ClientHellos, so many a second and each from the next address; `at_once` connections stay open, and the oldest is reset.
pub(super) async fn flood(
    door: SocketAddr,
    (hello, at_once, sources): (Arc<[u8]>, usize, u32),
    per_second: Option<u32>,
    count: Count,
) {
    let mut hello = hello.to_vec();
    let mut open = VecDeque::new();
    let (mut number, mut due) = (0_u64, 0.0);
    // Steps that are late are made up for, as far as the thread allows.
    let mut ticks = interval(FLOOD_TICK);
    loop {
        due += match per_second {
            Some(per_second) => {
                ticks.tick().await;
                f64::from(per_second) * FLOOD_TICK.as_secs_f64()
            }
            None => FLOOD_STEP,
        };
        while due >= 1.0 {
            due -= 1.0;
            number += 1;
            if let Some(random) = hello.get_mut(RANDOM) {
                random.copy_from_slice(&number.to_be_bytes());
            }
            count.connection();
            if let Ok(socket) = send(&hello, source(number, sources), door) {
                count.step();
                open.push_back(socket);
            }
            if open.len() > at_once {
                open.pop_front();
            }
        }
        // There are others on this thread.
        tokio::task::yield_now().await;
    }
}

/// Sends these bytes on a connection of their own, which is reset when it is dropped. On loopback it is made at once, or it
/// is not taken.
fn send(bytes: &[u8], own: Ipv4Addr, door: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_linger(Some(Duration::ZERO))?;
    socket.bind(&SocketAddr::from((own, 0)).into())?;
    // It is said to be under way.
    let _ = socket.connect(&door.into());
    socket.send(bytes)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hosts::home::{Home, Surroundings};
    use rustls::server::Acceptor;

    #[test]
    fn a_hello_is_whole_and_another_with_each_number() {
        let home = Home::create(1, false, Surroundings::default()).unwrap();
        let endpoints = home.endpoints(([127, 0, 0, 1], 1).into()).unwrap();
        let mut bytes = hello(&endpoints[0].tls).unwrap().to_vec();
        bytes[RANDOM].copy_from_slice(&7_u64.to_be_bytes());
        let mut acceptor = Acceptor::default();
        acceptor.read_tls(&mut &bytes[..]).unwrap();
        let accepted = acceptor.accept().map_err(|(error, _)| error).unwrap().unwrap();
        assert_eq!(accepted.client_hello().server_name(), Some(SNIKEY));
    }

    #[test]
    fn sources_are_addresses_of_loopback_by_turns() {
        let addresses = [0, 1, 299, 300].map(|number| source(number, 300).octets());
        assert_eq!(addresses, [[127, 2, 0, 0], [127, 2, 0, 1], [127, 2, 1, 43], [127, 2, 0, 0]]);
    }
}
