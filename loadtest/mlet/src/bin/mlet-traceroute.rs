//! `mlet-traceroute [-4|-6] [TARGET]`: the routers on the way from the endpoint, which must offer raw sockets, to
//! a target. All probes are ordered at once; a probe is told by its UDP ports, and by its data, in what comes
//! back. The port it comes from and the data are drawn anew for every run. Where the ways part, hops may be of
//! different ways, because each probe is for a port of its own: `mlet-path` keeps to one.
//!
//! ```text
//! KEY <TAB> ADDRESS <TAB> TARGET <TAB> hop <TAB> router, or - <TAB> milliseconds, or -
//! ```

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;

use mlet::arguments;
use mlet::ip::{self, Header, UDP, Wanted, Way};
use mlet::probes::{self, Pace, Probe, Probes};
use mlet::{Client, Family, MletError, print_line, resolve_of};

#[cfg(test)]
#[path = "../scripted_endpoint.rs"]
mod scripted_endpoint;

const USAGE: &str = "mlet-traceroute [-4|-6] [TARGET]\n\
    prints a line for each hop: key, address, target, hop,\n\
    router or -, milliseconds or -";
const TARGET: &str = "www.example.com";
const HOPS_MAX: u16 = 30;
/// The probe with this port has hop 0; nobody should listen from here on.
const BASE_PORT: u16 = 33434;
/// Bytes of a whole datagram.
const PROBE_LEN: u16 = 16;
const PACE: Pace = Pace { interval: Duration::from_millis(20), patience: Duration::from_secs(2) };

/// What is asked for.
struct Arguments {
    family: Option<Family>,
    target: String,
}

/// The probes of one run: what they have in common, and those of no other.
#[derive(Debug, Clone, Copy)]
struct Datagrams {
    way: Way,
    /// The port they come from.
    port: u16,
    data: [u8; 8],
}

/// Who has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Answer {
    router: IpAddr,
    /// It is the target itself.
    is_target: bool,
}

fn main() -> ExitCode {
    mlet::run_with(USAGE, judged, |client, endpoint, Arguments { family, target }| {
        let address = resolve_of(&target, 0, family)?.ip();
        let way = Way::to(client, address)?;
        let endpoint = endpoint.columns();
        for (number, hop) in trace(client, way)? {
            let answer = hop.answered.as_ref().map(|(_, answer)| *answer);
            let router = answer.map_or_else(|| "-".to_owned(), |answer| answer.router.to_string());
            let milliseconds = hop.milliseconds();
            print_line(&format!("{endpoint}\t{target}\t{number}\t{router}\t{milliseconds}"))?;
            if answer.is_some_and(|answer| answer.is_target) {
                break;
            }
        }
        Ok(())
    })
}

fn judged(words: &[String]) -> Result<Arguments, MletError> {
    let (family, words) = arguments::family(words)?;
    let target = match words {
        [] => TARGET,
        [target] => target,
        _ => return Err(MletError::Usage),
    };
    Ok(Arguments { family, target: arguments::host_alone(target, family)? })
}

fn trace(client: &mut Client, way: Way) -> Result<BTreeMap<u16, Probe<Answer>>, MletError> {
    let filter = ip::filter(way.family(), &Wanted::icmp_errors(way.family()))?;
    let datagrams = Datagrams::draw(way);
    probes::exchange(client, (way.family(), &filter), 1..=HOPS_MAX, PACE, &datagrams)
}

impl Datagrams {
    fn draw(way: Way) -> Self {
        let [.., high, low] = mlet::random().to_be_bytes();
        // Not one of the ports that services have.
        let port = u16::from_be_bytes([high | 0x80, low]);
        Self { way, port, data: mlet::random().to_be_bytes() }
    }

    /// A datagram, without a checksum where IPv4 allows that.
    fn datagram(&self, hop: u16) -> Vec<u8> {
        let fields = [self.port, BASE_PORT + hop, PROBE_LEN, 0];
        let mut datagram = [&fields.map(u16::to_be_bytes).concat()[..], &self.data].concat();
        if self.way.family() == Family::Ipv6 {
            // One of 0 is sent as its other form, because 0 means none (RFC 8200, 8.1).
            let checksum = match self.way.checksum(UDP, &datagram) {
                0 => u16::MAX,
                checksum => checksum,
            };
            datagram.splice(6..8, checksum.to_be_bytes());
        }
        datagram
    }
}

impl Probes for Datagrams {
    type Answer = Answer;

    fn packet(&self, number: u16) -> Vec<u8> {
        let hop_limit = u8::try_from(number).unwrap_or(u8::MAX);
        self.way.packet(UDP, hop_limit, &self.datagram(number))
    }

