//! A log behind a thread of its own, so that one that nobody reads (a pipe that is held, a terminal stopped with Ctrl-S)
//! holds up no mlet, no signal, no connection and no end of the run.
//!
//! Invariant: lines keep their order, and each is written whole or not at all. Those that find no room in the queue are
//! lost, and their number is written in their place; so are those that nothing takes, as on a full disk, whose number is
//! written when something does. What waits is bounded in bytes. Lines that come shortly behind others
//! are written together, some milliseconds later.
//!
//! Beside its lines there may be one that is rewritten (`status_line.rs`): whoever has the log has both, so that they never
//! tear each other.
//!
//! Not here: what a line looks like, how many bytes may wait, and the writing itself (`paper.rs`).

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use guards::{Guard, holds};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use tracing::Metadata;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::paper::Paper;

/// What a line takes in the queue beside its text.
const LINE_OVERHEAD: usize = 64;

/// Pause between two writes: what is logged meanwhile goes out in one piece, and wakes nobody.
const PAUSE: Duration = Duration::from_millis(5);

/// What is logged after so many `-v` and `-q`.
#[must_use]
pub fn level(verbose: u8, quiet: u8) -> LevelFilter {
    match i16::from(verbose) - i16::from(quiet) {
        ..=-2 => LevelFilter::ERROR,
        -1 => LevelFilter::WARN,
        0 => LevelFilter::INFO,
        1 => LevelFilter::DEBUG,
        2.. => LevelFilter::TRACE,
    }
}

/// A text of the log's own as a plain line.
#[must_use]
pub fn plain(text: &str) -> String {
    format!("{text}\n")
}

#[derive(Debug)]
enum Order {
    Write {
        line: Vec<u8>,
        /// Lines before it that are lost.
        lost_before: u64,
    },
    /// The line beside the others says something else.
    ShowStatus,
    /// Tell when everything before has been written.
    Tell {
        teller: SyncSender<()>,
        /// As above.
        lost_before: u64,
    },
}

/// Takes whole lines and never blocks.
#[derive(Debug)]
pub struct LogWriter {
    /// Bounded by `waiting`.
    orders: Sender<Order>,
    /// Bytes in the queue.
    waiting: Arc<AtomicUsize>,
    /// Lines lost since the last that was queued.
    lost: AtomicU64,
    /// All lines that were lost.
    lost_in_all: Arc<AtomicU64>,
    /// What the line beside the others is to say, until the thread has taken it.
    status: Arc<Mutex<Option<String>>>,
}

impl LogWriter {
    /// Starts the thread, which writes to `out` and lives as long as the process. `told` is what is written of a text of
    /// its own, with the line's end.
    ///
    /// # Errors
    /// No thread can be had.
    pub fn start(out: impl Write + Send + 'static, told: fn(&str) -> String) -> io::Result<Self> {
        let (orders, received) = channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let written = Arc::clone(&waiting);
        let status = Arc::<Mutex<Option<String>>>::default();
        let (lost, lost_in_all) = (AtomicU64::new(0), Arc::default());
        let (status_of_thread, lost_of_thread) = (Arc::clone(&status), Arc::clone(&lost_in_all));
        // Inherited by the thread: signals are for those who wait for them.
        let mut before = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&SigSet::all()), Some(&mut before))?;
        let started = thread::Builder::new().name("log".into()).spawn(move || {
            let paper = Paper::new((out, told), lost_of_thread);
            write_orders(&received, &written, &status_of_thread, paper);
        });
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None)?;
        started.map(|_| Self { orders, waiting, lost, lost_in_all, status })
    }

    /// For one line, which is lost if more than `len_max` bytes would wait with it.
    #[must_use]
    pub fn line(&self, len_max: usize) -> LineWriter<'_> {
        LineWriter { log: self, len_max }
    }

    /// Waits until everything has been written, and how many lines are lost, at most for `patience`. Whether it has.
    pub fn finish(&self, patience: Duration) -> bool {
        let (teller, told) = sync_channel(1);
        let lost_before = self.lost.swap(0, Ordering::Relaxed);
        let order = Order::Tell { teller, lost_before };
        self.orders.send(order).is_ok() && told.recv_timeout(patience).is_ok()
    }

    /// Lets the line beside the others say this, or takes it away where there is nothing to say. For a terminal.
    pub(crate) fn show_status(&self, text: &str) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        // One that has not been taken has its order under way, however long nobody reads.
        if status.replace(text.to_owned()).is_none() {
            let _ = self.orders.send(Order::ShowStatus);
        }
    }

    /// How many lines have been lost, to be read while the log goes on.
    #[must_use]
    pub fn lost_in_all(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.lost_in_all)
    }

    fn queue(&self, line: &[u8], len_max: usize) {
        let len = line.len() + LINE_OVERHEAD;
        let len_max = if holds(Guard::BoundsWaitingLog) { len_max } else { usize::MAX };
        let with_line = |waiting: usize| Some(waiting + len).filter(|sum| *sum <= len_max);
        if self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, with_line).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
            self.lost_in_all.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let lost_before = self.lost.swap(0, Ordering::Relaxed);
        // It fails only when the thread is gone, which lives as long as the process.
        let _ = self.orders.send(Order::Write { line: line.to_vec(), lost_before });
    }
}

