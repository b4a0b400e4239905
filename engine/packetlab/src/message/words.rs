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

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::channel::{ChannelId, ChannelList};
    use crate::message::{MessageType, Outcome};

    const DATA: &[u8] = b"ab";
    const TIME: Ticks = Ticks(2_000_000_003);

    fn addresses() -> [SocketAddr; 2] {
        ["192.0.2.1:80", "[2001:db8::1]:53"].map(|text| text.parse().unwrap())
    }

    fn socket(protocol: Protocol) -> Socket {
        Socket { sktid: 1, family: Family::Ipv6, protocol }
    }

    /// Each is told on one line that has these words.
    fn assert_told(messages: &[(Message<'_>, &str)]) {
        for (message, words) in messages {
            let told = message.to_string();
            assert!(told.contains(words), "{told}: {words}");
            assert!(!told.contains(char::is_control), "{told}");
        }
    }

    #[test]
    fn whatever_an_endpoint_is_asked_is_told_in_words_on_one_line() {
        let [v4, v6] = addresses();
        let tcp = Packet::Tcp { family: Family::Ipv4, data: DATA };
        let udp = Packet::Udp { remote: v6, data: DATA };
        let nsend = |time, packet| Message::Nsend { sktid: 1, time, tag: 7, packet };
        let nctl = |command| Message::Nctl { sktid: 1, family: Family::Ipv4, time: TIME, command };
        let nopen = |open| Message::Nopen { sktid: 1, receive_buffer_len: 9, open };
        assert_told(&[
            (Message::Start, "START"),
            (Message::Cdata { hint: b"monitor\n", data: DATA }, "CDATA monitor\\n: 2 bytes"),
            (Message::Yield { resume: Ticks::MAX }, "YIELD until the end"),
            (Message::Mread { address: 0x10, len: 1 }, "MREAD 1 byte at 0x00000010"),
            (Message::Mwrite { address: 0x10, data: DATA }, "MWRITE 2 bytes at 0x00000010"),
            (nopen(Open::TcpListen { local: v4 }), "192.0.2.1:80, receive buffer of 9 bytes"),
            (nopen(Open::Udp { local: v4 }), "192.0.2.1:80, receive buffer of 9 bytes"),
            (nopen(Open::Raw { local: v4.ip() }), "192.0.2.1, receive buffer of 9 bytes"),
            (nopen(Open::TcpConnect { local: v4, remote: v6 }), "192.0.2.1:80 to [2001:db8::1]:53"),
            (Message::Nclose { sktid: 1 }, "NCLOSE socket 1"),
            (nsend(Ticks(0), tcp), "NSEND socket 1: 2 bytes, at once, tag 7"),
            (
                nsend(TIME, udp),
                "NSEND socket 1: 2 bytes, peer [2001:db8::1]:53, at 2.000000003, tag 7",
            ),
            (
                Message::Ncap { socket: socket(Protocol::Raw), end: TIME, filter: DATA },
                "NCAP socket 1 (raw IPv6): filter of 2 bytes, until 2.000000003",
            ),
            (nctl(NCTL_FIN), "NCTL socket 1: end of sending, at 2.000000003"),
            (nctl(9), "NCTL socket 1: command 9, at 2.000000003"),
        ]);
    }

    #[test]
    fn whatever_an_endpoint_tells_is_told_in_words_on_one_line() {
        let [v4, _] = addresses();
        let code = |code| StateChange::Code { family: Family::Ipv4, protocol: Protocol::Tcp, code };
        let stat = |change| Message::Nstat { sktid: 1, time: Ticks(1), change };
        let ntag = |status| Message::Ntag { sktid: 1, tag: 7, time: TIME, status };
        let packet = Packet::Raw { family: Family::Ipv4, data: b"a" };
        assert_told(&[
            (Message::Mdata { address: 0x10, data: DATA }, "MDATA 2 bytes at 0x00000010"),
            (Message::Result(Outcome::SUCCESS), "RESULT SUCCESS (0)"),
            (
                Message::Result(Outcome::MonitorRejected { monitor_index: 1, monitor_errid: 2 }),
                "RESULT ECTLMONREJ (18): a monitor rejected it (monitor 1, its code 2)",
            ),
            (Message::Result(Outcome::MonitorFailed { monitor_index: 1 }), " (monitor 1)"),
            (ntag(Status::SUCCESS), "NTAG socket 1: tag 7 sent at 2.000000003"),
            (stat(StateChange::TcpEstablished { remote: v4 }), "connected to 192.0.2.1:80"),
            (stat(code(StateChange::ESTABLISHED)), "NSTAT socket 1: established, at 0.000000001"),
            (stat(code(StateChange::RESET)), "reset"),
            (stat(code(StateChange::TIMEOUT)), "timed out"),
            (stat(code(StateChange::PEER_CLOSED)), "closed by the peer"),
            (stat(code(StateChange::UNKNOWN)), "failed for an unknown reason"),
            (stat(code(77)), "code 77"),
            (Message::Ndata { sktid: 1, time: TIME, packet }, "NDATA socket 1: 1 byte, at 2.0"),
            (
                Message::Ndrop {
                    socket: socket(Protocol::Udp),
                    first: Ticks(1),
                    last: TIME,
                    units: 3,
                    bytes: 4,
                },
                "NDROP socket 1 (UDP over IPv6): 3 packets of 4 bytes dropped, from 0.000000001 to 2.0",
            ),
            (
                Message::Nblock { socket: socket(Protocol::Tcp), monitor_errid: 5, time: TIME },
                "NBLOCK socket 1 (TCP over IPv6): blocked by a monitor, its code 5, at 2.0",
            ),
            (
                Message::Linfo { name: b"a", auxiliary: b"\x1b", info: b"c" },
                r#"LINFO name "a", aux "\u{1b}", info "c""#,
            ),
        ]);
        assert_eq!(ntag(Status::EPKTNOTSENT).to_string().matches("EPKTNOTSENT").count(), 1);
    }

    #[test]
    fn what_brokers_and_proxies_are_told_and_what_is_unknown_is_told_in_words_on_one_line() {
        let channel = ChannelId::new(&[1, 2]).unwrap();
        let unknown = |malformed| {
            let message_type = if malformed { MessageType::NCLOSE } else { MessageType(0x99) };
            Message::Raw { message_type, payload: DATA, malformed }
        };
        assert_told(&[
            (Message::Xcert { certificate: DATA }, "XCERT 2 bytes"),
            (Message::Xnotify { channel, xdescr: "a=b;" }, "XNOTIFY a=b;"),
            (Message::Xreg { snikey: "hello" }, "XREG hello"),
            (
                Message::Xsub {
                    channels: ChannelList::new(&[channel]),
                    operator_key: [0; 32],
                    dattr: "a=b;",
                },
                "XSUB a=b;",
            ),
            (unknown(true), "NCLOSE (0x2b) with 2 bytes, malformed"),
            (unknown(false), "with 2 bytes"),
        ]);
    }
}
