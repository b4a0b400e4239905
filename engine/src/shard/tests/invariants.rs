//! What holds after each turn of a shard, and when its sessions have ended.

use std::os::fd::{AsRawFd, RawFd};

use super::super::Token;
use super::super::connection::Connection;
use super::super::mlet_streams::MletStreams;
use super::super::stages::Stages;
use super::harness::Harness;
use super::peers::{Endpoint, Mlet};
use crate::metrics::Direction;
use crate::proto::account::{Flow, Relayed};
use crate::proto::session::SetUpStage;
use packetlab::message::{HEADER_LEN, MessageType};

/// The most blocks a session ever holds: one each way, and the mlet's bytes that wait for records.
const BLOCKS_MAX: usize = 3;

/// In how many turns a session that is over is closed: what is under way on it has been cancelled, and a cancelled
/// operation completes in one turn of eight at least.
const CLOSING_TURNS_MAX: usize = 300;

impl Harness {
    /// Operations, descriptors, buffers and blocks are accounted for.
    pub(super) fn check(&mut self) {
        self.check_operations();
        self.check_descriptors();
        let faults = &self.kernel.borrow().faults;
        assert!(faults.is_empty(), "{faults:?}");
        let shard = &self.shard;
        let kept = shard.set_up_backlog.iter().filter(|(_, received)| received.is_ok()).count();
        let lent = shard.driver.lent_buffers();
        let without_blocks = shard.kept_buffers.len();
        let untaken = shard.driver.untaken_buffers();
        assert_eq!(lent, kept + without_blocks + untaken, "buffers go back in their turn");
        let large = shard.pool.lent_large();
        assert!(large <= shard.large_blocks_max, "{large} large blocks");
        self.large_blocks_most = self.large_blocks_most.max(large);
        self.kept_buffers_most = self.kept_buffers_most.max(without_blocks);
        let sessions = shard.connections.len();
        assert!(shard.pool.lent() <= BLOCKS_MAX * sessions, "{} blocks", shard.pool.lent());
        shard.connections.iter().for_each(|(_, connection)| check_wants(connection));
        shard.connections.iter().for_each(|(_, connection)| check_timing(connection));
        let mut stages = Stages::default();
        let in_set_up = shard.connections.iter().filter(|(_, connection)| connection.in_set_up);
        in_set_up.for_each(|(_, connection)| stages.enter(connection.stage));
        assert_eq!(shard.stages, stages, "connections that are counted at a stage");
        let over = shard.connections.iter().filter(|(_, connection)| connection.over.is_some());
        let before = std::mem::take(&mut self.over_since);
        let since = |id| before.get(&id).copied().unwrap_or(self.turns);
        self.over_since =
            over.map(|(_, connection)| (connection.id, since(connection.id))).collect();
        let longest = self.over_since.values().map(|since| self.turns - since).max();
        assert!(longest.unwrap_or(0) <= CLOSING_TURNS_MAX, "a session that is over is not closed");
    }

    fn check_operations(&self) {
        let shard = &self.shard;
        // By slot: receive and send of the endpoint, of the mlet, cancellations, watches.
        let mut counts = vec![[0_u8; 6]; shard.connections.capacity()];
        for token in shard.driver.under_way() {
            let (slot, kind) = match token {
                Token::EndpointReceive(slot) => (slot, 0),
                Token::EndpointSend(slot) => (slot, 1),
                Token::MletReceive(slot) => (slot, 2),
                Token::MletSend(slot) => (slot, 3),
                Token::Cancel(slot) => (slot, 4),
                Token::MletWatch(slot) => (slot, 5),
                Token::Accept(_) | Token::CancelAccept(_) | Token::Mail => continue,
            };
            counts[slot][kind] += 1;
        }
        for (slot, _) in &shard.set_up_backlog {
            counts[*slot][0] += 1;
        }
        for (slot, connection) in &shard.connections {
            let under_way = &connection.under_way;
            let known = [
                u8::from(under_way.endpoint_receive),
                u8::from(under_way.endpoint_send),
                u8::from(under_way.mlet_receive),
                u8::from(under_way.mlet_send),
                under_way.cancels,
                u8::from(under_way.mlet_watch),
            ];
            let found = std::mem::take(&mut counts[slot]);
            assert_eq!(found, known, "what is under way, and what the shard knows of");
        }
        assert!(counts.iter().all(|left| *left == [0; 6]), "operations of nobody");
    }

