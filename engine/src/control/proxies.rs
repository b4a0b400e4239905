//! The backlogs of a run in proxy mode, one at each proxy.
//!
//! Each has its connections, waits and complaints for itself; here is what they come to together. The loss of a proxy costs
//! its own connections. The run ends for want of a proxy only if nothing could be registered at any of them within the
//! bootstrap time. Where there is not room for all connections, the backlog that has fewest comes first.
//!
//! Not here: the backlog at a proxy (`backlog.rs`).

use std::collections::HashMap;
use std::time::Instant;

use super::backlog::{Backlog, Reloaded};
use super::clock::now;
use super::set_up::SetUpFailure;
use super::tasks::TaskLink;
use crate::config::{Config, Proxy};
use crate::driver::Backend;
use crate::log_limit::LogLimit;
use crate::mailbox::{Counts, Registration};
use crate::proto::backlog::{Gap, SET_UPS_MAX};
use crate::records::Ended;
use crate::run_error::RunError;
use crate::view::ProxyState;
use packetlab::snikey::SniKey;
use packetlab::tls::SetupError;

/// The backlogs of a run.
pub(super) struct Proxies {
    /// In the order of `-a`; at least one.
    of_each: Vec<Backlog>,
    /// While they are filled for the first time: until when that may take.
    bootstrap_until: Option<Instant>,
    /// The shard that gets the next connection of a snikey, at whichever proxy; the first one where nothing is noted.
    next_shard: HashMap<SniKey, usize>,
    /// Connections were registered again where none was left.
    came_back: bool,
    /// There are as many again as there should be, where endpoints had taken all.
    filled_again: bool,
    /// Connections that endpoints took.
    taken: u64,
    /// Since when no set-up begins, if so.
    paused_at: Option<Instant>,
}

impl Proxies {
    /// Empty backlogs, to be filled from now on.
    ///
    /// # Errors
    /// The agent certificate cannot be used.
    pub(super) fn new(
        config: &Config,
        proxies: &[Proxy],
        (backend, link): (Backend, &TaskLink),
    ) -> Result<Self, SetupError> {
        // So that one that does not answer takes none from the others.
        let set_ups_max = (SET_UPS_MAX / proxies.len().max(1)).max(1);
        let backlog = |(number, proxy)| {
            Backlog::new((config, proxy), (number, set_ups_max), backend, link.clone())
        };
        let timeouts = proxies.iter().map(|proxy| proxy.bootstrap_timeout);
        Ok(Self {
            of_each: proxies.iter().enumerate().map(backlog).collect::<Result<_, _>>()?,
            bootstrap_until: timeouts.max().map(|timeout| now() + timeout),
            next_shard: HashMap::new(),
            came_back: false,
            filled_again: false,
            taken: 0,
            paused_at: None,
        })
    }

    /// What a reload makes of them, which names the same proxies; [`Self::serve`] puts it into effect.
    ///
    /// # Errors
    /// The agent certificate cannot be used.
    pub(super) fn reloaded(
        &self,
        config: &Config,
        proxies: &[Proxy],
    ) -> Result<Vec<Reloaded>, SetupError> {
        let both = self.of_each.iter().zip(proxies);
        both.map(|(backlog, proxy)| backlog.reloaded(config, proxy)).collect()
    }

    /// From now on connections are registered for these snikeys. What is under way goes on as it began.
    pub(super) fn serve(&mut self, reloaded: Vec<Reloaded>) {
        for (backlog, reloaded) in self.of_each.iter_mut().zip(reloaded) {
            backlog.serve(reloaded);
        }
        let of_each = &self.of_each;
        self.next_shard.retain(|snikey, _| of_each.iter().any(|one| one.pool().serves(snikey)));
    }

    /// Registered connections.
    pub(super) fn ready(&self) -> usize {
        self.of_each.iter().map(|backlog| backlog.pool().ready()).sum()
    }

    /// Connections that are registered, or in set-up.
    pub(super) fn connections(&self) -> usize {
        self.of_each.iter().map(|backlog| backlog.pool().connections()).sum()
    }

    /// Every one has as many as it should.
    pub(super) fn are_full(&self) -> bool {
        self.of_each.iter().all(|backlog| backlog.pool().is_full())
    }

    /// How many endpoints have come.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// Whether since the last call connections were registered again where the last one had been lost: endpoints may have
    /// been missed before. While backlogs are filled for the first time nobody is called yet.
    pub(super) fn take_came_back(&mut self) -> bool {
        std::mem::take(&mut self.came_back)
    }

    /// Whether since the last call a backlog was filled again that had been used up: endpoints may have been missed before.
    pub(super) fn take_filled_again(&mut self) -> bool {
        std::mem::take(&mut self.filled_again)
    }

    /// From now on no set-up begins, or they begin again. What is registered is left as it is.
    pub(super) fn pause(&mut self, is_paused: bool, now: Instant) {
        match (is_paused, self.paused_at) {
            (true, None) => self.paused_at = Some(now),
            (false, Some(at)) => {
                self.paused_at = None;
                // What was barred has failed at no proxy.
                self.bootstrap_until = self.bootstrap_until.map(|until| until + (now - at));
            }
            _ => {}
        }
    }

