//! The client against endpoints that are not as they should be, and against the original's.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::net::UnixStream;

use packetlab::message::{Family, MessageType, Outcome, Protocol, StateChange, Status};

use super::*;
use crate::client_error::ConnectionEnd;
use crate::connection::LOOK_INTERVAL;
use crate::requests::CLOCK;
use crate::scripted_endpoint::{self, original};

mod blocked;
mod each;

/// A client whose endpoint has already sent `messages` and, with `leave`, left.
fn client(messages: &[Message<'_>], leave: bool) -> (Client, UnixStream) {
    let (near, mut far) = UnixStream::pair().unwrap();
    let mut bytes = Vec::new();
    for message in messages {
        message.encode(&mut bytes).unwrap();
    }
    far.write_all(&bytes).unwrap();
    if leave {
        far.shutdown(std::net::Shutdown::Both).unwrap();
    }
    (Client::new(near, Duration::from_secs(60)).unwrap(), far)
}

const OK: Message<'static> = Message::Result(Outcome::SUCCESS);
/// What an endpoint answers whose clock stands at 7.
const LOOK: Message<'static> = Message::Mdata { address: CLOCK, data: &[0, 0, 0, 0, 0, 0, 0, 7] };
const LONG: Duration = Duration::from_secs(60);
const CLOSE: Message<'static> = Message::Nclose { sktid: 1 };

#[test]
fn notifications_before_an_answer_are_kept_in_order() {
    let linfo = |name| Message::Linfo { name, auxiliary: b"", info: b"" };
    let (mut client, mut endpoint) =
        client(&[linfo(b"one"), linfo(b"two"), OK, linfo(b"three")], false);
    client.request(&CLOSE).unwrap();
    for name in [&b"one"[..], b"two", b"three"] {
        assert_eq!(client.notification().unwrap().message(), linfo(name));
    }
    let mut request = [0; 5];
    endpoint.read_exact(&mut request).unwrap();
    assert_eq!(request, [0x2B, 0, 0, 1, 1]);
}

#[test]
fn a_refusal_names_request_and_reason() {
    let refusal = Message::Result(Outcome::Status(Status::ESKTNOTOPEN));
    let (mut client, _endpoint) = client(&[refusal], false);
    let error = client.request(&CLOSE).unwrap_err().to_string();
    let expected = "the endpoint refused NCLOSE (socket 1): ESKTNOTOPEN";
    assert!(error.starts_with(expected), "{error}");
}

#[test]
fn an_endpoint_that_leaves_or_is_suspended_or_errs_ends_the_experiment() {
    let (mut gone, _endpoint) = client(&[], true);
    let told = gone.notification().unwrap_err().to_string();
    assert!(told.starts_with("the endpoint left; anything had been awaited for "), "{told}");
    let told = gone.request(&CLOSE).unwrap_err().to_string();
    let left = "the endpoint left; the answer to NCLOSE (socket 1) had been awaited for ";
    assert!(told.starts_with(left), "{told}");
    let (mut suspended, _endpoint) = client(&[Message::Suspd], false);
    let told = suspended.request(&CLOSE).unwrap_err().to_string();
    let over = "the endpoint has suspended the session; the answer to NCLOSE (socket 1) had been";
    assert!(told.starts_with(over), "{told}");
    for (request, sent, malformed) in [
        (true, &[0x40, 0, 0, 1, 0][..], MessageType::RESULT),
        (false, &[0x60, 0, 0, 1, 0], MessageType::NTAG),
    ] {
        let (mut client, mut endpoint) = client(&[], false);
        endpoint.write_all(sent).unwrap();
        let error = if request {
            client.request(&CLOSE).unwrap_err()
        } else {
            client.notification().unwrap_err()
        };
        assert!(matches!(error, ClientError::Malformed(this) if this == malformed), "{error}");
    }
}

#[test]
fn an_answer_that_nobody_asked_for_is_an_error() {
    let mdata = |address, data| Message::Mdata { address, data };
    let (mut unasked, _endpoint) = client(&[OK], false);
    assert!(matches!(unasked.notification(), Err(ClientError::Unasked(MessageType::RESULT))));
    for answer in [OK, mdata(CLOCK + 1, &[0; 8]), mdata(CLOCK, &[0; 7]), mdata(CLOCK, &[0; 9])] {
        let (mut client, _endpoint) = client(std::slice::from_ref(&answer), false);
        let error = client.clock().unwrap_err().to_string();
        assert!(error.contains("answers no request"), "{answer:?}: {error}");
    }
    let (mut other, _endpoint) = client(&[mdata(CLOCK, &[0; 8])], false);
    assert!(matches!(other.request(&CLOSE), Err(ClientError::Unasked(MessageType::MDATA))));
}

#[test]
fn memory_is_read_past_notifications_or_refused() {
    let mdata = Message::Mdata { address: CLOCK, data: &[0, 0, 0, 0, 0, 0, 1, 2] };
    let refusal = Message::Result(Outcome::Status(Status::EMEMBADADR));
    let (mut client, mut endpoint) = client(&[Message::Resumd, mdata, refusal], false);
    assert_eq!(client.clock().unwrap(), Ticks(0x102));
    assert_eq!(client.notification().unwrap().message(), Message::Resumd);
    assert!(matches!(client.write_memory(1, b"x"), Err(ClientError::Refused { .. })));
    let mut request = [0; 10];
    endpoint.read_exact(&mut request).unwrap();
    assert_eq!(request, [0x28, 0, 0, 6, 0x10, 1, 0, 0, 0, 8]);
}

const REMOTE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 80);
/// Where the state of socket 1 is.
const STATE: u32 = 0x2000_0402;

