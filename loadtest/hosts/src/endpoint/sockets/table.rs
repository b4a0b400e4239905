//! The open sockets of one session: their states, their receive buffers and what waits to be told
//! about them (spec/protocol.md 1.3, 1.4, 1.12). No socket, no clock: time is an argument.
//!
//! ```text
//! entry    one socket
//! header   where a raw packet comes from and goes to
//! ```
//!
//! A socket's data waits in its receive buffer, which has the size that NOPEN asked for, or as much as there is: of
//! [`BUFFERS_LEN_MAX`] each socket has [`BUFFER_SHARE`] for itself, and the rest is common. Datagrams that
//! do not fit are dropped and counted, and one NDROP tells of all of them once the data before them is
//! gone; a stream is not read while its buffer is full. Notifications that the mlet holds back by mask
//! wait where they are and the others overtake them.
//!
//! Invariant: nothing is told about a socket after its NCLOSE; a late report finds no socket of its
//! number. Memory is bounded by [`BUFFERS_LEN_MAX`], [`entry::UNITS_MAX`] packets and as many events of each
//! socket, and [`ledger::WAITING_MAX`](super::super::ledger), in which closed connections that still send have their share.

mod entry;
mod header;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Bound;

use packetlab::message::{Message, Open, Packet, Socket, StateChange, Status};
use packetlab::time::Ticks;

use super::super::chain_limits::{ChainLimits, SocketPlace};
use super::super::ledger::WaitingSends;
pub(crate) use entry::{BUFFERS_LEN_MAX, Checked, Entry, State};
use entry::{data, hold_back};
use header::IpHeader;

/// Bytes of its receive buffer that a socket need not share: half of all for 256 sockets, and each more than the
/// largest packet. The other half is for whoever comes first.
const BUFFER_SHARE: u32 = BUFFERS_LEN_MAX / 2 / 256;
/// Notifications other than data that may wait before requests have to (spec/protocol.md 1.2).
const BACKLOG_MAX: usize = 100;
/// What one waiting order costs beside its data: its place in the schedule, half of which may be empty, and what the
/// allocator adds.
const ORDER_LEN: usize = 256;

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

/// All sockets of a session.
#[derive(Debug, Default)]
pub(crate) struct SocketTable {
    sockets: BTreeMap<u8, Entry>,
    /// What waits to be sent by connections that linger, by their numbers.
    lingering: HashMap<u64, usize>,
    controls: HashMap<u8, Controls>,
    /// All of it.
    waiting: WaitingSends,
    send_times: HashMap<u16, Ticks>,
    limits: ChainLimits,
    log: VecDeque<Vec<u8>>,
    opened_count: u64,
    last_served: u8,
    last_checked: u8,
    /// Monitors are asked about each NDATA before it is told.
    monitored: bool,
    /// Whose turn it is: theirs, or what may be told.
    checks_first: bool,
}

/// What is to be done next.
#[derive(Debug)]
pub(crate) enum News {
    /// This message is told.
    Message(Vec<u8>),
    /// Monitors are asked about this NDATA; [`SocketTable::checked`] takes what they say.
    Unchecked(SocketNumber, Vec<u8>),
}

impl SocketTable {
    /// No sockets yet.
    pub(crate) fn new(limits: ChainLimits) -> Self {
        let waiting = limits.waiting_sends();
        Self { limits, waiting, ..Self::default() }
    }

    /// From now on monitors are asked about what is received.
    pub(crate) fn have_monitors(&mut self) {
        self.monitored = true;
    }

    /// What the chain allows.
    pub(crate) fn limits(&mut self) -> &mut ChainLimits {
        &mut self.limits
    }

    /// A place for such a socket, if it may be opened.
    ///
    /// # Errors
    /// The number is in use, or the chain does not allow it.
    pub(crate) fn check_open(&self, sktid: u8, open: &Open) -> Result<SocketPlace, Status> {
        if self.sockets.contains_key(&sktid) {
            return Err(Status::ESKTINUSE);
        }
        if let Open::TcpConnect { remote, .. } = open
            && !self.limits.allows_destination(remote.ip())
        {
            return Err(Status::ESKTOPNDENY);
        }
        self.limits.take_socket().ok_or(Status::ESKTOPNDENY)
    }

    /// Takes in a socket that was opened.
    pub(crate) fn insert(
        &mut self,
        socket: Socket,
        buffer_len: u32,
        local: SocketAddr,
        state: State,
        place: SocketPlace,
    ) -> SocketNumber {
        self.opened_count += 1;
        let number = self.opened_count;
        let mut entry = Entry::new(number, socket, local, state, place);
        entry.set_buffer_len(buffer_len);
        self.sockets.insert(socket.sktid, entry);
        SocketNumber { sktid: socket.sktid, number }
    }

