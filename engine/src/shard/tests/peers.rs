//! The two peers of a session under test, each with the socket between.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};

use rustls::{AlertDescription, ClientConnection, Error};

use super::pipes::Pipes;
use crate::driver::simulated::Remote;
use crate::proto::session_end::End;
use crate::proto::tests::success;
use packetlab::message::{HEADER_LEN, MessageType};

/// How many bytes a socket holds for a peer that does not read: more than the longest record.
pub(crate) const SOCKET_LEN: usize = 20 * 1024;

/// Length of a TLS record's header.
const RECORD_HEADER_LEN: usize = 5;

/// The endpoint: a TLS client that answers set-up messages, and its TCP connection.
pub(crate) struct Endpoint {
    /// `None` speaks raw bytes.
    pub(crate) tls: Option<ClientConnection>,
    /// Bytes in the network that the session has not received.
    pub(crate) sent: VecDeque<u8>,
    /// Bytes behind a dam, and how many it still lets pass.
    pub(crate) held: VecDeque<u8>,
    pub(crate) dam: Option<usize>,
    /// It has said something that ends the session's interest in its input.
    pub(crate) has_parted: bool,
    has_closed_tls: bool,
    /// How the connection ends behind `sent`.
    pub(crate) end: Option<End>,
    /// Bytes from the session that TLS has not taken.
    waiting: Vec<u8>,
    /// How many have ever arrived.
    arrived_len: u64,
    /// It takes what arrives.
    pub(crate) reads: bool,
    /// It closes when the session has ended its side.
    pub(crate) closes_back: bool,
    /// Answers to set-up messages; success when there are none left.
    pub(crate) answers: VecDeque<Vec<u8>>,
    /// It does not answer set-up messages.
    pub(crate) is_silent: bool,
    /// START was answered with success: what follows is the mlet's.
    pub(crate) is_relayed: bool,
    /// What it has said since.
    pub(crate) said: Vec<u8>,
    /// Decrypted bytes, since START or of the unfinished set-up message.
    pub(crate) received: Vec<u8>,
    /// Plaintext lengths of the records that brought them, other than close_notify.
    pub(crate) record_lens: Vec<usize>,
    /// Everything that came, when it speaks raw bytes.
    pub(crate) raw: Vec<u8>,
    /// What came other than data.
    pub(crate) close_notify: bool,
    pub(crate) alert: Option<AlertDescription>,
    pub(crate) is_at_eof: bool,
    eof_follows: bool,
    /// The session has closed its socket with bytes of it unread, so that what it had not looked at is lost.
    pub(crate) was_reset: bool,
    /// What it noticed since last asked.
    pub(crate) notes: Vec<String>,
}

impl Endpoint {
    pub(crate) fn new(tls: Option<ClientConnection>) -> Self {
        let mut endpoint = Self {
            tls,
            sent: VecDeque::new(),
            held: VecDeque::new(),
            dam: None,
            has_parted: false,
            has_closed_tls: false,
            end: None,
            waiting: Vec::new(),
            arrived_len: 0,
            reads: true,
            closes_back: true,
            answers: VecDeque::new(),
            is_silent: false,
            is_relayed: false,
            said: Vec::new(),
            received: Vec::new(),
            record_lens: Vec::new(),
            raw: Vec::new(),
            close_notify: false,
            alert: None,
            is_at_eof: false,
            eof_follows: false,
            was_reset: false,
            notes: Vec::new(),
        };
        endpoint.flush();
        endpoint
    }

