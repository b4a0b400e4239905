//! The sockets a mlet opens at the endpoint: one task each, which waits for send times, moves the
//! bytes and reports what happens (spec/protocol.md 1.3, 1.4).
//!
//! ```text
//! reporter   what a socket's task is told, and tells
//! table      states, buffers, what waits to be told          (pure)
//! schedule   what a socket has to do, by time
//! bind       a socket at its local address, or the status that says why not
//! tcp        the life of a connection
//! datagram   the life of a UDP or raw socket
//! ```
//!
//! Not here: requests and their answers, what the chain allows (`chain_limits`).
//!
//! Invariant: a task lives as long as its socket is open here, and that of a closed connection not longer
//! than [`LINGER_TIMEOUT`] beyond; [`Sockets`] dropped, all are closed.

mod datagram;
mod kernel_socket;
mod reporter;
mod schedule;
pub(super) mod table;
mod tcp;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use packetlab::message::{Open, Packet, Protocol, Socket, Status};
use packetlab::time::Ticks;
use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use super::chain_limits::{ChainLimits, SocketPlace};
use super::filter::Filter;
use super::machine::Machine;
use super::memory;
use crate::clock::now;
use kernel_socket::Capture;
use reporter::{NextCapture, Reporter, SharedTable, TaskMessage, locked};
use schedule::{Action, Order};
use table::{Checked, News, SocketNumber, SocketTable, State};

/// How long a closed connection may go on sending, and wait for its peer to close.
const LINGER_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that may do so at the same time, as many as there are socket numbers; a further one is cut.
const LINGERING_MAX: usize = 256;

/// The sockets of one session.
#[derive(Debug)]
pub(super) struct Sockets {
    machine: Arc<Machine>,
    shared: Arc<SharedTable>,
    tasks: HashMap<u8, Task>,
    lingering: JoinSet<()>,
}

/// The endpoint's memory as it is at the moment, for whoever may read it.
#[derive(Debug, Clone)]
pub(super) struct MemoryView {
    machine: Arc<Machine>,
    shared: Arc<SharedTable>,
}

impl MemoryView {
    /// What is at `address` now.
    pub(super) fn read(&self, address: u32, len: usize) -> Vec<u8> {
        memory::read(&self.shared.table(), &self.machine, now(), address, len)
    }
}

/// The task of an open socket.
#[derive(Debug)]
struct Task {
    instructions: mpsc::UnboundedSender<TaskMessage>,
    next_capture: NextCapture,
    life: Life,
}

/// A task that ends when this is dropped.
#[derive(Debug)]
struct Life(JoinHandle<()>);

impl Drop for Life {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Sockets {
    /// No sockets yet, on a machine as it shows itself to the mlet.
    pub(super) fn new(machine: Machine, limits: ChainLimits) -> Self {
        let shared = SharedTable {
            table: Mutex::new(SocketTable::new(limits)),
            news: Notify::new(),
            room: Notify::new(),
        };
        let (tasks, lingering) = (HashMap::new(), JoinSet::new());
        Self { machine: Arc::new(machine), shared: Arc::new(shared), tasks, lingering }
    }

    /// The sockets' states.
    pub(super) fn table(&self) -> MutexGuard<'_, SocketTable> {
        self.shared.table()
    }

    /// The endpoint's memory, with the state of the sockets.
    pub(super) fn memory(&self) -> MemoryView {
        MemoryView { machine: Arc::clone(&self.machine), shared: Arc::clone(&self.shared) }
    }

    /// What is to be done next for the sockets. May be abandoned before it is done.
    pub(super) async fn next(&self) -> News {
        loop {
            if let Some(news) = self.table().next() {
                self.shared.room.notify_waiters();
                return news;
            }
            self.shared.news.notified().await;
        }
    }

    /// What monitors said to an NDATA.
    pub(super) fn checked(&self, number: SocketNumber, checked: Checked) {
        self.table().checked(number, checked);
        self.shared.room.notify_waiters();
    }