    /// NCLOSE; whatever waits to be told is forgotten. With a number the connection has to linger, or what
    /// was sent could be lost; [`SocketTable::forget`] ends that.
    pub(crate) fn remove(&mut self, sktid: u8) -> Result<Option<SocketNumber>, Status> {
        let entry = self.sockets.remove(&sktid).ok_or(Status::ESKTNOTOPEN)?;
        self.controls.remove(&sktid);
        let lingers = entry.lingers();
        if lingers {
            self.lingering.insert(entry.number, entry.send_queue_len);
        }
        self.waiting.set(self.waiting_bytes());
        Ok(lingers.then_some(SocketNumber { sktid, number: entry.number }))
    }

    /// A connection that lingered is gone.
    pub(crate) fn forget(&mut self, number: SocketNumber) {
        self.lingering.remove(&number.number);
        self.waiting.set(self.waiting_bytes());
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

    /// Whether a packet may be sent at its time; it then counts as waiting. `is_own` tells the endpoint's
    /// addresses. Returns where to, unless the socket is connected.
    ///
    /// # Errors
    /// As for [`SocketTable::check`]; the write side is closed by `now`, a raw packet has no whole header or one of
    /// another family, the chain does not allow it, or too much waits.
    pub(crate) fn admit_send(
        &mut self,
        sktid: u8,
        time: Ticks,
        now: Ticks,
        packet: &Packet<'_>,
        is_own: impl Fn(IpAddr) -> bool,
    ) -> Result<Option<SocketAddr>, Status> {
        let entry = self.check(packet.socket(sktid))?;
        if !entry.state.may_send() || entry.finish_at.is_some_and(|finish| finish <= now) {
            return Err(Status::ESKTNOTOPEN);
        }
        let destination = match packet {
            Packet::Tcp { .. } => None,
            Packet::Udp { remote, .. } => Some(*remote),
            Packet::Raw { family, data } => {
                let header = IpHeader::read(*family, data)?;
                // From loopback to loopback it does not leave the machine, whose addresses those are.
                let stays = header.source.is_loopback() && header.destination.is_loopback();
                let foreign = !header.source.is_unspecified() && !is_own(header.source) && !stays;
                if foreign && !self.limits.spoofing_allowed() {
                    return Err(Status::ESKTPKTDENY);
                }
                Some(SocketAddr::new(header.destination, 0))
            }
        };
        if destination.is_some_and(|remote| !self.limits.allows_destination(remote.ip())) {
            return Err(Status::ESKTPKTDENY);
        }
        let len = data(packet).len();
        let cost = len + ORDER_LEN;
        let waiting = self.waiting_bytes() + cost;
        if !self.waiting.may_be(waiting) {
            return Err(Status::ESYSNOBUFS);
        }
        // A stream can leave in pieces.
        self.limits.take_send(len, destination.is_none())?;
        if let Some(entry) = self.sockets.get_mut(&sktid) {
            entry.send_queue_len += cost;
            entry.latest_send = entry.latest_send.max(time);
        }
        self.waiting.set(waiting);
        Ok(destination)
    }

    /// What waits to be sent, of all sockets.
    fn waiting_bytes(&self) -> usize {
        let open = self.sockets.values().map(|entry| entry.send_queue_len);
        open.chain(self.lingering.values().copied()).sum()
    }

    /// Whether the write side may be closed at that time, after what was to be sent before the request.
    ///
    /// # Errors
    /// As for [`SocketTable::check`]; it is closed, or will be by an earlier request.
    pub(crate) fn admit_finish(&mut self, socket: Socket, time: Ticks) -> Result<(), Status> {
        let entry = self.check(socket)?;
        if !entry.state.may_send() || entry.finish_at.is_some() {
            return Err(Status::ESKTNOTOPEN);
        }
        entry.finish_at = Some(time.max(entry.latest_send));
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
        if let Some(entry) = self.find(number) {
            entry.send_queue_len = entry.send_queue_len.saturating_sub(len + ORDER_LEN);
        }
        self.waiting.set(self.waiting_bytes());
        let Some(entry) = self.find(number) else { return };
        let status = result.err().unwrap_or(Status::SUCCESS);
        if status != Status::SUCCESS {
            entry.send_error = Some((status, tag));
        }
        let sktid = number.sktid;
        // Nobody waits for the news of tag 0: original endpoints do not tell it.
        if tag != 0 {
            entry.tell(hold_back::NTAG, 0, &Message::Ntag { sktid, tag, time, status });
        }
        if status == Status::SUCCESS {
            self.send_times.insert(tag, time);
        }
    }

    /// A datagram or a raw packet was received.
    pub(crate) fn received(&mut self, number: SocketNumber, time: Ticks, packet: Packet<'_>) {
        let len = data(&packet).len();
        let fits = self.room(number).is_some_and(|room| len <= room as usize);
        let (allowed, monitored) = (fits && self.limits.take_received(len), self.monitored);
        let Some(entry) = self.find(number) else { return };
        if allowed {
            entry.receive(time, packet, monitored);
        } else {
            entry.count_drop(time, len);
        }
    }

    /// Whether a stream may be read now: 0 means later, `None` never again. What a closed one
    /// brings is told to nobody and has no limit.
    pub(crate) fn readable_len(&mut self, number: SocketNumber) -> Option<usize> {
        if self.find(number).is_none() {
            return Some(usize::MAX);
        }
        let allowed = self.limits.receivable_len()?;
        let room = self.room(number).unwrap_or(0);
        Some(usize::try_from(allowed.min(room.into())).unwrap_or(usize::MAX))
    }

    /// Takes as much of a stream as `read` has, there is room for and the chain allows, at most `len_max`; an error
    /// of kind `WouldBlock` without any of these.
    pub(crate) fn read(
        &mut self,
        number: SocketNumber,
        time: Ticks,
        len_max: usize,
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let mut data = Vec::new();
        let fill = |len| {
            if len == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            data.resize(len, 0);
            read(&mut data)
        };
        if self.find(number).is_none() {
            return fill(len_max);
        }
        let room = self.room(number).unwrap_or(0) as usize;
        let len = self.limits.receive_by(room.min(len_max), fill)?;
        data.truncate(len);
        let monitored = self.monitored;
        if let Some(entry) = self.find(number).filter(|_| len > 0) {
            let packet = Packet::Tcp { family: entry.socket.family, data: &data };
            entry.receive(time, packet, monitored);
        }
        Ok(len)
    }

    /// Bytes that the next packet of a socket may have; `None` if there may be none, however small.
    fn room(&self, number: SocketNumber) -> Option<u32> {
        let entry = self.entry(number.sktid).filter(|entry| entry.number == number.number)?;
        let (free, own) = (entry.free()?, BUFFER_SHARE.saturating_sub(entry.used));
        // Most packets need none of the common part.
        if free <= own {
            return Some(free);
        }
        let beyond = |entry: &Entry| entry.used.saturating_sub(BUFFER_SHARE);
        let taken: u32 = self.sockets.values().map(beyond).sum();
        Some(free.min(own + (BUFFERS_LEN_MAX / 2).saturating_sub(taken)))
    }

    /// Leaves a line for the controller's log (LINFO).
    pub(crate) fn log(&mut self, info: &str) {
        let line = Message::Linfo { name: b"pktfleet", auxiliary: b"", info: info.as_bytes() };
        let mut encoded = Vec::new();
        if line.encode(&mut encoded).is_ok() {
            self.log.push_back(encoded);
        }
    }

    /// What is to be done next. Neither a flood of data nor one of notifications keeps the other waiting, nor one socket
    /// another.
    pub(crate) fn next(&mut self) -> Option<News> {
        self.checks_first = self.monitored && !self.checks_first;
        if self.checks_first {
            self.take_unchecked().or_else(|| self.pop().map(News::Message))
        } else {
            self.pop().map(News::Message).or_else(|| self.take_unchecked())
        }
    }

    fn take_unchecked(&mut self) -> Option<News> {
        let waits = |(_, entry): &(&u8, &Entry)| entry.has_unchecked();
        let sktid = *in_turn(&self.sockets, self.last_checked).find(waits)?.0;
        self.last_checked = sktid;
        let entry = self.sockets.get_mut(&sktid)?;
        let number = SocketNumber { sktid, number: entry.number };
        Some(News::Unchecked(number, entry.take_unchecked()?))
    }

    /// What monitors said to the NDATA they were asked about.
    pub(crate) fn checked(&mut self, number: SocketNumber, checked: Checked) {
        if let Some(entry) = self.find(number) {
            entry.checked(checked);
        }
    }

    /// The next message to the controller that no mask holds back; each socket has its turn.
    pub(crate) fn pop(&mut self) -> Option<Vec<u8>> {
        if let Some(line) = self.log.pop_front() {
            return Some(line);
        }
        let in_turn = in_turn(&self.sockets, self.last_served);
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

    /// The same, to write to.
    pub(crate) fn entry_mut(&mut self, sktid: u8) -> Option<&mut Entry> {
        self.sockets.get_mut(&sktid)
    }

    /// Bytes in all receive buffers.
    pub(crate) fn buffers_used(&self) -> u32 {
        self.sockets.values().map(|entry| entry.used).sum()
    }
}

/// All of them, from the one behind that which had its turn last.
fn in_turn(sockets: &BTreeMap<u8, Entry>, last: u8) -> impl Iterator<Item = (&u8, &Entry)> {
    let after = (Bound::Excluded(last), Bound::Unbounded);
    sockets.range(after).chain(sockets.range(..=last))
}

#[cfg(test)]
mod tests;
