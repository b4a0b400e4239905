//! Packets of both families, what answers them, and what is none.

use std::net::{Ipv4Addr, Ipv6Addr};

use packetlab::message::Message;
use proptest::prelude::*;

use super::*;
use crate::scripted_endpoint;

const V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7);

fn v4_way() -> Way {
    Way::between(Ipv4Addr::new(198, 51, 100, 1), Ipv4Addr::new(192, 0, 2, 7))
}

/// The way from an endpoint whose memory holds these addresses.
fn v6_way(own: &'static [Ipv6Addr]) -> Result<Way, MletError> {
    v6_way_to(V6, own)
}

fn v6_way_to(target: Ipv6Addr, own: &'static [Ipv6Addr]) -> Result<Way, MletError> {
    let session = scripted_endpoint::start(|request, answers| {
        let data = match *request {
            Message::Mread { address: IPV6_COUNT, .. } => vec![own.len() as u8],
            Message::Mread { address: IPV6_LIST, .. } => {
                own.iter().flat_map(|own| own.octets()).collect()
            }
            _ => return scripted_endpoint::original(request, answers),
        };
        let Message::Mread { address, .. } = *request else { return };
        Message::Mdata { address, data: &data }.encode(answers).unwrap();
    });
    Way::to(&mut Client::new(session, crate::SILENCE_MAX).unwrap(), target.into())
}

#[test]
fn the_source_is_the_address_that_suits_the_target_best() {
    const NEAR: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xff);
    const FAR: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
    const LINK: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    for own in [&[LINK, FAR, NEAR][..], &[NEAR, Ipv6Addr::LOCALHOST, LINK, FAR]] {
        let packet = v6_way(own).unwrap().packet(UDP, 1, &[]);
        assert_eq!(Header::read(&packet).unwrap().source(), IpAddr::from(NEAR), "{own:?}");
    }
    // The link's has more bits in common with it, and does not reach it.
    let packet = v6_way_to(FAR, &[LINK, NEAR]).unwrap().packet(UDP, 1, &[]);
    assert_eq!(Header::read(&packet).unwrap().source(), IpAddr::from(NEAR));
    let itself = v6_way(&[NEAR, V6]).unwrap().packet(UDP, 1, &[]);
    assert_eq!(Header::read(&itself).unwrap().source(), IpAddr::from(V6));
    let looped = v6_way_to(Ipv6Addr::LOCALHOST, &[NEAR, FAR]).unwrap().packet(UDP, 1, &[]);
    assert_eq!(Header::read(&looped).unwrap().source(), IpAddr::from(Ipv6Addr::LOCALHOST));
    assert!(v6_way(&[]).is_err());
}

#[test]
fn the_checksum_of_a_datagram_covers_its_addresses() {
    // From the appendix of RFC 1071's method, counted by hand: 0x1111 + 0x2222 + 8 + 17 and both addresses.
    let datagram = [0x11, 0x11, 0x22, 0x22, 0, 8, 0, 0];
    let sum: u32 = 0x1111 + 0x2222 + 8 + 8 + 17 + 0xc633 + 0x6401 + 0xc000 + 0x0207;
    let expected = !(((sum & 0xFFFF) + (sum >> 16)) as u16);
    assert_eq!(v4_way().checksum(UDP, &datagram), expected);
    let elsewhere = Way::between(Ipv4Addr::UNSPECIFIED, Ipv4Addr::new(192, 0, 2, 7));
    assert_ne!(elsewhere.checksum(UDP, &datagram), expected);
    assert_eq!(elsewhere.checksum(1, &datagram), v4_way().checksum(1, &datagram));
}

/// An ICMP error of a router about a packet, with its type and code.
fn error(way: &Way, (icmp_type, code): (u8, u8), quoted: &[u8]) -> Vec<u8> {
    let mut message = [&[icmp_type, code, 0, 0, 0, 0, 0, 0][..], quoted].concat();
    let checksum = way.checksum(way.icmp(), &message).to_be_bytes();
    message.splice(2..4, checksum);
    way.packet(way.icmp(), 64, &message)
}

#[test]
fn an_error_says_whether_the_way_or_the_target_is_at_an_end() {
    let told = |way: &Way, told| {
        let quoted = way.packet(UDP, 3, &[7; 12]);
        let packet = error(way, told, &quoted);
        let error = Header::read(&packet).unwrap().icmp_error()?;
        assert!(error.quotes(&quoted));
        Some(error.unreachable)
    };
    let (v4, v6) = (v4_way(), v6_way(&[Ipv6Addr::LOCALHOST]).unwrap());
    assert_eq!((told(&v4, (11, 0)), told(&v4, (3, 3))), (Some(None), Some(Some(3))));
    assert_eq!((told(&v6, (3, 0)), told(&v6, (1, 4))), (Some(None), Some(Some(4))));
    for (icmp_type, code) in [(11, 1), (5, 0), (0, 0), (12, 0), (1, 0), (129, 0)] {
        assert_eq!(told(&v4, (icmp_type, code)), None, "{icmp_type}");
    }
    for (icmp_type, code) in [(3, 1), (2, 0), (4, 0), (11, 0), (129, 0)] {
        assert_eq!(told(&v6, (icmp_type, code)), None, "{icmp_type}");
    }
}

#[test]
fn an_error_quotes_only_the_packet_it_is_about() {
    for way in [v4_way(), v6_way(&[Ipv6Addr::LOCALHOST]).unwrap()] {
        let sent = way.packet(UDP, 3, &[7; 12]);
        let header_len = sent.len() - 12;
        let exceeded = match way.family() {
            Family::Ipv4 => (11, 0),
            Family::Ipv6 => (3, 0),
        };
        let quotes = |quoted: &[u8]| {
            let packet = error(&way, exceeded, quoted);
            Header::read(&packet).unwrap().icmp_error().is_some_and(|error| error.quotes(&sent))
        };
        assert!(quotes(&sent) && quotes(&sent[..header_len + 8]));
        assert!(!quotes(&sent[..header_len + 7]), "too little to know it by");
        // The last byte of the destination, and of the payload.
        for at in [header_len - 1, header_len, sent.len() - 1] {
            let mut other = sent.clone();
            other[at] ^= 1;
            assert!(!quotes(&other), "byte {at}");
        }
        assert!(!quotes(&way.packet(TCP, 3, &[7; 12])));
        let mut corrupt = error(&way, exceeded, &sent);
        *corrupt.last_mut().unwrap() ^= 1;
        assert_eq!(Header::read(&corrupt).unwrap().icmp_error(), None);
    }
}

proptest! {
    #[test]
    fn whatever_a_packet_holds_it_is_read_or_is_none(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
        for version in [4, 6] {
            let mut packet = bytes.clone();
            if let Some(first) = packet.first_mut() {
                *first = version << 4 | 5;
            }
            if let Some(header) = Header::read(&packet) {
                prop_assert!(header.payload.len() < packet.len());
                let _ = header.icmp_error();
            }
        }
    }
}
