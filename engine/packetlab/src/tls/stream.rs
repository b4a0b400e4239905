//! One TLS connection as a machine: bytes in, bytes out.
//!
//! Not here: sockets, and when to read or write. Invariant: every [`TlsStream::write_piece`] becomes records of its
//! own, so records never hold bytes of two pieces (spec/protocol.md 1.6); and no read swallows a byte that the peer did
//! not put into TLS.

use std::io::{Read, Write};
use std::ops::DerefMut;
use std::sync::Arc;

use rustls::{ClientConfig, ClientConnection, ConnectionCommon, Error};

use super::alert;
use super::clock::at;
use super::config::{SetupError, server_name};
use super::verify::{Peer, Shown, shown_during};
use crate::key::KeyId;
use crate::time::Ticks;

/// What reading plaintext gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plaintext {
    /// This many bytes.
    Bytes(usize),
    /// Nothing more until more is received.
    Empty,
    /// The peer sent close_notify and everything before it has been read.
    Closed,
}

/// Our side of one TLS connection.
pub struct TlsStream<C> {
    connection: Box<C>,
    /// Our side has ended, with close_notify or because TLS failed.
    is_closed: bool,
    /// Nothing is proven by it before the handshake is over. Boxed, because it is soon taken.
    shown: Option<Box<Shown>>,
}

/// The controller's side of a connection with a broker or proxy.
pub type ClientStream = TlsStream<ClientConnection>;

/// Bytes before the body of a TLS record.
const RECORD_HEADER_LEN: usize = 5;

/// The longest body of a record that TLS 1.3 allows (RFC 8446 5.2).
const RECORD_BODY_LEN_MAX: usize = (1 << 14) + 256;

/// How many bytes the TLS record at the front of `bytes` has; `None` until its header is whole.
///
/// For a stream that turns from TLS to raw bytes: rustls takes all it is given, so it must be given
/// no byte behind the last record (spec/protocol.md 5.3).
///
/// # Errors
/// No record is that long.
pub fn record_len(bytes: &[u8]) -> Result<Option<usize>, Error> {
    let Some([_, _, _, high, low]) = bytes.first_chunk::<RECORD_HEADER_LEN>() else {
        return Ok(None);
    };
    let body_len = usize::from(u16::from_be_bytes([*high, *low]));
    if body_len > RECORD_BODY_LEN_MAX {
        return Err(Error::PeerSentOversizedRecord);
    }
    Ok(Some(RECORD_HEADER_LEN + body_len))
}

impl ClientStream {
    /// Begins a handshake without a server name; [`TlsStream::take_output`] gives the ClientHello.
    ///
    /// # Errors
    /// The operating system gives no randomness.
    pub fn connect(config: Arc<ClientConfig>) -> Result<Self, SetupError> {
        let connection = ClientConnection::new(config, server_name(None)?)?;
        Ok(Self::new(connection))
    }
}

impl<C> TlsStream<C> {
    pub(super) fn new(connection: C) -> Self {
        Self { connection: Box::new(connection), is_closed: false, shown: None }
    }

    pub(super) fn into_connection(self) -> C {
        *self.connection
    }
}

