//! Messages on their way from one thread to another.
//!
//! A queue is bounded. A shard never waits for room: what does not fit stays with it and goes out in a
//! later turn. Whoever sends rings the receiver's bell once for all messages of a turn; for messages that may wait it rings
//! at most once in a [`BELL_INTERVAL`], since waking a thread costs more than most of what it is told.
//!
//! Not here: what is told (`mailbox.rs`).

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use crate::sync::Arc;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use crate::sys::bell::Bell;

/// Messages that wait in a queue; a shard keeps more by itself.
pub(crate) const QUEUE_LEN: usize = 1024;

/// So long a message that may wait waits at most, where others were told of shortly before.
const BELL_INTERVAL: Duration = Duration::from_millis(5);

/// What is heard of a receiver that is gone.
const GONE: u64 = u64::MAX;

/// The sending side of a queue.
#[derive(Debug)]
pub(crate) struct Mailer<T> {
    sender: SyncSender<T>,
    bell: Arc<Bell>,
    heard: Arc<AtomicU64>,
    kept: VecDeque<T>,
    /// Messages in the queue for which the bell has not rung.
    unheard: usize,
    /// Something that was sent cannot wait.
    is_urgent: bool,
    /// Since when the bell may ring for messages that can wait.
    may_ring: Option<Instant>,
}

/// The receiving side of a queue.
#[derive(Debug)]
pub(crate) struct Inbox<T> {
    receiver: Receiver<T>,
    bell: Arc<Bell>,
    /// How often the bell was silenced.
    heard: Arc<AtomicU64>,
}

/// A queue; clone the mailer for more senders.
///
/// # Errors
/// No bell can be made.
pub(crate) fn mailbox<T>() -> io::Result<(Mailer<T>, Inbox<T>)> {
    let bell = Arc::new(Bell::new()?);
    let (sender, receiver) = sync_channel(QUEUE_LEN);
    let heard = Arc::new(AtomicU64::new(0));
    let inbox = Inbox { receiver, bell: Arc::clone(&bell), heard: Arc::clone(&heard) };
    Ok((Mailer::new(sender, bell, heard), inbox))
}

impl<T> Clone for Mailer<T> {
    fn clone(&self) -> Self {
        Self::new(self.sender.clone(), Arc::clone(&self.bell), Arc::clone(&self.heard))
    }
}

impl<T> Mailer<T> {
    fn new(sender: SyncSender<T>, bell: Arc<Bell>, heard: Arc<AtomicU64>) -> Self {
        let kept = VecDeque::new();
        Self { sender, bell, heard, kept, unheard: 0, is_urgent: false, may_ring: None }
    }

    /// Queues a message; [`Self::flush`] sends it.
    pub(crate) fn push(&mut self, message: T) {
        self.kept.push_back(message);
        self.is_urgent = true;
    }

    /// Queues a message that may wait for a [`BELL_INTERVAL`].
    pub(crate) fn push_unhurried(&mut self, message: T) {
        self.kept.push_back(message);
    }

    /// Sends what the queue has room for and rings once. True when nothing is left.
    pub(crate) fn flush(&mut self) -> bool {
        let is_all = self.send();
        self.ring();
        is_all
    }

    /// The same at the time `now`, but rings only for what cannot wait any longer; [`Self::ring_due`] tells when to flush
    /// again.
    pub(crate) fn flush_unhurried(&mut self, now: Instant) -> bool {
        let is_all = self.send();
        let may_ring = self.may_ring.is_none_or(|may_ring| may_ring <= now);
        if self.unheard > 0 && (self.is_urgent || !is_all || may_ring) {
            self.may_ring = Some(now + BELL_INTERVAL);
            self.ring();
        }
        is_all
    }

    /// When the bell is to ring for what was sent.
    pub(crate) fn ring_due(&self) -> Option<Instant> {
        self.may_ring.filter(|_| self.unheard > 0)
    }

