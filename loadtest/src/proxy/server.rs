//! The sockets of a proxy: controllers that register connections, endpoints that are given one.
//!
//! Invariant: an endpoint is joined only with a connection that was registered under the very snikey
//! it asks for, and each connection serves one endpoint.

use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::sync::Arc;

use engine::wire::snikey::SniKey;
use rustls::ServerConfig;
use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use super::hello;
use super::limits::Limits;
use super::setup::{SetupError, set_up};
use super::splice::{Passed, splice};
use super::switchboard::{BacklogFull, Switchboard};
use crate::hosting::{Ending, Listening, Service};

/// A running proxy. Dropped, it ends at once.
#[derive(Debug)]
pub(crate) struct Proxy {
    service: Service,
    controllers: Vec<SocketAddr>,
    endpoints: Vec<SocketAddr>,
}

impl Proxy {
    /// Serves controllers and endpoints. Must be called within a runtime.
    pub(crate) fn start(
        controllers: Listening,
        endpoints: Listening,
        tls: Arc<ServerConfig>,
        limits: Limits,
    ) -> Self {
        let controllers_room = Arc::new(Semaphore::new(limits.controllers_max));
        let endpoints_room = Arc::new(Semaphore::new(limits.endpoints_max));
        let shared = Arc::new(Shared { limits, tls, switchboard: Switchboard::new() });
        let mut proxy = Self {
            service: Service::new(),
            controllers: controllers.addresses(),
            endpoints: endpoints.addresses(),
        };
        let (for_controllers, ending) = (Arc::clone(&shared), proxy.service.ending());
        proxy.service.serve(controllers, &controllers_room, "controllers", {
            move |stream, peer, permit| {
                let serving = serve_controller(Arc::clone(&for_controllers), stream, peer, permit);
                until(ending.clone(), serving)
            }
        });
        let ending = proxy.service.ending();
        proxy.service.serve(endpoints, &endpoints_room, "endpoints", {
            move |stream, peer, permit| {
                let serving = serve_endpoint(Arc::clone(&shared), stream, peer, permit);
                until(ending.clone(), serving)
            }
        });
        proxy
    }

    /// Where controllers register.
    pub(crate) fn controller_addresses(&self) -> &[SocketAddr] {
        &self.controllers
    }

    /// Where endpoints come.
    pub(crate) fn endpoint_addresses(&self) -> &[SocketAddr] {
        &self.endpoints
    }

    /// Closes all connections.
    pub(crate) async fn end(self) {
        self.service.end().await;
    }
}

/// What all connections share.
#[derive(Debug)]
struct Shared {
    limits: Limits,
    tls: Arc<ServerConfig>,
    switchboard: Arc<Switchboard<Call>>,
}

/// An endpoint that wants a controller.
#[derive(Debug)]
struct Call {
    stream: TcpStream,
    peer: SocketAddr,
    snikey: SniKey,
    /// All it has said so far.
    hello: Vec<u8>,
    /// When it is sent away.
    deadline: Instant,
    _permit: OwnedSemaphorePermit,
}

async fn until(mut ending: Ending, serving: impl Future<Output = ()>) {
    tokio::select! {
        () = ending.wait() => {}
        () = serving => {}
    }
}

async fn serve_controller(
    shared: Arc<Shared>,
    mut stream: TcpStream,
    peer: SocketAddr,
    permit: OwnedSemaphorePermit,
) {
    let limits = &shared.limits;
    let admit = |snikey: &SniKey| match shared.switchboard.waiting(snikey) < limits.backlog_max {
        true => Ok(()),
        false => Err(BacklogFull),
    };
    // Boxed, as is what follows the wait: the task of a connection that waits stays small.
    let tls = Arc::clone(&shared.tls);
    let setting_up = Box::pin(set_up(&mut stream, tls, limits.preamble_max, admit));
    let snikey = match timeout(limits.setup_timeout, setting_up).await {
        Ok(Ok(snikey)) => snikey,
        // Anybody can cause this, as often as they like.
        Ok(Err(error @ SetupError::Tls(_))) => {
            return tracing::debug!("controller {peer}: {error}");
        }
        Ok(Err(error)) => return tracing::info!("controller {peer}: {error}"),
        Err(_) => {
            return tracing::info!("controller {peer}: not set up in {:?}", limits.setup_timeout);
        }
    };
    tracing::debug!("controller {peer} waits under {snikey}");
    if let Some(call) = wait_for_endpoint(&shared, &stream, peer, &snikey).await {
        // From here on it counts as a part of the endpoint's connection.
        drop(permit);
        Box::pin(join(&shared, call, stream, peer)).await;
    }
}

