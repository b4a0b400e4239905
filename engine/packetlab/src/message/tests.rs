//! Every example of the specification both ways, every bad length, and every rule.

/// Properties of the codec over generated messages.
mod properties;
/// Messages in words.
mod words;

use std::net::{Ipv6Addr, SocketAddr};

use super::*;
use crate::channel::{ChannelId, ChannelList};
use crate::frame::Framer;
use crate::time::Ticks;

/// Time of spec/protocol.md 0.1: 2023-11-14T22:13:20Z.
const TIME: Ticks = Ticks(0x1797_9cfe_362a_0000);

const EOP_KEY_ID: &str = "2c02ac294bf0f238a33ecd6e77b091b9165cd1ae1f5312abdede8f7063a8f950";
const EOP_KEY: &str = "b51acc8771de0b00a81bd9cd7d5f86d8ce082951805acbf4d0106482245cc357";
const DEL_KEY_ID: &str = "c60b4db156b00c1d89ea518828eb4ae6b6e067a6e0d90911dbd6d12a1ac50dcb";

fn bytes_of(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        hex.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    assert_eq!(digits.len() % 2, 0, "{hex}");
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn decode_whole(frame: &[u8]) -> Message<'_> {
    let (header, payload) = frame.split_first_chunk().expect("a header");
    let header = Header::decode(*header);
    assert_eq!(header.payload_len, payload.len(), "announced length");
    Message::decode(header.message_type, payload)
}

fn encoded(message: &Message<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    message.encode(&mut out).unwrap_or_else(|error| panic!("{message:?}: {error}"));
    out
}

#[track_caller]
fn both_ways(hex: &str, message: &Message<'_>) {
    let frame = bytes_of(hex);
    assert_eq!(decode_whole(&frame), *message);
    assert_eq!(encoded(message), frame);
}

fn is_malformed(message: &Message<'_>) -> bool {
    matches!(message, Message::Raw { malformed: true, .. })
}

fn tcp(sktid: u8) -> Socket {
    Socket { sktid, family: Family::Ipv4, protocol: Protocol::Tcp }
}

fn local() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 12345))
}

fn remote() -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 7], 80))
}

#[test]
fn results_of_every_form_look_as_in_the_specification() {
    both_ways("40000000", &Message::Result(Outcome::SUCCESS));
    both_ways("400000020021", &Message::Result(Outcome::Status(Status::ECRTNOHDAT)));
    both_ways("4000000400130002", &Message::Result(Outcome::MonitorFailed { monitor_index: 2 }));
}

#[test]
fn a_result_of_six_bytes_carries_the_monitor_index() {
    let rejected = Outcome::MonitorRejected { monitor_index: 1, monitor_errid: 7 };
    both_ways("40000006001200010007", &Message::Result(rejected));
    assert_eq!(rejected.status(), Status::ECTLMONREJ);
    assert!(!rejected.is_success());
    assert_eq!(
        rejected.to_string(),
        "ECTLMONREJ (18): a monitor rejected it (monitor 1, its code 7)"
    );
}

#[test]
fn an_explicit_success_and_needless_result_bytes_are_read_but_not_written() {
    for (hex, normal) in [
        ("400000020000", "40000000"),
        ("4000000400000009", "40000000"),
        ("40000004002100aa", "400000020021"),
        ("400000060021ffffffff", "400000020021"),
        ("400000060013 0002 ffff", "400000040013 0002"),
    ] {
        assert_eq!(encoded(&decode_whole(&bytes_of(hex))), bytes_of(normal), "{hex}");
    }
}

