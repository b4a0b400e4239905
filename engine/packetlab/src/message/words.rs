//! A message in words, for people who follow a session.
//!
//! Not here: the bulk of a message, of which the length alone is told. Nothing parses what comes out of here. Invariant: one
//! line, whatever a peer has sent.

use std::fmt;

use super::messages::{Message, NCTL_FIN};
use super::socket::{Family, Open, Packet, Protocol, Socket};
use super::state_change::StateChange;
use super::status::Status;
use crate::escape::Escaped;
use crate::time::Ticks;
use crate::words::counted;

/// The most characters of a text of a peer's.
const TEXT_LEN_MAX: usize = 200;

/// `NOPEN socket 1: TCP from 0.0.0.0:0 to 192.0.2.1:80, receive buffer of 4096 bytes`.
impl fmt::Display for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Raw { message_type, payload, malformed } => {
                write!(f, "{message_type} with {}", bytes(payload))?;
                f.write_str(if *malformed { ", malformed" } else { "" })
            }
            _ => {
                f.write_str(self.message_type().name().unwrap_or_default())?;
                self.contents(f)
            }
        }
    }
}

impl Message<'_> {
    fn contents(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start | Self::End | Self::Cont | Self::Suspd | Self::Resumd => Ok(()),
            Self::Cdata { hint, data } => write!(f, " {}: {}", text(hint), bytes(data)),
            Self::Yield { resume } => write!(f, " until {}", At(*resume)),
            Self::Mread { address, len } => {
                write!(f, " {} at {address:#010x}", counted((*len).into(), "byte"))
            }
            Self::Mwrite { address, data } | Self::Mdata { address, data } => {
                write!(f, " {} at {address:#010x}", bytes(data))
            }
            Self::Nopen { sktid, receive_buffer_len, open } => {
                write!(f, " socket {sktid}: {open}, receive buffer of {receive_buffer_len} bytes")
            }
            Self::Nclose { sktid } => write!(f, " socket {sktid}"),
            Self::Nsend { sktid, time, tag, packet } => {
                write!(f, " socket {sktid}: {packet}, {}, tag {tag}", When(*time))
            }
            Self::Ncap { socket, end, filter } => {
                write!(f, " {socket}: filter of {}, until {}", bytes(filter), At(*end))
            }
            Self::Nctl { sktid, time, command, .. } => {
                write!(f, " socket {sktid}: ")?;
                match *command {
                    NCTL_FIN => f.write_str("end of sending")?,
                    command => write!(f, "command {command}")?,
                }
                write!(f, ", {}", When(*time))
            }
            Self::Xcert { certificate } => write!(f, " {}", bytes(certificate)),
            Self::Xpub { xdescr: told, .. } | Self::Xsub { dattr: told, .. } => {
                write!(f, " {}", text(told.as_bytes()))
            }
            Self::Xnotify { xdescr, .. } => write!(f, " {}", text(xdescr.as_bytes())),
            Self::Xreg { snikey } => write!(f, " {}", text(snikey.as_bytes())),
            Self::Result(outcome) => write!(f, " {outcome}"),
            Self::Ntag { sktid, tag, time, status } => {
                write!(f, " socket {sktid}: tag {tag} sent at {}", At(*time))?;
                if *status == Status::SUCCESS { Ok(()) } else { write!(f, ", {status}") }
            }
            Self::Nstat { sktid, time, change } => {
                write!(f, " socket {sktid}: {change}, at {}", At(*time))
            }
            Self::Ndata { sktid, time, packet } => {
                write!(f, " socket {sktid}: {packet}, at {}", At(*time))
            }
            Self::Ndrop { socket, first, last, units, bytes } => write!(
                f,
                " {socket}: {units} packets of {bytes} bytes dropped, from {} to {}",
                At(*first),
                At(*last)
            ),
            Self::Nblock { socket, monitor_errid, time } => {
                write!(
                    f,
                    " {socket}: blocked by a monitor, its code {monitor_errid}, at {}",
                    At(*time)
                )
            }
            Self::Linfo { name, auxiliary, info } => write!(
                f,
                " name \"{}\", aux \"{}\", info \"{}\"",
                text(name),
                text(auxiliary),
                text(info)
            ),
            Self::Raw { .. } => Ok(()),
        }
    }
}

/// `TCP from 0.0.0.0:0 to 192.0.2.1:80`.
impl fmt::Display for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Raw { local } => write!(f, "raw IP at {local}"),
            Self::Udp { local } => write!(f, "UDP at {local}"),
            Self::TcpListen { local } => write!(f, "TCP listening at {local}"),
            Self::TcpConnect { local, remote } => write!(f, "TCP from {local} to {remote}"),
        }
    }
}

/// `53 bytes, peer 192.0.2.1:53`.
impl fmt::Display for Packet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Raw { data, .. } | Self::Tcp { data, .. } => f.write_str(&bytes(data)),
            Self::Udp { remote, data } => write!(f, "{}, peer {remote}", bytes(data)),
        }
    }
}

/// `connected to 192.0.2.1:80`.
impl fmt::Display for StateChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::TcpEstablished { remote } => write!(f, "connected to {remote}"),
            Self::Code { code: Self::ESTABLISHED, .. } => f.write_str("established"),
            Self::Code { code: Self::RESET, .. } => f.write_str("reset"),
            Self::Code { code: Self::TIMEOUT, .. } => f.write_str("timed out"),
            Self::Code { code: Self::PEER_CLOSED, .. } => f.write_str("closed by the peer"),
            Self::Code { code: Self::UNKNOWN, .. } => f.write_str("failed for an unknown reason"),
            Self::Code { code, .. } => write!(f, "code {code}"),
        }
    }
}

/// `socket 1 (TCP over IPv4)`.
impl fmt::Display for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Raw => "raw",
            Protocol::Tcp => "TCP over",
            Protocol::Udp => "UDP over",
        };
        let family = match self.family {
            Family::Ipv4 => "IPv4",
            Family::Ipv6 => "IPv6",
        };
        write!(f, "socket {} ({protocol} {family})", self.sktid)
    }
}

/// A time in seconds since 1970, or `the end`.
struct At(Ticks);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SECOND: u64 = 1_000_000_000;
        match self.0 {
            Ticks::MAX => f.write_str("the end"),
            Ticks(ticks) => write!(f, "{}.{:09}", ticks / SECOND, ticks % SECOND),
        }
    }
}

/// When something is to be done.
struct When(Ticks);

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.0 == 0 { f.write_str("at once") } else { write!(f, "at {}", At(self.0)) }
    }
}

fn bytes(data: &[u8]) -> String {
    counted(data.len() as u64, "byte")
}

fn text(text: &[u8]) -> String {
    Escaped(text).cut(TEXT_LEN_MAX)
}
