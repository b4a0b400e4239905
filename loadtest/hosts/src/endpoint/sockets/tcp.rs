//! The life of a TCP connection, made or waited for.
//!
//! A listening socket takes one connection and becomes it, because that is all that a message can name.
//!
//! When it is closed, what is due is still sent, then the FIN, and input is discarded until the peer has
//! closed too: a close with unread input would make the kernel reset the connection, and lose what the peer
//! has not read yet. A peer that goes on sending is cut once it has acknowledged everything.
//!
//! Not here: buffers and notifications (`table`); how long a closed connection may take. Invariant: data is
//! read only while the receive buffer has room, so that a slow controller slows the peer down.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use engine::sys::socket::untaken_len;
use packetlab::message::Status;
use packetlab::time::Ticks;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc::UnboundedReceiver;

use super::super::ledger::Turn;
use super::reporter::{Reporter, TaskMessage};
use super::schedule::{Action, Schedule};
use super::table::State;
use crate::alarm::Alarm;
use crate::clock::now;

/// Largest data of one NDATA (spec/protocol.md 7). Whoever judges pieces, as monitors do, gets as few as with the
/// original.
const DATA_LEN_MAX: usize = 0x1_0000;
/// Input of a closed connection that is discarded without asking what the peer has acknowledged.
const DISCARDED_LEN_MAX: usize = 1 << 20;
/// Longest wait for a peer to accept.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Connects, and lives.
pub(super) async fn connect(
    socket: TcpSocket,
    remote: SocketAddr,
    reporter: Reporter,
    instructions: UnboundedReceiver<TaskMessage>,
) {
    let connecting = tokio::time::timeout(CONNECT_TIMEOUT, socket.connect(remote)).await;
    match connecting.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(stream) => live(stream, remote, &reporter, instructions).await,
        Err(error) => fail(&error, &reporter, instructions).await,
    }
}

/// Waits for one peer that the chain allows, and lives.
pub(super) async fn accept(
    listener: TcpListener,
    reporter: Reporter,
    instructions: UnboundedReceiver<TaskMessage>,
) {
    let accepted = loop {
        match listener.accept().await {
            Ok((_, peer)) if !reporter.shared.table().limits().allows_destination(peer.ip()) => {}
            // That peer has given up; another may come.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            accepted => break accepted,
        }
    };
    drop(listener);
    match accepted {
        Ok((stream, remote)) => live(stream, remote, &reporter, instructions).await,
        Err(error) => fail(&error, &reporter, instructions).await,
    }
}

/// There is no connection; whatever was to be sent was not.
async fn fail(
    error: &io::Error,
    reporter: &Reporter,
    mut instructions: UnboundedReceiver<TaskMessage>,
) {
    reporter.report(|table, number| table.ended(number, state_after(error), now()));
    instructions.close();
    while let Some(instruction) = instructions.recv().await {
        if let TaskMessage::Order(order) = instruction
            && let Action::Send { tag, data, .. } = order.action
        {
            reporter.report(|table, number| {
                table.sent(number, tag, data.len(), now(), Err(Status::EPKTNOTSENT));
            });
        }
    }
}

async fn live(
    mut stream: TcpStream,
    remote: SocketAddr,
    reporter: &Reporter,
    instructions: UnboundedReceiver<TaskMessage>,
) {
    // Send times mean the wire, not the moment Nagle lets go.
    let _ = stream.set_nodelay(true);
    if let Ok(local) = stream.local_addr() {
        reporter.report(|table, number| table.established(number, local, remote, now()));
    }
    let (reader, writer) = stream.split();
    let receiving = async {
        receive(reader, reporter).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = receiving => {}
        () = send(writer, reporter, instructions) => {}
    }
    discard(&mut stream).await;
}

async fn discard(stream: &mut TcpStream) {
    let (mut input, mut discarded_len) = (vec![0; DATA_LEN_MAX], 0);
    while let Ok(len @ 1..) = stream.read(&mut input).await {
        discarded_len += len;
        if discarded_len > DISCARDED_LEN_MAX && untaken_len(stream) == 0 {
            return;
        }
    }
}

