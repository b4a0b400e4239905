//! TLS between an endpoint in memory and the controller's side of its connection, handshake done.
//!
//! Not here: sessions, which begin in the same way and go on from there (`engine`).

use packetlab::tls::{Hello, ServerConfig, ServerStream};
use std::sync::Arc;

use crate::credentials::{NOW, SNIKEY, endpoint_config, experiments};
use crate::endpoint::Endpoint;

/// More than one flight of a handshake has.
const OUTPUT_LEN_MAX: usize = 16 * 1024;

/// The controller's side of TLS.
///
/// # Panics
/// Never: there is such an experiment.
#[must_use]
pub fn controller_config() -> Arc<ServerConfig> {
    let experiments = experiments();
    let id = experiments.choose(Some(SNIKEY)).expect("the experiment");
    Arc::clone(&experiments.experiment(id).tls)
}

/// Both sides of a connection.
///
/// # Panics
/// Never: they understand one another.
#[must_use]
pub fn connected() -> (Endpoint, ServerStream) {
    let mut endpoint = Endpoint::new(endpoint_config());
    let mut bytes = Vec::new();
    endpoint.send(&mut bytes);
    let client_hello = Hello::default().receive(&mut &bytes[..]).ok().flatten();
    let accepted = client_hello.and_then(|hello| hello.accept(controller_config()).ok());
    let mut stream = accepted.expect("a whole ClientHello that fits");
    while stream.is_handshaking() {
        bytes.resize(OUTPUT_LEN_MAX, 0);
        let len = stream.write_output(&mut bytes);
        endpoint.receive(&bytes[..len]);
        bytes.clear();
        endpoint.send(&mut bytes);
        let mut input = &bytes[..];
        while !input.is_empty() {
            stream.receive(&mut input, NOW).expect("what an endpoint sends");
        }
    }
    (endpoint, stream)
}
