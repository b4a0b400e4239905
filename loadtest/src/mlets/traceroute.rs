//! `mlet-traceroute [TARGET]`: the routers on the way from the endpoint, which must offer raw sockets, to
//! an IPv4 target. All probes are ordered at once; a probe is told by its UDP port in what comes back.
//!
//! ```text
//! EPADDR <TAB> TARGET <TAB> hop <TAB> router, or - <TAB> milliseconds, or -
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

const USAGE: &str = "mlet-traceroute [TARGET], a target with an IPv4 address";
const SOCKET: Socket = Socket { sktid: 1, family: Family::Ipv4, protocol: Protocol::Raw };
const HOPS_MAX: u8 = 30;
/// The probe with this port has hop 0; nobody should listen from here on.
const BASE_PORT: u16 = 33434;
const INTERVAL: Duration = Duration::from_millis(20);
/// Longest wait for the answer to the last probe.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
const DESTINATION_UNREACHABLE: u8 = 3;

/// What is known of a hop.
#[derive(Debug, Default, Clone, Copy)]
struct Hop {
    sent: Option<Ticks>,
    answered: Option<(Ticks, Ipv4Addr)>,
    /// The target itself has answered.
    is_last: bool,
}

fn main() -> ExitCode {
    mlet::run(USAGE, |client, endpoint, arguments| {
        let target = arguments.first().map_or("www.example.com", String::as_str);
        let address = resolve_ipv4(target)?;
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
    client.open(SOCKET.sktid, Open::Raw { local: IpAddr::V4(Ipv4Addr::UNSPECIFIED) }, 0x1_0000)?;
    client.capture(SOCKET, Ticks::MAX, &icmp_errors()?)?;
    let mut time = client.clock()?;
    let mut hops = BTreeMap::new();
    for hop in 1..=HOPS_MAX {
        let packet = ipv4::packet(ipv4::UDP, hop, target, &probe(hop));
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
            Message::Ntag { tag, time, status: Status::SUCCESS, .. } => {
                if let Some(hop) =
                    u8::try_from(tag.wrapping_sub(1)).ok().and_then(|hop| hops.get_mut(&hop))
                {
                    hop.sent = Some(time);
                }
            }
            Message::Ntag { tag, status, .. } => {
                return Err(MletError::Failed(format!("probe {tag} was not sent: {status}")));
            }
            Message::Ndata { time, packet: Packet::Raw { data, .. }, .. } => {
                if let Some((number, router, is_last)) = answered(data, target)
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

/// A UDP header without a checksum, which IPv4 allows, and without data.
fn probe(hop: u8) -> Vec<u8> {
    let ports = [BASE_PORT, BASE_PORT + u16::from(hop)];
    [ports.map(u16::to_be_bytes).concat(), vec![0, 8, 0, 0]].concat()
}

/// Which hop an ICMP error answers, who sent it, and whether that is the target.
fn answered(packet: &[u8], target: Ipv4Addr) -> Option<(u8, Ipv4Addr, bool)> {
    let outer = Header::read(packet)?;
    let icmp_type = *outer.payload.first()?;
    let quoted = Header::read(outer.payload.get(8..)?)?;
    let port = quoted.payload.get(2..)?.first_chunk::<2>().map(|p| u16::from_be_bytes(*p))?;
    if quoted.protocol != ipv4::UDP || quoted.destination != target {
        return None;
    }
    let hop = u8::try_from(port.checked_sub(BASE_PORT)?).ok()?;
    let is_last = icmp_type == DESTINATION_UNREACHABLE && outer.source == target;
    Some((hop, outer.source, is_last))
}

/// Wants ICMP "time exceeded" and "destination unreachable". A line is
/// `opcode destination source offset constant` (protocol.md 6.1).
fn icmp_errors() -> Result<Program, MletError> {
    const TEXT: &str = "\
        # r0 = protocol; not ICMP: no\n\
        0x30 0 0 0 9\n0x55 0 0 9 1\n\
        # r7 = length of the header; r0 = type\n\
        0x30 0 0 0 0\n0x57 0 0 0 15\n0x67 0 0 0 2\n0xbf 7 0 0 0\n0x50 0 7 0 0\n\
        # one of the two: yes\n\
        0x15 0 0 1 11\n0x55 0 0 2 3\n\
        # yes: every byte of it\n\
        0xb7 0 0 0 0xffff\n0x95 0 0 0 0\n\
        # no\n\
        0xb7 0 0 0 0\n0x95 0 0 0 0\n";
    mlet::filter(TEXT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_tells_its_hop_by_the_port_it_quotes() {
        let target = Ipv4Addr::new(127, 77, 0, 1);
        let router = Ipv4Addr::new(192, 0, 2, 1);
        let quoted = ipv4::packet(ipv4::UDP, 1, target, &probe(7));
        let error = |icmp_type, source: Ipv4Addr| {
            let message = [&[icmp_type, 0, 0, 0, 0, 0, 0, 0], quoted.as_slice()].concat();
            let mut packet = ipv4::packet(ipv4::ICMP, 64, Ipv4Addr::LOCALHOST, &message);
            packet[12..16].copy_from_slice(&source.octets());
            packet
        };
        assert_eq!(answered(&error(11, router), target), Some((7, router, false)));
        assert_eq!(answered(&error(3, target), target), Some((7, target, true)));
        assert_eq!(answered(&error(3, router), target), Some((7, router, false)));
        assert_eq!(answered(&error(11, router), router), None);
        let whole = error(11, router);
        for len in 0..whole.len() - 4 {
            assert_eq!(answered(&whole[..len], target), None, "{len}");
        }
    }
}
