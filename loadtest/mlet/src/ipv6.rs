//! Whole IPv6 packets, for raw sockets.
//!
//! Unlike for IPv4, the endpoint's kernel fills in nothing: the source address has to be one of the endpoint's.
//!
//! Not here: extension headers and fragments, which a packet that is read must not have.
//!
//! Invariant: as in [`ipv4`](crate::ipv4), what is read lies within what the packet says of its own length.

use std::net::Ipv6Addr;

/// Bytes of the header.
pub(crate) const HEADER_LEN: usize = 40;

/// Protocol number of ICMPv6.
pub const ICMP: u8 = 58;

/// The 20 bits of a flow label.
const FLOW_LABEL: u32 = 0xF_FFFF;

/// A packet without extension headers. Of the flow label 20 bits count; a payload that no packet can hold is cut.
#[must_use]
pub fn packet(
    protocol: u8,
    hop_limit: u8,
    flow_label: u32,
    (source, destination): (Ipv6Addr, Ipv6Addr),
    payload: &[u8],
) -> Vec<u8> {
    let payload_len = u16::try_from(payload.len()).unwrap_or(u16::MAX);
    let mut packet = (6 << 28 | flow_label & FLOW_LABEL).to_be_bytes().to_vec();
    packet.extend_from_slice(&payload_len.to_be_bytes());
    packet.extend_from_slice(&[protocol, hop_limit]);
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&destination.octets());
    packet.extend_from_slice(payload.get(..payload_len.into()).unwrap_or(payload));
    packet
}

/// The header of a received packet, as far as measurements need it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// Of the payload; with extension headers that of the first of them.
    pub protocol: u8,
    /// Who sent it.
    pub source: Ipv6Addr,
    /// To whom.
    pub destination: Ipv6Addr,
    /// What follows the header.
    pub payload: &'a [u8],
}

impl<'a> Header<'a> {
    /// Takes a packet apart, of which the end may be missing; `None` if it is none.
    #[must_use]
    pub fn read(packet: &'a [u8]) -> Option<Self> {
        let (header, rest) = packet.split_first_chunk::<HEADER_LEN>()?;
        let address =
            |at: usize| header.get(at..)?.first_chunk::<16>().copied().map(Ipv6Addr::from);
        let [first, _, _, _, high, low, protocol, ..] = *header;
        if first >> 4 != 6 {
            return None;
        }
        let len = usize::from(u16::from_be_bytes([high, low]));
        let payload = rest.get(..len).unwrap_or(rest);
        Some(Self { protocol, source: address(8)?, destination: address(24)?, payload })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

    #[test]
    fn a_packet_can_be_taken_apart_again() {
        let way = (SOURCE, Ipv6Addr::LOCALHOST);
        let packet = packet(ICMP, 30, 0xFFA_BCDE, way, &[128, 0, 1]);
        assert_eq!(packet[..8], [0x60, 0x0A, 0xBC, 0xDE, 0, 3, 58, 30]);
        let header = Header::read(&packet).unwrap();
        let (source, destination) = way;
        assert_eq!(header, Header { protocol: ICMP, source, destination, payload: &[128, 0, 1] });
        for len in 0..HEADER_LEN {
            assert_eq!(Header::read(&packet[..len]), None, "{len}");
        }
        let padded = [&packet[..], &[0; 9]].concat();
        assert_eq!(Header::read(&padded).unwrap().payload, [128, 0, 1]);
        assert_eq!(Header::read(&packet[..42]).unwrap().payload, [128, 0]);
        let version_4 = [&[0x45], &packet[1..]].concat();
        assert_eq!(Header::read(&version_4), None);
    }
}