#[test]
fn set_up_and_memory_requests_look_as_in_the_specification() {
    let program = bytes_of("00 b700000000000001 9500000000000000");
    both_ways(
        "20000019 07 6d6f6e69746f72 00 b700000000000001 9500000000000000",
        &Message::Cdata { hint: b"monitor", data: &program },
    );
    both_ways("21000000", &Message::Start);
    both_ways("22000000", &Message::End);
    both_ways("24000000", &Message::Cont);
    both_ways("68000000", &Message::Suspd);
    both_ways("69000000", &Message::Resumd);
    both_ways("23000008 17979cfe362a0000", &Message::Yield { resume: TIME });
    both_ways("28000006 10010000 0008", &Message::Mread { address: 0x1001_0000, len: 8 });
    both_ways(
        "4100000c 10010000 17979cfe362a0000",
        &Message::Mdata { address: 0x1001_0000, data: &TIME.0.to_be_bytes() },
    );
    both_ways(
        "29000006 20000070 003e",
        &Message::Mwrite { address: 0x2000_0070, data: &[0x00, 0x3e] },
    );
}

#[test]
fn openings_of_sockets_look_as_in_the_specification() {
    let nopen = |open| Message::Nopen { sktid: 5, receive_buffer_len: 0x1_0000, open };
    both_ways(
        "2a00000d 05 04 06 00010000 c0000201 3039",
        &nopen(Open::TcpListen { local: local() }),
    );
    both_ways(
        "2a000013 05 04 06 00010000 c0000201 3039 c6336407 0050",
        &nopen(Open::TcpConnect { local: local(), remote: remote() }),
    );
    both_ways("2a00000b 05 04 00 00010000 c0000201", &nopen(Open::Raw { local: local().ip() }));
    let v6: Ipv6Addr = "2001:db8::1".parse().unwrap();
    both_ways(
        "2a000019 05 06 11 00010000 20010db8000000000000000000000001 3039",
        &nopen(Open::Udp { local: SocketAddr::from((v6, 12345)) }),
    );
    both_ways("2b00000105", &Message::Nclose { sktid: 5 });
}

#[test]
fn packets_and_socket_commands_look_as_in_the_specification() {
    let family = Family::Ipv4;
    let hi = Packet::Tcp { family, data: b"hi" };
    both_ways(
        "2c00000f 05 04 06 0000000000000000 0102 6869",
        &Message::Nsend { sktid: 5, time: Ticks(0), tag: 0x0102, packet: hi },
    );
    both_ways(
        "2e00000c 05 04 06 0000000000000001 01",
        &Message::Nctl { sktid: 5, family, time: Ticks(1), command: NCTL_FIN },
    );
    both_ways(
        "6200000d 05 04 06 0000000000000001 6869",
        &Message::Ndata { sktid: 5, time: Ticks(1), packet: hi },
    );
    both_ways(
        "62000013 05 04 11 0000000000000001 c6336407 0050 6869",
        &Message::Ndata {
            sktid: 5,
            time: Ticks(1),
            packet: Packet::Udp { remote: remote(), data: b"hi" },
        },
    );
    both_ways(
        "2d00000c 05 04 06 17979cfe362a0000 00",
        &Message::Ncap { socket: tcp(5), end: TIME, filter: &[0] },
    );
}

#[test]
fn notifications_look_as_in_the_specification() {
    let ntag = |status| Message::Ntag {
        sktid: 5,
        tag: 0x0102,
        time: Ticks(0x1122_3344_5566_7788),
        status,
    };
    both_ways("6000000b 05 0102 1122334455667788", &ntag(Status::SUCCESS));
    both_ways("6000000d 05 0102 1122334455667788 0044", &ntag(Status::ENORES));
    let nstat = |change| Message::Nstat { sktid: 5, time: Ticks(1), change };
    let reset = StateChange::Code {
        family: Family::Ipv4,
        protocol: Protocol::Tcp,
        code: StateChange::RESET,
    };
    both_ways("6100000c 05 04 06 0000000000000001 01", &nstat(reset));
    both_ways(
        "61000011 05 04 06 0000000000000001 c6336407 0050",
        &nstat(StateChange::TcpEstablished { remote: remote() }),
    );
    both_ways(
        "6400000d 05 04 06 0007 0000000000000001",
        &Message::Nblock { socket: tcp(5), monitor_errid: 7, time: Ticks(1) },
    );
    both_ways(
        "6300001b 05 04 06 0000000000000001 0000000000000002 00000003 00000004",
        &Message::Ndrop { socket: tcp(5), first: Ticks(1), last: Ticks(2), units: 3, bytes: 4 },
    );
    both_ways(
        "65000017 00000004 00000002 00000005 6e616d65 0102 68656c6c6f",
        &Message::Linfo { name: b"name", auxiliary: &[1, 2], info: b"hello" },
    );
    both_ways(
        "6500000c 000000000000000000000000",
        &Message::Linfo { name: b"", auxiliary: b"", info: b"" },
    );
}

