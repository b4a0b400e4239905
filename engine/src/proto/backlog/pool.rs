//! How many connections are registered at the proxy for each snikey, and when the next one is begun.
//!
//! Breadth-first: the next connection is for a snikey that has the fewest, so that a limit at the
//! proxy is spread evenly. Each snikey has a window of set-ups that may be under way at once. It grows
//! with every success and falls to 1 with a failure, after which a wait follows as well: a proxy that
//! is gone sees at most two tries a second for a snikey, one that is back is filled at full speed.
//!
//! Not here: the set-ups themselves. Time and randomness are arguments.

use std::time::{Duration, Instant};

use crate::proto::backoff::{Backoff, WAIT_MAX};
use packetlab::snikey::SniKey;

/// Set-ups under way at once, of all snikeys at all proxies together. Each costs the control thread some 400 us of
/// signatures, so that a round of them delays its other work by less than 30 ms, and two descriptors.
pub const SET_UPS_MAX: usize = 64;

/// Set-ups that a snikey begins with, before anything is known about the proxy: enough for a far one
/// to be filled within the bootstrap time.
const WINDOW_AT_START: usize = 8;

/// The longest wait for a proxy that is gone. Trying costs nobody anything, endpoints are turned away
/// meanwhile, and it is to be noticed soon that it is back.
const WAIT_MAX_GONE: Duration = Duration::from_secs(2);

/// A registered connection that is lost sooner than this was not worth making.
const YOUNG: Duration = Duration::from_secs(10);

/// What a failed set-up says about the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It is not there: refused, unreachable, silent, or it closed.
    Gone,
    /// It is there, and does not want us, or is none.
    Refused,
}

/// Why none was left for a time, in which endpoints may have been missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gap {
    /// The last registered one was lost, or another was refused when there was none.
    Lost,
    /// Endpoints had taken all of them.
    UsedUp,
}

/// The connections of all snikeys at one proxy.
#[derive(Debug)]
pub struct Pool {
    /// Of each snikey that is served.
    target: usize,
    /// Set-ups that may be under way at once, of all snikeys.
    set_ups_max: usize,
    /// In the order of the file; those that are served no more last, until nothing of them is left.
    snikeys: Vec<SnikeyConnections>,
}

/// The connections of one snikey.
#[derive(Debug)]
struct SnikeyConnections {
    snikey: SniKey,
    /// How many there should be; none of one that is served no more.
    target: usize,
    in_set_up: usize,
    ready: usize,
    window: usize,
    backoff: Backoff,
    /// There was none, and what is over with that has not been told.
    gap: Option<Gap>,
    /// No set-up begins before this.
    wait_until: Option<Instant>,
}

impl SnikeyConnections {
    fn new(snikey: SniKey, target: usize) -> Self {
        Self {
            snikey,
            target,
            in_set_up: 0,
            ready: 0,
            window: WINDOW_AT_START,
            backoff: Backoff::default(),
            gap: None,
            wait_until: None,
        }
    }

    fn len(&self) -> usize {
        self.in_set_up + self.ready
    }

    /// A set-up may begin, or may when the wait is over.
    fn wants_more(&self) -> bool {
        self.len() < self.target && self.in_set_up < self.window
    }

    fn may_begin(&self, now: Instant) -> bool {
        self.wants_more() && !self.waits(now)
    }

    fn waits(&self, now: Instant) -> bool {
        self.wait_until.is_some_and(|until| now < until)
    }

    /// One is lost. Why none is left, if so, whatever it was before.
    fn note_loss(&mut self) {
        if self.ready == 0 {
            self.gap = Some(Gap::Lost);
        }
    }

    /// Begins a wait. Of failures at the same moment, such as those of all connections of a proxy that
    /// ended, only the first counts.
    fn hold(&mut self, failure: Failure, now: Instant, random: u32) -> Option<Duration> {
        self.window = 1;
        if self.waits(now) {
            return None;
        }
        let wait_max = match failure {
            Failure::Gone => WAIT_MAX_GONE,
            Failure::Refused => WAIT_MAX,
        };
        let wait = self.backoff.fail(now, wait_max, random);
        self.wait_until = Some(now + wait);
        Some(wait)
    }
}

impl Pool {
    /// An empty backlog for these snikeys, each to have `target` connections, of which `set_ups_max` may be in set-up.
    pub fn new(
        snikeys: impl IntoIterator<Item = SniKey>,
        target: usize,
        set_ups_max: usize,
    ) -> Self {
        let mut pool = Self { target, set_ups_max, snikeys: Vec::new() };
        pool.serve(snikeys, target);
        pool
    }

    /// From now on these snikeys are served. What there is of others ends elsewhere and is not replaced.
    pub fn serve(&mut self, snikeys: impl IntoIterator<Item = SniKey>, target: usize) {
        self.target = target;
        let mut gone = std::mem::take(&mut self.snikeys);
        for snikey in snikeys {
            let before = gone.iter().position(|connections| connections.snikey == snikey);
            let connections = match before {
                Some(position) => SnikeyConnections { target, ..gone.remove(position) },
                None => SnikeyConnections::new(snikey, target),
            };
            self.snikeys.push(connections);
        }
        let gone = gone.into_iter().filter(|connections| connections.len() > 0);
        self.snikeys.extend(gone.map(|connections| SnikeyConnections { target: 0, ..connections }));
    }

