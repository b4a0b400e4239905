//! Test 4 of spec/monitors.md 17: the arguments of every check, by their places.

use super::*;

/// A check with these types of parameters that says whether one of them has this value, or what is there if it is
/// a pointer.
fn asks(kind: &str, parameters: &str, question: &str) -> String {
    module(&format!(
        r#"(func (export "check_pktlab_message_{kind}") (param {parameters}) (result i32)
          (i32.eqz {question}))"#
    ))
}

async fn assert_arguments(kind: &str, check: &Check, expected: &[&str]) {
    let parameters: Vec<_> =
        expected.iter().map(|one| if one.starts_with("long") { "i64" } else { "i32" }).collect();
    let mut questions = Vec::new();
    for (at, expected) in expected.iter().enumerate() {
        let (what, value) = expected.split_once(' ').unwrap();
        questions.push(match what {
            "int" => format!("(i32.eq (local.get {at}) (i32.const {value}))"),
            "long" => format!("(i64.eq (local.get {at}) (i64.const {value}))"),
            "at16" => format!("(i32.eq (i32.load16_u (local.get {at})) (i32.const {value}))"),
            "at32" => format!("(i32.eq (i32.load (local.get {at})) (i32.const {value}))"),
            "somewhere" => format!("(i32.ne (local.get {at}) (i32.const {value}))"),
            other => panic!("{other}"),
        });
    }
    for question in &questions {
        let module = asks(kind, &parameters.join(" "), question);
        // So are they to those who only look at it.
        let unjudged = monitor_module::check(&program(&module)).unwrap();
        assert!(!unjudged.contains(&check.kind), "{kind}");
        let monitors = session(&[&module]).await;
        let verdict = monitors.check(check.clone()).await.unwrap().0;
        assert_eq!(verdict, Verdict::Pass, "{kind}: {question}");
    }
}

/// Every kind of NOPEN, and its arguments up to the persistent memory.
fn nopens() -> [(Check, &'static str); 4] {
    let address = |text: &str| -> SocketAddr { text.parse().unwrap() };
    let (any, remote) = (address("0.0.0.0:0"), address("127.77.0.1:80"));
    [
        (
            Open::TcpConnect { local: any, remote },
            "int 1,int 4,int 6,int 0x80010000,int 4,int 2,int 4,int 2,at32 0,at16 0,at32 0x01004d7f,at16 0x5000",
        ),
        (
            Open::Udp { local: address("127.0.0.1:53") },
            "int 1,int 4,int 17,int 0x80010000,int 4,int 2,int 0,int 0,at32 0x0100007f,at16 0x3500,somewhere 0,somewhere 0",
        ),
        (
            Open::TcpListen { local: address("[::1]:258") },
            "int 1,int 6,int 6,int 0x80010000,int 16,int 2,int 0,int 0,at32 0,at16 0x0201,somewhere 0,somewhere 0",
        ),
        (
            Open::Raw { local: [10, 0, 0, 1].into() },
            "int 1,int 4,int 0,int 0x80010000,int 4,int 0,int 0,int 0,at32 0x0100000a,somewhere 0,somewhere 0,somewhere 0",
        ),
    ]
    .map(|(open, expected)| {
        (check_of(&Message::Nopen { sktid: 1, receive_buffer_len: 0x8001_0000, open }), expected)
    })
}

#[test]
fn nopen_has_the_addresses_that_its_protocol_has() {
    run(async {
        for (check, expected) in nopens() {
            let tail = ["somewhere 0", "int 256"];
            let expected: Vec<_> = expected.split(',').chain(tail).collect();
            assert_arguments("nopen", &check, &expected).await;
        }
    });
}

#[test]
fn packets_have_their_times_whole_and_addresses_only_for_udp() {
    run(async {
        let (time, tail) = (Ticks(0x0123_4567_89ab_cdef), ["somewhere 0", "int 256"]);
        let long = "long 0x0123456789abcdef";
        let udp = Packet::Udp { remote: LOOPBACK, data: b"xyz" };
        let tcp = Packet::Tcp { family: Family::Ipv6, data: b"" };
        let raw = Packet::Raw { family: Family::Ipv4, data: b"whole" };
        let of_udp = vec!["int 4", "at32 0x0100007f", "int 2", "at16 0x5000", "int 3"];
        let of_tcp = vec!["int 0", "int 0", "int 0", "int 0", "int 0"];
        let of_raw = vec!["int 0", "int 0", "int 0", "int 0", "int 5"];
        for (packet, head, about) in [
            (udp, vec!["int 9", "int 4", "int 17", long], of_udp),
            (tcp, vec!["int 9", "int 6", "int 6", long], of_tcp),
            (raw, vec!["int 9", "int 4", "int 0", long], of_raw),
        ] {
            let sent = check_of(&Message::Nsend { sktid: 9, time, tag: 0x4b1, packet });
            let tag = vec!["int 0x4b1"];
            let expected = [head.clone(), tag, about.clone(), tail.to_vec()].concat();
            assert_arguments("nsend", &sent, &expected).await;
            let received = check_of(&Message::Ndata { sktid: 9, time, packet });
            assert_arguments("ndata", &received, &[head, about, tail.to_vec()].concat()).await;
        }
        let socket = Socket { sktid: 9, family: Family::Ipv4, protocol: Protocol::Raw };
        let capture = check_of(&Message::Ncap { socket, end: time, filter: &[0, 0xb7] });
        let expected = ["int 9", "int 4", "int 0", long, "somewhere 0", "int 256"];
        assert_arguments("ncap", &capture, &expected).await;
        let close = check_of(&Message::Nclose { sktid: 9 });
        assert_arguments("nclose", &close, &["int 9", "somewhere 0", "int 256"]).await;
    });
}

#[test]
fn monitors_are_not_asked_about_other_messages() {
    for message in [
        Message::Mread { address: 0, len: 1 },
        Message::Mwrite { address: 0, data: b"x" },
        Message::Nctl { sktid: 1, family: Family::Ipv4, time: Ticks(0), command: 1 },
        Message::Yield { resume: Ticks(0) },
        Message::End,
    ] {
        let mut encoded = Vec::new();
        message.encode(&mut encoded).unwrap();
        let payload = encoded.split_off(packetlab::message::HEADER_LEN);
        let given_back = Check::new(message.message_type(), payload.clone(), 0).unwrap_err();
        assert_eq!(given_back, payload);
    }
}
