//! What one session's conversation knows: the requests and what became of them, and what came unasked.
//!
//! An answer does not say whose it is: answers come in the order of the requests, with notifications in
//! between (spec/protocol.md 1.2). A request whose answer nobody waits for any more is given up, and its answer
//! comes later all the same.
//!
//! Not here: the stream, clocks and waits (`talk`, `turn`), and what requests mean (`connection` and the like).
//!
//! Invariants: an answer is handed out only to the request that it answers, those of requests that were given up
//! are dropped; notifications come out in the order they came in; a request is sent whole or not at all, unless the
//! session ends; and memory is bounded whatever the endpoint sends.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;

use packetlab::frame::{FrameError, Framer};
use packetlab::message::{Message, MessageType, PAYLOAD_LEN_MAX};
use packetlab::time::Ticks;

use crate::client_error::{Awaited, ClientError, KEPT_LEN_MAX};
use crate::kept::Kept;
use crate::notification::Notification;

/// Requests wait to be sent until they are so many bytes; whoever asks then waits for room.
pub const OUTGOING_LEN_MAX: usize = 1 << 20;

/// What a request does with the number of a socket.
#[derive(Debug, Clone, Copy)]
enum Turn {
    Opens(u8),
    Closes(u8),
}

/// A request that was sent, or is to be, and whose answer has not come.
#[derive(Debug)]
struct Owed {
    ticket: u64,
    /// Somebody waits for the answer.
    is_wanted: bool,
    /// The number of the socket that it opens or closes.
    turns: Option<Turn>,
}

/// Why nothing more comes, which every later call is told.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    Left,
    Suspended,
    Malformed(MessageType),
    /// An answer to no request; one that is asked takes it.
    Unasked(MessageType),
    Frame(FrameError),
    Io(io::ErrorKind, Option<i32>),
}

impl Fault {
    /// What one who waits is told.
    pub(crate) fn error(self, awaited: Awaited) -> ClientError {
        match self {
            Self::Left => ClientError::EndpointLeft(awaited),
            Self::Suspended => ClientError::Suspended(awaited),
            Self::Malformed(message_type) => ClientError::Malformed(message_type),
            Self::Unasked(message_type) => ClientError::Unasked(message_type),
            Self::Frame(cause) => ClientError::Frame(cause),
            Self::Io(_, Some(errno)) => ClientError::Io(io::Error::from_raw_os_error(errno)),
            Self::Io(kind, None) => ClientError::Io(kind.into()),
        }
    }
}

/// Requests that are to be sent.
#[derive(Debug, Default)]
struct Outgoing {
    waiting: VecDeque<(u64, Vec<u8>)>,
    /// So many bytes of the first have been sent.
    first_sent: usize,
    /// Bytes of all of them.
    len: usize,
}

impl Outgoing {
    fn add(&mut self, ticket: u64, request: Vec<u8>) {
        self.len += request.len();
        self.waiting.push_back((ticket, request));
    }

    fn unsent(&self) -> &[u8] {
        let first = self.waiting.front();
        first.and_then(|(_, request)| request.get(self.first_sent..)).unwrap_or_default()
    }

    fn sent(&mut self, len: usize) {
        self.first_sent += len;
        if self.unsent().is_empty()
            && let Some((_, request)) = self.waiting.pop_front()
        {
            self.len -= request.len();
            self.first_sent = 0;
        }
    }

    /// Takes a request back, if nothing of it has been sent.
    fn take_back(&mut self, ticket: u64) -> bool {
        let at = self.waiting.iter().position(|(waiting, _)| *waiting == ticket);
        let unbegun = at.filter(|at| *at > 0 || self.first_sent == 0);
        let Some((_, request)) = unbegun.and_then(|at| self.waiting.remove(at)) else {
            return false;
        };
        self.len -= request.len();
        true
    }
}

/// The state of a conversation.
#[derive(Debug)]
pub(crate) struct Exchange {
    framer: Framer,
    /// When the bytes came that are in the framer.
    came: Ticks,
    next_ticket: u64,
    owed: VecDeque<Owed>,
    answers: BTreeMap<u64, Notification>,
    /// What these cost.
    answers_len: usize,
    /// Notifications that nobody has asked for yet.
    kept: Kept,
    /// Of each socket that was closed the number of the first notification that can be of a later one.
    closed: BTreeMap<u8, u64>,
    /// The news behind which nothing more of a stream is handed out, by socket.
    ends: BTreeMap<u8, Notification>,
    claims: BTreeSet<u8>,
    /// Sockets that are open, as far as answers tell.
    open: BTreeSet<u8>,
    outgoing: Outgoing,
    /// An answer to no request, unless one is asked; what came behind it waits.
    unasked: Option<Notification>,
    fault: Option<Fault>,
    /// How often something has changed that somebody may wait for.
    changes: u64,
}

