//! What a mlet finds in its environment.
//!
//! Not here: its arguments, which are the same for all mlets (`sys/supervisor`).

use std::fmt::Display;

use crate::proto::mlet_facts::MletFacts;
use crate::records::SessionId;

/// What a mlet finds in its environment (behaviour.md "What a mlet finds").
pub(crate) fn environment<'a>(
    id: &'a SessionId,
    facts: &'a MletFacts,
) -> [(&'static str, &'a dyn Display); 4] {
    let key: &dyn Display = match &facts.endpoint_key {
        Some(key) => key,
        None => &"",
    };
    [
        ("EPADDR", &facts.peer),
        ("PKTLAB_SESSION", id),
        ("PKTLAB_ENDPOINT_KEY", key),
        ("PKTLAB_SNIKEY", &facts.snikey),
    ]
}
