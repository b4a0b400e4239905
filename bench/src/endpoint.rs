//! An endpoint in memory: TLS, and the answer to START.
//!
//! Not here: where its bytes go. Invariant: it sends nothing by itself but what TLS needs and that answer.

use std::io::{Read, Write};
use std::sync::Arc;

use packetlab::message::{Message, Outcome};
use packetlab::tls::{self, ClientConfig};
use rustls::ClientConnection;

use crate::credentials::SNIKEY;
use crate::encoded;

/// The endpoint.
pub struct Endpoint {
    tls: ClientConnection,
    /// Plain bytes that have come and were not taken.
    received: Vec<u8>,
    is_started: bool,
}

impl Endpoint {
    /// One that has said nothing yet.
    ///
    /// # Panics
    /// The operating system gives no randomness.
    #[must_use]
    pub fn new(config: Arc<ClientConfig>) -> Self {
        let name = tls::server_name(Some(SNIKEY)).expect("a good name");
        let mut tls = ClientConnection::new(config, name).expect("randomness");
        tls.set_buffer_limit(None);
        Self { tls, received: Vec::new(), is_started: false }
    }

    /// START was answered: what follows is the mlet's.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.is_started
    }

    /// Seals `bytes` for [`Self::send`].
    ///
    /// # Panics
    /// Never: any number of bytes is kept.
    pub fn write(&mut self, bytes: &[u8]) {
        self.tls.writer().write_all(bytes).expect("no limit is set");
    }

    /// Appends what it has to send to `into`.
    ///
    /// # Panics
    /// Never: memory takes everything.
    pub fn send(&mut self, into: &mut Vec<u8>) {
        while self.tls.wants_write() {
            self.tls.write_tls(into).expect("memory takes everything");
        }
    }

    /// Takes bytes of the controller, and answers START.
    ///
    /// # Panics
    /// They are not what a controller sends.
    pub fn receive(&mut self, mut sealed: &[u8]) {
        while !sealed.is_empty() {
            self.tls.read_tls(&mut sealed).expect("whatever was read before was taken");
            let state = self.tls.process_new_packets().expect("TLS as a controller speaks it");
            let len = self.received.len();
            self.received.resize(len + state.plaintext_bytes_to_read(), 0);
            self.tls.reader().read_exact(&mut self.received[len..]).expect("as many bytes");
        }
        if !self.is_started && self.received == encoded(&Message::Start) {
            self.received.clear();
            self.is_started = true;
            self.write(&encoded(&Message::Result(Outcome::SUCCESS)));
        }
    }

    /// Forgets the plain bytes that have come, and tells how many they were.
    pub fn take_received(&mut self) -> usize {
        let len = self.received.len();
        self.received.clear();
        len
    }
}