impl Exchange {
    pub(crate) fn new() -> Self {
        Self {
            framer: Framer::new(PAYLOAD_LEN_MAX),
            came: Ticks(0),
            next_ticket: 0,
            owed: VecDeque::new(),
            answers: BTreeMap::new(),
            answers_len: 0,
            kept: Kept::default(),
            closed: BTreeMap::new(),
            ends: BTreeMap::new(),
            claims: BTreeSet::new(),
            open: BTreeSet::new(),
            outgoing: Outgoing::default(),
            unasked: None,
            fault: None,
            changes: 0,
        }
    }

    /// A request is to be sent; the ticket by which its answer is asked for, or given up.
    pub(crate) fn ask(&mut self, request: &Message<'_>) -> Result<u64, ClientError> {
        let mut encoded = Vec::new();
        request.encode(&mut encoded)?;
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.outgoing.add(ticket, encoded);
        let turns = match *request {
            Message::Nopen { sktid, .. } => Some(Turn::Opens(sktid)),
            Message::Nclose { sktid } => Some(Turn::Closes(sktid)),
            _ => None,
        };
        self.owed.push_back(Owed { ticket, is_wanted: true, turns });
        self.take_in();
        Ok(ticket)
    }

    /// Nobody waits for this answer any more. A request of which nothing was sent is never sent.
    pub(crate) fn give_up(&mut self, ticket: u64) {
        let is_owed = self.owed.iter().any(|owed| owed.ticket == ticket);
        let had_room = self.has_room();
        if is_owed && self.outgoing.take_back(ticket) {
            self.owed.retain(|owed| owed.ticket != ticket);
            self.note_room(had_room);
        } else {
            self.disown(ticket);
        }
    }

    /// The same, but the request is sent all the same.
    pub(crate) fn disown(&mut self, ticket: u64) {
        match self.owed.iter_mut().find(|owed| owed.ticket == ticket) {
            Some(owed) => owed.is_wanted = false,
            // It has come and was not taken, or nothing is left to forget.
            None => drop(self.answer(ticket)),
        }
    }

    /// The answer, RESULT or MDATA, which may be malformed, if it has come.
    pub(crate) fn answer(&mut self, ticket: u64) -> Option<Notification> {
        let answer = self.answers.remove(&ticket)?;
        self.answers_len -= answer.kept_len();
        self.take_in();
        Some(answer)
    }

    /// The first notification of this socket and these types that is wanted, if one has come; those before it are kept.
    pub(crate) fn notification(
        &mut self,
        sktid: u8,
        types: &[MessageType],
        is_wanted: impl Fn(&Notification) -> bool,
    ) -> Option<Notification> {
        let notification = self.kept.take(&[sktid], types, is_wanted);
        self.taken(notification)
    }

    /// The first notification of these sockets.
    pub(crate) fn notification_of(&mut self, sktids: &[u8]) -> Option<Notification> {
        let notification = self.kept.take_of(sktids);
        self.taken(notification)
    }

    /// The first notification, but of sockets that are claimed.
    pub(crate) fn any_notification(&mut self) -> Option<Notification> {
        let notification = self.kept.take_but_of(&self.claims);
        self.taken(notification)
    }

    /// What a stream ends by is remembered, and there is room for more.
    fn taken(&mut self, notification: Option<Notification>) -> Option<Notification> {
        let notification = notification?;
        if notification.ends_stream()
            && let Some(sktid) = notification.sktid()
        {
            self.ends.insert(sktid, notification.clone());
        }
        self.take_in();
        Some(notification)
    }

    /// The news behind which nothing more of this stream is handed out, if it has come.
    pub(crate) fn stream_end(&self, sktid: u8) -> Option<Notification> {
        self.ends.get(&sktid).cloned()
    }

    /// News of this socket is for him alone who claims it, until he ends that.
    pub(crate) fn claim(&mut self, sktid: u8) {
        self.claims.insert(sktid);
    }

    pub(crate) fn end_claim(&mut self, sktid: u8) {
        self.claims.remove(&sktid);
    }

    /// This request finds the socket open that it would open, so that it fails, and closes none if it is given up.
    pub(crate) fn finds_open(&self, sktid: u8, ticket: u64) -> bool {
        let before = self.owed.iter().take_while(|owed| owed.ticket != ticket);
        before.fold(self.open.contains(&sktid), |is_open, owed| match owed.turns {
            Some(Turn::Opens(opened)) if opened == sktid => true,
            Some(Turn::Closes(closed)) if closed == sktid => false,
            _ => is_open,
        })
    }

