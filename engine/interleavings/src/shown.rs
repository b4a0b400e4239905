//! Messages that are shown beside their sessions: what is missing is told, and no more is kept than there is room for.

use std::net::Ipv4Addr;
use std::time::Instant;

use loom::thread;
use packetlab::snikey::SniKey;

use crate::config::Traced;
use crate::in_every_order;
use crate::proto::mlet_facts::MletFacts;
use crate::proto::tee::{KEPT_OF_PAYLOAD_MAX, Room, Sender, Shown, Tee, TeeNews, Tees};

fn facts() -> MletFacts {
    let (peer, snikey) = (Ipv4Addr::LOCALHOST.into(), SniKey::parse("hello").unwrap());
    MletFacts { peer, endpoint_key: None, snikey }
}

fn message(payload_len: usize) -> Vec<u8> {
    let mut message = vec![0; 4 + payload_len];
    message[0] = 0x40;
    message[1..4].copy_from_slice(&(payload_len as u32).to_be_bytes()[1..]);
    message
}

fn begun(tees: &Tees, session: u64) -> Box<Tee> {
    let mut tee = tees.of_session(session).unwrap();
    tee.begin(facts(), Instant::now());
    tee
}

/// More makes more orders and finds nothing more.
const MESSAGES_MAX: usize = 2;

/// Two sessions show more than the queue has room for while a third thread takes it: what it gets and what it is told to be
/// missing, at the latest by their ends, is together what was shown.
pub fn what_is_missing() {
    in_every_order(|| {
        let room = Room { messages: MESSAGES_MAX, with_ends: MESSAGES_MAX + 4 };
        let (tees, showing) = Tees::with_room(Traced::All, room);
        let sessions = [1, 2].map(|session| {
            let tees = tees.clone();
            thread::spawn(move || {
                let mut tee = begun(&tees, session);
                tee.take(Sender::Mlet, &message(0), Instant::now());
            })
        });
        drop(tees);
        let shown: Vec<Shown> = std::iter::from_fn(|| showing.next()).collect();
        sessions.into_iter().for_each(|session| session.join().unwrap());
        let taken = shown.iter().filter(|shown| !matches!(shown.news, TeeNews::Over)).count();
        let missing = shown.iter().map(|shown| shown.missing_before).sum::<u64>();
        assert_eq!(shown.len() - taken, 4, "both sessions are over for both sides");
        assert_eq!(showing.take_missing_at_ends(), 0);
        assert_eq!(taken as u64 + missing, 4, "of two sessions, which begin and have a message");
    });
}

/// Two sessions with a message each, while others keep so much that there is room for one of the longest, which both have.
pub fn room_for_one_of_two() {
    in_every_order(|| {
        let longest = KEPT_OF_PAYLOAD_MAX;
        let shown = messages_shown(254, [longest, longest]);
        assert_eq!(shown.len(), 1, "one has room, and not two");
    });
}

/// Two sessions with a message each, while others keep so much that there is room for a short one, which one of them has.
pub fn room_for_the_shorter_of_two() {
    in_every_order(|| {
        let shown = messages_shown(255, [KEPT_OF_PAYLOAD_MAX, 0]);
        assert_eq!(shown, [1], "there is room for it, whatever the other wants");
    });
}

/// Which of two sessions at once find room for their messages, which have payloads of this length, where so many others have
/// the longest there is, that is still arriving. All of what they keep holds 255 of these, and something less than one more.
fn messages_shown(others: u64, payloads_len: [usize; 2]) -> Vec<u64> {
    // The ends are of no interest.
    let room = Room { messages: MESSAGES_MAX, with_ends: MESSAGES_MAX };
    let (tees, showing) = Tees::with_room(Traced::All, room);
    let longest = message(KEPT_OF_PAYLOAD_MAX);
    let arriving = |session| {
        let mut tee = tees.of_session(session).unwrap();
        tee.take(Sender::Mlet, &longest[..longest.len() - 1], Instant::now());
        tee
    };
    let others: Vec<_> = (2..2 + others).map(arriving).collect();
    let sessions = [0, 1].map(|session| {
        let mut tee = tees.of_session(session).unwrap();
        let bytes = message(payloads_len[session as usize]);
        thread::spawn(move || {
            tee.take(Sender::Mlet, &bytes, Instant::now());
            tee
        })
    });
    let sessions = sessions.map(|session| session.join().unwrap());
    drop((others, sessions, tees));
    let shown = std::iter::from_fn(|| showing.next());
    let messages = shown.filter(|shown| matches!(shown.news, TeeNews::Message(_)));
    messages.map(|shown| shown.session).collect()
}