#[test]
fn an_explicit_success_in_ntag_is_read_but_not_written() {
    let frame = bytes_of("6000000d 05 0102 1122334455667788 0000");
    assert_eq!(encoded(&decode_whole(&frame)), bytes_of("6000000b 05 0102 1122334455667788"));
}

fn channel(hex: &str) -> ChannelId {
    ChannelId::from_hex(hex).unwrap()
}

fn key(hex: &str) -> [u8; 32] {
    bytes_of(hex).try_into().unwrap()
}

#[test]
fn broker_and_proxy_messages_look_as_in_the_specification() {
    both_ways("30000002 3000", &Message::Xcert { certificate: &[0x30, 0] });
    both_ways(
        &format!("31000028 02 0102 00 {} 613d623b", "aa".repeat(32)),
        &Message::Xpub {
            channels: ChannelList::new(&[channel("0102")]),
            operator_key: [0xaa; 32],
            xdescr: "a=b;",
        },
    );
    both_ways(
        "70000007 02 0102 613d623b",
        &Message::Xnotify { channel: channel("0102"), xdescr: "a=b;" },
    );
    both_ways("80000005 68656c6c6f", &Message::Xreg { snikey: "hello" });
    both_ways("80000003 313233", &Message::Xreg { snikey: "123" });
}

/// The specification leaves out the end of its text; this one has the announced length.
#[test]
fn the_captured_publication_on_three_channels_is_understood() {
    let xdescr = "hostid=HOST-1;endpoint_location=BK29;endpoint_location=IO91*;\
         endpoint_country=DEU;endpoint_country=USA;exp_priority=7;pub_end=1795434141288556833;\
         controller_addr=198.51.100.7:5555;sni_key=hello;";
    let text: String = xdescr.bytes().map(|byte| format!("{byte:02x}")).collect();
    let hex = format!("3100010b 02 0102 20 {EOP_KEY_ID} 03 aabbcc 00 {EOP_KEY} {text}");
    let channels = ChannelList::new(&[channel("0102"), channel(EOP_KEY_ID), channel("aabbcc")]);
    both_ways(&hex, &Message::Xpub { channels, operator_key: key(EOP_KEY), xdescr });
}

#[test]
fn the_captured_subscription_is_understood() {
    let hex = format!(
        "38000088 020102 20 {EOP_KEY_ID} 20 {DEL_KEY_ID} 01aa 00 {EOP_KEY} \
         686f737469643d4550313b656e64706f696e745f636f756e7472793d5553413b"
    );
    let channels = ChannelList::new(&[
        channel("0102"),
        channel(EOP_KEY_ID),
        channel(DEL_KEY_ID),
        channel("aa"),
    ]);
    let dattr = "hostid=EP1;endpoint_country=USA;";
    both_ways(&hex, &Message::Xsub { channels, operator_key: key(EOP_KEY), dattr });
}

