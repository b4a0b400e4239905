//! The open sockets of one session: their states, their receive buffers and what waits to be told
//! about them (protocol.md 1.3, 1.4, 1.12). No socket, no clock: time is an argument.
//!
//! A socket's data waits in its receive buffer, which has the size that NOPEN asked for. Datagrams that
//! do not fit are dropped and counted, and one NDROP tells of all of them once the data before them is
//! gone; a stream is not read while its buffer is full. Notifications that the mlet holds back by mask
//! wait where they are and the others overtake them.
//!
//! Invariant: nothing is told about a socket after its NCLOSE; a late report finds no socket of its
//! number. Memory is bounded by the buffers that NOPEN reserved, [`UNITS_MAX`] packets and as many
//! events each, and [`SEND_QUEUE_LEN`], in which closed connections that still send have their share.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::ops::Bound;

use engine::wire::message::{Family, Message, Open, Packet, Protocol, Socket, StateChange, Status};
use engine::wire::time::Ticks;

use super::super::limits::Limits;

/// All receive buffers together, in bytes.
pub(crate) const BUFFERS_LEN_MAX: u32 = 64 << 20;
/// Packets of one socket that wait, and as many other notifications: beyond, packets are dropped however
/// small they are, and of the others, which then are held back by mask, the oldest are forgotten.
const UNITS_MAX: usize = 0x1000;
/// Notifications other than data that may wait before requests have to (protocol.md 1.2).
const BACKLOG_MAX: usize = 100;
/// Bytes of all sockets that wait to be sent; room for the largest NSEND.
const SEND_QUEUE_LEN: usize = 32 << 20;
/// What one waiting order costs beside its data.
const ORDER_LEN: usize = 64;

/// Bits of a socket's mask: notifications that the mlet holds back (1.12).
mod hold_back {
    pub(super) const NTAG: u16 = 0x02;
    pub(super) const NSTAT: u16 = 0x04;
    pub(super) const NDATA: u16 = 0x08;
    pub(super) const NDROP: u16 = 0x10;
}

/// State of a socket, by its number in memory (1.12).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i8)]
pub(crate) enum State {
    /// A connection is being made, or waited for.
    Opening = 1,
    /// It can send and receive.
    Open = 2,
    /// The peer has closed its side.
    PeerClosed = 3,
    /// We have closed our side.
    WriteClosed = 4,
    /// Both sides are closed.
    Ended = 5,
    /// The peer refused.
    Refused = -1,
    /// The connection was reset.
    Reset = -2,
    /// The peer did not answer.
    TimedOut = -3,
    /// There is no way to the peer.
    Unreachable = -4,
    /// Something else went wrong.
    Unknown = -128,
}

impl State {
    /// Whether a send can still succeed.
    fn may_send(self) -> bool {
        matches!(self, Self::Opening | Self::Open | Self::PeerClosed)
    }

    fn is_error(self) -> bool {
        (self as i8) < 0
    }
}

/// Which of all the sockets that have been open under one sktid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SocketNumber {
    /// The controller's number.
    pub(crate) sktid: u8,
    number: u64,
}

/// What a mlet may write to in a socket's memory. It is there before the socket, so that notifications
/// can be held back from the first on, and goes with NCLOSE.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Controls {
    /// Notifications to hold back.
    pub(crate) mask: u16,
    /// Of no meaning to the endpoint.
    pub(crate) bytes: [u8; 128],
}

impl Default for Controls {
    fn default() -> Self {
        Self { mask: 0, bytes: [0; 128] }
    }
}

/// One open socket.
#[derive(Debug)]
pub(crate) struct Entry {
    number: u64,
    /// Its name in messages.
    pub(crate) socket: Socket,
    /// Where it stands.
    pub(crate) state: State,
    /// Where it is bound.
    pub(crate) local: SocketAddr,
    /// Its peer, if it has one.
    pub(crate) remote: Option<SocketAddr>,
    /// Size of its receive buffer.
    pub(crate) buffer_len: u32,
    /// How much of it is in use.
    pub(crate) used: u32,
    /// Bytes and packets dropped since it was opened.
    pub(crate) dropped: (u32, u32),
    /// The latest NSEND that failed: why, and its tag.
    pub(crate) send_error: Option<(Status, u16)>,
    /// The write side was closed, or will be.
    finishing: bool,
    send_queue_len: usize,
    waiting: VecDeque<Waiting>,
    /// How many of `waiting` are no NDATA.
    events: usize,
    untold_drops: Option<Drops>,
}