    /// No set-up begins.
    pub(super) fn are_paused(&self) -> bool {
        self.paused_at.is_some()
    }

    /// When [`Self::tend`] is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        if self.are_paused() {
            return None;
        }
        let now = now();
        let due = self.of_each.iter().filter_map(|backlog| backlog.pool().next_due(now));
        due.chain(self.bootstrap_until).min()
    }

    /// The warnings that may be left out.
    pub(super) fn log_limits(&mut self) -> impl Iterator<Item = &mut LogLimit> {
        self.of_each.iter_mut().map(Backlog::log_limit)
    }

    /// How it stands with each proxy, in the place of what was so before.
    pub(super) fn show(&self, states: &mut Vec<ProxyState>) {
        if states.is_empty() {
            states.extend(self.of_each.iter().map(Backlog::state));
        }
        for (backlog, state) in self.of_each.iter().zip(states) {
            backlog.show(state);
        }
    }

    /// Begins the set-ups that are due and for which there is room. Whether the first filling is over with this call,
    /// and how.
    pub(super) fn tend(&mut self, counts: &Counts) -> Option<Result<(), RunError>> {
        if self.are_paused() {
            return None;
        }
        // Without room it goes on when a session has ended.
        while counts.open_session() {
            if !self.begin() {
                counts.close_session();
                break;
            }
        }
        for backlog in &mut self.of_each {
            backlog.tell_when_full();
        }
        self.end_bootstrap()
    }

    /// Begins a set-up, if one is due.
    fn begin(&mut self) -> bool {
        let now = now();
        let may_begin = self.of_each.iter_mut().filter(|one| one.pool().may_begin(now));
        may_begin.min_by_key(|one| one.pool().connections()).is_some_and(Backlog::begin)
    }

    /// A connection is registered. Which of so many shards gets it.
    pub(super) fn handle_ready(&mut self, at: &Registration, shards: usize) -> usize {
        if let Some(backlog) = self.of_each.get_mut(at.proxy) {
            match backlog.handle_ready(&at.snikey) {
                Some(Gap::Lost) => self.came_back |= self.bootstrap_until.is_none(),
                Some(Gap::UsedUp) => self.filled_again = true,
                None => {}
            }
        }
        let next = self.next_shard.entry(at.snikey.clone()).or_default();
        let shard = *next % shards;
        *next = shard + 1;
        shard
    }

    /// A set-up has failed.
    pub(super) fn handle_failed(&mut self, at: &Registration, failure: SetUpFailure) {
        if let Some(backlog) = self.of_each.get_mut(at.proxy) {
            backlog.handle_failed(&at.snikey, failure);
        }
    }

    /// An endpoint came through a connection.
    pub(super) fn handle_taken(&mut self, at: &Registration) {
        self.taken += 1;
        if let Some(backlog) = self.of_each.get_mut(at.proxy) {
            backlog.handle_taken(&at.snikey);
        }
    }

    /// A connection ended without an endpoint.
    pub(super) fn handle_lost(&mut self, at: &Registration, ended: &Ended) {
        if let Some(backlog) = self.of_each.get_mut(at.proxy) {
            backlog.handle_lost(&at.snikey, ended);
        }
    }

    /// Whether the first filling is over with this call, and how. Once one is full, who fails is not waited for.
    fn end_bootstrap(&mut self) -> Option<Result<(), RunError>> {
        let until = self.bootstrap_until?;
        let is_over = now() >= until;
        let one_is_full = self.of_each.iter().any(|one| one.pool().is_full());
        let is_waited_for = |one: &Backlog| {
            let fails = one_is_full && one.last_failure().is_some();
            !is_over && !one.pool().is_full() && !fails
        };
        if self.of_each.iter().any(is_waited_for) {
            return None;
        }
        if !self.of_each.iter().any(Backlog::has_worked) {
            return Some(Err(RunError::Proxies(self.of_each.iter().map(failure).collect())));
        }
        self.bootstrap_until = None;
        let why = if is_over { " within BootstrapBacklogTimeout" } else { "" };
        for backlog in self.of_each.iter_mut().filter(|one| !one.pool().is_full()) {
            backlog.tell_that_it_is_late(why);
        }
        Some(Ok(()))
    }
}

/// A proxy at which nothing could be registered, and why.
fn failure(backlog: &Backlog) -> (String, String) {
    let reason = match backlog.last_failure() {
        Some(failure) => failure.to_string(),
        None => "no connection could be set up in time".into(),
    };
    (backlog.name().to_owned(), reason)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Otherwise a run whose database is away at its start would end for want of a proxy that it has not asked.
    #[test]
    fn the_time_for_the_first_filling_stands_still_in_a_pause() {
        let start = now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut proxies = Proxies {
            of_each: Vec::new(),
            bootstrap_until: Some(at(5)),
            next_shard: HashMap::new(),
            came_back: false,
            filled_again: false,
            taken: 0,
            paused_at: None,
        };
        assert_eq!(proxies.next_due(), Some(at(5)));
        // What is said twice counts once.
        for seconds in [1, 2] {
            proxies.pause(true, at(seconds));
            assert_eq!(proxies.next_due(), None);
        }
        for seconds in [61, 70] {
            proxies.pause(false, at(seconds));
            assert_eq!(proxies.next_due(), Some(at(65)));
        }
    }
}
