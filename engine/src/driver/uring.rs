//! One thread's io_uring, on which operations complete by themselves. Sockets block: waiting is the ring's business.
//!
//! The ring owns whatever the kernel may touch, so nothing that is safe to call can leave the kernel with memory that is
//! gone.
//!
//! Not here: what an operation is for. Invariant: the memory of an operation lives until its completion.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use io_uring::types::{BufRingEntry, CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use nix::libc;
use slab::Slab;
use socket2::SockRef;

use super::operations::{Completion, Driver, Event, GroupSize, Outgoing, Received, Stream};
use super::ring_error::RingError;
use crate::sys::pipes;
use crate::sys::socket::{self, HangUps};

/// Submission queue entries; a fuller turn submits in between.
const SUBMISSION_ENTRIES: u32 = 256;

/// Completion queue entries: many times the submissions, so that a burst does not overflow.
const COMPLETION_ENTRIES: u32 = 4096;

/// A pipe has no place to read from or write to.
const NO_OFFSET: u64 = u64::MAX;

enum Kind {
    Accept,
    Receive { group: u16 },
    Send(Box<[u8]>),
    Watch,
    Cancel,
}

struct Operation<T> {
    token: T,
    kind: Kind,
    /// What it is on.
    descriptor: RawFd,
}

/// The operations that were started last on a descriptor, by [`Kind::place`]. They may be over.
type Latest = [usize; 3];

impl Kind {
    /// Which of the latest it is, if there is one at a time.
    fn place(&self) -> Option<usize> {
        match self {
            Self::Receive { .. } => Some(0),
            Self::Send(_) => Some(1),
            Self::Watch => Some(2),
            Self::Accept | Self::Cancel => None,
        }
    }
}

/// The ring of the calling thread. It must be used from the thread that made it.
pub(crate) struct Uring<T> {
    ring: IoUring,
    operations: Slab<Operation<T>>,
    /// By descriptor.
    latest: Vec<Latest>,
    groups: Vec<BufferGroup>,
    hang_ups: HangUps,
    enters: u64,
}

impl<T: Copy> Uring<T> {
    /// A ring with the given buffer groups, numbered from 0.
    ///
    /// # Errors
    /// The kernel refuses; the message names the cure.
    pub(crate) fn new(groups: &[GroupSize]) -> Result<Self, RingError> {
        let mut ring = Self::set_up()?;
        prove(&mut ring).map_err(|source| RingError { doing: "io_uring_enter", source })?;
        let groups = groups
            .iter()
            .enumerate()
            .map(|(index, size)| BufferGroup::register(&ring, index as u16, *size))
            .collect::<io::Result<_>>()
            .map_err(|source| RingError { doing: "io_uring_register", source })?;
        let hang_ups = HangUps::new();
        let hang_ups = hang_ups.map_err(|source| RingError { doing: "epoll_create1", source })?;
        Ok(Self { ring, operations: Slab::new(), latest: Vec::new(), groups, hang_ups, enters: 0 })
    }