    /// A part of a request waits to be sent, or all of it.
    pub(crate) fn is_unsent(&self, ticket: u64) -> bool {
        self.outgoing.waiting.iter().any(|(waiting, _)| *waiting == ticket)
    }

    /// One more request may wait to be sent.
    pub(crate) fn has_room(&self) -> bool {
        self.outgoing.len < OUTGOING_LEN_MAX
    }

    fn note_room(&mut self, had_room: bool) {
        self.changes += u64::from(!had_room && self.has_room());
    }

    /// The bytes that are to be sent next.
    pub(crate) fn unsent(&self) -> &[u8] {
        self.outgoing.unsent()
    }

    /// So many of them have been sent.
    pub(crate) fn sent(&mut self, len: usize) {
        let had_room = self.has_room();
        self.outgoing.sent(len);
        self.note_room(had_room);
    }

    /// How often something has changed that somebody may wait for: a message has come, there is room for a request
    /// again, or nothing more comes.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// No more may come now: too much is kept that nobody has asked for.
    pub(crate) fn is_full(&self) -> bool {
        self.kept.len() + self.answers_len > KEPT_LEN_MAX
    }

    /// Nothing more comes.
    pub(crate) fn is_over(&self) -> bool {
        self.fault.is_some()
    }

    /// More may come now.
    pub(crate) fn takes_more(&self) -> bool {
        !self.is_over() && !self.is_full() && self.unasked.is_none()
    }

    /// Bytes came at this time of the controller's clock.
    pub(crate) fn push(&mut self, bytes: &[u8], came: Ticks) {
        self.framer.push(bytes);
        self.came = came;
        self.take_in();
    }

    /// The endpoint's bytes are over.
    pub(crate) fn end(&mut self) {
        self.fault.get_or_insert(Fault::Left);
        self.changes += 1;
    }

    /// The stream broke.
    pub(crate) fn break_off(&mut self, cause: &io::Error) {
        let fault = match cause.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Fault::Left,
            kind => Fault::Io(kind, cause.raw_os_error()),
        };
        self.fault.get_or_insert(fault);
        self.changes += 1;
    }

    /// Why nothing more comes, if that is so.
    pub(crate) fn fault(&self) -> Option<Fault> {
        let unasked = || self.unasked.as_ref().map(|answer| Fault::Unasked(answer.message_type()));
        self.fault.clone().or_else(unasked)
    }

    /// Takes messages out of the bytes that have come, until there are none or too much is kept.
    fn take_in(&mut self) {
        while !self.is_full() && !self.has_erred() {
            let received =
                match self.unasked.take().map_or_else(|| self.next(), |one| Ok(Some(one))) {
                    Ok(Some(received)) => received,
                    Ok(None) => return,
                    Err(cause) => {
                        self.changes += 1;
                        return self.fault = Some(Fault::Frame(cause));
                    }
                };
            self.changes += 1;
            if matches!(received.message_type(), MessageType::RESULT | MessageType::MDATA) {
                match self.owed.pop_front() {
                    Some(owed) => self.take_answer(owed, received),
                    None => return self.unasked = Some(received),
                }
                continue;
            }
            match received.message() {
                Message::Suspd => return self.fault = Some(Fault::Suspended),
                Message::Raw { malformed: true, message_type, .. } => {
                    return self.fault = Some(Fault::Malformed(message_type));
                }
                _ => self.kept.keep(received),
            }
        }
    }

    /// The next message that has come whole.
    fn next(&mut self) -> Result<Option<Notification>, FrameError> {
        let came = self.came;
        let message = self.framer.next()?;
        Ok(message.map(|(message_type, payload)| Notification::new(message_type, payload, came)))
    }

    fn take_answer(&mut self, owed: Owed, answer: Notification) {
        match (owed.turns, answer.message()) {
            (Some(Turn::Closes(sktid)), _) => {
                self.open.remove(&sktid);
                self.closed.insert(sktid, self.kept.next());
            }
            // What came before the earlier socket of this number was closed is of that one. News of the new one may come
            // before the answer.
            (Some(Turn::Opens(sktid)), Message::Result(outcome)) if outcome.is_success() => {
                self.open.insert(sktid);
                self.ends.remove(&sktid);
                if let Some(before) = self.closed.remove(&sktid) {
                    self.kept.forget(sktid, before);
                }
            }
            _ => {}
        }
        if owed.is_wanted {
            self.answers_len += answer.kept_len();
            self.answers.insert(owed.ticket, answer);
        }
    }

    /// A message said that nothing more comes.
    fn has_erred(&self) -> bool {
        !matches!(self.fault, None | Some(Fault::Left | Fault::Io(..)))
    }
}
