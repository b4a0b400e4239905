//! One open socket: its state, its receive buffer and what waits to be told about it.
//!
//! Not here: what sockets share, and who may open one (`table`).

use std::collections::VecDeque;
use std::net::SocketAddr;

use packetlab::message::{Message, Packet, Protocol, Socket, Status};
use packetlab::time::Ticks;

use super::super::super::chain_limits::SocketPlace;

/// All receive buffers together, in bytes.
pub(crate) const BUFFERS_LEN_MAX: u32 = 64 << 20;
/// Packets of one socket that wait, and as many other notifications: beyond, packets are dropped however
/// small they are, and of the others, which then are held back by mask, the oldest are forgotten.
pub(super) const UNITS_MAX: usize = 0x1000;

/// Bits of a socket's mask: notifications that the mlet holds back (1.12).
pub(super) mod hold_back {
    pub(in super::super) const NTAG: u16 = 0x02;
    pub(in super::super) const NSTAT: u16 = 0x04;
    pub(in super::super) const NDATA: u16 = 0x08;
    pub(in super::super) const NDROP: u16 = 0x10;
    pub(in super::super) const NBLOCK: u16 = 0x20;
}

/// State of a socket, by its number in memory (spec/protocol.md 1.12).
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
    pub(super) fn may_send(self) -> bool {
        matches!(self, Self::Opening | Self::Open | Self::PeerClosed)
    }

    pub(super) fn is_error(self) -> bool {
        (self as i8) < 0
    }
}

/// One open socket.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(super) number: u64,
    /// Its name in messages.
    pub(crate) socket: Socket,
    /// Where it stands.
    pub(crate) state: State,
    /// Where it is bound.
    pub(crate) local: SocketAddr,
    /// Its peer, if it has one.
    pub(crate) remote: Option<SocketAddr>,
    /// Size of its receive buffer.
    buffer_len: u32,
    /// How much of it is in use, which is more if it was made smaller meanwhile.
    pub(crate) used: u32,
    /// Bytes and packets dropped since it was opened.
    pub(crate) dropped: (u32, u32),
    /// The latest NSEND that failed: why, and its tag.
    pub(crate) send_error: Option<(Status, u16)>,
    /// When the write side is closed, or was.
    pub(super) finish_at: Option<Ticks>,
    /// The latest time of what was to be sent so far.
    pub(super) latest_send: Ticks,
    pub(super) send_queue_len: usize,
    waiting: VecDeque<WaitingNotification>,
    /// How many of `waiting` are no NDATA.
    pub(super) events: usize,
    /// How many of `waiting` monitors have not been asked about.
    unchecked: usize,
    untold_drops: Option<Drops>,
    _place: SocketPlace,
}

/// A notification that waits.
#[derive(Debug)]
struct WaitingNotification {
    hold_back: u16,
    /// What it takes of the receive buffer.
    data_len: u32,
    message: Vec<u8>,
    stage: Stage,
}

/// How far a notification is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// NDATA that monitors have not been asked about.
    Unchecked,
    /// Its message is with the monitors.
    UnderCheck,
    /// It may be told.
    Ready,
}

/// What monitors said to an NDATA.
#[derive(Debug)]
pub(crate) enum Checked {
    /// Nothing; the whole message.
    Passed(Vec<u8>),
    /// It is dropped, and perhaps told by this NBLOCK.
    Blocked(Option<Vec<u8>>),
}

/// Packets dropped since the last NDROP.
#[derive(Debug, Clone, Copy)]
struct Drops {
    first: Ticks,
    last: Ticks,
    units: u32,
    bytes: u32,
}

impl Entry {
    /// A socket that was opened, the `number`th of its session.
    pub(super) fn new(
        number: u64,
        socket: Socket,
        local: SocketAddr,
        state: State,
        place: SocketPlace,
    ) -> Self {
        Self {
            number,
            socket,
            state,
            local,
            remote: None,
            buffer_len: 0,
            used: 0,
            dropped: (0, 0),
            send_error: None,
            finish_at: None,
            latest_send: Ticks(0),
            send_queue_len: 0,
            waiting: VecDeque::new(),
            events: 0,
            unchecked: 0,
            untold_drops: None,
            _place: place,
        }
    }

    /// Size of its receive buffer.
    pub(crate) fn buffer_len(&self) -> u32 {
        self.buffer_len
    }

    /// Makes it so large; more than there is means as much as there is.
    pub(crate) fn set_buffer_len(&mut self, len: u32) {
        self.buffer_len = len.min(BUFFERS_LEN_MAX);
    }

    /// Whether closing it at once could lose what was sent: a connection is reset if input is unread then,
    /// or comes later, and what the peer has not read yet is gone.
    pub(super) fn lingers(&self) -> bool {
        self.socket.protocol == Protocol::Tcp
            && match self.state {
                // The last, if the chain allowed no more input.
                State::Open | State::WriteClosed | State::Unknown => true,
                State::PeerClosed => self.send_queue_len > 0,
                _ => false,
            }
    }