fn nstat(sktid: u8, change: StateChange) -> Message<'static> {
    Message::Nstat { sktid, time: Ticks(0), change }
}

fn established(sktid: u8) -> Message<'static> {
    nstat(sktid, StateChange::TcpEstablished { remote: REMOTE })
}

fn ended(sktid: u8, code: u8) -> Message<'static> {
    nstat(sktid, StateChange::Code { family: Family::Ipv4, protocol: Protocol::Tcp, code })
}

/// How a connection to [`REMOTE`] ended that was not made.
fn connection_end(connected: Result<Connection, ClientError>) -> ConnectionEnd {
    match connected {
        Err(ClientError::NotConnected { remote: REMOTE, end, .. }) => end,
        other => panic!("no connection should have been made: {other:?}"),
    }
}

#[test]
fn a_connection_is_waited_for_and_other_news_are_kept() {
    let reset = ended(2, StateChange::RESET);
    let (mut client, _endpoint) = client(&[LOOK, OK, LOOK, reset.clone(), established(1)], false);
    client.connect(1, REMOTE, 4096).unwrap();
    assert_eq!(client.notification().unwrap().message(), reset);
}

#[test]
fn a_connection_that_fails_tells_how_by_memory_or_else_by_its_code() {
    use ConnectionEnd::{
        PeerClosed, Refused, RefusedOrReset, Reset, TimedOut, Unknown, Unreachable,
    };
    let refusal = Message::Result(Outcome::Status(Status::EMEMBADADR));
    let state = |data| Message::Mdata { address: STATE, data };
    for (code, seen, expected) in [
        (StateChange::RESET, state(&[0xFF]), Refused),
        (StateChange::RESET, state(&[0xFE]), Reset),
        (StateChange::TIMEOUT, state(&[0xFD]), TimedOut),
        (StateChange::UNKNOWN, state(&[0xFC]), Unreachable),
        (StateChange::UNKNOWN, state(&[0x80]), Unknown),
        (StateChange::RESET, state(&[1]), RefusedOrReset),
        (StateChange::TIMEOUT, refusal.clone(), TimedOut),
        (StateChange::PEER_CLOSED, refusal.clone(), PeerClosed),
        (StateChange::UNKNOWN, refusal, Unknown),
    ] {
        let (mut client, mut endpoint) = client(&[LOOK, OK, LOOK, ended(1, code), seen, OK], false);
        assert_eq!(connection_end(client.connect(1, REMOTE, 4096)), expected);
        drop(client);
        // The socket does not stay open.
        let mut asked = [0; 10 + 23 + 10 + 10 + 5];
        endpoint.read_exact(&mut asked).unwrap();
        assert_eq!((asked[10], asked[43], &asked[53..]), (0x2A, 0x28, &[0x2B, 0, 0, 1, 1][..]));
    }
    // An endpoint that leaves has told what it knew.
    let (near, mut endpoint) = UnixStream::pair().unwrap();
    let leaving = std::thread::spawn(move || {
        endpoint.read_exact(&mut [0; 43]).unwrap();
        let mut told = Vec::new();
        for answer in [LOOK, OK, LOOK] {
            answer.encode(&mut told).unwrap();
        }
        ended(1, StateChange::TIMEOUT).encode(&mut told).unwrap();
        endpoint.write_all(&told).unwrap();
    });
    let mut client = Client::new(near, Duration::from_secs(60)).unwrap();
    assert_eq!(connection_end(client.connect(1, REMOTE, 4096)), TimedOut);
    leaving.join().unwrap();
}

