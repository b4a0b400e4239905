//! What one shard counts for others to read.
//!
//! A shard counts in plain numbers of its own, and publishes them once a turn, before it waits: some stores to cache
//! lines that nobody else writes. So counting costs no system call, no wake-up, and nothing that shards share.
//!
//! Not here: what is counted (`shard`), and who reads it (`view`). Invariant: one thread publishes.

use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use super::both_ways::BothWays;

/// What a shard has counted.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ShardNumbers {
    /// Bytes of messages that were relayed, as records tell them.
    pub(crate) bytes: BothWays<u64>,
    /// Messages that ended.
    pub(crate) messages: BothWays<u64>,
    /// Connections that find no place in set-up, or have not had their turn yet.
    pub(crate) waiting: u64,
    /// Connections that wait at a proxy for their endpoints.
    pub(crate) backlog: u64,
    /// Connections whose TLS handshake is not over.
    pub(crate) handshakes: u64,
    /// Connections from there to the answer to START.
    pub(crate) greetings: u64,
    /// Connections whose set-up has failed and that are not closed yet.
    pub(crate) closing: u64,
    /// Receives that found no buffer.
    pub(crate) no_buffers: u64,
    /// Completions that were lost because the ring had no room.
    pub(crate) ring_overflows: u64,
}

/// The same, where others read it. Aligned to two cache lines, because processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct ShardCounts {
    published: [AtomicU64; 11],
    /// The shard's thread; 0 before it has begun.
    thread: AtomicI32,
}

impl ShardCounts {
    /// Tells what has been relayed so far.
    pub(crate) fn publish_relayed(&self, numbers: &ShardNumbers) {
        let [bytes_to, bytes_from, messages_to, messages_from, ..] = &self.published;
        bytes_to.store(numbers.bytes.to_endpoint, Ordering::Relaxed);
        bytes_from.store(numbers.bytes.from_endpoint, Ordering::Relaxed);
        messages_to.store(numbers.messages.to_endpoint, Ordering::Relaxed);
        messages_from.store(numbers.messages.from_endpoint, Ordering::Relaxed);
    }

    /// Tells all that has been counted so far.
    pub(crate) fn publish(&self, numbers: &ShardNumbers) {
        for (published, number) in self.published.iter().zip(numbers.in_order()) {
            published.store(number, Ordering::Relaxed);
        }
    }

    /// What was published last.
    pub(crate) fn read(&self) -> ShardNumbers {
        let [
            bytes_to,
            bytes_from,
            messages_to,
            messages_from,
            waiting,
            backlog,
            handshakes,
            greetings,
            closing,
            no_buffers,
            ring_overflows,
        ] = self.published.each_ref().map(|number| number.load(Ordering::Relaxed));
        ShardNumbers {
            bytes: BothWays { to_endpoint: bytes_to, from_endpoint: bytes_from },
            messages: BothWays { to_endpoint: messages_to, from_endpoint: messages_from },
            waiting,
            backlog,
            handshakes,
            greetings,
            closing,
            no_buffers,
            ring_overflows,
        }
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

impl ShardNumbers {
    fn in_order(&self) -> [u64; 11] {
        [
            self.bytes.to_endpoint,
            self.bytes.from_endpoint,
            self.messages.to_endpoint,
            self.messages.from_endpoint,
            self.waiting,
            self.backlog,
            self.handshakes,
            self.greetings,
            self.closing,
            self.no_buffers,
            self.ring_overflows,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_what_was_published_last() {
        let counts = ShardCounts::default();
        let numbers = ShardNumbers {
            bytes: BothWays { to_endpoint: 1, from_endpoint: 2 },
            messages: BothWays { to_endpoint: 3, from_endpoint: 4 },
            waiting: 5,
            backlog: 6,
            handshakes: 7,
            greetings: 8,
            closing: 9,
            no_buffers: 10,
            ring_overflows: 11,
        };
        counts.publish(&ShardNumbers { waiting: 99, ..numbers });
        counts.publish(&numbers);
        assert_eq!(counts.read(), numbers);
        let more =
            ShardNumbers { bytes: BothWays { to_endpoint: 12, from_endpoint: 2 }, ..numbers };
        counts.publish_relayed(&ShardNumbers { waiting: 99, ..more });
        assert_eq!(counts.read(), more);
    }
}
