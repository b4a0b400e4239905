//! A shard on the simulated driver, with the other ends of its mailboxes and of its mlets' sockets.
//!
//! Not here: what endpoints, mlets and the control thread do (`pair.rs`, `world.rs`). Invariant: each turn is checked
//! (`invariants.rs`).

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::{GROUPS, Parts, Shard, Token};
use super::linfo_log::LinfoLog;
use super::peers::{Endpoint, Mlet};
use super::pipes::Pipes;
use crate::driver::simulated::{Kernel, SharedRemote, Simulated, nowhere};
use crate::mailbox::{
    BacklogConnection, Counts, FromShard, Inbox, Mailer, Permission, Registration, ToShard, mailbox,
};
use crate::metrics::RunLatency;
use crate::mlet_request::DirectRequests;
use crate::proto::experiments::Experiments;
use crate::proto::tests::credentials::{NOW, TRUSTING};
use crate::random::Random;
use crate::records::SessionId;
use crate::sys::mlet_ends::MletEnds;
use packetlab::snikey::SniKey;

pub(super) type SharedEndpoint = Rc<RefCell<Endpoint>>;
pub(super) type SharedMlet = Rc<RefCell<Mlet>>;
type Mlets = Rc<RefCell<HashMap<RawFd, SharedMlet>>>;

/// The shard and the hands of whoever plays all that is around it.
pub(super) struct Harness {
    pub(super) shard: Shard<Simulated<Token>>,
    pub(super) kernel: Rc<RefCell<Kernel>>,
    pub(super) to_shard: Mailer<ToShard>,
    pub(super) from_shard: Inbox<FromShard>,
    pub(super) linfo_log: LinfoLog,
    pub(super) turns: usize,
    /// Since which turn sessions have been over that are not closed.
    pub(super) over_since: HashMap<SessionId, usize>,
    /// The most large blocks that sessions have had at the end of a turn.
    pub(super) large_blocks_most: usize,
    /// The most large buffers that were kept from the driver for want of blocks.
    pub(super) kept_buffers_most: usize,
    /// Connections that the shard is to adopt and has not taken from its mail.
    pub(super) adopted: Vec<RawFd>,
    /// Every receive is timed.
    pub(super) latency: Arc<RunLatency>,
    counts: Arc<Counts>,
    listener: RawFd,
    mlets: Mlets,
    pipes: Rc<RefCell<HashMap<[RawFd; 2], Pipes>>>,
}

impl Harness {
    /// A shard that has begun, in a kernel that draws from `random`. START needs a permit if `needs_permits`.
    pub(super) fn new(
        random: Random,
        experiments: Arc<Experiments>,
        needs_permits: bool,
        sessions_max: usize,
    ) -> Self {
        let mlets = Mlets::default();
        let pair_with = {
            let mlets = Rc::clone(&mlets);
            Box::new(move |number| -> SharedRemote {
                let mlet = Rc::new(RefCell::new(Mlet::new()));
                mlets.borrow_mut().insert(number, Rc::clone(&mlet));
                mlet
            })
        };
        #[expect(clippy::disallowed_methods, reason = "an Instant comes from nowhere else")]
        let now = Instant::now();
        let kernel = Kernel::new(random, now, NOW, pair_with);
        let (to_shard, inbox) = mailbox().unwrap();
        let (mailer, from_shard) = mailbox().unwrap();
        let permission = Permission::of(false, needs_permits);
        let counts = Arc::new(Counts::new(permission, sessions_max));
        let latency = Arc::new(RunLatency::new(1, NonZeroU32::MIN));
        let parts = Parts {
            number: 0,
            count: 1,
            sessions_before: 0,
            core: 0,
            experiments,
            counts: Arc::clone(&counts),
            inbox,
            mailer,
            direct: (!needs_permits).then(|| DirectRequests::through(nowhere())),
            stopwatch: latency.stopwatch(0),
            published: Arc::default(),
            spin: Duration::ZERO,
            offers_pipes: false,
            tees: None,
        };
        let mut shard = Shard::new(parts, Simulated::new(Rc::clone(&kernel), &GROUPS));
        let listener = kernel.borrow_mut().listener();
        let number = listener.as_raw_fd();
        shard.begin(vec![listener]);
        Self {
            shard,
            kernel,
            to_shard,
            from_shard,
            linfo_log: LinfoLog::new(),
            turns: 0,
            over_since: HashMap::new(),
            large_blocks_most: 0,
            kept_buffers_most: 0,
            adopted: Vec::new(),
            latency,
            counts,
            listener: number,
            mlets,
            pipes: Rc::default(),
        }
    }

