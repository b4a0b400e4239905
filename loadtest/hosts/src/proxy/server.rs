//! The sockets of a proxy: controllers that register connections, endpoints that are given one.
//!
//! Invariant: an endpoint is joined only with a connection that was registered under the very snikey
//! it asks for by that snikey's owner, and each connection serves one endpoint.

use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use packetlab::certificate::Certificate;
use packetlab::snikey::SniKey;
use rustls::ServerConfig;
use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use super::hello::{self, HelloError};
use super::limits::ProxyLimits;
use super::owner::{Owner, Signers};
use super::registration::{RegistrationError, set_up};
use super::splice::{Passed, splice};
use super::switchboard::{Bounds, Claim, Switchboard};
use crate::hosting::{
    ConnectionLog, Ending, Listening, MADE_ROOM, Place, Places, Service, Source, seconds, share,
    whole_hello,
};

/// A running proxy. Dropped, it ends at once.
#[derive(Debug)]
pub struct Proxy {
    service: Service,
    controllers: Vec<SocketAddr>,
    endpoints: Vec<SocketAddr>,
}

impl Proxy {
    /// Serves controllers and endpoints. Must be called within a runtime.
    pub fn start(
        controllers: Listening,
        endpoints: Listening,
        tls: Arc<ServerConfig>,
        signers: Signers,
        limits: ProxyLimits,
    ) -> Self {
        let percent = limits.server.per_source_percent;
        let places_of = |count: usize| Places::new(count, share(count, percent));
        let places = [places_of(limits.controllers_max), places_of(limits.endpoints_max)];
        let handshakes_max = limits.server.handshakes_max;
        let set_ups = || Places::for_handshakes(handshakes_max, share(handshakes_max, percent));
        let bounds = Bounds {
            per_snikey_max: limits.backlog_max,
            per_owner_max: match limits.backlog_per_key_max {
                0 => usize::MAX,
                max => max,
            },
            grace: limits.owner_grace,
        };
        let shared = Arc::new(ProxyShared {
            set_ups: set_ups(),
            hellos: set_ups(),
            limits,
            tls,
            signers,
            switchboard: Switchboard::new(bounds),
        });
        let mut proxy = Self {
            service: Service::new(),
            controllers: controllers.addresses(),
            endpoints: endpoints.addresses(),
        };
        let (for_controllers, ending, log) =
            (Arc::clone(&shared), proxy.service.ending(), proxy.service.log());
        proxy.service.serve(controllers, &places[0], "controllers", {
            move |stream, peer, place| {
                let log = log.of(peer);
                let serving = serve_controller(Arc::clone(&for_controllers), stream, log, place);
                until(ending.clone(), serving)
            }
        });
        let (ending, log) = (proxy.service.ending(), proxy.service.log());
        proxy.service.serve(endpoints, &places[1], "endpoints", {
            move |stream, peer, place| {
                let serving = serve_endpoint(Arc::clone(&shared), stream, log.of(peer), place);
                until(ending.clone(), serving)
            }
        });
        proxy
    }

    /// Where controllers register.
    pub fn controller_addresses(&self) -> &[SocketAddr] {
        &self.controllers
    }

    /// Where endpoints come.
    pub fn endpoint_addresses(&self) -> &[SocketAddr] {
        &self.endpoints
    }

    /// Closes all connections.
    pub async fn end(self) {
        self.service.end().await;
    }
}

/// What all connections share.
#[derive(Debug)]
struct ProxyShared {
    limits: ProxyLimits,
    tls: Arc<ServerConfig>,
    signers: Signers,
    switchboard: Arc<Switchboard<Call>>,
    /// Of controllers that have begun theirs.
    set_ups: Arc<Places>,
    /// Of endpoints that have begun theirs.
    hellos: Arc<Places>,
}

/// An endpoint that wants a controller.
#[derive(Debug)]
struct Call {
    stream: TcpStream,
    log: ConnectionLog,
    snikey: SniKey,
    /// All it has said so far.
    hello: Vec<u8>,
    /// When it is sent away.
    deadline: Instant,
    place: Place,
}

async fn until(mut ending: Ending, serving: impl Future<Output = ()>) {
    tokio::select! {
        () = ending.wait() => {}
        () = serving => {}
    }
}