/// Looks at the state are answered with `states` in turn, and then with the last of them.
fn connecting(states: &'static [u8]) -> UnixStream {
    let mut looks = 0;
    scripted_endpoint::start(move |request, answers| match request {
        Message::Mread { address: STATE, len: 1 } => {
            let data = [states[looks.min(states.len() - 1)]];
            looks += 1;
            Message::Mdata { address: STATE, data: &data }.encode(answers).unwrap();
            if data == [2] {
                established(1).encode(answers).unwrap();
            }
        }
        other => original(other, answers),
    })
}

#[test]
fn at_the_originals_endpoint_a_refused_connection_is_seen_in_memory() {
    let mut client = Client::new(connecting(&[1, 0xFF]), Duration::from_secs(60)).unwrap();
    assert_eq!(connection_end(client.connect(1, REMOTE, 4096)), ConnectionEnd::Refused);
    assert_eq!(client.clock().unwrap(), scripted_endpoint::CLOCK);
}

#[test]
fn a_call_that_is_given_up_closes_no_socket_that_was_open_before() {
    let (asked, requests) = std::sync::mpsc::channel();
    // It stands still once it has opened one socket.
    let mut is_first = true;
    let session = scripted_endpoint::start(move |request, answers| match *request {
        Message::Nopen { .. } if std::mem::take(&mut is_first) => original(request, answers),
        Message::Nopen { .. } | Message::Nclose { .. } => {
            asked.send(request.message_type()).unwrap();
        }
        _ => {}
    });
    let mut client = Client::new(session, Duration::from_secs(60)).unwrap();
    let open = Open::Udp { local: "0.0.0.0:0".parse().unwrap() };
    let short = Duration::from_millis(50);
    client.open(5, open, 4096).unwrap();
    let connected = client.connect_within(short, 5, REMOTE, 4096);
    assert!(connected.is_err_and(|error| error.word() == "silence"));
    let found = client.look_up(5, "a.example", REMOTE, short);
    assert!(found.is_err_and(|error| error.word() == "silence"));
    // What the mlet closes is closed before it is opened anew, and that may be open.
    let closed = client.ask(&Message::Nclose { sktid: 5 }).unwrap();
    let connected = client.connect_within(short, 5, REMOTE, 4096);
    assert!(connected.is_err_and(|error| error.word() == "silence"));
    drop((closed, client));
    let (opens, closes) = (MessageType::NOPEN, MessageType::NCLOSE);
    assert_eq!(requests.iter().collect::<Vec<_>>(), [opens, opens, closes, opens, closes]);
}

#[test]
fn looking_at_a_connection_that_is_made_later_shifts_no_answer() {
    let mut client = Client::new(connecting(&[1, 1, 2]), Duration::from_secs(60)).unwrap();
    client.connect(1, REMOTE, 4096).unwrap();
    assert_eq!(client.clock().unwrap(), scripted_endpoint::CLOCK);
}