    /// Seals `bytes` into one record, or more if they are many, and sends them.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        // TLS has nothing more to say.
        if self.alert.is_some() || self.has_closed_tls {
            return;
        }
        if self.is_relayed && self.end.is_none() {
            self.said.extend_from_slice(bytes);
        }
        self.tls.as_mut().unwrap().writer().write_all(bytes).unwrap();
        self.flush();
    }

    /// Sends bytes as they are.
    pub(crate) fn write_raw(&mut self, bytes: &[u8]) {
        self.has_parted = true;
        self.held.extend(bytes);
        self.release();
    }

    /// Lets bytes pass that wait at a dam, up to `dam` of them.
    pub(crate) fn set_dam(&mut self, dam: Option<usize>) {
        self.dam = dam;
        self.release();
    }

    pub(crate) fn close_notify(&mut self) {
        (self.has_parted, self.has_closed_tls) = (true, true);
        self.tls.as_mut().unwrap().send_close_notify();
        self.flush();
    }

    /// Ends the connection: bytes in the network still arrive, those behind the dam never will.
    pub(crate) fn end(&mut self, end: End) {
        self.held.clear();
        self.end = Some(end);
    }

    pub(crate) fn is_broken(&self) -> bool {
        matches!(self.end, Some(End::Broken(_)))
    }

    /// Sends what TLS wants to send.
    pub(crate) fn flush(&mut self) {
        let Some(tls) = &mut self.tls else { return };
        if self.end.is_some() {
            return;
        }
        while tls.wants_write() {
            tls.write_tls(&mut self.held).unwrap();
        }
        self.release();
    }

    fn release(&mut self) {
        let len = self.dam.map_or(self.held.len(), |dam| dam.min(self.held.len()));
        move_front(&mut self.held, len, &mut self.sent);
        if let Some(dam) = &mut self.dam {
            *dam -= len;
        }
    }

    /// How many bytes its socket takes now.
    pub(crate) fn room(&self) -> usize {
        if self.reads { usize::MAX } else { SOCKET_LEN.saturating_sub(self.waiting.len()) }
    }

    /// How many bytes have arrived, and how many of those it has taken.
    pub(crate) fn progress(&self) -> (u64, u64) {
        (self.arrived_len, self.arrived_len - self.waiting.len() as u64)
    }

    pub(crate) fn arrive(&mut self, bytes: &[u8]) {
        assert!(!self.eof_follows, "nothing is sent after the end of output");
        self.arrived_len += bytes.len() as u64;
        self.waiting.extend_from_slice(bytes);
    }

    pub(crate) fn arrive_eof(&mut self) {
        assert!(!self.eof_follows, "output ends once");
        self.eof_follows = true;
        self.notes.push("endpoint's input ended".into());
    }

    /// Takes what has arrived, if it reads at all.
    pub(crate) fn take(&mut self) {
        if !self.reads || self.waiting.is_empty() && !self.eof_follows {
            return;
        }
        let waiting = std::mem::take(&mut self.waiting);
        let rest = if self.tls.is_some() { self.take_records(&waiting) } else { waiting.len() };
        if self.tls.is_none() {
            self.raw.extend_from_slice(&waiting);
        }
        self.waiting = waiting[rest..].to_vec();
        if self.eof_follows && !self.is_at_eof {
            assert!(self.waiting.is_empty(), "no record is cut");
            self.is_at_eof = true;
            self.notes.push("endpoint: EOF".into());
            if self.closes_back && self.end.is_none() {
                self.end(End::Closed);
            }
        }
    }

    /// Feeds whole records one at a time; returns how many bytes they were.
    fn take_records(&mut self, bytes: &[u8]) -> usize {
        let mut position = 0;
        while let Some(header) = bytes[position..].first_chunk::<RECORD_HEADER_LEN>() {
            let len = usize::from(u16::from_be_bytes([header[3], header[4]]));
            let end = position + RECORD_HEADER_LEN + len;
            let Some(record) = bytes.get(position..end) else { break };
            self.take_record(record);
            position = end;
        }
        position
    }

    fn take_record(&mut self, mut record: &[u8]) {
        assert!(!self.close_notify, "nothing comes after close_notify, and no second one");
        let tls = self.tls.as_mut().unwrap();
        let was_handshaking = tls.is_handshaking();
        while !record.is_empty() {
            assert!(tls.read_tls(&mut record).unwrap() > 0);
        }
        match tls.process_new_packets() {
            Ok(state) => {
                let mut bytes = vec![0; state.plaintext_bytes_to_read()];
                tls.reader().read_exact(&mut bytes).unwrap();
                if state.peer_has_closed() {
                    self.close_notify = true;
                    self.notes.push("endpoint: close_notify".into());
                } else if !was_handshaking {
                    self.record_lens.push(bytes.len());
                    self.received.extend_from_slice(&bytes);
                }
            }
            Err(Error::AlertReceived(alert)) => {
                self.alert = Some(alert);
                self.notes.push(format!("endpoint: alert {alert:?}"));
            }
            Err(error) => self.notes.push(format!("endpoint: {error}")),
        }
        self.flush();
        self.answer();
    }

    /// Answers the set-up message that is whole now.
    fn answer(&mut self) {
        while !self.is_relayed {
            let Some([message_type, high, middle, low]) = self.received.first_chunk() else {
                return;
            };
            let payload_len = u32::from_be_bytes([0, *high, *middle, *low]) as usize;
            let message_type = MessageType(*message_type);
            if self.received.len() < HEADER_LEN + payload_len {
                return;
            }
            let name = message_type.name().unwrap_or("unknown type");
            let rest = self.received.split_off(HEADER_LEN + payload_len);
            let whole = std::mem::replace(&mut self.received, rest);
            crate::proto::tests::assert_records_hold_one_message_each(&self.record_lens, &whole);
            self.record_lens.clear();
            self.notes.push(format!("endpoint: {name} of {payload_len} bytes"));
            if !self.is_silent {
                let answer = self.answers.pop_front().unwrap_or_else(success);
                self.write(&answer);
                if message_type == MessageType::START
                    && let Some(said) = answer.strip_prefix(&*success())
                {
                    self.is_relayed = true;
                    self.said.extend_from_slice(said);
                }
            }
        }
    }
}

