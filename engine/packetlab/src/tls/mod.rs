//! TLS 1.3 as PacketLab uses it (spec/protocol.md 3): certificates are PacketLab chains, keys are Ed25519,
//! and nothing of the web's certificate rules applies.
//!
//! The only room that names rustls. [`server_config`] and [`client_config`] serve every role; [`Hello`] and [`ServerStream`]
//! are the controller's side towards an endpoint, [`ClientStream`] its side towards a broker or proxy, fed with bytes
//! by whoever owns the socket.

mod alert;
mod clock;
mod config;
mod failure;
mod framing;
mod hello;
mod secrets;
mod server;
mod stream;
#[cfg(test)]
mod tests;
mod verify;

pub use rustls::{ClientConfig, Error as TlsError, ServerConfig};

pub use self::alert::{Instead, seal_instead};
pub use self::config::{Identity, SetupError, client_config, server_config, server_name, warm_up};
pub use self::failure::{is_close, is_refused_certificate, reason, remedy};
pub use self::hello::{ClientHello, HandshakeError, Hello};
pub use self::server::{Opened, ServerStream};
pub use self::stream::{ClientStream, Plaintext, TlsStream, record_len};
pub use self::verify::{Peer, PeerRule};
pub use crate::record::Next;