async fn serve_controller(
    shared: Arc<ProxyShared>,
    mut stream: TcpStream,
    mut log: ConnectionLog,
    place: Place,
) {
    let (limits, peer) = (&shared.limits, log.peer());
    // Boxed, as is what follows the wait: the task of a connection that waits stays small.
    let setting_up = Box::pin(register(&shared, &mut stream, peer));
    let registered = tokio::select! {
        registered = timeout(limits.setup_timeout, setting_up) => registered,
        () = place.must_leave() => Ok(None),
    };
    let (claim, snikey) = match registered {
        Ok(Some(Ok(registered))) => registered,
        Ok(None) => {
            return tracing::debug!("controller {peer}: its set-up was slow, and others wait");
        }
        // Anybody can cause this, as often as they like.
        Ok(Some(Err(error @ RegistrationError::Tls(_)))) => {
            return tracing::debug!("controller {peer}: {error}");
        }
        Ok(Some(Err(error))) => return log.info(format_args!("controller {peer}: {error}")),
        Err(_) => {
            let limit = seconds(limits.setup_timeout);
            return log.info(format_args!("controller {peer}: not set up in {limit}"));
        }
    };
    place.settle();
    tracing::debug!("controller {peer} waits under {}", snikey.short());
    let mut registration = Registration { stream, log, claim };
    let waiting = wait_for_endpoint(&shared, &mut registration, place.must_leave()).await;
    if let Some(call) = waiting {
        // From here on it counts as a part of the endpoint's connection.
        drop(place);
        Box::pin(join(&shared, call, registration)).await;
    }
}

/// A connection that a controller has registered.
struct Registration {
    stream: TcpStream,
    log: ConnectionLog,
    claim: Claim<Call>,
}

/// Sets a connection up; `None` if it had to make room for others. One that says nothing, or half a
/// ClientHello, takes no place of the others' set-ups.
async fn register(
    shared: &ProxyShared,
    stream: &mut TcpStream,
    peer: SocketAddr,
) -> Option<Result<(Claim<Call>, SniKey), RegistrationError>> {
    if let Err(error) = whole_hello(stream, usize::MAX).await {
        return Some(Err(RegistrationError::Tls(error)));
    }
    let place = shared.set_ups.enter(Source::of(peer.ip())).await.ok()?;
    let admit = |snikey: SniKey, certificate: Option<&Certificate>| {
        let owner = Owner::of(certificate, shared.signers, peer.ip());
        let claim = shared.switchboard.claim(&snikey, owner, Instant::now());
        claim.map(|claim| (claim, snikey))
    };
    tokio::select! {
        set_up = set_up(stream, Arc::clone(&shared.tls), shared.limits.preamble_max, admit) => Some(set_up),
        () = place.must_leave() => None,
    }
}

/// Keeps the connection registered until an endpoint comes; `None` when it has ended before, or has to leave.
async fn wait_for_endpoint(
    shared: &Arc<ProxyShared>,
    Registration { stream, log, claim }: &mut Registration,
    must_leave: impl Future<Output = ()>,
) -> Option<Call> {
    let peer = log.peer();
    let mut must_leave = pin!(must_leave);
    loop {
        let waiting = claim.wait();
        let mut place = waiting
            .inspect_err(|reason| log.info(format_args!("controller {peer} is closed: {reason}")))
            .ok()?;
        let call = tokio::select! {
            call = place.wait() => Ok(call),
            () = heard_of(stream) => {
                tracing::debug!("controller {peer} has left the backlog");
                Err(place)
            }
            () = &mut must_leave => {
                log.info(format_args!("controller {peer} is closed: {MADE_ROOM}"));
                Err(place)
            }
        };
        match call {
            Ok(Some(call)) if is_silent(stream) => return Some(call),
            Ok(Some(call)) => {
                Box::pin(find_controller(shared, call)).await;
                return None;
            }
            // The endpoint left in this very moment, or the snikey has another owner.
            Ok(None) => {}
            Err(place) => {
                if let Some(call) = place.give_up() {
                    Box::pin(find_controller(shared, call)).await;
                }
                return None;
            }
        }
    }
}

/// Until the peer closes, or says something, which a waiting controller never does.
async fn heard_of(stream: &TcpStream) {
    loop {
        // An error shows in the next line as well.
        let _ = stream.readable().await;
        match stream.try_read(&mut [0]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ => return,
        }
    }
}