#[test]
fn a_connection_of_which_nothing_is_told_is_waited_for_as_long_as_the_longest_silence() {
    let silence_max = LOOK_INTERVAL + Duration::from_millis(100);
    let mut client = Client::new(connecting(&[1]), silence_max).unwrap();
    let end = connection_end(client.connect(1, REMOTE, 4096));
    assert_eq!(end, ConnectionEnd::Untold(silence_max));
}

#[test]
fn a_connection_or_look_up_that_the_sessions_end_cuts_off_was_awaited_since_it_began() {
    let is_told = |error: ClientError, expected: &str| {
        let told = error.to_string();
        assert!(told.starts_with(expected), "{told}");
    };
    let mut waiting = Client::new(connecting(&[1, 1]), LONG).unwrap();
    waiting.set_session_deadline(Instant::now() + 2 * LOOK_INTERVAL + Duration::from_millis(200));
    let over = waiting.connect(1, REMOTE, 4096).unwrap_err();
    let when = "the session's deadline passed when ";
    is_told(over, &format!("{when}the connection to 127.0.0.1:80 had been awaited for 1."));
    let over = waiting.connect(1, REMOTE, 4096).unwrap_err();
    is_told(over, &format!("{when}the connection to 127.0.0.1:80 had been awaited for 0."));
    let server = "192.0.2.53:53".parse().unwrap();
    let mut looking_up = Client::new(scripted_endpoint::start(original), LONG).unwrap();
    looking_up.set_session_deadline(Instant::now() + Duration::from_millis(50));
    let over = looking_up.look_up(1, "a.example", server, LONG).unwrap_err();
    is_told(over, &format!("{when}the answer of 192.0.2.53:53 on a.example had been awaited for "));
    let (mut left, _endpoint) = client(&[LOOK, OK, LOOK], true);
    let over = left.connect(1, REMOTE, 4096).unwrap_err();
    is_told(over, "the endpoint left; the connection to 127.0.0.1:80 had been awaited for ");
    let (mut suspended, _endpoint) = client(&[LOOK, OK, LOOK, Message::Suspd], false);
    let ClientError::Suspended(over) = suspended.connect(1, REMOTE, 4096).unwrap_err() else {
        panic!("it is not suspended");
    };
    assert_eq!(over.what, "the connection to 127.0.0.1:80");
}

#[test]
fn a_look_that_is_answered_too_late_shifts_no_answer() {
    let mut late = Vec::new();
    let session = scripted_endpoint::start(move |request, answers| match request {
        Message::Mread { address: STATE, .. } => original(request, &mut late),
        other => {
            answers.append(&mut late);
            original(other, answers);
        }
    });
    let silence_max = LOOK_INTERVAL + Duration::from_millis(100);
    let mut client = Client::new(session, silence_max).unwrap();
    let end = connection_end(client.connect(1, REMOTE, 4096));
    assert_eq!(end, ConnectionEnd::Untold(silence_max));
    client.close(1).unwrap();
    assert_eq!(client.clock().unwrap(), scripted_endpoint::CLOCK);
}

#[test]
fn news_of_an_earlier_socket_of_the_same_number_is_none_of_a_new_connection() {
    let stale = ended(1, StateChange::RESET);
    let other = established(2);
    let (mut client, _endpoint) =
        client(&[stale, other.clone(), OK, LOOK, OK, LOOK, established(1)], false);
    client.close(1).unwrap();
    client.connect(1, REMOTE, 4096).unwrap();
    assert_eq!(client.notification().unwrap().message(), other);
}

#[test]
fn a_deadline_that_passes_is_no_error() {
    let (mut client, mut endpoint) = client(&[], false);
    let deadline = Instant::now() + Duration::from_millis(5);
    assert!(client.notification_before(deadline).unwrap().is_none());
    assert!(Instant::now() >= deadline);
    assert!(client.notification_before(deadline).unwrap().is_none());
    endpoint.write_all(&[0x69, 0, 0, 0]).unwrap();
    assert_eq!(client.notification().unwrap().message(), Message::Resumd);
}

