//! Addresses as typed, and the sockets that listen on them.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use engine::sys::socket::bind_all;
use packetlab::address::HostPort;
use tokio::net::{TcpListener, lookup_host};

use super::error::HostError;

/// The listening sockets of one address as typed; never none.
#[derive(Debug)]
pub struct Listening(Vec<TcpListener>);

impl Listening {
    /// Listens on every address that a name has; `*` is all of IPv4 and IPv6.
    ///
    /// # Errors
    /// The name has no address, or one of them cannot be listened on.
    pub async fn open(address: &HostPort, default_port: u16) -> Result<Self, HostError> {
        let addresses = if address.is_wildcard() {
            let port = address.port.unwrap_or(default_port);
            vec![(Ipv4Addr::UNSPECIFIED, port).into(), (Ipv6Addr::UNSPECIFIED, port).into()]
        } else {
            resolve(address, default_port).await?
        };
        let v6_only = addresses.len() > 1;
        let listen = |address| {
            listen(address, v6_only).map_err(|cause| HostError::Listen { address, cause })
        };
        addresses.into_iter().map(listen).collect::<Result<_, _>>().map(Self)
    }

    /// Where they listen, with the ports the kernel chose.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.0.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// The sockets.
    pub(crate) fn into_sockets(self) -> Vec<TcpListener> {
        self.0
    }
}

/// All addresses of a name, in the resolver's order; never none.
///
/// # Errors
/// The name has none.
async fn resolve(address: &HostPort, default_port: u16) -> Result<Vec<SocketAddr>, HostError> {
    let failed = |cause| HostError::Resolve { address: address.to_string(), cause };
    let port = address.port.unwrap_or(default_port);
    let found: Vec<_> = lookup_host((address.host.as_str(), port)).await.map_err(failed)?.collect();
    match found[..] {
        [] => Err(failed(io::Error::new(io::ErrorKind::NotFound, "the name has no address"))),
        _ => Ok(found),
    }
}

fn listen(address: SocketAddr, v6_only: bool) -> io::Result<TcpListener> {
    if address.ip().is_multicast() {
        let text = "a multicast address has no connections; name an address of this host";
        return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, text));
    }
    let bound = bind_all(address, v6_only, 1)?.pop().ok_or(io::ErrorKind::AddrNotAvailable)?;
    let listener = bound.listen()?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}