#[test]
fn the_captured_publication_without_trusted_operators_is_understood() {
    let hex = "3100011f010a000000000000000000000000000000000000000000000000000000000000000000686f73\
        7469643d484f53542d313b656e64706f696e745f6c6f636174696f6e3d424b32393b656e64706f696e74\
        5f6c6f636174696f6e3d494f39312a3b656e64706f696e745f636f756e7472793d4445553b656e64706f\
        696e745f636f756e7472793d5553413b6578705f7072696f726974793d373b7075625f656e643d313739\
        353433343134303936353231373033363b636f6e74726f6c6c65725f616464723d3139382e35312e3130\
        302e373a353535353b736e695f6b65793d7038763776673964397832326a776c35356c786d6276393679\
        74717072773165347279723469696f61773373786e366237726d726d33626273366a6a766f683b";
    let xdescr = "hostid=HOST-1;endpoint_location=BK29;endpoint_location=IO91*;endpoint_country=DEU;\
        endpoint_country=USA;exp_priority=7;pub_end=1795434140965217036;\
        controller_addr=198.51.100.7:5555;\
        sni_key=p8v7vg9d9x22jwl55lxmbv96ytqprw1e4ryr4iioaw3sxn6b7rmrm3bbs6jjvoh;";
    let channels = ChannelList::new(&[channel("0a")]);
    both_ways(hex, &Message::Xpub { channels, operator_key: [0; 32], xdescr });
}

#[test]
fn the_captured_publication_to_the_private_channel_is_understood() {
    let hex = "31000113202c02ac294bf0f238a33ecd6e77b091b9165cd1ae1f5312abdede8f7063a8f95000b51acc87\
        71de0b00a81bd9cd7d5f86d8ce082951805acbf4d0106482245cc357686f737469643d484f53542d313b\
        656e64706f696e745f6c6f636174696f6e3d424b32393b656e64706f696e745f6c6f636174696f6e3d49\
        4f39312a3b656e64706f696e745f636f756e7472793d4445553b656e64706f696e745f636f756e747279\
        3d5553413b6578705f7072696f726974793d373b7075625f656e643d3137393534333431343132383835\
        35363833333b636f6e74726f6c6c65725f616464723d3139382e35312e3130302e373a353535353b736e\
        695f6b65793d68656c6c6f3b62617a3d712a3b666f6f3d6261723b";
    let xdescr = "hostid=HOST-1;endpoint_location=BK29;endpoint_location=IO91*;endpoint_country=DEU;\
        endpoint_country=USA;exp_priority=7;pub_end=1795434141288556833;\
        controller_addr=198.51.100.7:5555;sni_key=hello;baz=q*;foo=bar;";
    let channels = ChannelList::new(&[channel(EOP_KEY_ID)]);
    both_ways(hex, &Message::Xpub { channels, operator_key: key(EOP_KEY), xdescr });
}

/// Two-instruction program of the captured greeting; the heads of the others are not whole messages.
#[test]
fn the_captured_greeting_and_registration_are_understood() {
    for hex in [
        "20000019 07 6d6f6e69746f72 00 b700000000000001 9500000000000000",
        "40000000",
        "21000000",
        "80000005 68656c6c6f",
    ] {
        let frame = bytes_of(hex);
        let message = decode_whole(&frame);
        assert!(!matches!(message, Message::Raw { .. }), "{message:?}");
        assert_eq!(encoded(&message), frame);
    }
}

/// In the place of item 116: what original mlets and endpoints said to each other (spec/protocol.md 8.6).
#[test]
fn every_recorded_message_of_the_original_is_understood_and_written_alike() {
    let transcripts = [
        (include_str!("../../../testdata/transcripts/dns.jsonl"), 8),
        (include_str!("../../../testdata/transcripts/http_get.jsonl"), 10),
        (include_str!("../../../testdata/transcripts/icmp_echo.jsonl"), 11),
        (include_str!("../../../testdata/transcripts/pktif_dns.jsonl"), 8),
        (include_str!("../../../testdata/transcripts/traceroute.jsonl"), 462),
    ];
    for (transcript, message_count) in transcripts {
        let mut framer = Framer::default();
        for line in transcript.lines() {
            let Some((_, hex)) = line.split_once("\"hex\": \"") else {
                assert!(line.contains("\"eof\": true"), "{line}");
                continue;
            };
            framer.push(&bytes_of(hex.trim_end_matches("\"}")));
        }
        let mut count = 0;
        while let Some((message_type, payload)) = framer.next().unwrap() {
            let message = Message::decode(message_type, payload);
            assert!(!matches!(message, Message::Raw { .. }), "{message:?}");
            assert_eq!(&encoded(&message)[HEADER_LEN..], payload, "{message:?}");
            count += 1;
        }
        assert!(framer.is_empty());
        assert_eq!(count, message_count);
    }
}

