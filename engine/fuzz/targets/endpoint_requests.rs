//! What a mlet asks of an endpoint, behind START. The input is a list of requests, most of them made of good parts, see
//! `request`. They are served in a network of this process's own, where nothing but its loopback is.
//!
//! Each request has one answer, in order; MREAD has as many bytes as it asked for, all others a RESULT. A socket is opened and
//! closed by turns, of a socket that is not open nothing is told, and a packet is told of once, by a tag that was given. A
//! malformed request is the last, as YIELD is.

#![no_main]

mod script;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

use hosts::endpoint::fuzz::serve;
use hosts::link::Link;
use libfuzzer_sys::fuzz_target;
use nix::sched::{CloneFlags, unshare};
use packetlab::message::{
    Family, HEADER_LEN, Message, MessageType, Open, Packet, Protocol, Socket, Status,
};
use packetlab::time::Ticks;
use script::Script;
use tokio::io::{DuplexStream, duplex};
use tokio::runtime::{Builder, Runtime};
use tokio::task::{JoinHandle, yield_now};
use tokio::time::timeout;

const OWN: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// No answer takes so long.
const PATIENCE: Duration = Duration::from_secs(60);

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_all().build().unwrap());

fuzz_target!(
    init: {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network of its own, which takes root");
        let is_up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
        assert!(is_up.is_ok_and(|status| status.success()), "ip link set lo up");
    },
    |input: &[u8]| RUNTIME.block_on(converse(Script(input)))
);

async fn converse(mut script: Script<'_>) {
    let (near, far) = duplex(1 << 20);
    let served = tokio::spawn(serve(far, OWN));
    let mut mlet = Mlet { link: Link::new(near), open: HashMap::new() };
    while let Some(operation) = script.next() {
        let request = request(operation, &mut script);
        if !mlet.ask(&request).await {
            assert!(mlet.link.receive().await.is_ok_and(|end| end.is_none()), "it goes on");
            if request[0] == MessageType::YIELD.0 {
                end(served).await;
            } else {
                assert!(served.await.unwrap().is_err(), "it has ended by the rules");
            }
            return;
        }
    }
    assert!(!served.is_finished(), "it has ended by itself");
    end(served).await;
}

/// Ends a session whose connections may linger, so that nothing of it is left.
async fn end<T>(served: JoinHandle<T>) {
    served.abort();
    let _ = served.await;
    // The tasks of its sockets end at their next turn.
    yield_now().await;
}

/// A socket, as a mlet sees it.
#[derive(Default)]
struct Known {
    is_raw: bool,
    /// Of packets that were taken and are not told of.
    tags: HashMap<u16, usize>,
}

struct Mlet {
    link: Link<DuplexStream>,
    open: HashMap<u8, Known>,
}

impl Mlet {
    /// Says this, and hears what comes up to the answer. False if that is the last.
    async fn ask(&mut self, encoded: &[u8]) -> bool {
        self.link.send_encoded(encoded).await.unwrap();
        let (message_type, payload) = split(encoded);
        let request = Message::decode(message_type, payload);
        loop {
            let received = timeout(PATIENCE, self.link.receive()).await.expect("an answer");
            let (message_type, payload) = received.unwrap().expect("an answer");
            match Message::decode(message_type, &payload) {
                Message::Result(outcome) => return self.take_result(&request, outcome.status()),
                Message::Mdata { address, data } => {
                    let len = data.len();
                    let is_asked = matches!(&request, Message::Mread { address: asked, len: asked_len }
                        if *asked == address && usize::from(*asked_len) == len);
                    assert!(is_asked, "{len} bytes at {address}, and not {request:?}");
                    return true;
                }
                Message::Ntag { sktid, tag, .. } => {
                    let known = self.open.get_mut(&sktid).expect("of an open socket");
                    let count = known.tags.get_mut(&tag).expect("a tag that was given");
                    *count = count.checked_sub(1).expect("it is told of once");
                }
                Message::Nstat { sktid, .. } | Message::Ndata { sktid, .. } => {
                    assert!(self.open.contains_key(&sktid), "of a socket that is not open");
                }
                // What it has sent to itself may find no room.
                Message::Ndrop { socket, .. } => {
                    assert!(self.open.contains_key(&socket.sktid), "of a socket that is not open");
                }
                other => panic!("{other:?} is nothing that an endpoint says here"),
            }
        }
    }

