//! Probes of one flow, what answers them, and what does not.

use std::net::{Ipv4Addr, Ipv6Addr};

use mlet::{Message, Packet, ipv4};
use proptest::prelude::*;

use super::*;

#[path = "../../scripted_endpoint.rs"]
mod scripted_endpoint;

const TARGET: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
const ENDPOINT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const ENDPOINT_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const TARGET_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7);
const KINDS: [Kind; 3] = [Kind::Icmp, Kind::Udp, Kind::Tcp];
const PORT: u16 = 443;

/// The ways of both families, from a known source.
fn ways() -> [Way; 2] {
    let session = scripted_endpoint::start(|request, answers| match *request {
        Message::Mread { address: address @ 0x1000_0001, .. } => {
            Message::Mdata { address, data: &[1] }.encode(answers).unwrap();
        }
        Message::Mread { address: address @ 0x1000_1000, .. } => {
            Message::Mdata { address, data: &ENDPOINT_V6.octets() }.encode(answers).unwrap();
        }
        _ => scripted_endpoint::original(request, answers),
    });
    let mut client = Client::new(session, mlet::SILENCE_MAX).unwrap();
    [Way::between(ENDPOINT, TARGET), Way::to(&mut client, TARGET_V6.into()).unwrap()]
}

/// The ICMP error of a router of IPv4 that quotes these bytes.
fn error(icmp: [u8; 2], source: Ipv4Addr, quoted: &[u8]) -> Vec<u8> {
    let mut message = [&icmp[..], &[0; 6], quoted].concat();
    let checksum = ipv4::checksum(&message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    Way::between(source, ENDPOINT).packet(ipv4::ICMP, 1, &message)
}

/// What the target of IPv4 answers to a probe that reaches it.
fn reply(kind: Kind, probe: &[u8], flags: u8) -> Vec<u8> {
    let back = Way::between(TARGET, ENDPOINT);
    let asked = Header::read(probe).unwrap().payload;
    match kind {
        Kind::Icmp => {
            let mut message = asked.to_vec();
            message[0] = 0;
            message[2..4].fill(0);
            let checksum = ipv4::checksum(&message).to_be_bytes();
            message[2..4].copy_from_slice(&checksum);
            back.packet(ipv4::ICMP, 64, &message)
        }
        Kind::Udp => error([3, 3], TARGET, probe),
        Kind::Tcp => {
            let number: u32 = u32::from_be_bytes(*asked[4..].first_chunk().unwrap());
            let next = number.wrapping_add(1).to_be_bytes();
            // A checksum that the network device has yet to fill in.
            let rest = [0x50, flags, 1, 0, 0, 1, 0, 0];
            back.packet(TCP, 64, &[&asked[2..4], &asked[..2], &[9; 4], &next, &rest].concat())
        }
    }
}

proptest! {
    /// What routers choose a way by is the same for all hops of a flow, and yet each probe is told from the others by
    /// the eight bytes that every router quotes.
    #[test]
    fn all_probes_of_a_flow_take_one_way(_run in 0..16_u8) {
        for way in ways() {
            for kind in KINDS {
                let flow = Flow::draw(kind, way, PORT);
                let packets: Vec<_> = (1..=HOPS_MAX).map(|hop| flow.packet(hop)).collect();
                let header_len = packets[0].len() - flow.payload(1).len();
                let mut quoted: Vec<_> = packets.iter().map(|one| &one[header_len..][..8]).collect();
                for packet in &packets {
                    let header = Header::read(packet).unwrap();
                    prop_assert!(header.has_right_checksum(), "{}", kind);
                    prop_assert_eq!(&header.payload[..4], &quoted[0][..4]);
                    // In IPv6 the flow label as well.
                    prop_assert_eq!(&packet[..4], &packets[0][..4]);
                }
                quoted.sort_unstable();
                quoted.dedup();
                prop_assert_eq!(quoted.len(), usize::from(HOPS_MAX));
            }
        }
    }
}

#[test]
fn another_flow_may_take_another_way() {
    for way in ways() {
        for kind in KINDS {
            let begins = |_| Flow::draw(kind, way, PORT).payload(1)[..4].to_vec();
            let mut flows: Vec<_> = (0..20).map(begins).collect();
            flows.sort_unstable();
            flows.dedup();
            assert!(flows.len() > 15, "{kind}");
        }
    }
}

#[test]
fn each_answer_tells_its_hop_and_what_was_said() {
    let router = Ipv4Addr::new(203, 0, 113, 1);
    let answer = |hop, from: Ipv4Addr, said, is_target| {
        Some((hop, Answer { from: from.into(), said, is_target }))
    };
    for kind in KINDS {
        let flow = Flow::draw(kind, ways()[0], PORT);
        let probe = flow.packet(7);
        for quoted in [&probe[..], &probe[..28]] {
            let exceeded = error([11, 0], router, quoted);
            assert_eq!(flow.answer(&exceeded), answer(7, router, Said::Exceeded, false));
        }
        let no_way = error([3, 13], router, &probe);
        assert_eq!(flow.answer(&no_way), answer(7, router, Said::Unreachable(13), false));
        let said = match kind {
            Kind::Icmp => Said::EchoReply,
            Kind::Udp => Said::Unreachable(3),
            Kind::Tcp => Said::Open,
        };
        assert_eq!(flow.answer(&reply(kind, &probe, SYN_ACK)), answer(7, TARGET, said, true));
    }
    let flow = Flow::draw(Kind::Tcp, ways()[0], PORT);
    let closed = reply(Kind::Tcp, &flow.packet(7), RST | 0x10);
    assert_eq!(flow.answer(&closed), answer(7, TARGET, Said::Closed, true));
    assert_eq!(flow.answer(&reply(Kind::Tcp, &flow.packet(7), 0x10)), None, "no answer to a SYN");
}

#[test]
fn what_is_about_another_packet_is_no_answer() {
    for kind in KINDS {
        let flow = Flow::draw(kind, ways()[0], PORT);
        let probe = flow.packet(7);
        assert_eq!(flow.answer(&probe), None, "what leaves is captured as well");
        // Of the packet that is quoted: destination, protocol, and what a router quotes of the payload.
        for at in [19, 9, 20, 21, 22, 23, 24, 25, 26, 27] {
            let mut other = probe.clone();
            other[at] ^= 0x80;
            let exceeded = error([11, 0], Ipv4Addr::new(203, 0, 113, 1), &other);
            assert_eq!(flow.answer(&exceeded), None, "{kind}, byte {at}");
        }
        let whole = reply(kind, &probe, SYN_ACK);
        for len in 0..whole.len().min(32) {
            assert_eq!(flow.answer(&whole[..len]), None, "{kind}, {len}");
        }
        let other = Flow::draw(kind, ways()[0], PORT);
        assert_eq!(other.answer(&whole), None, "{kind}, of another run");
    }
    // Of a target's reply: who sent it, ports and number; of an echo also the mark.
    for (kind, places) in [
        (Kind::Icmp, &[15, 20, 21, 24, 25, 26, 35][..]),
        (Kind::Tcp, &[15, 20, 21, 22, 23, 28, 31]),
    ] {
        let flow = Flow::draw(kind, ways()[0], PORT);
        for at in places {
            let mut other = reply(kind, &flow.packet(7), SYN_ACK);
            other[*at] ^= 0x40;
            assert_eq!(flow.answer(&other), None, "{kind}, byte {at}");
        }
    }
}

#[test]
fn at_the_originals_endpoint_the_path_is_found_from_the_address_that_its_kernel_fills_in() {
    for kind in KINDS {
        let session = scripted_endpoint::start(move |request, answers| {
            scripted_endpoint::original(request, answers);
            let Message::Nsend { sktid, packet: Packet::Raw { data, family }, .. } = *request
            else {
                return;
            };
            let mut probe = data.to_vec();
            if probe[12..16] == [0; 4] {
                probe[12..16].copy_from_slice(&ENDPOINT.octets());
            }
            let back = match probe[8] {
                ttl @ 1..3 => error([11, 0], Ipv4Addr::new(203, 0, 113, ttl), &probe),
                _ => reply(kind, &probe, SYN_ACK),
            };
            for packet in [probe, back] {
                let packet = Packet::Raw { family, data: &packet };
                let time = scripted_endpoint::CLOCK;
                Message::Ndata { sktid, time, packet }.encode(answers).unwrap();
            }
        });
        let mut client = Client::new(session, mlet::SILENCE_MAX).unwrap();
        let way = with_source(&mut client, TARGET.into()).unwrap();
        assert_eq!(way, Way::between(ENDPOINT, TARGET));
        let hops = Flow::draw(kind, way, PORT).trace(&mut client).unwrap();
        let answers: Vec<_> = hops.values().take(3).map(|hop| hop.answered.unwrap().1).collect();
        let routers = [[203, 0, 113, 1], [203, 0, 113, 2], TARGET.octets()].map(IpAddr::from);
        assert_eq!(answers.iter().map(|one| one.from).collect::<Vec<_>>(), routers, "{kind}");
        assert_eq!(
            answers.iter().map(|one| one.is_target).collect::<Vec<_>>(),
            [false, false, true]
        );
    }
}

#[test]
fn arguments_are_judged_before_there_is_an_endpoint() {
    let told = |line: &str| {
        let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        judged(&words).map(|arguments| (arguments.kind, arguments.flows))
    };
    assert_eq!(told("").unwrap(), (Kind::Udp, 1));
    assert_eq!(told("-6 www.example.com:443 tcp 3").unwrap(), (Kind::Tcp, 3));
    for bad in ["a sctp", "a tcp many", "a tcp 1 2", "a:b", "--fast a"] {
        assert!(told(bad).is_err(), "{bad}");
    }
}
