//! The conversations of the original's mlets with the original's endpoint, held again with ours: the
//! same answers and notifications in the same order, of the same lengths and with the same statuses.
//! Times differ, and so do the servers' addresses.

use std::net::UdpSocket as BlockingUdpSocket;

use tokio::net::UdpSocket;

use super::*;

/// The recorded endpoint.
const ENDPOINT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Where the recorded targets were.
const TARGET: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 77, 0, 1)), 0);
/// Where ours are: a port of theirs must not be one that the traceroute finds closed.
const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 77, 0, 2)), 0);

macro_rules! transcript {
    ($name:literal) => {
        transcript(include_str!(concat!(
            "../../../../../engine/testdata/transcripts/",
            $name,
            ".jsonl"
        )))
    };
}

/// One step of a conversation; a mlet's step without a message is its leaving.
struct Step {
    from_mlet: bool,
    message: Option<(MessageType, Vec<u8>)>,
}

fn transcript(text: &str) -> Vec<Step> {
    let step = |line: &str| {
        let value = |name: &str| {
            let (_, rest) = line.split_once(&format!("\"{name}\": \""))?;
            rest.split_once('"').map(|(value, _)| value)
        };
        let message = value("hex").map(|hex| {
            let digits: Vec<char> = hex.chars().collect();
            let byte = |pair: &[char]| u8::from_str_radix(&String::from_iter(pair), 16).unwrap();
            let bytes: Vec<u8> = digits.chunks(2).map(byte).collect();
            (MessageType(bytes[0]), bytes[4..].to_vec())
        });
        Step { from_mlet: value("from") == Some("mlet"), message }
    };
    text.lines().map(step).collect()
}

/// All data that the recorded endpoint received.
fn received(steps: &[Step]) -> Vec<u8> {
    let data = |step: &Step| {
        let (message_type, payload) = step.message.as_ref()?;
        match Message::decode(*message_type, payload) {
            Message::Ndata {
                packet: Packet::Tcp { data, .. } | Packet::Udp { data, .. }, ..
            } => Some(data.to_vec()),
            _ => None,
        }
    };
    steps.iter().filter_map(data).flatten().collect()
}

/// The mlet's message, to this server.
fn redirected<'a>(message: Message<'a>, remote: SocketAddr) -> Message<'a> {
    match message {
        Message::Nopen { sktid, receive_buffer_len, open: Open::TcpConnect { local, .. } } => {
            let open = Open::TcpConnect { local, remote };
            Message::Nopen { sktid, receive_buffer_len, open }
        }
        Message::Nsend { sktid, time, tag, packet: Packet::Udp { data, .. } } => {
            let packet = Packet::Udp { remote, data };
            Message::Nsend { sktid, time, tag, packet }
        }
        other => other,
    }
}

/// What must be the same in two messages of one type and length.
fn essence<'a>(message: &Message<'a>) -> Message<'a> {
    let time = Ticks(0);
    match message.clone() {
        Message::Ntag { sktid, tag, status, .. } => Message::Ntag { sktid, tag, time, status },
        Message::Nstat { sktid, change, .. } => {
            let change = match change {
                StateChange::TcpEstablished { .. } => {
                    StateChange::TcpEstablished { remote: TARGET }
                }
                other => other,
            };
            Message::Nstat { sktid, time, change }
        }
        Message::Ndata { sktid, packet, .. } => {
            let packet = match packet {
                Packet::Udp { data, .. } => Packet::Udp { remote: TARGET, data },
                // Identification and checksums are the kernel's choice.
                Packet::Raw { family, .. } => Packet::Raw { family, data: b"" },
                tcp => tcp,
            };
            Message::Ndata { sktid, time, packet }
        }
        Message::Mdata { address, .. } => Message::Mdata { address, data: b"" },
        other => other,
    }
}

/// Says what the mlet said, and hears what it heard.
async fn replay(steps: Vec<Step>, server: SocketAddr) {
    let mut script = Script::start(ENDPOINT, "", None);
    for (number, Step { from_mlet, message }) in steps.into_iter().enumerate() {
        match (from_mlet, message) {
            (true, None) => {
                assert!(matches!(script.leave().await, Ok(End::Closed)));
                return;
            }
            (true, Some((message_type, payload))) => {
                let request = redirected(Message::decode(message_type, &payload), server);
                script.link.send(&request).await.unwrap();
            }
            (false, Some((message_type, payload))) => {
                let (heard_type, heard) = script.next().await;
                assert_eq!(heard_type, message_type, "step {number}: {heard:?}");
                assert_eq!(heard.len(), payload.len(), "step {number}: {message_type}");
                let essences = [heard, payload].map(|payload| {
                    format!("{:?}", essence(&Message::decode(message_type, &payload)))
                });
                assert_eq!(essences[0], essences[1], "step {number}");
            }
            (false, None) => panic!("step {number}: the endpoint left"),
        }
    }
    panic!("the mlet never left");
}

#[tokio::test]
async fn fetching_a_page_goes_as_with_the_original() {
    let steps = transcript!("http_get");
    let page = received(&steps);
    let listener = TcpListener::bind(SERVER).await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            assert!(stream.read_buf(&mut request).await.unwrap() > 0);
        }
        stream.write_all(&page).await.unwrap();
    });
    replay(steps, address).await;
    serving.await.unwrap();
}

/// One question, one answer.
async fn replay_dns(steps: Vec<Step>) {
    let answer = received(&steps);
    let server = UdpSocket::bind(SERVER).await.unwrap();
    let address = server.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let (len, mlet) = server.recv_from(&mut [0; 512]).await.unwrap();
        assert_eq!(len, 33);
        server.send_to(&answer, mlet).await.unwrap();
    });
    replay(steps, address).await;
    serving.await.unwrap();
}

#[tokio::test]
async fn asking_a_dns_server_goes_as_with_the_original() {
    replay_dns(transcript!("dns")).await;
}

#[tokio::test]
async fn asking_a_dns_server_with_the_originals_interface_library_goes_as_with_the_original() {
    replay_dns(transcript!("pktif_dns")).await;
}

#[tokio::test]
#[ignore = "needs CAP_NET_RAW"]
async fn a_ping_goes_as_with_the_original() {
    replay(transcript!("icmp_echo"), TARGET).await;
}

#[tokio::test]
#[ignore = "needs CAP_NET_RAW"]
async fn a_traceroute_goes_as_with_the_original() {
    // Its probes go to ports 33434 and up, where nobody must listen.
    assert!((33_434..33_524).all(|port| BlockingUdpSocket::bind((TARGET.ip(), port)).is_ok()));
    replay(transcript!("traceroute"), TARGET).await;
}
