//! stderr behind a thread of its own, so that a log that nobody reads (a pipe that is held, a terminal stopped with
//! Ctrl-S) holds up no mlet, no signal and no end of the run.
//!
//! Invariant: lines keep their order, and each is written whole or not at all. Those that find no room in the queue are
//! lost, and their number is written in their place. What waits is bounded in bytes, and what endpoints log takes half
//! of that at most, so that they cannot make the lines about others be lost.
//!
//! Not here: what a line looks like (`logging.rs`).

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::Duration;

use engine::LINFO_TARGET;
use nix::sys::signal::{SigSet, SigmaskHow};
use tracing::Metadata;
use tracing_subscriber::fmt::MakeWriter;

/// Bytes that may wait to be written: some ten thousand lines, which is what an hour of a calm run brings.
const QUEUE_LEN: usize = 4 << 20;

/// Of these, what only the last line of the program may use, which says why it ends.
const RESERVE_LEN: usize = 64 << 10;

/// What a line takes in the queue beside its text.
const LINE_OVERHEAD: usize = 64;

/// A pipe takes as much in one piece (PIPE_BUF), so that what mlets write there does not cut our lines.
const BATCH_LEN: usize = 4096;

enum Order {
    Write {
        line: Vec<u8>,
        /// Lines before it that are lost.
        lost_before: u64,
    },
    /// Tell when everything before has been written.
    Tell {
        teller: SyncSender<()>,
        /// As above.
        lost_before: u64,
    },
}

/// Takes whole lines and never blocks.
pub(crate) struct LogWriter {
    /// Bounded by `waiting`.
    orders: Sender<Order>,
    /// Bytes in the queue.
    waiting: Arc<AtomicUsize>,
    /// Lines lost since the last that was queued.
    lost: AtomicU64,
}

impl LogWriter {
    /// Starts the thread, which writes to `out` and lives as long as the process.
    ///
    /// # Errors
    /// No thread can be had.
    pub(crate) fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let (orders, received) = channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let written = Arc::clone(&waiting);
        // Inherited by the thread: signals are for those who wait for them.
        let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let started = thread::Builder::new()
            .name("log".into())
            .spawn(move || write_orders(&received, &written, out));
        mask.thread_set_mask()?;
        started.map(|_| Self { orders, waiting, lost: AtomicU64::new(0) })
    }

    /// Waits until everything has been written, at most for `patience`. Whether it has.
    pub(crate) fn finish(&self, patience: Duration) -> bool {
        let (teller, told) = sync_channel(1);
        let lost_before = self.lost.swap(0, Ordering::Relaxed);
        let order = Order::Tell { teller, lost_before };
        self.orders.send(order).is_ok() && told.recv_timeout(patience).is_ok()
    }

    /// Queues a line if no more than `len_max` bytes wait then.
    fn queue(&self, line: &[u8], len_max: usize) {
        let len = line.len() + LINE_OVERHEAD;
        let with_line = |waiting: usize| Some(waiting + len).filter(|sum| *sum <= len_max);
        if self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, with_line).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let lost_before = self.lost.swap(0, Ordering::Relaxed);
        // It fails only when the thread is gone, which lives as long as the process.
        let _ = self.orders.send(Order::Write { line: line.to_vec(), lost_before });
    }
}

/// Writes the last line of the program.
impl Write for &LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.queue(line, QUEUE_LEN);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where the log's events go.
pub(crate) struct Lines(pub(crate) Arc<LogWriter>);

impl Lines {
    fn writer(&self, target: &str) -> LineWriter<'_> {
        let len_max = match target {
            LINFO_TARGET => QUEUE_LEN / 2,
            _ => QUEUE_LEN - RESERVE_LEN,
        };
        LineWriter { log: &self.0, len_max }
    }
}

impl<'log> MakeWriter<'log> for Lines {
    type Writer = LineWriter<'log>;

    fn make_writer(&'log self) -> LineWriter<'log> {
        self.writer("")
    }

    fn make_writer_for(&'log self, event: &Metadata<'_>) -> LineWriter<'log> {
        self.writer(event.target())
    }
}

/// Writes one line.
pub(crate) struct LineWriter<'log> {
    log: &'log LogWriter,
    /// How many bytes may wait then.
    len_max: usize,
}

impl Write for LineWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.log.queue(line, self.len_max);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The thread's body. A write that fails loses its text and nothing else.
fn write_orders(orders: &Receiver<Order>, waiting: &AtomicUsize, mut out: impl Write) {
    let mut batch = Vec::with_capacity(BATCH_LEN);
    while let Ok(first) = orders.recv() {
        for order in std::iter::once(first).chain(orders.try_iter()) {
            match order {
                Order::Write { line, lost_before } => {
                    add_gap(lost_before, &mut batch, &mut out);
                    add_line(&line, &mut batch, &mut out);
                    let len = line.len() + LINE_OVERHEAD;
                    drop(line);
                    waiting.fetch_sub(len, Ordering::Relaxed);
                }
                Order::Tell { teller, lost_before } => {
                    add_gap(lost_before, &mut batch, &mut out);
                    write_batch(&mut batch, &mut out);
                    // It fails when nobody waits any more.
                    let _ = teller.try_send(());
                }
            }
        }
        write_batch(&mut batch, &mut out);
    }
}

