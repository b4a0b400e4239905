//! How a session ends: through its endpoint, or because the run or others want its place.
//!
//! What begins the end of a relayed session is its outcome, unless what is still to be delivered is not taken. Not here: the
//! bytes that are delivered meanwhile (`proto/relay.rs`), and the close itself (`endpoint_close.rs`).

use std::io::ErrorKind;
use std::time::Instant;

use super::endpoint_close::Closing;
use super::request::{Context, Request, SetUpStage};
use super::stall::Delivery;
use super::{Relaying, Session, Stage, State, Tls};
use crate::guards::{Guard, holds};
use crate::proto::outbox::BlockPool;
use crate::proto::relay::{Phase, Step};
use crate::proto::session_end::{End, Force, Outcome};
use packetlab::tls::{self, TlsError};

impl Session {
    /// Others wait for what this session holds: it ends at once, unless START has succeeded.
    pub fn handle_make_room(&mut self, cx: &mut Context<'_>) {
        if !self.is_served() {
            let made_room = match (self.set_up_stage(), self.endpoint_key()) {
                (SetUpStage::Greeting, Some(key)) => Outcome::MadeRoomOfKey(key),
                _ => Outcome::MadeRoom,
            };
            self.end_at_once(made_room, cx.pool);
        }
    }

    /// The run is ending: a session that has not sent START ends, others go on.
    pub fn handle_stop(&mut self, cx: &mut Context<'_>) {
        let goes_on = self.is_served() && holds(Guard::DrainsSessions);
        if !goes_on && !self.awaits_start() {
            let outcome = match &self.state {
                State::Tls(Tls { stage: Stage::Greeting(greeting, _), .. })
                    if greeting.awaits_permit() =>
                {
                    Outcome::PermitsUsedUp
                }
                _ => Outcome::Cancelled,
            };
            self.end_at_once(outcome, cx.pool);
        }
    }

    /// The run is over, by force: so is the session, at once.
    pub fn handle_run_over(&mut self, force: Force, cx: &mut Context<'_>) {
        let outcome = if self.is_served() { Outcome::Forced(force) } else { Outcome::Cancelled };
        self.end_at_once(outcome, cx.pool);
    }

    /// The run is ended by force: a served session loses its mlet, whose end [`Self::handle_mlet_end`] tells behind what
    /// it wrote before; any other ends. So does one that has lost its permit, though the run goes on.
    pub fn handle_force(&mut self, force: Force, cx: &mut Context<'_>) {
        match self.state {
            State::Tls(Tls { stage: Stage::Relay(_), .. }) => {
                self.begin_end(Outcome::Forced(force));
            }
            State::Closing(_) | State::Over => {}
            State::Waiting | State::Silent | State::Hello(_) | State::Tls(_) => {
                let outcome = match force {
                    Force::Fenced => Outcome::Forced(force),
                    _ => Outcome::Cancelled,
                };
                self.finish(outcome, cx.pool);
            }
        }
        self.advance(cx);
    }

    /// No mlet was started for a served session in time: it loses it, and [`Self::handle_mlet_end`] follows.
    pub fn handle_mlet_late(&mut self, cx: &mut Context<'_>) {
        self.begin_end(Outcome::MletLate);
        self.advance(cx);
    }

    /// TLS broke down: the peer gets the alert that says so.
    pub(super) fn fail_tls(&mut self, error: TlsError, cx: &mut Context<'_>) {
        match self.state {
            State::Tls(Tls { stage: Stage::Relay(_), .. }) => {
                // The mlet still gets what arrived before the damage.
                self.begin_end(Outcome::EndpointBrokeTls(error));
                self.end_endpoint_input(End::Broken(ErrorKind::InvalidData), cx);
            }
            State::Tls(_) if tls::is_close(&error) => {
                self.close(Outcome::LeftInSetUp(End::Closed), cx.now);
            }
            State::Tls(_) => self.close(Outcome::Tls(error), cx.now),
            _ => {}
        }
    }

    /// The connection to the endpoint takes no more bytes. What the endpoint sent before may still
    /// wait in the socket, and the mlet gets it.
    pub(super) fn lose_endpoint(&mut self, kind: ErrorKind, cx: &mut Context<'_>) {
        self.buffers.to_endpoint.discard(cx.pool);
        match self.state.relaying() {
            Some((_, Relaying { relay, .. })) if relay.phase() != Phase::DrainingToEndpoint => {
                relay.handle_endpoint_write_closed(&mut self.buffers, cx.pool);
                self.begin_end(Outcome::EndpointEnded(End::Broken(kind)));
            }
            _ => self.end_endpoint_input(End::Broken(kind), cx),
        }
    }

