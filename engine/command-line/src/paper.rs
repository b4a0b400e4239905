//! What a log writes on: lines that are gathered, above one that is rewritten.
//!
//! Not here: the queue, and the thread that writes (`log.rs`). Invariant: a write that fails loses its text and nothing else,
//! and lines that nothing took are counted and told of as soon as something takes that.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::status_line::Line;

/// A pipe takes as much in one piece (PIPE_BUF), so that what mlets write there does not cut our lines.
const BATCH_LEN: usize = 4096;

/// What lines are written on.
pub(crate) struct Paper<W> {
    out: W,
    /// What is written of a text of its own, with the line's end.
    told: fn(&str) -> String,
    /// Lines that are to be written together.
    batch: Vec<u8>,
    /// What stands below them and is rewritten; empty if nothing does.
    status: String,
    /// Where it stands.
    line: Line,
    /// Lines that nothing took, since something did.
    untaken: u64,
    /// What was taken last ends within a line.
    is_torn: bool,
    /// All lines that were lost.
    lost_in_all: Arc<AtomicU64>,
}

impl<W: Write> Paper<W> {
    /// With nothing on it. `told` is what is written of a text of its own; lines that are lost are counted in `lost_in_all`.
    pub(crate) fn new((out, told): (W, fn(&str) -> String), lost_in_all: Arc<AtomicU64>) -> Self {
        Self {
            out,
            told,
            batch: Vec::with_capacity(BATCH_LEN),
            status: String::new(),
            line: Line::new(),
            untaken: 0,
            is_torn: false,
            lost_in_all,
        }
    }

    /// So many lines found no room in the queue.
    pub(crate) fn add_gap(&mut self, lost: u64) {
        if lost > 0 {
            let gap = (self.told)(&format!("{lost} log lines are lost: nobody read them in time"));
            self.add_line(gap.as_bytes());
        }
    }

    /// One line more, written with others or at once.
    pub(crate) fn add_line(&mut self, line: &[u8]) {
        if self.batch.len() + line.len() > BATCH_LEN {
            self.write_batch();
        }
        self.batch.extend_from_slice(line);
        if line.len() > BATCH_LEN {
            self.write_batch();
        }
    }

    /// Writes what is gathered, above the status if there is one.
    pub(crate) fn write_batch(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        if !self.status.is_empty() {
            self.batch.splice(0..0, self.line.clear().into_bytes());
            self.batch.extend_from_slice(self.line.draw(&self.status).as_bytes());
        }
        self.tell_untaken();
        let mut batch = std::mem::take(&mut self.batch);
        let taken = self.taken_of(&batch);
        let lost = batch[taken..].iter().filter(|byte| **byte == b'\n').count() as u64;
        self.is_torn |= lost > 0 && taken > 0 && batch[taken - 1] != b'\n';
        self.untaken += lost;
        self.lost_in_all.fetch_add(lost, Ordering::Relaxed);
        batch.clear();
        batch.shrink_to(BATCH_LEN);
        self.batch = batch;
    }

    /// Says how many lines nothing took, if something takes that.
    fn tell_untaken(&mut self) {
        if self.untaken == 0 {
            return;
        }
        let told =
            (self.told)(&format!("{} log lines are lost: they could not be written", self.untaken));
        let told = if self.is_torn { format!("\n{told}") } else { told };
        if self.taken_of(told.as_bytes()) == told.len() {
            (self.untaken, self.is_torn) = (0, false);
        }
    }

    /// How much of it is taken. A write that fails loses the rest and nothing else.
    fn taken_of(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while taken < bytes.len() {
            match self.out.write(&bytes[taken..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => break,
                Ok(len) => taken += len,
            }
        }
        taken
    }

    /// The line below the others says this, or is taken away where there is nothing to say.
    pub(crate) fn show_status(&mut self, text: String) {
        self.write_batch();
        if text.is_empty() && self.status.is_empty() {
            return;
        }
        self.status = text;
        let _ = self.out.write_all(self.line.draw(&self.status).as_bytes());
    }
}
