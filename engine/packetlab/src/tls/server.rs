//! The controller's side of a connection with an endpoint: a handshake by rustls, records by ourselves.
//!
//! ```text
//! Handshake --Finished, secrets taken over--> Records
//!     +------- they cannot be taken over ---> Lost
//! ```
//!
//! Not here: rules of records (`record/README.md`). Invariants: rustls is given no byte behind the record that completes
//! its handshake, and has sealed none with the keys that are taken over, which it confirms; records leave in the order in
//! which they were sealed; every piece becomes records of its own (spec/protocol.md 1.6).

use rustls::{Error, ServerConnection};

use super::alert;
use super::failure::error_of;
use super::framing::Framing;
use super::secrets::{Secrets, told_during};
use super::stream::{Plaintext, TlsStream};
use super::verify::Peer;
use crate::key::KeyId;
use crate::record::{
    self, CONTENT_LEN_MAX, Next, Records, SEALED_OVERHEAD_MAX, Suite, TrafficSecret,
};
use crate::time::Ticks;

/// How many sealed bytes may wait before [`ServerStream::write_piece`] takes no more.
const OUTPUT_LEN_MAX: usize = 64 * 1024;

/// The controller's side of one connection with an endpoint.
pub struct ServerStream {
    state: State,
    /// Sealed bytes that wait to be sent. What is sealed with [`Self::seal`] is never among them.
    output: Vec<u8>,
    /// Opened bytes that wait to be read. What comes with [`Self::open`] is never among them.
    unread: Vec<u8>,
    /// Boxed, because it is soon taken.
    peer: Option<Box<Peer>>,
}

enum State {
    Handshake(Box<Handshake>),
    Records(Box<Records>),
    Lost,
}

struct Handshake {
    stream: TlsStream<ServerConnection>,
    framing: Framing,
    secrets: Secrets,
}

/// What a call of [`ServerStream::open`] has done.
#[derive(Debug)]
pub struct Opened {
    /// So many bytes of data are at the front of the room that was given; they are authentic, whatever came next.
    pub len: usize,
    /// What ended the call.
    pub next: Result<Next, Error>,
}

impl ServerStream {
    /// A connection whose ClientHello has been answered; `secrets` are those told meanwhile.
    pub(super) fn new(connection: ServerConnection, secrets: Secrets) -> Self {
        let (stream, framing) = (TlsStream::new(connection), Framing::default());
        let state = State::Handshake(Box::new(Handshake { stream, framing, secrets }));
        Self { state, output: Vec::new(), unread: Vec::new(), peer: None }
    }

    /// Feeds one step's worth of bytes, advancing `input`, and processes them; the peer's certificates, if they are among
    /// them, are judged at the time `now`. For the set-up: what is opened is kept for [`Self::read`].
    ///
    /// Call again with what is left after draining [`Self::read`]. Bytes behind a close_notify are
    /// skipped.
    ///
    /// # Errors
    /// The peer broke the protocol; what [`Self::write_output`] gives next is the alert for it.
    pub fn receive(&mut self, input: &mut &[u8], now: Ticks) -> Result<(), Error> {
        match &mut self.state {
            State::Handshake(handshake) => match handshake.receive(input, now) {
                Ok(false) => Ok(()),
                Ok(true) => self.take_over(),
                Err(error) => {
                    handshake.take_last_output(&error, &mut self.output);
                    Err(error)
                }
            },
            State::Records(records) => {
                let unread_len = self.unread.len();
                self.unread.resize(unread_len + records.carried_len() + input.len(), 0);
                let opened = records.open(input, &mut self.unread[unread_len..]);
                self.unread.truncate(unread_len + opened.len);
                opened.next.map(drop).map_err(error_of)
            }
            State::Lost => Err(lost()),
        }
    }