    /// An ICMP error says which probe it is about by what it quotes of it.
    fn answer(&self, packet: &[u8]) -> Option<(u16, Answer)> {
        let header = Header::read(packet)?;
        let error = header.icmp_error()?;
        let port = *error.quoted.payload.get(2..)?.first_chunk()?;
        let hop = u16::from_be_bytes(port).checked_sub(BASE_PORT)?;
        if !(1..=HOPS_MAX).contains(&hop) || !error.quotes(&self.packet(hop)) {
            return None;
        }
        let router = header.source();
        let is_target = error.unreachable.is_some() && router == self.way.target();
        Some((hop, Answer { router, is_target }))
    }

    fn is_last(&self, answer: &Answer) -> bool {
        answer.is_target
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use mlet::{Message, Packet, ipv4};

    use super::*;

    const TARGET: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
    const ENDPOINT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
    const TIME_EXCEEDED: [u8; 2] = [11, 0];

    fn way() -> Way {
        Way::between(Ipv4Addr::UNSPECIFIED, TARGET)
    }

    /// The ICMP error of `source` that quotes these bytes.
    fn error(icmp: [u8; 2], source: Ipv4Addr, quoted: &[u8]) -> Vec<u8> {
        let mut message = [&icmp[..], &[0; 6], quoted].concat();
        let checksum = ipv4::checksum(&message);
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
        Way::between(source, ENDPOINT).packet(ipv4::ICMP, 1, &message)
    }

    /// The `number`th router on the way.
    fn router(number: u8) -> Ipv4Addr {
        Ipv4Addr::new(203, 0, 113, number)
    }

    /// A probe as it is on its way.
    fn under_way(probe: &[u8]) -> Vec<u8> {
        let mut probe = probe.to_vec();
        probe[12..16].copy_from_slice(&ENDPOINT.octets());
        probe
    }

    #[test]
    fn an_error_tells_its_hop_by_the_ports_it_quotes() {
        let datagrams = Datagrams::draw(way());
        let probe = under_way(&datagrams.packet(7));
        let told =
            |router: Ipv4Addr, is_target| Some((7, Answer { router: router.into(), is_target }));
        for quoted in [&probe[..], &probe[..28], &probe[..31]] {
            let exceeded = error(TIME_EXCEEDED, router(1), quoted);
            assert_eq!(datagrams.answer(&exceeded), told(router(1), false), "{}", quoted.len());
        }
        assert_eq!(datagrams.answer(&error([3, 3], TARGET, &probe)), told(TARGET, true));
        assert_eq!(datagrams.answer(&error([3, 1], router(1), &probe)), told(router(1), false));
    }

    #[test]
    fn what_is_no_answer_to_this_runs_probes_is_none() {
        let datagrams = Datagrams::draw(way());
        let probe = under_way(&datagrams.packet(7));
        // Another packet's destination, protocol, source port, target port, length, data.
        for at in [19, 9, 20, 22, 25, 28, 35] {
            let mut quoted = probe.clone();
            quoted[at] ^= 1;
            let other = error(TIME_EXCEEDED, router(1), &quoted);
            assert_eq!(datagrams.answer(&other), None, "byte {at}");
        }
        for icmp in [[11, 1], [0, 0], [8, 0], [5, 0], [12, 0]] {
            assert_eq!(datagrams.answer(&error(icmp, router(1), &probe)), None, "{}", icmp[0]);
        }
        let right = error(TIME_EXCEEDED, router(1), &probe);
        let quotes_less = error(TIME_EXCEEDED, router(1), &probe[..27]);
        assert_eq!(datagrams.answer(&quotes_less), None);
        for len in 0..right.len() {
            assert_eq!(datagrams.answer(&right[..len]), None, "{len}");
        }
    }

    /// Each probe is answered first by an error that another run's has caused. The endpoint is the original's: see
    /// [`scripted_endpoint`].
    #[test]
    fn at_the_originals_endpoint_the_way_is_found_among_the_ways_of_others() {
        let session = scripted_endpoint::start(|request, answers| {
            scripted_endpoint::original(request, answers);
            let Message::Nsend { sktid, packet: Packet::Raw { data, family }, .. } = *request
            else {
                return;
            };
            let probe = under_way(data);
            let ttl = probe[8];
            let mut stranger = probe.clone();
            stranger[20] ^= 1;
            let own = match ttl {
                ..3 => error(TIME_EXCEEDED, router(ttl), &probe),
                _ => error([3, 3], TARGET, &probe[..28]),
            };
            for packet in [error([3, 3], TARGET, &stranger), own] {
                let packet = Packet::Raw { family, data: &packet };
                let time = scripted_endpoint::CLOCK;
                Message::Ndata { sktid, time, packet }.encode(answers).unwrap();
            }
        });
        let mut client = Client::new(session, mlet::SILENCE_MAX).unwrap();
        let hops = trace(&mut client, way()).unwrap();
        let answer = |number: u16| hops[&number].answered.unwrap().1;
        assert_eq!(
            [1, 2, 3].map(|hop| answer(hop).router),
            [router(1), router(2), TARGET].map(IpAddr::V4)
        );
        assert!(answer(3).is_target && hops[&3].sent.is_some() && !answer(2).is_target);
    }
}
