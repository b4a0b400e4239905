//! Accepted connections that wait for a place in set-up; their sources take turns.
//!
//! Not here: when one gets its place (`accepting.rs`). Invariant: who comes from an address of its own waits for one
//! connection of each other source, however many of those wait.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use crate::guards::{Guard, holds};

/// How many connections of a shard may wait: as many as the kernel's own queue holds where nobody has changed it. When
/// so many do, those that come wait there, in the order in which they came.
const WAITING_MAX: usize = 4096;

/// Which of the prefixes that are given to one customer an address of IPv6 is in.
const PREFIX: u128 = u128::MAX << 64;

/// Where a connection comes from, as far as turns are concerned: an address, of IPv6 its first 64 bits. A socket for both
/// families, as an init system may hand over, tells of IPv4 within IPv6 (`::ffff:192.0.2.1`).
pub(super) fn source(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        address @ IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & PREFIX).into(),
    }
}

/// The connections, with their peers.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    by_source: HashMap<IpAddr, VecDeque<(OwnedFd, SocketAddr)>>,
    /// Sources with a connection that waits, each once, the next first.
    turns: VecDeque<IpAddr>,
    len: usize,
}

impl Waiting {
    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// No more may wait here.
    pub(super) fn is_full(&self) -> bool {
        self.len >= WAITING_MAX
    }

    /// `endpoint` waits from now on.
    pub(super) fn push(&mut self, endpoint: OwnedFd, peer: SocketAddr) {
        let nobody = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let source = if holds(Guard::TakesTurns) { source(peer.ip()) } else { nobody };
        let queue = self.by_source.entry(source).or_default();
        if queue.is_empty() {
            self.turns.push_back(source);
        }
        queue.push_back((endpoint, peer));
        self.len += 1;
    }

    /// The one whose turn it is: of the next source, the one that has waited longest.
    pub(super) fn pop(&mut self) -> Option<(OwnedFd, SocketAddr)> {
        let source = self.turns.pop_front()?;
        let queue = self.by_source.get_mut(&source)?;
        let next = queue.pop_front()?;
        if queue.is_empty() {
            self.by_source.remove(&source);
        } else {
            self.turns.push_back(source);
        }
        self.len -= 1;
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(waiting: &mut Waiting) -> Vec<String> {
        std::iter::from_fn(|| waiting.pop()).map(|(_, peer)| peer.ip().to_string()).collect()
    }

    fn waiting(peers: &[&str]) -> Waiting {
        let mut waiting = Waiting::default();
        for peer in peers {
            let (endpoint, _) = crate::sys::socket::session_pair().unwrap();
            waiting.push(endpoint, SocketAddr::new(peer.parse().unwrap(), 1));
        }
        waiting
    }

    #[test]
    fn sources_take_turns_and_each_of_them_serves_first_who_came_first() {
        let mut all = waiting(&["10.0.0.1", "10.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.3"]);
        assert_eq!(all.len(), 5);
        let order = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.1", "10.0.0.1"];
        assert_eq!(peers(&mut all), order);
        assert!(all.len() == 0 && all.by_source.is_empty(), "nobody is left behind");
    }

    #[test]
    fn addresses_of_one_prefix_of_ipv6_are_one_source() {
        let mut all = waiting(&["fd00::1", "fd00::2", "fd00:0:0:1::1"]);
        assert_eq!(peers(&mut all), ["fd00::1", "fd00:0:0:1::1", "fd00::2"]);
    }

    #[test]
    fn addresses_of_ipv4_are_sources_of_their_own_at_a_socket_for_both_families_too() {
        let [one, other] = ["::ffff:192.0.2.1", "::ffff:192.0.2.2"];
        assert_eq!(peers(&mut waiting(&[one, one, other])), [one, other, one]);
    }
}
