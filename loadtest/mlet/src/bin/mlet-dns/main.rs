//! `mlet-dns [DOMAIN [SERVER [A|AAAA]]]`: asks a DNS server for the addresses of a domain, through the
//! endpoint. Without SERVER it asks the first one that the endpoint itself would. What comes and does not answer the
//! question is passed over; an answer that does not fit a datagram is asked for again over TCP.
//!
//! ```text
//! KEY <TAB> ADDRESS <TAB> DOMAIN <TAB> SERVER <TAB> milliseconds <TAB> addresses <TAB> udp or tcp
//! ```
//!
//! The time is that from the departure of the question to the arrival of the answer, over the way that it came; a
//! connection stands before the question leaves.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use mlet::arguments;
use mlet::dns::{Answer, Kind, Question};
use mlet::{
    Client, Family, Message, MletError, Open, Packet, Status, Ticks, check_closed, print_line,
    resolve,
};

#[cfg(test)]
#[path = "../../scripted_endpoint.rs"]
mod scripted_endpoint;

const USAGE: &str = "mlet-dns [DOMAIN [SERVER [A|AAAA]]]\n\
    prints a line for its endpoint: key, address, domain, server,\n\
    milliseconds, addresses found, udp or tcp";
const DOMAIN: &str = "www.example.com";
const DNS_PORT: u16 = 53;
/// How long a server may take to answer, way and back through the endpoint included, and its requests.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long all may take: to find the endpoint's server, to ask it, to connect to it and to ask again.
const SESSION: Duration = PATIENCE.saturating_mul(4);
const SKTID: u8 = 1;
const TAG: NonZeroU16 = NonZeroU16::new(1234).unwrap();
/// Of datagrams, and of the stream.
const RECEIVE_BUFFER_LEN: u32 = 0x1_0000;
/// The endpoint's DNS servers, of IPv4 and of IPv6: their count, and the list of addresses (spec/protocol.md 1.12).
const IPV4_COUNT: u32 = 0x1002_0000;
const IPV4_SERVERS: u32 = 0x1002_0010;
const IPV6_COUNT: u32 = 0x1002_0001;
const IPV6_SERVERS: u32 = 0x1002_0100;

/// What is asked for.
struct Arguments {
    domain: String,
    server: Option<String>,
    question: Question,
}

/// What was answered, and how many milliseconds after the question had left.
type Timed = (Answer, f64);

fn main() -> ExitCode {
    mlet::run_with(USAGE, judged, |client, endpoint, arguments| {
        client.set_session_deadline(Instant::now() + SESSION);
        let Arguments { domain, server, question } = arguments;
        let server = match server {
            Some(name) => resolve(&name, DNS_PORT)?,
            None => endpoints_server(client)?,
        };
        let (answer, milliseconds, way) = match ask_by_udp(client, server, &question, PATIENCE)? {
            (Answer::Truncated, _) => {
                let (answer, milliseconds) = ask_by_tcp(client, server, &question, PATIENCE)?;
                (answer, milliseconds, "tcp")
            }
            (answer, milliseconds) => (answer, milliseconds, "udp"),
        };
        let failed = |reason| Err(MletError::Failed(format!("{server} on {domain}: {reason}")));
        let addresses = match answer {
            Answer::Addresses(addresses) => addresses,
            Answer::Truncated => return failed("the answer is truncated over TCP as well".into()),
            Answer::Failed(reason) => return failed(reason),
        };
        let addresses: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
        print_line(&format!(
            "{}\t{domain}\t{server}\t{milliseconds:.3}\t{}\t{way}",
            endpoint.columns(),
            addresses.join(" ")
        ))
    })
}

fn judged(words: &[String]) -> Result<Arguments, MletError> {
    let (domain, server, kind) = match arguments::without_options(words)? {
        [] => (DOMAIN, None, "A"),
        [domain] => (&**domain, None, "A"),
        [domain, server] => (&**domain, Some(server), "A"),
        [domain, server, kind] => (&**domain, Some(server), &**kind),
        _ => return Err(MletError::Usage),
    };
    let kind = Kind::read(kind);
    let kind = kind.ok_or_else(|| MletError::Failed("it asks for A or AAAA alone".to_owned()))?;
    let [.., high, low] = mlet::random().to_be_bytes();
    let question = Question::new(domain, kind, [high, low]);
    let question = question
        .map_err(|what| MletError::Failed(format!("'{}' is {what}", domain.escape_debug())))?;
    let server = server.map(|server| arguments::host(server)).transpose()?;
    Ok(Arguments { domain: domain.to_owned(), server, question })
}

