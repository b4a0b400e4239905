//! Whole packets of either family, for raw sockets: what a measurement sends to a target, and what it knows an answer by.
//!
//! A raw socket sees what the whole machine of the endpoint sends and receives, so that a mlet looks at everything
//! that makes a packet the answer to its own, and at nothing that another host or another run could have sent by chance:
//! addresses, checksum, and what it has drawn at random ([`random`](crate::random)).
//!
//! Not here: the layout of the headers ([`ipv4`], [`ipv6`]); when probes leave and how long answers are waited for
//! ([`probes`](crate::probes)).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use packetlab::message::Family;
use packetlab::program::Program;

use crate::client::Client;
use crate::mlet_error::MletError;
use crate::{ipv4, ipv6};

/// Protocol number of TCP.
pub const TCP: u8 = 6;
/// Protocol number of UDP.
pub const UDP: u8 = 17;

/// Where an endpoint's addresses of IPv6 are in its memory: their count, and the list of 16 bytes each (spec/protocol.md
/// 1.12).
const IPV6_COUNT: u32 = 0x1000_0001;
const IPV6_LIST: u32 = 0x1000_1000;
const IPV6_LEN: u16 = 16;

/// Bytes of an ICMP error before what it quotes, and of a quoted payload at least (RFC 792).
const ERROR_HEADER_LEN: usize = 8;
const QUOTED_LEN_MIN: usize = 8;

/// From where to where packets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    ends: Ends,
    /// Of IPv6 packets.
    flow_label: u32,
}

/// Source and destination of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    Ipv4(Ipv4Addr, Ipv4Addr),
    Ipv6(Ipv6Addr, Ipv6Addr),
}

impl Way {
    /// To `target` from the endpoint: for IPv4 from the address that its kernel fills in, and for IPv6, where it fills
    /// in none, from that of its own that suits the target best.
    ///
    /// # Errors
    /// The session fails, or the endpoint has no address of IPv6.
    pub fn to(client: &mut Client, target: IpAddr) -> Result<Self, MletError> {
        let ends = match target {
            IpAddr::V4(target) => Ends::Ipv4(Ipv4Addr::UNSPECIFIED, target),
            IpAddr::V6(target) => Ends::Ipv6(ipv6_source(client, target)?, target),
        };
        Ok(Self { ends, flow_label: 0 })
    }

    /// The way of IPv4 from an address of the endpoint's, which has to be known for checksums of TCP and UDP.
    #[must_use]
    pub fn between(source: Ipv4Addr, target: Ipv4Addr) -> Self {
        Self { ends: Ends::Ipv4(source, target), flow_label: 0 }
    }

    /// The same way with another flow label, of which 20 bits count; IPv4 has none.
    #[must_use]
    pub fn with_flow_label(self, flow_label: u32) -> Self {
        Self { flow_label, ..self }
    }

    /// Whom packets are sent to.
    #[must_use]
    pub fn target(&self) -> IpAddr {
        self.ends.destination()
    }

    /// The family of its packets.
    #[must_use]
    pub fn family(&self) -> Family {
        Family::of(self.target())
    }

    /// Which protocol ICMP is in this family.
    #[must_use]
    pub fn icmp(&self) -> u8 {
        self.ends.icmp()
    }

    /// The types of echo requests and echo replies in this family.
    #[must_use]
    pub fn echo_types(&self) -> [u8; 2] {
        match self.ends {
            Ends::Ipv4(..) => [8, 0],
            Ends::Ipv6(..) => [128, 129],
        }
    }

    /// A packet.
    #[must_use]
    pub fn packet(&self, protocol: u8, hop_limit: u8, payload: &[u8]) -> Vec<u8> {
        match self.ends {
            Ends::Ipv4(source, target) => {
                ipv4::packet_from(source, protocol, hop_limit, target, payload)
            }
            Ends::Ipv6(source, target) => {
                ipv6::packet(protocol, hop_limit, self.flow_label, (source, target), payload)
            }
        }
    }

