//! Queues between threads, and the bells that wake who receives.
//!
//! A model in which somebody sleeps for ever is a deadlock, and loom says so.

use std::mem::ManuallyDrop;
use std::time::{Duration, Instant};

use loom::thread;

use crate::in_every_order;
use crate::mailbox::queue::{Inbox, Mailer, mailbox};

/// A mailbox whose receiver never ends: what a receiver does at its end cannot be done where a model has failed.
fn lasting_mailbox<T>() -> (Mailer<T>, ManuallyDrop<Inbox<T>>) {
    let (mailer, inbox) = mailbox().unwrap();
    (mailer, ManuallyDrop::new(inbox))
}

/// What the receiver of messages does when its bell rings.
#[derive(Debug, Clone, Copy)]
pub enum Receiver {
    /// Silences the bell and takes all there is, as a shard does.
    TakesAll,
    /// A defect: takes all there is and silences the bell afterwards.
    SilencesTooLate,
    /// Takes one, and rings for itself if there may be more, as the control thread does after so many as the queue holds.
    TakesOneAndRings,
    /// A defect: takes one, and leaves the rest to the next ring.
    TakesOne,
}

impl Receiver {
    /// Sleeps until the bell rings, and takes what is there.
    fn take<T>(self, inbox: &Inbox<T>, taken: &mut Vec<T>) {
        inbox.bell().wait();
        match self {
            Self::TakesAll => {
                inbox.silence();
                taken.extend(std::iter::from_fn(|| inbox.next()));
            }
            Self::SilencesTooLate => {
                taken.extend(std::iter::from_fn(|| inbox.next()));
                inbox.silence();
            }
            Self::TakesOneAndRings | Self::TakesOne => {
                inbox.silence();
                let one = inbox.next();
                if one.is_some() && matches!(self, Self::TakesOneAndRings) {
                    inbox.ring();
                }
                taken.extend(one);
            }
        }
    }
}

/// Two threads send, together more than the queue has room for; a third sleeps whenever its bell is silent, until it has
/// all of it, of each sender in its order.
pub fn two_senders(receiver: Receiver) {
    in_every_order(move || {
        let (mut one, inbox) = lasting_mailbox();
        let mut other = one.clone();
        let senders = [
            thread::spawn(move || send(&mut one, [10, 11])),
            thread::spawn(move || send(&mut other, [20])),
        ];
        let mut taken = Vec::new();
        while taken.len() < 3 {
            receiver.take(&inbox, &mut taken);
        }
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        let of = |range: std::ops::Range<i32>| taken.iter().filter(move |one| range.contains(one));
        assert!(of(10..20).eq(&[10, 11]) && of(20..30).eq(&[20]), "{taken:?}");
        assert_eq!(inbox.next(), None);
    });
}

/// Goes on until all has left, as a shard does turn after turn.
fn send<const N: usize>(mailer: &mut Mailer<i32>, messages: [i32; N]) {
    messages.into_iter().for_each(|message| mailer.push(message));
    while !mailer.flush() {
        thread::yield_now();
    }
}

/// A thread sends what may wait, and comes back when the bell is due, if `comes_back`.
pub fn unhurried(comes_back: bool) {
    in_every_order(move || {
        let (mut mailer, inbox) = lasting_mailbox();
        let sender = thread::spawn(move || {
            let mut now = Instant::now();
            for message in 0..3 {
                mailer.push_unhurried(message);
                while !mailer.flush_unhurried(now) {
                    thread::yield_now();
                }
                now += Duration::from_millis(1);
            }
            while let Some(due) = mailer.ring_due().filter(|_| comes_back) {
                assert!(mailer.flush_unhurried(due));
            }
        });
        let mut taken = Vec::new();
        while taken.len() < 3 {
            Receiver::TakesAll.take(&inbox, &mut taken);
        }
        sender.join().unwrap();
        assert_eq!(taken, [0, 1, 2]);
    });
}

/// Two threads ask each other in turn, as a session asks for a permit: each sleeps until the other has told. One that `rings`
/// not sends and leaves the bell alone.
pub fn question_and_answer(rings: bool) {
    in_every_order(move || {
        let (mut to_control, of_control) = lasting_mailbox();
        let (mut to_shard, of_shard) = lasting_mailbox();
        let shard = thread::spawn(move || {
            for question in 0..2 {
                to_control.push(question);
                assert!(if rings { to_control.flush() } else { to_control.send() });
                let mut answers = Vec::new();
                while answers.is_empty() {
                    Receiver::TakesAll.take(&of_shard, &mut answers);
                }
                assert_eq!(answers, [question]);
            }
        });
        let mut questions = Vec::new();
        while questions.len() < 2 {
            let known = questions.len();
            Receiver::TakesAll.take(&of_control, &mut questions);
            questions[known..].iter().for_each(|question| to_shard.push(*question));
            assert!(to_shard.flush());
        }
        shard.join().unwrap();
    });
}

/// A thread sends more than the queue has room for to one that ends after the first: it is not held up, and learns of the
/// end, which it never forgets.
pub fn receiver_that_ends() {
    in_every_order(|| {
        let (mut mailer, inbox) = mailbox().unwrap();
        let asker = mailer.clone();
        let receiver = thread::spawn(move || {
            let mut taken = Vec::new();
            while taken.is_empty() {
                Receiver::TakesAll.take(&inbox, &mut taken);
            }
            assert_eq!(taken[0], 0);
        });
        send(&mut mailer, [0, 1, 2, 3]);
        let was_gone = asker.is_gone();
        asker.wake();
        assert!(asker.is_gone() || !was_gone, "it has come back");
        receiver.join().unwrap();
        assert!(asker.is_gone());
        mailer.push(4);
        assert!(mailer.flush(), "nobody waits for room where nobody takes");
    });
}

/// A watcher asks by the bell whether a thread makes turns. It learns of no turn that was over before it asked, and of each
/// after that.
pub fn watched() {
    in_every_order(|| {
        let (mailer, inbox) = mailbox::<i32>().unwrap();
        mailer.wake();
        let mut taken = Vec::new();
        Receiver::TakesAll.take(&inbox, &mut taken);
        let heard = mailer.heard();
        assert_eq!(mailer.heard(), heard, "the turn was before");
        mailer.wake();
        let turn = thread::spawn(move || {
            Receiver::TakesAll.take(&inbox, &mut taken);
            inbox
        });
        let inbox = turn.join().unwrap();
        assert_ne!(mailer.heard(), heard);
        drop(inbox);
    });
}
