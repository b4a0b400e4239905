//! One endpoint of a drawn world, its mlet, and what they do.
//!
//! Not here: what may become of its session (`outcomes.rs`).

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::super::connection::Connection;
use super::faults::{FAULTS, Fault, strike_endpoint};
use super::harness::{SharedEndpoint, SharedMlet};
use super::invariants::{Streams, check_flow};
use super::outcomes::Circumstances;
use super::peers::Endpoint;
use crate::proto::tests::credentials::{
    DRAIN_TIMEOUT, LINGER_TIMEOUT, Login, SETUP_TIMEOUT, TRUSTING, endpoint_tls,
};
use crate::proto::tests::{filled, success};
use crate::random::Random;
use crate::records::Ended;
use packetlab::message::MessageType;

/// How often a mlet writes that goes on without its endpoint.
const WRITING_PERIOD: Duration = Duration::from_secs(1);

/// How often a byte arrives of an endpoint whose bytes trickle.
const TRICKLE_PERIOD: Duration = Duration::from_secs(5);

/// How long a session in set-up lasts in which nothing moves: nobody waits longer than for a permit, and then for the
/// endpoint to close.
const SET_UP_STANDSTILL_MAX: Duration =
    Duration::from_secs(2 * SETUP_TIMEOUT.as_secs() + LINGER_TIMEOUT.as_secs());

/// The same once one side of a relayed session has ended: the drain limit counts from the first look at its sockets.
const STANDSTILL_MAX: Duration = Duration::from_secs(3 * DRAIN_TIMEOUT.as_secs() / 2);

/// How far an endpoint had come when its fault struck.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// It had sent its ClientHello.
    Hello,
    /// Its handshake was over.
    SetUp,
    /// It had answered START.
    Relayed,
}

/// One endpoint and its session.
pub(super) struct Player {
    pub(super) endpoint: SharedEndpoint,
    pub(super) peer: SocketAddr,
    pub(super) login: Login,
    pub(super) has_experiment: bool,
    /// The turn in which it connects, or is adopted with its connection to the proxy.
    pub(super) comes_at: usize,
    pub(super) is_adopted: bool,
    pub(super) has_come: bool,
    pub(super) fault: Fault,
    /// The turn in which its fault strikes, if it does not wait until everybody has done all else.
    strikes_at: usize,
    has_struck: bool,
    /// When its fault struck, if there was something to strike.
    pub(super) struck: Option<Progress>,
    from_endpoint: Vec<u8>,
    from_mlet: Vec<u8>,
    mlet_exits: bool,
    pub(super) mlet_reads: bool,
    mlet_exits_at_eof: bool,
    /// After the end of its input the mlet writes as long as it may.
    pub(super) mlet_goes_on: bool,
    /// When the mlet writes next, or a byte of the endpoint arrives.
    goes_on_at: Instant,
    pub(super) endpoint_reads: bool,
    has_begun: bool,
    pub(super) mlet: Option<SharedMlet>,
    /// The mlet's end of its socket pair.
    pub(super) socket: Option<OwnedFd>,
    /// The control thread gave it no permit.
    pub(super) has_no_permit: bool,
    pub(super) is_refused: bool,
    /// The control thread gave its mlet up.
    pub(super) is_given_up: bool,
    /// What its shard told of its end, once for each record of it.
    pub(super) ended: Vec<Ended>,
    pub(super) streams: Streams,
    /// What has moved and ended, and when it last did.
    moved: (Moved, Instant),
}

/// Bytes that arrived at and were taken by an endpoint and by its mlet, and which of them have ended.
type Moved = ((u64, u64), (usize, usize), [bool; 2]);