    /// Leaves rustls, whose handshake is over.
    fn take_over(&mut self) -> Result<(), Error> {
        let State::Handshake(handshake) = std::mem::replace(&mut self.state, State::Lost) else {
            return Ok(());
        };
        let Handshake { mut stream, framing, secrets } = *handshake;
        stream.take_output(&mut self.output);
        self.peer = stream.take_peer().map(Box::new);
        let records = records_of(stream, &secrets).filter(|_| framing.is_between_records());
        self.state = State::Records(Box::new(records.ok_or_else(lost)?));
        Ok(())
    }

    /// The handshake is not over.
    pub fn is_handshaking(&self) -> bool {
        !matches!(self.state, State::Records(_))
    }

    /// Takes bytes that [`Self::receive`] has opened.
    pub fn read(&mut self, into: &mut [u8]) -> Plaintext {
        match (take_front(&mut self.unread, into), &self.state) {
            (0, State::Records(records)) if !into.is_empty() && records.is_closed_by_peer() => {
                Plaintext::Closed
            }
            (0, _) => Plaintext::Empty,
            (len, _) => Plaintext::Bytes(len),
        }
    }

    /// Gives what is left of [`Self::read`], then opens records from `input`, advancing it, straight into `into`; see
    /// [`Records::open`].
    pub fn open(&mut self, input: &mut &[u8], into: &mut [u8]) -> Opened {
        let read_len = take_front(&mut self.unread, into);
        if !self.unread.is_empty() {
            return Opened { len: read_len, next: Ok(Next::Room) };
        }
        match &mut self.state {
            State::Records(records) => {
                let record::Opened { len, next } = records.open(input, &mut into[read_len..]);
                Opened { len: read_len + len, next: next.map_err(error_of) }
            }
            State::Handshake(_) | State::Lost => {
                Opened { len: read_len, next: Err(Error::HandshakeNotComplete) }
            }
        }
    }

    /// Seals `piece` into records of its own; returns how many bytes were taken, fewer than given when
    /// the sealed bytes wait to be sent, and none before the handshake is over or once our side is closed.
    pub fn write_piece(&mut self, piece: &[u8]) -> usize {
        let State::Records(records) = &mut self.state else { return 0 };
        let mut taken_len = 0;
        for part in piece.chunks(CONTENT_LEN_MAX) {
            if self.output.len() >= OUTPUT_LEN_MAX || records.is_closed() {
                break;
            }
            let start = self.output.len();
            self.output.resize(start + part.len() + SEALED_OVERHEAD_MAX, 0);
            let sealed_len = records.seal(part, &mut self.output[start..]);
            self.output.truncate(start + sealed_len);
            taken_len += part.len();
        }
        taken_len
    }

    /// Seals `piece` straight into `into`, while nothing else waits to be sent; see [`Records::seal`].
    pub fn seal(&mut self, piece: &[u8], into: &mut [u8]) -> usize {
        let State::Records(records) = &mut self.state else { return 0 };
        debug_assert!(
            self.output.is_empty(),
            "records leave in the order in which they were sealed"
        );
        records.seal(piece, into)
    }

    /// Sealed bytes wait to be sent.
    pub fn has_output(&self) -> bool {
        let more = match &self.state {
            State::Handshake(handshake) => handshake.stream.has_output(),
            State::Records(records) => records.has_due(),
            State::Lost => false,
        };
        more || !self.output.is_empty()
    }

    /// Takes sealed bytes to be sent; returns how many.
    pub fn write_output(&mut self, into: &mut [u8]) -> usize {
        let len = take_front(&mut self.output, into);
        // There is room only once all that was sealed before is taken.
        let room = &mut into[len..];
        let more_len = match &mut self.state {
            State::Handshake(handshake) => handshake.stream.write_output(room),
            State::Records(records) => records.write_due(room),
            State::Lost => 0,
        };
        len + more_len
    }

    /// Announces the end of what we send, unless TLS has failed: then the connection ends with the alert that says why,
    /// and not as if all were well (RFC 8446 6.2). Nothing may be written afterwards.
    pub fn close(&mut self) {
        match &mut self.state {
            State::Handshake(handshake) => handshake.stream.close(),
            State::Records(records) => records.close(),
            State::Lost => {}
        }
    }

