//! A scripted proxy: it registers backlog connections by itself, with a fault at a step if told so,
//! and hands them to the test, which plays the endpoint on them.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use packetlab::key::PrivateKey;
use rustls::ServerConfig;
use socket2::{Domain, Socket, Type};

use super::Home;
use super::endpoint::{Dial, End, Endpoint, SUCCESS};
use super::manager::PATIENCE;
use super::tls_peer::{TlsPeer, agent, reset};

pub const XREG: u8 = 0x80;
const PREAMBLE: &[u8; 6] = b"PKTLAB";

/// Where a set-up stands, as the proxy sees it (spec/reliability.md 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// P0, P1: accepted, nothing read.
    Accepted,
    /// P1: the ClientHello was read.
    Hello,
    /// P2: TLS is done, XREG is not read.
    Tls,
    /// P3: XREG was read.
    Registered,
    /// P4: RESULT was sent.
    Answered,
    /// P5: the preamble was sent.
    Preamble,
}

/// What goes wrong there.
#[derive(Debug, Clone)]
pub enum Fault {
    Fin,
    Reset,
    /// Nothing is sent or read any more; the connection stays open.
    Stall,
    /// These bytes, below TLS, and nothing more.
    Raw(Vec<u8>),
    /// This plaintext, and nothing more.
    Message(Vec<u8>),
}

/// A connection that waits for its endpoint.
#[derive(Debug)]
pub struct Registered {
    pub snikey: String,
    pub tcp: TcpStream,
}

/// A proxy's set-up port.
pub struct Proxy {
    pub address: SocketAddr,
    /// Keeps the port from others while nobody listens at it.
    _port: Socket,
    shared: Arc<Shared>,
    server: Option<JoinHandle<()>>,
}

/// A socket at this address, or at a free port, which several may have.
pub fn bound(address: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.bind(&address.into()).unwrap();
    socket
}

struct Shared {
    config: Arc<ServerConfig>,
    state: Mutex<State>,
    changed: Condvar,
    stop: AtomicBool,
    faults: AtomicUsize,
}

#[derive(Default)]
struct State {
    registered: VecDeque<Registered>,
    /// All there ever were, in order.
    order: Vec<String>,
    accepted: Vec<Instant>,
    /// How many set-ups fail, where and how.
    fault: Option<(Step, Fault, usize)>,
    stalled: Vec<TcpStream>,
    /// Sent in one piece with the RESULT instead of the preamble alone.
    after_result: Option<Vec<u8>>,
}

impl Proxy {
    /// One whose certificate this key has signed.
    pub fn start(signer: &PrivateKey, client_must_have_certificate: bool) -> Self {
        let shared = Shared {
            config: agent(signer, client_must_have_certificate),
            state: Mutex::default(),
            changed: Condvar::new(),
            stop: AtomicBool::new(false),
            faults: AtomicUsize::new(0),
        };
        let port = bound((Ipv4Addr::LOCALHOST, 0).into());
        let address = port.local_addr().unwrap().as_socket().unwrap();
        let mut proxy = Self { address, _port: port, shared: Arc::new(shared), server: None };
        proxy.come_back();
        proxy
    }

    /// Ends the process it would be: no connection is accepted, and those that wait are closed.
    pub fn go_down(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // Wakes the accept.
        drop(TcpStream::connect(self.address));
        if let Some(server) = self.server.take() {
            server.join().unwrap();
        }
        let mut state = self.shared.state.lock().unwrap();
        state.registered.clear();
        state.stalled.clear();
    }

    /// Listens again, at the same address.
    pub fn come_back(&mut self) {
        self.shared.stop.store(false, Ordering::SeqCst);
        let socket = bound(self.address);
        socket.listen(1024).unwrap();
        let listener = TcpListener::from(socket);
        let shared = Arc::clone(&self.shared);
        self.server = Some(thread::spawn(move || {
            loop {
                let (tcp, _) = listener.accept().unwrap();
                if shared.stop.load(Ordering::SeqCst) {
                    return;
                }
                shared.serve(tcp);
            }
        }));
    }

    /// The next so many set-ups fail here.
    pub fn fail(&self, step: Step, fault: Fault, times: usize) {
        self.shared.faults.store(0, Ordering::SeqCst);
        self.shared.state.lock().unwrap().fault = Some((step, fault, times));
    }

    /// How many failed so far.
    pub fn failed(&self) -> usize {
        self.shared.faults.load(Ordering::SeqCst)
    }

    /// From now on these bytes follow the RESULT in one segment.
    pub fn follow_result_with(&self, bytes: &[u8]) {
        self.shared.state.lock().unwrap().after_result = Some(bytes.to_vec());
    }

    /// When connections were accepted.
    pub fn accepted(&self) -> Vec<Instant> {
        self.shared.state.lock().unwrap().accepted.clone()
    }

    /// Snikeys as they were registered.
    pub fn order(&self) -> Vec<String> {
        self.shared.state.lock().unwrap().order.clone()
    }

    /// How many connections wait.
    pub fn waiting(&self) -> usize {
        self.shared.state.lock().unwrap().registered.len()
    }

    /// Closes all that wait.
    pub fn close_waiting(&self) {
        self.shared.state.lock().unwrap().registered.clear();
    }