/// A notification that waits.
#[derive(Debug)]
struct Waiting {
    hold_back: u16,
    /// What it takes of the receive buffer.
    data_len: u32,
    message: Vec<u8>,
}

/// Packets dropped since the last NDROP.
#[derive(Debug, Clone, Copy)]
struct Drops {
    first: Ticks,
    last: Ticks,
    units: u32,
    bytes: u32,
}

/// All sockets of a session.
#[derive(Debug, Default)]
pub(crate) struct Table {
    sockets: BTreeMap<u8, Entry>,
    /// What waits to be sent by connections that linger, by their numbers.
    lingering: HashMap<u64, usize>,
    controls: HashMap<u8, Controls>,
    send_times: HashMap<u16, Ticks>,
    limits: Limits,
    log: VecDeque<Vec<u8>>,
    opened_count: u64,
    last_served: u8,
}

impl Table {
    /// No sockets yet.
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// What the chain allows.
    pub(crate) fn limits(&mut self) -> &mut Limits {
        &mut self.limits
    }

    /// Whether such a socket may be opened.
    ///
    /// # Errors
    /// The number is in use, the chain does not allow it, or the buffers are used up.
    pub(crate) fn check_open(&self, sktid: u8, open: &Open, buffer_len: u32) -> Result<(), Status> {
        if self.sockets.contains_key(&sktid) {
            return Err(Status::ESKTINUSE);
        }
        let denied = !self.limits.allows_socket(self.sockets.len())
            || matches!(open, Open::TcpConnect { remote, .. }
                if !self.limits.allows_destination(remote.ip()));
        if denied {
            return Err(Status::ESKTOPNDENY);
        }
        if buffer_len > BUFFERS_LEN_MAX - self.buffers_len() {
            return Err(Status::ESYSNOBUFS);
        }
        Ok(())
    }

    /// Takes in a socket that was opened.
    pub(crate) fn insert(
        &mut self,
        socket: Socket,
        buffer_len: u32,
        local: SocketAddr,
        state: State,
    ) -> SocketNumber {
        self.opened_count += 1;
        let number = self.opened_count;
        let entry = Entry {
            number,
            socket,
            state,
            local,
            remote: None,
            buffer_len,
            used: 0,
            dropped: (0, 0),
            send_error: None,
            finishing: false,
            send_queue_len: 0,
            waiting: VecDeque::new(),
            events: 0,
            untold_drops: None,
        };
        self.sockets.insert(socket.sktid, entry);
        SocketNumber { sktid: socket.sktid, number }
    }

    /// NCLOSE; whatever waits to be told is forgotten. With a number the connection has to linger, or what
    /// was sent could be lost; [`Table::forget`] ends that.
    pub(crate) fn remove(&mut self, sktid: u8) -> Result<Option<SocketNumber>, Status> {
        let entry = self.sockets.remove(&sktid).ok_or(Status::ESKTNOTOPEN)?;
        self.controls.remove(&sktid);
        if !entry.lingers() {
            return Ok(None);
        }
        self.lingering.insert(entry.number, entry.send_queue_len);
        Ok(Some(SocketNumber { sktid, number: entry.number }))
    }

    /// A connection that lingered is gone.
    pub(crate) fn forget(&mut self, number: SocketNumber) {
        self.lingering.remove(&number.number);
    }

    /// Whether a request may name this socket.
    ///
    /// # Errors
    /// It is not open, or in an error state; or of another family or protocol.
    pub(crate) fn check(&mut self, socket: Socket) -> Result<&mut Entry, Status> {
        let entry = self.sockets.get_mut(&socket.sktid).ok_or(Status::ESKTNOTOPEN)?;
        if entry.state.is_error() {
            return Err(Status::ESKTNOTOPEN);
        }
        if entry.socket != socket {
            return Err(Status::ESKTNOMATCH);
        }
        Ok(entry)
    }