    /// NOPEN. A connection is established later, and NSTAT tells.
    pub(super) fn open(&mut self, sktid: u8, open: &Open, buffer_len: u32) -> Result<(), Status> {
        let place = self.table().check_open(sktid, open)?;
        self.check_local(open)?;
        let own = |local: SocketAddr| self.machine.bound_to(local);
        let insert =
            |local, state| self.insert(open.socket(sktid), buffer_len, local, state, place);
        match *open {
            Open::TcpConnect { local, remote } => {
                let (tcp, local) = kernel_socket::tcp(own(local), false)?;
                let reporter = insert(local, State::Opening);
                self.run(reporter, |reporter, orders| tcp::connect(tcp, remote, reporter, orders));
            }
            Open::TcpListen { local } => {
                let (tcp, local) = kernel_socket::tcp(own(local), true)?;
                let listener = tcp.listen(1).map_err(|error| kernel_socket::tcp_status(&error))?;
                let reporter = insert(local, State::Opening);
                self.run(reporter, |reporter, orders| tcp::accept(listener, reporter, orders));
            }
            Open::Udp { local } => {
                let (udp, local) = kernel_socket::udp(own(local))?;
                let reporter = insert(local, State::Open);
                self.run(reporter, |reporter, orders| datagram::run_udp(udp, reporter, orders));
            }
            Open::Raw { local } => {
                let local = own(SocketAddr::new(local, 0));
                let raw = kernel_socket::raw(local).inspect_err(|status| {
                    if *status == Status::ESYSNOPERM {
                        self.table().log("raw sockets need CAP_NET_RAW, which this endpoint lacks");
                    }
                })?;
                let reporter = insert(local, State::Open);
                let local = local.ip();
                self.run(reporter, |reporter, orders| {
                    datagram::run_raw(raw, local, reporter, orders)
                });
            }
        }
        Ok(())
    }

    /// Whether the endpoint has such a local address, as far as memory tells: an address family without any is none,
    /// and a raw socket sends and sees packets of exported addresses only.
    fn check_local(&self, open: &Open) -> Result<(), Status> {
        let (local, is_raw) = match *open {
            Open::Raw { local } => (local, true),
            Open::Udp { local } | Open::TcpListen { local } | Open::TcpConnect { local, .. } => {
                (local.ip(), false)
            }
        };
        if local.is_ipv6() && !self.machine.has_ipv6() {
            return Err(Status::ESKTNOPRFAM);
        }
        let must_be_exported = is_raw || local.is_ipv6();
        if must_be_exported && !local.is_unspecified() && !self.machine.has(local) {
            return Err(Status::ESKTNOADDR);
        }
        Ok(())
    }

    /// NCLOSE. What was to be sent later is not. A connection still sends what is due, and lingers until its
    /// peer has read that; the local port of any other socket is free when this returns.
    pub(super) async fn close(&mut self, sktid: u8) -> Result<(), Status> {
        let lingers = self.table().remove(sktid)?;
        let Some(Task { instructions, mut life, .. }) = self.tasks.remove(&sktid) else {
            return Ok(());
        };
        while self.lingering.try_join_next().is_some() {}
        let may_linger = self.lingering.len() < LINGERING_MAX;
        if let Some(number) = lingers.filter(|_| may_linger) {
            // By this the task learns of it, or by its entry's absence if it waits for room.
            drop(instructions);
            self.shared.room.notify_waiters();
            let shared = Arc::clone(&self.shared);
            self.lingering.spawn(async move {
                let _ = timeout(LINGER_TIMEOUT, &mut life.0).await;
                drop(life);
                shared.table().forget(number);
            });
            return Ok(());
        }
        life.0.abort();
        // It ends at its next wait, in whatever way.
        let _ = (&mut life.0).await;
        if let Some(number) = lingers {
            self.table().forget(number);
        }
        Ok(())
    }

