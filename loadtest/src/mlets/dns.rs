//! `mlet-dns [DOMAIN [SERVER]]`: asks a DNS server for the IPv4 addresses of a domain, through the
//! endpoint. Without SERVER it asks the first one that the endpoint itself would.
//!
//! ```text
//! EPADDR <TAB> DOMAIN <TAB> SERVER <TAB> milliseconds <TAB> addresses
//! ```

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use mlet::{Client, Message, MletError, Open, Packet, Status, Ticks, resolve};

const DNS_PORT: u16 = 53;
const SKTID: u8 = 1;
const TAG: u16 = 1234;
/// The endpoint's DNS servers: their count, and the list of 4 bytes each (protocol.md 1.12).
const SERVER_COUNT: u32 = 0x1002_0000;
const SERVERS: u32 = 0x1002_0010;

fn main() -> ExitCode {
    mlet::run("mlet-dns", |client, endpoint, arguments| {
        let domain = arguments.first().map_or("www.example.com", String::as_str);
        let server = match arguments.get(1) {
            Some(name) => resolve(name, DNS_PORT)?,
            None => endpoints_server(client)?,
        };
        let (answer, latency_ms) = ask(client, server, &query(domain)?)?;
        let addresses = addresses(&answer)
            .ok_or_else(|| MletError::Failed(format!("{server} sent no DNS answer")))?;
        let addresses: Vec<String> = addresses.iter().map(Ipv4Addr::to_string).collect();
        let addresses = addresses.join(" ");
        println!("{endpoint}\t{domain}\t{server}\t{latency_ms:.3}\t{addresses}");
        Ok(())
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
    let mut sent = Ticks(0);
    loop {
        match client.notification()?.message() {
            Message::Ntag { status: Status::SUCCESS, time, .. } => sent = time,
            Message::Ntag { status, .. } => {
                return Err(MletError::Failed(format!("the question was not sent: {status}")));
            }
            Message::Ndata { time, packet: Packet::Udp { remote, data }, .. }
                if remote == server && data.get(..2) == query.get(..2) =>
            {
                client.close(SKTID)?;
                let latency = time.saturating_duration_since(sent);
                return Ok((data.to_vec(), latency.as_secs_f64() * 1e3));
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
    Ok(query)
}

/// The A records of an answer; `None` if it is none.
fn addresses(answer: &[u8]) -> Option<Vec<Ipv4Addr>> {
    let (header, mut rest) = answer.split_at_checked(12)?;
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
        for bad in ["", ".", "a..b", &"x".repeat(64)] {
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
            assert_eq!(addresses(&answer[..len]), None, "{len}");
        }
    }
}
