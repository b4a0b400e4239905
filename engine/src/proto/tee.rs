//! What a session relays, shown to somebody beside it: its messages, each with the front of its payload, and how it begins
//! and ends, in a bounded queue.
//!
//! A session that is not shown has no [`Tee`]. Nothing waits for whoever takes what is shown: a message that finds no room is
//! missing, and the next one of its session and direction says how many are. The last of both, that it is over, has room of
//! its own, so that nothing is missing without a word.
//!
//! Not here: what is done with it (`control/trace/`). Invariant: all that is kept for all sessions, in the queue or of
//! messages that are still arriving, is at most `KEPT_MAX` bytes beside `ROOM` places, and nothing is taken by an
//! announced length.

use std::time::{Duration, Instant};

use super::mlet_facts::MletFacts;
use crate::config::Traced;
use crate::sync::Arc;
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::sync::mpsc::{self, Receiver, channel};
use packetlab::cut::Boundaries;
use packetlab::message::{HEADER_LEN, MessageType};

/// The most bytes of one payload that are kept: as much data as an NDATA carries. Of a longer one the length is told.
pub const KEPT_OF_PAYLOAD_MAX: usize = 64 * 1024;

/// The most bytes of payloads that wait or arrive at once, of all sessions: a few hundred of the longest.
const KEPT_MAX: usize = 16 << 20;

/// How much may wait to be taken.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// Most of it messages.
    pub messages: usize,
    /// With what tells that sessions are over, two of each, which come when nothing is taken for long.
    pub with_ends: usize,
}

const ROOM: Room = Room { messages: 8192, with_ends: 8192 + 65_536 };

/// Who has sent a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// The endpoint.
    Endpoint,
    /// The mlet.
    Mlet,
}

/// What is shown of a session, in the order in which it came.
#[derive(Debug)]
pub struct Shown {
    /// The session's number.
    pub session: u64,
    /// Who has sent it.
    pub from: Sender,
    /// When its last byte came.
    pub at: Instant,
    /// From the answer to START to then.
    pub after: Duration,
    /// How much of its session and sender is missing before it.
    pub missing_before: u64,
    /// What it is.
    pub news: TeeNews,
}

/// What can be shown.
#[derive(Debug)]
pub enum TeeNews {
    /// The endpoint has answered START, and its mlet is told this.
    Begun(MletFacts),
    /// A message was relayed.
    Message(Passed),
    /// The sender sends nothing more.
    Ended,
    /// The session is over; nothing more of this sender is shown.
    Over,
}

/// A message that was relayed.
#[derive(Debug)]
pub struct Passed {
    /// How many bytes of it have come, its header included.
    pub len: usize,
    /// All of it has come; otherwise the session has ended before the rest.
    pub is_whole: bool,
    kept: Kept,
}

impl Passed {
    /// The message, or its front if its payload is longer than [`KEPT_OF_PAYLOAD_MAX`]; at least its type.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.kept.bytes
    }

    /// Its type.
    #[must_use]
    pub fn message_type(&self) -> MessageType {
        MessageType(self.bytes().first().copied().unwrap_or_default())
    }

    /// What is kept of its payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.bytes().get(HEADER_LEN..).unwrap_or_default()
    }

    /// One of so many bytes, of which `kept` is kept.
    #[cfg(test)]
    pub fn of(kept: &[u8], (len, is_whole): (usize, bool)) -> Self {
        let bytes = kept.to_vec();
        let kept_len = Arc::new(AtomicUsize::new(bytes.capacity()));
        Self { len, is_whole, kept: Kept { bytes, kept_len } }
    }
}

/// Which sessions are shown, and where.
#[derive(Debug, Clone)]
pub struct Tees {
    traced: Traced,
    queue: mpsc::Sender<Shown>,
    room: Room,
    waiting: Arc<AtomicUsize>,
    kept_len: Arc<AtomicUsize>,
    missing_at_ends: Arc<AtomicU64>,
}

/// What is shown.
#[derive(Debug)]
pub struct Showing {
    queue: Receiver<Shown>,
    waiting: Arc<AtomicUsize>,
    missing_at_ends: Arc<AtomicU64>,
}

impl Showing {
    /// The next that is shown; waits for it. `None` when no session is left that could have one.
    #[must_use]
    pub fn next(&self) -> Option<Shown> {
        self.queue.recv().ok().inspect(|_| {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        })
    }

