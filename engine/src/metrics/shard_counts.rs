//! What one shard counts for others to read.
//!
//! A shard counts in plain numbers of its own, and publishes them once a turn, before it waits: some stores to cache
//! lines that nobody else writes. So counting costs no system call, no wake-up, and nothing that shards share.
//!
//! Not here: what is counted (`shard`), and who reads it (`view`). Invariant: one thread publishes.

use std::array;
use std::ops::{Index, IndexMut};

use crate::sync::atomic::{AtomicI32, AtomicU64, Ordering};

/// A number that shards count.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ShardNumber {
    /// Bytes of messages that were relayed to endpoints, as records tell them.
    BytesToEndpoint,
    /// And from them.
    BytesFromEndpoint,
    /// Messages to endpoints that ended.
    MessagesToEndpoint,
    /// And from them.
    MessagesFromEndpoint,
    /// Connections that find no place in set-up, or have not had their turn yet.
    Waiting,
    /// Connections that wait at a proxy for their endpoints.
    Backlog,
    /// Connections whose TLS handshake is not over.
    Handshakes,
    /// Connections from there to the answer to START.
    Greetings,
    /// Connections whose set-up has failed and that are not closed yet.
    Closing,
    /// What costly steps of handshakes have taken, in nanoseconds.
    HandshakeNanoseconds,
    /// Receives that found no buffer.
    NoBuffers,
    /// Completions that were lost because the ring had no room. The last: a constant counts on it.
    RingOverflows,
}

/// How many numbers there are.
const NUMBERS: usize = ShardNumber::RingOverflows as usize + 1;

/// What a shard has counted.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ShardNumbers([u64; NUMBERS]);

impl Index<ShardNumber> for ShardNumbers {
    type Output = u64;

    fn index(&self, number: ShardNumber) -> &u64 {
        &self.0[number as usize]
    }
}

impl IndexMut<ShardNumber> for ShardNumbers {
    fn index_mut(&mut self, number: ShardNumber) -> &mut u64 {
        &mut self.0[number as usize]
    }
}

/// The same, where others read it. Aligned to two cache lines, because processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct ShardCounts {
    published: [AtomicU64; NUMBERS],
    /// The shard's thread; 0 before it has begun.
    thread: AtomicI32,
}

impl ShardCounts {
    /// Tells all that has been counted so far.
    pub(crate) fn publish(&self, numbers: &ShardNumbers) {
        for (published, number) in self.published.iter().zip(numbers.0) {
            published.store(number, Ordering::Relaxed);
        }
    }

    /// What was published last.
    pub(crate) fn read(&self) -> ShardNumbers {
        ShardNumbers(array::from_fn(|place| self.published[place].load(Ordering::Relaxed)))
    }

    /// The shard runs on this thread.
    pub(crate) fn begin(&self, thread: i32) {
        self.thread.store(thread, Ordering::Relaxed);
    }

    /// The thread it runs on; `None` before it has begun.
    pub(crate) fn thread(&self) -> Option<i32> {
        Some(self.thread.load(Ordering::Relaxed)).filter(|thread| *thread != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_what_was_published_last() {
        let counts = ShardCounts::default();
        let mut numbers = ShardNumbers(array::from_fn(|place| place as u64 + 1));
        counts.publish(&ShardNumbers([99; NUMBERS]));
        counts.publish(&numbers);
        assert_eq!(counts.read(), numbers);
        numbers[ShardNumber::RingOverflows] = 50;
        counts.publish(&numbers);
        assert_eq!(counts.read()[ShardNumber::RingOverflows], 50);
        assert_eq!(counts.read()[ShardNumber::BytesToEndpoint], 1);
    }
}