/// Where a log's events go.
#[derive(Debug)]
pub struct Lines {
    /// What writes them.
    pub log: Arc<LogWriter>,
    /// How many bytes may wait with a line of this target; the empty one is any.
    pub room: fn(target: &str) -> usize,
}

impl<'log> MakeWriter<'log> for Lines {
    type Writer = LineWriter<'log>;

    fn make_writer(&'log self) -> LineWriter<'log> {
        self.log.line((self.room)(""))
    }

    fn make_writer_for(&'log self, event: &Metadata<'_>) -> LineWriter<'log> {
        self.log.line((self.room)(event.target()))
    }
}

/// Writes one line for each call, as the formatter of lines does it.
#[derive(Debug)]
pub struct LineWriter<'log> {
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

/// The thread's body.
fn write_orders(
    orders: &Receiver<Order>,
    waiting: &AtomicUsize,
    status: &Mutex<Option<String>>,
    mut paper: Paper<impl Write>,
) {
    while let Ok(first) = orders.recv() {
        for order in std::iter::once(first).chain(orders.try_iter()) {
            match order {
                Order::Write { line, lost_before } => {
                    paper.add_gap(lost_before);
                    paper.add_line(&line);
                    let len = line.len() + LINE_OVERHEAD;
                    drop(line);
                    waiting.fetch_sub(len, Ordering::Relaxed);
                }
                Order::ShowStatus => {
                    let text = status.lock().unwrap_or_else(PoisonError::into_inner).take();
                    paper.show_status(text.unwrap_or_default());
                }
                Order::Tell { teller, lost_before } => {
                    paper.add_gap(lost_before);
                    paper.write_batch();
                    // It fails when nobody waits any more.
                    let _ = teller.try_send(());
                }
            }
        }
        paper.write_batch();
        thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::io::{PipeReader, pipe};
    use std::os::fd::AsFd;
    use std::time::Instant;

    use nix::poll::{PollFd, PollFlags, poll};

    use super::*;

    const QUEUE_LEN: usize = 4 << 20;
    const HALF: &str = "half";

    fn room(target: &str) -> usize {
        if target == HALF { QUEUE_LEN / 2 } else { QUEUE_LEN - (64 << 10) }
    }

    /// A log whose pipe holds 64 KiB, and which nobody reads.
    fn unread() -> (LogWriter, PipeReader) {
        let (reader, pipe) = pipe().unwrap();
        (LogWriter::start(pipe, plain).unwrap(), reader)
    }

    fn lost(writer: &LogWriter) -> u64 {
        writer.lost.load(Ordering::Relaxed)
    }

    fn reads(reader: &mut PipeReader, expected: &str) {
        let (mut read, mut piece) = (Vec::new(), vec![0; expected.len()]);
        while read.len() < expected.len() {
            let mut ready = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
            assert_eq!(poll(&mut ready, 20_000_u16), Ok(1), "only {:?}", shown(&read));
            let len = reader.read(&mut piece[..expected.len() - read.len()]).unwrap();
            read.extend_from_slice(&piece[..len]);
        }
        assert!(read == expected.as_bytes(), "{:?}", shown(&read));
    }

    fn shown(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    /// Reads in a thread of its own until `end` is there; all that was read.
    fn read_until(mut reader: PipeReader, end: &'static str) -> thread::JoinHandle<String> {
        thread::spawn(move || {
            let (mut read, mut piece) = (String::new(), [0; 1 << 16]);
            while !read.ends_with(end) {
                let len = reader.read(&mut piece).unwrap();
                read.push_str(str::from_utf8(&piece[..len]).unwrap());
            }
            read
        })
    }

    #[test]
    fn each_v_shows_more_and_each_q_less() {
        let cases = [
            ((0, 0), LevelFilter::INFO),
            ((1, 0), LevelFilter::DEBUG),
            ((2, 0), LevelFilter::TRACE),
            ((9, 0), LevelFilter::TRACE),
            ((0, 1), LevelFilter::WARN),
            ((0, 2), LevelFilter::ERROR),
            ((1, 1), LevelFilter::INFO),
            ((u8::MAX, u8::MAX), LevelFilter::INFO),
        ];
        for ((verbose, quiet), expected) in cases {
            assert_eq!(level(verbose, quiet), expected, "-v x{verbose}, -q x{quiet}");
        }
    }

    #[test]
    fn lines_are_written_in_order_and_those_that_found_no_room_are_counted_in_their_place() {
        let (log, mut reader) = unread();
        let mut writer = log.line(QUEUE_LEN);
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
        assert_eq!(log.lost_in_all().load(Ordering::Relaxed), 1);
    }

    /// Writes lines of this length until one is lost; returns how many bytes wait then.
    fn fill(mut writer: LineWriter<'_>, line_len: usize) -> usize {
        let line = [&vec![b'x'; line_len - 1][..], b"\n"].concat();
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
            let waiting = fill(log.line(QUEUE_LEN), line_len);
            assert!((QUEUE_LEN / 2..=QUEUE_LEN).contains(&waiting), "{waiting}");
        }
    }

    #[test]
    fn lines_that_may_take_half_of_the_room_leave_the_rest_to_others() {
        let (log, reader) = unread();
        let lines = Lines { log: Arc::new(log), room };
        assert!(fill(lines.log.line((lines.room)(HALF)), 10_000) <= QUEUE_LEN / 2);
        let before = lost(&lines.log);
        lines.make_writer().write_all(b"about others\n").unwrap();
        assert_eq!((before, lost(&lines.log)), (1, 0), "it is queued, and tells of what was lost");
        fill(lines.make_writer(), 10_000);
        lines.log.line(QUEUE_LEN).write_all(b"the last one\n").unwrap();
        assert_eq!(lost(&lines.log), 0, "it is queued");
        let read = read_until(reader, "the last one\n");
        assert!(lines.log.finish(Duration::from_secs(60)));
        assert!(read.join().unwrap().contains("about others\n"));
    }

    #[test]
    fn lines_that_come_right_behind_others_wait_for_a_pause() {
        let (log, mut reader) = unread();
        let mut writer = log.line(QUEUE_LEN);
        #[expect(clippy::disallowed_methods, reason = "how long it takes is what is tested")]
        let began = Instant::now();
        for line in ["the first\n", "the second\n"] {
            writer.write_all(line.as_bytes()).unwrap();
            reads(&mut reader, line);
        }
        assert!(began.elapsed() >= PAUSE);
    }

    /// However full the queue is when the program ends, of short lines or long ones.
    #[test]
    fn the_end_waits_for_the_queue_and_tells_how_many_lines_are_lost() {
        for len in [1, 4096] {
            let (log, reader) = unread();
            let line = [&vec![b'x'; len - 1][..], b"\n"].concat();
            while lost(&log) < 3 {
                log.line(1 << 20).write_all(&line).unwrap();
            }
            let read = read_until(reader, "\n3 log lines are lost: nobody read them in time\n");
            assert!(log.finish(Duration::from_secs(60)), "lines of {len}");
            read.join().unwrap();
        }
    }

    /// The first line fills the pipe, behind which a thousand statuses find the thread that writes.
    #[test]
    fn of_the_statuses_that_nobody_reads_the_last_alone_waits() {
        let (log, mut reader) = unread();
        let line = format!("{}\n", "x".repeat(1 << 17));
        log.line(1 << 20).write_all(line.as_bytes()).unwrap();
        for number in 0..1_000 {
            log.show_status(&format!("{number} run"));
        }
        let read = thread::spawn(move || {
            let mut read = String::new();
            reader.read_to_string(&mut read).unwrap();
            read
        });
        assert!(log.finish(Duration::from_secs(60)));
        // The thread ends, and with it the pipe.
        drop(log);
        assert_eq!(read.join().unwrap()[line.len()..], *"\r\x1b[K999 run");
    }

    /// Takes no more than there is room for, as a full disk.
    struct Disk(Arc<Mutex<(Vec<u8>, usize)>>);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (written, room) = &mut *self.0.lock().unwrap();
            let len = bytes.len().min(*room);
            if len == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            *room -= len;
            written.extend_from_slice(&bytes[..len]);
            Ok(len)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_a_full_disk_does_not_take_are_counted_and_told_of_when_there_is_room() {
        let disk = Arc::new(Mutex::new((Vec::new(), "one\ntw".len())));
        let log = LogWriter::start(Disk(Arc::clone(&disk)), plain).unwrap();
        let write = |text: &str| {
            log.line(QUEUE_LEN).write_all(text.as_bytes()).unwrap();
            assert!(log.finish(Duration::from_secs(60)));
        };
        ["one\n", "two\n", "three\n"].into_iter().for_each(write);
        assert_eq!(log.lost_in_all().load(Ordering::Relaxed), 2);
        disk.lock().unwrap().1 = usize::MAX;
        ["four\n", "five\n"].into_iter().for_each(write);
        let told = "one\ntw\n2 log lines are lost: they could not be written\nfour\nfive\n";
        assert_eq!(shown(&disk.lock().unwrap().0), told);
        assert_eq!(log.lost_in_all().load(Ordering::Relaxed), 2);
    }

    #[test]
    fn lines_stand_above_the_status_which_is_written_again_behind_them() {
        let (log, mut reader) = unread();
        log.line(QUEUE_LEN).write_all(b"before\n").unwrap();
        log.show_status("1 runs");
        assert!(log.finish(Duration::from_secs(60)));
        reads(&mut reader, "before\n\r\x1b[K1 runs");
        log.line(QUEUE_LEN).write_all(b"beside\n").unwrap();
        assert!(log.finish(Duration::from_secs(60)));
        reads(&mut reader, "\r\x1b[Kbeside\n\r\x1b[K1 runs");
        log.show_status("");
        log.show_status("");
        log.line(QUEUE_LEN).write_all(b"behind\n").unwrap();
        assert!(log.finish(Duration::from_secs(60)));
        reads(&mut reader, "\r\x1b[Kbehind\n");
    }
}
