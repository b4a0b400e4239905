//! A shard on the simulated driver, with the other ends of its mailboxes.
//!
//! The kernel is calm and its clock stands still: operations complete in order and move all they can, nothing is refused,
//! and no limit of time is ever reached, so that equal calls lead to equal work. Not here: what is checked of a shard, which
//! its own tests do.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use packetlab::time::Ticks;

use super::counting_driver::{Apart, CountingDriver};
use super::peer::Peer;
use crate::driver::Driver;
use crate::driver::simulated::{Kernel, Simulated, nowhere};
use crate::mailbox::{Counts, FromShard, Inbox, Mailer, Permission, ToShard, mailbox};
use crate::mlet_request::DirectRequests;
use crate::proto::experiments::Experiments;
use crate::random::Random;
use crate::shard::{GROUPS, Parts, Shard};

/// The shard.
pub struct SimulatedShard {
    shard: Shard<CountingDriver>,
    kernel: Rc<RefCell<Kernel>>,
    listener: RawFd,
    from_shard: Inbox<FromShard>,
    /// Mlets' ends of session pairs, those that were made first in front.
    mlets: Rc<RefCell<VecDeque<Peer>>>,
    /// The shard ends when nobody can send it messages.
    _to_shard: Mailer<ToShard>,
}

impl SimulatedShard {
    /// A shard that serves `experiments` at the time `wall`, and runs what stands for the kernel within `apart`.
    ///
    /// # Errors
    /// No descriptor is free.
    pub fn new(experiments: Arc<Experiments>, wall: Ticks, apart: Apart) -> io::Result<Self> {
        let mlets = Rc::<RefCell<VecDeque<Peer>>>::default();
        let made = Rc::clone(&mlets);
        let pair_with = move |_| {
            let mlet = Peer::default();
            made.borrow_mut().push_back(mlet.clone());
            mlet.remote()
        };
        #[expect(clippy::disallowed_methods, reason = "an Instant comes from nowhere else")]
        let now = Instant::now();
        let kernel = Kernel::new(Random(1), now, wall, Box::new(pair_with));
        kernel.borrow_mut().is_calm = true;
        kernel.borrow_mut().horizon = Some(now);
        let (to_shard, inbox) = mailbox()?;
        let (mailer, from_shard) = mailbox()?;
        let parts = Parts {
            number: 0,
            count: 1,
            sessions_before: 0,
            core: 0,
            experiments,
            counts: Arc::new(Counts::new(Permission::Unneeded, usize::MAX)),
            inbox,
            mailer,
            direct: Some(DirectRequests::through(nowhere())),
            stopwatch: None,
            published: Arc::default(),
            spin: Duration::ZERO,
            offers_pipes: false,
            tees: None,
        };
        let simulated = Simulated::new(Rc::clone(&kernel), &GROUPS);
        let mut shard = Shard::new(parts, CountingDriver::new(simulated, apart));
        let listener = kernel.borrow_mut().listener();
        let number = listener.as_raw_fd();
        shard.begin(vec![listener]);
        Ok(Self { shard, kernel, listener: number, from_shard, mlets, _to_shard: to_shard })
    }

    /// An endpoint connects; the connection waits to be accepted.
    #[must_use]
    pub fn connect(&mut self) -> Peer {
        const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);
        let endpoint = Peer::default();
        self.kernel.borrow_mut().connect(self.listener, endpoint.remote(), PEER);
        endpoint
    }

    /// Takes one turn.
    ///
    /// # Panics
    /// Never: a simulated driver does not break down.
    pub fn turn(&mut self) {
        self.shard.turn().expect("a driver that does not break down");
    }

    /// Takes what the shard has told the control thread. Gives the mlets that it wants started, and how many sessions are
    /// over.
    pub fn take_told(&mut self) -> (Vec<Peer>, usize) {
        let (mut started, mut over) = (Vec::new(), 0);
        while let Some(message) = self.from_shard.next() {
            match message {
                FromShard::StartMlet { .. } => started.extend(self.mlets.borrow_mut().pop_front()),
                FromShard::Ended(_) => over += 1,
                _ => {}
            }
        }
        // Pairs are made in the order in which mlets are asked for.
        for _ in self.kernel.borrow_mut().passed.drain(..) {
            started.extend(self.mlets.borrow_mut().pop_front());
        }
        (started, over)
    }

    /// How many calls the shard has made to its driver that a kernel would have to do with.
    #[must_use]
    pub fn driver_calls(&self) -> u64 {
        self.shard.driver.calls()
    }

    /// How often it has entered the kernel to go on with operations.
    #[must_use]
    pub fn enters(&self) -> u64 {
        self.shard.driver.enters()
    }
}