    /// Whether there are to be connections of this snikey.
    pub fn serves(&self, snikey: &SniKey) -> bool {
        self.snikeys.iter().any(|one| one.snikey == *snikey && one.target > 0)
    }

    /// Whether [`Self::begin`] begins one.
    pub fn may_begin(&self, now: Instant) -> bool {
        self.in_set_up() < self.set_ups_max
            && self.snikeys.iter().any(|connections| connections.may_begin(now))
    }

    /// Begins a set-up, and tells for which snikey. `None`: not now.
    pub fn begin(&mut self, now: Instant) -> Option<SniKey> {
        if self.in_set_up() >= self.set_ups_max {
            return None;
        }
        let may_begin = self.snikeys.iter_mut().filter(|one| one.may_begin(now));
        let connections = may_begin.min_by_key(|connections| connections.len())?;
        connections.in_set_up += 1;
        Some(connections.snikey.clone())
    }

    /// Notes something of one snikey, and forgets it if it is served no more and nothing is left of it.
    fn note<T>(
        &mut self,
        snikey: &SniKey,
        note: impl FnOnce(&mut SnikeyConnections) -> Option<T>,
    ) -> Option<T> {
        let position = self.snikeys.iter().position(|one| one.snikey == *snikey)?;
        let connections = &mut self.snikeys[position];
        let noted = note(connections);
        if connections.target == 0 && connections.len() == 0 {
            self.snikeys.remove(position);
        }
        noted
    }

    /// When [`Self::begin`] is to be called again, if nothing else happens before.
    pub fn next_due(&self, now: Instant) -> Option<Instant> {
        let wanting = self.snikeys.iter().filter(|connections| connections.wants_more());
        wanting.filter_map(|connections| connections.wait_until).filter(|until| *until > now).min()
    }

    /// A set-up is done. The gap that is over with it: of one that was lost the first is enough. Where endpoints had taken
    /// all, there are as many again as there should be, since those that wait at the proxy would take them before.
    pub fn handle_ready(&mut self, snikey: &SniKey) -> Option<Gap> {
        self.note(snikey, |connections| {
            connections.in_set_up -= 1;
            connections.ready += 1;
            connections.window = (connections.window + 1).min(SET_UPS_MAX);
            let is_full = connections.ready >= connections.target;
            connections.gap.take_if(|gap| *gap == Gap::Lost || is_full)
        })
    }

    /// A set-up failed. The wait that follows, unless one was on already.
    pub fn handle_failed(
        &mut self,
        snikey: &SniKey,
        failure: Failure,
        now: Instant,
        random: u32,
    ) -> Option<Duration> {
        self.note(snikey, |connections| {
            connections.in_set_up -= 1;
            connections.note_loss();
            connections.hold(failure, now, random)
        })
    }

    /// An endpoint came through a registered connection: the proxy works, and may have room again if
    /// it had none.
    pub fn handle_taken(&mut self, snikey: &SniKey) {
        self.note::<()>(snikey, |connections| {
            connections.ready -= 1;
            if connections.ready == 0 {
                connections.gap.get_or_insert(Gap::UsedUp);
            }
            connections.wait_until = None;
            connections.backoff = Backoff::default();
            None
        });
    }

    /// A registered connection was let go by us: its snikey is served no more, or others are to get the endpoints meanwhile.
    pub fn handle_let_go(&mut self, snikey: &SniKey) {
        self.note::<()>(snikey, |connections| {
            connections.ready -= 1;
            connections.note_loss();
            None
        });
    }

    /// A registered connection was lost before an endpoint came, after `lived`. The wait that follows,
    /// if any. One old enough may have met some limit of age at the proxy or on the way; its
    /// replacement is begun at once, but many at the same moment only carefully.
    pub fn handle_lost(
        &mut self,
        snikey: &SniKey,
        lived: Duration,
        now: Instant,
        random: u32,
    ) -> Option<Duration> {
        self.note(snikey, |connections| {
            connections.ready -= 1;
            connections.note_loss();
            if lived < YOUNG {
                return connections.hold(Failure::Gone, now, random);
            }
            connections.window = (connections.window / 2).max(1);
            None
        })
    }

    /// Set-ups under way.
    pub fn in_set_up(&self) -> usize {
        self.snikeys.iter().map(|connections| connections.in_set_up).sum()
    }

    /// Connections of all snikeys, in set-up or registered.
    pub fn connections(&self) -> usize {
        self.in_set_up() + self.ready()
    }

    /// Registered connections of all snikeys.
    pub fn ready(&self) -> usize {
        self.snikeys.iter().map(|connections| connections.ready).sum()
    }

    /// Every snikey has as many as it should.
    pub fn is_full(&self) -> bool {
        self.snikeys.iter().all(|connections| connections.ready >= connections.target)
    }

    /// How many connections there should be.
    pub fn wanted(&self) -> usize {
        self.snikeys.iter().map(|one| one.target).fold(0, usize::saturating_add)
    }
}

#[cfg(test)]
mod tests;
