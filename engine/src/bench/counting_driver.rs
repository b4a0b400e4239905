//! The simulated driver, whose calls are counted and set apart from the work of the shard that makes them.
//!
//! Counted is what would be an operation or a system call: to start an operation, to wait, to close, to make, shut down or
//! ask a socket. Not counted: what a driver does in its own memory. Invariant: nothing but the counting is
//! added to the shard's work.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use packetlab::time::Ticks;

use crate::driver::simulated::Simulated;
use crate::driver::{Completion, Driver, Outgoing, Received, Stream};
use crate::shard::Token;
use crate::sys::mlet_ends::MletEnds;

/// Runs the work that it is given, which is the kernel's and not the shard's, so that a count can leave it out.
pub type Apart = fn(&mut dyn FnMut());

/// The driver.
pub(super) struct CountingDriver {
    simulated: Simulated<Token>,
    apart: Apart,
    calls: u64,
}

impl CountingDriver {
    /// Runs what stands for the kernel within `apart`.
    pub(super) fn new(simulated: Simulated<Token>, apart: Apart) -> Self {
        Self { simulated, apart, calls: 0 }
    }

    /// How many calls have been made.
    pub(super) fn calls(&self) -> u64 {
        self.calls
    }

    fn count<R>(&mut self, call: impl FnOnce(&mut Simulated<Token>) -> R) -> R {
        self.calls += 1;
        self.set_apart(call)
    }

    fn set_apart<R>(&mut self, call: impl FnOnce(&mut Simulated<Token>) -> R) -> R {
        let (mut call, mut result) = (Some(call), None);
        (self.apart)(&mut || result = call.take().map(|call| call(&mut self.simulated)));
        result.expect("what is set apart is run, once")
    }
}

impl Driver<Token> for CountingDriver {
    fn prepare(&mut self, socket: BorrowedFd<'_>) {
        self.set_apart(|driver| driver.prepare(socket));
    }

    fn accept(&mut self, listener: BorrowedFd<'_>, token: Token) {
        self.count(|driver| driver.accept(listener, token));
    }

    fn receive(&mut self, from: Stream<'_>, group: u16, token: Token) {
        self.count(|driver| driver.receive(from, group, token));
    }

    fn send(&mut self, to: Stream<'_>, outgoing: Outgoing, token: Token) {
        self.count(|driver| driver.send(to, outgoing, token));
    }

    fn send_then_receive(
        &mut self,
        send: (Stream<'_>, Outgoing, Token),
        receive: (Stream<'_>, u16, Token),
    ) {
        self.count(|driver| driver.send_then_receive(send, receive));
    }

    fn watch(&mut self, watched: BorrowedFd<'_>, token: Token) {
        self.count(|driver| driver.watch(watched, token));
    }

    fn cancel(&mut self, target: BorrowedFd<'_>, token: Token) {
        self.count(|driver| driver.cancel(target, token));
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.count(|driver| driver.wait(timeout))
    }

    fn completions(&mut self) -> usize {
        self.set_apart(Driver::completions)
    }

    fn next_completion(&mut self) -> Option<Completion<Token>> {
        self.set_apart(Driver::next_completion)
    }

    fn bytes(&self, received: &Received) -> &[u8] {
        self.simulated.bytes(received)
    }

    fn give_back(&mut self, received: Received) {
        self.set_apart(|driver| driver.give_back(received));
    }

    fn close(&mut self, socket: OwnedFd) {
        self.count(|driver| driver.close(socket));
    }

    fn enters(&self) -> u64 {
        self.simulated.enters()
    }

    fn clocks(&self) -> (Instant, Ticks) {
        self.simulated.clocks()
    }

    fn session_pipes(&mut self) -> io::Result<([OwnedFd; 2], [OwnedFd; 2])> {
        self.count(Driver::session_pipes)
    }

    fn session_pair(&mut self) -> io::Result<(OwnedFd, OwnedFd)> {
        self.count(Driver::session_pair)
    }

    fn pass(&mut self, to: BorrowedFd<'_>, packet: &[u8], ends: MletEnds) -> Result<(), MletEnds> {
        self.count(|driver| driver.pass(to, packet, ends))
    }

    fn peer(&self, socket: BorrowedFd<'_>) -> Option<SocketAddr> {
        self.simulated.peer(socket)
    }

    fn shut_down(&mut self, socket: BorrowedFd<'_>, how: Shutdown) {
        self.count(|driver| driver.shut_down(socket, how));
    }

    fn acknowledge_at_once(&mut self, socket: BorrowedFd<'_>) {
        self.count(|driver| driver.acknowledge_at_once(socket));
    }

    fn has_hung_up(&self, socket: BorrowedFd<'_>) -> bool {
        self.simulated.has_hung_up(socket)
    }

    fn untaken_len(&self, socket: BorrowedFd<'_>) -> usize {
        self.simulated.untaken_len(socket)
    }

    fn waiting_len(&self, pipe: BorrowedFd<'_>) -> usize {
        self.simulated.waiting_len(pipe)
    }
}
