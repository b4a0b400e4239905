//! The life of a UDP or raw socket.
//!
//! Packets are sent at their times, and received with the time at which the kernel got them. Raw
//! packets are captured where the kernel passes them on to and from its network devices, so that those
//! that leave are seen as well, as by the original's endpoint: on loopback every packet is seen twice.
//!
//! Not here: which packets may be sent (`table`), which are wanted (`filter`).
//!
//! Invariant: sending and receiving are one task, so that the news of a packet sent comes before that of
//! the answer to it.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::libc;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg};
use nix::sys::time::TimeSpec;
use packetlab::message::{Family, Packet, Status};
use packetlab::time::Ticks;
use socket2::Socket;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc::UnboundedReceiver;

use super::super::filter;
use super::super::ledger::Turn;
use super::kernel_socket::Capture;
use super::reporter::{Reporter, TaskMessage};
use super::schedule::{Action, Schedule};
use crate::alarm::Alarm;
use crate::clock::now;

/// Largest packet.
const PACKET_LEN_MAX: usize = 0x1_0000;
/// Packets received in one turn; then others have theirs.
const BATCH_MAX: usize = 64;
/// The same in time, because a filter may take a millisecond for a packet.
const BATCH_TIME: Duration = Duration::from_millis(1);

/// Sends and receives datagrams until the socket is closed.
pub(super) async fn run_udp(
    socket: AsyncFd<Socket>,
    reporter: Reporter,
    mut instructions: UnboundedReceiver<TaskMessage>,
) {
    let (mut schedule, mut alarm) = (Schedule::default(), Alarm::default());
    loop {
        tokio::select! {
            instruction = instructions.recv() => match instruction {
                Some(TaskMessage::Order(order)) => schedule.push(order),
                Some(TaskMessage::Capture) => {}
                None => return,
            },
            () = alarm.wait(schedule.next_time()) => send(&socket, &mut schedule, &reporter).await,
            result = socket.readable() => {
                let Ok(mut ready) = result else { return };
                let drained = receive(socket.get_ref(), |data, from, time| {
                    let Some(remote) = from.and_then(internet_address) else { return };
                    let packet = Packet::Udp { remote, data };
                    reporter.report(|table, number| table.received(number, time, packet));
                });
                if drained {
                    ready.clear_ready();
                }
            }
        }
    }
}

/// Sends whole packets, and receives those from and to `local` that are captured, until the socket is
/// closed.
pub(super) async fn run_raw(
    socket: AsyncFd<Socket>,
    local: IpAddr,
    reporter: Reporter,
    mut instructions: UnboundedReceiver<TaskMessage>,
) {
    let (mut schedule, mut alarm) = (Schedule::default(), Alarm::default());
    let mut capture: Option<Capture> = None;
    loop {
        tokio::select! {
            instruction = instructions.recv() => match instruction {
                Some(TaskMessage::Order(order)) => schedule.push(order),
                Some(TaskMessage::Capture) => capture = reporter.take_capture().or(capture),
                None => return,
            },
            () = alarm.wait(schedule.next_time()) => send(&socket, &mut schedule, &reporter).await,
            () = readable(capture.as_ref()) => {
                if let Some(current) = &mut capture
                    && take_captured(current, local, &reporter).await
                {
                    capture = None;
                }
                // The runtime would let this task go on, for as long as packets come.
                tokio::task::yield_now().await;
            }
        }
    }
}

async fn readable(capture: Option<&Capture>) {
    match capture {
        // What went wrong shows when it is read.
        Some(capture) => drop(capture.socket.readable().await),
        None => std::future::pending().await,
    }
}

/// Takes a batch of what is captured. True if the capture is over: its end has come, and what the kernel had
/// stamped before is taken; or its filter has taken too long for a packet, which is told, for it would for every
/// one.
async fn take_captured(capture: &mut Capture, local: IpAddr, reporter: &Reporter) -> bool {
    let Capture { socket, filter, end } = capture;
    let Ok(mut ready) = socket.readable().await else { return true };
    let family = reporter.socket.family;
    let (mut is_past_end, mut is_over_budget) = (false, false);
    let drained = receive(socket.get_ref(), |frame, from, time| {
        is_past_end |= time >= *end;
        let of_family = from.and_then(link_family) == Some(family);
        let is_taken = of_family && time < *end && !is_over_budget;
        let Some(packet) = ip_packet(family, local, frame).filter(|_| is_taken) else { return };
        let Ok(wanted) = filter.wanted_len(packet) else {
            is_over_budget = true;
            return;
        };
        if let Some(data) = packet.get(..wanted).filter(|data| !data.is_empty()) {
            let packet = Packet::Raw { family, data };
            reporter.report(|table, number| table.received(number, time, packet));
        }
    });
    if drained {
        ready.clear_ready();
    }
    if is_over_budget {
        let sktid = reporter.socket.sktid;
        reporter.report(|table, _| table.log(&over_budget(sktid)));
    }
    is_over_budget || is_past_end || drained && now() >= *end
}