/// A payload's good lengths; every other length up to 80 is malformed.
struct Lengths {
    message_type: MessageType,
    /// Front of a good payload, in hex; zero bytes follow it.
    front: &'static str,
    good: fn(usize) -> bool,
}

const LENGTHS: &[Lengths] = {
    const fn row(
        message_type: MessageType,
        front: &'static str,
        good: fn(usize) -> bool,
    ) -> Lengths {
        Lengths { message_type, front, good }
    }
    &[
        row(MessageType::CDATA, "07 6d6f6e69746f72", |len| len >= 8),
        row(MessageType::START, "", |len| len == 0),
        row(MessageType::END, "", |len| len == 0),
        row(MessageType::YIELD, "", |len| len == 8),
        row(MessageType::CONT, "", |len| len == 0),
        row(MessageType::MREAD, "10010000 0008", |len| len == 6),
        row(MessageType::MWRITE, "10010000", |len| len >= 4),
        row(MessageType::NOPEN, "05 04 00", |len| len == 11),
        row(MessageType::NOPEN, "05 06 00", |len| len == 23),
        row(MessageType::NOPEN, "05 04 11", |len| len == 13),
        row(MessageType::NOPEN, "05 06 11", |len| len == 25),
        row(MessageType::NOPEN, "05 04 06", |len| len == 13 || len == 19),
        row(MessageType::NOPEN, "05 06 06", |len| len == 25 || len == 43),
        row(MessageType::NCLOSE, "05", |len| len == 1),
        row(MessageType::NSEND, "05 04 00", |len| len >= 13),
        row(MessageType::NSEND, "05 06 06", |len| len >= 13),
        row(MessageType::NSEND, "05 04 11", |len| len >= 19),
        row(MessageType::NSEND, "05 06 11", |len| len >= 31),
        row(MessageType::NCAP, "05 04 00", |len| len >= 12),
        row(MessageType::NCTL, "05 04 06", |len| len >= 12),
        row(MessageType::XCERT, "30", |len| len >= 1),
        row(MessageType::XPUB, "00", |len| len == 33),
        row(MessageType::XSUB, "02 0102 00", |len| len == 36),
        row(MessageType::RESULT, "0000", |len| matches!(len, 0 | 2 | 4 | 6)),
        row(MessageType::RESULT, "0021", |len| matches!(len, 0 | 2 | 4 | 6)),
        row(MessageType::RESULT, "0012", |len| matches!(len, 0 | 6)),
        row(MessageType::RESULT, "0013", |len| matches!(len, 0 | 4 | 6)),
        row(MessageType::MDATA, "", |len| len >= 4),
        row(MessageType::NTAG, "", |len| len == 11 || len == 13),
        row(MessageType::NSTAT, "05 04 06 0000000000000001 01", |len| len == 12 || len == 17),
        row(MessageType::NSTAT, "05 06 06 0000000000000001 01", |len| len == 12 || len == 29),
        row(MessageType::NSTAT, "05 04 06 0000000000000001 00", |len| len == 17),
        row(MessageType::NSTAT, "05 04 11", |len| len == 12),
        row(MessageType::NSTAT, "05 06 00", |len| len == 12),
        row(MessageType::NDATA, "05 06 00", |len| len >= 11),
        row(MessageType::NDATA, "05 04 06", |len| len >= 11),
        row(MessageType::NDATA, "05 04 11", |len| len >= 17),
        row(MessageType::NDATA, "05 06 11", |len| len >= 29),
        row(MessageType::NDROP, "05 04 00", |len| len == 27),
        row(MessageType::NBLOCK, "05 04 00", |len| len == 13),
        row(MessageType::LINFO, "00000004 00000002 00000005", |len| len == 23),
        row(MessageType::SUSPD, "", |len| len == 0),
        row(MessageType::RESUMD, "", |len| len == 0),
        row(MessageType::XNOTIFY, "02 0102", |len| len == 3),
        row(MessageType::XREG, "68656c6c6f", |len| (1..=5).contains(&len)),
    ]
};

