//! Properties of the codec: generated messages, random payloads, damaged messages.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use proptest::prelude::*;

use super::*;

fn bytes() -> impl Strategy<Value = &'static [u8]> {
    // Leaked: test data may as well live as long as the test program.
    prop::collection::vec(any::<u8>(), 0..80).prop_map(|bytes| &*bytes.leak())
}

fn text(pattern: &'static str) -> impl Strategy<Value = &'static str> {
    pattern.prop_map(|text| &*text.leak())
}

fn xdescrs() -> impl Strategy<Value = &'static str> {
    text("([a-z]{1,3}=[A-Za-z0-9*?_.:,/() \t\\[\\]-]{0,5};){0,5}")
}

fn dattrs() -> impl Strategy<Value = &'static str> {
    text("(a=[A-Z.:]{0,5};)?(b=[a-z ]{0,5};)?(A=[0-9]{0,3};)?")
}

fn ticks() -> impl Strategy<Value = Ticks> {
    any::<u64>().prop_map(Ticks)
}

fn families() -> impl Strategy<Value = Family> {
    prop_oneof![Just(Family::Ipv4), Just(Family::Ipv6)]
}

fn sockets() -> impl Strategy<Value = Socket> {
    let protocols = prop_oneof![Just(Protocol::Raw), Just(Protocol::Tcp), Just(Protocol::Udp)];
    (any::<u8>(), families(), protocols).prop_map(|(sktid, family, protocol)| Socket {
        sktid,
        family,
        protocol,
    })
}

fn ip_addresses(family: Family) -> BoxedStrategy<IpAddr> {
    match family {
        Family::Ipv4 => any::<Ipv4Addr>().prop_map(IpAddr::from).boxed(),
        Family::Ipv6 => any::<Ipv6Addr>().prop_map(IpAddr::from).boxed(),
    }
}

fn addresses(family: Family) -> impl Strategy<Value = SocketAddr> {
    (ip_addresses(family), any::<u16>()).prop_map(SocketAddr::from)
}

fn openings() -> impl Strategy<Value = Open> {
    families().prop_flat_map(|family| {
        prop_oneof![
            ip_addresses(family).prop_map(|local| Open::Raw { local }),
            addresses(family).prop_map(|local| Open::Udp { local }),
            addresses(family).prop_map(|local| Open::TcpListen { local }),
            (addresses(family), addresses(family))
                .prop_map(|(local, remote)| Open::TcpConnect { local, remote }),
        ]
    })
}

fn packets() -> impl Strategy<Value = Packet<'static>> {
    families().prop_flat_map(|family| {
        prop_oneof![
            bytes().prop_map(move |data| Packet::Raw { family, data }),
            bytes().prop_map(move |data| Packet::Tcp { family, data }),
            (addresses(family), bytes()).prop_map(|(remote, data)| Packet::Udp { remote, data }),
        ]
    })
}

fn changes() -> impl Strategy<Value = StateChange> {
    prop_oneof![
        families()
            .prop_flat_map(addresses)
            .prop_map(|remote| StateChange::TcpEstablished { remote }),
        (sockets(), any::<u8>())
            .prop_filter("needs its peer", |(s, code)| s.protocol != Protocol::Tcp || *code != 0)
            .prop_map(|(Socket { family, protocol, .. }, code)| {
                StateChange::Code { family, protocol, code }
            }),
    ]
}

fn outcomes() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        any::<u16>()
            .prop_filter("needs its monitor", |code| !matches!(code, 0x12 | 0x13))
            .prop_map(|code| Outcome::Status(Status(code))),
        any::<(u16, u16)>().prop_map(|(monitor_index, monitor_errid)| {
            Outcome::MonitorRejected { monitor_index, monitor_errid }
        }),
        any::<u16>().prop_map(|monitor_index| Outcome::MonitorFailed { monitor_index }),
    ]
}

fn channels() -> impl Strategy<Value = ChannelId> {
    prop::collection::vec(any::<u8>(), 1..=32).prop_map(|id| ChannelId::new(&id).unwrap())
}

fn channel_lists() -> impl Strategy<Value = ChannelList> {
    prop::collection::vec(channels(), 0..4).prop_map(|list| ChannelList::new(&list))
}

fn requests() -> impl Strategy<Value = Message<'static>> {
    prop_oneof![
        (bytes(), bytes()).prop_map(|(hint, data)| Message::Cdata { hint, data }),
        Just(Message::Start),
        Just(Message::End),
        ticks().prop_map(|resume| Message::Yield { resume }),
        Just(Message::Cont),
        (0..0xffff_0000_u32, 1..=u16::MAX)
            .prop_map(|(address, len)| Message::Mread { address, len }),
        (0..0xffff_ff00_u32, bytes()).prop_map(|(address, data)| Message::Mwrite { address, data }),
        (any::<u8>(), any::<u32>(), openings()).prop_map(|(sktid, receive_buffer_len, open)| {
            Message::Nopen { sktid, receive_buffer_len, open }
        }),
        any::<u8>().prop_map(|sktid| Message::Nclose { sktid }),
        (any::<u8>(), ticks(), any::<u16>(), packets())
            .prop_map(|(sktid, time, tag, packet)| { Message::Nsend { sktid, time, tag, packet } }),
        (sockets(), ticks(), bytes())
            .prop_filter("not empty", |(_, _, filter)| !filter.is_empty())
            .prop_map(|(socket, end, filter)| Message::Ncap { socket, end, filter }),
        (any::<u8>(), families(), ticks(), any::<u8>()).prop_map(
            |(sktid, family, time, command)| Message::Nctl { sktid, family, time, command }
        ),
    ]
}