    /// Tries for up to a second: the kernel frees the locked memory of a ring some milliseconds after
    /// its process ended, so a restart right behind another may find none. Then half the entries are tried.
    fn set_up() -> Result<IoUring, RingError> {
        const PATIENCE: Duration = Duration::from_secs(1);
        #[expect(clippy::disallowed_methods, reason = "this is the shell, before any machine runs")]
        let started = Instant::now();
        let build = |share: u32| {
            IoUring::builder()
                .setup_cqsize(COMPLETION_ENTRIES / share)
                .setup_submit_all()
                .setup_single_issuer()
                .setup_defer_taskrun()
                .build(SUBMISSION_ENTRIES / share)
        };
        let is_short = |made: &io::Result<IoUring>| {
            made.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::ENOMEM))
        };
        let mut made = build(1);
        while is_short(&made) && started.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(20));
            made = build(1);
        }
        if is_short(&made) {
            made = build(2);
        }
        made.map_err(|source| RingError { doing: "io_uring_setup", source })
    }

    fn interpret(&mut self, entry: &cqueue::Entry, kind: Kind) -> Event {
        let result = match entry.result() {
            errno if errno < 0 => Err(io::Error::from_raw_os_error(-errno)),
            value => Ok(value as usize),
        };
        match kind {
            Kind::Accept => Event::Accepted(result.map(|fd| owned(fd as RawFd))),
            Kind::Send(block) => Event::Sent(block, result),
            Kind::Watch => Event::Readable,
            Kind::Cancel => Event::CancelDone,
            Kind::Receive { group } => {
                let buffer = cqueue::buffer_select(entry.flags());
                match result {
                    Ok(len) => Event::Received(Ok(Received { group, buffer, len })),
                    Err(error) => {
                        self.give_back(Received { group, buffer, len: 0 });
                        Event::Received(Err(error))
                    }
                }
            }
        }
    }

    fn receive_entry(&self, from: Stream<'_>, group: u16) -> squeue::Entry {
        let len = self.groups[usize::from(group)].size.len;
        let entry = match from {
            Stream::Socket(socket) => {
                opcode::Recv::new(fd(socket), std::ptr::null_mut(), len).buf_group(group).build()
            }
            Stream::Pipe(pipe) => opcode::Read::new(fd(pipe), std::ptr::null_mut(), len)
                .offset(NO_OFFSET)
                .buf_group(group)
                .build(),
        };
        entry.flags(squeue::Flags::BUFFER_SELECT)
    }

    fn start(&mut self, entry: squeue::Entry, on: Fd, token: T, kind: Kind) {
        let entry = self.enroll(entry, on, token, kind);
        self.queue(&[entry]);
    }

    /// Notes an operation, to be known by its completion.
    fn enroll(
        &mut self,
        entry: squeue::Entry,
        Fd(descriptor): Fd,
        token: T,
        kind: Kind,
    ) -> squeue::Entry {
        let place = kind.place();
        let key = self.operations.insert(Operation { token, kind, descriptor });
        if let Some(place) = place {
            let index = descriptor as usize;
            if index >= self.latest.len() {
                self.latest.resize(index + 1, [usize::MAX; 3]);
            }
            self.latest[index][place] = key;
        }
        entry.user_data(key as u64)
    }

    /// The one operation that is under way on a descriptor, if there is no other. Of accepts there may be several.
    pub(super) fn sole_operation(&self, on: BorrowedFd<'_>) -> Option<usize> {
        let descriptor = on.as_raw_fd();
        // The key of one that is over may be that of another now.
        let is_under_way = |(place, key): &(usize, usize)| {
            self.operations.get(*key).is_some_and(|operation| {
                operation.descriptor == descriptor && operation.kind.place() == Some(*place)
            })
        };
        let latest = *self.latest.get(descriptor as usize)?;
        let mut under_way = latest.into_iter().enumerate().filter(is_under_way);
        let (_, sole) = under_way.next()?;
        under_way.next().is_none().then_some(sole)
    }

    /// Queues entries for one submission: links must not be torn.
    fn queue(&mut self, entries: &[squeue::Entry]) {
        while !self.push(entries) {
            self.enters += 1;
            // Nothing is lost when this fails: the entries stay queued and the next wait tells why.
            let _ = self.ring.submit();
        }
    }

    #[allow(unsafe_code)]
    fn push(&mut self, entries: &[squeue::Entry]) -> bool {
        // SAFETY: what an entry points to is a block that `operations` owns until the entry's completion,
        // or a buffer group that lives as long as the ring; `Drop` leaks both if some are in flight.
        unsafe { self.ring.submission().push_multiple(entries) }.is_ok()
    }
}

impl<T: Copy> Driver<T> for Uring<T> {
    fn prepare(&mut self, socket: BorrowedFd<'_>) {
        let _ = SockRef::from(&socket).set_nonblocking(false);
    }

    fn close(&mut self, socket: OwnedFd) {
        drop(socket);
    }

    fn session_pair(&mut self) -> io::Result<(OwnedFd, OwnedFd)> {
        socket::session_pair()
    }

    fn session_pipes(&mut self) -> io::Result<([OwnedFd; 2], [OwnedFd; 2])> {
        pipes::session_pipes()
    }

    fn has_hung_up(&self, socket: BorrowedFd<'_>) -> bool {
        self.hang_ups.has_come(socket)
    }

    fn lost_completions(&mut self) -> u64 {
        u64::from(self.ring.completion().overflow())
    }

    fn enters(&self) -> u64 {
        self.enters
    }

