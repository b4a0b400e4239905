//! `mlet-ping [TARGET [COUNT]]`: pings an IPv4 target through the endpoint, which must offer raw sockets. All
//! requests are ordered at once and leave one a second by the endpoint's clock; only the replies come back
//! here. A reply is one from the target that repeats what this run, and no other, has asked.
//!
//! ```text
//! KEY <TAB> ADDRESS <TAB> TARGET <TAB> sequence number <TAB> milliseconds, or - without a reply
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

#[cfg(test)]
#[path = "../scripted_endpoint.rs"]
mod scripted_endpoint;

const USAGE: &str = "mlet-ping [TARGET [COUNT]], TARGET on IPv4\n\
    prints a line for each request: key, address, target, sequence number,\n\
    milliseconds or - without a reply";
const SOCKET: Socket = Socket { sktid: 1, family: Family::Ipv4, protocol: Protocol::Raw };
const INTERVAL: Duration = Duration::from_secs(1);
/// Longest wait for a reply.
const REPLY_TIMEOUT: Duration = Duration::from_secs(2);
const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;

/// When a request left and when its reply came.
#[derive(Debug, Default, Clone, Copy)]
struct Exchange {
    sent: Option<Ticks>,
    replied: Option<Ticks>,
}

/// What the requests of one run have in common, and those of no other.
#[derive(Debug, Clone, Copy)]
struct Mark {
    identifier: u16,
    payload: [u8; 8],
}

