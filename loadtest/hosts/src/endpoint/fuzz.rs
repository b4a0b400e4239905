//! The door of fuzz targets to the requests of a mlet, behind START, over any stream, and to its capture filters.
//!
//! It is there with the feature `fuzz` alone, which no program is built with.

use std::net::IpAddr;
use std::time::Duration;

use packetlab::time::Ticks;
use tokio::io::{AsyncRead, AsyncWrite};

use super::chain_limits::ChainLimits;
use super::filter::{self, Filter};
use super::machine::Machine;
use super::monitors::SessionMonitors;
use super::requests::{self, SessionTerms};
use super::session_end::{End, EndpointError};
use super::sockets::Sockets;
use crate::link::Link;

/// Serves an endpoint's requests at this address, with a chain that limits nothing and demands no monitor.
///
/// # Errors
/// The session failed.
pub async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    own: IpAddr,
) -> Result<End, EndpointError> {
    let limits = ChainLimits::default();
    let monitors = SessionMonitors::new(limits.memories(), false, "endpoint".to_owned());
    let sockets = Sockets::new(Machine::new(own, "host".to_owned()), limits);
    let (ran, not_after) = (Duration::ZERO, Ticks::MAX);
    let terms = SessionTerms { sockets, monitors, ran, not_after, leave_at: None };
    requests::serve(&mut Link::new(stream), terms, std::future::pending(), || ()).await
}

/// How many bytes of `packets` a capture filter, in its encoded form, wants, one after the other: `None` of one that has cost
/// more than [`FILTER_BUDGET`]. `None` if it is refused.
///
/// # Panics
/// It is taken, and is no program.
pub fn wanted_lens(encoded: &[u8], packets: &[&[u8]]) -> Option<Vec<Option<usize>>> {
    let mut filter = Filter::decode(encoded).ok()?;
    assert!(filter::is_program(encoded), "a filter is a program");
    Some(packets.iter().map(|packet| filter.wanted_len(packet).ok()).collect())
}

/// Instructions that one packet may cost beyond going through a filter once, roughly.
pub const FILTER_BUDGET: usize = filter::BUDGET as usize;