impl Remote for Endpoint {
    fn sent(&mut self) -> &mut VecDeque<u8> {
        &mut self.sent
    }

    fn end(&self) -> Option<Result<(), ErrorKind>> {
        self.end.map(|end| match end {
            End::Closed => Ok(()),
            End::Broken(kind) => Err(kind),
        })
    }

    fn room(&self) -> Result<usize, ErrorKind> {
        if self.is_broken() { Err(ErrorKind::BrokenPipe) } else { Ok(self.room()) }
    }

    fn arrive(&mut self, bytes: &[u8]) {
        self.arrive(bytes);
    }

    fn arrive_end(&mut self) {
        self.arrive_eof();
    }

    fn untaken_len(&self) -> usize {
        self.waiting.len()
    }

    fn lose(&mut self, resets: bool) {
        self.was_reset = resets;
        if resets {
            self.waiting.clear();
        }
        self.is_at_eof = true;
        self.end.get_or_insert(End::Broken(ErrorKind::ConnectionReset));
    }
}

impl Remote for Mlet {
    fn sent(&mut self) -> &mut VecDeque<u8> {
        &mut self.sent
    }

    fn end(&self) -> Option<Result<(), ErrorKind>> {
        self.has_ended.then_some(Ok(()))
    }

    fn room(&self) -> Result<usize, ErrorKind> {
        self.room()
    }

    fn arrive(&mut self, bytes: &[u8]) {
        self.arrive(bytes);
    }

    fn arrive_end(&mut self) {
        self.arrive_eof();
    }

    fn untaken_len(&self) -> usize {
        self.waiting.len()
    }

    fn lose(&mut self, resets: bool) {
        self.was_cut_off = resets;
        self.eof_follows = true;
    }
}

/// The mlet's end of its socket pair.
#[derive(Debug)]
pub(crate) struct Mlet {
    /// Bytes that the session has not received.
    pub(crate) sent: VecDeque<u8>,
    /// Its writing has ended behind `sent`.
    pub(crate) has_ended: bool,
    /// It takes no more bytes at all.
    pub(crate) has_closed_input: bool,
    /// It takes what arrives.
    pub(crate) reads: bool,
    /// It exits when it reads the end.
    pub(crate) exits_at_eof: bool,
    waiting: VecDeque<u8>,
    pub(crate) received: Vec<u8>,
    /// All that it has written.
    pub(crate) said: Vec<u8>,
    pub(crate) is_at_eof: bool,
    eof_follows: bool,
    was_cut_off: bool,
    /// What it noticed since last asked.
    pub(crate) notes: Vec<String>,
    /// The pipes that it is offered.
    pub(super) pipes: Option<Pipes>,
    /// It knows what they are.
    pub(crate) knows_pipes: bool,
    has_got_by_pipe: bool,
}

impl Mlet {
    /// The session has told it the end, which it may not have read yet.
    pub(crate) fn is_to_read_the_end(&self) -> bool {
        let goes_on = |pipes: &Pipes| !pipes.to_mlet.borrow().has_no_writer;
        self.eof_follows && !self.known_pipes().is_some_and(goes_on)
    }

    /// The session has closed its socket, or its pipe, with bytes of it unread.
    pub(crate) fn was_cut_off(&self) -> bool {
        let pipe = self.pipes.as_ref();
        self.was_cut_off || pipe.is_some_and(|pipes| pipes.from_mlet.borrow().was_cut_off)
    }

