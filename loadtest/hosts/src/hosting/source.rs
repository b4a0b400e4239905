//! Where a peer is, as far as limits are concerned.
//!
//! Not here: what is limited (`places`, `memory_budget`).

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// An IPv4 address, or the network of 64 bits in which an IPv6 address lies, because a host may have all
/// of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Source(IpAddr);

impl Source {
    /// That of a peer.
    pub(crate) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(address.into()),
            IpAddr::V6(address) => {
                const HOST_BITS: u32 = 64;
                let network = address.to_bits() >> HOST_BITS << HOST_BITS;
                Self(Ipv6Addr::from_bits(network).into())
            }
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => address.fmt(f),
            IpAddr::V6(network) => write!(f, "{network}/64"),
        }
    }
}

/// How much of `total` one source may take; 100 percent is no limit of its own.
pub(crate) fn share(total: usize, percent: usize) -> usize {
    if percent >= 100 { usize::MAX } else { total.saturating_mul(percent).div_ceil(100).max(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_one_source_whichever_of_its_addresses_it_uses() {
        let source = |text: &str| Source::of(text.parse().unwrap());
        assert_eq!(source("192.0.2.1"), source("::ffff:192.0.2.1"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
        assert_eq!(source("2001:db8:1:2::1"), source("2001:db8:1:2:ffff::"));
        assert_ne!(source("2001:db8:1:2::1"), source("2001:db8:1:3::1"));
    }

    #[test]
    fn a_share_is_never_nothing_and_a_hundred_percent_is_no_limit() {
        assert_eq!([share(20_000, 50), share(3, 50), share(1, 1)], [10_000, 2, 1]);
        assert_eq!(share(10, 100), usize::MAX);
    }
}
