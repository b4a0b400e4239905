//! `mlet-dns [DOMAIN [SERVER]]`: asks a DNS server for the IPv4 addresses of a domain, through the
//! endpoint. Without SERVER it asks the first one that the endpoint itself would.
//!
//! ```text
//! EPADDR <TAB> DOMAIN <TAB> SERVER <TAB> milliseconds <TAB> addresses
//! ```

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use mlet::{Client, Message, MletError, Open, Packet, Status, Ticks, print_line, resolve};

const USAGE: &str = "mlet-dns [DOMAIN [SERVER]]";
const DNS_PORT: u16 = 53;
/// How long a server may take to answer, way and back through the endpoint included.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes before the question, and of the longest name (RFC 1035).
const HEADER_LEN: usize = 12;
const NAME_LEN_MAX: usize = 255;
const SKTID: u8 = 1;
const TAG: NonZeroU16 = NonZeroU16::new(1234).unwrap();
/// The endpoint's DNS servers: their count, and the list of 4 bytes each (protocol.md 1.12).
const SERVER_COUNT: u32 = 0x1002_0000;
const SERVERS: u32 = 0x1002_0010;

fn main() -> ExitCode {
    mlet::run(USAGE, |client, endpoint, arguments| {
        let domain = arguments.first().map_or("www.example.com", String::as_str);
        let server = match arguments.get(1) {
            Some(name) => resolve(name, DNS_PORT)?,
            None => endpoints_server(client)?,
        };
        let (answer, latency_ms) = ask(client, server, &query(domain)?)?;
        let addresses = addresses(&answer)
            .map_err(|reason| MletError::Failed(format!("{server} on {domain}: {reason}")))?;
        let addresses: Vec<String> = addresses.iter().map(Ipv4Addr::to_string).collect();
        let addresses = addresses.join(" ");
        print_line(&format!("{endpoint}\t{domain}\t{server}\t{latency_ms:.3}\t{addresses}"))
    })
}

fn endpoints_server(client: &mut Client) -> Result<SocketAddr, MletError> {
    let count = client.read_memory(SERVER_COUNT, 1)?;
    let address: Option<[u8; 4]> = client.read_memory(SERVERS, 4)?.try_into().ok();
    match address {
        Some(address) if count != [0] => Ok(SocketAddr::from((address, DNS_PORT))),
        _ => Err(MletError::Failed("the endpoint knows no DNS server; name one".to_owned())),
    }
}

/// The answer, and the milliseconds from the departure of the question to its arrival.
fn ask(client: &mut Client, server: SocketAddr, query: &[u8]) -> Result<(Vec<u8>, f64), MletError> {
    let any: SocketAddr = match server.ip() {
        IpAddr::V4(_) => ([0; 4], 0).into(),
        IpAddr::V6(_) => ([0; 16], 0).into(),
    };
    client.open(SKTID, Open::Udp { local: any }, 4096)?;
    client.send(SKTID, Ticks(0), TAG, Packet::Udp { remote: server, data: query })?;
    let deadline = Instant::now() + PATIENCE;
    // In either order.
    let (mut sent, mut answered) = (None, None);
    loop {
        if let (Some(sent), Some((time, answer))) = (sent, &mut answered) {
            client.close(SKTID)?;
            let latency = Ticks::saturating_duration_since(*time, sent);
            return Ok((std::mem::take(answer), latency.as_secs_f64() * 1e3));
        }
        let Some(notification) = client.notification_before(deadline)? else {
            let limit = PATIENCE.as_secs();
            return Err(MletError::Failed(format!("{server} did not answer within {limit} s")));
        };
        match notification.message() {
            Message::Ntag { status: Status::SUCCESS, time, .. } => sent = Some(time),
            Message::Ntag { status, .. } => {
                return Err(MletError::Failed(format!("the question was not sent: {status}")));
            }
            Message::Ndata { time, packet: Packet::Udp { remote, data }, .. }
                if remote == server && answered.is_none() && is_answer(data, query) =>
            {
                answered = Some((time, data.to_vec()));
            }
            Message::Nblock { monitor_errid, .. } => {
                return Err(MletError::Failed(format!(
                    "a monitor blocks it (code {monitor_errid})"
                )));
            }
            _ => {}
        }
    }
}

