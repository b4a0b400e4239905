//! Addresses of names, found at the controller.
//!
//! Not here: names that an endpoint asks a DNS server for (`dns`), and words of a command line that are judged without
//! being looked up (`arguments`).

use std::io;
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};

use packetlab::address::{AddressError, HostPort};
use packetlab::message::Family;

use crate::client_error::ClientError;
use crate::mlet_error::MletError;

/// The address of `name`, found at the controller: `HOST`, which gets `default_port`, or `HOST:PORT`; an IPv6
/// address before a port stands in brackets. Of several the first IPv4 one is taken, because an endpoint may
/// have no IPv6.
///
/// # Errors
/// It has none.
pub fn resolve(name: &str, default_port: u16) -> Result<SocketAddr, ClientError> {
    let nothing = || unresolved(name, io::ErrorKind::NotFound.into());
    preferred(addresses(name, default_port)?).ok_or_else(nothing)
}

fn addresses(
    name: &str,
    default_port: u16,
) -> Result<impl Iterator<Item = SocketAddr> + use<>, ClientError> {
    let failed = |cause| unresolved(name, cause);
    let HostPort { host, port } = host_port(name)?;
    (host, port.unwrap_or(default_port)).to_socket_addrs().map_err(failed)
}

/// The host and perhaps the port of a server.
pub(crate) fn host_port(name: &str) -> Result<HostPort, ClientError> {
    match HostPort::parse(name) {
        Ok(HostPort { port: Some(0), .. }) => Err(no_port(name, "0".to_owned())),
        Err(AddressError::BadPort { port, .. }) if port.bytes().all(|c| c.is_ascii_digit()) => {
            Err(no_port(name, port))
        }
        parsed => parsed.map_err(|error| unresolved(name, io::Error::other(error))),
    }
}

fn no_port(name: &str, port: String) -> ClientError {
    ClientError::NoPort { server: name.to_owned(), port }
}

fn unresolved(name: &str, cause: io::Error) -> ClientError {
    ClientError::Unresolved { name: name.to_owned(), cause }
}

/// As [`resolve`], for mlets that speak IPv4 alone because they make whole packets with [`ipv4`](crate::ipv4).
///
/// # Errors
/// It has none, or none of IPv4.
pub fn resolve_ipv4(name: &str) -> Result<Ipv4Addr, MletError> {
    match resolve(name, 0)? {
        SocketAddr::V4(address) => Ok(*address.ip()),
        SocketAddr::V6(address) => {
            let cause = format!("only {}, and this mlet speaks IPv4 alone", address.ip());
            Err(unresolved(name, io::Error::other(cause)).into())
        }
    }
}

/// As [`resolve`], of one family if one is asked for.
///
/// # Errors
/// It has none, or none of that family.
pub fn resolve_of(
    name: &str,
    default_port: u16,
    family: Option<Family>,
) -> Result<SocketAddr, MletError> {
    let Some(family) = family else { return Ok(resolve(name, default_port)?) };
    let mut of_family = addresses(name, default_port)?.filter(|one| Family::of(one.ip()) == family);
    of_family.next().ok_or_else(|| no_address(name, family))
}

/// What is wrong with a name that has no address of this family.
pub(crate) fn no_address(name: &str, family: Family) -> MletError {
    unresolved(name, io::Error::other(format!("none of IPv{}", family as u8))).into()
}

fn preferred(addresses: impl Iterator<Item = SocketAddr>) -> Option<SocketAddr> {
    // The first of equals.
    addresses.min_by_key(SocketAddr::is_ipv6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_come_with_its_port() {
        let found = |name| resolve(name, 80).unwrap();
        assert_eq!(found("127.0.0.1:8080"), "127.0.0.1:8080".parse().unwrap());
        assert_eq!(found("127.77.0.1"), "127.77.0.1:80".parse().unwrap());
        assert_eq!(found("::1"), "[::1]:80".parse().unwrap());
        assert_eq!(found("[::1]"), "[::1]:80".parse().unwrap());
        assert_eq!(found("[::1]:8080"), "[::1]:8080".parse().unwrap());
        let error = resolve("127.0.0.1:http", 80).unwrap_err();
        assert!(error.to_string().starts_with("127.0.0.1:http has no address"), "{error}");
    }

    #[test]
    fn a_port_that_is_none_is_named_and_is_a_bad_request() {
        for port in ["0", "65536", "70000", "99999999999"] {
            let server = format!("127.0.0.1:{port}");
            let error = resolve(&server, 80).unwrap_err();
            assert_eq!(error.word(), "bad_request");
            let told = format!("{server}: port {port} is not from 1 to 65535");
            assert_eq!(error.to_string(), told);
            assert_eq!(crate::arguments::host(&server).unwrap_err().to_string(), told);
        }
    }

    #[test]
    fn an_ipv4_address_is_preferred() {
        let addresses = ["[2001:db8::1]:80", "192.0.2.1:80", "192.0.2.2:80"];
        let addresses = addresses.map(|text| text.parse().unwrap());
        assert_eq!(preferred(addresses.into_iter()), Some(addresses[1]));
        assert_eq!(preferred(addresses[..1].iter().copied()), Some(addresses[0]));
        assert_eq!(preferred([].into_iter()), None);
    }

    #[test]
    fn an_address_of_one_family_can_be_asked_for() {
        let unresolved = |error: MletError| match error {
            MletError::Client(error) if error.word() == "unresolved" => error.to_string(),
            other => panic!("{other}"),
        };
        let of = |name, family| resolve_of(name, 80, family).map_err(unresolved);
        assert_eq!(of("192.0.2.1", None), Ok("192.0.2.1:80".parse().unwrap()));
        assert_eq!(of("192.0.2.1:9", Some(Family::Ipv4)), Ok("192.0.2.1:9".parse().unwrap()));
        assert_eq!(of("::1", Some(Family::Ipv6)), Ok("[::1]:80".parse().unwrap()));
        let none = "192.0.2.1 has no address: none of IPv6".to_owned();
        assert_eq!(of("192.0.2.1", Some(Family::Ipv6)), Err(none));
        let none = "::1 has no address: only ::1, and this mlet speaks IPv4 alone";
        assert_eq!(unresolved(resolve_ipv4("::1").unwrap_err()), none);
    }
}
