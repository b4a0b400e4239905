//! What may become of a session in a drawn world, by what was drawn for it: a session that meets no fault is served, and
//! everything is delivered.
//!
//! Not here: faults at each step of a session one by one (`faults.rs`).

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::drawn_endpoint::{Player, Progress};
use super::faults::{Class, Fault};
use super::invariants::check_counts;
use crate::proto::session_end::{End, Outcome};
use crate::proto::tests::assert_records_hold_one_message_each;
use crate::proto::tests::credentials::Login;
use crate::records::{Ended, SessionId};

/// What strikes all sessions of a world.
#[derive(Debug, Clone, Copy)]
pub(super) struct Circumstances {
    /// There are places for two in set-up, or for two sessions.
    pub(super) is_crowded: bool,
    /// The run began to end while something moved or a deadline was awaited.
    pub(super) drained_early: bool,
    /// The run was ended by force.
    pub(super) is_forced: bool,
    /// An endpoint that has ended leaves its mlet time.
    pub(super) has_patience: bool,
    /// How long nothing may be relayed.
    pub(super) idle_timeout: Option<Duration>,
}

impl Player {
    /// Its session has ended as it may, and what that says was delivered has been.
    pub(super) fn check_end(
        &mut self,
        circumstances: Circumstances,
        linfos_logged: &HashMap<SessionId, u64>,
        idle: &HashSet<SessionId>,
    ) {
        assert!(self.ended.len() <= 1, "{:?}", self.ended);
        let Some(ended) = self.ended.pop() else { return };
        let class = Class::from(&ended.outcome);
        let fitting = self.fitting(circumstances);
        assert!(
            fitting.contains(&class) && self.fits_end(&ended.outcome),
            "{:?} instead of {fitting:?}; {:?} {:?}; {circumstances:?}",
            ended.outcome,
            self.fault,
            self.struck,
        );
        let is_idle = class == Class::IdleTimeout;
        let was_told = idle.contains(&ended.facts.id) || self.mlet.is_none();
        assert!(!is_idle || was_told, "its mlet was to be ended");
        let linfos_logged = linfos_logged.get(&ended.facts.id).copied().unwrap_or(0);
        self.check_delivery(&ended, class, circumstances, linfos_logged);
        self.ended.push(ended);
    }

    fn fitting(&self, circumstances: Circumstances) -> Vec<Class> {
        let has_started = self.endpoint.borrow().is_relayed;
        match self.struck {
            Some(Progress::Hello | Progress::SetUp) if !self.is_harmless() => {
                self.fitting_in_set_up(circumstances)
            }
            _ if !has_started => self.fitting_in_set_up(circumstances),
            _ => self.fitting_after_start(circumstances),
        }
    }

    /// Its fault changes nothing for its session before START was answered.
    fn is_harmless(&self) -> bool {
        matches!(self.fault, Fault::Stop | Fault::MletDies)
    }

    fn fitting_in_set_up(&self, circumstances: Circumstances) -> Vec<Class> {
        let is_silent = self.endpoint.borrow().is_silent;
        let is_cancelled = circumstances.drained_early || circumstances.is_forced;
        let is_slow = matches!(self.fault, Fault::Silence | Fault::Trickle);
        let has_stopped = is_slow && self.struck == Some(Progress::Hello);
        let fitting = [
            (Class::NoExperiment, !self.has_experiment),
            (Class::Tls, self.login == Login::Stranger),
            (Class::SetUpTimeout, is_silent),
            (Class::NoPermit, self.has_no_permit),
            (Class::Refused, self.is_refused),
            (Class::Forced, circumstances.is_forced),
            (Class::Cancelled, is_cancelled),
            (Class::MadeRoom, circumstances.is_crowded && has_stopped),
        ];
        let of_fault = match (self.fault, self.struck) {
            (_, None) => None,
            (Fault::Fin | Fault::Reset | Fault::CutRecord | Fault::CloseNotify, _) => {
                Some(Class::LeftInSetUp)
            }
            (Fault::Garbage, _) => Some(Class::Tls),
            (Fault::HugeLength | Fault::WrongType | Fault::ErrorResult, _) => Some(Class::Greeting),
            (Fault::Silence | Fault::Trickle, Some(Progress::Hello)) => {
                Some(Class::HandshakeTimeout)
            }
            (Fault::Silence | Fault::Trickle, _) => Some(Class::SetUpTimeout),
            (Fault::Lack | Fault::Stop | Fault::MletDies, _) => None,
        };
        let fitting = fitting.into_iter().filter_map(|(class, fits)| fits.then_some(class));
        fitting.chain(of_fault).collect()
    }