    /// How much is missing of sessions of whose end nothing tells either, for there were too many, since this was last asked.
    #[must_use]
    pub fn take_missing_at_ends(&self) -> u64 {
        self.missing_at_ends.swap(0, Ordering::Relaxed)
    }
}

impl Tees {
    /// Shows these sessions.
    #[must_use]
    pub fn new(traced: Traced) -> (Self, Showing) {
        Self::with_room(traced, ROOM)
    }

    /// The same, while so much may wait.
    pub(crate) fn with_room(traced: Traced, room: Room) -> (Self, Showing) {
        let (queue, shown) = channel();
        let (waiting, missing_at_ends) = (Arc::<AtomicUsize>::default(), Arc::default());
        let showing = Showing {
            queue: shown,
            waiting: Arc::clone(&waiting),
            missing_at_ends: Arc::clone(&missing_at_ends),
        };
        let kept_len = Arc::default();
        (Self { traced, queue, room, waiting, kept_len, missing_at_ends }, showing)
    }

    /// Whether there is room for one more, which is taken then.
    fn take_place(&self, is_end: bool) -> bool {
        let places = if is_end { self.room.with_ends } else { self.room.messages };
        let one_more = |waiting| Some(waiting + 1).filter(|waiting| *waiting <= places);
        self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    /// That of the session with this number, if it is to be shown.
    #[must_use]
    pub fn of_session(&self, session: u64) -> Option<Box<Tee>> {
        let is_shown = match self.traced {
            Traced::All => true,
            Traced::Session(traced) => traced == session,
        };
        is_shown.then(|| {
            Box::new(Tee {
                session,
                tees: self.clone(),
                times: None,
                from_endpoint: Stream::default(),
                from_mlet: Stream::default(),
            })
        })
    }
}

/// Shows one session.
#[derive(Debug)]
pub struct Tee {
    session: u64,
    tees: Tees,
    /// When START was answered, and when something last came; `None` before.
    times: Option<(Instant, Instant)>,
    from_endpoint: Stream,
    from_mlet: Stream,
}

/// One direction.
#[derive(Debug, Default)]
struct Stream {
    boundaries: Boundaries,
    arriving: Option<Arriving>,
    missing: u64,
}

/// A message that is arriving.
#[derive(Debug)]
struct Arriving {
    len: usize,
    /// `None` if there was no room for it.
    kept: Option<Kept>,
}

/// The front of a message, which counts as long as it is held.
#[derive(Debug)]
struct Kept {
    bytes: Vec<u8>,
    kept_len: Arc<AtomicUsize>,
}

impl Tee {
    /// START has been answered, and the mlet is told this.
    pub(super) fn begin(&mut self, facts: MletFacts, now: Instant) {
        self.times = Some((now, now));
        self.show(Sender::Endpoint, TeeNews::Begun(facts));
    }

    /// These bytes are relayed at the time `now`.
    pub(super) fn take(&mut self, from: Sender, mut bytes: &[u8], now: Instant) {
        self.note_time(now);
        while let Some(run) = self.stream(from).boundaries.next_run(bytes) {
            let (of_run, rest) = bytes.split_at(run.len);
            bytes = rest;
            let kept_len = Arc::clone(&self.tees.kept_len);
            let stream = self.stream(from);
            let arriving = stream.arriving.get_or_insert_with(|| Arriving {
                len: 0,
                kept: Some(Kept { bytes: Vec::new(), kept_len }),
            });
            arriving.take(of_run);
            if run.ends {
                self.show_arrived(from, true);
            }
        }
    }

    /// Nothing more comes from there.
    pub(super) fn end(&mut self, from: Sender, now: Instant) {
        self.note_time(now);
        self.show_arrived(from, false);
        self.show(from, TeeNews::Ended);
    }

    fn note_time(&mut self, now: Instant) {
        self.times.get_or_insert((now, now)).1 = now;
    }

    fn stream(&mut self, from: Sender) -> &mut Stream {
        match from {
            Sender::Endpoint => &mut self.from_endpoint,
            Sender::Mlet => &mut self.from_mlet,
        }
    }

    /// Shows what has come of a message, if any has.
    fn show_arrived(&mut self, from: Sender, is_whole: bool) {
        let stream = self.stream(from);
        match stream.arriving.take() {
            Some(Arriving { len, kept: Some(kept) }) => {
                self.show(from, TeeNews::Message(Passed { len, is_whole, kept }));
            }
            Some(Arriving { kept: None, .. }) => stream.missing += 1,
            None => {}
        }
    }