/// A question for the A records of `domain` (RFC 1035).
fn query(domain: &str) -> Result<Vec<u8>, MletError> {
    // Identification, recursion desired, one question.
    let mut query = vec![0x15, 0xbe, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in domain.trim_end_matches('.').split('.') {
        match u8::try_from(label.len()) {
            Ok(len @ 1..64) => query.push(len),
            _ => return Err(MletError::Failed(format!("{domain:?} is no domain name"))),
        }
        query.extend_from_slice(label.as_bytes());
    }
    query.extend_from_slice(&[0, 0, 1, 0, 1]);
    if query.len() > HEADER_LEN + NAME_LEN_MAX + 4 {
        return Err(MletError::Failed(format!("{domain:?} is too long for a domain name")));
    }
    Ok(query)
}

/// Whether a datagram answers this question: its number, the flag of answers, and the question itself,
/// which a server that did not understand it may leave out.
fn is_answer(datagram: &[u8], query: &[u8]) -> bool {
    let question = &query[HEADER_LEN..];
    let repeated = datagram.get(HEADER_LEN..query.len());
    datagram.len() >= HEADER_LEN
        && datagram[..2] == query[..2]
        && datagram[2] & 0x80 != 0
        && (datagram[4..6] == [0, 0] || repeated.is_some_and(|r| r.eq_ignore_ascii_case(question)))
}

/// The A records of an answer, or in words why there are none to rely on.
fn addresses(answer: &[u8]) -> Result<Vec<Ipv4Addr>, String> {
    const BROKEN: &str = "the answer is no DNS message";
    let [_, _, high, low, ..] = answer else { return Err(BROKEN.to_owned()) };
    match low & 0x0F {
        0 if high & 0x02 != 0 => Err("the answer is truncated".to_owned()),
        0 => records(answer).ok_or_else(|| BROKEN.to_owned()),
        1 => Err("the server does not understand the question".to_owned()),
        2 => Err("the server failed".to_owned()),
        3 => Err("there is no such domain".to_owned()),
        5 => Err("the server refuses to answer".to_owned()),
        code => Err(format!("response code {code}")),
    }
}

/// The A records of a message; `None` if it is cut.
fn records(answer: &[u8]) -> Option<Vec<Ipv4Addr>> {
    let (header, mut rest) = answer.split_at_checked(HEADER_LEN)?;
    let u16_at = |bytes: &[u8], at: usize| {
        bytes.get(at..)?.first_chunk::<2>().map(|bytes| u16::from_be_bytes(*bytes))
    };
    for _ in 0..u16_at(header, 4)? {
        rest = skip_name(rest)?.get(4..)?;
    }
    let mut addresses = Vec::new();
    for _ in 0..u16_at(header, 6)? {
        rest = skip_name(rest)?;
        let (record_type, len) = (u16_at(rest, 0)?, u16_at(rest, 8)?);
        let (data, next) = rest.get(10..)?.split_at_checked(len.into())?;
        if let (1, Some(address)) = (record_type, data.first_chunk::<4>()) {
            addresses.push(Ipv4Addr::from(*address));
        }
        rest = next;
    }
    Some(addresses)
}

/// What follows a name, which ends with an empty label or with a pointer to an earlier one.
fn skip_name(mut rest: &[u8]) -> Option<&[u8]> {
    loop {
        match *rest.first()? {
            0 => return rest.get(1..),
            0xC0.. => return rest.get(2..),
            len => rest = rest.get(1 + usize::from(len)..)?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_is_that_of_the_originals_example() {
        let expected =
            b"\x15\xbe\x01\x00\x00\x01\0\0\0\0\0\0\x03www\x07example\x03com\0\0\x01\0\x01";
        assert_eq!(query("www.example.com").unwrap(), expected);
        assert_eq!(query("www.example.com.").unwrap(), expected);
        for bad in ["", ".", "a..b", &"x".repeat(64), &"x.".repeat(128)] {
            assert!(query(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn addresses_are_found_behind_pointers_and_other_records() {
        let mut answer = b"\x15\xbe\x85\x80\0\x01\0\x02\0\0\0\0".to_vec();
        answer.extend_from_slice(b"\x03www\x07example\x03com\0\0\x01\0\x01");
        answer.extend_from_slice(b"\xc0\x0c\0\x05\0\x01\0\0\0\0\0\x02\xc0\x10");
        answer.extend_from_slice(b"\xc0\x0c\0\x01\0\x01\0\0\0\0\0\x04\xc0\0\x02\x07");
        assert_eq!(addresses(&answer).unwrap(), [Ipv4Addr::new(192, 0, 2, 7)]);
        for len in 0..answer.len() {
            assert!(addresses(&answer[..len]).is_err(), "{len}");
        }
    }

    #[test]
    fn only_an_answer_to_this_question_is_one() {
        let query = query("www.example.com").unwrap();
        let changed = |at: usize, byte: u8| {
            let mut answer = query.clone();
            answer[2] |= 0x80;
            answer[at] = byte;
            answer
        };
        assert!(is_answer(&changed(13, b'W'), &query));
        assert!(is_answer(&changed(5, 0)[..HEADER_LEN], &query));
        assert!(!is_answer(&changed(13, b'x'), &query));
        assert!(!is_answer(&changed(1, 0), &query));
        assert!(!is_answer(&query, &query));
        for len in 0..query.len() {
            assert!(!is_answer(&changed(13, b'w')[..len], &query), "{len}");
        }
    }

    #[test]
    fn a_server_that_cannot_answer_is_no_empty_answer() {
        let reason =
            |high, low| addresses(&[0x15, 0xbe, high, low, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap_err();
        assert_eq!(reason(0x81, 0x83), "there is no such domain");
        assert_eq!(reason(0x81, 0x82), "the server failed");
        assert_eq!(reason(0x83, 0x80), "the answer is truncated");
        assert_eq!(reason(0x81, 0x8b), "response code 11");
    }

    #[test]
    fn an_answer_may_come_before_the_news_that_the_question_left() {
        use std::io::Write;
        let (session, mut endpoint) = std::os::unix::net::UnixStream::pair().unwrap();
        let server: SocketAddr = "192.0.2.53:53".parse().unwrap();
        let query = query("www.example.com").unwrap();
        let mut answer = query.clone();
        answer[2] |= 0x80;
        let packet = Packet::Udp { remote: server, data: &answer };
        let mut sent = vec![0x40, 0, 0, 0, 0x40, 0, 0, 0];
        let time = Ticks(1_003_000_000);
        Message::Ndata { sktid: SKTID, time, packet }.encode(&mut sent).unwrap();
        let (time, status) = (Ticks(1_000_000_000), Status::SUCCESS);
        Message::Ntag { sktid: SKTID, tag: TAG.get(), time, status }.encode(&mut sent).unwrap();
        sent.extend_from_slice(&[0x40, 0, 0, 0]);
        endpoint.write_all(&sent).unwrap();
        let mut client = Client::new(session, mlet::SILENCE_MAX).unwrap();
        let (received, latency_ms) = ask(&mut client, server, &query).unwrap();
        assert_eq!(received, answer);
        assert!((latency_ms - 3.0).abs() < 1e-6, "{latency_ms}");
    }
}