fn answers_and_notifications() -> impl Strategy<Value = Message<'static>> {
    prop_oneof![
        outcomes().prop_map(Message::Result),
        (any::<u32>(), bytes()).prop_map(|(address, data)| Message::Mdata { address, data }),
        (any::<u8>(), any::<u16>(), ticks(), any::<u16>()).prop_map(
            |(sktid, tag, time, status)| Message::Ntag { sktid, tag, time, status: Status(status) }
        ),
        (any::<u8>(), ticks(), changes()).prop_map(|(sktid, time, change)| Message::Nstat {
            sktid,
            time,
            change
        }),
        (any::<u8>(), ticks(), packets()).prop_map(|(sktid, time, packet)| Message::Ndata {
            sktid,
            time,
            packet
        }),
        (sockets(), ticks(), ticks(), any::<(u32, u32)>()).prop_map(
            |(socket, first, last, (units, bytes))| {
                Message::Ndrop { socket, first, last, units, bytes }
            }
        ),
        (sockets(), any::<u16>(), ticks()).prop_map(|(socket, monitor_errid, time)| {
            Message::Nblock { socket, monitor_errid, time }
        }),
        (bytes(), bytes(), bytes()).prop_map(|(name, auxiliary, info)| Message::Linfo {
            name,
            auxiliary,
            info
        }),
        Just(Message::Suspd),
        Just(Message::Resumd),
    ]
}

fn exchanges_and_raw() -> impl Strategy<Value = Message<'static>> {
    prop_oneof![
        bytes()
            .prop_filter("not empty", |certificate| !certificate.is_empty())
            .prop_map(|certificate| Message::Xcert { certificate }),
        (channel_lists(), any::<[u8; 32]>(), xdescrs()).prop_map(
            |(channels, operator_key, xdescr)| Message::Xpub { channels, operator_key, xdescr }
        ),
        (channel_lists(), any::<[u8; 32]>(), dattrs()).prop_map(
            |(channels, operator_key, dattr)| Message::Xsub { channels, operator_key, dattr }
        ),
        (channels(), xdescrs()).prop_map(|(channel, xdescr)| Message::Xnotify { channel, xdescr }),
        text("[0-9a-z]{1,63}").prop_map(|snikey| Message::Xreg { snikey }),
        (0x90..=0xff_u8, bytes()).prop_map(|(id, payload)| {
            Message::Raw { message_type: MessageType(id), payload, malformed: false }
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn every_message_decodes_from_its_own_encoding(
        message in prop_oneof![requests(), answers_and_notifications(), exchanges_and_raw()],
        before: Vec<u8>,
    ) {
        let mut out = before.clone();
        message.encode(&mut out).unwrap();
        let (kept, frame) = out.split_at(before.len());
        prop_assert_eq!(kept, before);
        prop_assert_eq!(decode_whole(frame), message);
    }

    #[test]
    fn random_payloads_never_panic_and_raw_ones_are_written_bit_exact(
        known in prop::sample::select(LENGTHS.iter().map(|row| row.message_type.0).collect::<Vec<_>>()),
        any_type: u8,
        payload in bytes(),
    ) {
        for id in [known, any_type] {
            let message = Message::decode(MessageType(id), payload);
            let frame = encoded(&message);
            if let Message::Raw { malformed, .. } = message {
                prop_assert_eq!(malformed, MessageType(id).name().is_some());
                prop_assert_eq!(&frame[HEADER_LEN..], payload);
            }
            prop_assert_eq!(decode_whole(&frame), message);
        }
    }

    #[test]
    fn damaged_messages_never_panic_and_raw_ones_are_written_bit_exact(
        message in prop_oneof![requests(), answers_and_notifications(), exchanges_and_raw()],
        position: prop::sample::Index,
        damage: u8,
    ) {
        let mut frame = encoded(&message);
        if frame.len() > HEADER_LEN {
            let position = HEADER_LEN + position.index(frame.len() - HEADER_LEN);
            frame[position] ^= damage;
        }
        let damaged = decode_whole(&frame);
        let again = encoded(&damaged);
        if matches!(damaged, Message::Raw { .. }) {
            prop_assert_eq!(&again, &frame);
        }
        prop_assert_eq!(decode_whole(&again), damaged);
    }

    #[test]
    fn every_header_survives_its_encoding(bytes: [u8; HEADER_LEN]) {
        prop_assert_eq!(Header::decode(bytes).encode(), Some(bytes));
    }
}