    fn take_result(&mut self, request: &Message<'_>, status: Status) -> bool {
        let is_success = status == Status::SUCCESS;
        match request {
            Message::Nopen { sktid, open, .. } if is_success => {
                let is_raw = matches!(open, Open::Raw { .. });
                let before = self.open.insert(*sktid, Known { is_raw, ..Known::default() });
                assert!(before.is_none(), "it was open");
            }
            Message::Nopen { .. } => {}
            Message::Nclose { sktid } => {
                assert_eq!(self.open.remove(sktid).is_some(), is_success, "{status}");
            }
            Message::Nsend { sktid, tag, .. } if is_success => {
                let known = self.open.get_mut(sktid).expect("through an open socket");
                if *tag != 0 {
                    *known.tags.entry(*tag).or_default() += 1;
                }
            }
            Message::Ncap { socket, .. } if is_success => {
                assert!(self.open.get(&socket.sktid).is_some_and(|known| known.is_raw));
            }
            Message::Nctl { sktid, .. } if is_success => assert!(self.open.contains_key(sktid)),
            Message::Nsend { .. } | Message::Ncap { .. } | Message::Nctl { .. } => {}
            Message::Mwrite { .. } => {}
            Message::Yield { .. } => {
                assert!(is_success);
                return false;
            }
            Message::Raw { malformed: true, .. } => {
                assert_eq!(status, Status::ECTLBADMSG);
                return false;
            }
            Message::Mread { .. } => panic!("MREAD is answered with {status}"),
            _ => assert_eq!(status, Status::ECTLNOTSUP),
        }
        true
    }
}

fn split(encoded: &[u8]) -> (MessageType, &[u8]) {
    (MessageType(encoded[0]), &encoded[HEADER_LEN..])
}

/// A whole request.
fn request(operation: u8, script: &mut Script<'_>) -> Vec<u8> {
    let sktid = script.number() as u8 % 4;
    let later = Ticks(u64::MAX);
    let time = if operation & 0x80 == 0 { Ticks(0) } else { later };
    let message = match operation % 0x80 % 10 {
        0 => Message::Nopen {
            sktid,
            receive_buffer_len: script.long_number() as u32,
            open: open(script),
        },
        1 => {
            let (tag, kind, remote) = (script.number() as u16, script.number(), address(script));
            let (family, data) = (Family::of(OWN), script.bytes());
            let packet = match kind % 3 {
                0 => Packet::Udp { remote, data },
                1 => Packet::Tcp { family, data },
                _ => Packet::Raw { family, data },
            };
            Message::Nsend { sktid, time, tag, packet }
        }
        2 => {
            let socket = Socket { sktid, family: Family::of(OWN), protocol: Protocol::Raw };
            Message::Ncap { socket, end: later, filter: script.bytes() }
        }
        3 => Message::Nctl { sktid, family: Family::of(OWN), time, command: script.number() as u8 },
        4 => Message::Nclose { sktid },
        5 => Message::Mread {
            address: (script.number() << 24 | script.long_number()) as u32,
            len: script.long_number() as u16,
        },
        6 => Message::Mwrite {
            address: (script.number() << 24 | script.long_number()) as u32,
            data: script.bytes(),
        },
        7 if operation & 0x80 != 0 => Message::Yield { resume: time },
        _ => return raw(script.number() as u8, script.bytes()),
    };
    let mut encoded = Vec::new();
    match message.encode(&mut encoded) {
        Ok(()) => encoded,
        Err(_) => raw(MessageType::START.0, &[]),
    }
}

fn raw(message_type: u8, payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u32).to_be_bytes();
    [&[message_type], &len[1..], payload].concat()
}

fn open(script: &mut Script<'_>) -> Open {
    let (kind, local, remote) = (script.number(), address(script), address(script));
    match kind % 4 {
        0 => Open::Udp { local },
        1 => Open::TcpConnect { local, remote },
        2 => Open::TcpListen { local },
        _ => Open::Raw { local: local.ip() },
    }
}

/// One of a few, which meet.
fn address(script: &mut Script<'_>) -> SocketAddr {
    let (host, port) = (script.number() as u8, script.number() as u16 % 4);
    let host = match host % 4 {
        0 => Ipv4Addr::UNSPECIFIED,
        1 => Ipv4Addr::LOCALHOST,
        _ => Ipv4Addr::new(127, 0, 0, host),
    };
    SocketAddr::new(IpAddr::V4(host), if port == 0 { 0 } else { 5000 + port })
}