fn main() -> ExitCode {
    mlet::run(USAGE, |client, endpoint, arguments| {
        let target = arguments.first().map_or("www.example.com", String::as_str);
        let address = resolve_ipv4(target)?;
        let count = arguments.get(1).map_or(Ok(4), |text| text.parse());
        let count = count.map_err(|_| MletError::Usage)?;
        let endpoint = endpoint.columns();
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
    let mark = Mark::draw();
    client.open(SOCKET.sktid, Open::Raw { local: IpAddr::V4(Ipv4Addr::UNSPECIFIED) }, 0x1_0000)?;
    client.capture(SOCKET, Ticks::MAX, &echo_replies(mark.identifier)?)?;
    let mut time = client.clock()?;
    let mut exchanges = BTreeMap::new();
    for sequence in 0..count {
        let packet = ipv4::packet(ipv4::ICMP, 64, target, &mark.request(sequence));
        let packet = Packet::Raw { family: Family::Ipv4, data: &packet };
        client.send(SOCKET.sktid, time, tag(sequence), packet)?;
        exchanges.insert(sequence, Exchange::default());
        time = time.saturating_add(interval);
    }
    let deadline = Instant::now() + interval * u32::from(count) + REPLY_TIMEOUT;
    // A reply may be told before its request's departure.
    while exchanges.values().any(|exchange| exchange.replied.is_none() || exchange.sent.is_none())
        && let Some(notification) = client.notification_before(deadline)?
    {
        match notification.message() {
            Message::Ntag { sktid, tag, time, status } if sktid == SOCKET.sktid => {
                let sequence = tag.wrapping_sub(1);
                if status != Status::SUCCESS {
                    let reason = format!("request {sequence} was not sent: {status}");
                    return Err(MletError::Failed(reason));
                }
                if let Some(exchange) = exchanges.get_mut(&sequence) {
                    exchange.sent = Some(time);
                }
            }
            Message::Ndata { sktid, time, packet: Packet::Raw { data, .. } }
                if sktid == SOCKET.sktid =>
            {
                if let Some(number) = mark.replied(data, target)
                    && let Some(exchange) = exchanges.get_mut(&number)
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

/// The tag of a request. The last sequence number is 65,534.
fn tag(sequence: u16) -> NonZeroU16 {
    NonZeroU16::MIN.saturating_add(sequence)
}

impl Mark {
    fn draw() -> Self {
        let [.., high, low] = mlet::random().to_be_bytes();
        Self { identifier: u16::from_be_bytes([high, low]), payload: mlet::random().to_be_bytes() }
    }

    fn request(&self, sequence: u16) -> Vec<u8> {
        let mut request = self.message(ECHO_REQUEST, sequence);
        let [high, low] = ipv4::checksum(&request).to_be_bytes();
        request.splice(2..4, [high, low]);
        request
    }

    /// Request or reply, without a checksum.
    fn message(&self, icmp_type: u8, sequence: u16) -> Vec<u8> {
        let mut message = vec![icmp_type, 0, 0, 0];
        message.extend_from_slice(&self.identifier.to_be_bytes());
        message.extend_from_slice(&sequence.to_be_bytes());
        message.extend_from_slice(&self.payload);
        message
    }

    /// The number of the request that a packet is the target's reply to; `None` if it is none.
    fn replied(&self, packet: &[u8], target: Ipv4Addr) -> Option<u16> {
        let header = Header::read(packet)?;
        let sequence = header.payload.get(6..)?.first_chunk().copied().map(u16::from_be_bytes)?;
        let expected = self.message(ECHO_REPLY, sequence);
        let is_reply = header.protocol == ipv4::ICMP
            && header.source == target
            && header.payload.get(..2) == expected.get(..2)
            && header.payload.get(4..) == expected.get(4..)
            && ipv4::checksum(header.payload) == 0;
        is_reply.then_some(sequence)
    }
}

/// Wants the whole of ICMP echo replies with this identifier, and nothing of anything else.
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
    use std::os::unix::net::UnixStream;

    use super::scripted_endpoint;
    use super::*;

    const TARGET: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);

    /// A packet from `source`; its header is as the network would deliver it.
    fn from(source: Ipv4Addr, message: &[u8]) -> Vec<u8> {
        let mut packet = ipv4::packet(ipv4::ICMP, 64, Ipv4Addr::new(198, 51, 100, 1), message);
        packet[12..16].copy_from_slice(&source.octets());
        packet
    }

    /// The reply to a request, with its byte `at` changed, and a checksum that fits.
    fn reply(request: &[u8], at: usize, change: u8) -> Vec<u8> {
        let mut reply = request.to_vec();
        reply[0] = ECHO_REPLY;
        reply[at] ^= change;
        reply[2..4].fill(0);
        let checksum = ipv4::checksum(&reply);
        reply[2..4].copy_from_slice(&checksum.to_be_bytes());
        reply
    }

    #[test]
    fn the_request_is_that_of_the_originals_example_with_a_payload() {
        let mark = Mark { identifier: 0x15be, payload: [0; 8] };
        let request = [0x08, 0x00, 0xe2, 0x41, 0x15, 0xbe, 0x00, 0x00];
        assert_eq!(mark.request(0), [&request[..], &[0; 8]].concat());
    }

    #[test]
    fn two_runs_have_different_marks() {
        let (one, other) = (Mark::draw(), Mark::draw());
        assert_ne!(one.payload, other.payload);
    }

    #[test]
    fn only_the_targets_answer_to_this_very_request_is_a_reply() {
        let mark = Mark::draw();
        let request = mark.request(0x0304);
        let replied = |packet: &[u8]| mark.replied(packet, TARGET);
        let right = from(TARGET, &reply(&request, 0, 0));
        assert_eq!(replied(&right), Some(0x0304));
        assert_eq!(replied(&[&right[..], &[0; 10]].concat()), Some(0x0304), "padded by the link");
        assert_eq!(replied(&from(Ipv4Addr::new(192, 0, 2, 8), &reply(&request, 0, 0))), None);
        // Type, code, identifier, payload.
        for at in [0, 1, 4, 5, 8, 15] {
            assert_eq!(replied(&from(TARGET, &reply(&request, at, 1))), None, "byte {at}");
        }
        assert_eq!(replied(&from(TARGET, &[&reply(&request, 0, 0)[..], &[0]].concat())), None);
        assert_eq!(
            replied(&from(TARGET, &request)),
            None,
            "the request itself is captured as well"
        );
        let mut corrupt = right.clone();
        corrupt[22] ^= 1;
        assert_eq!(replied(&corrupt), None);
        for len in 0..right.len() {
            assert_eq!(replied(&right[..len]), None, "{len}");
        }
    }

    /// Pings with an endpoint in front of which there are other hosts, other runs and the target. It is the
    /// original's: see [`scripted_endpoint`].
    #[test]
    fn at_the_originals_endpoint_only_the_targets_replies_are_counted() {
        let mut asked = 0;
        let session = scripted_endpoint::start(move |request, answers| {
            scripted_endpoint::original(request, answers);
            let Message::Nsend { packet: Packet::Raw { data, .. }, .. } = request else { return };
            let request = &data[20..];
            let mut packets = vec![
                from(Ipv4Addr::new(192, 0, 2, 8), &reply(request, 0, 0)),
                from(TARGET, &reply(request, 15, 1)),
                from(TARGET, &reply(request, 5, 1)),
            ];
            // The target answers the first and the last of three.
            if asked != 1 {
                packets.push(from(TARGET, &reply(request, 0, 0)));
            }
            asked += 1;
            for (at, packet) in packets.iter().enumerate() {
                let packet = Packet::Raw { family: Family::Ipv4, data: packet };
                let time =
                    scripted_endpoint::CLOCK.saturating_add(Duration::from_millis(at as u64));
                let ndata = Message::Ndata { sktid: SOCKET.sktid, time, packet };
                ndata.encode(answers).unwrap();
            }
        });
        let exchanges = pinged(session, 3);
        let latencies = exchanges.values().map(|exchange| {
            let sent = exchange.sent.expect("the endpoint tells of every tag but 0");
            Some(exchange.replied?.saturating_duration_since(sent).as_millis())
        });
        assert_eq!(latencies.collect::<Vec<_>>(), [Some(3), None, Some(3)]);
    }

    fn pinged(session: UnixStream, count: u16) -> BTreeMap<u16, Exchange> {
        let mut client = Client::new(session, mlet::SILENCE_MAX).unwrap();
        ping(&mut client, TARGET, count, Duration::from_millis(1)).unwrap()
    }

    #[test]
    fn no_request_has_the_tag_of_which_nothing_is_told() {
        assert_eq!((tag(0).get(), tag(u16::MAX - 1).get()), (1, u16::MAX));
    }
}
