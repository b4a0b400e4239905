//! Whole IPv4 packets, for raw sockets.
//!
//! The endpoint's kernel fills in what is 0 here: source address, identification, checksum of the header.
//!
//! Not here: IPv6, options, fragments.

use std::net::Ipv4Addr;

/// Protocol number of ICMP.
pub const ICMP: u8 = 1;
/// Protocol number of UDP.
pub const UDP: u8 = 17;

/// A packet to `destination`. A payload that no packet can hold is cut.
#[must_use]
pub fn packet(protocol: u8, ttl: u8, destination: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    const HEADER_LEN: u16 = 20;
    let payload_len = u16::try_from(payload.len()).unwrap_or(u16::MAX).min(u16::MAX - HEADER_LEN);
    let mut packet = vec![0x45, 0];
    packet.extend_from_slice(&(HEADER_LEN + payload_len).to_be_bytes());
    packet.extend_from_slice(&[0, 0, 0, 0, ttl, protocol, 0, 0, 0, 0, 0, 0]);
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
    /// Takes a packet apart; `None` if it is none.
    #[must_use]
    pub fn read(packet: &'a [u8]) -> Option<Self> {
        let header_len = usize::from(packet.first()? & 0x0F) * 4;
        let (header, payload) = packet.split_at_checked(header_len)?;
        let address = |at: usize| header.get(at..)?.first_chunk::<4>().copied().map(Ipv4Addr::from);
        let protocol = *header.get(9)?;
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
        assert_eq!(Header::read(&packet[..19]), None);
        assert_eq!(Header::read(&[]), None);
    }

    #[test]
    fn the_checksum_is_that_of_the_originals_echo_request() {
        assert_eq!(checksum(&[8, 0, 0, 0, 0x15, 0xbe, 0, 0]), 0xe241);
        assert_eq!(checksum(&[0xFF; 3]), 0x00FF);
        assert_eq!(checksum(&[]), 0xFFFF);
    }
}
