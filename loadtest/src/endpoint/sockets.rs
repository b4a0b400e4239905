//! The sockets a mlet opens at the endpoint: one task each, which waits for send times, moves the
//! bytes and reports events as notifications (protocol.md 1.3, 1.4).
//!
//! Only TCP connections so far; the other kinds are answered with `ESKTNOPROTO`.
//!
//! Invariant: a task lives as long as its socket is open here; [`Sockets`] dropped, all are closed.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use engine::wire::message::{Message, Open, Packet, Socket, StateChange, Status};
use engine::wire::time::Ticks;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::now;

/// Notifications that wait for the controller; with more the sockets are no longer read (1.2).
const NOTIFICATIONS_MAX: usize = 100;
/// Bytes that one socket may hold back for later or for a slow peer; room for the largest NSEND.
const SEND_QUEUE_LEN: usize = 32 * 1024 * 1024;
/// What one waiting order costs beside its data.
const ORDER_LEN: usize = 64;
/// Data of one NDATA: with header and fields it fills one TLS record.
const DATA_LEN_MAX: usize = 16 * 1024 - 15;
/// Longest wait for a peer to accept.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// The open sockets of one session.
#[derive(Debug)]
pub(super) struct Sockets {
    /// Where sockets are bound to when the mlet names no local address.
    address: IpAddr,
    open: HashMap<u8, OpenSocket>,
    /// Tells sockets apart that had the same sktid one after the other.
    opened_count: u64,
    notifications: mpsc::Sender<Notification>,
}

/// Which of all the sockets that have been open under one sktid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SocketNumber {
    sktid: u8,
    number: u64,
}

/// Something to tell the controller.
#[derive(Debug)]
pub(super) struct Notification {
    /// The socket it is about.
    pub(super) socket: SocketNumber,
    /// The whole message.
    pub(super) message: Vec<u8>,
}

#[derive(Debug)]
struct OpenSocket {
    socket: Socket,
    number: u64,
    orders: mpsc::UnboundedSender<Order>,
    send_queue: Arc<Semaphore>,
    task: JoinHandle<()>,
}

/// What a socket's task has to do, in this order.
#[derive(Debug)]
enum Order {
    Send { time: Ticks, tag: u16, data: Vec<u8>, _room: OwnedSemaphorePermit },
    Finish { time: Ticks },
}

impl Sockets {
    /// No sockets yet, and where the notifications of all of them come out.
    pub(super) fn new(address: IpAddr) -> (Self, mpsc::Receiver<Notification>) {
        let (notifications, receiver) = mpsc::channel(NOTIFICATIONS_MAX);
        (Self { address, open: HashMap::new(), opened_count: 0, notifications }, receiver)
    }

    /// Whether this very socket is still open.
    pub(super) fn is_open(&self, socket: SocketNumber) -> bool {
        self.open.get(&socket.sktid).is_some_and(|open| open.number == socket.number)
    }

    /// NOPEN. A connection is established later, and NSTAT tells.
    pub(super) fn open(&mut self, sktid: u8, open: &Open) -> Result<(), Status> {
        if self.open.contains_key(&sktid) {
            return Err(Status::ESKTINUSE);
        }
        let Open::TcpConnect { local, remote } = *open else { return Err(Status::ESKTNOPROTO) };
        let tcp = self.bind(local)?;
        self.opened_count += 1;
        let number = self.opened_count;
        let socket = open.socket(sktid);
        let reporter = Reporter {
            socket,
            number: SocketNumber { sktid, number },
            notifications: self.notifications.clone(),
        };
        let (orders, queue) = mpsc::unbounded_channel();
        let task = tokio::spawn(run_tcp(tcp, remote, reporter, queue));
        let send_queue = Arc::new(Semaphore::new(SEND_QUEUE_LEN));
        self.open.insert(sktid, OpenSocket { socket, number, orders, send_queue, task });
        Ok(())
    }

    /// NCLOSE. What has not been sent by now is lost.
    pub(super) fn close(&mut self, sktid: u8) -> Result<(), Status> {
        self.open.remove(&sktid).map(drop).ok_or(Status::ESKTNOTOPEN)
    }

    /// NSEND. It is sent at its time, after what was to be sent before, and NTAG tells.
    pub(super) fn send(
        &mut self,
        sktid: u8,
        time: Ticks,
        tag: u16,
        packet: &Packet<'_>,
    ) -> Result<(), Status> {
        let open = self.find(packet.socket(sktid))?;
        let (Packet::Tcp { data, .. } | Packet::Raw { data, .. } | Packet::Udp { data, .. }) =
            *packet;
        let room = u32::try_from(data.len() + ORDER_LEN).map_err(|_| Status::ESYSNOBUFS)?;
        let room = Arc::clone(&open.send_queue)
            .try_acquire_many_owned(room)
            .map_err(|_| Status::ESYSNOBUFS)?;
        let order = Order::Send { time, tag, data: data.to_vec(), _room: room };
        open.orders.send(order).map_err(|_| Status::ESKTNOTOPEN)
    }

    /// NCTL FIN: shuts down the write side at its time, after what was to be sent before.
    pub(super) fn finish(&mut self, socket: Socket, time: Ticks) -> Result<(), Status> {
        let open = self.find(socket)?;
        open.orders.send(Order::Finish { time }).map_err(|_| Status::ESKTNOTOPEN)
    }

    /// Whether a request may name this socket.
    pub(super) fn check(&self, socket: Socket) -> Result<(), Status> {
        self.find(socket).map(|_| ())
    }

