//! Takes LINFO messages out of what an endpoint sends to its mlet: they are for the log
//! (spec/protocol.md 2.1, behaviour.md "Relay").
//!
//! Bytes of all other messages stay where they are. A message is known by its first byte, so nothing
//! is held back. What an endpoint has the log take is paid from a budget: of one LINFO, of its session in a second,
//! and of all sessions in a second, in bytes of log, which may be six times those of the message. A LINFO that finds
//! its budget used up is skipped as it streams past, and counted. Skipping costs the processor as well: an endpoint that
//! has much skipped is read no faster than `SKIPPED_PER_SECOND`.
//!
//! Not here: the line of the log (`shard/linfo_log.rs`), and the sizes of the budgets (`config/limits.rs`).

use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::account::Flow;
use crate::config::Limits;
use crate::guards::{Guard, holds};
use crate::log_limit::Second;
use packetlab::cut::Boundaries;
use packetlab::escape::{Escaped, front};
use packetlab::message::{MONITOR_CRASHED, Message, MessageType};

/// Target of the tracing events with which endpoints' LINFOs are logged: of all that is logged, what a peer says at its
/// own will.
pub const LINFO_TARGET: &str = "engine::linfo";

/// What a line takes beside its text: time, session, fixed words.
const LINE_LEN: usize = 128;

/// What the words around the three parts add to their text.
const LABELS_LEN: usize = r#"name "", aux "", info """#.len();

/// The most bytes of log that one byte of a payload becomes beyond itself: `\u{1b}`.
const ESCAPE_GROWTH: usize = 5;

/// A session that has logged no more than this in a second draws on all that sessions may log together, one that has
/// on half of it: those that log much leave room for those that log little.
const MODEST_LEN: usize = 1024;

/// How long a LINFO may take to arrive. One that is never finished must not hold memory for as long as its session.
const ARRIVAL_TIME: Duration = Duration::from_secs(5);

/// How many bytes are skipped in a second before their endpoint has to wait: those of a few long LINFOs.
const SKIPPED_AT_ONCE: usize = 64 * 1024;

/// How many bytes a second are skipped beyond those: decrypting them takes 0.1% of a core.
const SKIPPED_PER_SECOND: usize = 1024 * 1024;

/// The lengths of the three parts, at the front of a payload.
const LENS_LEN: usize = 12;

/// What tells that a monitor has crashed is behind those: the name, and an index.
const CRASH_HEAD_LEN: usize = LENS_LEN + MONITOR_CRASHED.len() + size_of::<u16>();

/// A LINFO as it is to be logged.
#[derive(Debug, PartialEq, Eq)]
pub struct Linfo {
    /// Its parts, escaped.
    pub text: String,
    /// There was more of it.
    pub truncated: bool,
    /// LINFOs of this session before it that are lost, and have not been told of.
    pub lost_before: u64,
}

/// What the sessions of a run may log, and what they have lost.
#[derive(Debug)]
pub struct LinfoBudget {
    payload_max: usize,
    lines_per_second: u32,
    session_bytes_per_second: usize,
    total_bytes_per_second: usize,
    spent: Mutex<Spent>,
    lost: AtomicU64,
}

#[derive(Debug, Default)]
struct Spent {
    second: Second,
    bytes: usize,
}

impl LinfoBudget {
    /// A budget of which nothing has been spent.
    pub fn new(limits: &Limits) -> Self {
        Self {
            payload_max: limits.linfo_max,
            lines_per_second: limits.linfos_per_second,
            session_bytes_per_second: limits.linfo_rate_max,
            total_bytes_per_second: limits.linfo_rate_total,
            spent: Mutex::default(),
            lost: AtomicU64::new(0),
        }
    }

    /// LINFOs of the run that were lost.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Grants up to `wanted` bytes to a session that has spent so many in this second.
    fn take(&self, wanted: usize, spent_by_session: usize, now: Instant) -> usize {
        if wanted == 0 {
            return 0;
        }
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        if spent.second.has_turned(now) {
            spent.bytes = 0;
        }
        let total = self.total_bytes_per_second;
        let room = (total / 2).saturating_sub(spent.bytes);
        let modest = MODEST_LEN.saturating_sub(spent_by_session);
        let modest = modest.min(total.saturating_sub(spent.bytes));
        let granted = wanted.min(room.max(modest));
        spent.bytes += granted;
        granted
    }

    fn give_back(&self, unused: usize) {
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        spent.bytes = spent.bytes.saturating_sub(unused);
    }
}

/// A LINFO that is arriving, and is to be logged.
#[derive(Debug)]
struct Arriving {
    payload: Vec<u8>,
    truncated: bool,
    since: Instant,
}

