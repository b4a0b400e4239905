//! stderr behind a thread of its own, so that a log that nobody reads (a pipe that is held, a terminal stopped with
//! Ctrl-S) holds up no mlet, no signal and no end of the run.
//!
//! Invariant: lines keep their order, and each is written whole or not at all. Those that find the queue full are
//! lost, and their number is written in their place.
//!
//! Not here: what a line looks like (`logging.rs`).

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, SigmaskHow};

/// Lines that may wait to be written; some 3 MiB.
const QUEUE_LEN: usize = 16 * 1024;

/// A pipe takes as much in one piece (PIPE_BUF), so that what mlets write there does not cut our lines.
const BATCH_LEN: usize = 4096;

enum Order {
    Write {
        line: Vec<u8>,
        /// Lines before it that are lost.
        lost_before: u64,
    },
    /// Tell when everything before has been written.
    Tell(SyncSender<()>),
}

/// Takes whole lines and never blocks.
pub(crate) struct LogWriter {
    orders: SyncSender<Order>,
    /// Lines lost since the last that was queued.
    lost: AtomicU64,
}

impl LogWriter {
    /// Starts the thread, which writes to `out` and lives as long as the process.
    ///
    /// # Errors
    /// No thread can be had.
    pub(crate) fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let (orders, received) = sync_channel(QUEUE_LEN);
        // Inherited by the thread: signals are for those who wait for them.
        let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let started =
            thread::Builder::new().name("log".into()).spawn(move || write_orders(&received, out));
        mask.thread_set_mask()?;
        started.map(|_| Self { orders, lost: AtomicU64::new(0) })
    }

    /// Waits until everything has been written, at most for `patience`. Whether it has.
    pub(crate) fn finish(&self, patience: Duration) -> bool {
        let (tell, told) = sync_channel(1);
        self.orders.try_send(Order::Tell(tell)).is_ok() && told.recv_timeout(patience).is_ok()
    }
}

impl Write for &LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let lost_before = self.lost.swap(0, Ordering::Relaxed);
        let order = Order::Write { line: line.to_vec(), lost_before };
        if let Err(TrySendError::Full(_)) = self.orders.try_send(order) {
            self.lost.fetch_add(lost_before + 1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The thread's body. A write that fails loses its text and nothing else.
fn write_orders(orders: &Receiver<Order>, mut out: impl Write) {
    let mut batch = Vec::with_capacity(BATCH_LEN);
    while let Ok(first) = orders.recv() {
        for order in std::iter::once(first).chain(orders.try_iter()) {
            match order {
                Order::Write { line, lost_before } => {
                    if lost_before > 0 {
                        let gap =
                            format!("{lost_before} log lines are lost: nobody read them in time\n");
                        add_line(gap.as_bytes(), &mut batch, &mut out);
                    }
                    add_line(&line, &mut batch, &mut out);
                }
                Order::Tell(teller) => {
                    write_batch(&mut batch, &mut out);
                    // It fails when nobody waits any more.
                    let _ = teller.try_send(());
                }
            }
        }
        write_batch(&mut batch, &mut out);
    }
}

fn add_line(line: &[u8], batch: &mut Vec<u8>, out: &mut impl Write) {
    if batch.len() + line.len() > BATCH_LEN {
        write_batch(batch, out);
    }
    batch.extend_from_slice(line);
}

fn write_batch(batch: &mut Vec<u8>, out: &mut impl Write) {
    let _ = out.write_all(batch);
    batch.clear();
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn lines_are_written_in_order_and_those_that_found_no_room_are_counted_in_their_place() {
        let (mut reader, pipe) = io::pipe().unwrap();
        let mut writer = &LogWriter::start(pipe).unwrap();
        let line = |number: usize| format!("line {number}\n");
        // The pipe holds 64 KiB, and nobody reads it.
        let mut written = 0;
        while writer.lost.load(Ordering::Relaxed) == 0 {
            writer.write_all(line(written).as_bytes()).unwrap();
            written += 1;
        }
        assert!(!writer.finish(Duration::ZERO), "the queue is full");
        let kept: String = (0..written - 1).map(line).collect();
        let mut read = vec![0; kept.len()];
        reader.read_exact(&mut read).unwrap();
        assert_eq!(String::from_utf8(read).unwrap(), kept);
        writer.write_all(b"the next\n").unwrap();
        assert!(writer.finish(Duration::from_secs(60)));
        let rest = b"1 log lines are lost: nobody read them in time\nthe next\n";
        let mut read = vec![0; rest.len()];
        reader.read_exact(&mut read).unwrap();
        assert_eq!(read, rest);
    }
}
