//! The connection to the controller: TCP from the endpoint's own address, TLS 1.3 with its own
//! certificate, and the chain that the controller presents (spec/protocol.md 3, 5.1).
//!
//! Not here: messages.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use packetlab::key::PublicKey;
use packetlab::trust::{TrustMode, VerifiedChain, decode_chain, verify_chain};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::connect::connect_any;
use super::session_end::EndpointError;
use crate::clock::now;

/// One try to connect (spec/protocol.md 5.1).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// All tries together; a controller that is just starting refuses connections for a moment.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// Pause after the first refused try; it doubles with every further one.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// The whole handshake. Long, because a fleet on one machine shakes hands all at once.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// Connects and shakes hands; the instant is that of the connect() that succeeded.
pub(super) async fn connect(
    own: IpAddr,
    controllers: &[SocketAddr],
    server_name: &ServerName<'static>,
    tls: &Arc<ClientConfig>,
) -> Result<(TlsStream<TcpStream>, Instant), EndpointError> {
    let (stream, connecting_since) = connect_tcp(own, controllers)
        .await
        .map_err(|cause| EndpointError::Connect { controllers: controllers.to_vec(), cause })?;
    let connector = TlsConnector::from(Arc::clone(tls));
    let handshake = connector.connect(server_name.clone(), stream);
    let limit = HANDSHAKE_TIMEOUT;
    let stream = timeout(limit, handshake)
        .await
        .map_err(|_| EndpointError::TimedOut { awaited: "the TLS handshake", limit })?
        .map_err(EndpointError::Handshake)?;
    Ok((stream, connecting_since))
}

/// The chain with which the controller has shown that it may run experiments here.
pub(super) fn controllers_chain(
    stream: &TlsStream<TcpStream>,
    operators: &[PublicKey],
) -> Result<VerifiedChain, EndpointError> {
    let (_, connection) = stream.get_ref();
    let presented = connection.peer_certificates().unwrap_or_default();
    let ders = presented.iter().map(|certificate| certificate.as_ref());
    // The handshake has verified the same chain, but keeps only that it is good.
    let mode = TrustMode::EndpointAuthenticatesController;
    decode_chain(ders, mode)
        .and_then(|chain| verify_chain(&chain, operators, mode, now()))
        .map_err(EndpointError::Chain)
}

/// Tries all addresses in turn, again and again for a while.
async fn connect_tcp(own: IpAddr, controllers: &[SocketAddr]) -> io::Result<(TcpStream, Instant)> {
    let first_try = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        let connecting_since = Instant::now();
        let error = match connect_any(own, controllers, CONNECT_TIMEOUT).await {
            Ok(stream) => return Ok((stream, connecting_since)),
            Err(error) => error,
        };
        let may_pass = matches!(
            error.kind(),
            io::ErrorKind::ConnectionRefused
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::TimedOut
        );
        if !may_pass || first_try.elapsed() + pause > CONNECT_TIME_MAX {
            return Err(error);
        }
        sleep(pause).await;
        pause *= 2;
    }
}
