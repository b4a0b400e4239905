//! The experiment descriptor, as it is published (spec/protocol.md 1.8).
//!
//! The order is the original's, which pushed each pair to the front of a list. A predefined name in
//! `OVERRIDE_XDESCRNVP` replaces the pairs of that name, where the original failed.

use crate::config::{Called, Experiment};
use packetlab::name_value::{self, Pair};
use packetlab::time::Ticks;

/// The descriptor of `experiment`. `controller_addr` and `pub_end` are what is published unless an
/// override says otherwise; without a `pub_end` the pair is left out.
pub fn descriptor(
    called: &Called,
    experiment: &Experiment,
    controller_addr: &str,
    pub_end: Option<Ticks>,
) -> String {
    let mut pairs = Vec::new();
    let mut push = |name: &str, value: String| {
        if experiment.overrides.iter().all(|pair| pair.name != name) {
            pairs.push(Pair { name: name.to_owned(), value });
        }
    };
    if let Some(hostid) = &called.hostid {
        push("hostid", hostid.clone());
    }
    for location in called.locations.iter().rev() {
        push("endpoint_location", location.clone());
    }
    for country in called.countries.iter().rev() {
        push("endpoint_country", country.clone());
    }
    if let Some(priority) = called.priority {
        push("exp_priority", priority.to_string());
    }
    if let Some(pub_end) = pub_end {
        push("pub_end", pub_end.to_string());
    }
    push("controller_addr", controller_addr.to_owned());
    push("sni_key", experiment.snikey.to_string());
    pairs.extend(experiment.overrides.iter().rev().cloned());
    name_value::encode(&pairs)
}

/// When the publication of `experiment` ends; `None` is never. An overridden `pub_end` wins; one that
/// is no 64-bit number, which the config allows in C's manner, is as late as can be.
pub fn publication_end(experiment: &Experiment, default: Option<Ticks>) -> Option<Ticks> {
    let overridden = experiment.overrides.iter().find(|pair| pair.name == "pub_end");
    match overridden {
        Some(pair) => Some(pair.value.trim().parse().map_or(Ticks::MAX, Ticks)),
        None => default,
    }
}

/// The same as the descriptor itself tells it.
pub fn end_in_text(xdescr: &str) -> Option<Ticks> {
    let mut pairs = name_value::pairs(xdescr);
    let end = pairs.find_map(|(name, value)| (name == "pub_end").then_some(value));
    end.map(|end| end.trim().parse().map_or(Ticks::MAX, Ticks))
}

#[cfg(test)]
mod tests;