/// Quirks Q11 and Q12 are among the rows.
#[test]
fn every_bad_length_of_every_type_is_malformed_and_survives_bit_exact() {
    for Lengths { message_type, front, good } in LENGTHS {
        let mut payload = bytes_of(front);
        payload.resize(80, 0);
        for len in 0..=80 {
            let message = Message::decode(*message_type, &payload[..len]);
            assert_eq!(is_malformed(&message), !good(len), "{message_type} {front} {len}");
            if !good(len) {
                assert_eq!(&encoded(&message)[HEADER_LEN..], &payload[..len]);
            }
        }
    }
}

#[test]
fn every_named_type_has_a_row_of_lengths() {
    for message_type in (0..=255).map(MessageType).filter(|id| id.name().is_some()) {
        assert!(LENGTHS.iter().any(|row| row.message_type == message_type), "{message_type}");
    }
}

#[test]
fn fields_that_break_a_rule_make_a_message_malformed() {
    for (hex, why) in [
        ("28000006 10010000 0000", "MREAD of nothing"),
        ("28000006 fffffffe 0002", "MREAD beyond the end"),
        ("29000006 fffffffe 0102", "MWRITE beyond the end"),
        ("2a00000b 05 05 00 00010000 c0000201", "family 5"),
        ("2a00000b 05 04 01 00010000 c0000201", "protocol 1"),
        ("2e00000c 05 04 11 0000000000000001 01", "NCTL of UDP"),
        ("6100000c 05 04 06 0000000000000001 00", "established TCP without its peer"),
        ("61000011 05 04 11 0000000000000001 c6336407 0050", "a peer without TCP"),
        ("31000028 02 0102 00 aa*32 613d6223", "xdescr without its last semicolon"),
        ("38000028 02 0102 00 aa*32 613d2a3b", "wildcard in dattr"),
        ("38000029 01 01 00 aa*32 613d3b613d3b", "the same name twice in dattr"),
        ("31000024 21 0102 00 aa*32", "channel of 33 bytes"),
        ("70000003 00 613b", "channel of no bytes"),
        ("70000006 02 0102 613d62", "xdescr without its last semicolon"),
        ("80000003 61002d", "NUL in a snikey (Q13)"),
        ("80000001 41", "upper case in a snikey"),
        ("65000017 00000004 00000002 00000006 6e616d65 0102 68656c6c6f", "LINFO sums wrong"),
        ("6500000c ffffffff ffffffff ffffffff", "LINFO lengths overflow"),
    ] {
        let frame = bytes_of(&hex.replace("aa*32", &"aa".repeat(32)));
        let message = decode_whole(&frame);
        assert!(is_malformed(&message), "{why}: {message:?}");
        assert_eq!(encoded(&message), frame, "{why}");
    }
    let long = [&[0x80, 0, 0, 64][..], &[b'a'; 64]].concat();
    assert!(is_malformed(&decode_whole(&long)), "snikey of 64 characters");
}

#[test]
fn the_last_byte_of_memory_is_out_of_reach_and_the_one_before_is_not() {
    both_ways("28000006 fffffffe 0001", &Message::Mread { address: 0xffff_fffe, len: 1 });
    both_ways("29000004 ffffffff", &Message::Mwrite { address: 0xffff_ffff, data: b"" });
}