    fn show(&mut self, from: Sender, news: TeeNews) {
        let Some((start, at)) = self.times else { return };
        let missing_before = self.stream(from).missing;
        let after = at.saturating_duration_since(start);
        let shown = Shown { session: self.session, from, at, after, missing_before, news };
        let is_end = matches!(shown.news, TeeNews::Over);
        if self.tees.take_place(is_end) {
            // It fails when nobody looks any more: the run is over.
            let _ = self.tees.queue.send(shown);
            self.stream(from).missing = 0;
        } else if is_end {
            // What is missing before it can be told by nothing later.
            self.tees.missing_at_ends.fetch_add(missing_before, Ordering::Relaxed);
        } else {
            self.stream(from).missing += 1;
        }
    }
}

impl Drop for Tee {
    fn drop(&mut self) {
        for from in [Sender::Endpoint, Sender::Mlet] {
            self.show_arrived(from, false);
            self.show(from, TeeNews::Over);
        }
    }
}

impl Arriving {
    fn take(&mut self, bytes: &[u8]) {
        self.len += bytes.len();
        let Some(kept) = &mut self.kept else { return };
        let room = (HEADER_LEN + KEPT_OF_PAYLOAD_MAX).saturating_sub(kept.bytes.len());
        let front = bytes.get(..room).unwrap_or(bytes);
        if !kept.append(front) {
            self.kept = None;
        }
    }
}

impl Kept {
    /// False if all sessions together have no room for it.
    fn append(&mut self, bytes: &[u8]) -> bool {
        let has_room = self.grow(self.bytes.len() + bytes.len());
        if has_room {
            self.bytes.extend_from_slice(bytes);
        }
        has_room
    }

    /// Memory for so many bytes; false if all sessions together have no room for it. What counts is what is allocated,
    /// which grows in steps, so that a message in many pieces is not copied for each.
    fn grow(&mut self, len: usize) -> bool {
        let before = self.bytes.capacity();
        if len <= before {
            return true;
        }
        let capacity = len.max((2 * before).min(HEADER_LEN + KEPT_OF_PAYLOAD_MAX));
        let more = capacity - before;
        // Not added first and taken off again: meanwhile others would find no room.
        let room = |kept| Some(kept + more).filter(|kept| *kept <= KEPT_MAX);
        let has_room =
            self.kept_len.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).is_ok();
        if has_room {
            self.bytes.reserve_exact(capacity - self.bytes.len());
            // The allocator may have given more.
            let more = self.bytes.capacity() - capacity;
            self.kept_len.fetch_add(more, Ordering::Relaxed);
        }
        has_room
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.kept_len.fetch_sub(self.bytes.capacity(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use packetlab::snikey::SniKey;

    use super::*;
    use crate::proto::tests::{filled, message};

    /// What may wait to be taken, and how many bytes of payload (operating.md "Messages in the log").
    const WAITING_MAX: usize = 8192;
    const PAYLOADS_MAX: usize = 16 << 20;

    fn now() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "any instant will do to count from")]
        Instant::now()
    }

    fn all() -> (Tees, Showing) {
        Tees::new(Traced::All)
    }

    fn facts() -> MletFacts {
        let (peer, snikey) = (Ipv4Addr::LOCALHOST.into(), SniKey::parse("hello").unwrap());
        MletFacts { peer, endpoint_key: None, snikey }
    }

    /// The messages among what is shown until there is no more.
    fn messages(showing: &Showing) -> Vec<(Shown, Passed)> {
        let all = std::iter::from_fn(|| showing.next());
        let message = |mut shown: Shown| match std::mem::replace(&mut shown.news, TeeNews::Ended) {
            TeeNews::Message(passed) => Some((shown, passed)),
            _ => None,
        };
        all.filter_map(message).collect()
    }