    /// What is free in its buffer, however much others have of the common part; `None` if no more packets can
    /// wait, however small.
    pub(super) fn free(&self) -> Option<u32> {
        // Events do not count: a mlet that holds NTAG back for good must go on to get its data.
        let packets = self.waiting.len() - self.events;
        (packets < UNITS_MAX).then(|| self.buffer_len.saturating_sub(self.used))
    }

    /// Received data, which has its room.
    pub(super) fn receive(&mut self, time: Ticks, packet: Packet<'_>, monitored: bool) {
        self.tell_drops();
        // It fits into a buffer whose size is a u32.
        let data_len = u32::try_from(data(&packet).len()).unwrap_or(u32::MAX);
        self.used = self.used.saturating_add(data_len);
        let sktid = self.socket.sktid;
        self.tell(hold_back::NDATA, data_len, &Message::Ndata { sktid, time, packet });
        if let Some(told) = self.waiting.back_mut().filter(|_| monitored) {
            told.stage = Stage::Unchecked;
            self.unchecked += 1;
        }
    }

    /// Whether monitors are to be asked about an NDATA of it.
    pub(super) fn has_unchecked(&self) -> bool {
        self.unchecked > 0
    }

    /// The first NDATA that monitors have not been asked about, as it would be told.
    pub(super) fn take_unchecked(&mut self) -> Option<Vec<u8>> {
        if self.unchecked == 0 {
            return None;
        }
        let unchecked = self.waiting.iter_mut().find(|one| one.stage == Stage::Unchecked)?;
        unchecked.stage = Stage::UnderCheck;
        self.unchecked -= 1;
        Some(std::mem::take(&mut unchecked.message))
    }

    /// What monitors said to the one that was taken: it is told, or else nothing or an NBLOCK in its place.
    pub(super) fn checked(&mut self, checked: Checked) {
        let is_it = |one: &WaitingNotification| one.stage == Stage::UnderCheck;
        if !self.waiting.iter().any(is_it) {
            return;
        }
        if matches!(checked, Checked::Blocked(Some(_))) {
            self.make_room_for_event();
        }
        let Some(at) = self.waiting.iter().position(is_it) else { return };
        let Some(mut it) = self.waiting.remove(at) else { return };
        it.stage = Stage::Ready;
        match checked {
            Checked::Passed(message) => it.message = message,
            Checked::Blocked(nblock) => {
                self.used -= it.data_len;
                let Some(message) = nblock else { return };
                let (hold_back, data_len) = (hold_back::NBLOCK, 0);
                it = WaitingNotification { hold_back, data_len, message, ..it };
            }
        }
        self.waiting.insert(at, it);
    }

    pub(super) fn has_news(&self) -> bool {
        !self.waiting.is_empty() || self.untold_drops.is_some()
    }

    pub(super) fn count_drop(&mut self, time: Ticks, len: usize) {
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

    pub(super) fn tell(&mut self, hold_back: u16, data_len: u32, message: &Message<'_>) {
        let mut encoded = Vec::new();
        // Whatever was received or measured has an encoding.
        if message.encode(&mut encoded).is_err() {
            return;
        }
        if hold_back != hold_back::NDATA {
            self.make_room_for_event();
        }
        let (message, stage) = (encoded, Stage::Ready);
        self.waiting.push_back(WaitingNotification { hold_back, data_len, message, stage });
    }

    /// One more will wait; too many, and the oldest is forgotten.
    fn make_room_for_event(&mut self) {
        let is_event = |waiting: &WaitingNotification| waiting.hold_back != hold_back::NDATA;
        if self.events == UNITS_MAX
            && let Some(oldest) = self.waiting.iter().position(is_event)
        {
            self.waiting.remove(oldest);
            self.events -= 1;
        }
        self.events += 1;
    }

    pub(super) fn pop(&mut self, mask: u16) -> Option<Vec<u8>> {
        if self.waiting.len() == self.events {
            self.tell_drops();
        }
        let first = self.waiting.iter().position(|waiting| waiting.hold_back & mask == 0)?;
        // What comes behind an NDATA is told behind it.
        self.waiting.get(first).filter(|waiting| waiting.stage == Stage::Ready)?;
        let waiting = self.waiting.remove(first)?;
        self.used -= waiting.data_len;
        self.events -= usize::from(waiting.hold_back != hold_back::NDATA);
        Some(waiting.message)
    }
}

/// The data of a packet.
pub(super) fn data<'a>(packet: &Packet<'a>) -> &'a [u8] {
    match *packet {
        Packet::Raw { data, .. } | Packet::Tcp { data, .. } | Packet::Udp { data, .. } => data,
    }
}
