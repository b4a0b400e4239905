//! `mlet-ping [TARGET [COUNT]]`: pings an IPv4 target through the endpoint, which must offer raw sockets. All
//! requests are ordered at once and leave one a second by the endpoint's clock; only the replies come back
//! here.
//!
//! ```text
//! EPADDR <TAB> TARGET <TAB> sequence number <TAB> milliseconds, or - without a reply
//! ```

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU16;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use mlet::ipv4::{self, Header};
use mlet::{
    Client, Family, Message, MletError, Open, Packet, Program, Protocol, Socket, Status, Ticks,
    print_line, resolve_ipv4,
};

const USAGE: &str = "mlet-ping [TARGET [COUNT]], a target with an IPv4 address";
const SOCKET: Socket = Socket { sktid: 1, family: Family::Ipv4, protocol: Protocol::Raw };
const INTERVAL: Duration = Duration::from_secs(1);
/// Longest wait for a reply.
const REPLY_TIMEOUT: Duration = Duration::from_secs(2);
const ECHO_REQUEST: u8 = 8;

/// When a request left and when its reply came.
#[derive(Debug, Default, Clone, Copy)]
struct Exchange {
    sent: Option<Ticks>,
    replied: Option<Ticks>,
}

fn main() -> ExitCode {
    mlet::run(USAGE, |client, endpoint, arguments| {
        let target = arguments.first().map_or("www.example.com", String::as_str);
        let address = resolve_ipv4(target)?;
        let count = arguments.get(1).map_or(Ok(4), |text| text.parse());
        let count = count.map_err(|_| MletError::Usage)?;
        for (sequence, exchange) in ping(client, address, count, INTERVAL)? {
            let latency = exchange.sent.zip(exchange.replied).map(|(sent, replied)| {
                format!("{:.3}", replied.saturating_duration_since(sent).as_secs_f64() * 1e3)
            });
            let latency = latency.unwrap_or_else(|| "-".to_owned());
            print_line(&format!("{endpoint}\t{target}\t{sequence}\t{latency}"))?;
        }
        Ok(())
    })
}

fn ping(
    client: &mut Client,
    target: Ipv4Addr,
    count: u16,
    interval: Duration,
) -> Result<BTreeMap<u16, Exchange>, MletError> {
    // Any number; it tells our replies from those of others at the same endpoint.
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let identifier = u16::from_be_bytes([high, low]);
    client.open(SOCKET.sktid, Open::Raw { local: IpAddr::V4(Ipv4Addr::UNSPECIFIED) }, 0x1_0000)?;
    client.capture(SOCKET, Ticks::MAX, &echo_replies(identifier)?)?;
    let mut time = client.clock()?;
    let mut exchanges = BTreeMap::new();
    for sequence in 0..count {
        let packet = ipv4::packet(ipv4::ICMP, 64, target, &echo_request(identifier, sequence));
        let packet = Packet::Raw { family: Family::Ipv4, data: &packet };
        client.send(SOCKET.sktid, time, NonZeroU16::MIN.saturating_add(sequence), packet)?;
        exchanges.insert(sequence, Exchange::default());
        time = time.saturating_add(interval);
    }
    let deadline = Instant::now() + interval * u32::from(count) + REPLY_TIMEOUT;
    // A reply may be told before its request's departure.
    while exchanges.values().any(|exchange| exchange.replied.is_none() || exchange.sent.is_none())
        && let Some(notification) = client.notification_before(deadline)?
    {
        match notification.message() {
            Message::Ntag { tag, time, status: Status::SUCCESS, .. } => {
                exchanges.entry(tag.wrapping_sub(1)).or_default().sent = Some(time);
            }
            Message::Ntag { tag, status, .. } => {
                return Err(MletError::Failed(format!("request {tag} was not sent: {status}")));
            }
            Message::Ndata { time, packet: Packet::Raw { data, .. }, .. } => {
                if let Some(exchange) = sequence(data).and_then(|number| exchanges.get_mut(&number))
                {
                    // The first; near targets are captured more than once.
                    exchange.replied.get_or_insert(time);
                }
            }
            _ => {}
        }
    }
    client.close(SOCKET.sktid)?;
    Ok(exchanges)
}

fn echo_request(identifier: u16, sequence: u16) -> Vec<u8> {
    let mut request = vec![ECHO_REQUEST, 0, 0, 0];
    request.extend_from_slice(&identifier.to_be_bytes());
    request.extend_from_slice(&sequence.to_be_bytes());
    let [high, low] = ipv4::checksum(&request).to_be_bytes();
    request.splice(2..4, [high, low]);
    request
}

fn sequence(packet: &[u8]) -> Option<u16> {
    let message = Header::read(packet)?.payload;
    message.get(6..)?.first_chunk::<2>().map(|bytes| u16::from_be_bytes(*bytes))
}

/// Wants the whole of ICMP echo replies with this identifier, and nothing of anything else. A line is
/// `opcode destination source offset constant` (protocol.md 6.1).
fn echo_replies(identifier: u16) -> Result<Program, MletError> {
    mlet::filter(&format!(
        "# r0 = protocol; not ICMP: no\n\
         0x30 0 0 0 9\n0x55 0 0 10 1\n\
         # r7 = length of the header; r0 = type; no echo reply: no\n\
         0x30 0 0 0 0\n0x57 0 0 0 15\n0x67 0 0 0 2\n0xbf 7 0 0 0\n0x50 0 7 0 0\n0x55 0 0 4 0\n\
         # r0 = identifier; not ours: no\n\
         0x48 0 7 0 4\n0x55 0 0 2 {identifier}\n\
         # yes: every byte of it\n\
         0xb7 0 0 0 0xffff\n0x95 0 0 0 0\n\
         # no\n\
         0xb7 0 0 0 0\n0x95 0 0 0 0\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_is_that_of_the_originals_example() {
        assert_eq!(echo_request(0x15be, 0), [8, 0, 0xe2, 0x41, 0x15, 0xbe, 0, 0]);
        let reply = ipv4::packet(ipv4::ICMP, 64, Ipv4Addr::LOCALHOST, &[0, 0, 0, 0, 1, 2, 3, 4]);
        assert_eq!(sequence(&reply), Some(0x0304));
        assert_eq!(sequence(&reply[..27]), None);
    }
}