impl Player {
    pub(super) fn draw(random: &mut Random, number: usize, is_storm: bool, now: Instant) -> Self {
        let len_max = if is_storm { 2_000 } else { 30_000 };
        let spread = if is_storm { 3 } else { 40 };
        let has_experiment = random.below(20) != 0;
        let snikey = if has_experiment { TRUSTING } else { "nobody-has-this" };
        let login = if random.below(20) == 0 { Login::Stranger } else { Login::Operator };
        let mut endpoint = Endpoint::new(Some(endpoint_tls(login, Some(snikey))));
        endpoint.is_silent = random.below(16) == 0;
        let (mut from_endpoint, mut from_mlet) = (stream(random, len_max), stream(random, len_max));
        let (endpoint_reads, mlet_reads) = (random.below(6) != 0, random.below(4) != 0);
        // More than a socket and a block hold, so that the rest waits with whoever wrote it.
        for (reads, stream) in [(endpoint_reads, &mut from_mlet), (mlet_reads, &mut from_endpoint)]
        {
            if !reads && !is_storm && random.below(2) == 0 {
                stream.extend(filled(MessageType::MDATA, 100_000));
            }
        }
        // Bytes in bulk.
        for stream in [&mut from_mlet, &mut from_endpoint] {
            if !is_storm && random.below(30) == 0 {
                stream.extend(filled(MessageType::MDATA, 400_000));
            }
        }
        Self {
            endpoint: Rc::new(endpoint.into()),
            peer: (Ipv4Addr::from_bits(FIRST_ADDRESS + number as u32), 1).into(),
            login,
            has_experiment,
            comes_at: random.below(spread),
            is_adopted: random.below(5) == 0,
            has_come: false,
            fault: FAULTS[random.below(FAULTS.len())],
            strikes_at: if random.below(2) == 0 { random.size(400) } else { usize::MAX },
            has_struck: false,
            struck: None,
            from_endpoint,
            from_mlet,
            mlet_exits: random.below(3) == 0,
            mlet_reads,
            mlet_exits_at_eof: random.below(3) != 0,
            mlet_goes_on: random.below(4) == 0,
            goes_on_at: now,
            endpoint_reads,
            has_begun: false,
            mlet: None,
            socket: None,
            has_no_permit: false,
            is_refused: false,
            is_given_up: false,
            ended: Vec::new(),
            streams: Streams::default(),
            moved: (Moved::default(), now),
        }
    }

    /// The number of the player with this peer.
    pub(super) fn number(peer: SocketAddr) -> usize {
        match peer {
            SocketAddr::V4(peer) => (peer.ip().to_bits() - FIRST_ADDRESS) as usize,
            SocketAddr::V6(_) => panic!("{peer} is nobody's"),
        }
    }

    /// Looks at what has come, begins when its mlet is there, and lets its fault happen in its turn.
    pub(super) fn play(&mut self, turn: usize) {
        self.endpoint.borrow_mut().take();
        if let Some(mlet) = &self.mlet {
            let mut mlet = mlet.borrow_mut();
            mlet.take();
            if !self.has_begun {
                self.has_begun = true;
                (mlet.reads, mlet.exits_at_eof) = (self.mlet_reads, self.mlet_exits_at_eof);
                if !mlet.has_ended {
                    mlet.write(&self.from_mlet);
                }
                if self.mlet_exits {
                    mlet.exit();
                }
                let mut endpoint = self.endpoint.borrow_mut();
                if endpoint.end.is_none() && !endpoint.close_notify && !endpoint.has_parted {
                    endpoint.write(&self.from_endpoint);
                }
                endpoint.reads = self.endpoint_reads;
            }
        }
        if turn >= self.strikes_at && self.has_come {
            self.strike();
        }
    }

    /// Its fault happens, if it has not yet.
    pub(super) fn strike(&mut self) {
        if std::mem::replace(&mut self.has_struck, true) {
            return;
        }
        let mut endpoint = self.endpoint.borrow_mut();
        let has_tls = endpoint.tls.as_ref().is_some_and(|tls| !tls.is_handshaking());
        let speaks = matches!(
            self.fault,
            Fault::CloseNotify | Fault::HugeLength | Fault::WrongType | Fault::ErrorResult
        );
        if endpoint.end.is_some() || speaks && (!has_tls || endpoint.close_notify) {
            return;
        }
        self.struck = Some(match (endpoint.is_relayed, has_tls) {
            (true, _) => Progress::Relayed,
            (false, true) => Progress::SetUp,
            (false, false) => Progress::Hello,
        });
        strike_endpoint(&mut endpoint, self.fault);
        if self.fault == Fault::Trickle {
            endpoint.set_dam(Some(0));
            if has_tls {
                endpoint.write(&success());
            }
        }
        if let (Fault::MletDies, Some(mlet)) = (self.fault, &self.mlet) {
            mlet.borrow_mut().exit();
        }
    }