    /// Waits until so many connections wait.
    #[track_caller]
    pub fn holds(&self, count: usize) {
        let state = self.shared.state.lock().unwrap();
        let few = |state: &mut State| state.registered.len() < count;
        let (state, waited) = self.shared.changed.wait_timeout_while(state, PATIENCE, few).unwrap();
        let found = state.registered.len();
        drop(state);
        assert!(!waited.timed_out(), "{found} of {count} connections wait");
    }

    /// A connection that waits for this snikey, as soon as there is one.
    #[track_caller]
    pub fn take(&self, snikey: &str) -> TcpStream {
        let state = self.shared.state.lock().unwrap();
        let position = |state: &State| {
            state.registered.iter().position(|registered| registered.snikey == snikey)
        };
        let (mut state, _) = self
            .shared
            .changed
            .wait_timeout_while(state, PATIENCE, |state| position(state).is_none())
            .unwrap();
        let found = position(&state);
        let taken = found.and_then(|index| state.registered.remove(index));
        drop(state);
        taken.expect("a connection for the snikey").tcp
    }

    /// An endpoint that comes through a connection of snikey `hello`.
    #[track_caller]
    pub fn endpoint(&self, dial: &Dial) -> Endpoint {
        dial.over(self.take("hello")).unwrap()
    }

    /// An endpoint that comes through, and agrees to everything until START.
    #[track_caller]
    pub fn session(&self, dial: &Dial) -> Endpoint {
        let mut endpoint = self.endpoint(dial);
        endpoint.handshake().unwrap();
        endpoint.set_up().unwrap();
        endpoint
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
    }
}

impl Shared {
    fn serve(&self, tcp: TcpStream) {
        self.state.lock().unwrap().accepted.push(Instant::now());
        if let Ok(Some(registered)) = self.set_up(tcp) {
            let mut state = self.state.lock().unwrap();
            state.order.push(registered.snikey.clone());
            state.registered.push_back(registered);
            drop(state);
            self.changed.notify_all();
        }
    }

    /// Sets one connection up; `None` if the fault that was asked for has happened.
    fn set_up(&self, tcp: TcpStream) -> Result<Option<Registered>, End> {
        let mut peer = TlsPeer::new(tcp, Arc::clone(&self.config));
        if self.strike(Step::Accepted, &mut peer) {
            return Ok(None);
        }
        if self.is_due(Step::Hello) {
            let mut header = [0; 5];
            peer.tcp.read_exact(&mut header)?;
            self.strike(Step::Hello, &mut peer);
            return Ok(None);
        }
        peer.handshake()?;
        assert_eq!(peer.server_name(), None, "no SNI to the proxy");
        if self.strike(Step::Tls, &mut peer) {
            return Ok(None);
        }
        let (message_type, payload) = peer.receive()?;
        assert_eq!(message_type, XREG);
        if self.strike(Step::Registered, &mut peer) {
            return Ok(None);
        }
        let snikey = String::from_utf8(payload).unwrap();
        let after_result = self.state.lock().unwrap().after_result.clone();
        match after_result {
            Some(after) => {
                let bytes = [&peer.seal(&SUCCESS)[..], &after].concat();
                peer.tcp.write_all(&bytes)?;
            }
            None => peer.send(&SUCCESS)?,
        }
        if self.strike(Step::Answered, &mut peer) {
            return Ok(None);
        }
        match peer.receive() {
            // TLS ends before anything raw is sent.
            Err(End::CloseNotify) => {}
            // The manager has ended.
            Err(end @ (End::Fin | End::Reset)) => return Err(end),
            other => panic!("{other:?} instead of close_notify"),
        }
        if self.state.lock().unwrap().after_result.is_none() {
            let bytes = [&peer.close_notify()[..], PREAMBLE].concat();
            peer.tcp.write_all(&bytes)?;
        }
        if self.strike(Step::Preamble, &mut peer) {
            return Ok(None);
        }
        let mut preamble = [0; 6];
        peer.tcp.read_exact(&mut preamble)?;
        assert_eq!(&preamble, PREAMBLE);
        Ok(Some(Registered { snikey, tcp: peer.tcp }))
    }

    fn is_due(&self, step: Step) -> bool {
        let state = self.state.lock().unwrap();
        state.fault.as_ref().is_some_and(|(at, _, left)| *at == step && *left > 0)
    }

    /// Does what is to go wrong at this step, if anything is.
    fn strike(&self, step: Step, peer: &mut TlsPeer) -> bool {
        if !self.is_due(step) {
            return false;
        }
        let mut state = self.state.lock().unwrap();
        let Some((_, fault, left)) = &mut state.fault else { return false };
        *left -= 1;
        let fault = fault.clone();
        let tcp = peer.tcp.try_clone().unwrap();
        match fault {
            Fault::Fin => {}
            Fault::Reset => reset(tcp),
            Fault::Stall => state.stalled.push(tcp),
            Fault::Raw(bytes) => {
                // The manager may have closed before all is taken.
                let _ = peer.tcp.write_all(&bytes);
                state.stalled.push(tcp);
            }
            Fault::Message(bytes) => {
                let record = peer.seal(&bytes);
                peer.tcp.write_all(&record).unwrap();
                state.stalled.push(tcp);
            }
        }
        drop(state);
        self.faults.fetch_add(1, Ordering::SeqCst);
        true
    }
}

impl Home {
    /// The config of a home whose one experiment is reached through a proxy.
    pub fn behind_proxy(&self, more: &str) -> String {
        format!("{}EnableProxyMode 1\nBacklogConnAgentCertPath agent.cert\n{more}\n", self.least())
    }
}
