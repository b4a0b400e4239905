//! What a session's requests, answers and notifications are waited with, by one who blocks and by many at once.
//!
//! Waits are futures that need nothing but to be polled when something has come or the time is over. Whoever moves the
//! session's bytes (`turn`) wakes them: the blocking client between two polls, the thread of the asynchronous one.
//!
//! Not here: the stream, and what requests mean.
//!
//! Invariants: a deadline holds whatever the endpoint sends meanwhile, and what has come is looked at once, even if it
//! has passed before; a future that is dropped gives up the answer that it waited for; and nobody is woken but by what
//! has changed or by his own deadline.

use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use packetlab::message::{Message, MessageType, Open, Packet};
use packetlab::time::Ticks;

use crate::client_error::{Awaited, ClientError, named};
use crate::exchange::{Exchange, Fault};
use crate::notification::Notification;

/// A timeout that is longer than this, such as `Duration::MAX`, lasts as long: what no clock can tell is no time to wait
/// until, and nobody waits for 100 years.
const TIMEOUT_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// The controller's clocks: one for waits, one to be told.
pub(crate) type Clocks = Box<dyn Fn() -> (Instant, Ticks) + Send>;

/// Handles of the same session are clones of one.
#[derive(Clone)]
pub(crate) struct Talk(Arc<Mutex<State>>);

/// What all handles share.
pub(crate) struct State {
    pub(crate) exchange: Exchange,
    clocks: Clocks,
    silence_max: Duration,
    session_deadline: Option<Instant>,
    /// What stood when each open socket was opened.
    sockets: BTreeMap<u8, Open>,
    /// When something came last.
    heard: Option<Instant>,
    /// How often the stream has been looked at.
    pub(crate) looks: u64,
    /// Who waits, by a number of each wait, and until when.
    waiting: BTreeMap<u64, (Instant, Waker)>,
    next_wait: u64,
    /// Those who wait have been woken for so many of the exchange's changes.
    told_changes: u64,
    /// Until when who moves the bytes waits, or last did; `None` if only for bytes and the bell.
    looks_by: Option<Instant>,
    /// Wakes who moves the bytes, if that is a thread of its own.
    bell: Option<Box<dyn Fn() + Send>>,
}

/// One who waits, until it is dropped.
struct Wait<'a> {
    talk: &'a Talk,
    number: u64,
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let waited = self.talk.lock().waiting.remove(&self.number);
        // Whatever ends with the waker may ask for the lock.
        drop(waited);
    }
}

impl fmt::Debug for Talk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Talk").finish_non_exhaustive()
    }
}

/// A wait that is over without what was awaited.
pub(crate) struct Late {
    waited: Duration,
    why: Why,
}

/// Why it is over.
enum Why {
    Deadline,
    SessionDeadline,
    TooMuchKept,
    Fault(Fault),
}

/// What a request is about, for errors.
#[derive(Debug, Clone, Copy)]
enum Target {
    Socket(u8),
    Datagram(u8, SocketAddr),
    Memory(u32),
    Endpoint,
}

impl Target {
    fn of(request: &Message<'_>) -> Self {
        match *request {
            Message::Nsend { sktid, packet: Packet::Udp { remote, .. }, .. } => {
                Self::Datagram(sktid, remote)
            }
            Message::Nopen { sktid, .. }
            | Message::Nclose { sktid }
            | Message::Nsend { sktid, .. }
            | Message::Nctl { sktid, .. } => Self::Socket(sktid),
            Message::Ncap { socket, .. } => Self::Socket(socket.sktid),
            Message::Mread { address, .. } | Message::Mwrite { address, .. } => {
                Self::Memory(address)
            }
            _ => Self::Endpoint,
        }
    }
}

/// A request that was asked, and whose answer is still to be taken. Dropped, it is given up.
#[derive(Debug)]
pub struct Asked {
    talk: Talk,
    ticket: u64,
    request: MessageType,
    target: Target,
    at: Ticks,
    begun: Instant,
    /// It is sent whether somebody waits or not.
    is_disowned: bool,
}

