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
//! Requests are answered one by one, and many may be under way ([`Client::ask`]); an answer that comes after its request
//! was given up is dropped. Connections are made at once with [`Client::begin_connect`]. How a mlet is written that
//! finishes is in `docs/mlets.md` of the repository. Everything else that the endpoint sends is a notification: a packet
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

pub mod arguments;
#[cfg(feature = "async")]
mod asynchronous;
mod client;
mod client_error;
mod connection;
pub mod dns;
mod endpoint;
mod exchange;
pub mod ip;
pub mod ipv4;
pub mod ipv6;
mod json_line;
mod kept;
mod lines;
mod mlet_error;
mod names;
mod notification;
pub mod probes;
mod random;
mod requests;
#[cfg(test)]
mod scripted_endpoint;
#[cfg(test)]
mod scripted_manager;
mod session;
mod singleton;
mod talk;
mod turn;

use std::process::ExitCode;
use std::time::Duration;

use crate::arguments::CommandLine;

pub use arguments::{USAGE_ERROR, tell_about_itself};
#[cfg(feature = "async")]
pub use asynchronous::{AsyncClient, join_all};
pub use client::Client;
pub use client_error::{Awaited, ClientError, ConnectionEnd, KEPT_LEN_MAX};
pub use connection::Connection;
pub use dns::LookUp;
pub use endpoint::Endpoint;
pub use exchange::OUTGOING_LEN_MAX;
pub use json_line::JsonLine;
pub use lines::{complain, print_line};
pub use mlet_error::MletError;
pub use names::{resolve, resolve_ipv4, resolve_of};
pub use notification::Notification;
pub use packetlab::message::{
    Family, Message, NCTL_FIN, Open, Packet, Protocol, Socket, StateChange, Status,
};
pub use packetlab::program::Program;
pub use packetlab::time::Ticks;
pub use random::random;
pub use requests::{Received, Sent};
pub use session::SessionStream;
pub use singleton::{Sessions, SingletonError};
pub use talk::Asked;

/// Longest wait of a mlet that [`run`] runs for anything from its endpoint, unless a call has a timeout of its own.
pub const SILENCE_MAX: Duration = Duration::from_secs(60);

/// So many sockets an endpoint has: their numbers are bytes (spec/protocol.md 1.3).
pub const SOCKETS_MAX: usize = 256;

/// Runs a mlet on the session of fd 0: its client, the endpoint, its arguments. What goes
/// wrong is told on standard error, with the endpoint, and is a failure of the process: exit code 2 for
/// [`MletError::Usage`], else 1.
///
/// `usage` is how it is called, its name first; `--help` prints it, and `--version` the name and the version. Lines
/// below the first, which only `--help` prints, say what the mlet prints.
///
/// Its arguments are seen when its first endpoint is there; [`run_with`] judges them before. Asked with `--check-args` to
/// judge them, such a mlet says that it cannot, and ends with 1.
pub fn run(
    usage: &str,
    mlet: impl FnOnce(&mut Client, &Endpoint, &[String]) -> Result<(), MletError>,
) -> ExitCode {
    if CommandLine::of_process().is_check {
        let name = usage.split(' ').next().unwrap_or(usage);
        complain(&format!("{name}: it cannot judge its arguments before a run"));
        // Not the code of arguments that make no sense.
        return ExitCode::FAILURE;
    }
    let unjudged = |words: &[String]| Ok(words.to_vec());
    run_with(usage, unjudged, |client, endpoint, words| mlet(client, endpoint, &words))
}

/// Runs a mlet as [`run`] does, with what `judge` makes of its arguments. Those that it refuses are exit code 2, before
/// there is an endpoint; and `--check-args` before them asks for the judgement alone, as
/// `pktxpmgr --check --check-mlet` does.
///
/// ```no_run
/// # fn main() -> std::process::ExitCode {
/// let count = |words: &[String]| match words {
///     [] => Ok(10),
///     [count] => mlet::arguments::number::<u32>(count),
///     _ => Err(mlet::MletError::Usage),
/// };
/// mlet::run_with("mlet-clocks [COUNT]", count, |client, endpoint, count| {
///     for _ in 0..count {
///         let clock = client.clock()?;
///         mlet::print_line(&format!("{}\t{clock}", endpoint.columns()))?;
///     }
///     Ok(())
/// })
/// # }
/// ```
pub fn run_with<A>(
    usage: &str,
    judge: impl FnOnce(&[String]) -> Result<A, MletError>,
    mlet: impl FnOnce(&mut Client, &Endpoint, A) -> Result<(), MletError>,
) -> ExitCode {
    let name = usage.split(' ').next().unwrap_or(usage);
    let arguments = match arguments::judged(usage, judge) {
        Ok(arguments) => arguments,
        Err(ended) => return ended,
    };
    let Some(endpoint) = Endpoint::from_environment() else {
        complain(&format!(
            "{name}: EPADDR is not set; a mlet is started by pktxpmgr (with -s, by mlet-single)"
        ));
        return ExitCode::FAILURE;
    };
    let result = Client::on_stdin(SILENCE_MAX)
        .map_err(MletError::from)
        .and_then(|mut client| mlet(&mut client, &endpoint, arguments));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(MletError::Usage) => arguments::refused(usage, &MletError::Usage),
        Err(error) => {
            complain(&format!("{name}: endpoint {endpoint}: {error}"));
            ExitCode::FAILURE
        }
    }
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