    /// Whether a packet may be sent; it then counts as waiting. `is_own` tells the endpoint's addresses.
    /// Returns where to, unless the socket is connected.
    ///
    /// # Errors
    /// As for [`Table::check`]; the write side is closed, a raw packet has no whole header or one of
    /// another family, the chain does not allow it, or too much waits.
    pub(crate) fn admit_send(
        &mut self,
        sktid: u8,
        packet: &Packet<'_>,
        is_own: impl Fn(IpAddr) -> bool,
    ) -> Result<Option<SocketAddr>, Status> {
        let entry = self.check(packet.socket(sktid))?;
        if !entry.state.may_send() || entry.finishing {
            return Err(Status::ESKTNOTOPEN);
        }
        let destination = match packet {
            Packet::Tcp { .. } => None,
            Packet::Udp { remote, .. } => Some(*remote),
            Packet::Raw { family, data } => {
                let header = IpHeader::read(*family, data)?;
                let foreign = !header.source.is_unspecified() && !is_own(header.source);
                if foreign && self.limits.spoofing_forbidden() {
                    return Err(Status::ESKTPKTDENY);
                }
                Some(SocketAddr::new(header.destination, 0))
            }
        };
        if destination.is_some_and(|remote| !self.limits.allows_destination(remote.ip())) {
            return Err(Status::ESKTPKTDENY);
        }
        let cost = data(packet).len() + ORDER_LEN;
        let open = self.sockets.values().map(|entry| entry.send_queue_len);
        let waiting: usize = open.chain(self.lingering.values().copied()).sum();
        if waiting + cost > SEND_QUEUE_LEN {
            return Err(Status::ESYSNOBUFS);
        }
        self.limits.take_send(data(packet).len())?;
        if let Some(entry) = self.sockets.get_mut(&sktid) {
            entry.send_queue_len += cost;
        }
        Ok(destination)
    }

    /// Whether the write side may be closed; from now on nothing more is sent.
    ///
    /// # Errors
    /// As for [`Table::admit_send`].
    pub(crate) fn admit_finish(&mut self, socket: Socket) -> Result<(), Status> {
        let entry = self.check(socket)?;
        if !entry.state.may_send() || entry.finishing {
            return Err(Status::ESKTNOTOPEN);
        }
        entry.finishing = true;
        Ok(())
    }

    /// The socket of this number, if it is still open.
    pub(crate) fn find(&mut self, number: SocketNumber) -> Option<&mut Entry> {
        self.sockets.get_mut(&number.sktid).filter(|entry| entry.number == number.number)
    }

    /// A TCP connection stands.
    pub(crate) fn established(
        &mut self,
        number: SocketNumber,
        local: SocketAddr,
        remote: SocketAddr,
        time: Ticks,
    ) {
        let Some(entry) = self.find(number) else { return };
        (entry.state, entry.local, entry.remote) = (State::Open, local, Some(remote));
        let change = StateChange::TcpEstablished { remote };
        let sktid = number.sktid;
        entry.tell(hold_back::NSTAT, 0, &Message::Nstat { sktid, time, change });
    }

    /// A connection is over in one direction or both.
    pub(crate) fn ended(&mut self, number: SocketNumber, state: State, time: Ticks) {
        let Some(entry) = self.find(number) else { return };
        if entry.state.is_error() {
            return;
        }
        entry.state = match (entry.state, state) {
            (State::WriteClosed, State::PeerClosed) | (State::PeerClosed, State::WriteClosed) => {
                State::Ended
            }
            (_, state) => state,
        };
        let code = match state {
            // Closing our own side is no news.
            State::WriteClosed | State::Opening | State::Open | State::Ended => return,
            State::PeerClosed => StateChange::PEER_CLOSED,
            State::Refused | State::Reset => StateChange::RESET,
            State::TimedOut => StateChange::TIMEOUT,
            State::Unreachable | State::Unknown => StateChange::UNKNOWN,
        };
        let Socket { sktid, family, protocol } = entry.socket;
        let change = StateChange::Code { family, protocol, code };
        entry.tell(hold_back::NSTAT, 0, &Message::Nstat { sktid, time, change });
    }

    /// A packet of `len` bytes of data was sent, or not.
    pub(crate) fn sent(
        &mut self,
        number: SocketNumber,
        tag: u16,
        len: usize,
        time: Ticks,
        result: Result<(), Status>,
    ) {
        if let Some(waiting) = self.lingering.get_mut(&number.number) {
            *waiting = waiting.saturating_sub(len + ORDER_LEN);
        }
        let Some(entry) = self.find(number) else { return };
        entry.send_queue_len = entry.send_queue_len.saturating_sub(len + ORDER_LEN);
        let status = result.err().unwrap_or(Status::SUCCESS);
        if status != Status::SUCCESS {
            entry.send_error = Some((status, tag));
        }
        let sktid = number.sktid;
        entry.tell(hold_back::NTAG, 0, &Message::Ntag { sktid, tag, time, status });
        if status == Status::SUCCESS {
            self.send_times.insert(tag, time);
        }
    }