/// Reports all data, then how the stream ended.
async fn receive(reader: ReadHalf<'_>, reporter: &Reporter) {
    let state = loop {
        if room(reporter).await.is_none() {
            reporter.report(|table, _| table.log("the chain allows no more data to be received"));
            break State::Unknown;
        }
        // Memory is taken only once there is something to read: most sockets wait most of the time.
        if let Err(error) = reader.readable().await {
            break state_after(&error);
        }
        match take(&reader, reporter) {
            Ok(0) => break State::PeerClosed,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => break state_after(&error),
        }
    };
    reporter.report(|table, number| table.ended(number, state, now()));
}

/// Reads what is there as far as there is room; how much. The table is locked meanwhile, or another socket
/// could use up what the chain allows for all of them, and a part of the stream had to be dropped.
fn take(reader: &ReadHalf<'_>, reporter: &Reporter) -> io::Result<usize> {
    let mut table = reporter.shared.table();
    let read = |data: &mut [u8]| reader.try_read(data);
    let len = table.read(reporter.number, now(), DATA_LEN_MAX, read)?;
    if len > 0 {
        reporter.shared.news.notify_one();
    }
    Ok(len)
}

/// How much may be read, once that is something; `None` if never again.
async fn room(reporter: &Reporter) -> Option<usize> {
    loop {
        // Made before the look, so that no news of room is missed.
        let news = reporter.shared.room.notified();
        match reporter.shared.table().readable_len(reporter.number) {
            Some(0) => {}
            known => return known,
        }
        news.await;
    }
}

/// Carries out orders until the socket is closed, then those that are due, and sends the FIN.
async fn send(
    mut writer: WriteHalf<'_>,
    reporter: &Reporter,
    mut instructions: UnboundedReceiver<TaskMessage>,
) {
    let (mut schedule, mut alarm) = (Schedule::of_stream(), Alarm::default());
    loop {
        tokio::select! {
            instruction = instructions.recv() => match instruction {
                Some(TaskMessage::Order(order)) => schedule.push(order),
                Some(TaskMessage::Capture) => {}
                None => break,
            },
            () = alarm.wait(schedule.next_time()) => {
                carry_out(schedule.pop(), &mut writer, &mut alarm, reporter).await;
            }
        }
    }
    while schedule.next_time().is_some_and(|time| time <= now()) {
        carry_out(schedule.pop(), &mut writer, &mut alarm, reporter).await;
    }
    let _ = writer.shutdown().await;
}

async fn carry_out(
    action: Option<Action>,
    writer: &mut WriteHalf<'_>,
    alarm: &mut Alarm,
    reporter: &Reporter,
) {
    match action {
        Some(Action::Send { tag, data, .. }) => {
            let (time, result) = write(writer, &data, alarm, reporter).await;
            reporter.report(|table, number| table.sent(number, tag, data.len(), time, result));
        }
        Some(Action::Finish) => {
            // A connection that is gone has no write side to shut down.
            let _ = writer.shutdown().await;
            reporter.report(|table, number| table.ended(number, State::WriteClosed, now()));
        }
        None => {}
    }
}

/// Writes all data, in pieces that burst rates allow, each when it is its turn; when the first one left, or none.
async fn write(
    writer: &mut WriteHalf<'_>,
    data: &[u8],
    alarm: &mut Alarm,
    reporter: &Reporter,
) -> (Ticks, Result<(), Status>) {
    let piece_len_max = reporter.shared.table().limits().burst_len_max().max(1);
    let mut pieces = data.chunks(piece_len_max);
    // No data at all is a packet, too.
    let mut piece = pieces.next().or(Some(data));
    let (mut left_at, mut packets) = (None, 1);
    while let Some(next) = piece {
        let turn = reporter.shared.table().limits().take_turn(now(), next.len(), packets);
        match turn {
            Turn::Now => {}
            Turn::Later(time) => {
                alarm.wait(Some(time)).await;
                continue;
            }
            Turn::Never => return (left_at.unwrap_or_else(now), Err(Status::ESKTPKTDENY)),
        }
        let time = *left_at.get_or_insert_with(now);
        if writer.write_all(next).await.is_err() {
            return (time, Err(Status::EPKTNOTSENT));
        }
        (piece, packets) = (pieces.next(), 0);
    }
    (left_at.unwrap_or_else(now), Ok(()))
}

fn state_after(error: &io::Error) -> State {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => State::Refused,
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => State::Reset,
        io::ErrorKind::TimedOut => State::TimedOut,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => State::Unreachable,
        _ => State::Unknown,
    }
}
