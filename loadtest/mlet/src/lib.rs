//! How to write a mlet in Rust.
//!
//! A mlet is a program that `pktxpmgr` starts for every endpoint that connects. It finds a session with
//! that endpoint on fd 0 (and beside it, with `--mlet-io pipe`, on pipes that cost less: a [`SessionStream`]), and in its environment which [`Endpoint`] it is; what it asks for over the session, the
//! endpoint does: open sockets, send at a given time, capture, read memory (spec/protocol.md 1.4). Three lines
//! that matter make one:
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! fn main() -> ExitCode {
//!     mlet::run("mlet-clock", |client, endpoint, _arguments| {
//!         let clock = client.clock()?;
//!         mlet::print_line(&format!("{}\t{clock}", endpoint.columns()))
//!     })
//! }
//! ```
//!
//! Requests are answered one by one; an answer that comes after its request was given up is dropped. Everything else that the endpoint sends is a notification: a packet
//! was sent (NTAG) or received (NDATA), a connection changed (NSTAT). They wait in the [`Client`], in
//! order, until the mlet asks for them. Times are the endpoint's clock, in nanoseconds since 1970.
//!
//! A mlet needs neither PacketLab nor an endpoint to be tested; any stream socket is a session:
//!
//! ```
//! use std::io::Write;
//! use std::net::SocketAddr;
//! use std::num::NonZeroU16;
//! use std::os::unix::net::UnixStream;
//! use std::time::Duration;
//!
//! use mlet::{Client, Message, Open, Packet, Ticks};
//!
//! /// Asks a UDP server through the endpoint and waits for what it answers.
//! fn ask(client: &mut Client, server: SocketAddr) -> Result<Vec<u8>, mlet::MletError> {
//!     client.open(1, Open::Udp { local: "0.0.0.0:0".parse().unwrap() }, 4096)?;
//!     client.send(1, Ticks(0), NonZeroU16::MIN, Packet::Udp { remote: server, data: b"question" })?;
//!     loop {
//!         // Whoever knows the port can send to it; a real mlet looks at the data as well.
//!         match client.notification()?.message() {
//!             Message::Ndata { packet: Packet::Udp { remote, data }, .. } if remote == server => {
//!                 return Ok(data.to_vec());
//!             }
//!             _ => {}
//!         }
//!     }
//! }
//!
//! let (session, mut endpoint) = UnixStream::pair()?;
//! // This endpoint has answered before it was asked: success twice, then NDATA.
//! let server: SocketAddr = "192.0.2.53:53".parse()?;
//! let mut answers = vec![0x40, 0, 0, 0, 0x40, 0, 0, 0];
//! let packet = Packet::Udp { remote: server, data: b"answer" };
//! Message::Ndata { sktid: 1, time: Ticks(0), packet }.encode(&mut answers)?;
//! endpoint.write_all(&answers)?;
//!
//! let mut client = Client::new(session, Duration::from_secs(1))?;
//! assert_eq!(ask(&mut client, server)?, b"answer");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! One process for all endpoints instead of one for each is called singleton mode (`pktxpmgr -s`); its
//! sessions come from [`Sessions`].
//!
//! Not here: anything that runs at the endpoint. The examples in `src/bin` are its users.

mod client;
mod client_error;
mod conversation;
mod endpoint;
pub mod ipv4;
#[cfg(test)]
mod scripted_endpoint;
#[cfg(test)]
mod scripted_manager;
mod session;
mod singleton;

use std::collections::hash_map::RandomState;
use std::fmt;
use std::fs::File;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::Duration;

use packetlab::address::HostPort;

pub use client::Client;
pub use client_error::{ClientError, ConnectionEnd};
pub use conversation::Notification;
pub use endpoint::Endpoint;
pub use packetlab::message::{
    Family, Message, NCTL_FIN, Open, Packet, Protocol, Socket, StateChange, Status,
};
pub use packetlab::program::Program;
pub use packetlab::time::Ticks;
pub use session::SessionStream;
pub use singleton::{Sessions, SingletonError};

/// Longest wait of a mlet for anything from its endpoint, unless it says otherwise.
pub const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Why a mlet gives up.
#[derive(Debug)]
#[non_exhaustive]
pub enum MletError {
    /// The session ended, or a request was refused.
    Client(ClientError),
    /// The command line is no good; [`run`] tells how it should be.
    Usage,
    /// A name has no address.
    Resolve {
        /// The name.
        name: String,
        /// Why not.
        cause: io::Error,
    },
    /// Something at the controller failed, such as standard output.
    Io(io::Error),
    /// The measurement failed; why.
    Failed(String),
}

impl fmt::Display for MletError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(cause) => cause.fmt(f),
            Self::Usage => f.write_str("these are not its arguments"),
            Self::Resolve { name, cause } => write!(f, "{name} has no address: {cause}"),
            Self::Io(cause) => cause.fmt(f),
            Self::Failed(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for MletError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Client(cause) => Some(cause),
            Self::Resolve { cause, .. } | Self::Io(cause) => Some(cause),
            Self::Usage | Self::Failed(_) => None,
        }
    }
}