    /// Its mlet exits.
    pub(super) fn finish(&self) {
        if let Some(mlet) = &self.mlet {
            mlet.borrow_mut().exit();
        }
    }

    /// Whoever does something from time to time does it, if it is time. Gives when that will be next.
    pub(super) fn go_on(&mut self, now: Instant) -> Option<Instant> {
        let period = if self.trickles() {
            TRICKLE_PERIOD
        } else if self.mlet_writes_on() {
            WRITING_PERIOD
        } else {
            return None;
        };
        if now >= self.goes_on_at {
            self.goes_on_at = now + period;
            if period == TRICKLE_PERIOD {
                self.endpoint.borrow_mut().set_dam(Some(1));
            } else if let Some(mlet) = &self.mlet {
                mlet.borrow_mut().write(&[0; 100]);
            }
        }
        Some(self.goes_on_at)
    }

    fn trickles(&self) -> bool {
        let endpoint = self.endpoint.borrow();
        let has_struck = self.fault == Fault::Trickle && self.struck.is_some();
        has_struck && endpoint.end.is_none() && !endpoint.held.is_empty()
    }

    /// The mlet writes on though its endpoint has ended.
    fn mlet_writes_on(&self) -> bool {
        let goes_on = |mlet: &SharedMlet| mlet.borrow().is_at_eof && !mlet.borrow().has_ended;
        self.mlet_goes_on && self.ended.is_empty() && self.mlet.as_ref().is_some_and(goes_on)
    }

    /// The endpoint's connection was broken by itself.
    pub(super) fn has_broken_off(&self) -> bool {
        self.fault == Fault::Reset && self.struck.is_some()
    }

    /// What has arrived is a beginning of what was sent, and a session in which nothing moves ends in time.
    pub(super) fn check(
        &mut self,
        connection: &Connection,
        now: Instant,
        circumstances: Circumstances,
    ) {
        let Circumstances { is_forced, idle_timeout, .. } = circumstances;
        let endpoint = self.endpoint.borrow();
        // A connection that ends is seen at once, what was said in it when it has been received.
        let has_ended = endpoint.end.is_some() || endpoint.has_parted && endpoint.sent.is_empty();
        let mut moved = (endpoint.progress(), (0, 0), [has_ended, false]);
        if let Some(mlet) = &self.mlet {
            let mlet = mlet.borrow();
            self.streams.check(&endpoint, &mlet);
            (moved.1, moved.2[1]) = (mlet.progress(), mlet.has_ended);
            if !is_forced && !self.is_given_up {
                check_flow(connection, &endpoint, &mlet);
            }
        }
        if self.moved.0 != moved {
            self.moved = (moved, now);
        }
        let max = match (endpoint.is_relayed, moved.2) {
            (false, _) => SET_UP_STANDSTILL_MAX,
            // A LINFO is no byte that arrives anywhere, and a forced end is looked at from its beginning.
            (true, [false, false]) => {
                idle_timeout.map_or(Duration::MAX, |idle| 2 * idle + 2 * STANDSTILL_MAX)
            }
            // A forced end lets all waits begin anew.
            (true, _) if is_forced => 2 * STANDSTILL_MAX,
            (true, _) => STANDSTILL_MAX,
        };
        let since = self.moved.1.max(connection.accepted);
        let stands_still = now.saturating_duration_since(since);
        assert!(stands_still <= max, "{} has not ended for {stands_still:?}: {moved:?}", self.peer);
    }
}

const FIRST_ADDRESS: u32 = 0x0a00_0000;

/// Up to 20 messages of any type; some streams end inside the last.
fn stream(random: &mut Random, len_max: usize) -> Vec<u8> {
    let mut stream = Vec::new();
    for _ in 0..random.below(21) {
        let len = random.size(len_max) - 1;
        let is_linfo = random.below(12) == 0;
        let any = MessageType(random.next() as u8);
        stream.extend(filled(if is_linfo { MessageType::LINFO } else { any }, len));
    }
    if random.below(8) == 0 {
        stream.truncate(random.below(stream.len() + 1));
    }
    stream
}
