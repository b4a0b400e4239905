//! `mlet-bulk down|up HOST:PORT [BYTES [SECONDS]]`: how fast bytes go between a server and the mlet, over a TCP
//! connection of the endpoint and through the relay. Down ends when the server closes or BYTES have come;
//! up sends BYTES, half-closes and waits for the server to close. What takes longer than SECONDS (600) fails.
//!
//! ```text
//! KEY <TAB> ADDRESS <TAB> down or up <TAB> bytes <TAB> seconds <TAB> megabytes a second
//! ```

use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32, NonZeroU64};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use mlet::arguments;
use mlet::{
    Client, Family, Message, MletError, Packet, Status, Ticks, check_closed, print_line, resolve,
};

#[cfg(test)]
#[path = "../scripted_endpoint.rs"]
mod scripted_endpoint;

const USAGE: &str = "mlet-bulk down|up HOST:PORT [BYTES [SECONDS]]\n\
    prints a line for its endpoint: key, address, down or up, bytes,\n\
    seconds, megabytes a second";
const SKTID: u8 = 1;
/// Of every chunk: that one has left is all there is to know.
const TAG: NonZeroU16 = NonZeroU16::MIN;
const RECEIVE_BUFFER_LEN: u32 = 1 << 20;
/// Bytes of one NSEND, and how many of them may be on their way: enough for the connection never to
/// wait for us, and far from what an endpoint may refuse.
const CHUNK_LEN: usize = 256 * 1024;
const CHUNKS_MAX: u64 = 8;
const BYTES_DEFAULT: u64 = 100_000_000;
/// How long all of it may take unless told otherwise: a server that sends a byte from time to time is not waited for without
/// end.
const PATIENCE: Duration = Duration::from_secs(600);

/// What is asked for.
struct Arguments {
    direction: Direction,
    server: String,
    bytes: Option<u64>,
    patience: Duration,
}

#[derive(Clone, Copy)]
enum Direction {
    Down,
    Up,
}

fn main() -> ExitCode {
    mlet::run_with(USAGE, judged, |client, endpoint, arguments| {
        let server = resolve(&arguments.server, 80)?;
        let started = Instant::now();
        let (name, bytes) = transfer(client, server, &arguments)?;
        let seconds = started.elapsed().as_secs_f64();
        let rate = bytes as f64 / seconds / 1e6;
        let endpoint = endpoint.columns();
        print_line(&format!("{endpoint}\t{name}\t{bytes}\t{seconds:.3}\t{rate:.1}"))
    })
}

fn judged(words: &[String]) -> Result<Arguments, MletError> {
    let (direction, server, numbers) = match arguments::without_options(words)? {
        [direction, server, numbers @ ..] if numbers.len() <= 2 => (direction, server, numbers),
        _ => return Err(MletError::Usage),
    };
    let bytes = numbers.first().map(|bytes| arguments::number::<NonZeroU64>(bytes)).transpose()?;
    let seconds = numbers.get(1).map(|time| arguments::number::<NonZeroU32>(time)).transpose()?;
    let patience = seconds.map_or(PATIENCE, |time| Duration::from_secs(time.get().into()));
    let direction = match &**direction {
        "down" => Direction::Down,
        "up" => Direction::Up,
        _ => return Err(MletError::Usage),
    };
    let bytes = bytes.map(NonZeroU64::get);
    Ok(Arguments { direction, server: arguments::host(server)?, bytes, patience })
}

/// Which way, and how many bytes went.
fn transfer(
    client: &mut Client,
    server: SocketAddr,
    Arguments { direction, bytes, patience, .. }: &Arguments,
) -> Result<(&'static str, u64), MletError> {
    client.set_session_deadline(Instant::now() + *patience);
    Ok(match direction {
        Direction::Down => ("down", receive(client, server, bytes.unwrap_or(u64::MAX))?),
        Direction::Up => ("up", send(client, server, bytes.unwrap_or(BYTES_DEFAULT))?),
    })
}

/// How many bytes came.
fn receive(client: &mut Client, server: SocketAddr, limit: u64) -> Result<u64, MletError> {
    client.connect(SKTID, server, RECEIVE_BUFFER_LEN)?;
    let mut received = 0;
    while received < limit {
        match client.notification()?.message() {
            Message::Ndata { sktid: SKTID, packet: Packet::Tcp { data, .. }, .. } => {
                received += data.len() as u64
            }
            Message::Nstat { sktid: SKTID, change, .. } => {
                check_closed(change)?;
                break;
            }
            Message::Nblock { monitor_errid, .. } => {
                return Err(MletError::blocked(monitor_errid));
            }
            _ => {}
        }
    }
    client.close(SKTID)?;
    Ok(received)
}

