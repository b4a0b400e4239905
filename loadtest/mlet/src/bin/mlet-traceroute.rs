//! `mlet-traceroute [TARGET]`: the routers on the way from the endpoint, which must offer raw sockets, to
//! an IPv4 target. All probes are ordered at once; a probe is told by its UDP ports, and by its data, in what comes
//! back. The port it comes from and the data are drawn anew for every run.
//!
//! ```text
//! KEY <TAB> ADDRESS <TAB> TARGET <TAB> hop <TAB> router, or - <TAB> milliseconds, or -
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

const USAGE: &str = "mlet-traceroute [TARGET], TARGET on IPv4\n\
    prints a line for each hop: key, address, target, hop,\n\
    router or -, milliseconds or -";
const SOCKET: Socket = Socket { sktid: 1, family: Family::Ipv4, protocol: Protocol::Raw };
const HOPS_MAX: u8 = 30;
/// The probe with this port has hop 0; nobody should listen from here on.
const BASE_PORT: u16 = 33434;
/// Bytes before the data of a datagram, and of a whole one.
const UDP_HEADER_LEN: usize = 8;
const PROBE_LEN: u16 = 16;
const INTERVAL: Duration = Duration::from_millis(20);
/// Longest wait for the answer to the last probe.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
const DESTINATION_UNREACHABLE: u8 = 3;
/// Type and code of "time exceeded in transit".
const TIME_EXCEEDED: [u8; 2] = [11, 0];

/// What is known of a hop.
#[derive(Debug, Default, Clone, Copy)]
struct Hop {
    sent: Option<Ticks>,
    answered: Option<(Ticks, Ipv4Addr)>,
    /// The target itself has answered.
    is_last: bool,
}

/// What the probes of one run have in common, and those of no other.
#[derive(Debug, Clone, Copy)]
struct Mark {
    /// The port they come from.
    port: u16,
    data: [u8; 8],
}

fn main() -> ExitCode {
    mlet::run(USAGE, |client, endpoint, arguments| {
        let target = arguments.first().map_or("www.example.com", String::as_str);
        let address = resolve_ipv4(target)?;
        let endpoint = endpoint.columns();
        for (number, hop) in trace(client, address)? {
            let router =
                hop.answered.map_or_else(|| "-".to_owned(), |(_, router)| router.to_string());
            let latency = hop.sent.zip(hop.answered).map(|(sent, (answered, _))| {
                format!("{:.3}", answered.saturating_duration_since(sent).as_secs_f64() * 1e3)
            });
            let latency = latency.unwrap_or_else(|| "-".to_owned());
            print_line(&format!("{endpoint}\t{target}\t{number}\t{router}\t{latency}"))?;
            if hop.is_last {
                break;
            }
        }
        Ok(())
    })
}

fn trace(client: &mut Client, target: Ipv4Addr) -> Result<BTreeMap<u8, Hop>, MletError> {
    let mark = Mark::draw();
    client.open(SOCKET.sktid, Open::Raw { local: IpAddr::V4(Ipv4Addr::UNSPECIFIED) }, 0x1_0000)?;
    client.capture(SOCKET, Ticks::MAX, &icmp_errors()?)?;
    let mut time = client.clock()?;
    let mut hops = BTreeMap::new();
    for hop in 1..=HOPS_MAX {
        let packet = ipv4::packet(ipv4::UDP, hop, target, &mark.probe(hop));
        let packet = Packet::Raw { family: Family::Ipv4, data: &packet };
        client.send(SOCKET.sktid, time, NonZeroU16::MIN.saturating_add(hop.into()), packet)?;
        hops.insert(hop, Hop::default());
        time = time.saturating_add(INTERVAL);
    }
    let deadline = Instant::now() + INTERVAL * u32::from(HOPS_MAX) + ANSWER_TIMEOUT;
    while !is_complete(&hops)
        && let Some(notification) = client.notification_before(deadline)?
    {
        match notification.message() {
            Message::Ntag { sktid, tag, time, status } if sktid == SOCKET.sktid => {
                let number = tag.wrapping_sub(1);
                if status != Status::SUCCESS {
                    return Err(MletError::Failed(format!(
                        "probe {number} was not sent: {status}"
                    )));
                }
                if let Some(hop) = u8::try_from(number).ok().and_then(|hop| hops.get_mut(&hop)) {
                    hop.sent = Some(time);
                }
            }
            Message::Ndata { sktid, time, packet: Packet::Raw { data, .. } }
                if sktid == SOCKET.sktid =>
            {
                if let Some((number, router, is_last)) = mark.answered(data, target)
                    && let Some(hop) = hops.get_mut(&number)
                {
                    // The first; near routers are captured more than once.
                    hop.answered.get_or_insert((time, router));
                    hop.is_last |= is_last;
                }
            }
            _ => {}
        }
    }
    client.close(SOCKET.sktid)?;
    Ok(hops)
}