    /// Our side has ended: [`Self::close`] was called, or TLS has failed.
    pub fn is_closed(&self) -> bool {
        match &self.state {
            State::Handshake(handshake) => handshake.stream.is_closed(),
            State::Records(records) => records.is_closed(),
            State::Lost => true,
        }
    }

    /// Who the peer is; `None` when it presented no certificate, and until the handshake is over, when it has proven
    /// that it holds the key of its first. Told once, so that whoever wants it keeps it and not the connection.
    pub fn take_peer(&mut self) -> Option<Peer> {
        self.peer.take().map(|peer| *peer)
    }

    /// Key id of the first certificate that the peer has shown, while it has not proven that it holds the key, or if its
    /// certificates were refused: anybody can show another's. `None` if it has shown none, or none that can be read.
    pub fn unproven_key(&self) -> Option<KeyId> {
        match &self.state {
            State::Handshake(handshake) => handshake.stream.unproven_key(),
            State::Records(_) | State::Lost => None,
        }
    }

    /// How many bytes of memory are kept for bytes that wait.
    #[cfg(test)]
    pub(super) fn kept_len(&self) -> usize {
        self.output.capacity() + self.unread.capacity()
    }

    /// The records, for tests that lower their limits.
    #[cfg(test)]
    pub(super) fn records_mut(&mut self) -> Option<&mut Records> {
        match &mut self.state {
            State::Records(records) => Some(records),
            State::Handshake(_) | State::Lost => None,
        }
    }
}

impl Handshake {
    /// Gives rustls at most one record, advancing `input`. True when the handshake is over.
    fn receive(&mut self, input: &mut &[u8], now: Ticks) -> Result<bool, Error> {
        let stream = &mut self.stream;
        let mut of_record = self
            .framing
            .take_of_record(input, stream.is_sealed())
            .inspect_err(|error| stream.fail(error))?;
        told_during(&mut self.secrets, || {
            while !of_record.is_empty() {
                stream.receive(&mut of_record, now)?;
            }
            Ok(!stream.is_handshaking())
        })
    }

    /// Appends what is still to be sent behind `error`. Whatever rustls does not answer by itself it can end with close_notify
    /// alone, which becomes the alert as it is sealed; where nothing is sealed yet, it does here.
    fn take_last_output(&mut self, error: &Error, output: &mut Vec<u8>) {
        self.stream.take_output(output);
        if let Some(alert) = alert::answer(error)
            && let Some(before) = output.strip_suffix(&alert::CLEAR_CLOSE_NOTIFY)
        {
            output.truncate(before.len());
            output.extend(alert::in_the_clear(alert));
        }
    }
}

/// Records that go on where rustls ends: it has neither sealed nor opened one with the keys of these secrets, or there would
/// be two with one nonce. `None` if it has, or has not told all.
fn records_of(stream: TlsStream<ServerConnection>, secrets: &Secrets) -> Option<Records> {
    let connection = stream.into_connection();
    let suite = Suite::from_number(connection.negotiated_cipher_suite()?.suite().into())?;
    let of_rustls = connection.dangerous_extract_secrets().ok()?;
    let is_unused = (of_rustls.tx.0, of_rustls.rx.0) == (0, 0);
    let ours = TrafficSecret::new(suite, &secrets.ours)?;
    let theirs = TrafficSecret::new(suite, &secrets.theirs)?;
    is_unused.then(|| Records::new(ours, theirs))
}

fn lost() -> Error {
    Error::General("the keys of the connection cannot be taken over from rustls".into())
}

/// Moves bytes from the front of `waiting`, which keeps no memory once it is empty; returns how many.
fn take_front(waiting: &mut Vec<u8>, into: &mut [u8]) -> usize {
    let len = waiting.len().min(into.len());
    into[..len].copy_from_slice(&waiting[..len]);
    if len == waiting.len() {
        *waiting = Vec::new();
    } else {
        waiting.drain(..len);
    }
    len
}