#[test]
fn silence_has_a_limit_and_says_what_was_awaited() {
    let (near, _far) = UnixStream::pair().unwrap();
    let mut client = Client::new(near, Duration::from_millis(10)).unwrap();
    let silence = client.notification().unwrap_err();
    assert!(matches!(silence, ClientError::Silence { .. }), "{silence}");
    let silence = client.write_memory(0x10, b"x").unwrap_err().to_string();
    let awaited = "the answer to MWRITE (memory 0x00000010) did not come in 0.0";
    assert!(silence.starts_with(awaited), "{silence}");
}

#[test]
fn a_deadline_holds_while_other_messages_come_without_end() {
    let (near, far) = UnixStream::pair().unwrap();
    let flooding = std::thread::spawn(move || flood(far, &Message::Resumd));
    let mut client = Client::new(near, Duration::from_secs(60)).unwrap();
    let started = Instant::now();
    let asked = client.ask(&CLOSE).unwrap();
    let late = client.answer(&asked, Some(started + Duration::from_millis(20)));
    assert!(matches!(late, Err(ClientError::Silence { .. })), "{late:?}");
    assert!(started.elapsed() >= Duration::from_millis(20));
    assert_eq!(client.notification().unwrap().message(), Message::Resumd);
    drop(client);
    flooding.join().unwrap();
}

/// Sends this until nobody reads any more.
fn flood(mut far: UnixStream, message: &Message<'_>) {
    let mut bytes = Vec::new();
    while bytes.len() < 0x1_0000 {
        message.encode(&mut bytes).unwrap();
    }
    while far.write_all(&bytes).is_ok() {}
}

#[test]
fn only_so_much_is_kept_and_what_is_kept_can_be_had() {
    let linfo = Message::Linfo { name: b"", auxiliary: b"", info: &[7; 60_000] };
    let (near, far) = UnixStream::pair().unwrap();
    let sent = linfo.clone();
    let flooding = std::thread::spawn(move || flood(far, &sent));
    let mut client = Client::new(near, Duration::from_secs(60)).unwrap();
    for _ in 0..2 {
        let full = client.request(&CLOSE).unwrap_err();
        assert!(matches!(full, ClientError::TooMuchKept(_)), "{full:?}");
        let awaited = "has not asked for; the answer to NCLOSE (socket 1) had been awaited for ";
        assert!(full.to_string().contains(awaited), "{full}");
    }
    // More than is ever kept.
    for _ in 0..1200 {
        assert_eq!(client.notification().unwrap().message(), linfo);
    }
    drop(client);
    flooding.join().unwrap();
}

#[test]
fn an_endpoint_that_reads_nothing_is_not_waited_for_and_gets_the_rest_later() {
    let (near, mut far) = UnixStream::pair().unwrap();
    let mut client = Client::new(near, Duration::from_millis(10)).unwrap();
    // More than any socket buffer holds.
    let data = vec![0; 15_000_000];
    let written = client.write_memory(0, &data).unwrap_err();
    assert!(matches!(written, ClientError::Unread { .. }), "{written}");
    let told = written.to_string();
    assert!(told.starts_with("the endpoint did not take MWRITE (memory 0x00000000) in "), "{told}");
    // Nothing of this is sent, now or later.
    let unsent = client.write_memory(1, b"never");
    assert!(matches!(unsent, Err(ClientError::Unread { .. })), "{unsent:?}");
    let reading = std::thread::spawn(move || {
        let mut sent = vec![0; 4 + 4 + 15_000_000 + 5];
        far.read_exact(&mut sent).unwrap();
        assert_eq!(sent[sent.len() - 5..], [0x2B, 0, 0, 1, 1]);
        // The answer to what was given up, and the one that is waited for.
        far.write_all(&[0x40, 0, 0, 2, 0, 0x48, 0x40, 0, 0, 0]).unwrap();
    });
    let deadline = Instant::now() + Duration::from_secs(60);
    let asked = client.ask(&CLOSE);
    let asked = asked.unwrap_or_else(|_| wait_for_room(&mut client, deadline));
    let answer = client.answer(&asked, Some(deadline)).unwrap();
    assert_eq!(answer.message(), OK);
    reading.join().unwrap();
}

