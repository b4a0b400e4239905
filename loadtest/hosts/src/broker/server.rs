//! The sockets of a broker.
//!
//! Not here: what is said on a connection (`conversation`).

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use packetlab::certificate::Certificate;
use packetlab::key::PublicKey;
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::conversation::{Conversation, Peer, Stream};
use super::failure::Failure;
use super::limits::BrokerLimits;
use super::role::Role;
use super::shared::BrokerShared;
use crate::hosting::{
    ConnectionLog, Ending, HELD_FOR, Listening, Memory, Place, Places, Service, Source,
    WholeRecords, share, whole_hello,
};

/// A running broker. Dropped, it ends at once.
#[derive(Debug)]
pub struct Broker {
    service: Service,
    publish: Vec<SocketAddr>,
    subscribe: Vec<SocketAddr>,
}

impl Broker {
    /// Serves publishers and subscribers. Must be called within a runtime.
    pub fn start(
        publish: Listening,
        subscribe: Listening,
        tls: Arc<ServerConfig>,
        limits: BrokerLimits,
    ) -> Self {
        let mut broker = Self {
            service: Service::new(),
            publish: publish.addresses(),
            subscribe: subscribe.addresses(),
        };
        let percent = limits.server.per_source_percent;
        let places_of = |count: usize| Places::new(count, share(count, percent));
        // Subscribers are many; they must not take the places of publishers.
        let places = [places_of(limits.publishers_max), places_of(limits.subscribers_max)];
        let shared = Arc::new(BrokerShared {
            handshakes: Places::for_handshakes(
                limits.server.handshakes_max,
                share(limits.server.handshakes_max, percent),
            ),
            memory: Memory::new(limits.memory_max, percent),
            limits,
            tls: TlsAcceptor::from(tls),
            board: Mutex::default(),
            keys: Arc::default(),
        });
        let log = broker.service.log();
        let ports = [
            (publish, Role::Publisher, "publishers"),
            (subscribe, Role::Subscriber, "subscribers"),
        ];
        for ((sockets, role, whom), places) in ports.into_iter().zip(places) {
            let (shared, ending, log) =
                (Arc::clone(&shared), broker.service.ending(), Arc::clone(&log));
            let serve = move |stream, peer, place| {
                serve(Arc::clone(&shared), role, stream, log.of(peer), ending.clone(), place)
            };
            broker.service.serve(sockets, &places, whom, serve);
        }
        broker
    }

    /// Where publishers come.
    pub fn publish_addresses(&self) -> &[SocketAddr] {
        &self.publish
    }

    /// Where subscribers come.
    pub fn subscribe_addresses(&self) -> &[SocketAddr] {
        &self.subscribe
    }

    /// Closes all connections.
    pub async fn end(self) {
        self.service.end().await;
    }
}

async fn serve(
    shared: Arc<BrokerShared>,
    role: Role,
    stream: TcpStream,
    mut log: ConnectionLog,
    mut ending: Ending,
    place: Place,
) {
    let peer = log.peer();
    match converse(shared, role, stream, &mut log, &mut ending, &place).await {
        Ok(()) => tracing::debug!("{peer} has left"),
        // It is no fault, or, before the handshake is over, one that anybody can cause as often as they like.
        Err(failure @ (Failure::Handshake(_) | Failure::Evicted | Failure::Left)) => {
            tracing::debug!("{peer}: {failure}");
        }
        Err(failure) => log.info(format_args!("{peer} is disconnected: {failure}")),
    }
}

async fn converse(
    shared: Arc<BrokerShared>,
    role: Role,
    stream: TcpStream,
    log: &mut ConnectionLog,
    ending: &mut Ending,
    place: &Place,
) -> Result<(), Failure> {
    let source = Source::of(log.peer().ip());
    let limit = shared.limits.handshake_timeout;
    let stream = tokio::select! {
        () = ending.wait() => return Ok(()),
        () = place.must_leave() => return Err(Failure::Evicted),
        // Boxed, so that it costs nothing once it is over.
        accepted = timeout(limit, Box::pin(accept(&shared, stream, source))) => accepted
            .map_err(|_| Failure::Handshake(io::ErrorKind::TimedOut.into()))??,
    };
    let key = client_key(&stream).ok_or(Failure::NoIdentity)?;
    tracing::debug!("{} has the key {}", log.peer(), key.key_id().short());
    let max = shared.limits.connections_per_key_max;
    let key_use = shared.keys.enter(key.key_id(), source, &shared.limits, Instant::now());
    let Some(key_use) = key_use else {
        // Not at once, or it would be here again at once; but it keeps nobody else from a place.
        tokio::select! {
            () = ending.wait() => {}
            () = place.must_leave() => {}
            () = sleep(HELD_FOR) => {}
        }
        return Err(Failure::TooManyOfKey { max });
    };
    let peer = Peer { role, key, key_use, source, place };
    Conversation::new(shared, stream, peer, log).run(ending).await
}

/// Shakes hands. A client that says nothing, or half a ClientHello, takes no place of the others' handshakes.
async fn accept(
    shared: &BrokerShared,
    stream: TcpStream,
    source: Source,
) -> Result<Stream, Failure> {
    whole_hello(&stream, usize::MAX).await.map_err(Failure::Handshake)?;
    let Ok(place) = shared.handshakes.enter(source).await else { return Err(Failure::Evicted) };
    let stream = WholeRecords::new(stream, shared.limits.message_timeout);
    let mut stream = tokio::select! {
        accepted = shared.tls.accept(stream) => accepted.map_err(Failure::Handshake)?,
        () = place.must_leave() => return Err(Failure::Evicted),
    };
    stream.get_mut().0.has_shaken_hands();
    Ok(stream)
}

/// The key of the client's verified agent certificate.
fn client_key(stream: &Stream) -> Option<PublicKey> {
    let leaf = stream.get_ref().1.peer_certificates()?.first()?;
    Certificate::from_der(leaf).ok().map(|leaf| leaf.subject_key)
}