/// The filter's place in the endpoint's byte stream, and what the endpoint has logged.
#[derive(Debug, Default)]
pub struct LinfoFilter {
    boundaries: Boundaries,
    /// `None` also while one is skipped.
    arriving: Option<Box<Arriving>>,
    second: Second,
    /// Bytes of log in this second.
    spent: usize,
    /// Lines in this second.
    lines: u32,
    lost: u64,
    /// Bytes of LINFOs that were not for the log, in this second.
    skipped: usize,
    /// When the endpoint is read again, of which too much was skipped.
    paused_until: Option<Instant>,
    /// Of those that are lost.
    told: u64,
    /// How the one that has come last begins, and how much of that.
    head: [u8; CRASH_HEAD_LEN],
    head_len: u8,
    /// The first monitor of whose crash one has told.
    crashed_monitor: Option<u16>,
    /// All that came, LINFO or not.
    received: Flow,
}

impl LinfoFilter {
    /// Moves the bytes that the mlet gets to the front of `bytes`, tells how many they are, and gives
    /// every LINFO that ended here and that `budget` has room for to `log`.
    pub fn filter(
        &mut self,
        bytes: &mut [u8],
        now: Instant,
        budget: &LinfoBudget,
        mut log: impl FnMut(Linfo),
    ) -> usize {
        let (mut kept, mut position, mut skipped) = (0, 0, 0);
        let lost_before = self.lost;
        self.received.bytes += bytes.len() as u64;
        // Once the budget has refused a LINFO of these bytes, it is not asked about the others.
        let mut may_log = true;
        while position < bytes.len() {
            // Whole messages go many at a time, because a peer may send thousands of empty ones in one record.
            let (len, whole) =
                self.boundaries.whole_messages(&bytes[position..], |other| !is_linfo(other));
            self.received.messages += whole;
            if kept != position {
                bytes.copy_within(position..position + len, kept);
            }
            (kept, position) = (kept + len, position + len);
            if !may_log {
                let (len, lost) = self.boundaries.whole_messages(&bytes[position..], is_linfo);
                (self.lost, position, skipped) = (self.lost + lost, position + len, skipped + len);
                self.received.messages += lost;
            }
            let Some(run) = self.boundaries.next_run(&bytes[position..]) else { break };
            let end = position + run.len;
            self.received.messages += u64::from(run.ends);
            if is_linfo(run.message_type) && holds(Guard::TakesOutLinfos) {
                if run.starts {
                    may_log = may_log && self.begin(now, budget);
                    self.lost += u64::from(!may_log);
                    self.head_len = 0;
                }
                self.note_crash(&bytes[position + run.header_len..end]);
                skipped += self.collect(&bytes[position + run.header_len..end], now, budget);
                if run.ends
                    && let Some(arrived) = self.arriving.take()
                {
                    log(self.finish(*arrived, now, budget));
                }
            } else {
                if kept != position {
                    bytes.copy_within(position..end, kept);
                }
                kept += run.len;
            }
            position = end;
        }
        if self.lost > lost_before {
            budget.lost.fetch_add(self.lost - lost_before, Ordering::Relaxed);
        }
        self.pause_for(skipped, now);
        kept
    }

    /// A message has begun and not ended yet.
    pub fn is_inside_message(&self) -> bool {
        !self.boundaries.between_messages()
    }

    /// LINFOs that were lost because they came faster than they may be logged.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Index of the first monitor of which a LINFO has told that it crashed, whether that came into the log or not.
    pub fn crashed_monitor(&self) -> Option<u16> {
        self.crashed_monitor
    }

    /// All that came, with the LINFOs.
    pub fn received(&self) -> Flow {
        self.received
    }

    /// The endpoint is not to be read until [`Self::resume`], so much of what it sent was skipped.
    pub fn is_paused(&self) -> bool {
        self.paused_until.is_some()
    }

    /// When [`Self::cut`] and [`Self::resume`] are to be called.
    pub fn due(&self) -> Option<Instant> {
        let arriving = self.arriving.as_ref().map(|arriving| arriving.since + ARRIVAL_TIME);
        [arriving, self.paused_until].into_iter().flatten().min()
    }

    /// Has the endpoint read again when it is time.
    pub fn resume(&mut self, now: Instant) {
        self.paused_until.take_if(|until| now >= *until);
    }

    /// Gives a LINFO that takes too long to arrive as far as it has come, and skips the rest.
    pub fn cut(&mut self, now: Instant, budget: &LinfoBudget) -> Option<Linfo> {
        let arriving = self.arriving.take_if(|arriving| now >= arriving.since + ARRIVAL_TIME)?;
        Some(self.finish(Arriving { truncated: true, ..*arriving }, now, budget))
    }

    /// More of a LINFO has come.
    fn note_crash(&mut self, piece: &[u8]) {
        let room = &mut self.head[usize::from(self.head_len)..];
        let len = piece.len().min(room.len());
        if len > 0 {
            room[..len].copy_from_slice(&piece[..len]);
            self.head_len += len as u8;
            let is_whole = usize::from(self.head_len) == CRASH_HEAD_LEN;
            self.crashed_monitor =
                self.crashed_monitor.or_else(|| is_whole.then(|| crashed_monitor(&self.head))?);
        }
    }

