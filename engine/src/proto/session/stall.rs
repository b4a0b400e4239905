//! Whether anything moves in a session that is relayed, and how long it may stand still.
//!
//! A peer that takes nothing is waited for as long as the other one is there; the last bytes of one that is gone are
//! kept for a limited time. Whether anything moves is seen by looks at the sockets, because they hold megabytes and tell
//! of room only when they have a lot.

use std::time::{Duration, Instant};

use super::request::Probe;
use crate::config::Limits;
use crate::guards::{Guard, holds};
use crate::proto::relay::{Buffers, Phase};
use crate::proto::session_end::Outcome;

/// A timer must not be due again in the turn it was set in, however short the drain timeout.
const PROBE_PERIOD_MIN: Duration = Duration::from_millis(1);

/// How often a session in which nothing moves looks at its sockets before it has waited long enough.
const PROBES: u32 = 4;

/// What is known of one session's standing still.
#[derive(Debug, Default)]
pub(super) enum Stall {
    /// Something moved since its sockets were looked at.
    #[default]
    Moving,
    /// What the kernel held for endpoint and mlet at the last look, and how many looks in a row saw nothing move.
    Still { untaken: (usize, usize), vain_probes: u32 },
    /// The endpoint is gone: a mlet that goes on writing is left then, however much it writes.
    Discarding { until: Instant },
}

impl Stall {
    /// Something moved.
    pub(super) fn note_progress(&mut self) {
        if !matches!(self, Self::Discarding { .. }) {
            *self = Self::Moving;
        }
    }

    /// When nothing may have moved any more where the relay stands, for a look or for good; `before` was the answer when
    /// something moved last or the last look was taken, unless that has passed.
    pub(super) fn deadline(
        &mut self,
        before: Option<Instant>,
        (phase, buffers): (Phase, &Buffers),
        (limits, now): (&Limits, Instant),
    ) -> Option<Instant> {
        let is_idle = buffers.to_endpoint.is_empty() && buffers.to_mlet.is_empty();
        match phase {
            Phase::Open if is_idle => None,
            Phase::DiscardingMlet => {
                let until = match self {
                    Self::Discarding { until } => *until,
                    _ => now + limits.drain_timeout,
                };
                *self = Self::Discarding { until };
                Some(before.unwrap_or(now + limits.linger_timeout).min(until))
            }
            _ => {
                let period = (limits.drain_timeout / PROBES).max(PROBE_PERIOD_MIN);
                Some(before.unwrap_or(now + period))
            }
        }
    }

    /// Takes a look at the sockets: what the session ends with, if it has waited long enough for somebody to take what
    /// one that is gone has sent.
    pub(super) fn take_probe(
        &mut self,
        probe: Probe,
        phase: Phase,
        buffers: &Buffers,
    ) -> Option<Outcome> {
        let untaken = (probe.endpoint.untaken_len, probe.mlet.untaken_len);
        let vain_probes = match self {
            Self::Discarding { .. } => return None,
            Self::Still { untaken: before, .. } if *before != untaken => 0,
            Self::Still { vain_probes, .. } => (*vain_probes + 1).min(PROBES),
            Self::Moving => 1,
        };
        *self = Self::Still { untaken, vain_probes };
        if vain_probes < PROBES || !holds(Guard::EndsUntaken) {
            return None;
        }
        let waits_for_endpoint = match phase {
            Phase::Open => probe.mlet.has_hung_up && !buffers.to_endpoint.is_empty(),
            phase => phase == Phase::DrainingToEndpoint,
        };
        let waits_for_mlet = match phase {
            Phase::Open => probe.endpoint.has_hung_up && !buffers.to_mlet.is_empty(),
            phase => phase == Phase::DrainingToMlet,
        };
        match (waits_for_endpoint, waits_for_mlet) {
            (true, _) => Some(Outcome::UndeliveredToEndpoint),
            (false, true) => Some(Outcome::UndeliveredToMlet),
            (false, false) => None,
        }
    }
}

/// While the last bytes for the endpoint of a mlet that is gone are in the kernel: how many, and since when.
#[derive(Debug)]
pub(super) struct Delivery {
    untaken_len: usize,
    since: Instant,
    is_given_up: bool,
}

impl Delivery {
    /// Nothing has been looked at yet.
    pub(super) fn begin(now: Instant) -> Self {
        Self { untaken_len: 0, since: now, is_given_up: false }
    }

    /// The next look is the last one.
    pub(super) fn give_up(&mut self) {
        self.is_given_up = true;
    }

    /// Takes a look at how many bytes the kernel still holds: when to look again, unless it has been waited long enough.
    pub(super) fn take_probe(
        &mut self,
        untaken_len: usize,
        limits: &Limits,
        now: Instant,
    ) -> Option<Instant> {
        if untaken_len != self.untaken_len {
            (self.untaken_len, self.since) = (untaken_len, now);
        }
        let patience = if untaken_len == 0 { limits.linger_timeout } else { limits.drain_timeout };
        let least = if holds(Guard::ProbesLater) { PROBE_PERIOD_MIN } else { Duration::ZERO };
        (!self.is_given_up && now < self.since + patience)
            .then(|| now + limits.linger_timeout.max(least))
    }
}
