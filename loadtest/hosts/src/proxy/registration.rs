//! A controller registers a connection: TLS, XREG, RESULT, the end of TLS, both preambles
//! (spec/protocol.md 5.2, 5.3, proxy side).
//!
//! Not here: deadlines, and what comes of the connection (`server`).
//!
//! Invariant: when [`set_up`] has succeeded, the controller has said nothing but its preamble.

use std::fmt;
use std::io;
use std::sync::Arc;

use packetlab::certificate::Certificate;
use packetlab::frame::Framer;
use packetlab::message::{Message, MessageType, Outcome, Status};
use packetlab::snikey::{SNIKEY_LEN_MAX, SniKey};
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::preamble::{self, Finder, PREAMBLE};
use super::records::Records;
use super::refusal::RegistrationRefusal;
use super::switchboard::NotRegistered;
use crate::tls_reason;

/// Raw bytes taken at once while the preamble is awaited.
const RAW_READ_LEN: usize = 256;

/// Why a connection was not registered.
#[derive(Debug)]
pub(super) enum RegistrationError {
    /// TLS failed, in the handshake or later.
    Tls(io::Error),
    /// The controller asked for something that is not served here.
    Refused(RegistrationRefusal),
    /// The connection broke after TLS was over.
    Raw(io::Error),
    /// Too many bytes came instead of the preamble.
    NoPreamble {
        /// How many were allowed.
        max: usize,
    },
    /// The controller said more than its preamble although no endpoint had come.
    SpokeFirst,
}

impl fmt::Display for RegistrationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tls(cause) => write!(f, "TLS failed: {}", tls_reason::reason(cause)),
            Self::Refused(refusal) => {
                write!(f, "registration refused with {}: {refusal}", refusal.status())
            }
            Self::Raw(cause) => write!(f, "closed before its preamble: {cause}"),
            Self::NoPreamble { max } => write!(f, "no preamble in {max} bytes"),
            Self::SpokeFirst => f.write_str("it spoke before an endpoint came"),
        }
    }
}

/// Takes a connection from accept to the controller's preamble; returns what `admit` made of the snikey
/// that it asks for and the certificate that it has shown. `admit` may refuse before the controller is
/// told that all is well.
pub(super) async fn set_up<C>(
    stream: &mut TcpStream,
    tls: Arc<ServerConfig>,
    preamble_max: usize,
    admit: impl FnOnce(SniKey, Option<&Certificate>) -> Result<C, NotRegistered>,
) -> Result<C, RegistrationError> {
    let mut records = Records::accept(stream, tls).await.map_err(RegistrationError::Tls)?;
    let asked = read_registration(&mut records).await.map_err(RegistrationError::Tls)?;
    let certificate = records.peer_certificate();
    let admitted = asked.and_then(|snikey| {
        admit(snikey, certificate.as_ref()).map_err(RegistrationRefusal::NotRegistered)
    });
    let status = admitted.as_ref().map_or_else(RegistrationRefusal::status, |_| Status::SUCCESS);
    records.write(&result(status)).await.map_err(RegistrationError::Tls)?;
    let mut farewell = records.into_close_notify().map_err(RegistrationError::Tls)?;
    let admitted = match admitted {
        Ok(admitted) => admitted,
        Err(refusal) => {
            // It is refused whether or not it hears of it.
            let _ = stream.write_all(&farewell).await;
            let _ = stream.shutdown().await;
            return Err(RegistrationError::Refused(refusal));
        }
    };
    if !preamble::is_seen_by_the_original_after(&farewell) {
        farewell.clear();
    }
    farewell.extend_from_slice(PREAMBLE);
    stream.write_all(&farewell).await.map_err(RegistrationError::Raw)?;
    skip_to_preamble(stream, preamble_max).await?;
    Ok(admitted)
}

async fn read_registration(
    records: &mut Records<'_>,
) -> io::Result<Result<SniKey, RegistrationRefusal>> {
    let mut framer = Framer::new(SNIKEY_LEN_MAX);
    loop {
        framer.push(&records.read().await?);
        match framer.next() {
            Ok(Some((message_type, payload))) => return Ok(registration(message_type, payload)),
            Ok(None) => {}
            Err(error) => return Ok(Err(RegistrationRefusal::TooLarge(error))),
        }
    }
}

fn registration(message_type: MessageType, payload: &[u8]) -> Result<SniKey, RegistrationRefusal> {
    match Message::decode(message_type, payload) {
        Message::Xreg { snikey } => SniKey::parse(snikey).map_err(RegistrationRefusal::SniKey),
        Message::Raw { malformed: true, .. } if message_type == MessageType::XREG => {
            Err(RegistrationRefusal::Malformed)
        }
        _ => Err(RegistrationRefusal::Unsupported(message_type)),
    }
}

fn result(status: Status) -> Vec<u8> {
    let mut encoded = Vec::new();
    // Only statuses that blame a monitor have no encoding of this form.
    let _ = Message::Result(Outcome::Status(status)).encode(&mut encoded);
    encoded
}

/// The controller's close_notify comes first (spec/protocol.md 5.2).
async fn skip_to_preamble(stream: &mut TcpStream, max: usize) -> Result<(), RegistrationError> {
    let mut finder = Finder::default();
    let mut skipped = 0;
    let mut bytes = [0; RAW_READ_LEN];
    while skipped <= max {
        let count = match stream.read(&mut bytes).await {
            Ok(0) => return Err(RegistrationError::Raw(io::ErrorKind::UnexpectedEof.into())),
            Ok(count) => count,
            Err(error) => return Err(RegistrationError::Raw(error)),
        };
        match finder.find(bytes.get(..count).unwrap_or_default()) {
            Some(end) if end == count => return Ok(()),
            Some(_) => return Err(RegistrationError::SpokeFirst),
            None => skipped += count,
        }
    }
    Err(RegistrationError::NoPreamble { max })
}