impl From<ClientError> for MletError {
    fn from(cause: ClientError) -> Self {
        Self::Client(cause)
    }
}

impl From<io::Error> for MletError {
    fn from(cause: io::Error) -> Self {
        Self::Io(cause)
    }
}

/// Exit code of a mlet whose arguments make no sense. The same number as clap's.
pub const USAGE_ERROR: u8 = 2;

/// Runs a mlet on the session of fd 0: its client, the endpoint, its arguments. What goes
/// wrong is told on standard error, with the endpoint, and is a failure of the process: exit code 2 for
/// [`MletError::Usage`], else 1.
///
/// `usage` is how it is called, its name first; `--help` prints it, and `--version` the name and the version. Lines
/// below the first, which only `--help` prints, say what the mlet prints.
pub fn run(
    usage: &str,
    mlet: impl FnOnce(&mut Client, &Endpoint, &[String]) -> Result<(), MletError>,
) -> ExitCode {
    let name = usage.split(' ').next().unwrap_or(usage);
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(told) = tell_about_itself(usage, "", arguments.first().map(String::as_str)) {
        return told;
    }
    let Some(endpoint) = Endpoint::from_environment() else {
        complain(&format!(
            "{name}: EPADDR is not set; a mlet is started by pktxpmgr (with -s, by mlet-single)"
        ));
        return ExitCode::FAILURE;
    };
    let result = Client::on_stdin(SILENCE_MAX)
        .map_err(MletError::from)
        .and_then(|mut client| mlet(&mut client, &endpoint, &arguments));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(MletError::Usage) => {
            let call = usage.lines().next().unwrap_or(usage);
            complain(&format!("{name}: {}; usage: {call}", MletError::Usage));
            USAGE_ERROR.into()
        }
        Err(error) => {
            complain(&format!("{name}: endpoint {endpoint}: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Answers `--help` and `--version`, for mlets that [`run`] does not run: `options` of the manager stand before
/// `usage`, whose first word is the mlet's name. `None` if `word` is neither of them.
pub fn tell_about_itself(usage: &str, options: &str, word: Option<&str>) -> Option<ExitCode> {
    let name = usage.split(' ').next().unwrap_or(usage);
    let text = match word? {
        "--help" | "-h" => format!("usage: pktxpmgr {options}[OPTIONS] {usage}"),
        "--version" | "-V" => format!("{name} {}", env!("CARGO_PKG_VERSION")),
        _ => return None,
    };
    Some(if print_line(&text).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A number that nobody else draws: it tells the answers to a mlet's own packets from those to others'.
#[must_use]
pub fn random() -> u64 {
    // The standard library draws the keys of its hashes at random.
    RandomState::new().build_hasher().finish()
}

/// A filter for [`Client::capture`]: a program, as text of one `opcode destination source offset constant` a line
/// (spec/protocol.md 6.1), that returns how many bytes of a packet are wanted. It finds its context in r6, without
/// which no kernel takes the loads of packet bytes.
///
/// # Errors
/// A line is none.
pub fn filter(text: &str) -> Result<Program, MletError> {
    let program = Program::from_ebpf_text(format!("0xbf 6 1 0 0\n{text}").as_bytes());
    program.map_err(|error| MletError::Failed(format!("the filter is unusable: {error}")))
}

/// Prints `line` in one write, so that lines of up to 4096 bytes (`PIPE_BUF`, the end of line included)
/// never mix with those of other mlets.
///
/// # Errors
/// Nobody reads standard output any more, or it cannot be written.
pub fn print_line(line: &str) -> Result<(), MletError> {
    let print = || {
        // Past the buffering of `io::stdout`, which may split it.
        let mut stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        stdout.write_all(format!("{line}\n").as_bytes())
    };
    print().map_err(|cause| MletError::Failed(format!("standard output: {cause}")))
}

/// Says on standard error what is wrong. Where that cannot be written, nobody can be told, and the mlet goes on.
pub fn complain(problem: &str) {
    // In one write, for the same reason.
    let _ = io::stderr().write_all(format!("{problem}\n").as_bytes());
}

/// Whether a connection ended as it should, because the peer closed its side.
///
/// # Errors
/// It did not; why.
pub fn check_closed(change: StateChange) -> Result<(), MletError> {
    let broke = |end| Err(MletError::Failed(format!("the connection broke: {end}")));
    match change {
        StateChange::Code { code: StateChange::PEER_CLOSED, .. } => Ok(()),
        // What stood cannot have been refused.
        StateChange::Code { code: StateChange::RESET, .. } => broke(ConnectionEnd::Reset),
        StateChange::Code { code, .. } => broke(ConnectionEnd::from_code(code)),
        StateChange::TcpEstablished { remote } => {
            Err(MletError::Failed(format!("the endpoint connected to {remote} once more")))
        }
    }
}

/// The address of `name`, found at the controller: `HOST`, which gets `default_port`, or `HOST:PORT`; an IPv6
/// address before a port stands in brackets. Of several the first IPv4 one is taken, because an endpoint may
/// have no IPv6.
///
/// # Errors
/// It has none.
pub fn resolve(name: &str, default_port: u16) -> Result<SocketAddr, MletError> {
    let failed = |cause| MletError::Resolve { name: name.to_owned(), cause };
    let HostPort { host, port } =
        HostPort::parse(name).map_err(|error| failed(io::Error::other(error)))?;
    let addresses = (host, port.unwrap_or(default_port)).to_socket_addrs();
    let preferred = preferred(addresses.map_err(failed)?);
    preferred.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))
}

/// As [`resolve`], for mlets that speak IPv4 alone because they make whole packets with [`ipv4`].
///
/// # Errors
/// It has none, or none of IPv4.
pub fn resolve_ipv4(name: &str) -> Result<Ipv4Addr, MletError> {
    match resolve(name, 0)? {
        SocketAddr::V4(address) => Ok(*address.ip()),
        SocketAddr::V6(address) => Err(MletError::Failed(format!(
            "{name} has no IPv4 address, only {}, and this mlet speaks IPv4 alone",
            address.ip()
        ))),
    }
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
    fn an_ipv4_address_is_preferred() {
        let addresses = ["[2001:db8::1]:80", "192.0.2.1:80", "192.0.2.2:80"];
        let addresses = addresses.map(|text| text.parse().unwrap());
        assert_eq!(preferred(addresses.into_iter()), Some(addresses[1]));
        assert_eq!(preferred(addresses[..1].iter().copied()), Some(addresses[0]));
        assert_eq!(preferred([].into_iter()), None);
    }
}