/// The peer has neither closed nor said anything.
fn is_silent(stream: &TcpStream) -> bool {
    peek(stream).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

/// The peer has closed.
fn has_left(stream: &TcpStream) -> bool {
    match peek(stream) {
        Ok(count) => count == 0,
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
    }
}

/// Asks the kernel itself: what the runtime knows of the socket may be older.
fn peek(stream: &TcpStream) -> io::Result<usize> {
    SockRef::from(stream).peek(&mut [MaybeUninit::uninit()])
}

async fn serve_endpoint(
    shared: Arc<ProxyShared>,
    mut stream: TcpStream,
    log: ConnectionLog,
    place: Place,
) {
    let (limits, peer) = (&shared.limits, log.peer());
    let leave = place.must_leave();
    let serving = async {
        let reading = greet(&shared, &mut stream, peer);
        let (snikey, hello) = match timeout(limits.hello_timeout, reading).await {
            Ok(Some(Ok(read))) => read,
            Ok(Some(Err(error))) => return tracing::debug!("endpoint {peer}: {error}"),
            Ok(None) => return tracing::debug!("endpoint {peer} is slow, and others wait"),
            Err(_) => return tracing::debug!("endpoint {peer}: no ClientHello in time"),
        };
        let deadline = Instant::now() + limits.wait_timeout;
        find_controller(&shared, Call { stream, log, snikey, hello, deadline, place }).await;
    };
    tokio::select! {
        () = serving => {}
        () = leave => tracing::debug!("endpoint {peer} had no session, and others wait"),
    }
}

/// Takes an endpoint's ClientHello; `None` if it had to make room for others. One that says nothing, or
/// a half of it, takes no place of the others.
async fn greet(
    shared: &ProxyShared,
    stream: &mut TcpStream,
    peer: SocketAddr,
) -> Option<Result<(SniKey, Vec<u8>), HelloError>> {
    if let Err(error) = whole_hello(stream, shared.limits.hello_max).await {
        return Some(Err(HelloError::Io(error)));
    }
    let place = shared.hellos.enter(Source::of(peer.ip())).await.ok()?;
    tokio::select! {
        read = hello::read(stream, shared.limits.hello_max) => Some(read),
        () = place.must_leave() => None,
    }
}

/// Hands an endpoint to a controller that waits for one; if there is none in time, closes it.
async fn find_controller(shared: &Arc<ProxyShared>, mut call: Call) {
    loop {
        let slot = match shared.switchboard.take_controller(&call.snikey) {
            Ok(slot) => Some(slot),
            Err(mut place) => match timeout_at(call.deadline, place.wait()).await {
                Ok(slot) => slot,
                Err(_) => place.give_up(),
            },
        };
        let peer = call.log.peer();
        let Some(slot) = slot else {
            if Instant::now() < call.deadline {
                continue;
            }
            let snikey = call.snikey.short();
            call.log.info(format_args!("endpoint {peer}: no controller waits under {snikey}"));
            return;
        };
        if has_left(&call.stream) {
            return tracing::debug!("endpoint {peer} has left");
        }
        match slot.send(call) {
            Ok(()) => return,
            // This controller has just left.
            Err(unsent) => call = unsent,
        }
    }
}

/// One session: replays what the endpoint has said, then passes on everything.
async fn join(shared: &ProxyShared, call: Call, registration: Registration) {
    let Call { stream: mut endpoint, log: mut endpoint_log, snikey, hello, place, .. } = call;
    let Registration { stream: mut controller, mut log, mut claim } = registration;
    let (endpoint_peer, peer, snikey) = (endpoint_log.peer(), log.peer(), snikey.short());
    claim.enter_session();
    place.settle();
    tracing::debug!("endpoint {endpoint_peer} is joined with controller {peer} of {snikey}");
    let started = Instant::now();
    if let Err(error) = controller.write_all(&hello).await {
        return log.info(format_args!("controller {peer} of {snikey} broke: {error}"));
    }
    let limit = shared.limits.half_closed_timeout;
    let (Passed { up, down }, ended) = tokio::select! {
        spliced = splice(&mut endpoint, &mut controller, limit) => spliced,
        () = place.must_leave() => return endpoint_log.info(format_args!(
            "endpoint {endpoint_peer} with controller {peer} of {snikey} is closed: {MADE_ROOM}"
        )),
    };
    let (up, seconds) = (up + hello.len() as u64, started.elapsed().as_secs_f64());
    let how = ended.map_or_else(|error| error.to_string(), |()| "closed".to_owned());
    endpoint_log.info(format_args!(
        "endpoint {endpoint_peer} with controller {peer} of {snikey}: {how} after {seconds:.3} s, \
         {up} bytes up, {down} down"
    ));
}