    fn accept(&mut self, listener: BorrowedFd<'_>, token: T) {
        let entry = opcode::Accept::new(fd(listener), std::ptr::null_mut(), std::ptr::null_mut())
            .flags(libc::SOCK_CLOEXEC)
            .build();
        self.start(entry, fd(listener), token, Kind::Accept);
    }

    fn receive(&mut self, from: Stream<'_>, group: u16, token: T) {
        let entry = self.receive_entry(from, group);
        self.start(entry, fd(from.as_fd()), token, Kind::Receive { group });
    }

    fn send(&mut self, to: Stream<'_>, outgoing: Outgoing, token: T) {
        let entry = send_entry(to, &outgoing, 0);
        self.start(entry, fd(to.as_fd()), token, Kind::Send(outgoing.block));
    }

    fn send_then_receive(
        &mut self,
        (to, outgoing, send_token): (Stream<'_>, Outgoing, T),
        (from, group, receive_token): (Stream<'_>, u16, T),
    ) {
        // Only a send that must be whole breaks the link when it is short; a write to a pipe always does.
        let send = send_entry(to, &outgoing, libc::MSG_WAITALL).flags(squeue::Flags::IO_LINK);
        let send = self.enroll(send, fd(to.as_fd()), send_token, Kind::Send(outgoing.block));
        let receive = self.receive_entry(from, group);
        let receive =
            self.enroll(receive, fd(from.as_fd()), receive_token, Kind::Receive { group });
        self.queue(&[send, receive]);
    }

    fn watch(&mut self, watched: BorrowedFd<'_>, token: T) {
        let entry = opcode::PollAdd::new(fd(watched), libc::POLLIN as u32).build();
        self.start(entry, fd(watched), token, Kind::Watch);
    }

    fn cancel(&mut self, target: BorrowedFd<'_>, token: T) {
        // By a descriptor, the kernel looks at each operation of the ring that waits: with thousands of sessions, 0.4 ms.
        let what = match self.sole_operation(target) {
            Some(key) => CancelBuilder::user_data(key as u64),
            None => CancelBuilder::fd(fd(target)).all(),
        };
        self.start(opcode::AsyncCancel2::new(what).build(), fd(target), token, Kind::Cancel);
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.enters += 1;
        let entered = match timeout {
            None => self.ring.submit_and_wait(1),
            Some(timeout) => {
                let timespec = Timespec::from(timeout);
                self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&timespec))
            }
        };
        match entered {
            Ok(_) => Ok(()),
            // A timeout, a signal, or completions that must be taken first: all are reasons to look.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN)
                ) =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn completions(&mut self) -> usize {
        self.ring.completion().len()
    }

    fn next_completion(&mut self) -> Option<Completion<T>> {
        let entry = self.ring.completion().next()?;
        let operation = self.operations.remove(entry.user_data() as usize);
        let event = self.interpret(&entry, operation.kind);
        Some(Completion { token: operation.token, event })
    }

    fn bytes(&self, received: &Received) -> &[u8] {
        match received.buffer {
            Some(buffer) => self.groups[usize::from(received.group)].bytes(buffer, received.len),
            None => &[],
        }
    }

    fn give_back(&mut self, received: Received) {
        if let Some(buffer) = received.buffer {
            self.groups[usize::from(received.group)].give(buffer);
        }
    }
}

impl<T> Drop for Uring<T> {
    fn drop(&mut self) {
        if !self.operations.is_empty() {
            // The kernel may go on using them for a while after the ring is closed.
            std::mem::forget(std::mem::take(&mut self.operations));
            std::mem::forget(std::mem::take(&mut self.groups));
        }
    }
}

/// Does nothing with the ring, once: it may be barred from being entered though it could be set up.
#[allow(unsafe_code)]
fn prove(ring: &mut IoUring) -> io::Result<()> {
    let nothing = opcode::Nop::new().build();
    // SAFETY: this operation uses no memory.
    let pushed = unsafe { ring.submission().push(&nothing) };
    pushed.map_err(io::Error::other)?;
    while ring.completion().next().is_none() {
        match ring.submit_and_wait(1) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn send_entry(to: Stream<'_>, outgoing: &Outgoing, flags: i32) -> squeue::Entry {
    let bytes = &outgoing.block[outgoing.start..outgoing.end];
    let (bytes, len) = (bytes.as_ptr(), bytes.len() as u32);
    match to {
        Stream::Socket(socket) => {
            opcode::Send::new(fd(socket), bytes, len).flags(libc::MSG_NOSIGNAL | flags).build()
        }
        // SIGPIPE is ignored, as in every program in Rust.
        Stream::Pipe(pipe) => opcode::Write::new(fd(pipe), bytes, len).offset(NO_OFFSET).build(),
    }
}

fn fd(borrowed: BorrowedFd<'_>) -> Fd {
    Fd(borrowed.as_raw_fd())
}

#[allow(unsafe_code)]
fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just made this descriptor for us and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Entries of the largest group; they fill one page.
const GROUP_ENTRIES_MAX: usize = 256;

/// The ring of a group's entries, on a page of its own as the kernel wants it.
#[repr(C, align(4096))]
struct EntryPage([[u64; 2]; GROUP_ENTRIES_MAX]);

/// Receive buffers that the kernel picks from.
struct BufferGroup {
    size: GroupSize,
    entries: NonNull<EntryPage>,
    memory: NonNull<u8>,
    tail: u16,
}

impl BufferGroup {
    fn register(ring: &IoUring, group: u16, size: GroupSize) -> io::Result<Self> {
        assert!(size.count.is_power_of_two() && usize::from(size.count) <= GROUP_ENTRIES_MAX);
        let entries = Box::new(EntryPage([[0; 2]; GROUP_ENTRIES_MAX]));
        let memory = vec![0_u8; usize::from(size.count) * size.len as usize].into_boxed_slice();
        let mut made = Self {
            size,
            entries: NonNull::from(Box::leak(entries)),
            memory: NonNull::from(Box::leak(memory)).cast(),
            tail: 0,
        };
        made.hand_to_kernel(ring, group)?;
        for buffer in 0..size.count {
            made.give(buffer);
        }
        Ok(made)
    }

    #[allow(unsafe_code)]
    fn hand_to_kernel(&self, ring: &IoUring, group: u16) -> io::Result<()> {
        let address = self.entries.as_ptr() as u64;
        // SAFETY: the page holds at least `count` entries and is freed only after the ring is closed.
        unsafe { ring.submitter().register_buf_ring_with_flags(address, self.size.count, group, 0) }
    }

    /// Offers `buffer` to the kernel.
    #[allow(unsafe_code)]
    fn give(&mut self, buffer: u16) {
        let base: *mut BufRingEntry = self.entries.as_ptr().cast();
        let slot = usize::from(self.tail & (self.size.count - 1));
        // SAFETY: `slot` is below `count`, so the entry lies in the page.
        let entry = unsafe { base.add(slot) };
        // SAFETY: the kernel reads an entry only after the tail has moved past it, which is below.
        let entry = unsafe { &mut *entry };
        entry.set_addr(self.address(buffer) as u64);
        entry.set_len(self.size.len);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: `base` is the address of the first entry of a registered ring.
        let tail = unsafe { BufRingEntry::tail(base) };
        // SAFETY: the tail is a u16 in the page that the kernel only reads, atomically.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    fn address(&self, buffer: u16) -> *mut u8 {
        debug_assert!(buffer < self.size.count);
        self.memory.as_ptr().wrapping_add(usize::from(buffer) * self.size.len as usize)
    }

    #[allow(unsafe_code)]
    fn bytes(&self, buffer: u16, len: usize) -> &[u8] {
        assert!(buffer < self.size.count && len <= self.size.len as usize);
        // SAFETY: the range lies in the group's memory, and the kernel does not write to a buffer
        // between its completion and its return through `give`, which needs `&mut self`.
        unsafe { std::slice::from_raw_parts(self.address(buffer), len) }
    }
}

impl Drop for BufferGroup {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: it was leaked from a Box of this type, and no operation can use it any more: the ring
        // is dropped first, and leaks its groups if operations are in flight.
        drop(unsafe { Box::from_raw(self.entries.as_ptr()) });
        let len = usize::from(self.size.count) * self.size.len as usize;
        let memory = std::ptr::slice_from_raw_parts_mut(self.memory.as_ptr(), len);
        // SAFETY: as above; pointer and length are those of the leaked slice.
        drop(unsafe { Box::from_raw(memory) });
    }
}