    #[test]
    fn messages_are_shown_whole_with_time_and_direction_however_they_are_cut() {
        let (tees, showing) = all();
        let mut tee = tees.of_session(7).unwrap();
        let start = now();
        tee.begin(facts(), start);
        let bytes = [message(MessageType::NCLOSE, &[5]), message(MessageType::START, &[])].concat();
        for (index, byte) in bytes.iter().enumerate() {
            let at = start + Duration::from_millis(index as u64);
            tee.take(Sender::Mlet, &[*byte], at);
            tee.take(Sender::Endpoint, &message(MessageType::RESULT, &[]), at);
        }
        drop((tee, tees));
        let shown = messages(&showing);
        let of_mlet = shown.iter().filter(|(shown, _)| shown.from == Sender::Mlet);
        let told: Vec<_> = of_mlet
            .map(|(shown, passed)| {
                (passed.message_type(), passed.payload(), shown.after.as_millis())
            })
            .collect();
        assert_eq!(told, [(MessageType::NCLOSE, &[5][..], 4), (MessageType::START, &[][..], 8)]);
        assert_eq!(shown.len(), 2 + bytes.len());
        assert!(shown.iter().all(|(shown, passed)| passed.is_whole && shown.session == 7));
    }

    #[test]
    fn a_session_is_shown_from_what_its_mlet_is_told_to_the_end_of_both_sides() {
        let (tees, showing) = all();
        // What was never begun has nothing to show.
        drop(tees.of_session(1));
        let mut tee = tees.of_session(2).unwrap();
        let start = now();
        tee.begin(facts(), start);
        tee.take(Sender::Mlet, &message(MessageType::NCLOSE, &[5]), start);
        tee.end(Sender::Mlet, start + Duration::from_secs(1));
        tee.take(Sender::Endpoint, &message(MessageType::RESULT, &[])[..2], start);
        tee.end(Sender::Endpoint, start + Duration::from_secs(2));
        drop((tee, tees));
        let told = std::iter::from_fn(|| showing.next()).map(|shown| {
            assert_eq!((shown.session, shown.missing_before), (2, 0));
            let what = match shown.news {
                TeeNews::Begun(facts) => facts.snikey.to_string(),
                TeeNews::Message(passed) => format!("{:02x?} {}", passed.bytes(), passed.is_whole),
                TeeNews::Ended => "ended".to_owned(),
                TeeNews::Over => "over".to_owned(),
            };
            let by = if shown.from == Sender::Mlet { "mlet" } else { "endpoint" };
            format!("{} {by} {what}", shown.after.as_secs())
        });
        let expected = [
            "0 endpoint hello",
            "0 mlet [2b, 00, 00, 01, 05] true",
            "1 mlet ended",
            "2 endpoint [40, 00] false",
            "2 endpoint ended",
            "2 endpoint over",
            "2 mlet over",
        ];
        assert_eq!(told.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn only_the_session_that_is_asked_for_is_shown() {
        let (tees, _showing) = Tees::new(Traced::Session(3));
        assert_eq!(
            [2, 3, 4].map(|session| tees.of_session(session).is_some()),
            [false, true, false]
        );
    }

    #[test]
    fn of_a_long_payload_the_front_is_kept_and_the_length_told() {
        let (tees, showing) = all();
        let mut tee = tees.of_session(1).unwrap();
        let long = filled(MessageType::NDATA, 200_000);
        for piece in long.chunks(30_000) {
            tee.take(Sender::Endpoint, piece, now());
        }
        drop((tee, tees));
        let [(_, passed)] = &messages(&showing)[..] else { panic!("one message") };
        assert_eq!((passed.len, passed.payload().len()), (200_004, KEPT_OF_PAYLOAD_MAX));
        assert!(long.starts_with(passed.bytes()));
    }

    #[test]
    fn a_message_whose_rest_never_comes_is_shown_at_the_end() {
        let (tees, showing) = all();
        let mut tee = tees.of_session(1).unwrap();
        tee.take(Sender::Mlet, &message(MessageType::NSEND, &[1; 9])[..7], now());
        drop((tee, tees));
        let [(_, passed)] = &messages(&showing)[..] else { panic!("one message") };
        assert_eq!((passed.message_type(), passed.len), (MessageType::NSEND, 7));
        assert!(!passed.is_whole);
    }

    #[test]
    fn a_full_queue_makes_messages_missing_of_which_the_next_one_tells() {
        let (tees, showing) = all();
        let mut tee = tees.of_session(1).unwrap();
        let one = message(MessageType::RESULT, &[]);
        for _ in 0..WAITING_MAX + 3 {
            tee.take(Sender::Endpoint, &one, now());
        }
        let next = || showing.next().unwrap().missing_before;
        assert_eq!(next(), 0);
        tee.take(Sender::Endpoint, &one, now());
        let missing: Vec<_> = (0..WAITING_MAX).map(|_| next()).collect();
        assert_eq!((missing.iter().sum(), missing.last()), (3, Some(&3)));
        assert_eq!(tees.waiting.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn the_end_of_a_session_is_shown_behind_all_of_it_with_what_is_missing_though_the_queue_is_full()
     {
        let (tees, showing) = all();
        let mut tee = tees.of_session(1).unwrap();
        let one = message(MessageType::RESULT, &[]);
        for _ in 0..WAITING_MAX + 2 {
            tee.take(Sender::Endpoint, &one, now());
        }
        tee.end(Sender::Mlet, now());
        drop((tee, tees));
        assert!((0..WAITING_MAX).all(|_| showing.next().unwrap().missing_before == 0));
        let rest: Vec<_> = std::iter::from_fn(|| showing.next())
            .map(|shown| (shown.from, matches!(shown.news, TeeNews::Over), shown.missing_before))
            .collect();
        assert_eq!(rest, [(Sender::Endpoint, true, 2), (Sender::Mlet, true, 1)]);
        assert_eq!(showing.take_missing_at_ends(), 0);
    }

    #[test]
    fn of_more_ends_than_there_is_room_for_what_is_missing_is_counted() {
        let (tees, showing) = Tees::with_room(Traced::All, Room { messages: 1, with_ends: 2 });
        let mut tee = tees.of_session(1).unwrap();
        for _ in 0..4 {
            tee.take(Sender::Mlet, &message(MessageType::RESULT, &[]), now());
        }
        drop((tee, tees));
        assert_eq!(std::iter::from_fn(|| showing.next()).count(), 2);
        assert_eq!([(); 2].map(|()| showing.take_missing_at_ends()), [3, 0]);
    }

    #[test]
    fn what_counts_of_a_message_in_pieces_is_what_is_allocated_for_it() {
        let whole = filled(MessageType::NDATA, KEPT_OF_PAYLOAD_MAX);
        for piece_len in [1, 100, 16 * 1024, whole.len()] {
            let (tees, showing) = all();
            let mut tee = tees.of_session(1).unwrap();
            let (mut growths, mut before) = (0, 0);
            for piece in whole.chunks(piece_len) {
                tee.take(Sender::Endpoint, piece, now());
                let arriving = tee.from_endpoint.arriving.as_ref();
                let kept = arriving.and_then(|arriving| arriving.kept.as_ref());
                let allocated = kept.map_or(whole.len(), |kept| kept.bytes.capacity());
                assert_eq!(tees.kept_len.load(Ordering::Relaxed), allocated);
                growths += u32::from(std::mem::replace(&mut before, allocated) != allocated);
            }
            // Each time what is there is copied; it is twice as much at least, but for the last time.
            assert!(growths <= whole.len().ilog2() + 2, "{growths} times in pieces of {piece_len}");
            drop(tee);
            let kept_len = Arc::clone(&tees.kept_len);
            drop(tees);
            let [(_, passed)] = &messages(&showing)[..] else { panic!("one message") };
            assert_eq!(passed.bytes(), whole);
            assert_eq!(passed.kept.bytes.capacity(), whole.len(), "in pieces of {piece_len}");
            assert_eq!(kept_len.load(Ordering::Relaxed), whole.len());
        }
    }

    #[test]
    fn all_sessions_together_keep_no_more_than_their_room() {
        let (tees, showing) = all();
        let sessions = (PAYLOADS_MAX / KEPT_OF_PAYLOAD_MAX) as u64 + 2;
        let mut open: Vec<_> = (0..sessions).map(|id| tees.of_session(id).unwrap()).collect();
        let whole = filled(MessageType::NDATA, KEPT_OF_PAYLOAD_MAX);
        let (front, rest) = whole.split_at(whole.len() - 1);
        open.iter_mut().for_each(|tee| tee.take(Sender::Endpoint, front, now()));
        assert!(tees.kept_len.load(Ordering::Relaxed) <= PAYLOADS_MAX);
        open.iter_mut().for_each(|tee| tee.take(Sender::Endpoint, rest, now()));
        drop(open);
        let kept_len = Arc::clone(&tees.kept_len);
        drop(tees);
        let (mut shown, mut missing) = (0, showing.take_missing_at_ends());
        while let Some(next) = showing.next() {
            shown += u64::from(matches!(next.news, TeeNews::Message(_)));
            missing += next.missing_before;
        }
        assert!((2..4).contains(&missing), "{missing} are missing");
        assert_eq!(shown + missing, sessions);
        assert_eq!(kept_len.load(Ordering::Relaxed), 0, "what was taken is room again");
    }
}
