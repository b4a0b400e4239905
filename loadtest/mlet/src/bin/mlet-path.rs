//! `mlet-path [-4|-6] [TARGET[:PORT] [PROTOCOL [FLOWS]]]`: the routers on one way to a target, as paris-traceroute
//! finds them. A router that spreads packets over several ways chooses by addresses, protocol and the first four bytes
//! behind the header (ports, or type, code and checksum of ICMP), in IPv6 by the flow label as well. These are the same
//! for all probes of a flow; what tells one probe from another is elsewhere. Other flows may go other ways. The endpoint
//! must offer raw sockets.
//!
//! ```text
//! KEY <TAB> ADDRESS <TAB> TARGET <TAB> protocol <TAB> flow <TAB> hop <TAB> router, or - <TAB> milliseconds, or -
//!     <TAB> what it said: exceeded, unreachable N, reply, open, closed, or -
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::process::ExitCode;
use std::time::Duration;

use mlet::arguments;
use mlet::ip::{self, Header, TCP, UDP, Wanted, Way};
use mlet::probes::{self, Pace, Probe, Probes};
use mlet::{Client, Family, MletError, print_line, resolve_of};

const USAGE: &str = "mlet-path [-4|-6] [TARGET[:PORT] [PROTOCOL [FLOWS]]]\n\
    prints a line for each hop of each flow: key, address, target, protocol\n\
    (icmp, udp or tcp), flow, hop, router or -, milliseconds or -, what it said\n\
    or -";
const TARGET: &str = "www.example.com";
const HOPS_MAX: u16 = 30;
const PACE: Pace = Pace { interval: Duration::from_millis(20), patience: Duration::from_secs(2) };
/// Where nobody should listen.
const UDP_PORT: u16 = 33434;
const TCP_PORT: u16 = 80;
/// Bytes of what is drawn at random, in each ICMP message and datagram.
const MARK_LEN: usize = 6;
/// Of a segment that asks for a connection.
const SYN: u8 = 0x02;
const SYN_ACK: u8 = 0x12;
const RST: u8 = 0x04;

/// What is asked for.
#[derive(Debug)]
struct Arguments {
    family: Option<Family>,
    target: String,
    kind: Kind,
    flows: u16,
}

/// What probes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Echo requests.
    Icmp,
    Udp,
    /// Requests for a connection, which never comes to be.
    Tcp,
}

/// The probes of one flow: what they have in common, and those of no other.
#[derive(Debug, Clone, Copy)]
struct Flow {
    kind: Kind,
    way: Way,
    /// From the source's to the target's; of ICMP the first is the identifier.
    ports: [u16; 2],
    /// The checksum of each ICMP message; that of a datagram, and the sequence number of a segment, less the hop.
    base: u32,
    mark: [u8; MARK_LEN],
}

/// Who has answered, and what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Answer {
    from: IpAddr,
    said: Said,
    /// It is the target itself.
    is_target: bool,
}

/// What an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Exceeded,
    Unreachable(u8),
    EchoReply,
    /// The target takes connections at the port, or does not.
    Open,
    Closed,
}

fn main() -> ExitCode {
    mlet::run_with(USAGE, judged, |client, endpoint, arguments| {
        let Arguments { family, target, kind, flows } = arguments;
        let address = resolve_of(&target, kind.default_port(), family)?;
        let way = with_source(client, address.ip())?;
        let endpoint = endpoint.columns();
        for number in 1..=flows {
            for (hop, probe) in Flow::draw(kind, way, address.port()).trace(client)? {
                let answer = probe.answered.as_ref().map(|(_, answer)| *answer);
                let from = answer.map_or_else(|| "-".to_owned(), |answer| answer.from.to_string());
                let said = answer.map_or_else(|| "-".to_owned(), |answer| answer.said.to_string());
                let milliseconds = probe.milliseconds();
                print_line(&format!(
                    "{endpoint}\t{target}\t{kind}\t{number}\t{hop}\t{from}\t{milliseconds}\t{said}"
                ))?;
                if answer.is_some_and(|answer| answer.is_target) {
                    break;
                }
            }
        }
        Ok(())
    })
}

fn judged(words: &[String]) -> Result<Arguments, MletError> {
    let (family, words) = arguments::family(words)?;
    let (target, kind, flows) = match words {
        [] => (TARGET, Kind::Udp, 1),
        [target] => (&**target, Kind::Udp, 1),
        [target, kind] => (&**target, Kind::read(kind)?, 1),
        [target, kind, flows] => {
            (&**target, Kind::read(kind)?, arguments::number::<NonZeroU16>(flows)?.get())
        }
        _ => return Err(MletError::Usage),
    };
    let target = match kind {
        Kind::Icmp => arguments::host_alone(target, family)?,
        Kind::Udp | Kind::Tcp => arguments::host_of(target, family)?,
    };
    Ok(Arguments { family, target, kind, flows })
}

