//! The door of a fuzz target to the supervisor: what it makes of a packet, without anything being done.
//!
//! It is there with the feature `fuzz` alone, which no program is built with.

use super::asked::Asked;
use super::message::{SupervisorEvent, SupervisorRequest};
use crate::sys::fd_passing::ReceivedMessage;

/// Whether the supervisor, which has received this into `buffer`, would start a mlet.
pub fn starts_a_mlet(received: ReceivedMessage, buffer: &[u8]) -> bool {
    matches!(Asked::of(received, buffer), Some(Asked::Spawn { .. }))
}

/// The request in these bytes, encoded anew; `None` if they are none.
///
/// # Panics
/// What was decoded cannot be said.
pub fn request_again(bytes: &[u8]) -> Option<Vec<u8>> {
    SupervisorRequest::decode(bytes).map(|request| request.encode().expect("it was said before"))
}

/// The event in these bytes, encoded anew; `None` if they are none.
pub fn event_again(bytes: &[u8]) -> Option<Vec<u8>> {
    SupervisorEvent::decode(bytes).map(|event| event.encode())
}