    /// A datagram or a raw packet was received.
    pub(crate) fn received(&mut self, number: SocketNumber, time: Ticks, packet: Packet<'_>) {
        let len = data(&packet).len();
        let sktid = number.sktid;
        // Not by `find`: the limits are needed at the same time.
        let entry = self.sockets.get_mut(&sktid).filter(|entry| entry.number == number.number);
        let Some(entry) = entry else { return };
        if !entry.has_room(len) || !self.limits.take_received(len) {
            return entry.count_drop(time, len);
        }
        entry.tell_drops();
        // It fits into a buffer whose size is a u32.
        let data_len = u32::try_from(len).unwrap_or(u32::MAX);
        entry.used = entry.used.saturating_add(data_len);
        entry.tell(hold_back::NDATA, data_len, &Message::Ndata { sktid, time, packet });
    }

    /// How many bytes of a stream may be read now: 0 means later, `None` never again. What a closed one
    /// brings is told to nobody and has no limit.
    pub(crate) fn readable_len(&mut self, number: SocketNumber) -> Option<usize> {
        let Some(entry) = self.find(number) else { return Some(usize::MAX) };
        let room = if entry.has_room(0) { entry.buffer_len - entry.used } else { 0 };
        let allowed = self.limits.receivable_len()?;
        Some(usize::try_from(allowed.min(room.into())).unwrap_or(usize::MAX))
    }

    /// Leaves a line for the controller's log (LINFO).
    pub(crate) fn log(&mut self, info: &str) {
        let line = Message::Linfo { name: b"pktfleet", auxiliary: b"", info: info.as_bytes() };
        let mut encoded = Vec::new();
        if line.encode(&mut encoded).is_ok() {
            self.log.push_back(encoded);
        }
    }

    /// The next message to the controller that no mask holds back; each socket has its turn.
    pub(crate) fn pop(&mut self) -> Option<Vec<u8>> {
        if let Some(line) = self.log.pop_front() {
            return Some(line);
        }
        let after = (Bound::Excluded(self.last_served), Bound::Unbounded);
        let in_turn = self.sockets.range(after).chain(self.sockets.range(..=self.last_served));
        let sktids: Vec<u8> = in_turn.filter(|(_, e)| e.has_news()).map(|(id, _)| *id).collect();
        for sktid in sktids {
            let mask = self.controls(sktid).mask;
            if let Some(message) = self.sockets.get_mut(&sktid).and_then(|entry| entry.pop(mask)) {
                self.last_served = sktid;
                return Some(message);
            }
        }
        None
    }

    /// Whether so much is to be told that requests have to wait.
    pub(crate) fn is_backlogged(&self) -> bool {
        let told = |(sktid, entry): (&u8, &Entry)| {
            let held_back = self.controls(*sktid).mask & (hold_back::NTAG | hold_back::NSTAT) != 0;
            if held_back { 0 } else { entry.events }
        };
        self.log.len() + self.sockets.iter().map(told).sum::<usize>() >= BACKLOG_MAX
    }

    /// The socket of this number in memory.
    pub(crate) fn entry(&self, sktid: u8) -> Option<&Entry> {
        self.sockets.get(&sktid)
    }

    /// What the mlet wrote to a socket's memory.
    pub(crate) fn controls(&self, sktid: u8) -> Controls {
        self.controls.get(&sktid).copied().unwrap_or_default()
    }

    /// The same, to write to.
    pub(crate) fn controls_mut(&mut self, sktid: u8) -> &mut Controls {
        self.controls.entry(sktid).or_default()
    }

    /// When the latest packet of this tag was sent.
    pub(crate) fn send_time(&self, tag: u16) -> Option<Ticks> {
        self.send_times.get(&tag).copied()
    }

    /// Bytes of all receive buffers.
    pub(crate) fn buffers_len(&self) -> u32 {
        self.sockets.values().map(|entry| entry.buffer_len).sum()
    }
}

