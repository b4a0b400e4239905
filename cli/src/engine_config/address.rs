//! Names to socket addresses, before anything is opened.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::panic::resume_unwind;
use std::thread::{self, ScopedJoinHandle};

use nix::libc::EACCES;
use packetlab::address::HostPort;
use packetlab::escape::Escaped;

use super::purpose::Purpose;

/// Where endpoints reach us, before any key is read. Proxies each with the addresses of its name, as far as they are known.
pub(crate) enum ApproachAddresses {
    Passive { listen: Vec<SocketAddr> },
    Proxies(Vec<(HostPort, Vec<SocketAddr>)>),
}

/// Port of endpoints towards us and of a broker for publishers (spec/protocol.md 7).
pub(crate) const EXPERIMENT_PORT: u16 = 20556;
/// Port of a proxy for controllers (spec/protocol.md 7).
pub(crate) const PROXY_PORT: u16 = 20557;

/// All addresses of a name at which there can be a connection, in the resolver's order, without
/// duplicates; never empty for a run. For a check no name is looked up: those of a literal address alone.
pub(super) fn resolve(
    address: &HostPort,
    default_port: u16,
    purpose: Purpose,
) -> Result<Vec<SocketAddr>, AddressError> {
    let port = address.port.unwrap_or(default_port);
    let found = match purpose.is_a_run() {
        true => (address.host.as_str(), port).to_socket_addrs().and_then(distinct),
        false => {
            let literal = address.host.parse::<IpAddr>();
            Ok(literal.map(|ip| (ip, port).into()).into_iter().collect())
        }
    };
    let mut found = found.map_err(|cause| AddressError::not_found(&address.host, &cause))?;
    let flaw = found.iter().find_map(flaw);
    found.retain(|address| self::flaw(address).is_none());
    match flaw {
        Some(flaw) if found.is_empty() => Err(AddressError::Unusable(flaw)),
        _ => Ok(found),
    }
}

/// Where each of these peers is, of which one suffices; all are looked up at once, since a name server that is silent takes ten
/// seconds a name. A name that cannot be found is only warned of, and has no addresses,
/// unless none can be used; a peer that is named twice is an error.
pub(super) fn resolve_each(
    names: &[HostPort],
    default_port: u16,
    purpose: Purpose,
) -> Vec<Result<Vec<SocketAddr>, AddressError>> {
    let found = thread::scope(|scope| {
        let look_up = |name| scope.spawn(move || resolve(name, default_port, purpose));
        let under_way: Vec<_> = names.iter().map(look_up).collect();
        let end =
            |one: ScopedJoinHandle<'_, _>| one.join().unwrap_or_else(|why| resume_unwind(why));
        under_way.into_iter().map(end).collect::<Vec<_>>()
    });
    let mut each: Vec<Result<Vec<SocketAddr>, AddressError>> = Vec::new();
    for (name, found) in names.iter().zip(found) {
        let port = |name: &HostPort| name.port.unwrap_or(default_port);
        let is_named_so = |earlier: &HostPort| {
            earlier.host.eq_ignore_ascii_case(&name.host) && port(earlier) == port(name)
        };
        let is_there = |there: &[SocketAddr]| {
            let there: Vec<_> = there.iter().map(place).collect();
            found.iter().flatten().any(|address| there.contains(&place(address)))
        };
        let earlier = names.iter().zip(&each);
        let twice = earlier
            .filter(|(earlier, there)| is_named_so(earlier) || there.as_deref().is_ok_and(is_there))
            .map(|(earlier, _)| AddressError::twice(earlier))
            .next();
        each.push(twice.map_or(found, Err));
    }
    let can_run = each.iter().any(Result::is_ok);
    let told = |found| match found {
        Err(AddressError::NotFound(problem)) if can_run => {
            tracing::warn!("{problem}; going on without it until a reload finds it");
            Ok(Vec::new())
        }
        found => found,
    };
    each.into_iter().map(told).collect()
}

/// Where a connection to this address leads: one is reached by several.
fn place(address: &SocketAddr) -> SocketAddr {
    let ip = match address.ip().to_canonical() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    (ip, address.port()).into()
}

/// Why nobody can listen at, or connect to, an address of this kind.
fn flaw(address: &SocketAddr) -> Option<String> {
    let ip = address.ip();
    match address {
        _ if ip.is_multicast() => Some(format!(
            "{ip} is a multicast address, which has no connections; name the address of one host"
        )),
        SocketAddr::V4(v4) if v4.ip().is_broadcast() => Some(format!(
            "{ip} is the broadcast address, which has no connections; name the address of one host"
        )),
        SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() && v6.scope_id() == 0 => {
            Some(format!(
                "{ip} is a link-local address, which is another on each interface; add the zone, as in \
             {ip}%eth0"
            ))
        }
        _ => None,
    }
}

/// As [`resolve`], but `*` is the wildcard of IPv4 and IPv6.
pub(super) fn resolve_to_listen(
    address: &HostPort,
    purpose: Purpose,
) -> Result<Vec<SocketAddr>, AddressError> {
    if address.host != "*" {
        return resolve(address, EXPERIMENT_PORT, purpose);
    }
    let port = address.port.unwrap_or(EXPERIMENT_PORT);
    Ok(vec![(Ipv4Addr::UNSPECIFIED, port).into(), (Ipv6Addr::UNSPECIFIED, port).into()])
}

/// Whether an address is one of this machine, so that it makes sense to listen there. Asks the
/// kernel with a throw-away UDP socket; the port itself is tried when listening starts.
pub(super) fn is_ours(address: SocketAddr) -> io::Result<()> {
    let mut any_port = address;
    any_port.set_port(0);
    let socket = UdpSocket::bind(any_port)?;
    // Which addresses broadcast depends on the interfaces; the kernel lets no plain socket send there. Nothing is sent.
    match socket.connect(address) {
        // Not EPERM, by which a sandbox bars the call.
        Err(error) if error.raw_os_error() == Some(EACCES) => {
            Err(io::Error::other("it is a broadcast address, which has no connections"))
        }
        _ => Ok(()),
    }
}

/// Why a name gives no address at which there can be a connection, with what to do.
#[derive(Debug)]
pub(super) enum AddressError {
    /// It cannot be looked up, now at least.
    NotFound(String),
    /// What it gives is of no use.
    Unusable(String),
}

impl AddressError {
    fn not_found(host: &str, cause: &io::Error) -> Self {
        let host = Escaped(host.as_bytes()).cut(200);
        Self::NotFound(format!("cannot find {host}: {cause}; check the name and the name servers"))
    }

    fn twice(earlier: &HostPort) -> Self {
        let earlier = Escaped(earlier.to_string().as_bytes()).cut(200);
        Self::Unusable(format!("it is the same as {earlier} before it; name each once"))
    }
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound(problem) | Self::Unusable(problem) => f.write_str(problem),
        }
    }
}

impl std::error::Error for AddressError {}

fn distinct(addresses: impl Iterator<Item = SocketAddr>) -> io::Result<Vec<SocketAddr>> {
    let mut distinct = Vec::new();
    for address in addresses {
        if !distinct.contains(&address) {
            distinct.push(address);
        }
    }
    if distinct.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    }
    Ok(distinct)
}
