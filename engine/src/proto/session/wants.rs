//! What a session wants of its sockets and of the clock, to be asked for after each call, and what it still has to send.
//!
//! Not here: what it asks for once, its requests (`request.rs`).

use std::time::Instant;

use super::{Session, Stage, State, Tls};
use crate::guards::{Guard, holds};
use crate::proto::outbox::Transmission;
use crate::proto::relay::Relay;

impl Session {
    /// Bytes to send to the endpoint now; they are in flight until [`Self::handle_sent_to_endpoint`].
    pub fn transmit_to_endpoint(&mut self) -> Option<Transmission> {
        let transmission = match self.state {
            State::Over => None,
            _ => self.buffers.to_endpoint.transmit(),
        };
        if transmission.is_some() {
            self.rhythm.note_sent();
        }
        transmission
    }

    /// Bytes to send to the mlet now; they are in flight until [`Self::handle_sent_to_mlet`].
    pub fn transmit_to_mlet(&mut self) -> Option<Transmission> {
        if matches!(self.state, State::Over) { None } else { self.buffers.to_mlet.transmit() }
    }

    /// A receive from the endpoint is wanted.
    pub fn wants_endpoint_input(&self) -> bool {
        match &self.state {
            State::Tls(Tls { stage: Stage::Relay(relaying), .. }) => {
                relaying.relay.wants_endpoint_input(&self.buffers)
            }
            State::Waiting | State::Silent | State::Hello(_) | State::Tls(_) => {
                self.buffers.to_endpoint.is_empty()
            }
            State::Closing(closing) => closing.wants_endpoint_input(),
            State::Over => false,
        }
    }

    /// A receive from the mlet is wanted.
    pub fn wants_mlet_input(&self) -> bool {
        self.state.relay().is_some_and(|relay| relay.wants_mlet_input(&self.buffers))
    }

    /// A receive from the endpoint will be wanted when the transmission to the mlet has wholly left, so
    /// the two may be started together.
    pub fn wants_endpoint_input_next(&self) -> bool {
        self.state.relay().is_some_and(Relay::wants_endpoint_input_next)
    }

    /// As [`Self::wants_endpoint_input_next`], for the mlet's input and the transmission to the endpoint.
    pub fn wants_mlet_input_next(&self) -> bool {
        match &self.state {
            State::Tls(Tls { stream, stage: Stage::Relay(relaying) }) => {
                relaying.relay.wants_mlet_input_next(stream, &self.buffers)
            }
            _ => false,
        }
    }

    /// How many bytes have not left for the endpoint; of those that wait to be sealed, how many they are plain.
    pub fn unsent_to_endpoint_len(&self) -> usize {
        self.buffers.to_endpoint.unsent_len() + self.buffers.stash.unsent_len()
    }

    /// How many bytes have not left for the mlet.
    pub fn unsent_to_mlet_len(&self) -> usize {
        self.buffers.to_mlet.unsent_len()
    }

    /// When [`Self::handle_timeout`] is to be called.
    pub fn deadline(&self) -> Option<Instant> {
        let relaying = self.state.relaying_ref();
        let linfo_due = relaying.and_then(|relaying| relaying.relay.linfo().due());
        let idle_due = relaying.and_then(|relaying| relaying.idle_due(&self.experiments.limits));
        let deadline =
            self.deadline.filter(|_| holds(Guard::EndsLateHandshakes) || !self.is_handshaking());
        [deadline, linfo_due, idle_due].into_iter().flatten().min()
    }
}
