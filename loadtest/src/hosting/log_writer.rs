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
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

/// Bytes of lines that may wait to be written.
const QUEUE_SIZE_MAX: usize = 1 << 20;
/// Lines that may wait; each costs some memory beside its text.
const QUEUE_LEN_MAX: usize = 8 * 1024;

/// Takes whole lines and never blocks.
#[derive(Debug, Clone)]
pub(crate) struct LogWriter {
    orders: SyncSender<Order>,
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
        lost_before: u64,
    },
    /// Tell when everything before has been written.
    Tell(SyncSender<()>),
}

impl LogWriter {
    /// Starts the thread, which writes to `out` as long as the process lives.
    ///
    /// # Errors
    /// No thread can be had.
    pub(crate) fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let (orders, received) = sync_channel(QUEUE_LEN_MAX);
        let queue = Arc::<Queue>::default();
        let of_thread = Arc::clone(&queue);
        let thread = thread::Builder::new().name("log".into());
        thread.spawn(move || write_lines(&received, &of_thread, out))?;
        Ok(Self { orders, queue })
    }

    /// Waits until everything has been written, at most for `patience`. Whether it has.
    pub(crate) fn finish(&self, patience: Duration) -> bool {
        let (tell, told) = sync_channel(1);
        self.orders.try_send(Order::Tell(tell)).is_ok() && told.recv_timeout(patience).is_ok()
    }
}

/// One line for each call, as the formatter of lines does it.
impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let lost_before = self.queue.lost.swap(0, Ordering::Relaxed);
        let size = self.queue.size.fetch_add(line.len(), Ordering::Relaxed) + line.len();
        let order = Order::Write { line: line.to_vec(), lost_before };
        if size > QUEUE_SIZE_MAX || self.orders.try_send(order).is_err() {
            self.queue.size.fetch_sub(line.len(), Ordering::Relaxed);
            self.queue.lost.fetch_add(lost_before + 1, Ordering::Relaxed);
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
                if lost_before > 0 {
                    let _ =
                        writeln!(out, "{lost_before} log lines are lost: nobody read them in time");
                }
                let _ = out.write_all(&line);
                queue.size.fetch_sub(line.len(), Ordering::Relaxed);
            }
            // It fails when nobody waits any more.
            Order::Tell(teller) => drop(teller.try_send(())),
        }
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
}