/// How many bytes went.
fn send(client: &mut Client, server: SocketAddr, bytes: u64) -> Result<u64, MletError> {
    client.connect(SKTID, server, RECEIVE_BUFFER_LEN)?;
    let family = Family::of(server.ip());
    let data = vec![0x5A; CHUNK_LEN];
    let (mut left, mut on_their_way) = (bytes, 0);
    // The server may close its side before it has read all.
    let mut is_closed = false;
    while left > 0 || on_their_way > 0 {
        if left > 0 && on_their_way < CHUNKS_MAX {
            let len = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK_LEN);
            let packet = Packet::Tcp { family, data: data.get(..len).unwrap_or(&data) };
            client.send(SKTID, Ticks(0), TAG, packet)?;
            left -= len as u64;
            on_their_way += 1;
            continue;
        }
        match client.notification()?.message() {
            Message::Ntag { sktid: SKTID, status: Status::SUCCESS, .. } => on_their_way -= 1,
            Message::Ntag { sktid: SKTID, status, .. } => {
                return Err(MletError::Failed(format!("the server takes no more: {status}")));
            }
            Message::Nstat { sktid: SKTID, change, .. } => {
                check_closed(change)?;
                is_closed = true;
            }
            _ => {}
        }
    }
    let time = Ticks(0);
    client.request(&Message::Nctl { sktid: SKTID, family, time, command: mlet::NCTL_FIN })?;
    while !is_closed {
        if let Message::Nstat { sktid: SKTID, change, .. } = client.notification()?.message() {
            check_closed(change)?;
            is_closed = true;
        }
    }
    client.close(SKTID)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use mlet::{Protocol, Socket, StateChange};

    use super::*;

    /// The original's endpoints tell nothing of tag 0; see [`scripted_endpoint`].
    #[test]
    fn at_the_originals_endpoint_every_chunk_is_told_of() {
        let remote: SocketAddr = "192.0.2.7:80".parse().unwrap();
        let session = scripted_endpoint::start(move |request, answers| {
            scripted_endpoint::original(request, answers);
            let (family, protocol, code) = (Family::Ipv4, Protocol::Tcp, StateChange::PEER_CLOSED);
            let change = match request {
                Message::Nopen { .. } => StateChange::TcpEstablished { remote },
                Message::Nctl { .. } => StateChange::Code { family, protocol, code },
                _ => return,
            };
            Message::Nstat { sktid: SKTID, time: Ticks(0), change }.encode(answers).unwrap();
        });
        let mut client = Client::new(session, mlet::SILENCE_MAX).unwrap();
        let bytes = (CHUNKS_MAX + 2) * CHUNK_LEN as u64 + 1;
        assert_eq!(send(&mut client, remote, bytes).unwrap(), bytes);
    }

    #[test]
    fn what_takes_longer_than_it_may_is_given_up() {
        for direction in [Direction::Down, Direction::Up] {
            let (session, _endpoint) = std::os::unix::net::UnixStream::pair().unwrap();
            let mut client = Client::new(session, Duration::from_secs(1)).unwrap();
            let (server, patience) = ("192.0.2.7:80".to_owned(), Duration::ZERO);
            let arguments = Arguments { direction, server, bytes: None, patience };
            let remote = "192.0.2.7:80".parse().unwrap();
            let error = transfer(&mut client, remote, &arguments).unwrap_err().to_string();
            assert!(error.starts_with("the session's deadline passed when "), "{error}");
        }
    }

    #[test]
    fn bytes_that_a_monitor_blocked_are_not_passed_over() {
        let remote: SocketAddr = "192.0.2.7:80".parse().unwrap();
        let session = scripted_endpoint::start(move |request, answers| {
            scripted_endpoint::original(request, answers);
            if let Message::Nopen { .. } = request {
                let (family, protocol, time) = (Family::Ipv4, Protocol::Tcp, Ticks(0));
                let socket = Socket { sktid: SKTID, family, protocol };
                let change = StateChange::TcpEstablished { remote };
                Message::Nstat { sktid: SKTID, time, change }.encode(answers).unwrap();
                Message::Nblock { socket, monitor_errid: 7, time }.encode(answers).unwrap();
                let code = StateChange::PEER_CLOSED;
                let change = StateChange::Code { family, protocol, code };
                Message::Nstat { sktid: SKTID, time, change }.encode(answers).unwrap();
            }
        });
        let mut client = Client::new(session, mlet::SILENCE_MAX).unwrap();
        let error = receive(&mut client, remote, u64::MAX).unwrap_err().to_string();
        assert_eq!(error, "a monitor blocked what came (its code 7)");
    }
}