    pub(super) fn end_endpoint_input(&mut self, end: End, cx: &mut Context<'_>) {
        let broken = matches!(end, End::Broken(_));
        match &mut self.state {
            State::Waiting => self.finish(Outcome::BacklogLost(end), cx.pool),
            State::Tls(Tls { stage: Stage::Relay(Relaying { relay, .. }), .. }) => {
                if broken && relay.phase() == Phase::DrainingToEndpoint {
                    return self.finish(Outcome::UndeliveredToEndpoint, cx.pool);
                }
                relay.handle_endpoint_end(&mut self.buffers, cx.pool, cx.now);
                self.begin_end(Outcome::EndpointEnded(end));
            }
            State::Silent | State::Hello(_) | State::Tls(_) => {
                self.finish(Outcome::LeftInSetUp(end), cx.pool);
            }
            State::Closing(closing) => {
                if broken || closing.handle_endpoint_end() {
                    self.finish_begun(cx.pool);
                }
            }
            State::Over => {}
        }
    }

    /// Something ends a relayed session; the first to do so decides the outcome, and with it whether the endpoint may come
    /// again: one that leaves when its mlet has ended is still `ok`.
    pub(super) fn begin_end(&mut self, outcome: Outcome) {
        let Some((_, Relaying { cause: cause @ None, .. })) = self.state.relaying() else { return };
        *cause = Some(Box::new(outcome.clone()));
        if matches!(outcome, Outcome::EndpointEnded(_) | Outcome::EndpointBrokeTls(_)) {
            self.requests.push(Request::EndpointGone(outcome.to_string()));
        }
        self.give_back_key_after(&outcome);
        self.note_progress();
    }

    /// Does what the relay has come to.
    pub(super) fn take_step(&mut self, step: Step, cx: &mut Context<'_>) {
        match step {
            Step::Continue => {}
            Step::EndMletInput => {
                self.requests.push(Request::EndMletInput);
                self.note_progress();
            }
            Step::CloseEndpoint => {
                self.requests.push(Request::EndMletInput);
                let outcome = self.take_cause();
                self.close(outcome, cx.now);
            }
            Step::Over => match self.take_cause() {
                // What it has sent is unread, and a close would reset the connection and lose our alert.
                broken @ Outcome::EndpointBrokeTls(_) => {
                    self.requests.push(Request::EndMletInput);
                    self.close(broken, cx.now);
                }
                outcome => self.finish(outcome, cx.pool),
            },
        }
    }

    /// Ends the connection once the last bytes, such as an alert or close_notify, have left.
    pub(super) fn close(&mut self, outcome: Outcome, now: Instant) {
        self.give_back_key_after(&outcome);
        let delivery = self.is_served().then(|| Delivery::begin(now));
        let closing = State::Closing(Closing::new(outcome, delivery));
        if let State::Tls(Tls { stream, .. }) = std::mem::replace(&mut self.state, closing)
            && let State::Closing(closing) = &mut self.state
        {
            closing.end_tls(stream);
        }
        self.deadline =
            holds(Guard::EndsLateCloses).then(|| now + self.experiments.limits.linger_timeout);
    }

    /// Whatever is on its way is not waited for. What began to end the session before remains its outcome, unless that
    /// says that a peer has got what still waits for it.
    fn end_at_once(&mut self, outcome: Outcome, pool: &mut BlockPool) {
        match &mut self.state {
            State::Over => {}
            State::Closing(Closing { delivery: Some(delivery), .. }) => {
                delivery.give_up();
                self.requests.push(Request::Probe);
            }
            State::Closing(_) => self.finish_begun(pool),
            State::Tls(Tls { stage: Stage::Relay(relaying), .. }) if relaying.cause.is_some() => {
                let has_rest = !self.buffers.to_mlet.is_empty();
                let has_rest_for_endpoint = self.unsent_to_endpoint_len() > 0;
                let outcome = match self.take_cause() {
                    Outcome::EndpointEnded(_) if has_rest => Outcome::UndeliveredToMlet,
                    Outcome::MletEnded if has_rest_for_endpoint => Outcome::UndeliveredToEndpoint,
                    cause => cause,
                };
                self.finish(outcome, pool);
            }
            _ => self.finish(outcome, pool),
        }
    }

    /// The session is over, with what has begun to end it.
    pub(super) fn finish_begun(&mut self, pool: &mut BlockPool) {
        let outcome = self.take_cause();
        self.finish(outcome, pool);
    }

    /// What has begun to end the session, which is over or closing from now on.
    pub(super) fn take_cause(&mut self) -> Outcome {
        let cause = match &mut self.state {
            State::Closing(closing) => closing.take_outcome(),
            state => state.relaying().and_then(|(_, relaying)| relaying.cause.take()),
        };
        cause.map_or(Outcome::MletEnded, |cause| *cause)
    }

    pub(super) fn finish(&mut self, outcome: Outcome, pool: &mut BlockPool) {
        self.give_back_key_after(&outcome);
        self.state = State::Over;
        self.deadline = None;
        self.place = None;
        self.buffers.discard(pool);
        self.requests.push(Request::Over(outcome));
    }

    /// Once anything but its mlet ends it, a session will not be `ok`: its endpoint may come again at once, however long that
    /// mlet takes to end.
    fn give_back_key_after(&mut self, outcome: &Outcome) {
        if !matches!(outcome, Outcome::MletEnded)
            && let Some(hold) = self.hold.take()
        {
            self.experiments.choice.give_back(&hold);
        }
    }
}
