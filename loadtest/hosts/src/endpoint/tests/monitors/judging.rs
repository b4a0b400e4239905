//! What becomes of what monitors say (tests 1, 3 and 5 of spec/monitors.md 17).

use super::*;

const TCP_ONLY: &str = include_str!("../../../../monitors/wat/tcp_only.wat");

/// Reads the first four bytes of the packet to address 512.
const READ: &str = "(drop (call $read (i32.const 0) (i32.const 512) (i32.const 4)))";

/// The conversation of pktmon's `tcp_only`.
#[tokio::test]
async fn a_monitor_for_tcp_alone_refuses_all_other_sockets() {
    let tcp_only = wasm(TCP_ONLY);
    let mut session = Scene::new(&[&tcp_only]).await.start(&[&tcp_only]).await;
    let udp = session.answer(&nopen(1, Open::Udp { local: ANY })).await;
    assert_eq!(udp, "40000006001200000012");
    let raw = session.answer(&nopen(1, Open::Raw { local: OWN })).await;
    assert_eq!(raw, "40000006001200000001");
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    assert_eq!(session.answer(&connect(1, listener.local_addr().unwrap())).await, "40000000");
}

/// The conversation of `http_monitor`, with one that judges as that one does.
#[tokio::test]
async fn a_monitor_for_http_passes_a_page_and_nothing_else() {
    let is = |text: &[u8; 4]| {
        let text = u32::from_le_bytes(*text);
        format!("{READ} (i32.eq (i32.load (i32.const 512)) (i32.const {text}))")
    };
    let (get, http) = (is(b"GET "), is(b"HTTP"));
    let refuses = "(then (i32.const 0)) (else (i32.const 0x7fff))";
    let http = with(&[
        (
            NOPEN,
            &format!(
                "{NOPEN_PARAMETERS} (if (result i32) (i32.eq (local.get 2) (i32.const 6)) (then (i32.const 0))
                (else (i32.add (local.get 2) (i32.const 1))))"
            ),
        ),
        (NSEND, &format!("{NSEND_PARAMETERS} (if (result i32) (block (result i32) {get}) {refuses})")),
        (NDATA, &format!("{NDATA_PARAMETERS} (if (result i32) (block (result i32) {http}) {refuses})")),
    ]);
    let mut session = Scene::new(&[&http]).await.start(&[&http]).await;
    let udp = session.answer(&nopen(1, Open::Udp { local: ANY })).await;
    assert_eq!(udp, "40000006001200000012");
    let server = TcpListener::bind(LOOPBACK).await.unwrap();
    assert_eq!(session.answer(&connect(1, server.local_addr().unwrap())).await, "40000000");
    assert!(session.next().await.starts_with(&format!("{:02x}", MessageType::NSTAT.0)));
    let (mut stream, _) = server.accept().await.unwrap();
    assert_eq!(
        session.answer(&send(Ticks(0), 1, b"hello world")).await,
        "4000000600120000 7fff".replace(' ', "")
    );
    assert_eq!(session.answer(&send(Ticks(0), 2, REQUEST)).await, "40000000");
    let mut request = [0; REQUEST.len()];
    stream.read_exact(&mut request).await.unwrap();
    assert_eq!(&request, REQUEST, "what was refused has not been sent");
    stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n").await.unwrap();
    drop(stream);
    let mut told = Vec::new();
    while told.len() < 3 {
        told.push(session.next().await[..2].to_owned());
    }
    let types = [MessageType::NTAG, MessageType::NDATA, MessageType::NSTAT];
    assert_eq!(told, types.map(|one| format!("{:02x}", one.0)));
}