/// All hops up to the target have answered.
fn is_complete(hops: &BTreeMap<u8, Hop>) -> bool {
    let last = hops.iter().find(|(_, hop)| hop.is_last).map_or(HOPS_MAX, |(number, _)| *number);
    hops.range(..=last).all(|(_, hop)| hop.answered.is_some() && hop.sent.is_some())
}

impl Mark {
    fn draw() -> Self {
        let [.., high, low] = mlet::random().to_be_bytes();
        // Not one of the ports that services have.
        let port = u16::from_be_bytes([high | 0x80, low]);
        Self { port, data: mlet::random().to_be_bytes() }
    }

    /// A UDP datagram without a checksum, which IPv4 allows.
    fn probe(&self, hop: u8) -> Vec<u8> {
        let fields = [self.port, BASE_PORT + u16::from(hop), PROBE_LEN, 0];
        [&fields.map(u16::to_be_bytes).concat()[..], &self.data].concat()
    }

    /// Which hop an ICMP error answers, who sent it, and whether that is the target. Routers quote at least the
    /// first 8 bytes of the datagram, and many quote all.
    fn answered(&self, packet: &[u8], target: Ipv4Addr) -> Option<(u8, Ipv4Addr, bool)> {
        let outer = Header::read(packet)?;
        let icmp: [u8; 2] = *outer.payload.first_chunk()?;
        let is_unreachable = icmp[0] == DESTINATION_UNREACHABLE;
        let is_error = outer.protocol == ipv4::ICMP
            && (is_unreachable || icmp == TIME_EXCEEDED)
            && ipv4::checksum(outer.payload) == 0;
        let quoted = Header::read(outer.payload.get(8..)?)?;
        let port = quoted.payload.get(2..)?.first_chunk().copied().map(u16::from_be_bytes)?;
        let hop = u8::try_from(port.checked_sub(BASE_PORT)?).ok()?;
        let is_ours = quoted.protocol == ipv4::UDP
            && quoted.destination == target
            && quoted.payload.len() >= UDP_HEADER_LEN
            && quoted.payload.iter().zip(self.probe(hop)).all(|(byte, sent)| *byte == sent);
        let is_last = is_unreachable && outer.source == target;
        (is_error && is_ours).then_some((hop, outer.source, is_last))
    }
}

