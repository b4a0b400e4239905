//! How many connections are registered at the proxy for each snikey, and when the next one is begun.
//!
//! Breadth-first: the next connection is for a snikey that has the fewest, so that a limit at the
//! proxy is spread evenly. Each snikey has a window of set-ups that may be under way at once. It grows
//! with every success and falls to 1 with a failure, after which a wait follows as well: a proxy that
//! is gone sees at most two tries a second for a snikey, one that is back is filled at full speed.
//!
//! Not here: the set-ups themselves. Time and randomness are arguments.

use std::time::{Duration, Instant};

use crate::config::{ExperimentId, PerExperiment};
use crate::proto::backoff::{Backoff, WAIT_MAX};

/// Set-ups under way at once, of all snikeys together. Each costs the control thread some 400 us of
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

/// The connections of all snikeys.
#[derive(Debug)]
pub struct Pool {
    target: usize,
    snikeys: PerExperiment<SnikeyConnections>,
}

/// The connections of one snikey.
#[derive(Debug, Clone)]
struct SnikeyConnections {
    in_set_up: usize,
    ready: usize,
    window: usize,
    backoff: Backoff,
    /// No set-up begins before this.
    wait_until: Option<Instant>,
}

impl SnikeyConnections {
    fn len(&self) -> usize {
        self.in_set_up + self.ready
    }

    /// A set-up may begin, or may when the wait is over.
    fn wants_more(&self, target: usize) -> bool {
        self.len() < target && self.in_set_up < self.window
    }

    fn waits(&self, now: Instant) -> bool {
        self.wait_until.is_some_and(|until| now < until)
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
    /// An empty backlog for so many experiments, each to have `target` connections.
    pub fn new(experiments: usize, target: usize) -> Self {
        let connections = SnikeyConnections {
            in_set_up: 0,
            ready: 0,
            window: WINDOW_AT_START,
            backoff: Backoff::default(),
            wait_until: None,
        };
        Self { target, snikeys: std::iter::repeat_n(connections, experiments).collect() }
    }

    /// Begins a set-up, and tells for which experiment. `None`: not now.
    pub fn begin(&mut self, now: Instant) -> Option<ExperimentId> {
        if self.in_set_up() >= SET_UPS_MAX {
            return None;
        }
        let target = self.target;
        let (experiment, connections) = self
            .snikeys
            .iter_mut()
            .filter(|(_, connections)| connections.wants_more(target) && !connections.waits(now))
            .min_by_key(|(_, connections)| connections.len())?;
        connections.in_set_up += 1;
        Some(experiment)
    }

    /// When [`Self::begin`] is to be called again, if nothing else happens before.
    pub fn next_due(&self, now: Instant) -> Option<Instant> {
        let wanting = self.snikeys.iter().filter(|connections| connections.wants_more(self.target));
        wanting.filter_map(|connections| connections.wait_until).filter(|until| *until > now).min()
    }

    /// A set-up is done.
    pub fn handle_ready(&mut self, experiment: ExperimentId) {
        let connections = &mut self.snikeys[experiment];
        connections.in_set_up -= 1;
        connections.ready += 1;
        connections.window = (connections.window + 1).min(SET_UPS_MAX);
    }

    /// A set-up failed. The wait that follows, unless one was on already.
    pub fn handle_failed(
        &mut self,
        experiment: ExperimentId,
        failure: Failure,
        now: Instant,
        random: u32,
    ) -> Option<Duration> {
        let connections = &mut self.snikeys[experiment];
        connections.in_set_up -= 1;
        connections.hold(failure, now, random)
    }

    /// An endpoint came through a registered connection: the proxy works, and may have room again if
    /// it had none.
    pub fn handle_taken(&mut self, experiment: ExperimentId) {
        let connections = &mut self.snikeys[experiment];
        connections.ready -= 1;
        connections.wait_until = None;
        connections.backoff = Backoff::default();
    }

    /// A registered connection was lost before an endpoint came, after `lived`. The wait that follows,
    /// if any. One old enough may have met some limit of age at the proxy or on the way; its
    /// replacement is begun at once, but many at the same moment only carefully.
    pub fn handle_lost(
        &mut self,
        experiment: ExperimentId,
        lived: Duration,
        now: Instant,
        random: u32,
    ) -> Option<Duration> {
        let connections = &mut self.snikeys[experiment];
        connections.ready -= 1;
        if lived < YOUNG {
            return connections.hold(Failure::Gone, now, random);
        }
        connections.window = (connections.window / 2).max(1);
        None
    }

    /// Set-ups under way.
    pub fn in_set_up(&self) -> usize {
        self.snikeys.iter().map(|connections| connections.in_set_up).sum()
    }

    /// Registered connections of all snikeys.
    pub fn ready(&self) -> usize {
        self.snikeys.iter().map(|connections| connections.ready).sum()
    }

    /// Every snikey has as many as it should.
    pub fn is_full(&self) -> bool {
        self.snikeys.iter().all(|connections| connections.ready >= self.target)
    }

    /// How many connections there should be.
    pub fn wanted(&self) -> usize {
        self.snikeys.count().saturating_mul(self.target)
    }
}

#[cfg(test)]
mod tests;