    fn fitting_after_start(&self, circumstances: Circumstances) -> Vec<Class> {
        let fault = self.struck.map(|_| self.fault);
        let has_left = matches!(
            fault,
            Some(Fault::Fin | Fault::Reset | Fault::CutRecord | Fault::CloseNotify)
        );
        let has_broken_tls = fault == Some(Fault::Garbage);
        let takes_no_more = !self.endpoint_reads || self.has_broken_off();
        [
            (Class::MletEnded, true),
            (Class::EndpointEnded, has_left),
            (Class::EndpointBrokeTls, has_broken_tls),
            (Class::UndeliveredToEndpoint, takes_no_more || circumstances.is_forced),
            (
                Class::UndeliveredToMlet,
                has_left && circumstances.is_forced
                    || (has_left || has_broken_tls) && !self.mlet_reads,
            ),
            (Class::MletLate, self.is_given_up),
            (Class::Forced, circumstances.is_forced),
            (Class::IdleTimeout, circumstances.idle_timeout.is_some()),
            (Class::Cancelled, circumstances.is_forced),
        ]
        .into_iter()
        .filter_map(|(class, fits)| fits.then_some(class))
        .collect()
    }

    /// The connection ended as its endpoint ended it.
    fn fits_end(&self, outcome: &Outcome) -> bool {
        match outcome {
            Outcome::EndpointEnded(end) | Outcome::LeftInSetUp(end) => {
                matches!(end, End::Broken(_)) == (self.fault == Fault::Reset)
            }
            _ => true,
        }
    }

    /// What the outcome says was delivered has arrived, and the counts of the record agree with the streams.
    fn check_delivery(
        &mut self,
        ended: &Ended,
        class: Class,
        circumstances: Circumstances,
        linfos_logged: u64,
    ) {
        let Some(mlet) = &self.mlet else { return };
        let (mut mlet, mut endpoint) = (mlet.borrow_mut(), self.endpoint.borrow_mut());
        // What waits in the sockets was delivered, as far as the session can know.
        (mlet.reads, endpoint.reads) = (true, true);
        mlet.take_all();
        endpoint.take();
        self.streams.check(&endpoint, &mlet);
        assert_records_hold_one_message_each(&endpoint.record_lens, &endpoint.received);
        check_counts(&ended.relayed, &endpoint, &mlet, linfos_logged);
        if class == Class::MletEnded && !self.has_broken_off() {
            assert_eq!(endpoint.received.len(), mlet.said.len(), "{:?}", endpoint.notes);
            assert_eq!(ended.relayed.to_endpoint.bytes, mlet.said.len() as u64);
            let is_told = endpoint.close_notify || endpoint.was_reset || circumstances.is_forced;
            assert!(is_told, "{:?}", endpoint.notes);
        }
        if matches!(class, Class::EndpointEnded | Class::EndpointBrokeTls) {
            // Of a record that is cut nothing arrives.
            if mlet.is_at_eof && self.fault != Fault::CutRecord {
                let for_mlet_len = self.streams.for_mlet_len(&endpoint);
                assert_eq!(mlet.received.len(), for_mlet_len, "the mlet got all");
                assert_eq!(ended.relayed.from_endpoint.bytes, endpoint.said.len() as u64);
            }
            let was_left_alone = !circumstances.is_forced && circumstances.has_patience;
            let is_held_up = was_left_alone && mlet.was_cut_off() && !self.mlet_goes_on;
            assert!(!is_held_up, "a mlet was held up though its endpoint had ended");
        }
    }
}