    /// What time it is.
    pub(super) fn now(&self) -> Instant {
        self.kernel.borrow().now
    }

    /// The shard gets its mail and takes a turn.
    pub(super) fn turn(&mut self) {
        self.turns += 1;
        self.to_shard.flush();
        let shard = &mut self.shard;
        let clock_reads = self.kernel.borrow().clock_reads;
        self.linfo_log.within(|| shard.turn().unwrap());
        let clock_reads = self.kernel.borrow().clock_reads - clock_reads;
        // Whatever it times; and around costly steps of handshakes, if there are any.
        assert!([1, 3].contains(&clock_reads), "a turn reads the clock once: {clock_reads}");
        self.check();
    }

    /// An endpoint connects.
    pub(super) fn connect(&mut self, endpoint: &SharedEndpoint, peer: SocketAddr) {
        let remote: SharedRemote = Rc::<RefCell<Endpoint>>::clone(endpoint);
        self.kernel.borrow_mut().connect(self.listener, remote, peer);
    }

    /// The shard is to adopt an endpoint's connection to the proxy, if it may have another session.
    pub(super) fn adopt(&mut self, endpoint: &SharedEndpoint, peer: SocketAddr) {
        if self.counts.open_session() {
            let remote: SharedRemote = Rc::<RefCell<Endpoint>>::clone(endpoint);
            let socket = self.kernel.borrow_mut().connection(remote, peer);
            self.adopted.push(socket.as_raw_fd());
            let connection = BacklogConnection {
                socket,
                peer,
                registration: Registration { proxy: 0, snikey: SniKey::parse(TRUSTING).unwrap() },
                received: Vec::new(),
            };
            self.to_shard.push(ToShard::Adopt(connection));
        }
    }

    /// The mlets that the supervisor was asked for, with the sessions they are for.
    pub(super) fn take_passed(&self) -> Vec<(SessionId, MletEnds)> {
        let passed = std::mem::take(&mut self.kernel.borrow_mut().passed);
        let of_packet = |(packet, ends): (Vec<u8>, MletEnds)| {
            // Behind what kind of request it is, and of what kind its owner is.
            let id = packet[2..10].try_into().unwrap();
            (SessionId::from_be_bytes(id), ends)
        };
        passed.into_iter().map(of_packet).collect()
    }

    /// From now on mlets are offered pipes.
    pub(super) fn offer_pipes(&mut self) {
        self.shard.offers_pipes = true;
        let made = Rc::clone(&self.pipes);
        self.kernel.borrow_mut().pipes_with = Some(Box::new(move |numbers| {
            let pipes = Pipes::default();
            made.borrow_mut().insert(numbers, pipes.clone());
            pipes.remotes()
        }));
    }

    /// The mlet that has these ends.
    pub(super) fn take_mlet(&self, ends: &MletEnds) -> SharedMlet {
        let mlet = self.mlets.borrow_mut().remove(&ends.socket.as_raw_fd()).unwrap();
        let numbers = ends.pipes.as_ref().map(|pipes| pipes.each_ref().map(AsRawFd::as_raw_fd));
        mlet.borrow_mut().pipes =
            numbers.map(|numbers| self.pipes.borrow_mut().remove(&numbers).unwrap());
        mlet
    }

    /// Pipes that were made and have come to no mlet.
    pub(super) fn untaken_pipes(&self) -> usize {
        self.pipes.borrow().len()
    }
}