    /// Closes all sockets and waits, [`LINGER_TIMEOUT`] at most, for the connections that linger.
    pub(super) async fn close_all(&mut self) {
        for sktid in self.tasks.keys().copied().collect::<Vec<u8>>() {
            // It is open.
            let _ = self.close(sktid).await;
        }
        while self.lingering.join_next().await.is_some() {}
    }

    /// NSEND. It is sent at its time, and NTAG tells; a stream's after what was to be sent before.
    pub(super) fn send(
        &mut self,
        sktid: u8,
        time: Ticks,
        tag: u16,
        packet: &Packet<'_>,
    ) -> Result<(), Status> {
        let is_own = |address: IpAddr| self.machine.has(address);
        let remote = self.table().admit_send(sktid, time, now(), packet, is_own)?;
        let (Packet::Raw { data, .. } | Packet::Tcp { data, .. } | Packet::Udp { data, .. }) =
            *packet;
        let action = Action::Send { tag, remote, data: data.to_vec() };
        self.instruct(sktid, TaskMessage::Order(Order { time, action }))
    }

    /// NCTL FIN: shuts down the write side at its time, after what was ordered to be sent before, and after what
    /// is still ordered meanwhile, for an earlier time.
    pub(super) fn finish(&mut self, socket: Socket, time: Ticks) -> Result<(), Status> {
        self.table().admit_finish(socket, time)?;
        let order = Order { time, action: Action::Finish };
        self.instruct(socket.sktid, TaskMessage::Order(order))
    }

    /// MWRITE. A buffer may be larger after that.
    pub(super) fn write(&self, address: u32, data: &[u8]) -> Result<(), Status> {
        memory::write(&mut self.table(), address, data)?;
        self.shared.room.notify_waiters();
        Ok(())
    }

    /// NCAP: raw packets that the filter wants are received from now on until `end`. Other sockets
    /// receive without being asked, and cannot be asked.
    pub(super) fn capture(
        &mut self,
        socket: Socket,
        end: Ticks,
        filter: &[u8],
    ) -> Result<(), Status> {
        self.table().check(socket)?;
        if socket.protocol != Protocol::Raw {
            return Err(Status::ESKTNOPROTO);
        }
        let filter = Filter::decode(filter).map_err(|_| Status::ESKTBADFILT)?;
        let capture = Capture::open(filter, end)?;
        let task = self.tasks.get(&socket.sktid).ok_or(Status::ESKTNOTOPEN)?;
        match locked(&task.next_capture).replace(capture) {
            // The task knows already that there is one.
            Some(_) => Ok(()),
            None => self.instruct(socket.sktid, TaskMessage::Capture),
        }
    }

    fn insert(
        &self,
        socket: Socket,
        buffer_len: u32,
        local: SocketAddr,
        state: State,
        place: SocketPlace,
    ) -> Reporter {
        let number = self.table().insert(socket, buffer_len, local, state, place);
        let next_capture = NextCapture::default();
        Reporter { shared: Arc::clone(&self.shared), number, socket, next_capture }
    }

    fn run<F>(
        &mut self,
        reporter: Reporter,
        life: impl FnOnce(Reporter, mpsc::UnboundedReceiver<TaskMessage>) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let (instructions, receiver) = mpsc::unbounded_channel();
        let (sktid, next_capture) = (reporter.socket.sktid, Arc::clone(&reporter.next_capture));
        let life = Life(tokio::spawn(life(reporter, receiver)));
        self.tasks.insert(sktid, Task { instructions, next_capture, life });
    }

    fn instruct(&self, sktid: u8, instruction: TaskMessage) -> Result<(), Status> {
        let task = self.tasks.get(&sktid).ok_or(Status::ESKTNOTOPEN)?;
        task.instructions.send(instruction).map_err(|_| Status::ESKTNOTOPEN)
    }
}
