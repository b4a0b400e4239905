//! Where to listen, as typed: `PORT`, `HOST:PORT` with a host as `-a` takes it, or `unix:PATH`.
//!
//! Not here: who is answered (`server.rs`). Invariant: nobody but this machine can connect unless a host was typed, and
//! nobody but the owner to a path.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use packetlab::address::HostPort;
use packetlab::escape::Escaped;

use crate::private_socket::{self, SocketFile};

/// What stands before a path.
const UNIX: &str = "unix:";

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MetricsAddress {
    /// A host, as typed or this machine's own; port 0 is any that is free.
    Tcp(HostPort),
    /// The path of a socket.
    Unix(PathBuf),
}

/// A socket that listens.
#[derive(Debug)]
pub(super) enum Listening {
    Tcp(TcpListener, SocketAddr),
    /// With its path.
    Unix(UnixListener, PathBuf),
}

impl MetricsAddress {
    /// What was typed, as clap wants it.
    ///
    /// # Errors
    /// It is no address, in words.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix(UNIX) {
            return match path.is_empty() {
                true => Err("unix: needs a path behind it".into()),
                false => Ok(Self::Unix(path.into())),
            };
        }
        let port = text.strip_prefix(':').unwrap_or(text);
        if let Ok(port) = port.parse() {
            let host = Ipv4Addr::LOCALHOST.to_string();
            return Ok(Self::Tcp(HostPort { host, port: Some(port) }));
        }
        let typed = HostPort::parse(text).map_err(|error| error.to_string())?;
        typed.port.ok_or("give PORT, HOST:PORT or unix:PATH")?;
        Ok(Self::Tcp(typed))
    }

    /// Listens there. Of a path the file comes with it.
    ///
    /// # Errors
    /// The kernel's, or the resolver's.
    pub(super) fn listen(&self) -> io::Result<(Listening, Option<SocketFile>)> {
        match self {
            Self::Tcp(typed) => {
                let port = typed.port.unwrap_or_default();
                let addresses = match typed.is_wildcard() {
                    true => vec![
                        (Ipv6Addr::UNSPECIFIED, port).into(),
                        (Ipv4Addr::UNSPECIFIED, port).into(),
                    ],
                    false => (&*typed.host, port).to_socket_addrs()?.collect::<Vec<SocketAddr>>(),
                };
                let listener = TcpListener::bind(&*addresses)?;
                listener.set_nonblocking(true)?;
                let address = listener.local_addr()?;
                Ok((Listening::Tcp(listener, address), None))
            }
            Self::Unix(path) => {
                let (listener, file) = private_socket::listen(path)?;
                listener.set_nonblocking(true)?;
                Ok((Listening::Unix(listener, path.clone()), Some(file)))
            }
        }
    }
}

/// As it was typed, or means.
impl fmt::Display for MetricsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(typed) => typed.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{}", Escaped(path.as_os_str().as_bytes())),
        }
    }
}

/// Where it can be reached.
impl fmt::Display for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(_, address) => write!(f, "http://{address}"),
            Self::Unix(_, path) => write!(f, "{UNIX}{}", Escaped(path.as_os_str().as_bytes())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_host_this_machine_alone_is_meant() {
        let tcp = |host: &str, port| {
            Ok(MetricsAddress::Tcp(HostPort { host: host.into(), port: Some(port) }))
        };
        for (typed, expected) in [
            ("9100", tcp("127.0.0.1", 9100)),
            (":0", tcp("127.0.0.1", 0)),
            ("0.0.0.0:9100", tcp("0.0.0.0", 9100)),
            ("[::1]:9100", tcp("::1", 9100)),
            ("localhost:", tcp("localhost", 0)),
            ("unix:/run/x", Ok(MetricsAddress::Unix("/run/x".into()))),
        ] {
            assert_eq!(MetricsAddress::parse(typed), expected, "{typed}");
        }
        for typed in ["", "host", "host:99999", "unix:", "65536", "::1", "[::1]"] {
            assert!(MetricsAddress::parse(typed).is_err(), "{typed}");
        }
        assert_eq!(MetricsAddress::parse("[::1]:7").unwrap().to_string(), "[::1]:7");
    }
}
