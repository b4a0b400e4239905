//! TLS taken from a socket one record at a time, so that no byte behind the last record is swallowed:
//! there the stream turns raw (spec/protocol.md 5.3).
//!
//! Not here: what the records carry.
//!
//! Invariant: between two calls every byte taken from the socket belonged to a whole record.

use std::io::{self, Read};
use std::sync::Arc;

use packetlab::certificate::Certificate;
use rustls::{Connection, ServerConfig, ServerConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Type, version, length.
const HEADER_LEN: usize = 5;
/// Largest ciphertext of a record (RFC 8446, 5.2).
const RECORD_LEN_MAX: usize = 16_384 + 256;

/// A TLS connection.
#[derive(Debug)]
pub(super) struct Records<'s> {
    stream: &'s mut TcpStream,
    tls: Connection,
}

impl<'s> Records<'s> {
    /// Shakes hands as the server.
    pub(super) async fn accept(
        stream: &'s mut TcpStream,
        config: Arc<ServerConfig>,
    ) -> io::Result<Self> {
        let tls = ServerConnection::new(config).map_err(io::Error::other)?;
        Self::shake_hands(stream, tls.into()).await
    }

    /// Shakes hands in either role.
    pub(super) async fn shake_hands(
        stream: &'s mut TcpStream,
        tls: Connection,
    ) -> io::Result<Self> {
        let mut records = Self { stream, tls };
        records.flush().await?;
        while records.tls.is_handshaking() {
            records.receive().await?;
        }
        Ok(records)
    }

    /// The certificate for the key that the peer has proven, if it showed one.
    pub(super) fn peer_certificate(&self) -> Option<Certificate> {
        let leaf = self.tls.peer_certificates()?.first()?;
        // The handshake would have failed if it did not decode.
        Certificate::from_der(leaf).ok()
    }

    /// The next plaintext there is, not empty; an error at the peer's close_notify.
    pub(super) async fn read(&mut self) -> io::Result<Vec<u8>> {
        loop {
            let mut plaintext = Vec::new();
            match self.tls.reader().read_to_end(&mut plaintext) {
                // Without an error: behind a close_notify.
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                Ok(_) | Err(_) if !plaintext.is_empty() => return Ok(plaintext),
                Ok(_) | Err(_) => self.receive().await?,
            }
        }
    }

    /// Sends one message, in records of its own.
    pub(super) async fn write(&mut self, message: &[u8]) -> io::Result<()> {
        io::Write::write_all(&mut self.tls.writer(), message)?;
        self.flush().await
    }

    /// The close_notify record, not sent; TLS is over then.
    pub(super) fn into_close_notify(mut self) -> io::Result<Vec<u8>> {
        self.tls.send_close_notify();
        let mut record = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut record)?;
        }
        Ok(record)
    }

    async fn receive(&mut self) -> io::Result<()> {
        let mut record = vec![0; HEADER_LEN];
        self.stream.read_exact(&mut record).await?;
        // Content types and the major version of TLS: whatever else speaks here is not waited for.
        let [20..=23, 3, _, high, low] = record[..] else { return Err(not_tls()) };
        let len = usize::from(u16::from_be_bytes([high, low]));
        if len > RECORD_LEN_MAX {
            return Err(not_tls());
        }
        record.resize(HEADER_LEN + len, 0);
        if let Some(body) = record.get_mut(HEADER_LEN..) {
            self.stream.read_exact(body).await?;
        }
        let mut rest = &record[..];
        let mut processed = Ok(());
        while !rest.is_empty() && processed.is_ok() {
            self.tls.read_tls(&mut rest)?;
            processed = self.tls.process_new_packets().map(drop);
        }
        // After an error this is the alert that tells the peer.
        self.flush().await?;
        processed.map_err(io::Error::other)
    }

    async fn flush(&mut self) -> io::Result<()> {
        let mut sealed = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut sealed)?;
        }
        self.stream.write_all(&sealed).await
    }
}

fn not_tls() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "this is not TLS")
}