/// The original serves them (spec/protocol.md 2.1), so a test endpoint does, too.
#[test]
fn a_longer_nctl_is_cut_to_its_command() {
    let frame = bytes_of("2e00000e 05 04 06 0000000000000001 01 ffff");
    assert_eq!(encoded(&decode_whole(&frame)), bytes_of("2e00000c 05 04 06 0000000000000001 01"));
}

/// Item 82.
#[test]
fn unknown_types_are_raw_and_not_malformed() {
    for id in [0x00, 0x1f, 0x99, 0xff] {
        let message = Message::decode(MessageType(id), b"any");
        let raw = Message::Raw { message_type: MessageType(id), payload: b"any", malformed: false };
        assert_eq!(message, raw);
        assert_eq!(encoded(&message), [&[id, 0, 0, 3][..], b"any"].concat());
    }
    assert_eq!(MessageType(0x99).to_string(), "type 0x99");
    assert_eq!(MessageType::LINFO.to_string(), "LINFO (0x65)");
}

#[test]
fn messages_that_would_decode_differently_are_not_encoded() {
    let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, 1));
    let established = StateChange::Code { family: Family::Ipv4, protocol: Protocol::Tcp, code: 0 };
    let channels = ChannelList::new([]);
    let hint = [b'a'; 256];
    for message in [
        Message::Cdata { hint: &hint, data: b"" },
        Message::Mread { address: 0, len: 0 },
        Message::Mread { address: u32::MAX, len: 1 },
        Message::Mwrite { address: u32::MAX, data: b"x" },
        Message::Nopen {
            sktid: 1,
            receive_buffer_len: 1,
            open: Open::TcpConnect { local: local(), remote: v6 },
        },
        Message::Ncap { socket: tcp(1), end: Ticks::MAX, filter: b"" },
        Message::Xcert { certificate: b"" },
        Message::Xpub { channels: channels.clone(), operator_key: [0; 32], xdescr: "a=b%;" },
        Message::Xsub { channels, operator_key: [0; 32], dattr: "a=*;" },
        Message::Xnotify { channel: channel("00"), xdescr: "a" },
        Message::Xreg { snikey: "" },
        Message::Xreg { snikey: "HELLO" },
        Message::Result(Outcome::Status(Status::ECTLMONREJ)),
        Message::Result(Outcome::Status(Status::ECTLMONUKN)),
        Message::Nstat { sktid: 1, time: Ticks(0), change: established },
    ] {
        let mut out = b"before".to_vec();
        let error = message.encode(&mut out).unwrap_err();
        assert!(matches!(error, EncodeError::RuleBroken { .. }), "{error}");
        let text = error.to_string();
        assert!(text.starts_with(&format!("cannot encode {}", message.message_type())), "{text}");
        assert_eq!(out, b"before", "nothing half-written stays");
    }
}

#[test]
fn the_largest_payload_is_encoded_and_one_byte_more_is_refused() {
    let payload = vec![7; PAYLOAD_LEN_MAX + 1];
    let raw = |payload| Message::Raw { message_type: MessageType(0x99), payload, malformed: false };
    let whole = encoded(&raw(&payload[1..]));
    assert_eq!(whole.len(), 16_777_219);
    assert_eq!(&whole[..4], [0x99, 0xff, 0xff, 0xff]);
    let mut out = vec![1];
    let refused =
        EncodeError::TooLong { message_type: MessageType(0x99), payload_len: PAYLOAD_LEN_MAX + 1 };
    assert_eq!(raw(&payload).encode(&mut out), Err(refused));
    assert_eq!(out, [1]);
}

#[test]
fn statuses_print_their_name_and_decimal_number() {
    assert_eq!(Status(0x50).to_string(), "EPUBBADCHL (80): publish: bad channel list");
    assert_eq!(Status(0x3a).name(), Some("ESKTOPNDENY"));
    assert_eq!(Status(0xffff).name(), Some("EUNKFAULT"));
    assert_eq!(Status(0x45).to_string(), "unnamed status (69)");
    assert_eq!((0..=u16::MAX).filter(|code| Status(*code).name().is_some()).count(), 36);
}
