//! Questions by datagram and over TCP, to servers that a test invents.

use std::os::unix::net::UnixStream;

use mlet::{ClientError, ConnectionEnd, StateChange};

use super::*;

const SERVER: &str = "192.0.2.53:53";
const PATIENCE: Duration = Duration::from_millis(200);

fn question() -> Question {
    Question::new("www.example.com", Kind::A, [0x15, 0xbe]).unwrap()
}

/// The answer that the name has this address in 192.0.2.0/24.
fn answer_of(last: u8) -> Vec<u8> {
    let mut answer = question().message().to_vec();
    answer[2] |= 0x80;
    answer[7] = 1;
    [&answer[..], b"\xc0\x0c\0\x01\0\x01\0\0\0\0\0\x04\xc0\0\x02", &[last]].concat()
}

fn is_address(answer: &Answer, last: u8) -> bool {
    *answer == Answer::Addresses(vec![IpAddr::from([192, 0, 2, last])])
}

fn client(session: UnixStream) -> Client {
    Client::new(session, mlet::SILENCE_MAX).unwrap()
}

/// Asks where datagrams come before the news that the question has left.
fn ask_where(datagrams: Vec<(&'static str, Vec<u8>)>) -> Result<Timed, MletError> {
    let session = scripted_endpoint::start(move |request, answers| {
        let mut behind = Vec::new();
        scripted_endpoint::original(request, &mut behind);
        if let Message::Nsend { .. } = request {
            for (remote, data) in &datagrams {
                let time = scripted_endpoint::CLOCK.saturating_add(Duration::from_millis(3));
                let packet = Packet::Udp { remote: remote.parse().unwrap(), data };
                Message::Ndata { sktid: SKTID, time, packet }.encode(answers).unwrap();
            }
        }
        answers.extend(behind);
    });
    ask_by_udp(&mut client(session), SERVER.parse().unwrap(), &question(), PATIENCE)
}

#[test]
fn an_answer_may_come_before_the_news_that_the_question_left() {
    let (answer, latency_ms) = ask_where(vec![(SERVER, answer_of(7))]).unwrap();
    assert!(is_address(&answer, 7), "{answer:?}");
    assert!((latency_ms - 3.0).abs() < 1e-6, "{latency_ms}");
}

#[test]
fn the_answer_is_found_behind_what_is_none() {
    let mut other_number = answer_of(9);
    other_number[1] ^= 1;
    let mut five_bytes = [&answer_of(9)[..], &[9]].concat();
    let len_at = five_bytes.len() - 6;
    five_bytes[len_at] = 5;
    let (answer, _) = ask_where(vec![
        ("192.0.2.54:53", answer_of(9)),
        ("192.0.2.53:54", answer_of(9)),
        (SERVER, other_number),
        (SERVER, five_bytes),
        (SERVER, answer_of(7)),
    ])
    .unwrap();
    assert!(is_address(&answer, 7), "{answer:?}");
    let error = ask_where(vec![(SERVER, answer_of(7)[..40].to_vec())]).unwrap_err().to_string();
    let told = "192.0.2.53:53 did not answer within 0.2 s; what came is no answer: it is malformed";
    assert_eq!(error, told);
}

#[test]
fn an_endpoint_that_stands_still_is_given_up_in_the_time_of_its_question() {
    // It takes the first so many requests, and nothing more is heard of it.
    for (answered, awaited) in [(0, "the answer to NOPEN"), (1, "the answer to NSEND")] {
        let mut count = 0;
        let session = scripted_endpoint::start(move |request, answers| {
            if count < answered {
                scripted_endpoint::original(request, answers);
            }
            count += 1;
        });
        let mut client = Client::new(session, PATIENCE * 20).unwrap();
        let asked = ask_by_udp(&mut client, SERVER.parse().unwrap(), &question(), PATIENCE);
        match asked {
            Err(MletError::Client(ClientError::Silence { awaited: told, waited })) => {
                assert!(told.starts_with(awaited) && waited < PATIENCE * 20, "{told} {waited:?}");
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Asks a server over TCP that sends these pieces, and then perhaps closes.
fn ask_over_tcp(pieces: Vec<Vec<u8>>, closes: bool) -> Result<Timed, MletError> {
    let remote: SocketAddr = SERVER.parse().unwrap();
    let session = scripted_endpoint::start(move |request, answers| {
        scripted_endpoint::original(request, answers);
        let (sktid, time) = (SKTID, scripted_endpoint::CLOCK);
        let mut tell = |message: Message<'_>| message.encode(answers).unwrap();
        match *request {
            Message::Nopen { .. } => {
                let change = StateChange::TcpEstablished { remote };
                tell(Message::Nstat { sktid, time, change });
            }
            Message::Nsend { packet: Packet::Tcp { family, data }, .. } => {
                let query = question().message().to_vec();
                assert_eq!(*data, [&(query.len() as u16).to_be_bytes()[..], &query].concat());
                for data in &pieces {
                    tell(Message::Ndata { sktid, time, packet: Packet::Tcp { family, data } });
                }
                if closes {
                    let (protocol, code) = (mlet::Protocol::Tcp, StateChange::PEER_CLOSED);
                    let change = StateChange::Code { family, protocol, code };
                    tell(Message::Nstat { sktid, time, change });
                }
            }
            _ => {}
        }
    });
    ask_by_tcp(&mut client(session), remote, &question(), PATIENCE)
}

#[test]
fn a_server_that_is_asked_over_tcp_is_heard_until_its_message_is_whole() {
    let whole = [&(answer_of(7).len() as u16).to_be_bytes()[..], &answer_of(7)].concat();
    let pieces = whole.chunks(7).map(<[u8]>::to_vec).collect();
    assert!(is_address(&ask_over_tcp(pieces, true).unwrap().0, 7));
    let told =
        |piece: &[u8], closes| ask_over_tcp(vec![piece.to_vec()], closes).unwrap_err().to_string();
    let (_, cut) = whole.split_last().unwrap();
    assert_eq!(told(cut, true), "the server closed without an answer");
    assert_eq!(told(cut, false), "192.0.2.53:53 did not answer over TCP within 0.2 s");
    let mut other = whole.clone();
    other[2] ^= 1;
    let lie = "what 192.0.2.53:53 sent over TCP is no answer: its number is another question's";
    assert_eq!(told(&other, false), lie);
}

#[test]
fn a_server_that_no_connection_comes_to_is_given_up_in_its_time_and_said_to_be_that() {
    // It opens the socket, and nothing more is heard of it.
    let session = scripted_endpoint::start(scripted_endpoint::original);
    let mut client = Client::new(session, PATIENCE * 10).unwrap();
    let asked = ask_by_tcp(&mut client, SERVER.parse().unwrap(), &question(), PATIENCE);
    let Err(MletError::Client(ClientError::NotConnected { end, .. })) = asked else {
        panic!("{asked:?}")
    };
    assert_eq!(end, ConnectionEnd::Untold(PATIENCE));
}

#[test]
fn the_endpoints_server_may_be_one_of_ipv6() {
    let server = |ipv4: u8, ipv6: u8| {
        let session = scripted_endpoint::start(move |request, answers| {
            let (address, data): (u32, &[u8]) = match *request {
                Message::Mread { address: IPV4_COUNT, .. } => (IPV4_COUNT, &[ipv4]),
                Message::Mread { address: IPV6_COUNT, .. } => (IPV6_COUNT, &[ipv6]),
                Message::Mread { address: IPV4_SERVERS, .. } => (IPV4_SERVERS, &[192, 0, 2, 53]),
                Message::Mread { address: IPV6_SERVERS, .. } => (IPV6_SERVERS, &[0x20; 16]),
                _ => return scripted_endpoint::original(request, answers),
            };
            Message::Mdata { address, data }.encode(answers).unwrap();
        });
        endpoints_server(&mut client(session)).map(|server| server.is_ipv6())
    };
    assert!(!server(1, 1).unwrap() && server(0, 1).unwrap());
    let error = server(0, 0).unwrap_err().to_string();
    assert_eq!(error, "the endpoint knows no DNS server; name one");
}

#[test]
fn a_name_that_is_none_is_shown_without_its_control_characters() {
    let error = judged(&["a..b\u{1b}[2J".to_owned()]).err().unwrap().to_string();
    assert_eq!(error, r"'a..b\u{1b}[2J' is no domain name");
}
