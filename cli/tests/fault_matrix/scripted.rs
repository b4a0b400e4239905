//! A scripted proxy's or broker's port, and what goes wrong at a connection that has come to it.
//!
//! Not here: the conversations (`proxies.rs`, `brokers.rs`).

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use packetlab::key::PrivateKey;
use rustls::ServerConfig;
use socket2::Socket;

use crate::cell::{GARBAGE, HUGE, in_words, trickle};
use crate::common::endpoint::{RESULT, SUCCESS};
use crate::common::manager::{Manager, PATIENCE, wait_until};
use crate::common::proxy::bound;
use crate::common::tls_peer::{TlsPeer, agent, reset};

/// A message that neither proxy nor broker is asked for: XNOTIFY.
const WRONG_TYPE: [u8; 5] = [0x70, 0, 0, 1, 1];

/// RESULT with ENORES.
const REFUSAL: [u8; 6] = [RESULT, 0, 0, 2, 0, 0x44];

/// As much as is skipped in search of a preamble, and more.
const GARBAGE_LEN: usize = 100_000;

/// The beginning of a record of the TLS handshake that never comes whole.
const HANDSHAKE_RECORD: [u8; 64] = {
    let mut bytes = [0; 64];
    (bytes[0], bytes[1], bytes[2], bytes[3]) = (0x16, 3, 3, 0x40);
    bytes
};

/// How what is said to the manager at this step is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layer {
    /// Before TLS is up.
    Handshake,
    /// Within TLS.
    Tls,
    /// As bytes, of which these would be right.
    Raw(&'static [u8]),
}

/// The port. It stays taken while nobody listens at it.
pub(crate) struct Port {
    pub(crate) address: SocketAddr,
    _bound: Socket,
    listener: Option<TcpListener>,
    config: Arc<ServerConfig>,
}

impl Port {
    pub(crate) fn new() -> Self {
        let socket = bound((Ipv4Addr::LOCALHOST, 0).into());
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let config = agent(&PrivateKey::generate().unwrap(), true);
        let mut port = Self { address, _bound: socket, listener: None, config };
        port.listen();
        port
    }

    /// Takes connections, with the shortest queue there is.
    pub(crate) fn listen(&mut self) {
        let socket = bound(self.address);
        socket.listen(0).unwrap();
        self.listener = Some(socket.into());
    }

    /// The same, unless it does already.
    pub(crate) fn listen_again(&mut self) {
        if self.listener.is_none() {
            self.listen();
        }
    }

    /// Takes none any more: they are refused.
    pub(crate) fn refuse(&mut self) {
        self.listener = None;
    }

    /// The next connection; fails if none comes for as long as patience lasts.
    #[track_caller]
    pub(crate) fn accept(&self) -> TlsPeer {
        let listener = self.listener.as_ref().unwrap();
        listener.set_nonblocking(true).unwrap();
        let mut accepted = None;
        wait_until("a connection of the manager", || {
            accepted = match listener.accept() {
                Ok((tcp, _)) => Some(tcp),
                Err(error) if error.kind() == ErrorKind::WouldBlock => None,
                Err(error) => panic!("{error}"),
            };
            accepted.is_some()
        });
        let tcp = accepted.unwrap();
        tcp.set_nonblocking(false).unwrap();
        TlsPeer::new(tcp, Arc::clone(&self.config))
    }

    /// Fills the queue, so that the kernel answers nobody who connects; drained it does again.
    pub(crate) fn fill(&self) -> Vec<TcpStream> {
        let mut queued = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&self.address, Duration::from_millis(200))
        {
            queued.push(stream);
            assert!(queued.len() < 10, "the queue never fills");
        }
        queued
    }

    /// Takes those out of the queue that [`Self::fill`] has put there.
    pub(crate) fn drain(&self, queued: Vec<TcpStream>) {
        for _ in &queued {
            drop(self.accept());
        }
    }
}

/// Reads the manager's ClientHello, and answers nothing.
pub(crate) fn take_hello(peer: &mut TlsPeer) {
    let mut header = [0; 5];
    peer.tcp.read_exact(&mut header).unwrap();
    let mut body = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))];
    peer.tcp.read_exact(&mut body).unwrap();
}

/// Lets the fault happen; `None` if the connection is gone with it.
pub(crate) fn strike(fault: &str, layer: Layer, mut peer: TlsPeer) -> Option<TlsPeer> {
    let said: &[u8] = match (fault, layer) {
        ("F7", _) => &HUGE,
        ("F8", _) => &WRONG_TYPE,
        ("F9", _) => &REFUSAL,
        (_, Layer::Handshake) => &HANDSHAKE_RECORD,
        (_, Layer::Tls) => &SUCCESS,
        (_, Layer::Raw(right)) => right,
    };
    let bytes = match layer {
        Layer::Tls if !matches!(fault, "F1" | "F2" | "F3" | "F4") => peer.seal(said),
        _ => said.to_vec(),
    };
    // The manager may have closed before all is taken.
    match fault {
        "F1" => {}
        "F2" => peer.tcp.shutdown(Shutdown::Write).unwrap(),
        "F3" => {
            reset(peer.tcp);
            return None;
        }
        "F4" => {
            let garbage = GARBAGE.repeat(GARBAGE_LEN / GARBAGE.len());
            let _ = peer.tcp.write_all(&garbage);
        }
        "F5" => trickle(&peer.tcp, &bytes),
        "F6" => {
            peer.tcp.write_all(&bytes[..bytes.len() / 2]).unwrap();
            peer.tcp.shutdown(Shutdown::Write).unwrap();
        }
        "F7" | "F8" | "F9" => drop(peer.tcp.write_all(&bytes)),
        other => panic!("{other} is nothing that a peer does"),
    }
    Some(peer)
}

/// Reads to the end of what the manager says, which it is told in the end.
pub(crate) fn told(mut peer: TlsPeer, layer: Layer) -> String {
    if layer == Layer::Tls {
        loop {
            match peer.receive() {
                Ok(_) => {}
                Err(end) => return in_words(end),
            }
        }
    }
    let mut bytes = Vec::new();
    if let Err(error) = peer.tcp.read_to_end(&mut bytes)
        && !matches!(error.kind(), ErrorKind::ConnectionReset)
    {
        return format!("{error}");
    }
    // An alert in the clear, if one came last.
    match bytes[bytes.len().saturating_sub(7)..] {
        [0x15, 3, _, 0, 2, 2, number] => format!("alert {number}"),
        _ => "fin".into(),
    }
}

/// Waits until the log has a line with both of these.
#[track_caller]
pub(crate) fn await_line(manager: &Manager, who: &str, what: &str) {
    let has_line = || manager.log().lines().any(|line| line.contains(who) && line.contains(what));
    let start = Instant::now();
    while !has_line() {
        assert!(start.elapsed() < PATIENCE, "{who:?} with {what:?} is not in\n{}", manager.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}
