//! Whole IPv4 packets, for raw sockets.
//!
//! The endpoint's kernel fills in what is 0 here: source address, identification, checksum of the header.
//!
//! Not here: IPv6 ([`ipv6`](crate::ipv6)), options, fragments.
//!
//! Invariant: what is read of a received packet lies within what the packet says of its own length, so that bytes
//! which a link has padded it with are none of it.

use std::net::Ipv4Addr;

/// Bytes of a header without options.
const HEADER_LEN: u16 = 20;

/// Protocol number of ICMP.
pub const ICMP: u8 = 1;
/// Protocol number of UDP.
pub const UDP: u8 = 17;

/// A packet to `destination`. A payload that no packet can hold is cut.
#[must_use]
pub fn packet(protocol: u8, ttl: u8, destination: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    packet_from(Ipv4Addr::UNSPECIFIED, protocol, ttl, destination, payload)
}

/// The same from an address of the endpoint's; the unspecified one is filled in.
pub(crate) fn packet_from(
    source: Ipv4Addr,
    protocol: u8,
    ttl: u8,
    destination: Ipv4Addr,
    payload: &[u8],
) -> Vec<u8> {
    let payload_len = u16::try_from(payload.len()).unwrap_or(u16::MAX).min(u16::MAX - HEADER_LEN);
    let mut packet = vec![0x45, 0];
    packet.extend_from_slice(&(HEADER_LEN + payload_len).to_be_bytes());
    packet.extend_from_slice(&[0, 0, 0, 0, ttl, protocol, 0, 0]);
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&destination.octets());
    packet.extend_from_slice(payload.get(..payload_len.into()).unwrap_or(payload));
    packet
}

/// The internet checksum of `bytes` (RFC 1071): what to put into their checksum field, now 0.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| {
        let high = pair.first().copied().unwrap_or(0);
        let low = pair.get(1).copied().unwrap_or(0);
        u64::from(u16::from_be_bytes([high, low]))
    };
    let mut sum: u64 = bytes.chunks(2).map(word).sum();
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    // The loop leaves 16 bits.
    !u16::try_from(sum).unwrap_or(0)
}

/// The header of a received packet, as far as measurements need it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// Of the payload.
    pub protocol: u8,
    /// Who sent it.
    pub source: Ipv4Addr,
    /// To whom.
    pub destination: Ipv4Addr,
    /// What follows the header.
    pub payload: &'a [u8],
}

impl<'a> Header<'a> {
    /// Takes a packet apart, of which the end may be missing; `None` if it is none, or a later fragment of one,
    /// which does not hold the beginning of the payload.
    #[must_use]
    pub fn read(packet: &'a [u8]) -> Option<Self> {
        let u16_at = |at: usize| packet.get(at..)?.first_chunk().copied().map(u16::from_be_bytes);
        let address = |at: usize| packet.get(at..)?.first_chunk::<4>().copied().map(Ipv4Addr::from);
        let (version, header_len) = (packet.first()? >> 4, usize::from(packet.first()? & 0x0F) * 4);
        let (len, fragment_offset) = (usize::from(u16_at(2)?), u16_at(6)? & 0x1FFF);
        if version != 4 || header_len < usize::from(HEADER_LEN) || fragment_offset != 0 {
            return None;
        }
        let payload = packet.get(header_len..len.min(packet.len()))?;
        let protocol = *packet.get(9)?;
        Some(Self { protocol, source: address(12)?, destination: address(16)?, payload })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_can_be_taken_apart_again() {
        let target = Ipv4Addr::new(127, 77, 0, 1);
        let packet = packet(ICMP, 30, target, &[8, 0, 1]);
        assert_eq!(packet[..12], [0x45, 0, 0, 23, 0, 0, 0, 0, 30, 1, 0, 0]);
        let header = Header::read(&packet).unwrap();
        let source = Ipv4Addr::UNSPECIFIED;
        assert_eq!(
            header,
            Header { protocol: ICMP, source, destination: target, payload: &[8, 0, 1] }
        );
        for len in 0..20 {
            assert_eq!(Header::read(&packet[..len]), None, "{len}");
        }
    }

    #[test]
    fn what_pads_a_packet_is_none_of_it_and_later_fragments_have_no_beginning() {
        let packet = packet(ICMP, 30, Ipv4Addr::LOCALHOST, &[8, 0, 1]);
        let payload = |packet: &[u8]| Header::read(packet).map(|header| header.payload.to_vec());
        assert_eq!(payload(&[&packet[..], &[0; 23]].concat()), Some(vec![8, 0, 1]));
        assert_eq!(payload(&packet[..22]), Some(vec![8, 0]));
        // The first fragment; the next one; IPv6; no header; shorter than its header.
        for (at, byte, expected) in
            [(6, 0x20, true), (7, 1, false), (0, 0x65, false), (0, 0x44, false), (3, 19, false)]
        {
            let mut changed = packet.clone();
            changed[at] = byte;
            assert_eq!(payload(&changed).is_some(), expected, "byte {at} is {byte:#x}");
        }
    }

    #[test]
    fn the_checksum_is_that_of_the_originals_echo_request() {
        assert_eq!(checksum(&[8, 0, 0, 0, 0x15, 0xbe, 0, 0]), 0xe241);
        assert_eq!(checksum(&[0xFF; 3]), 0x00FF);
        assert_eq!(checksum(&[]), 0xFFFF);
    }
}