impl<C, S> TlsStream<C>
where
    C: DerefMut<Target = ConnectionCommon<S>>,
{
    /// Feeds one step's worth of bytes, advancing `input`, and processes them; the peer's certificates, if they are among
    /// them, are judged at the time `now`.
    ///
    /// Call again with what is left after draining [`Self::read`]. Bytes behind a close_notify are
    /// skipped.
    ///
    /// # Errors
    /// The peer broke the protocol; what [`Self::write_output`] gives next is the alert for it.
    pub fn receive(&mut self, input: &mut &[u8], now: Ticks) -> Result<(), Error> {
        debug_assert!(!input.is_empty(), "rustls takes an empty read for the end of the stream");
        let received = match self.connection.read_tls(input) {
            Ok(0) => {
                *input = &[];
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(error) => Err(Error::General(error.to_string())),
        };
        received.and_then(|()| self.process(now)).inspect_err(|error| self.fail(error))
    }

    /// Our side ends because of this error: with its alert, unless rustls has one of its own on the way.
    pub(super) fn fail(&mut self, error: &Error) {
        if !std::mem::replace(&mut self.is_closed, true)
            && let Some(alert) = alert::answer(error)
        {
            alert::seal_instead(alert::fatal(alert), || self.connection.send_close_notify());
        }
    }

    /// Both sides have the keys of the handshake, so that the peer must seal what it sends.
    pub(super) fn is_sealed(&self) -> bool {
        self.connection.negotiated_key_exchange_group().is_some()
    }

    fn process(&mut self, now: Ticks) -> Result<(), Error> {
        let is_handshaking = self.is_handshaking();
        let mut process = || at(now, || self.connection.process_new_packets().map(drop));
        if !is_handshaking {
            return process();
        }
        let (processed, shown) = shown_during(process);
        if let Some(shown) = shown {
            self.shown = Some(Box::new(shown));
        }
        processed
    }

    /// The handshake is not over.
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Takes decrypted bytes.
    pub fn read(&mut self, into: &mut [u8]) -> Plaintext {
        match self.connection.reader().read(into) {
            Ok(0) if into.is_empty() => Plaintext::Empty,
            Ok(0) => Plaintext::Closed,
            Ok(len) => Plaintext::Bytes(len),
            // WouldBlock; the end of the TCP stream is never told to rustls, so no other error comes.
            Err(_) => Plaintext::Empty,
        }
    }

    /// Seals `piece` into records of its own; returns how many bytes were taken, fewer than given when
    /// the sealed bytes wait to be sent.
    pub fn write_piece(&mut self, piece: &[u8]) -> usize {
        self.connection.writer().write(piece).unwrap_or(0)
    }

    /// Sealed bytes wait to be sent.
    pub fn has_output(&self) -> bool {
        self.connection.wants_write()
    }

    /// Takes sealed bytes to be sent; returns how many.
    pub fn write_output(&mut self, into: &mut [u8]) -> usize {
        let room = into.len();
        let mut rest = into;
        while !rest.is_empty() && self.connection.wants_write() {
            match self.connection.write_tls(&mut rest) {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
        room - rest.len()
    }

    /// Appends all sealed bytes that wait to be sent to `into`.
    pub fn take_output(&mut self, into: &mut Vec<u8>) {
        while self.connection.wants_write() && self.connection.write_tls(into).is_ok() {}
    }

    /// Announces the end of what we send, unless TLS has failed: then the connection ends with the alert that says why,
    /// and not as if all were well (RFC 8446 6.2). Nothing may be written afterwards.
    pub fn close(&mut self) {
        if !std::mem::replace(&mut self.is_closed, true) {
            self.connection.send_close_notify();
        }
    }

    /// Our side has ended: [`Self::close`] was called, or TLS has failed.
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Who the peer is; `None` when it presented no certificate, and until the handshake is over, when it has proven
    /// that it holds the key of its first. Told once, so that whoever wants it keeps it and not the connection.
    pub fn take_peer(&mut self) -> Option<Peer> {
        let is_proven = !self.is_handshaking();
        match *self.shown.take_if(|_| is_proven)? {
            Shown::Believed(peer) => Some(peer),
            Shown::Refused(_) => None,
        }
    }

    /// Key id of the first certificate that the peer has shown, while it has not proven that it holds the key, or if its
    /// certificates were refused: anybody can show another's. `None` if it has shown none, or none that can be read.
    pub fn unproven_key(&self) -> Option<KeyId> {
        let shown = self.shown.as_deref().filter(|_| self.is_handshaking())?;
        Some(match shown {
            Shown::Believed(peer) => peer.key_id,
            Shown::Refused(key) => *key,
        })
    }
}