    /// What to put into the checksum field of this payload, where 0 is now. In IPv4 that of ICMP alone does not depend
    /// on the source address.
    #[must_use]
    pub fn checksum(&self, protocol: u8, payload: &[u8]) -> u16 {
        self.ends.checksum(protocol, payload)
    }
}

impl Ends {
    fn destination(self) -> IpAddr {
        match self {
            Self::Ipv4(_, destination) => destination.into(),
            Self::Ipv6(_, destination) => destination.into(),
        }
    }

    fn icmp(self) -> u8 {
        match self {
            Self::Ipv4(..) => ipv4::ICMP,
            Self::Ipv6(..) => ipv6::ICMP,
        }
    }

    /// The checksum of a payload, of which the addresses are part but for ICMP over IPv4 (RFC 768, 8200).
    fn checksum(self, protocol: u8, payload: &[u8]) -> u16 {
        let addresses = match self {
            Self::Ipv4(..) if protocol == ipv4::ICMP => return ipv4::checksum(payload),
            Self::Ipv4(source, to) => [&source.octets()[..], &to.octets()].concat(),
            Self::Ipv6(source, to) => [&source.octets()[..], &to.octets()].concat(),
        };
        let len = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
        ipv4::checksum(&[&addresses[..], &len, &[0, 0, 0, protocol], payload].concat())
    }
}

/// The address of the endpoint's that suits a target best: of its own kind, and then with the longest prefix in common
/// (RFC 6724, rules 1, 2 and 8). That of loopback every machine has, and none has it in its memory.
fn ipv6_source(client: &mut Client, target: Ipv6Addr) -> Result<Ipv6Addr, MletError> {
    if target.is_loopback() {
        return Ok(target);
    }
    let count = client.read_memory(IPV6_COUNT, 1)?.first().copied().unwrap_or(0);
    let list = match count {
        0 => Vec::new(),
        count => client.read_memory(IPV6_LIST, u16::from(count) * IPV6_LEN)?,
    };
    let (addresses, _) = list.as_chunks::<16>();
    let suits = |own: &Ipv6Addr| {
        let in_common = (own.to_bits() ^ target.to_bits()).leading_zeros();
        (*own == target, kind(*own) == kind(target), in_common)
    };
    let best = addresses.iter().copied().map(Ipv6Addr::from).max_by_key(suits);
    best.ok_or_else(|| MletError::Failed("the endpoint has no address of IPv6".to_owned()))
}

/// How far an address reaches.
fn kind(address: Ipv6Addr) -> (bool, bool) {
    (address.is_loopback(), address.is_unicast_link_local())
}

/// The header of a received packet of either family, as far as measurements need it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    ends: Ends,
    /// Of the payload.
    pub protocol: u8,
    /// What follows the header, as far as it is here.
    pub payload: &'a [u8],
}

/// What a router or a target says of a packet that it does not pass on or take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IcmpError<'a> {
    /// The code of "destination unreachable"; `None` for "hop limit exceeded in transit".
    pub unreachable: Option<u8>,
    /// The packet that it is about, whose end may be missing: at least 8 bytes of its payload are quoted.
    pub quoted: Header<'a>,
}

impl<'a> Header<'a> {
    /// Takes a packet apart, of which the end may be missing; `None` if it is none, or a later fragment of one.
    #[must_use]
    pub fn read(packet: &'a [u8]) -> Option<Self> {
        if let Some(header) = ipv4::Header::read(packet) {
            let ipv4::Header { protocol, source, destination, payload } = header;
            return Some(Self { ends: Ends::Ipv4(source, destination), protocol, payload });
        }
        let ipv6::Header { protocol, source, destination, payload } = ipv6::Header::read(packet)?;
        Some(Self { ends: Ends::Ipv6(source, destination), protocol, payload })
    }

    /// Who sent it.
    #[must_use]
    pub fn source(&self) -> IpAddr {
        match self.ends {
            Ends::Ipv4(source, _) => source.into(),
            Ends::Ipv6(source, _) => source.into(),
        }
    }