fn add_gap(lost: u64, batch: &mut Vec<u8>, out: &mut impl Write) {
    if lost > 0 {
        let gap = format!("{lost} log lines are lost: nobody read them in time\n");
        add_line(gap.as_bytes(), batch, out);
    }
}

fn add_line(line: &[u8], batch: &mut Vec<u8>, out: &mut impl Write) {
    if batch.len() + line.len() > BATCH_LEN {
        write_batch(batch, out);
    }
    if line.len() > BATCH_LEN {
        let _ = out.write_all(line);
    } else {
        batch.extend_from_slice(line);
    }
}

fn write_batch(batch: &mut Vec<u8>, out: &mut impl Write) {
    let _ = out.write_all(batch);
    batch.clear();
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::io::{PipeReader, pipe};

    use super::*;

    /// A log whose pipe holds 64 KiB, and which nobody reads.
    fn unread() -> (LogWriter, PipeReader) {
        let (reader, pipe) = pipe().unwrap();
        (LogWriter::start(pipe).unwrap(), reader)
    }

    fn lost(writer: &LogWriter) -> u64 {
        writer.lost.load(Ordering::Relaxed)
    }

    fn reads(reader: &mut PipeReader, expected: &str) {
        let mut read = vec![0; expected.len()];
        reader.read_exact(&mut read).unwrap();
        assert!(read == expected.as_bytes(), "{}", String::from_utf8_lossy(&read));
    }

    #[test]
    fn lines_are_written_in_order_and_those_that_found_no_room_are_counted_in_their_place() {
        let (log, mut reader) = unread();
        let mut writer = &log;
        let line = |number: usize| format!("line {number}\n");
        let mut written = 0;
        while lost(&log) == 0 {
            writer.write_all(line(written).as_bytes()).unwrap();
            written += 1;
        }
        assert!(!log.finish(Duration::ZERO), "nothing is read");
        let kept: String = (0..written - 1).map(line).collect();
        let told = "1 log lines are lost: nobody read them in time\n";
        reads(&mut reader, &format!("{kept}{told}"));
        writer.write_all(b"the next\n").unwrap();
        assert!(log.finish(Duration::from_secs(60)));
        reads(&mut reader, "the next\n");
    }

    /// Writes lines of this length until one is lost; returns how many bytes wait then.
    fn fill(mut writer: LineWriter<'_>, line_len: usize) -> usize {
        let line = vec![b'x'; line_len];
        let before = lost(writer.log);
        let mut written = 0;
        while lost(writer.log) == before {
            // The pipe takes 64 KiB, however short their lines are.
            assert!(written <= 4 * QUEUE_LEN, "no bound");
            writer.write_all(&line).unwrap();
            written += line_len + LINE_OVERHEAD;
        }
        writer.log.waiting.load(Ordering::Relaxed)
    }

    #[test]
    fn what_waits_is_bounded_in_bytes_however_long_or_short_the_lines_are() {
        for line_len in [1, 100_000] {
            let (log, _reader) = unread();
            let lines = Lines(Arc::new(log));
            let waiting = fill(lines.make_writer(), line_len);
            let len_max = QUEUE_LEN - RESERVE_LEN;
            assert!((len_max / 2..=len_max).contains(&waiting), "{waiting}");
        }
    }

    #[test]
    fn what_endpoints_log_leaves_room_for_other_lines_and_those_for_the_last_one() {
        let (log, mut reader) = unread();
        let lines = Lines(Arc::new(log));
        assert!(fill(lines.writer(LINFO_TARGET), 10_000) <= QUEUE_LEN / 2);
        let before = lost(&lines.0);
        lines.make_writer().write_all(b"about others\n").unwrap();
        assert_eq!((before, lost(&lines.0)), (1, 0), "it is queued, and tells of what was lost");
        fill(lines.make_writer(), 10_000);
        (&*lines.0).write_all(b"the last one\n").unwrap();
        assert_eq!(lost(&lines.0), 0, "it is queued");
        thread::spawn(move || lines.0.finish(Duration::from_secs(60)));
        let mut read = String::new();
        let mut piece = [0; 1 << 16];
        while !read.ends_with("the last one\n") {
            let len = reader.read(&mut piece).unwrap();
            read.push_str(str::from_utf8(&piece[..len]).unwrap());
        }
        assert!(read.contains("about others\n"));
    }
}