/// A monitor that returns the first four bytes of the packet that it judges: one sent, or one received. With some it
/// crashes instead, each in its way.
fn returning_the_packet(name: &str, parameters: &str) -> Program {
    let is = |text: &[u8; 4]| {
        format!("(i32.eq (i32.load (i32.const 512)) (i32.const {}))", u32::from_le_bytes(*text))
    };
    let crashes = [
        (b"trap", "unreachable"),
        (b"deep", "(drop (call $deep))"),
        (b"zero", "(drop (i32.div_u (i32.const 1) (i32.const 0)))"),
        (b"load", "(drop (i32.load (i32.const 0x7fffffff)))"),
        (b"exit", "(call $exit (i32.const 0))"),
        (b"loop", "(loop $l (br $l))"),
    ];
    let crash = |(word, how): (&[u8; 4], &str)| {
        format!("(if {} (then {how} (return (i32.const 0))))", is(word))
    };
    let crashes = crashes.map(crash).concat();
    let does = format!(
        "{parameters} {READ} {crashes} (i32.load (i32.const 512)))
        (func $deep (result i32) (i32.add (call $deep) (i32.const 1))"
    );
    with(&[(name, &does)])
}

/// What a monitor returns, and what becomes of it: the answer to a request without and with reports of crashes, the code
/// of the NBLOCK likewise.
///
/// The last takes too long.
type Row = (i32, Outcome, Outcome, Option<u16>, Option<u16>);

fn table() -> [Row; 16] {
    let word = |word: &[u8; 4]| i32::from_le_bytes(*word);
    let rejected = |code| Outcome::MonitorRejected { monitor_index: 0, monitor_errid: code };
    let (pass, failed) = (Outcome::SUCCESS, Outcome::MonitorFailed { monitor_index: 0 });
    [
        (0, pass, pass, None, None),
        (1, rejected(1), rejected(1), Some(1), Some(1)),
        (65_534, rejected(65_534), rejected(65_534), Some(65_534), Some(65_534)),
        (65_535, rejected(0), failed, None, Some(0)),
        (65_536, rejected(0), failed, None, Some(0)),
        (70_000, rejected(0), failed, None, Some(0)),
        (0x7fff_ffff, rejected(0), failed, None, Some(0)),
        (-1, rejected(0), rejected(0), None, None),
        (-300, rejected(0), rejected(0), None, None),
        (-70_000, rejected(0), rejected(0), None, None),
        (word(b"trap"), rejected(0), failed, None, Some(0)),
        (word(b"deep"), rejected(0), failed, None, Some(0)),
        (word(b"zero"), rejected(0), failed, None, Some(0)),
        (word(b"load"), rejected(0), failed, None, Some(0)),
        (word(b"exit"), rejected(0), failed, None, Some(0)),
        (word(b"loop"), rejected(0), failed, None, Some(0)),
    ]
}

/// A session that it judges, with UDP socket 1.
async fn judged_by(judges: &Program, report_crash: bool) -> Conversation {
    let mut scene = Scene::new(&[judges]).await;
    scene.settings.report_crash = report_crash;
    scene.settings.limits.call = CALL_LIMIT;
    let mut session = scene.start(&[judges]).await;
    session.open_udp().await;
    session
}

/// Test 3, for requests.
#[tokio::test]
async fn what_a_monitor_returns_for_a_request_is_told_as_the_table_says() {
    let judges = returning_the_packet(NSEND, NSEND_PARAMETERS);
    let server = UdpSocket::bind(LOOPBACK).await.unwrap();
    for report_crash in [false, true] {
        let mut session = judged_by(&judges, report_crash).await;
        for (value, quiet, reported, ..) in table() {
            let expected = outcome(if report_crash { reported } else { quiet });
            let said = session.send(server.local_addr().unwrap(), &value.to_le_bytes()).await;
            assert_eq!(said, expected, "{value}");
        }
        // Whatever it was, the session goes on.
        let said = session.send(server.local_addr().unwrap(), &[0; 4]).await;
        assert_eq!(said, "40000000");
        session.end().await.unwrap();
    }
}

/// Test 3, for data.
#[tokio::test]
async fn what_a_monitor_returns_for_data_is_told_as_the_table_says() {
    let judges = returning_the_packet(NDATA, NDATA_PARAMETERS);
    let server = UdpSocket::bind(LOOPBACK).await.unwrap();
    for report_crash in [false, true] {
        let mut session = judged_by(&judges, report_crash).await;
        assert_eq!(session.send(server.local_addr().unwrap(), b"hello").await, "40000000");
        let (_, endpoint) = server.recv_from(&mut [0; 9]).await.unwrap();
        for (value, _, _, quiet, reported) in table() {
            server.send_to(&value.to_le_bytes(), endpoint).await.unwrap();
            // Another that passes: whatever is told of the first is told before it.
            server.send_to(&[0, 0, 0, 0, 9], endpoint).await.unwrap();
            if let Some(code) = if report_crash { reported } else { quiet } {
                let nblock = session.next_for_mlet().await;
                assert!(nblock.starts_with(&format!("6400000d010411{code:04x}")), "{nblock}");
            }
            if value == 0 {
                assert!(session.next_for_mlet().await.ends_with("00000000"));
            }
            assert!(session.next_for_mlet().await.ends_with("0000000009"), "{value}");
        }
        session.end().await.unwrap();
    }
}

/// Section 8 names the monitor in a RESULT, and not why it crashed; for data it names none.
#[tokio::test]
async fn the_first_crash_of_a_monitor_is_told_to_the_controllers_log_where_crashes_are_reported() {
    let pass = wasm(PASS_ALL_WAT);
    let crashes = returning_the_packet(NSEND, NSEND_PARAMETERS);
    for report_crash in [false, true] {
        let mut scene = Scene::new(&[&pass, &crashes]).await;
        scene.settings.report_crash = report_crash;
        let mut session = scene.start(&[&pass, &crashes]).await;
        session.open_udp().await;
        let mut told = Vec::new();
        for word in [b"trap", b"zero"] {
            let packet = Packet::Udp { remote: "127.0.0.1:9".parse().unwrap(), data: word };
            let send = Message::Nsend { sktid: 1, time: Ticks(0), tag: 0, packet };
            session.link.send(&send).await.unwrap();
            // It comes before the answer, by which a mlet may end; of further crashes nothing is told.
            let is_told = report_crash && word == b"trap";
            for _ in 0..1 + usize::from(is_told) {
                told.push(session.next().await);
            }
            assert!(told.last().unwrap().starts_with("40"), "{told:?}");
        }
        for _ in 0..10 {
            told.push(session.answer(&Message::Mread { address: 0x1001_0000, len: 8 }).await);
        }
        let digest = Hex(&crashes.digest()[..8]).to_string();
        let info = format!(
            "monitor 1 ({digest}), asked about NSEND (0x2c), failed: wasm trap: wasm `unreachable` instruction executed"
        );
        let linfo = Message::Linfo {
            name: b"monitor-crashed",
            auxiliary: b"\x01\x00",
            info: info.as_bytes(),
        };
        let mut encoded = Vec::new();
        linfo.encode(&mut encoded).unwrap();
        let reports = told.iter().filter(|told| told.starts_with("65")).collect::<Vec<_>>();
        let expected = Hex(&encoded).to_string();
        assert_eq!(reports, if report_crash { vec![&expected] } else { vec![] });
        session.end().await.unwrap();
    }
}

/// Section 9: what became of a request is told with the status of its answer.
#[tokio::test]
async fn a_monitor_is_told_the_status_of_the_answer() {
    let stores = |parameters: &str, status: u32| {
        format!("(param {parameters} i32) (global.set $told (local.get {status}))")
    };
    let tells = with(&[
        ("pktlab_message_nopen_result", &stores(&"i32 ".repeat(14), 14)),
        ("pktlab_message_nclose_result", &stores("i32 i32 i32", 3)),
        (
            "pktlab_message_nsend_result",
            &stores("i32 i32 i32 i64 i32 i32 i32 i32 i32 i32 i32 i32", 12),
        ),
        ("pktlab_message_ncap_result", &stores("i32 i32 i32 i64 i32 i32", 6)),
        // The code of the next NCLOSE is what was told last.
        (
            "check_pktlab_message_nclose",
            "(param i32 i32 i32) (result i32) (local i32)
            (local.set 3 (global.get $told)) (global.set $told (i32.const 0)) (local.get 3))
            (global $told (mut i32) (i32.const 0)",
        ),
    ]);
    let mut session = Scene::new(&[&tells]).await.start(&[&tells]).await;
    let close = Message::Nclose { sktid: 1 };
    // Not open, which the monitor was told; then nothing is carried out, and nothing told.
    assert_eq!(session.answer(&close).await, "400000020033");
    assert_eq!(session.answer(&close).await, "40000006001200000033");
    session.open_udp().await;
    assert_eq!(session.answer(&close).await, "40000000");
    let to: SocketAddr = "127.0.0.1:9".parse().unwrap();
    assert_eq!(session.send(to, b"x").await, "400000020033");
    assert_eq!(session.answer(&close).await, "40000006001200000033");
    let socket =
        Socket { sktid: 1, family: Family::Ipv4, protocol: packetlab::message::Protocol::Raw };
    let capture = Message::Ncap { socket, end: Ticks::MAX, filter: &[0] };
    assert_eq!(session.answer(&capture).await, "400000020033");
    assert_eq!(session.answer(&close).await, "40000006001200000033");
}

/// Test 5, on a real endpoint: its clock, its name and the state of a socket.
#[tokio::test]
async fn a_monitor_sees_the_endpoint_as_the_mlet_does() {
    let looks = with(&[(
        NSEND,
        &format!(
            "{NSEND_PARAMETERS}
            (drop (call $read (i32.const 0x10010000) (i32.const 512) (i32.const 8)))
            (if (i64.eqz (i64.load (i32.const 512))) (then (return (i32.const 1))))
            (drop (call $read (i32.const 0x10030000) (i32.const 512) (i32.const 1)))
            (if (i32.eqz (i32.load8_u (i32.const 512))) (then (return (i32.const 2))))
            (drop (call $read (i32.const 0x20000400) (i32.const 512) (i32.const 4)))
            ;; IPv4, UDP, open
            (if (i32.ne (i32.load (i32.const 512)) (i32.const 0x00021104)) (then (return (i32.const 3))))
            (drop (call $read (i32.const 0x40000000) (i32.const 512) (i32.const 4)))
            (i32.load (i32.const 512))"
        ),
    )]);
    let mut session = Scene::new(&[&looks]).await.start(&[&looks]).await;
    session.open_udp().await;
    assert_eq!(session.send("127.0.0.1:9".parse().unwrap(), b"x").await, "40000000");
}

/// Once it has been checked, held-back data is only held back; NBLOCK has a bit of its own.
#[tokio::test]
async fn masks_hold_back_what_has_been_checked() {
    let drops_all = with(&[(NDATA, &format!("{NDATA_PARAMETERS} (i32.const 0x37)"))]);
    let mut session = Scene::new(&[&drops_all]).await.start(&[&drops_all]).await;
    session.open_udp().await;
    let server = UdpSocket::bind(LOOPBACK).await.unwrap();
    assert_eq!(session.send(server.local_addr().unwrap(), b"hello").await, "40000000");
    let (_, endpoint) = server.recv_from(&mut [0; 9]).await.unwrap();
    let mask = |bits: u8| Message::Mwrite { address: SOCKET_1 + 0x70, data: vec![0, bits].leak() };
    for bits in [0x20, 0x08] {
        assert_eq!(session.answer(&mask(bits)).await, "40000000");
        server.send_to(b"data", endpoint).await.unwrap();
        if bits == 0x20 {
            assert_eq!(session.answer(&mask(0)).await, "40000000");
        }
        assert!(session.next().await.starts_with("6400000d0104110037"));
        // The data has left its room.
        let used = Message::Mread { address: SOCKET_1 + 0x44, len: 4 };
        assert_eq!(session.answer(&used).await, "41000008".to_owned() + "20000444" + "00000000");
    }
}