    /// Each stream is a session's, or on its way to one.
    fn check_descriptors(&mut self) {
        let (shard, kernel) = (&self.shard, self.kernel.borrow());
        let of_mlet = |connection: &Connection| connection.mlet.as_ref().map(MletStreams::numbers);
        let streams = |connection: &Connection| 1 + of_mlet(connection).map_or(0, |all| all.len());
        let of_sessions: usize =
            shard.connections.iter().map(|(_, connection)| streams(connection)).sum();
        let is_taken = |number: RawFd| {
            let sockets = |connection: &Connection| {
                connection.endpoint.as_raw_fd() == number
                    || of_mlet(connection).is_some_and(|all| all.contains(&number))
            };
            shard.connections.iter().any(|(_, connection)| sockets(connection))
        };
        self.adopted.retain(|number| kernel.is_stream(*number) && !is_taken(*number));
        let accepted = shard.driver.untaken_connections()
            + shard.listeners.waiting_for_descriptor()
            + shard.listeners.waiting_for_place();
        let on_their_way = kernel.waiting_streams() + accepted + self.adopted.len();
        assert_eq!(kernel.streams(), of_sessions + on_their_way, "sockets of nobody");
    }

    /// All sessions have ended, and nothing is left of them.
    pub(super) fn check_nothing_is_left(&self) {
        assert!(self.shard.connections.is_empty());
        assert_eq!(self.shard.pool.lent(), 0, "blocks are missing");
        let kernel = self.kernel.borrow();
        assert_eq!(kernel.streams(), kernel.waiting_streams(), "sockets are left open");
        assert_eq!(self.untaken_pipes(), 0, "pipes are made and come to no mlet");
    }
}

/// A session that is over wants nothing, and one in set-up, unless that has failed, no input while its output waits.
fn check_wants(connection: &Connection) {
    let session = &connection.session;
    let wants = (session.wants_endpoint_input(), session.wants_mlet_input());
    if connection.over.is_some() {
        assert_eq!((wants, session.deadline()), ((false, false), None), "over");
    } else if !session.is_served() && session.set_up_stage() != SetUpStage::Failed {
        assert!(!(wants.0 && connection.under_way.endpoint_send), "input while output waits");
    }
}

/// What is timed waits to leave.
fn check_timing(connection: &Connection) {
    for direction in [Direction::ToEndpoint, Direction::FromEndpoint] {
        let is_timing = connection.latency.as_ref().is_some_and(|times| times.is_timing(direction));
        let waits = connection.unsent_len(direction) > 0;
        assert!(!is_timing || waits || connection.over.is_some(), "nothing is timed");
    }
}

/// While nobody, nor a limit, has ended or broken anything, a relayed session wants no input of which the last waits to be sent.
pub(super) fn check_flow(connection: &Connection, endpoint: &Endpoint, mlet: &Mlet) {
    let has_parted = endpoint.has_parted || endpoint.end.is_some();
    // What is under way on a pipe goes on until it is cancelled.
    let gets_no_more = connection.mlet.as_ref().is_some_and(MletStreams::gets_no_more);
    let mlet_has_parted = mlet.has_ended || mlet.has_closed_input || gets_no_more;
    if !has_parted && !mlet_has_parted {
        let (session, under_way) = (&connection.session, &connection.under_way);
        let waits = session.wants_endpoint_input() && under_way.mlet_send;
        assert!(!waits, "the endpoint's input while the mlet takes nothing");
        let waits = session.wants_mlet_input() && under_way.endpoint_send;
        assert!(!waits, "the mlet's input while the endpoint takes nothing");
    }
}

