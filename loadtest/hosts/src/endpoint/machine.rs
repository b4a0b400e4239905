//! The machine as it shows itself to a mlet: its addresses, its DNS servers, its name.
//!
//! Not here: where they are in memory (`memory`).

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::OnceLock;

use nix::ifaddrs::getifaddrs;

/// Most addresses, and most DNS servers, of one family (spec/protocol.md 7).
const ADDRESSES_MAX: usize = 256;
const DNS_SERVERS_MAX: usize = 16;
/// Where the DNS servers are named.
const RESOLVER_FILE: &str = "/etc/resolv.conf";

/// What one endpoint knows of its machine.
#[derive(Debug)]
pub(super) struct Machine {
    own: IpAddr,
    host_id: String,
    /// Looked up when first asked for: most sessions never do.
    facts: OnceLock<Facts>,
}

/// Addresses with their masks, and DNS servers.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// The endpoint's own first.
    pub(super) ipv4: Vec<(Ipv4Addr, Ipv4Addr)>,
    /// The endpoint's own first.
    pub(super) ipv6: Vec<Ipv6Addr>,
    /// In the order in which they are asked.
    pub(super) dns_ipv4: Vec<Ipv4Addr>,
    /// In the order in which they are asked.
    pub(super) dns_ipv6: Vec<Ipv6Addr>,
}

impl Machine {
    /// For an endpoint whose own address is `own`, which may be unspecified.
    pub(super) fn new(own: IpAddr, host_id: String) -> Self {
        Self { own, host_id, facts: OnceLock::new() }
    }

    /// The name that the endpoint's operator gave it.
    pub(super) fn host_id(&self) -> &str {
        &self.host_id
    }

    /// Where a socket is bound: the unspecified address stands for the endpoint's own.
    pub(super) fn bound_to(&self, local: SocketAddr) -> SocketAddr {
        if local.ip().is_unspecified() && self.own.is_ipv4() == local.is_ipv4() {
            SocketAddr::new(self.own, local.port())
        } else {
            local
        }
    }

    /// Whether that is an address of the endpoint.
    pub(super) fn has(&self, address: IpAddr) -> bool {
        address == self.own
            || match address {
                IpAddr::V4(address) => self.facts().ipv4.iter().any(|(own, _)| *own == address),
                IpAddr::V6(address) => self.facts().ipv6.contains(&address),
            }
    }

    /// Whether the endpoint has any address of IPv6.
    pub(super) fn has_ipv6(&self) -> bool {
        !self.facts().ipv6.is_empty()
    }

    /// Addresses and DNS servers.
    pub(super) fn facts(&self) -> &Facts {
        self.facts.get_or_init(|| {
            let mut facts = Facts::default();
            facts.add_interfaces(self.own);
            // Without the file there is no DNS server to know of.
            facts.add_servers(&fs::read_to_string(RESOLVER_FILE).unwrap_or_default());
            facts
        })
    }
}

impl Facts {
    /// The endpoint's own address, and those of all interfaces but loopback.
    fn add_interfaces(&mut self, own: IpAddr) {
        let mut own_mask = Ipv4Addr::BROADCAST;
        for interface in getifaddrs().into_iter().flatten() {
            let Some(address) = interface.address else { continue };
            if let Some(address) = address.as_sockaddr_in().map(|address| address.ip()) {
                let mask = interface.netmask.as_ref().and_then(|mask| mask.as_sockaddr_in());
                let mask = mask.map_or(Ipv4Addr::BROADCAST, |mask| mask.ip());
                if let IpAddr::V4(own) = own
                    && (own.to_bits() ^ address.to_bits()) & mask.to_bits() == 0
                {
                    own_mask = mask;
                }
                if !address.is_loopback() && own != address {
                    self.ipv4.push((address, mask));
                }
            } else if let Some(address) = address.as_sockaddr_in6().map(|address| address.ip())
                && !address.is_loopback()
                && own != address
            {
                self.ipv6.push(address);
            }
        }
        match own {
            IpAddr::V4(own) if !own.is_unspecified() => self.ipv4.insert(0, (own, own_mask)),
            IpAddr::V6(own) if !own.is_unspecified() => self.ipv6.insert(0, own),
            _ => {}
        }
        self.ipv4.truncate(ADDRESSES_MAX);
        self.ipv6.truncate(ADDRESSES_MAX);
    }

    /// Those of a resolver's file.
    fn add_servers(&mut self, text: &str) {
        for line in text.lines() {
            let mut words = line.split_whitespace();
            if words.next() != Some("nameserver") {
                continue;
            }
            // A link-local address may carry its interface, for which memory has no place.
            let address = words.next().and_then(|word| word.split('%').next()?.parse().ok());
            match address {
                Some(IpAddr::V4(address)) => self.dns_ipv4.push(address),
                Some(IpAddr::V6(address)) => self.dns_ipv6.push(address),
                None => {}
            }
        }
        self.dns_ipv4.truncate(DNS_SERVERS_MAX);
        self.dns_ipv6.truncate(DNS_SERVERS_MAX);
    }
}

#[cfg(test)]
impl Machine {
    /// One that exports its own address, and these of IPv6.
    pub(super) fn with_ipv6(own: IpAddr, ipv6: &[Ipv6Addr]) -> Self {
        let facts = Facts { ipv6: ipv6.to_vec(), ..Facts::default() };
        Self { own, host_id: String::new(), facts: facts.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unspecified_address_stands_for_the_endpoints_own() {
        let own = IpAddr::from([127, 8, 0, 1]);
        let machine = Machine::new(own, String::new());
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert_eq!(machine.bound_to(address("0.0.0.0:7")), SocketAddr::new(own, 7));
        for other in ["127.0.0.1:7", "[::]:7", "[::1]:0"] {
            assert_eq!(machine.bound_to(address(other)), address(other));
        }
        assert!(machine.has(own));
        assert!(!machine.has([192, 0, 2, 1].into()));
    }

    #[test]
    fn the_endpoints_own_address_comes_first_with_the_mask_of_its_network() {
        let machine = Machine::new([127, 8, 0, 1].into(), String::new());
        let own = (Ipv4Addr::new(127, 8, 0, 1), Ipv4Addr::new(255, 0, 0, 0));
        assert_eq!(machine.facts().ipv4.first(), Some(&own));
        assert!(machine.facts().ipv4.iter().skip(1).all(|(address, _)| !address.is_loopback()));
    }

    #[test]
    fn dns_servers_are_those_of_the_resolvers_file() {
        let mut facts = Facts::default();
        facts.add_servers(
            "# comment\nsearch example.org\nnameserver 192.0.2.53\n nameserver\t2001:db8::53 # x\n\
             nameserver fe80::1%eth0\nnameserver\nnameserver nonsense\nnameserver 192.0.2.54\n",
        );
        assert_eq!(facts.dns_ipv4, [Ipv4Addr::new(192, 0, 2, 53), Ipv4Addr::new(192, 0, 2, 54)]);
        let ipv6: Vec<Ipv6Addr> = ["2001:db8::53", "fe80::1"].map(|a| a.parse().unwrap()).to_vec();
        assert_eq!(facts.dns_ipv6, ipv6);
    }
}