/// Wants ICMP "time exceeded" and "destination unreachable".
fn icmp_errors() -> Result<Program, MletError> {
    mlet::filter(
        "\
        # r0 = protocol; not ICMP: no\n\
        0x30 0 0 0 9\n0x55 0 0 9 1\n\
        # r7 = length of the header; r0 = type\n\
        0x30 0 0 0 0\n0x57 0 0 0 15\n0x67 0 0 0 2\n0xbf 7 0 0 0\n0x50 0 7 0 0\n\
        # one of the two: yes\n\
        0x15 0 0 1 11\n0x55 0 0 2 3\n\
        # yes: every byte of it\n\
        0xb7 0 0 0 0xffff\n0x95 0 0 0 0\n\
        # no\n\
        0xb7 0 0 0 0\n0x95 0 0 0 0\n",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
    const ENDPOINT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

    /// A packet with addresses, as the network would deliver it.
    fn packet(protocol: u8, source: Ipv4Addr, destination: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
        let mut packet = ipv4::packet(protocol, 1, destination, payload);
        packet[12..16].copy_from_slice(&source.octets());
        packet
    }

    /// The ICMP error of `source` that quotes these bytes.
    fn error(icmp: [u8; 2], source: Ipv4Addr, quoted: &[u8]) -> Vec<u8> {
        let mut message = [&icmp[..], &[0; 6], quoted].concat();
        let checksum = ipv4::checksum(&message);
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
        packet(ipv4::ICMP, source, ENDPOINT, &message)
    }

    /// The `number`th router on the way.
    fn router(number: u8) -> Ipv4Addr {
        Ipv4Addr::new(203, 0, 113, number)
    }

    #[test]
    fn an_error_tells_its_hop_by_the_ports_it_quotes() {
        let mark = Mark::draw();
        let probe = packet(ipv4::UDP, ENDPOINT, TARGET, &mark.probe(7));
        let answered = |packet: &[u8]| mark.answered(packet, TARGET);
        let router = router(1);
        for quoted in [&probe[..], &probe[..28], &probe[..31]] {
            let exceeded = error(TIME_EXCEEDED, router, quoted);
            assert_eq!(answered(&exceeded), Some((7, router, false)), "{} bytes", quoted.len());
        }
        assert_eq!(answered(&error([3, 3], TARGET, &probe)), Some((7, TARGET, true)));
        assert_eq!(answered(&error([3, 1], router, &probe)), Some((7, router, false)));
    }

    #[test]
    fn what_is_no_answer_to_this_runs_probes_is_none() {
        let mark = Mark::draw();
        let probe = packet(ipv4::UDP, ENDPOINT, TARGET, &mark.probe(7));
        let answered = |packet: &[u8]| mark.answered(packet, TARGET);
        // Another packet's destination, protocol, source port, target port, length, data.
        for at in [19, 9, 20, 22, 25, 28, 35] {
            let mut quoted = probe.clone();
            quoted[at] ^= 1;
            assert_eq!(answered(&error(TIME_EXCEEDED, router(1), &quoted)), None, "byte {at}");
        }
        for icmp in [[11, 1], [0, 0], [8, 0], [5, 0], [12, 0]] {
            assert_eq!(answered(&error(icmp, router(1), &probe)), None, "type {}", icmp[0]);
        }
        let right = error(TIME_EXCEEDED, router(1), &probe);
        assert_eq!(answered(&error(TIME_EXCEEDED, router(1), &probe[..27])), None);
        for len in 0..right.len() {
            assert_eq!(answered(&right[..len]), None, "{len}");
        }
    }

    /// Each probe is answered first by an error that another run's has caused. The endpoint is the original's: see
    /// [`scripted_endpoint`].
    #[test]
    fn at_the_originals_endpoint_the_way_is_found_among_the_ways_of_others() {
        let session = scripted_endpoint::start(|request, answers| {
            scripted_endpoint::original(request, answers);
            let Message::Nsend { packet: Packet::Raw { data, .. }, .. } = request else { return };
            let mut probe = data.to_vec();
            probe[12..16].copy_from_slice(&ENDPOINT.octets());
            let ttl = probe[8];
            let mut stranger = probe.clone();
            stranger[20] ^= 1;
            let own = match ttl {
                ..3 => error(TIME_EXCEEDED, router(ttl), &probe),
                _ => error([3, 3], TARGET, &probe[..28]),
            };
            for packet in [error([3, 3], TARGET, &stranger), own] {
                let packet = Packet::Raw { family: Family::Ipv4, data: &packet };
                let time = scripted_endpoint::CLOCK;
                Message::Ndata { sktid: SOCKET.sktid, time, packet }.encode(answers).unwrap();
            }
        });
        let mut client = Client::new(session, mlet::SILENCE_MAX).unwrap();
        let hops = trace(&mut client, TARGET).unwrap();
        let way: Vec<_> = hops.values().take(3).map(|hop| hop.answered.unwrap().1).collect();
        assert_eq!(way, [router(1), router(2), TARGET]);
        assert!(hops[&3].is_last && hops[&3].sent.is_some() && !hops[&2].is_last);
    }
}