impl Asked {
    /// When, by the controller's clock.
    #[must_use]
    pub fn at(&self) -> Ticks {
        self.at
    }

    /// An answer has to be success.
    pub(crate) fn check(&self, answer: &Notification) -> Result<(), ClientError> {
        match answer.message() {
            Message::Result(outcome) if outcome.is_success() => Ok(()),
            other => Err(self.unsuccessful(&other)),
        }
    }

    /// What an answer is that does not give what was asked for.
    pub(crate) fn unsuccessful(&self, answer: &Message<'_>) -> ClientError {
        match answer {
            Message::Result(outcome) if !outcome.is_success() => {
                ClientError::from_outcome(self.request, self.talk.told(self.target), *outcome)
            }
            Message::Raw { message_type, .. } => ClientError::Malformed(*message_type),
            other => ClientError::Unasked(other.message_type()),
        }
    }

    pub(crate) fn ticket(&self) -> u64 {
        self.ticket
    }

    /// Nobody waits for the answer, but it is asked.
    pub(crate) fn disown(mut self) {
        self.is_disowned = true;
    }

    fn described(&self) -> String {
        match self.talk.told(self.target) {
            target if target.is_empty() => named(self.request),
            target => format!("{} ({target})", named(self.request)),
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.talk.lock().change(|exchange| match self.is_disowned {
            true => exchange.disown(self.ticket),
            false => exchange.give_up(self.ticket),
        });
    }
}

impl Talk {
    pub(crate) fn new(silence_max: Duration, clocks: Clocks) -> Self {
        Self(Arc::new(Mutex::new(State {
            exchange: Exchange::new(),
            clocks,
            silence_max,
            session_deadline: None,
            sockets: BTreeMap::new(),
            heard: None,
            looks: 0,
            waiting: BTreeMap::new(),
            next_wait: 0,
            told_changes: 0,
            looks_by: None,
            bell: None,
        })))
    }