impl Entry {
    /// Whether closing it at once could lose what was sent: a connection is reset if input is unread then,
    /// or comes later, and what the peer has not read yet is gone.
    fn lingers(&self) -> bool {
        self.socket.protocol == Protocol::Tcp
            && match self.state {
                // The last, if the chain allowed no more input.
                State::Open | State::WriteClosed | State::Unknown => true,
                State::PeerClosed => self.send_queue_len > 0,
                _ => false,
            }
    }

    fn has_room(&self, len: usize) -> bool {
        // Events do not count: a mlet that holds NTAG back for good must go on to get its data.
        let packets = self.waiting.len() - self.events;
        packets < UNITS_MAX && len <= (self.buffer_len - self.used) as usize
    }

    fn has_news(&self) -> bool {
        !self.waiting.is_empty() || self.untold_drops.is_some()
    }

    fn count_drop(&mut self, time: Ticks, len: usize) {
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        let (bytes, units) = &mut self.dropped;
        (*bytes, *units) = (bytes.saturating_add(len), units.saturating_add(1));
        let drops =
            self.untold_drops.get_or_insert(Drops { first: time, last: time, units: 0, bytes: 0 });
        drops.last = time;
        drops.units = drops.units.saturating_add(1);
        drops.bytes = drops.bytes.saturating_add(len);
    }

    /// Puts the news of dropped packets where they are missing.
    fn tell_drops(&mut self) {
        if let Some(Drops { first, last, units, bytes }) = self.untold_drops.take() {
            let socket = self.socket;
            let message = Message::Ndrop { socket, first, last, units, bytes };
            self.tell(hold_back::NDROP, 0, &message);
        }
    }

    fn tell(&mut self, hold_back: u16, data_len: u32, message: &Message<'_>) {
        let mut encoded = Vec::new();
        // Whatever was received or measured has an encoding.
        if message.encode(&mut encoded).is_err() {
            return;
        }
        if hold_back != hold_back::NDATA {
            let is_event = |waiting: &Waiting| waiting.hold_back != hold_back::NDATA;
            if self.events == UNITS_MAX
                && let Some(oldest) = self.waiting.iter().position(is_event)
            {
                self.waiting.remove(oldest);
                self.events -= 1;
            }
            self.events += 1;
        }
        self.waiting.push_back(Waiting { hold_back, data_len, message: encoded });
    }

    fn pop(&mut self, mask: u16) -> Option<Vec<u8>> {
        if self.waiting.len() == self.events {
            self.tell_drops();
        }
        let first = self.waiting.iter().position(|waiting| waiting.hold_back & mask == 0)?;
        let waiting = self.waiting.remove(first)?;
        self.used -= waiting.data_len;
        self.events -= usize::from(waiting.hold_back != hold_back::NDATA);
        Some(waiting.message)
    }
}

/// What matters here of a raw packet's header.
struct IpHeader {
    source: IpAddr,
    destination: IpAddr,
}

impl IpHeader {
    /// # Errors
    /// `EPKTTRUNC` without a whole header, `ESKTNOMATCH` for another family.
    fn read(family: Family, packet: &[u8]) -> Result<Self, Status> {
        let version = packet.first().ok_or(Status::EPKTTRUNC)? >> 4;
        if version != family as u8 {
            return Err(Status::ESKTNOMATCH);
        }
        let addresses = match family {
            Family::Ipv4 => packet.get(..20).and_then(|header| {
                let (source, rest) = header.get(12..)?.split_first_chunk::<4>()?;
                Some((IpAddr::from(*source), IpAddr::from(*rest.first_chunk::<4>()?)))
            }),
            Family::Ipv6 => packet.get(..40).and_then(|header| {
                let (source, rest) = header.get(8..)?.split_first_chunk::<16>()?;
                Some((IpAddr::from(*source), IpAddr::from(*rest.first_chunk::<16>()?)))
            }),
        };
        let (source, destination) = addresses.ok_or(Status::EPKTTRUNC)?;
        Ok(Self { source, destination })
    }
}

fn data<'a>(packet: &Packet<'a>) -> &'a [u8] {
    match *packet {
        Packet::Raw { data, .. } | Packet::Tcp { data, .. } | Packet::Udp { data, .. } => data,
    }
}

#[cfg(test)]
mod tests;