    /// To whom.
    #[must_use]
    pub fn destination(&self) -> IpAddr {
        self.ends.destination()
    }

    /// Whether its payload, which must be whole, arrived as it was sent.
    #[must_use]
    pub fn has_right_checksum(&self) -> bool {
        self.ends.checksum(self.protocol, self.payload) == 0
    }

    /// What it says if it is an ICMP error that tells of the way or the target.
    #[must_use]
    pub fn icmp_error(&self) -> Option<IcmpError<'a>> {
        let [icmp_type, code, rest @ ..] = self.payload else { return None };
        let [unreachable, exceeded] = error_types(Family::of(self.source()));
        let unreachable = match (*icmp_type, *code) {
            (told, code) if told == unreachable => Some(code),
            (told, 0) if told == exceeded => None,
            _ => return None,
        };
        let quoted = Self::read(rest.get(ERROR_HEADER_LEN - 2..)?)?;
        let is_error = self.protocol == self.ends.icmp()
            && self.has_right_checksum()
            && quoted.payload.len() >= QUOTED_LEN_MIN;
        is_error.then_some(IcmpError { unreachable, quoted })
    }
}

impl IcmpError<'_> {
    /// Whether it quotes this packet, as far as it quotes one: addressee, protocol, and every byte of the payload that is
    /// here. The source may have been filled in on the way.
    #[must_use]
    pub fn quotes(&self, packet: &[u8]) -> bool {
        Header::read(packet).is_some_and(|sent| {
            sent.protocol == self.quoted.protocol
                && sent.destination() == self.quoted.destination()
                && self.quoted.payload.iter().zip(sent.payload).all(|(told, sent)| told == sent)
        })
    }
}

/// The types of "destination unreachable" and "time exceeded".
fn error_types(family: Family) -> [u8; 2] {
    match family {
        Family::Ipv4 => [3, 11],
        Family::Ipv6 => [1, 3],
    }
}

/// Packets that a capture wants: of this protocol, whose payload has these bytes at these places.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Of the payload.
    pub protocol: u8,
    /// Places in the payload, below 256, and what is there.
    pub bytes: Vec<(u8, u8)>,
}

impl Wanted {
    /// ICMP errors of this family that tell of the way or the target.
    #[must_use]
    pub fn icmp_errors(family: Family) -> [Self; 2] {
        let protocol = match family {
            Family::Ipv4 => ipv4::ICMP,
            Family::Ipv6 => ipv6::ICMP,
        };
        error_types(family).map(|icmp_type| Self { protocol, bytes: vec![(0, icmp_type)] })
    }
}

/// A filter for [`Client::capture`] that wants the whole of packets that are one of these, and nothing of others.
///
/// # Errors
/// It would be too long.
pub fn filter(family: Family, wanted: &[Wanted]) -> Result<Program, MletError> {
    // r7 = length of the header; where in it the protocol is.
    let (mut text, protocol_at) = match family {
        Family::Ipv4 => ("0x30 0 0 0 0\n0x57 0 0 0 15\n0x67 0 0 0 2\n0xbf 7 0 0 0\n".to_owned(), 9),
        Family::Ipv6 => (format!("0xb7 7 0 0 {}\n", ipv6::HEADER_LEN), 6),
    };
    for Wanted { protocol, bytes } in wanted {
        // What is not so leads behind this kind: two instructions for each byte, and two that say yes.
        let behind = |left: usize| 2 * left + 2;
        text += &format!("0x30 0 0 0 {protocol_at}\n0x55 0 0 {} {protocol}\n", behind(bytes.len()));
        for (index, (at, byte)) in bytes.iter().enumerate() {
            let left = bytes.len() - index - 1;
            text += &format!("0x50 0 7 0 {at}\n0x55 0 0 {} {byte}\n", behind(left));
        }
        text += "0xb7 0 0 0 0xffff\n0x95 0 0 0 0\n";
    }
    crate::filter(&format!("{text}0xb7 0 0 0 0\n0x95 0 0 0 0\n"))
}

#[cfg(test)]
mod tests;
