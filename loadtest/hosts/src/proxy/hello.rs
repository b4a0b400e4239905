//! The server name in an endpoint's ClientHello, read without consuming it: the bytes are replayed to
//! the controller.
//!
//! Not here: deadlines. The proxy takes no part in TLS; it sends nothing to the endpoint.

use std::fmt;
use std::io;

use packetlab::snikey::{SniKey, SniKeyError};
use packetlab::tls::Hello;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// Bytes taken at once; a ClientHello with a post-quantum key share has about 1,500.
const READ_LEN: usize = 2048;

/// Why an endpoint cannot be served.
#[derive(Debug)]
pub(super) enum HelloError {
    /// The connection broke.
    Io(io::Error),
    /// Not TLS, or a ClientHello that nobody would accept.
    NoHello(rustls::Error),
    /// It does not end.
    TooLong {
        /// How many bytes were allowed.
        max: usize,
    },
    /// It names no server.
    NoName,
    /// It names something that is no snikey.
    SniKey(SniKeyError),
}

impl fmt::Display for HelloError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(cause) => write!(f, "closed before its ClientHello: {cause}"),
            Self::NoHello(cause) => write!(f, "not a ClientHello: {cause}"),
            Self::TooLong { max } => write!(f, "ClientHello of more than {max} bytes"),
            Self::NoName => f.write_str("no server name"),
            Self::SniKey(cause) => cause.fmt(f),
        }
    }
}

/// The snikey that an endpoint asks for, and all bytes that were read to learn it.
pub(super) async fn read(
    stream: &mut TcpStream,
    max: usize,
) -> Result<(SniKey, Vec<u8>), HelloError> {
    let mut hello = Hello::default();
    let mut bytes = Vec::new();
    while bytes.len() < max {
        let seen = bytes.len();
        bytes.reserve(READ_LEN.min(max - seen));
        // Never more than `max` in all, whatever the reserve gave.
        let count = (&mut *stream).take((max - seen) as u64).read_buf(&mut bytes).await;
        if count.map_err(HelloError::Io)? == 0 {
            return Err(HelloError::Io(io::ErrorKind::UnexpectedEof.into()));
        }
        let mut new = bytes.get(seen..).unwrap_or_default();
        let greeted = hello.receive(&mut new).map_err(|error| HelloError::NoHello(error.error))?;
        if let Some(greeted) = greeted {
            let name = greeted.server_name().ok_or(HelloError::NoName)?;
            return Ok((SniKey::parse(&name).map_err(HelloError::SniKey)?, bytes));
        }
    }
    Err(HelloError::TooLong { max })
}
