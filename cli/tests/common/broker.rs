//! A scripted broker: the test accepts each connection and answers each request itself.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use packetlab::channel::ChannelList;
use packetlab::key::PrivateKey;
use packetlab::message::{Message, MessageType};
use packetlab::name_value::{Dialect, Pair, parse};
use rustls::ServerConfig;

use super::Home;
use super::endpoint::{End, SUCCESS};
use super::tls_peer::{TlsPeer, agent};

pub const XCERT: u8 = 0x30;
pub const XPUB: u8 = 0x31;

/// A broker's publish port.
pub struct Broker {
    pub address: SocketAddr,
    listener: Option<TcpListener>,
    config: Arc<ServerConfig>,
}

/// An XPUB as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Xpub {
    /// Hexadecimal.
    pub channels: Vec<String>,
    pub operator_key: [u8; 32],
    pub xdescr: Vec<(String, String)>,
    /// The same as it came.
    pub text: String,
    /// The certificates that came before it.
    pub certificates: Vec<Vec<u8>>,
}

impl Xpub {
    /// The only value of this name.
    #[track_caller]
    pub fn value(&self, name: &str) -> &str {
        let mut values = self.xdescr.iter().filter(|(found, _)| found == name);
        let value = values.next().unwrap_or_else(|| panic!("no {name} in {:?}", self.xdescr));
        assert_eq!(values.next(), None, "{name} is there twice");
        &value.1
    }
}

impl Broker {
    /// One whose certificate this key has signed.
    pub fn start(signer: &PrivateKey) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        Self { address, listener: Some(listener), config: agent(signer, true) }
    }

    /// The next connection, on which nothing has been read.
    pub fn accept(&self) -> TlsPeer {
        let (tcp, _) = self.listener.as_ref().expect("it is down").accept().unwrap();
        TlsPeer::new(tcp, Arc::clone(&self.config))
    }

    /// The next connection, after the handshake.
    #[track_caller]
    pub fn greet(&self) -> TlsPeer {
        let mut peer = self.accept();
        peer.handshake().unwrap();
        peer
    }

    /// Accepts a connection and everything that is published on it, so many experiments.
    #[track_caller]
    pub fn take_publication(&self, count: usize) -> (TlsPeer, Vec<Xpub>) {
        let mut peer = self.greet();
        let published = (0..count).map(|_| take_xpub(&mut peer).unwrap()).collect();
        (peer, published)
    }

    /// Refuses connections from now on.
    pub fn go_down(&mut self) {
        self.listener = None;
    }

    /// Listens again, at the same address.
    pub fn come_back(&mut self) {
        self.listener = Some(TcpListener::bind(self.address).unwrap());
    }
}

/// Accepts certificates up to an XPUB, and that.
pub fn take_xpub(peer: &mut TlsPeer) -> Result<Xpub, End> {
    let mut certificates = Vec::new();
    loop {
        let (message_type, payload) = peer.receive()?;
        let published = match Message::decode(MessageType(message_type), &payload) {
            Message::Xcert { certificate } => {
                certificates.push(certificate.to_vec());
                None
            }
            Message::Xpub { channels, operator_key, xdescr } => Some(Xpub {
                channels: hex(&channels),
                operator_key,
                xdescr: pairs(xdescr),
                text: xdescr.to_owned(),
                certificates: std::mem::take(&mut certificates),
            }),
            other => panic!("{other:?}"),
        };
        // Lock-step: nothing comes before this.
        peer.assert_silent();
        peer.send(&SUCCESS)?;
        if let Some(published) = published {
            return Ok(published);
        }
    }
}

fn hex(channels: &ChannelList) -> Vec<String> {
    channels.iter().map(|channel| channel.to_string()).collect()
}

fn pairs(xdescr: &str) -> Vec<(String, String)> {
    let pairs = parse(Dialect::Descriptor, xdescr.as_bytes()).unwrap();
    pairs.into_iter().map(|Pair { name, value }| (name, value)).collect()
}

impl Home {
    /// The config of a home whose experiment this broker hears of.
    pub fn publishing(&self, broker: &Broker, more: &str) -> String {
        format!(
            "EnableExpPublication 1\nBrokerAddr {}\nPubAgentCertPath agent.cert\n\
             ControllerPrivkeyPath xc\n{more}\n",
            broker.address
        )
    }
}