    /// The open socket of that family and protocol. One whose connection failed takes no orders.
    fn find(&self, socket: Socket) -> Result<&OpenSocket, Status> {
        let open = self.open.get(&socket.sktid).ok_or(Status::ESKTNOTOPEN)?;
        if open.socket != socket {
            return Err(Status::ESKTNOMATCH);
        }
        if open.orders.is_closed() {
            return Err(Status::ESKTNOTOPEN);
        }
        Ok(open)
    }

    /// A TCP socket at `local`; the unspecified address stands for the endpoint's own.
    fn bind(&self, local: SocketAddr) -> Result<TcpSocket, Status> {
        let socket = if local.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
        let socket = socket.map_err(|_| Status::ENORES)?;
        let own_fits = self.address.is_ipv4() == local.is_ipv4();
        let address =
            if local.ip().is_unspecified() && own_fits { self.address } else { local.ip() };
        match socket.bind(SocketAddr::new(address, local.port())) {
            Ok(()) => Ok(socket),
            Err(error) => Err(match error.kind() {
                io::ErrorKind::AddrNotAvailable => Status::ESKTNOADDR,
                io::ErrorKind::AddrInUse => Status::ETCPNOPORT,
                io::ErrorKind::PermissionDenied => Status::ESYSNOPERM,
                _ => Status::EUNKFAULT,
            }),
        }
    }
}

impl Drop for OpenSocket {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Writes the notifications of one socket.
#[derive(Debug)]
struct Reporter {
    socket: Socket,
    number: SocketNumber,
    notifications: mpsc::Sender<Notification>,
}

impl Reporter {
    async fn report(&self, message: Message<'_>) {
        let mut encoded = Vec::new();
        if message.encode(&mut encoded).is_ok() {
            let notification = Notification { socket: self.number, message: encoded };
            // The session may be over; then nobody is to be told.
            let _ = self.notifications.send(notification).await;
        }
    }

    async fn established(&self, remote: SocketAddr) {
        self.changed(StateChange::TcpEstablished { remote }).await;
    }

    async fn ended(&self, code: u8) {
        let Socket { family, protocol, .. } = self.socket;
        self.changed(StateChange::Code { family, protocol, code }).await;
    }

    async fn changed(&self, change: StateChange) {
        self.report(Message::Nstat { sktid: self.socket.sktid, time: now(), change }).await;
    }

    async fn sent(&self, tag: u16, status: Status) {
        self.report(Message::Ntag { sktid: self.socket.sktid, tag, time: now(), status }).await;
    }

    async fn received(&self, data: &[u8]) {
        let packet = Packet::Tcp { family: self.socket.family, data };
        self.report(Message::Ndata { sktid: self.socket.sktid, time: now(), packet }).await;
    }
}

/// The life of one TCP connection.
async fn run_tcp(
    socket: TcpSocket,
    remote: SocketAddr,
    reporter: Reporter,
    mut orders: mpsc::UnboundedReceiver<Order>,
) {
    let connecting = tokio::time::timeout(CONNECT_TIMEOUT, socket.connect(remote)).await;
    let connected = connecting.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    match connected {
        Ok(stream) => {
            // Send times mean the wire, not the moment Nagle lets go.
            let _ = stream.set_nodelay(true);
            reporter.established(remote).await;
            let (reader, writer) = TcpStream::into_split(stream);
            tokio::join!(receive(reader, &reporter), send(writer, &reporter, &mut orders));
        }
        Err(error) => {
            reporter.ended(change_code(&error)).await;
            orders.close();
            while let Some(order) = orders.recv().await {
                if let Order::Send { tag, .. } = order {
                    reporter.sent(tag, Status::EPKTNOTSENT).await;
                }
            }
        }
    }
}

/// Reports all data, then how the stream ended.
async fn receive(mut reader: OwnedReadHalf, reporter: &Reporter) {
    let code = loop {
        // Memory is taken only once there is something to read: most sockets wait most of the time.
        if let Err(error) = reader.readable().await {
            break change_code(&error);
        }
        let mut data = Vec::with_capacity(DATA_LEN_MAX);
        match (&mut reader).take(DATA_LEN_MAX as u64).read_buf(&mut data).await {
            Ok(0) => break StateChange::PEER_CLOSED,
            Ok(_) => reporter.received(&data).await,
            Err(error) => break change_code(&error),
        }
    };
    reporter.ended(code).await;
}

/// Carries out orders until the socket is closed.
async fn send(
    mut writer: OwnedWriteHalf,
    reporter: &Reporter,
    orders: &mut mpsc::UnboundedReceiver<Order>,
) {
    while let Some(order) = orders.recv().await {
        match order {
            Order::Send { time, tag, data, .. } => {
                wait_until(time).await;
                let status = match writer.write_all(&data).await {
                    Ok(()) => Status::SUCCESS,
                    Err(_) => Status::EPKTNOTSENT,
                };
                reporter.sent(tag, status).await;
            }
            Order::Finish { time } => {
                wait_until(time).await;
                // A connection that is gone has no write side to shut down.
                let _ = writer.shutdown().await;
            }
        }
    }
}

async fn wait_until(time: Ticks) {
    let wait = time.saturating_duration_since(now());
    if !wait.is_zero() {
        tokio::time::sleep(wait).await;
    }
}

fn change_code(error: &io::Error) -> u8 {
    match error.kind() {
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted => StateChange::RESET,
        io::ErrorKind::TimedOut => StateChange::TIMEOUT,
        _ => StateChange::UNKNOWN,
    }
}
