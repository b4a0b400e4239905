//! What all threads count together, and what one counts for others to read.

use std::sync::Arc;

use loom::sync::Mutex;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use packetlab::key::KeyId;

use crate::in_every_order;
use crate::mailbox::queue::mailbox;
use crate::metrics::session_places::SessionPlaces;
use crate::metrics::shard_counts::{ShardCounts, ShardNumber, ShardNumbers};
use crate::proto::keys::Keys;

/// Three threads want the two places there are, and give them back.
pub fn places() {
    in_every_order(|| {
        let places = Arc::new(SessionPlaces::new(2));
        let open = Arc::new(AtomicUsize::new(0));
        let session = {
            let (places, open) = (Arc::clone(&places), Arc::clone(&open));
            move || {
                if places.take() {
                    assert!(open.fetch_add(1, Ordering::Relaxed) < 2, "a place beyond the limit");
                    open.fetch_sub(1, Ordering::Relaxed);
                    places.give_back();
                }
            }
        };
        let others = [thread::spawn(session.clone()), thread::spawn(session.clone())];
        session();
        others.into_iter().for_each(|other| other.join().unwrap());
        assert_eq!(places.read(), (0, 2));
    });
}

/// While a thread looks for a place, of which all are taken, their limit is lowered, and then one is given back: at no time was
/// there one to be had.
pub fn fewer_places() {
    in_every_order(|| {
        let places = Arc::new(SessionPlaces::new(2));
        assert!(places.take() && places.take());
        let taker = thread::spawn({
            let places = Arc::clone(&places);
            move || places.take()
        });
        places.set_max(1);
        places.give_back();
        assert!(!taker.join().unwrap(), "it was taken beyond the limit");
        assert_eq!(places.read(), (1, 1));
    });
}

/// The same of the places of one key.
pub fn fewer_places_of_a_key() {
    in_every_order(|| {
        let (keys, key) = (Keys::new(Some(2)), KeyId([1; 32]));
        let (_stays, goes) = (keys.open(key).unwrap(), keys.open(key).unwrap());
        let taker = thread::spawn({
            let keys = Arc::clone(&keys);
            move || keys.open(key).is_some()
        });
        keys.set_max(1);
        drop(goes);
        assert!(!taker.join().unwrap(), "it was taken beyond the limit");
    });
}

/// Two threads want the one place of a key, and one that of another.
pub fn places_of_keys() {
    in_every_order(|| {
        let keys = Keys::new(Some(1));
        let open = |key| {
            let keys = Arc::clone(&keys);
            move || keys.open(KeyId([key; 32]))
        };
        let first = thread::spawn(open(1));
        let other = thread::spawn(open(2));
        let second = open(1)();
        let (first, other) = (first.join().unwrap(), other.join().unwrap());
        assert!(first.is_some() != second.is_some() && other.is_some());
        drop((first, second));
        assert!(open(1)().is_some());
    });
}

/// A shard publishes what it has counted, and tells the control thread that a session is over, which passes that on under a
/// lock; whoever reads there that it is over finds all that it has counted. With `told_first` it tells before it publishes, a
/// defect.
pub fn counted_before_it_is_told(told_first: bool) {
    in_every_order(move || {
        let counts = Arc::new(ShardCounts::default());
        let is_over = Arc::new(Mutex::new(false));
        let (mut mailer, inbox) = mailbox().unwrap();
        let shard = thread::spawn({
            let counts = Arc::clone(&counts);
            move || {
                mailer.push(());
                if told_first {
                    mailer.flush();
                }
                counts.publish(&numbers());
                mailer.flush();
            }
        });
        let reader = thread::spawn({
            let (counts, is_over) = (Arc::clone(&counts), Arc::clone(&is_over));
            move || {
                let is_over = *is_over.lock().unwrap();
                assert!(!is_over || counts.read() == numbers(), "something is missing");
            }
        });
        inbox.bell().wait();
        inbox.silence();
        *is_over.lock().unwrap() = inbox.next().is_some();
        shard.join().unwrap();
        reader.join().unwrap();
    });
}

fn numbers() -> ShardNumbers {
    let mut numbers = ShardNumbers::default();
    numbers[ShardNumber::BytesToEndpoint] = 1;
    numbers[ShardNumber::RingOverflows] = 2;
    numbers
}