    /// Sends what the queue has room for, and leaves the bell alone. True when nothing is left.
    pub(crate) fn send(&mut self) -> bool {
        while let Some(message) = self.kept.pop_front() {
            match self.sender.try_send(message) {
                Ok(()) => self.unheard += 1,
                Err(TrySendError::Full(message)) => {
                    self.kept.push_front(message);
                    break;
                }
                // The receiver has ended, and with it the run.
                Err(TrySendError::Disconnected(_)) => {}
            }
        }
        self.kept.is_empty()
    }

    fn ring(&mut self) {
        self.is_urgent &= !self.kept.is_empty();
        if std::mem::take(&mut self.unheard) > 0 {
            self.bell.ring();
        }
    }

    /// Rings the bell, though there may be no message.
    pub(crate) fn wake(&self) {
        self.bell.ring();
    }

    /// A number that changes whenever the receiver has heard the bell, and when it is gone.
    pub(crate) fn heard(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }

    /// The receiver is gone, and takes no message any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.heard() == GONE
    }
}

impl<T> Inbox<T> {
    /// The next message. Silence the bell first, so that none is missed.
    pub(crate) fn next(&self) -> Option<T> {
        // No sender left is as good as no message: the threads' ends are told by messages.
        self.receiver.try_recv().ok()
    }

    /// Rings the bell: there is more than was taken.
    pub(crate) fn ring(&self) {
        self.bell.ring();
    }

    /// What rings when there is a message.
    pub(crate) fn bell(&self) -> &Bell {
        &self.bell
    }

    /// Makes the bell silent until it rings again.
    pub(crate) fn silence(&self) {
        self.bell.silence();
        self.heard.fetch_add(1, Ordering::Relaxed);
    }
}

impl<T> Drop for Inbox<T> {
    fn drop(&mut self) {
        self.heard.store(GONE, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bell_rings_at_once_for_what_is_urgent_and_once_in_an_interval_for_the_rest() {
        #[expect(clippy::disallowed_methods, reason = "any instant will do to count from")]
        let start = Instant::now();
        let (mut mailer, inbox) = mailbox().expect("an eventfd");
        let rings = |mailer: &mut Mailer<u8>, after: Duration| {
            assert!(mailer.flush_unhurried(start + after));
            inbox.bell.silence()
        };
        mailer.push_unhurried(1);
        assert!(rings(&mut mailer, Duration::ZERO), "none was told of shortly before");
        assert_eq!(mailer.ring_due(), None);
        mailer.push_unhurried(2);
        assert!(!rings(&mut mailer, Duration::from_millis(1)));
        assert_eq!(inbox.next(), Some(1));
        assert_eq!(inbox.next(), Some(2), "whoever looks finds it");
        assert_eq!(mailer.ring_due(), Some(start + BELL_INTERVAL));
        assert!(rings(&mut mailer, BELL_INTERVAL), "the receiver may not have looked");
        mailer.push_unhurried(3);
        mailer.push(4);
        mailer.push_unhurried(5);
        assert!(rings(&mut mailer, BELL_INTERVAL), "the fourth is urgent");
        mailer.push_unhurried(6);
        assert!(!rings(&mut mailer, BELL_INTERVAL), "the sixth is not");
    }

    #[test]
    fn a_full_queue_keeps_messages_with_the_sender_in_order() {
        let (mut mailer, inbox) = mailbox().expect("an eventfd");
        for number in 0..QUEUE_LEN + 3 {
            mailer.push(number);
        }
        assert!(!mailer.flush(), "three do not fit");
        assert_eq!(inbox.next(), Some(0));
        assert!(!mailer.flush(), "two do not fit");
        for number in 1..QUEUE_LEN + 1 {
            assert_eq!(inbox.next(), Some(number));
        }
        assert!(mailer.flush());
        assert_eq!(inbox.next(), Some(QUEUE_LEN + 1));
        assert_eq!(inbox.next(), Some(QUEUE_LEN + 2));
        assert_eq!(inbox.next(), None);
    }
}
