//! A session's connection to its endpoint from the decision to close it to the close.
//!
//! The last bytes leave, such as an alert; then input is discarded until the endpoint closes, because a close with
//! unread input would reset the connection and lose them. While the kernel still holds some of what a mlet wrote, the
//! endpoint has the drain limit to take more of it.
//!
//! Not here: what is discarded before, when the mlet takes no more (`proto/relay.rs`), and how long is waited (`end.rs` for the first time, `stall.rs` from then on).

use std::time::Instant;

use super::request::Request;
use super::stall::Delivery;
use crate::config::Limits;
use crate::guards::{Guard, holds};
use crate::proto::session_end::Outcome;
use packetlab::tls::ServerStream;

/// close_notify in a record of its own, and the FIN behind it, which the kernel counts as well (SIOCOUTQ, tcp(7)).
const CLOSE_LEN: usize = 5 + 2 + 1 + 16 + 1;

/// A connection that closes.
pub(super) struct Closing {
    /// Boxed, because sessions are many and few are closing; `None` once taken.
    outcome: Option<Box<Outcome>>,
    last_bytes: LastBytes,
    /// Of what a mlet wrote, if there was one: then the kernel may hold megabytes, otherwise an alert of a few bytes.
    pub(super) delivery: Option<Delivery>,
}

/// The last bytes for the endpoint.
enum LastBytes {
    /// They leave.
    Sending {
        /// Sealed ones may still be in here.
        tls: Option<ServerStream>,
        /// The endpoint has closed.
        input_ended: bool,
    },
    /// They have left: our write side is shut down, and the endpoint's end is awaited.
    Sent,
}

impl Closing {
    /// Begins with what is to be sent already, for a session that ends with `outcome`.
    pub(super) fn new(outcome: Outcome, delivery: Option<Delivery>) -> Self {
        let outcome = Some(Box::new(outcome));
        Self { outcome, last_bytes: LastBytes::Sending { tls: None, input_ended: false }, delivery }
    }

    /// What TLS has to say at the end is sent as well.
    pub(super) fn end_tls(&mut self, mut stream: ServerStream) {
        stream.close();
        if let LastBytes::Sending { tls, .. } = &mut self.last_bytes {
            *tls = Some(stream);
        }
    }

    /// Sealed bytes that are still to be sent come from here.
    pub(super) fn tls_mut(&mut self) -> Option<&mut ServerStream> {
        match &mut self.last_bytes {
            LastBytes::Sending { tls, .. } => tls.as_mut(),
            LastBytes::Sent => None,
        }
    }

    /// The endpoint's bytes are wanted.
    pub(super) fn wants_endpoint_input(&self) -> bool {
        !matches!(self.last_bytes, LastBytes::Sending { input_ended: true, .. })
    }

    /// The endpoint has closed. True when nothing is left to wait for.
    pub(super) fn handle_endpoint_end(&mut self) -> bool {
        match &mut self.last_bytes {
            LastBytes::Sending { input_ended, .. } => {
                *input_ended = true;
                false
            }
            LastBytes::Sent => true,
        }
    }

    /// All that waited to be sent has left. True when nothing is left to wait for.
    pub(super) fn handle_all_sent(&mut self, requests: &mut Vec<Request>) -> bool {
        let LastBytes::Sending { input_ended, .. } = self.last_bytes else { return false };
        self.last_bytes = LastBytes::Sent;
        requests.push(Request::EndEndpointInput);
        input_ended || !holds(Guard::Lingers)
    }

    /// Takes a look at how many bytes the kernel still holds for the endpoint: when to look again, unless it has been waited
    /// long enough. Then the outcome tells whether bytes of the mlet are among them.
    pub(super) fn take_probe(
        &mut self,
        untaken_len: usize,
        limits: &Limits,
        now: Instant,
    ) -> Option<Instant> {
        let next = self.delivery.as_mut()?.take_probe(untaken_len, limits, now);
        if next.is_none()
            && untaken_len > CLOSE_LEN
            && let Some(outcome) = &mut self.outcome
            && matches!(**outcome, Outcome::MletEnded)
        {
            **outcome = Outcome::UndeliveredToEndpoint;
        }
        next
    }

    /// What the session ends with; to be taken when it is over.
    pub(super) fn take_outcome(&mut self) -> Option<Box<Outcome>> {
        self.outcome.take()
    }
}