    /// A LINFO begins. False if the budget has no line for it.
    fn begin(&mut self, now: Instant, budget: &LinfoBudget) -> bool {
        self.turn(now);
        let has_lines = self.lines < budget.lines_per_second;
        let is_granted = has_lines && self.take(LINE_LEN, now, budget) == LINE_LEN;
        if !is_granted && holds(Guard::BoundsLinfos) {
            return false;
        }
        self.lines += 1;
        let arriving = Arriving { payload: Vec::new(), truncated: false, since: now };
        self.arriving = Some(Box::new(arriving));
        true
    }

    /// Takes as much as is to be logged, and tells how much is not.
    fn collect(&mut self, payload: &[u8], now: Instant, budget: &LinfoBudget) -> usize {
        let Some(mut arriving) = self.arriving.take() else { return payload.len() };
        let mut granted = 0;
        if !arriving.truncated {
            let room = budget.payload_max.saturating_sub(arriving.payload.len());
            granted = self.take(payload.len().min(room), now, budget);
            arriving.payload.extend_from_slice(&payload[..granted]);
            arriving.truncated = granted < payload.len();
        }
        self.arriving = Some(arriving);
        payload.len() - granted
    }

    /// So many bytes were skipped at once: with those of this second, more than are read without a pause?
    fn pause_for(&mut self, skipped: usize, now: Instant) {
        if skipped == 0 {
            return;
        }
        self.turn(now);
        self.skipped += skipped;
        if self.skipped > SKIPPED_AT_ONCE {
            let pause = Duration::from_secs(1) * skipped as u32 / SKIPPED_PER_SECOND as u32;
            self.paused_until = Some(self.paused_until.unwrap_or(now) + pause);
        }
    }

    /// Escapes what has arrived, as far as there is room for the bytes that this adds.
    fn finish(&mut self, arrived: Arriving, now: Instant, budget: &LinfoBudget) -> Linfo {
        let Arriving { payload, truncated, .. } = arrived;
        let growth = self.take(payload.len() * ESCAPE_GROWTH, now, budget);
        let paid_len = payload.len() + LABELS_LEN;
        let (text, is_whole) = shown(&payload, paid_len + growth);
        let unused = growth - text.len().saturating_sub(paid_len);
        self.spent = self.spent.saturating_sub(unused);
        budget.give_back(unused);
        let lost_before = self.lost - std::mem::replace(&mut self.told, self.lost);
        Linfo { text, truncated: truncated || !is_whole, lost_before }
    }

    /// Grants up to `wanted` bytes of log.
    fn take(&mut self, wanted: usize, now: Instant, budget: &LinfoBudget) -> usize {
        self.turn(now);
        let room = budget.session_bytes_per_second.saturating_sub(self.spent);
        let granted = budget.take(wanted.min(room), self.spent, now);
        self.spent += granted;
        granted
    }

    fn turn(&mut self, now: Instant) {
        if self.second.has_turned(now) {
            (self.spent, self.lines, self.skipped) = (0, 0, 0);
        }
    }
}

fn is_linfo(message_type: u8) -> bool {
    message_type == MessageType::LINFO.0
}

/// The index of a monitor, if a LINFO that begins so says that it has crashed.
fn crashed_monitor(head: &[u8; CRASH_HEAD_LEN]) -> Option<u16> {
    let mut expected = *head;
    expected[..4].copy_from_slice(&(MONITOR_CRASHED.len() as u32).to_be_bytes());
    expected[4..8].copy_from_slice(&2_u32.to_be_bytes());
    expected[LENS_LEN..][..MONITOR_CRASHED.len()].copy_from_slice(MONITOR_CRASHED);
    let [.., low, high] = *head;
    (*head == expected).then_some(u16::from_le_bytes([low, high]))
}

/// The payload as text of `len_max` bytes at most, and whether that is all of it.
fn shown(payload: &[u8], len_max: usize) -> (String, bool) {
    if !holds(Guard::EscapesLinfos) {
        return (String::from_utf8_lossy(payload).into_owned(), true);
    }
    let mut text = Clipped { text: String::new(), len_max };
    let written = match Message::decode(MessageType::LINFO, payload) {
        Message::Linfo { name, auxiliary, info } => write!(
            text,
            "name \"{}\", aux \"{}\", info \"{}\"",
            Escaped(name),
            Escaped(auxiliary),
            Escaped(info)
        ),
        _ => write!(text, "\"{}\"", Escaped(payload)),
    };
    (text.text, written.is_ok())
}

/// Takes text up to a length, and fails at what goes beyond, so that whoever writes it stops there.
struct Clipped {
    text: String,
    len_max: usize,
}

impl Write for Clipped {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        let room = self.len_max - self.text.len();
        if piece.len() <= room {
            self.text.push_str(piece);
            return Ok(());
        }
        // Half an escape would say something else.
        if !piece.starts_with('\\') {
            self.text.push_str(front(piece, room));
        }
        Err(fmt::Error)
    }
}

#[cfg(test)]
mod tests;
