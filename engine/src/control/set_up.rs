//! One connection on its way to the backlog: made, registered at the proxy, and ready for its endpoint.
//!
//! Not here: what is said on it (`proto/backlog`), and which are begun when (`backlog.rs`).

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::clock::{now, wall};
use super::peer::{Peer, PeerError, Stop};
use crate::driver::Backend;
use crate::mailbox::{BacklogConnection, Registration};
use crate::proto::backlog::{Failure, SetUp, SetUpError, SetUpStep};
use packetlab::tls::{ClientConfig, SetupError};

/// What all set-ups at a proxy share.
pub(super) struct ProxySide {
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) name: String,
    pub(super) tls: Arc<ClientConfig>,
    /// Of each step.
    pub(super) step_timeout: Duration,
    pub(super) backend: Backend,
}

/// How a set-up ended.
pub(super) struct SetUpEnd {
    /// Where it was to be registered.
    pub(super) registration: Registration,
    pub(super) result: Result<BacklogConnection, SetUpFailure>,
}

/// Why a set-up failed, and where.
#[derive(Debug)]
pub(super) struct SetUpFailure {
    step: SetUpStep,
    cause: Cause,
}

#[derive(Debug)]
enum Cause {
    Peer(PeerError),
    Protocol(SetUpError),
    Local(SetupError),
}

impl fmt::Display for SetUpFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Cause::Peer(PeerError::Connect(..)) => {}
            _ => write!(f, "{}: ", self.step)?,
        }
        match &self.cause {
            Cause::Peer(error) => error.fmt(f),
            Cause::Protocol(error) => error.fmt(f),
            Cause::Local(error) => error.fmt(f),
        }
    }
}

impl SetUpFailure {
    /// What that says about the proxy.
    pub(super) fn kind(&self) -> Failure {
        match &self.cause {
            Cause::Peer(_) | Cause::Protocol(SetUpError::Closed) => Failure::Gone,
            Cause::Protocol(_) | Cause::Local(_) => Failure::Refused,
        }
    }
}

impl ProxySide {
    /// Sets up one connection that is registered so, as far as the wait for its endpoint.
    pub(super) async fn set_up(
        &self,
        registration: &Registration,
        stop: &Stop,
    ) -> Result<BacklogConnection, SetUpFailure> {
        let connected = Peer::connect(&self.addresses, self.step_timeout, self.backend, stop).await;
        let mut peer = connected.map_err(|error| SetUpFailure {
            step: SetUpStep::Connect,
            cause: Cause::Peer(error),
        })?;
        let local = |error| SetUpFailure { step: SetUpStep::Handshake, cause: Cause::Local(error) };
        let mut set_up = SetUp::new(Arc::clone(&self.tls), &registration.snikey).map_err(local)?;
        let (mut last, mut deadline) = (SetUpStep::Connect, now());
        while let Some(step) = set_up.step() {
            if step != last {
                (last, deadline) = (step, now() + self.step_timeout);
            }
            if let Err(cause) = take_step(&mut peer, &mut set_up, deadline).await {
                peer.close(set_up.take_output()).await;
                return Err(SetUpFailure { step, cause });
            }
        }
        let address = peer.address();
        Ok(BacklogConnection {
            socket: peer.into_socket(),
            peer: address,
            registration: registration.clone(),
            received: set_up.into_endpoint_bytes(),
        })
    }
}

/// Sends what is to be sent, else receives.
async fn take_step(peer: &mut Peer, set_up: &mut SetUp, deadline: Instant) -> Result<(), Cause> {
    let output = set_up.take_output();
    if !output.is_empty() {
        peer.write(output, deadline).await.map_err(Cause::Peer)?;
        set_up.handle_sent();
        return Ok(());
    }
    match peer.read(deadline).await.map_err(Cause::Peer)? {
        [] => Err(Cause::Protocol(SetUpError::Closed)),
        bytes => set_up.handle_bytes(bytes, wall()).map_err(Cause::Protocol),
    }
}