/// The endpoint takes what waits before.
fn wait_for_room(client: &mut Client, deadline: Instant) -> Asked {
    loop {
        match client.ask(&CLOSE) {
            Ok(asked) => return asked,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    }
}

#[test]
fn a_connection_tells_when_the_endpoint_began_and_when_it_stood() {
    let mut looks = 0;
    let session = scripted_endpoint::start(move |request, answers| {
        if let Message::Mread { address: CLOCK, .. } = request {
            looks += 1;
            let data = u64::to_be_bytes(1_000 * looks);
            return Message::Mdata { address: CLOCK, data: &data }.encode(answers).unwrap();
        }
        original(request, answers);
        if let Message::Nopen { sktid, .. } = *request {
            let change = StateChange::TcpEstablished { remote: REMOTE };
            Message::Nstat { sktid, time: Ticks(8_500), change }.encode(answers).unwrap();
        }
    });
    let mut client = Client::new(session, Duration::from_secs(60)).unwrap();
    let connection = client.connect(1, REMOTE, 4096).unwrap();
    assert_eq!((connection.began, connection.began_by), (Ticks(1_000), Ticks(2_000)));
    assert_eq!((connection.established, connection.remote), (Ticks(8_500), REMOTE));
    assert_eq!(connection.took(), Duration::from_nanos(7_500));
    assert_eq!(connection.uncertainty(), Duration::from_nanos(1_000));
    assert!(connection.asked <= connection.told && connection.asked > Ticks(0));
}

#[test]
fn the_first_of_several_connections_is_told_while_others_are_waited_for() {
    let silent: SocketAddr = "192.0.2.7:81".parse().unwrap();
    let session = scripted_endpoint::start(|request, answers| {
        original(request, answers);
        if let Message::Nopen { sktid, open: Open::TcpConnect { remote: REMOTE, .. }, .. } =
            *request
        {
            established(sktid).encode(answers).unwrap();
        }
    });
    let mut client = Client::new(session, Duration::from_secs(60)).unwrap();
    let (short, long) = (Duration::from_millis(700), Duration::from_secs(60));
    client.begin_connect(short, 1, silent, 4096);
    client.begin_connect(long, 2, REMOTE, 4096);
    // News of connections that are being made is for nobody else.
    let soon = Instant::now() + Duration::from_millis(50);
    assert!(client.notification_before(soon).unwrap().is_none());
    let (sktid, stands) = client.next_connection().unwrap();
    assert_eq!((sktid, stands.unwrap().remote), (2, REMOTE));
    let (sktid, failed) = client.next_connection().unwrap();
    let failed = failed.unwrap_err();
    assert_eq!((sktid, failed.word()), (1, "silence"));
    let told = failed.to_string();
    let expected =
        "no connection to 192.0.2.7:81: the endpoint told nothing of it, given up after 0.7";
    assert!(told.starts_with(expected), "{told}");
    assert!(client.next_connection().is_none());
}

#[test]
fn what_leaves_and_what_comes_carries_both_clocks() {
    let server: SocketAddr = "192.0.2.7:7".parse().unwrap();
    let session = scripted_endpoint::start(move |request, answers| {
        original(request, answers);
        if let Message::Nsend { sktid, .. } = *request {
            let packet = Packet::Udp { remote: server, data: b"back" };
            Message::Ndata { sktid, time: Ticks(77), packet }.encode(answers).unwrap();
        }
    });
    let mut client = Client::new(session, Duration::from_secs(60)).unwrap();
    let (tag, long) = (NonZeroU16::MIN, Duration::from_secs(60));
    client.open(1, Open::Udp { local: "0.0.0.0:0".parse().unwrap() }, 4096).unwrap();
    let asked = client.send(1, Ticks(0), tag, Packet::Udp { remote: server, data: b"x" }).unwrap();
    let sent = client.wait_until_sent(1, tag, long).unwrap();
    let received = client.receive(1, long).unwrap().unwrap();
    assert_eq!((sent.time, received.time), (scripted_endpoint::CLOCK, Ticks(77)));
    assert_eq!((received.remote, &*received.data), (Some(server), &b"back"[..]));
    assert!(asked <= sent.told && sent.told <= received.came, "of the controller's clock");
}

#[test]
fn port_0_is_refused_here() {
    let (mut client, mut endpoint) = client(&[], false);
    let nowhere: SocketAddr = "192.0.2.7:0".parse().unwrap();
    let connected = client.connect(1, nowhere, 4096).unwrap_err();
    let packet = Packet::Udp { remote: nowhere, data: b"x" };
    let sent = client.send(1, Ticks(0), NonZeroU16::MIN, packet).unwrap_err();
    for refused in [connected, sent] {
        assert_eq!(refused.to_string(), "192.0.2.7:0: port 0 is not from 1 to 65535");
    }
    drop(client);
    let mut asked = Vec::new();
    endpoint.read_to_end(&mut asked).unwrap();
    assert!(asked.is_empty(), "{asked:x?}");
}

#[test]
fn names_are_looked_up_through_the_endpoint() {
    let server: SocketAddr = "192.0.2.53:53".parse().unwrap();
    let session = scripted_endpoint::start(move |request, answers| {
        original(request, answers);
        if let Message::Nsend { sktid, packet: Packet::Udp { data, .. }, .. } = *request {
            let mut reply = data.to_vec();
            (reply[2], reply[7]) = (0x81, 1);
            reply.extend(b"\xc0\x0c\0\x01\0\x01\0\0\0\0\0\x04\xc0\0\x02\x07");
            let time = scripted_endpoint::CLOCK.saturating_add(Duration::from_millis(3));
            let mut tell = |remote: SocketAddr, data: &[u8]| {
                let packet = Packet::Udp { remote, data };
                Message::Ndata { sktid, time, packet }.encode(answers).unwrap();
            };
            tell("192.0.2.54:53".parse().unwrap(), &reply);
            tell(server, &reply[1..]);
            tell(server, &reply);
        }
    });
    let mut client = Client::new(session, Duration::from_secs(60)).unwrap();
    let found = client.look_up(1, "www.example", server, Duration::from_secs(60)).unwrap();
    assert_eq!(found.addresses, [Ipv4Addr::new(192, 0, 2, 7)]);
    assert_eq!(found.took(), Duration::from_millis(3));
    let bad = client.look_up(1, "a..b", server, Duration::from_secs(60)).unwrap_err();
    assert_eq!(bad.to_string(), "192.0.2.53:53 on 'a..b': this is no domain name");
}

#[test]
fn a_timeout_that_no_clock_can_tell_lasts_until_what_is_awaited_comes() {
    let session = scripted_endpoint::start(|request, answers| {
        original(request, answers);
        if let Message::Nopen { sktid, open: Open::TcpConnect { remote, .. }, .. } = *request {
            let time = scripted_endpoint::CLOCK;
            let change = StateChange::TcpEstablished { remote };
            Message::Nstat { sktid, time, change }.encode(answers).unwrap();
            let packet = Packet::Tcp { family: Family::Ipv4, data: b"x" };
            Message::Ndata { sktid, time, packet }.encode(answers).unwrap();
        }
        if let Message::Nsend { sktid, packet: Packet::Udp { remote, data }, .. } = *request {
            let refused = [&data[..2], &[0x81, 5], &data[4..]].concat();
            let packet = Packet::Udp { remote, data: &refused };
            let time = scripted_endpoint::CLOCK;
            Message::Ndata { sktid, time, packet }.encode(answers).unwrap();
        }
    });
    let mut client = Client::new(session, Duration::MAX).unwrap();
    assert_eq!(client.clock().unwrap(), scripted_endpoint::CLOCK);
    client.connect(1, REMOTE, 4096).unwrap();
    client.close(1).unwrap();
    client.connect_within(Duration::MAX, 1, REMOTE, 4096).unwrap();
    assert_eq!(client.receive(1, Duration::MAX).unwrap().unwrap().data, b"x");
    let looked_up = client.look_up(2, "www.example", REMOTE, Duration::MAX);
    assert!(matches!(looked_up, Err(ClientError::LookUp { .. })), "{looked_up:?}");
}