impl Kind {
    fn read(word: &str) -> Result<Self, MletError> {
        match word {
            "icmp" => Ok(Self::Icmp),
            "udp" => Ok(Self::Udp),
            "tcp" => Ok(Self::Tcp),
            _ => {
                Err(MletError::Failed(format!("'{}' is not icmp, udp or tcp", word.escape_debug())))
            }
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Self::Icmp => 0,
            Self::Udp => UDP_PORT,
            Self::Tcp => TCP_PORT,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Icmp => "icmp",
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        })
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exceeded => f.write_str("exceeded"),
            Self::Unreachable(code) => write!(f, "unreachable {code}"),
            Self::EchoReply => f.write_str("reply"),
            Self::Open => f.write_str("open"),
            Self::Closed => f.write_str("closed"),
        }
    }
}

/// The way to a target, with the source address, which checksums need: for IPv4 that which the endpoint's kernel
/// fills in, seen in a packet that leaves.
fn with_source(client: &mut Client, target: IpAddr) -> Result<Way, MletError> {
    let way = Way::to(client, target)?;
    let IpAddr::V4(target) = target else { return Ok(way) };
    let leaving = Leaving { flow: Flow::draw(Kind::Icmp, way, 0) };
    let filter = ip::filter(way.family(), &[leaving.wanted()])?;
    let seen = probes::exchange(client, (way.family(), &filter), 1..=1, PACE, &leaving)?;
    let source = seen.into_values().find_map(|probe| probe.answered);
    match source {
        Some((_, IpAddr::V4(source))) => Ok(Way::between(source, target)),
        _ => Err(MletError::Failed(
            "the endpoint does not show what leaves it, so that its own address is not known"
                .to_owned(),
        )),
    }
}

/// An echo request that is looked at while it leaves.
struct Leaving {
    flow: Flow,
}

impl Leaving {
    fn wanted(&self) -> Wanted {
        let [request, _] = self.flow.way.echo_types();
        self.flow.echo(request)
    }
}

impl Probes for Leaving {
    type Answer = IpAddr;

    fn packet(&self, number: u16) -> Vec<u8> {
        self.flow.packet(number)
    }

    fn answer(&self, packet: &[u8]) -> Option<(u16, IpAddr)> {
        let header = Header::read(packet)?;
        (header.payload == self.flow.payload(1)).then_some((1, header.source()))
    }
}

impl Flow {
    fn draw(kind: Kind, way: Way, port: u16) -> Self {
        let [a, b, c, d, ..] = mlet::random().to_be_bytes();
        let [mark @ .., e, f] = mlet::random().to_be_bytes();
        let own = match kind {
            Kind::Icmp => [a, b],
            // Not one of the ports that services have.
            Kind::Udp | Kind::Tcp => [a | 0x80, b],
        };
        let base = match kind {
            // Never 0, which means none, up to the last hop.
            Kind::Udp | Kind::Icmp => u16::from_be_bytes([c & 0x7F, d | 1]).into(),
            Kind::Tcp => u32::from_be_bytes([c, d, e, f]),
        };
        let way = way.with_flow_label(u32::from_be_bytes([0, a, b, c]));
        Self { kind, way, ports: [u16::from_be_bytes(own), port], base, mark }
    }

    fn trace(&self, client: &mut Client) -> Result<BTreeMap<u16, Probe<Answer>>, MletError> {
        let family = self.way.family();
        let mut wanted = Wanted::icmp_errors(family).to_vec();
        let [_, reply] = self.way.echo_types();
        match self.kind {
            Kind::Icmp => wanted.push(self.echo(reply)),
            Kind::Udp => {}
            Kind::Tcp => wanted.push(self.segments()),
        }
        let filter = ip::filter(family, &wanted)?;
        probes::exchange(client, (family, &filter), 1..=HOPS_MAX, PACE, self)
    }

    /// Echo messages of this flow.
    fn echo(&self, icmp_type: u8) -> Wanted {
        let [[high, low], _] = self.ports.map(u16::to_be_bytes);
        Wanted { protocol: self.way.icmp(), bytes: vec![(0, icmp_type), (4, high), (5, low)] }
    }

    /// What the target sends to the port that segments of this flow come from.
    fn segments(&self) -> Wanted {
        let [[a, b], [c, d]] = self.ports.map(u16::to_be_bytes);
        Wanted { protocol: TCP, bytes: vec![(0, c), (1, d), (2, a), (3, b)] }
    }

    fn protocol(&self) -> u8 {
        match self.kind {
            Kind::Icmp => self.way.icmp(),
            Kind::Udp => UDP,
            Kind::Tcp => TCP,
        }
    }