fn over_budget(sktid: u8) -> String {
    format!(
        "the capture on socket {sktid} is over: its filter takes more than {} instructions for a packet",
        filter::BUDGET
    )
}

/// Carries out the NSEND that is due, if burst rates allow it; otherwise it is due again when they may.
async fn send(socket: &AsyncFd<Socket>, schedule: &mut Schedule, reporter: &Reporter) {
    let Some(Action::Send { data, .. }) = schedule.next() else { return };
    let turn = reporter.shared.table().limits().take_turn(now(), data.len(), 1);
    if let Turn::Later(time) = turn {
        return schedule.hold(time);
    }
    let Some(Action::Send { tag, remote: Some(remote), data }) = schedule.pop() else { return };
    let mut time = now();
    let result = if turn == Turn::Now {
        let to = remote.into();
        let mut attempt = |socket: &Socket| {
            // Just before, for the answer of a near peer may be here when this returns.
            time = now();
            socket.send_to(&data, &to)
        };
        // At once: asking for readiness first would cost a turn of the runtime.
        let sent = match attempt(socket.get_ref()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                socket.async_io(Interest::WRITABLE, attempt).await
            }
            sent => sent,
        };
        sent.map(drop).map_err(|_| Status::EPKTNOTSENT)
    } else {
        Err(Status::ESKTPKTDENY)
    };
    reporter.report(|table, number| table.sent(number, tag, data.len(), time, result));
}

/// Receives what is there, at most a batch: payload, sender, time. True if nothing is left.
fn receive(socket: &Socket, mut take: impl FnMut(&[u8], Option<&SockaddrStorage>, Ticks)) -> bool {
    let mut bytes = vec![0; PACKET_LEN_MAX];
    let mut control = nix::cmsg_space!(TimeSpec);
    let begin = now();
    for _ in 0..BATCH_MAX {
        if now().saturating_duration_since(begin) > BATCH_TIME {
            return false;
        }
        let (len, from, time) = {
            let mut parts = [IoSliceMut::new(&mut bytes)];
            let flags = MsgFlags::MSG_DONTWAIT;
            let message = recvmsg::<SockaddrStorage>(
                socket.as_raw_fd(),
                &mut parts,
                Some(&mut control),
                flags,
            );
            let message = match message {
                Ok(message) => message,
                Err(nix::errno::Errno::EWOULDBLOCK) => return true,
                // An interruption, or an error of what was sent before: packets may wait behind it.
                Err(_) => continue,
            };
            let stamp = message.cmsgs().into_iter().flatten().find_map(|control| match control {
                ControlMessageOwned::ScmTimestampns(time) => Some(Duration::from(time)),
                _ => None,
            });
            let time = stamp.map_or_else(now, |since_1970| Ticks(0).saturating_add(since_1970));
            (message.bytes, message.address, time)
        };
        take(bytes.get(..len).unwrap_or_default(), from.as_ref(), time);
    }
    false
}

fn internet_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    address
        .as_sockaddr_in()
        .map(|address| SocketAddr::V4((*address).into()))
        .or_else(|| address.as_sockaddr_in6().map(|address| SocketAddr::V6((*address).into())))
}

/// What a link says that its frame carries.
fn link_family(address: &SockaddrStorage) -> Option<Family> {
    match i32::from(u16::from_be(address.as_link_addr()?.protocol())) {
        libc::ETH_P_IP => Some(Family::Ipv4),
        libc::ETH_P_IPV6 => Some(Family::Ipv6),
        _ => None,
    }
}

/// The packet in a frame, if it is from or to `local`, which may be any: without the padding of short
/// frames.
fn ip_packet(family: Family, local: IpAddr, frame: &[u8]) -> Option<&[u8]> {
    let u16_at = |at: usize| {
        let bytes = frame.get(at..)?.first_chunk::<2>()?;
        Some(usize::from(u16::from_be_bytes(*bytes)))
    };
    let (announced, source, destination) = match family {
        Family::Ipv4 => {
            let address = |at: usize| frame.get(at..)?.first_chunk::<4>().map(|a| IpAddr::from(*a));
            (u16_at(2)?, address(12)?, address(16)?)
        }
        Family::Ipv6 => {
            let address =
                |at: usize| frame.get(at..)?.first_chunk::<16>().map(|a| IpAddr::from(*a));
            (40 + u16_at(4)?, address(8)?, address(24)?)
        }
    };
    if !local.is_unspecified() && source != local && destination != local {
        return None;
    }
    // A packet that the kernel or the device has put together announces no length or a wrong one.
    Some(frame.get(..announced).filter(|packet| packet.len() >= 20).unwrap_or(frame))
}
