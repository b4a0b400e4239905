//! The start of an endpoint's connection: its ClientHello, whose server name chooses the configuration.
//!
//! Not here: what follows (`stream.rs`).

use std::sync::Arc;

use rustls::server::{Accepted, AcceptedAlert, Acceptor};
use rustls::{Error, ServerConfig};

use super::framing::Framing;
use super::secrets::{Secrets, told_during};
use super::server::ServerStream;

/// A connection of which the ClientHello is still awaited.
#[derive(Default)]
pub struct Hello {
    /// Boxed, because it is many times larger than the later states of a session.
    acceptor: Box<Acceptor>,
    framing: Framing,
}

/// A ClientHello that has arrived; the server name chooses the configuration.
pub struct ClientHello {
    accepted: Accepted,
}

/// A failed handshake: the reason, and the alert the peer should still get.
#[derive(Debug)]
pub struct HandshakeError {
    /// Why it failed.
    pub error: Error,
    /// Bytes to send before closing; may be empty.
    pub alert: Vec<u8>,
}

impl HandshakeError {
    fn new((error, mut alert): (Error, AcceptedAlert)) -> Self {
        let mut bytes = Vec::new();
        // Writing to a Vec cannot fail, and an alert that is cut short only costs the peer its reason.
        let _ = alert.write_all(&mut bytes);
        if bytes.is_empty() {
            return Self::unexpected(error);
        }
        Self { error, alert: bytes }
    }

    /// rustls has no alert for some of what may come instead of a ClientHello. Nothing is encrypted yet, so ours is
    /// as good.
    fn unexpected(error: Error) -> Self {
        const FATAL_UNEXPECTED_MESSAGE: [u8; 7] = [21, 3, 3, 0, 2, 2, 10];
        Self { error, alert: FATAL_UNEXPECTED_MESSAGE.to_vec() }
    }
}

impl Hello {
    /// Feeds bytes from the peer, advancing `input`; `Some` once the ClientHello is whole.
    ///
    /// # Errors
    /// What arrived is no acceptable ClientHello.
    pub fn receive(&mut self, input: &mut &[u8]) -> Result<Option<ClientHello>, HandshakeError> {
        let mut of_record: &[u8] = &[];
        while !(input.is_empty() && of_record.is_empty()) {
            if of_record.is_empty() {
                of_record = self.framing.take_of_record(input);
            }
            self.acceptor
                .read_tls(&mut of_record)
                .map_err(|error| HandshakeError::unexpected(Error::General(error.to_string())))?;
            if let Some(accepted) = self.acceptor.accept().map_err(HandshakeError::new)? {
                return Ok(Some(ClientHello { accepted }));
            }
        }
        Ok(None)
    }
}

impl ClientHello {
    /// The server name asked for; `None` when there was none.
    pub fn server_name(&self) -> Option<String> {
        self.accepted.client_hello().server_name().map(str::to_owned)
    }

    /// Goes on with the handshake under `config`.
    ///
    /// # Errors
    /// The ClientHello does not fit the configuration, such as one without TLS 1.3.
    pub fn accept(self, config: Arc<ServerConfig>) -> Result<ServerStream, HandshakeError> {
        let mut secrets = Secrets::default();
        let connection = told_during(&mut secrets, || self.accepted.into_connection(config));
        Ok(ServerStream::new(connection.map_err(HandshakeError::new)?, secrets))
    }
}
