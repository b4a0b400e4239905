//! The client against endpoints that are not as they should be, and against the original's.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use packetlab::message::{Family, Outcome, Protocol, Status};

use super::*;
use crate::scripted_endpoint::{self, original};

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
    assert!(error.contains("NCLOSE") && error.contains("ESKTNOTOPEN"), "{error}");
}

#[test]
fn an_endpoint_that_leaves_or_is_suspended_or_errs_ends_the_experiment() {
    let (mut gone, _endpoint) = client(&[], true);
    assert!(matches!(gone.notification(), Err(ClientError::EndpointLeft)));
    assert!(matches!(gone.request(&CLOSE), Err(ClientError::EndpointLeft)));
    let (mut suspended, _endpoint) = client(&[Message::Suspd], false);
    assert!(matches!(suspended.request(&CLOSE), Err(ClientError::Suspended)));
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
fn connection_end(connected: Result<(), ClientError>) -> ConnectionEnd {
    match connected {
        Err(ClientError::NotConnected { remote: REMOTE, end }) => end,
        other => panic!("no connection should have been made: {other:?}"),
    }
}

#[test]
fn a_connection_is_waited_for_and_other_news_are_kept() {
    let reset = ended(2, StateChange::RESET);
    let (mut client, _endpoint) = client(&[OK, reset.clone(), established(1)], false);
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
        let (mut client, mut endpoint) = client(&[OK, ended(1, code), seen, OK], false);
        assert_eq!(connection_end(client.connect(1, REMOTE, 4096)), expected);
        drop(client);
        // The socket does not stay open.
        let mut asked = [0; 23 + 10 + 5];
        endpoint.read_exact(&mut asked).unwrap();
        assert_eq!((asked[23], &asked[33..]), (0x28, &[0x2B, 0, 0, 1, 1][..]));
    }
    // An endpoint that leaves has told what it knew.
    let (near, mut endpoint) = UnixStream::pair().unwrap();
    let leaving = std::thread::spawn(move || {
        endpoint.read_exact(&mut [0; 23]).unwrap();
        let mut told = Vec::new();
        OK.encode(&mut told).unwrap();
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
    let (mut client, _endpoint) = client(&[stale, other.clone(), OK, OK, established(1)], false);
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
fn silence_has_a_limit() {
    let (near, _far) = UnixStream::pair().unwrap();
    let mut client = Client::new(near, Duration::from_millis(10)).unwrap();
    assert!(matches!(client.notification(), Err(ClientError::Silence(_))));
}

#[test]
fn an_endpoint_that_reads_nothing_is_not_waited_for_without_limit() {
    let (near, _far) = UnixStream::pair().unwrap();
    let mut client = Client::new(near, Duration::from_millis(10)).unwrap();
    // More than any socket buffer holds.
    let written = client.write_memory(0, &vec![0; 15_000_000]);
    assert!(matches!(written, Err(ClientError::Unread(_))), "{written:?}");
}
