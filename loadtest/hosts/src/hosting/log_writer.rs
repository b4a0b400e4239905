//! stderr behind a thread of its own: a log that nobody reads (a pipe that is held, a terminal stopped with
//! Ctrl-S) holds up no connection.
//!
//! Not here: which lines there are. What pktxpmgr has for the same purpose is in `cli`, on which nothing
//! depends.
//!
//! Invariant: lines keep their order, and each is written whole or not at all. Those that find the queue
//! full are lost, and their number is written in their place.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::Duration;

/// Bytes of lines that may wait to be written.
const QUEUE_SIZE_MAX: usize = 1 << 20;
/// What a line takes in the queue beside its text.
const LINE_OVERHEAD: usize = 64;

/// Takes whole lines and never blocks.
#[derive(Debug, Clone)]
pub(crate) struct LogWriter {
    /// Bounded by the size of the queue.
    orders: Sender<Order>,
    queue: Arc<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    /// Bytes that wait.
    size: AtomicUsize,
    /// Lines lost since the last that was queued.
    lost: AtomicU64,
}

#[derive(Debug)]
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

impl LogWriter {
    /// Starts the thread, which writes to `out` as long as the process lives.
    ///
    /// # Errors
    /// No thread can be had.
    pub(crate) fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let (orders, received) = channel();
        let queue = Arc::<Queue>::default();
        let of_thread = Arc::clone(&queue);
        let thread = thread::Builder::new().name("log".into());
        thread.spawn(move || write_lines(&received, &of_thread, out))?;
        Ok(Self { orders, queue })
    }

    /// Waits until everything has been written, and how many lines are lost, at most for `patience`. Whether
    /// it has.
    pub(crate) fn finish(&self, patience: Duration) -> bool {
        let (teller, told) = sync_channel(1);
        let lost_before = self.queue.lost.swap(0, Ordering::Relaxed);
        let order = Order::Tell { teller, lost_before };
        self.orders.send(order).is_ok() && told.recv_timeout(patience).is_ok()
    }
}

/// One line for each call, as the formatter of lines does it.
impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let Queue { size, lost } = &*self.queue;
        let with_line = |waiting: usize| {
            Some(waiting + line.len() + LINE_OVERHEAD).filter(|sum| *sum <= QUEUE_SIZE_MAX)
        };
        if size.fetch_update(Ordering::Relaxed, Ordering::Relaxed, with_line).is_ok() {
            let lost_before = lost.swap(0, Ordering::Relaxed);
            // It fails only when the thread is gone, which lives as long as the process.
            let _ = self.orders.send(Order::Write { line: line.to_vec(), lost_before });
        } else {
            lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The thread's body. A write that fails loses its text and nothing else.
fn write_lines(orders: &Receiver<Order>, queue: &Queue, mut out: impl Write) {
    while let Ok(order) = orders.recv() {
        match order {
            Order::Write { line, lost_before } => {
                tell_lost(lost_before, &mut out);
                let _ = out.write_all(&line);
                queue.size.fetch_sub(line.len() + LINE_OVERHEAD, Ordering::Relaxed);
            }
            Order::Tell { teller, lost_before } => {
                tell_lost(lost_before, &mut out);
                // It fails when nobody waits any more.
                let _ = teller.try_send(());
            }
        }
    }
}

fn tell_lost(lost: u64, out: &mut impl Write) {
    if lost > 0 {
        let _ = writeln!(out, "{lost} log lines are lost: nobody read them in time");
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_log_that_nobody_reads_keeps_a_mebibyte_and_counts_the_rest() {
        let (mut reader, pipe) = io::pipe().unwrap();
        let mut writer = LogWriter::start(pipe).unwrap();
        let line = |number: usize| format!("line {number:>4090}\n");
        let mut written = 0;
        while writer.queue.lost.load(Ordering::Relaxed) == 0 {
            writer.write_all(line(written).as_bytes()).unwrap();
            written += 1;
        }
        // A pipe holds 64 KiB, and the thread one line.
        assert!(written * 4096 < QUEUE_SIZE_MAX + 80 * 1024, "{written} lines were kept");
        assert!(!writer.finish(Duration::ZERO), "nobody has read them");
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

    /// However full the queue is when the program ends, of short lines or long ones.
    #[test]
    fn the_end_waits_for_the_queue_and_tells_how_many_lines_are_lost() {
        for len in [1, 4096] {
            let (mut reader, pipe) = io::pipe().unwrap();
            let mut writer = LogWriter::start(pipe).unwrap();
            let line = [&vec![b'x'; len - 1][..], b"\n"].concat();
            while writer.queue.lost.load(Ordering::Relaxed) < 3 {
                writer.write_all(&line).unwrap();
            }
            let (sender, told) = sync_channel(1);
            thread::spawn(move || {
                let (mut all, mut some) = (Vec::new(), vec![0; 1 << 16]);
                while !all.ends_with(b"\n3 log lines are lost: nobody read them in time\n") {
                    let len = reader.read(&mut some).unwrap();
                    all.extend_from_slice(&some[..len]);
                }
                sender.send(()).unwrap();
            });
            assert!(writer.finish(Duration::from_secs(60)), "lines of {len}");
            told.recv_timeout(Duration::from_secs(60)).expect("how many are lost is told");
        }
    }
}