    /// On the clocks of this computer.
    pub(crate) fn on_system_clocks(silence_max: Duration) -> Self {
        let clocks = || (Instant::now(), Ticks::from_system_time(std::time::SystemTime::now()));
        Self::new(silence_max, Box::new(clocks))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing is done under it that could panic halfway.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn silence_max(&self) -> Duration {
        self.lock().silence_max
    }

    pub(crate) fn set_session_deadline(&self, deadline: Option<Instant>) {
        let mut state = self.lock();
        state.session_deadline = deadline;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        // Until when each waits may be another time now.
        waiting.into_values().for_each(|(_, waker)| waker.wake());
    }

    pub(crate) fn now(&self) -> Instant {
        self.lock().now()
    }

    /// Puts a request to those that are to be sent.
    pub(crate) fn put(&self, request: &Message<'_>) -> Result<Asked, ClientError> {
        if let Message::Nsend { packet: Packet::Udp { remote, .. }, .. }
        | Message::Nopen { open: Open::TcpConnect { remote, .. }, .. } = *request
            && remote.port() == 0
        {
            return Err(ClientError::NoPort { server: remote.to_string(), port: "0".to_owned() });
        }
        let mut state = self.lock();
        let ticket = state.exchange.ask(request)?;
        match *request {
            Message::Nopen { sktid, open, .. } => state.sockets.insert(sktid, open),
            _ => None,
        };
        let (begun, at) = (state.clocks)();
        state.ring();
        let (request, target) = (request.message_type(), Target::of(request));
        Ok(Asked { talk: self.clone(), ticket, request, target, at, begun, is_disowned: false })
    }

    /// Closes a socket; nobody waits for the answer.
    pub(crate) fn abandon(&self, sktid: u8) {
        if let Ok(closed) = self.put(&Message::Nclose { sktid }) {
            closed.disown();
        }
    }

    /// Waits until there is room for a request.
    pub(crate) async fn room(&self, deadline: Option<Instant>) -> Result<(), ClientError> {
        let begun = self.now();
        let waited = self.wait(begun, deadline, |exchange| exchange.has_room().then_some(()));
        waited.await.map_err(|late| late.unread("the requests before".to_owned()))
    }

    /// Asks, once there is room for it.
    pub(crate) async fn ask(
        &self,
        request: &Message<'_>,
        deadline: Option<Instant>,
    ) -> Result<Asked, ClientError> {
        self.room(deadline).await?;
        self.put(request)
    }

    /// The answer, RESULT or MDATA, which may be malformed; without a deadline it is waited for as long as something
    /// comes.
    pub(crate) async fn answer(
        &self,
        asked: &Asked,
        deadline: Option<Instant>,
    ) -> Result<Notification, ClientError> {
        let take = |exchange: &mut Exchange| exchange.answer(asked.ticket);
        self.wait(asked.begun, deadline, take).await.map_err(|late| {
            let is_unsent = self.lock().exchange.is_unsent(asked.ticket);
            match is_unsent {
                true => late.unread(asked.described()),
                false => late.error(format!("the answer to {}", asked.described())),
            }
        })
    }

    /// Asks and waits for the answer.
    pub(crate) async fn exchange(
        &self,
        request: &Message<'_>,
        deadline: Option<Instant>,
    ) -> Result<(Asked, Notification), ClientError> {
        let asked = self.ask(request, deadline).await?;
        let answer = self.answer(&asked, deadline).await?;
        Ok((asked, answer))
    }

    /// Asks and waits for the RESULT, which has to be success; when it was asked.
    pub(crate) async fn request(
        &self,
        request: &Message<'_>,
        deadline: Option<Instant>,
    ) -> Result<Ticks, ClientError> {
        let (asked, answer) = self.exchange(request, deadline).await?;
        asked.check(&answer).map(|()| asked.at())
    }

    /// The next message that answers no request and that `take` finds. `awaited` says in an error what that is.
    pub(crate) async fn notification(
        &self,
        take: impl FnMut(&mut Exchange) -> Option<Notification>,
        deadline: Option<Instant>,
        awaited: impl FnOnce() -> String,
    ) -> Result<Notification, ClientError> {
        let begun = self.now();
        self.wait(begun, deadline, take).await.map_err(|late| late.error(awaited()))
    }

    /// How a socket is called in errors.
    pub(crate) fn socket_told(&self, sktid: u8) -> String {
        self.told(Target::Socket(sktid))
    }

    fn told(&self, target: Target) -> String {
        let state = self.lock();
        match target {
            Target::Endpoint => String::new(),
            Target::Memory(address) => format!("memory 0x{address:08x}"),
            Target::Datagram(sktid, remote) => format!("socket {sktid}, UDP to {remote}"),
            Target::Socket(sktid) => match state.sockets.get(&sktid) {
                None => format!("socket {sktid}"),
                Some(Open::Raw { local }) => format!("socket {sktid}, raw on {local}"),
                Some(Open::Udp { local }) => format!("socket {sktid}, UDP on {local}"),
                Some(Open::TcpListen { local }) => format!("socket {sktid}, TCP on {local}"),
                Some(Open::TcpConnect { remote, .. }) => {
                    format!("socket {sktid}, TCP to {remote}")
                }
            },
        }
    }

    /// Waits until `take` finds what is awaited, since `begun` and until the deadline; without one until nothing has
    /// come for the longest silence.
    pub(crate) async fn wait<T>(
        &self,
        begun: Instant,
        deadline: Option<Instant>,
        mut take: impl FnMut(&mut Exchange) -> Option<T>,
    ) -> Result<T, Late> {
        let (looks, number) = {
            let mut state = self.lock();
            state.next_wait += 1;
            (state.looks, state.next_wait)
        };
        let wait = Wait { talk: self, number };
        poll_fn(|context| {
            let mut state = wait.talk.lock();
            if let Some(found) = state.change(&mut take) {
                return Poll::Ready(Ok(found));
            }
            let now = state.now();
            let waited = now.saturating_duration_since(begun);
            if let Some(fault) = state.exchange.fault() {
                return Poll::Ready(Err(Late { waited, why: Why::Fault(fault) }));
            }
            if state.exchange.is_full() {
                return Poll::Ready(Err(Late { waited, why: Why::TooMuchKept }));
            }
            let heard = state.heard.map_or(begun, |heard| heard.max(begun));
            let own = deadline.unwrap_or_else(|| after(heard, state.silence_max));
            let limit = state.session_deadline.map_or(own, |session| session.min(own));
            if now >= limit && state.looks > looks {
                let why = if limit < own { Why::SessionDeadline } else { Why::Deadline };
                return Poll::Ready(Err(Late { waited, why }));
            }
            let before = state.waiting.insert(number, (limit, context.waker().clone()));
            // Who looks before that anyway needs not be told.
            if state.looks_by.is_none_or(|looks_by| limit < looks_by) {
                state.ring();
            }
            drop(state);
            drop(before);
            Poll::Pending
        })
        .await
    }
}

/// The time after a timeout.
pub(crate) fn after(start: Instant, timeout: Duration) -> Instant {
    start + timeout.min(TIMEOUT_MAX)
}

impl Late {
    pub(crate) fn error(self, awaited: String) -> ClientError {
        let waited = self.waited;
        match self.why {
            Why::Deadline => ClientError::Silence { awaited, waited },
            Why::SessionDeadline => ClientError::SessionOver { awaited, waited },
            Why::TooMuchKept => ClientError::TooMuchKept(Awaited { what: awaited, waited }),
            Why::Fault(fault) => fault.error(Awaited { what: awaited, waited }),
        }
    }