/// How far what two peers have received has been compared with what the other has said.
#[derive(Default)]
pub(super) struct Streams {
    /// Of what the endpoint has received.
    endpoint_len: usize,
    /// Of what the mlet has received.
    mlet_len: usize,
    /// Whole messages of the endpoint other than LINFO, and how much of what it has said they were taken from.
    for_mlet: Vec<u8>,
    said_len: usize,
}

impl Streams {
    /// What has arrived is a beginning of what was sent. What has been compared is not compared again.
    pub(super) fn check(&mut self, endpoint: &Endpoint, mlet: &Mlet) {
        if endpoint.is_relayed {
            let received = &endpoint.received[self.endpoint_len..];
            let is_beginning = mlet.said[self.endpoint_len..].starts_with(received);
            assert!(is_beginning, "the endpoint got what was never sent");
            self.endpoint_len = endpoint.received.len();
            let rest = self.gather(&endpoint.said);
            let received = &mlet.received[self.mlet_len..];
            let whole = &self.for_mlet[self.mlet_len.min(self.for_mlet.len())..];
            let (of_whole, of_rest) = received.split_at(received.len().min(whole.len()));
            let rest = &rest[self.mlet_len.saturating_sub(self.for_mlet.len())..];
            let is_beginning = whole.starts_with(of_whole) && rest.starts_with(of_rest);
            assert!(is_beginning, "the mlet got what was never sent");
            self.mlet_len = mlet.received.len();
        }
    }

    /// How many bytes a mlet gets of what the endpoint has said, if it gets all.
    pub(super) fn for_mlet_len(&mut self, endpoint: &Endpoint) -> usize {
        let rest_len = self.gather(&endpoint.said).len();
        self.for_mlet.len() + rest_len
    }

    /// Takes further whole messages out of what the endpoint has said. Gives what is there of the next, if the mlet gets
    /// it.
    fn gather<'a>(&mut self, said: &'a [u8]) -> &'a [u8] {
        loop {
            let rest = &said[self.said_len..];
            let is_linfo = rest.first() == Some(&MessageType::LINFO.0);
            let Some(message) = whole_message(rest) else {
                return if is_linfo { &[] } else { rest };
            };
            if !is_linfo {
                self.for_mlet.extend_from_slice(message);
            }
            self.said_len += message.len();
        }
    }
}

/// The first message of a stream, if it is whole.
fn whole_message(stream: &[u8]) -> Option<&[u8]> {
    let [_, high, middle, low] = stream.first_chunk()?;
    stream.get(..HEADER_LEN + u32::from_be_bytes([0, *high, *middle, *low]) as usize)
}

/// A session's counts agree with what its peers have said and received, and with what was logged of its LINFOs.
pub(super) fn check_counts(relayed: &Relayed, endpoint: &Endpoint, mlet: &Mlet, logged: u64) {
    let Relayed { to_endpoint, from_endpoint, linfos_lost, .. } = relayed;
    assert!(to_endpoint.bytes >= endpoint.received.len() as u64, "{relayed:?}");
    assert!(from_endpoint.bytes >= mlet.received.len() as u64, "{relayed:?}");
    count(to_endpoint, &mlet.said);
    let (begun, ended) = count(from_endpoint, &endpoint.said);
    let told = logged + linfos_lost;
    assert!((ended..=begun).contains(&told), "{told} LINFOs of {ended} to {begun}: {relayed:?}");
}

/// Compares a count with the stream that it counts the beginning of. Gives the LINFOs that begin and end in it.
fn count(flow: &Flow, stream: &[u8]) -> (u64, u64) {
    let mut rest = &stream[..flow.bytes as usize];
    let (mut messages, mut linfos) = (0, 0);
    while let Some(message) = whole_message(rest) {
        messages += 1;
        linfos += u64::from(message[0] == MessageType::LINFO.0);
        rest = &rest[message.len()..];
    }
    assert_eq!(flow.messages, messages, "messages in {} bytes", flow.bytes);
    let begins = rest.first() == Some(&MessageType::LINFO.0);
    (linfos + u64::from(begins), linfos)
}