/// The first server of the endpoint's, of IPv4 if it has one.
fn endpoints_server(client: &mut Client) -> Result<SocketAddr, MletError> {
    let count = client.read_memory(IPV4_COUNT, 1)?;
    let address: Option<[u8; 4]> = client.read_memory(IPV4_SERVERS, 4)?.try_into().ok();
    if let Some(address) = address.filter(|_| count != [0]) {
        return Ok((Ipv4Addr::from(address), DNS_PORT).into());
    }
    let count = client.read_memory(IPV6_COUNT, 1)?;
    let address: Option<[u8; 16]> = client.read_memory(IPV6_SERVERS, 16)?.try_into().ok();
    match address.filter(|_| count != [0]) {
        Some(address) => Ok((Ipv6Addr::from(address), DNS_PORT).into()),
        None => Err(MletError::Failed("the endpoint knows no DNS server; name one".to_owned())),
    }
}

/// Asks by a datagram; whatever comes is passed over until it answers the question.
fn ask_by_udp(
    client: &mut Client,
    server: SocketAddr,
    question: &Question,
    patience: Duration,
) -> Result<Timed, MletError> {
    let deadline = Instant::now() + patience;
    let any: SocketAddr = match server.ip() {
        IpAddr::V4(_) => ([0; 4], 0).into(),
        IpAddr::V6(_) => ([0; 16], 0).into(),
    };
    let (receive_buffer_len, open) = (RECEIVE_BUFFER_LEN, Open::Udp { local: any });
    client.request_before(&Message::Nopen { sktid: SKTID, receive_buffer_len, open }, deadline)?;
    let packet = Packet::Udp { remote: server, data: question.message() };
    let mut passed_over = None;
    let answer = answer(client, packet, deadline, |packet| match packet {
        Packet::Udp { remote, data } if remote == server => match question.answered(data) {
            Ok(answer) => Ok(Some(answer)),
            Err(reason) => {
                passed_over = Some(reason);
                Ok(None)
            }
        },
        _ => Ok(None),
    })?;
    answer.ok_or_else(|| {
        let silent = format!("{server} did not answer within {} s", patience.as_secs_f64());
        let came = passed_over.map(|reason| format!("; what came is no answer: {reason}"));
        MletError::Failed(silent + &came.unwrap_or_default())
    })
}

/// Asks over a connection, on which nothing else can come (RFC 1035, 4.2.2).
fn ask_by_tcp(
    client: &mut Client,
    server: SocketAddr,
    question: &Question,
    patience: Duration,
) -> Result<Timed, MletError> {
    client.connect_within(patience, SKTID, server, RECEIVE_BUFFER_LEN)?;
    let deadline = Instant::now() + patience;
    let query = question.message();
    let len = u16::try_from(query.len()).unwrap_or(u16::MAX).to_be_bytes();
    let (family, data) = (Family::of(server.ip()), [&len[..], query].concat());
    let packet = Packet::Tcp { family, data: &data };
    let mut stream = Vec::new();
    let answer = answer(client, packet, deadline, |packet| {
        let Packet::Tcp { data, .. } = packet else { return Ok(None) };
        stream.extend_from_slice(data);
        let Some((len, rest)) = stream.split_first_chunk() else { return Ok(None) };
        let Some(message) = rest.get(..usize::from(u16::from_be_bytes(*len))) else {
            return Ok(None);
        };
        question.answered(message).map(Some).map_err(|reason| {
            MletError::Failed(format!("what {server} sent over TCP is no answer: {reason}"))
        })
    })?;
    answer.ok_or_else(|| {
        let seconds = patience.as_secs_f64();
        MletError::Failed(format!("{server} did not answer over TCP within {seconds} s"))
    })
}

/// Sends the question; the answer that `take` finds in what comes, and closes the socket then. `None` if there is none in
/// time, which ends the session.
fn answer(
    client: &mut Client,
    packet: Packet<'_>,
    deadline: Instant,
    mut take: impl FnMut(Packet<'_>) -> Result<Option<Answer>, MletError>,
) -> Result<Option<Timed>, MletError> {
    let asks = Message::Nsend { sktid: SKTID, time: Ticks(0), tag: TAG.get(), packet };
    client.request_before(&asks, deadline)?;
    // In either order.
    let (mut sent, mut answered) = (None, None);
    loop {
        if let (Some(sent), Some((time, answer))) = (sent, answered.take_if(|_| sent.is_some())) {
            client.request_before(&Message::Nclose { sktid: SKTID }, deadline)?;
            let latency = Ticks::saturating_duration_since(time, sent);
            return Ok(Some((answer, latency.as_secs_f64() * 1e3)));
        }
        let Some(notification) = client.notification_before(deadline)? else { return Ok(None) };
        match notification.message() {
            Message::Ntag { sktid: SKTID, status: Status::SUCCESS, time, .. } => sent = Some(time),
            Message::Ntag { sktid: SKTID, status, .. } => {
                return Err(MletError::Failed(format!("the question was not sent: {status}")));
            }
            Message::Ndata { sktid: SKTID, time, packet } if answered.is_none() => {
                answered = take(packet)?.map(|answer| (time, answer));
            }
            Message::Nstat { sktid: SKTID, change, .. } if answered.is_none() => {
                check_closed(change)?;
                return Err(MletError::Failed("the server closed without an answer".to_owned()));
            }
            Message::Nblock { monitor_errid, .. } => {
                return Err(MletError::blocked(monitor_errid));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