    fn unread(self, request: String) -> ClientError {
        match self.why {
            Why::Deadline => ClientError::Unread { request, waited: self.waited },
            Why::SessionDeadline => self.error(format!("room for {request}")),
            Why::TooMuchKept | Why::Fault(_) => self.error(format!("the answer to {request}")),
        }
    }
}

impl State {
    fn now(&self) -> Instant {
        (self.clocks)().0
    }

    fn ring(&self) {
        if let Some(bell) = &self.bell {
            bell();
        }
    }

    #[cfg(feature = "async")]
    pub(crate) fn set_bell(&mut self, bell: impl Fn() + Send + 'static) {
        self.bell = Some(Box::new(bell));
    }

    /// Does something with what has come. Where more comes to light by that, or more may come, who moves the bytes is
    /// told, and tells those who wait.
    fn change<T>(&mut self, doing: impl FnOnce(&mut Exchange) -> T) -> T {
        let before = (self.exchange.changes(), self.exchange.takes_more());
        let done = doing(&mut self.exchange);
        if (self.exchange.changes(), self.exchange.takes_more()) != before {
            self.ring();
        }
        done
    }

    /// A look begins: how long it may wait, until the first wait is over; `None` if nobody waits.
    pub(crate) fn begin_look(&mut self) -> Option<Duration> {
        let now = self.now();
        let first = self.waiting.values().map(|(limit, _)| *limit).min();
        self.looks_by = if self.is_changed() { Some(now) } else { first };
        self.looks_by.map(|limit| limit.saturating_duration_since(now))
    }

    /// Those who wait have not been told of all that changed.
    fn is_changed(&self) -> bool {
        self.exchange.changes() != self.told_changes
    }

    /// Bytes have come.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let (now, time) = (self.clocks)();
        self.heard = Some(now);
        self.exchange.push(bytes, time);
    }

    /// The stream has been looked at; who is to be told of it: all if something has changed, else those whose time is
    /// over.
    pub(crate) fn looked(&mut self) -> Vec<Waker> {
        self.looks += 1;
        let (is_changed, now) = (self.is_changed(), self.now());
        self.told_changes = self.exchange.changes();
        let told = self.waiting.extract_if(.., |_, (limit, _)| is_changed || *limit <= now);
        told.map(|(_, (_, waker))| waker).collect()
    }
}

#[cfg(test)]
mod tests;
