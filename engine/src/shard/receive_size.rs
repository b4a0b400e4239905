//! How large the receives from a peer are: large where its bytes come in bulk.
//!
//! A peer that fills two small receives within [`BULK_PERIOD`] gets large ones, until one brings no more than a small
//! one takes, or no large buffer is free. So one that is slow, or silent again, has small ones.
//!
//! Not here: buffers and blocks, and how many there are (`large_buffers.rs`).

use std::time::{Duration, Instant};

use crate::proto::outbox::RECEIVE_LEN;

/// How soon after one small receive another must be filled: a peer that sends, and is taken from, at 300 KB/s at least.
const BULK_PERIOD: Duration = Duration::from_millis(100);

/// The receives from one peer.
#[derive(Debug, Default)]
pub(super) struct Intake {
    /// When the last one was filled, if it was.
    filled: Option<Instant>,
    is_large: bool,
}

impl Intake {
    /// The next one is to be large.
    pub(super) fn is_large(&self) -> bool {
        self.is_large
    }

    /// One has brought `len` bytes.
    pub(super) fn note_received(&mut self, len: usize, now: Instant) {
        let before = std::mem::take(&mut self.filled);
        if len >= RECEIVE_LEN {
            self.filled = Some(now);
        }
        let fills = self.filled.is_some();
        self.is_large = fills && before.is_some_and(|before| now < before + BULK_PERIOD);
    }

    /// The next ones are to be small. Whether it was to be large.
    pub(super) fn receive_less(&mut self) -> bool {
        std::mem::take(self).is_large
    }
}