/// Keeps the connection registered until an endpoint comes; `None` when it has ended before.
async fn wait_for_endpoint(
    shared: &Arc<Shared>,
    stream: &TcpStream,
    peer: SocketAddr,
    snikey: &SniKey,
) -> Option<Call> {
    loop {
        let added = shared.switchboard.add_controller(snikey, shared.limits.backlog_max);
        let Ok(mut place) = added.inspect_err(|full| tracing::info!("controller {peer}: {full}"))
        else {
            return None;
        };
        let call = tokio::select! {
            call = place.wait() => call,
            () = heard_of(stream) => {
                tracing::debug!("controller {peer} has left the backlog of {snikey}");
                if let Some(call) = place.give_up() {
                    Box::pin(find_controller(shared, call)).await;
                }
                return None;
            }
        };
        match call {
            Some(call) if is_silent(stream) => return Some(call),
            Some(call) => {
                Box::pin(find_controller(shared, call)).await;
                return None;
            }
            // The endpoint left in this very moment.
            None => {}
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
    shared: Arc<Shared>,
    mut stream: TcpStream,
    peer: SocketAddr,
    permit: OwnedSemaphorePermit,
) {
    let limits = &shared.limits;
    let reading = hello::read(&mut stream, limits.hello_max);
    let (snikey, hello) = match timeout(limits.hello_timeout, reading).await {
        Ok(Ok(read)) => read,
        Ok(Err(error)) => return tracing::debug!("endpoint {peer}: {error}"),
        Err(_) => return tracing::debug!("endpoint {peer}: no ClientHello in time"),
    };
    let deadline = Instant::now() + limits.wait_timeout;
    find_controller(&shared, Call { stream, peer, snikey, hello, deadline, _permit: permit }).await;
}

/// Hands an endpoint to a controller that waits for one; if there is none in time, closes it.
async fn find_controller(shared: &Arc<Shared>, mut call: Call) {
    loop {
        let slot = match shared.switchboard.take_controller(&call.snikey) {
            Ok(slot) => Some(slot),
            Err(mut place) => match timeout_at(call.deadline, place.wait()).await {
                Ok(slot) => slot,
                Err(_) => place.give_up(),
            },
        };
        let Some(slot) = slot else {
            if Instant::now() < call.deadline {
                continue;
            }
            return tracing::info!(
                "endpoint {}: no controller waits under {}",
                call.peer,
                call.snikey
            );
        };
        if has_left(&call.stream) {
            return tracing::debug!("endpoint {} has left", call.peer);
        }
        match slot.send(call) {
            Ok(()) => return,
            // This controller has just left.
            Err(unsent) => call = unsent,
        }
    }
}

/// One session: replays what the endpoint has said, then passes on everything.
async fn join(shared: &Shared, call: Call, mut controller: TcpStream, peer: SocketAddr) {
    let Call { stream: mut endpoint, peer: endpoint_peer, snikey, hello, _permit, .. } = call;
    tracing::debug!("endpoint {endpoint_peer} is joined with controller {peer} of {snikey}");
    let started = Instant::now();
    if let Err(error) = controller.write_all(&hello).await {
        return tracing::info!("controller {peer} of {snikey} broke: {error}");
    }
    let limit = shared.limits.half_closed_timeout;
    let (Passed { up, down }, ended) = splice(&mut endpoint, &mut controller, limit).await;
    let (up, seconds) = (up + hello.len() as u64, started.elapsed().as_secs_f64());
    let how = ended.map_or_else(|error| error.to_string(), |()| "closed".to_owned());
    tracing::info!(
        "endpoint {endpoint_peer} with controller {peer} of {snikey}: {how} after {seconds:.3} s, \
         {up} bytes up, {down} down"
    );
}
