//! The start of an endpoint's connection: its ClientHello, whose server name chooses the configuration.
//!
//! Not here: what follows (`stream.rs`).

use std::sync::Arc;

use rustls::server::{Accepted, AcceptedAlert, Acceptor};
use rustls::{AlertDescription, Error, InvalidMessage, PeerIncompatible, ServerConfig};

use super::alert;
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
        match own_alert(&error) {
            Some(alert) => bytes = alert::in_the_clear(alert).to_vec(),
            None if bytes.is_empty() => return Self::unanswered(error),
            None => {}
        }
        Self { error, alert: bytes }
    }

    /// rustls has no alert for some of what may come instead of a ClientHello. Nothing is encrypted yet, so ours is
    /// as good.
    fn unanswered(error: Error) -> Self {
        let alert = alert::answer(&error);
        Self {
            error,
            alert: alert.map_or_else(Vec::new, |alert| alert::in_the_clear(alert).to_vec()),
        }
    }
}

/// The alert for a ClientHello that rustls would answer with another than RFC 8446 has for it (4.2.3, 4.2.11, 9.2).
fn own_alert(error: &Error) -> Option<AlertDescription> {
    match error {
        Error::PeerIncompatible(
            PeerIncompatible::SignatureAlgorithmsExtensionRequired
            | PeerIncompatible::KeyShareExtensionRequired,
        ) => Some(AlertDescription::MissingExtension),
        Error::InvalidMessage(
            InvalidMessage::PreSharedKeyIsNotFinalExtension | InvalidMessage::DuplicateExtension(_),
        ) => Some(AlertDescription::IllegalParameter),
        _ => None,
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
                of_record = self
                    .framing
                    .take_of_record(input, false)
                    .map_err(HandshakeError::unanswered)?;
            }
            self.acceptor
                .read_tls(&mut of_record)
                .map_err(|error| HandshakeError::unanswered(Error::General(error.to_string())))?;
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