    /// Closes its ends of its pipes.
    pub(crate) fn close_pipes(&self) {
        self.pipes.iter().for_each(Pipes::close);
    }

    fn known_pipes(&self) -> Option<&Pipes> {
        self.pipes.as_ref().filter(|_| self.knows_pipes)
    }

    pub(crate) fn new() -> Self {
        Self {
            sent: VecDeque::new(),
            has_ended: false,
            has_closed_input: false,
            reads: true,
            exits_at_eof: true,
            waiting: VecDeque::new(),
            received: Vec::new(),
            said: Vec::new(),
            is_at_eof: false,
            eof_follows: false,
            was_cut_off: false,
            notes: Vec::new(),
            pipes: None,
            knows_pipes: false,
            has_got_by_pipe: false,
        }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        match self.known_pipes() {
            Some(pipes) => pipes.from_mlet.borrow_mut().bytes.extend(bytes),
            None => self.sent.extend(bytes),
        }
        self.said.extend_from_slice(bytes);
    }

    /// Closes its socket and its pipes: what it wrote can still be read.
    pub(crate) fn exit(&mut self) {
        self.close_pipes();
        self.has_ended = true;
        self.has_closed_input = true;
    }

    /// How many bytes its socket takes now; an error when it takes none ever again.
    pub(crate) fn room(&self) -> Result<usize, ErrorKind> {
        match self {
            Self { has_closed_input: true, .. } | Self { eof_follows: true, .. } => {
                Err(ErrorKind::BrokenPipe)
            }
            Self { reads: true, .. } => Ok(usize::MAX),
            // As the kernel, it tells of room only when there is a lot.
            _ if self.waiting.len() > SOCKET_LEN / 2 => Ok(0),
            _ => Ok(SOCKET_LEN - self.waiting.len()),
        }
    }

    /// How many bytes have arrived, and how many of those it has taken.
    pub(crate) fn progress(&self) -> (usize, usize) {
        let piped_len = self.pipes.as_ref().map_or(0, |pipes| pipes.to_mlet.borrow().bytes.len());
        (self.received.len() + self.waiting.len() + piped_len, self.received.len())
    }

    /// Takes what is in its socket, though it may have closed it since.
    pub(crate) fn take_all(&mut self) {
        let waiting_len = self.waiting.len();
        move_front(&mut self.waiting, waiting_len, &mut self.received);
        if let Some(pipes) = &self.pipes {
            let to_mlet = &mut *pipes.to_mlet.borrow_mut();
            assert!(
                to_mlet.bytes.is_empty() || self.eof_follows && self.knows_pipes,
                "out of order"
            );
            self.has_got_by_pipe |= !to_mlet.bytes.is_empty();
            let piped_len = to_mlet.bytes.len();
            move_front(&mut to_mlet.bytes, piped_len, &mut self.received);
        }
    }

    /// Something came over its pipe.
    pub(crate) fn has_got_by_pipe(&self) -> bool {
        self.has_got_by_pipe
    }

    /// Takes a little, though it does not read all the time.
    pub(crate) fn taste(&mut self, len: usize) {
        let of_socket = len.min(self.waiting.len());
        move_front(&mut self.waiting, of_socket, &mut self.received);
        if let Some(pipes) = &self.pipes {
            let bytes = &mut pipes.to_mlet.borrow_mut().bytes;
            let of_pipe = (len - of_socket).min(bytes.len());
            move_front(bytes, of_pipe, &mut self.received);
        }
    }

    pub(crate) fn arrive(&mut self, bytes: &[u8]) {
        self.waiting.extend(bytes);
    }

    pub(crate) fn arrive_eof(&mut self) {
        assert!(!self.eof_follows, "its input ends once");
        self.eof_follows = true;
        self.notes.push("mlet's input ended".into());
    }

    pub(crate) fn take(&mut self) {
        if !self.reads || self.has_closed_input {
            return;
        }
        self.take_all();
        if self.is_to_read_the_end() && !self.is_at_eof {
            self.is_at_eof = true;
            if self.exits_at_eof {
                self.exit();
            }
        }
    }
}

/// Moves so many bytes in two pieces at most: a program that is not optimised takes long for each one alone.
fn move_front(from: &mut VecDeque<u8>, len: usize, to: &mut impl for<'a> Extend<&'a u8>) {
    let rest = from.split_off(len);
    let front = std::mem::replace(from, rest);
    let (first, second) = front.as_slices();
    to.extend(first);
    to.extend(second);
}