    /// What follows the header of the probe with this hop limit.
    fn payload(&self, hop: u16) -> Vec<u8> {
        let [own, other] = self.ports.map(u16::to_be_bytes);
        let number = self.base.wrapping_add(hop.into());
        // Modulo 2^16, where it is one of 16 bits.
        let [_, _, number_16 @ ..] = number.to_be_bytes();
        match self.kind {
            Kind::Icmp => {
                let [request, _] = self.way.echo_types();
                let [_, _, checksum @ ..] = self.base.to_be_bytes();
                let start = [[request, 0], [0; 2], own, hop.to_be_bytes()];
                self.with_checksum(start.concat(), 2, checksum)
            }
            Kind::Udp => {
                let len = [0, 8 + 2 + MARK_LEN as u8];
                self.with_checksum([own, other, len, [0; 2]].concat(), 6, number_16)
            }
            Kind::Tcp => {
                let mut segment = [&own[..], &other, &number.to_be_bytes(), &[0; 4]].concat();
                // Five words of header, the largest window, no urgent data.
                segment.extend_from_slice(&[0x50, SYN, 0xFF, 0xFF, 0, 0, 0, 0]);
                let checksum = self.way.checksum(TCP, &segment).to_be_bytes();
                segment.splice(16..18, checksum);
                segment
            }
        }
    }

    /// These eight bytes and the mark, with this checksum at a place of theirs, which two bytes between them make right.
    fn with_checksum(&self, mut start: Vec<u8>, at: usize, checksum: [u8; 2]) -> Vec<u8> {
        let unbalanced = [&start[..], &[0; 2], &self.mark].concat();
        let is = self.way.checksum(self.protocol(), &unbalanced);
        // The sum of ones' complement of what is there and what is to be.
        let (sum, carry) = (!u16::from_be_bytes(checksum)).overflowing_add(is);
        let balance = sum + u16::from(carry);
        start.splice(at..at + 2, checksum);
        [&start[..], &balance.to_be_bytes(), &self.mark].concat()
    }

    /// Which hop a probe is for whose payload begins so.
    fn hop(&self, payload: &[u8]) -> Option<u16> {
        let u16_at = |at: usize| payload.get(at..)?.first_chunk().copied().map(u16::from_be_bytes);
        let hop = match self.kind {
            Kind::Icmp => u16_at(6)?.into(),
            Kind::Udp => u32::from(u16_at(6)?).checked_sub(self.base)?,
            Kind::Tcp => {
                u32::from_be_bytes(*payload.get(4..)?.first_chunk()?).wrapping_sub(self.base)
            }
        };
        u16::try_from(hop).ok().filter(|hop| (1..=HOPS_MAX).contains(hop))
    }

    /// What the target itself answers to a probe.
    fn reply(&self, header: &Header<'_>) -> Option<(u16, Said)> {
        if header.source() != self.way.target() || header.protocol != self.protocol() {
            return None;
        }
        let payload = header.payload;
        match self.kind {
            Kind::Icmp => {
                let hop = self.hop(payload)?;
                let [_, reply] = self.way.echo_types();
                let is_reply = payload.get(..2)? == [reply, 0]
                    && payload.get(4..) == self.payload(hop).get(4..)
                    && header.has_right_checksum();
                is_reply.then_some((hop, Said::EchoReply))
            }
            Kind::Udp => None,
            // A checksum that a network device has yet to fill in is wrong here, so that ports and number have to do.
            Kind::Tcp => {
                let [a, b, c, d, _, _, _, _, acknowledged @ ..] = payload.first_chunk::<12>()?;
                let number = u32::from_be_bytes(*acknowledged).wrapping_sub(1).to_be_bytes();
                let asked = [&[*c, *d, *a, *b][..], &number].concat();
                let hop = self.hop(&asked)?;
                let flags = *payload.get(13)?;
                let said = match flags {
                    flags if flags & RST != 0 => Said::Closed,
                    flags if flags & SYN_ACK == SYN_ACK => Said::Open,
                    _ => return None,
                };
                (self.payload(hop).get(..8)? == asked).then_some((hop, said))
            }
        }
    }
}

impl Probes for Flow {
    type Answer = Answer;

    fn packet(&self, number: u16) -> Vec<u8> {
        let hop_limit = u8::try_from(number).unwrap_or(u8::MAX);
        self.way.packet(self.protocol(), hop_limit, &self.payload(number))
    }

    fn answer(&self, packet: &[u8]) -> Option<(u16, Answer)> {
        let header = Header::read(packet)?;
        let from = header.source();
        let Some(error) = header.icmp_error() else {
            let (hop, said) = self.reply(&header)?;
            return Some((hop, Answer { from, said, is_target: true }));
        };
        let hop = self.hop(error.quoted.payload)?;
        if !error.quotes(&self.packet(hop)) {
            return None;
        }
        let said = error.unreachable.map_or(Said::Exceeded, Said::Unreachable);
        let is_target = error.unreachable.is_some() && from == self.way.target();
        Some((hop, Answer { from, said, is_target }))
    }

    fn is_last(&self, answer: &Answer) -> bool {
        answer.is_target
    }
}

#[cfg(test)]
#[path = "mlet-path/tests.rs"]
mod tests;
