//! What a mlet finds in its environment.
//!
//! Not here: its arguments, which are the same for all mlets (`mlets.rs`).

use crate::proto::session::MletFacts;
use crate::records::SessionId;

/// What a mlet finds in its environment (behaviour.md "What a mlet finds").
pub(super) fn environment(id: SessionId, facts: &MletFacts) -> Vec<(String, String)> {
    let key = facts.endpoint_key.map_or_else(String::new, |key| key.to_string());
    vec![
        ("EPADDR".into(), facts.peer.to_string()),
        ("PKTLAB_SESSION".into(), id.to_string()),
        ("PKTLAB_ENDPOINT_KEY".into(), key),
        ("PKTLAB_SNIKEY".into(), facts.snikey.to_string()),
    ]
}
