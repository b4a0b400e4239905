//! The socket of a run: who may connect, and how long that may take.
//!
//! Each connection has a thread, which waits for whoever is slow. Invariant: whoever connects costs the run nothing but an
//! order at a time, so many a second; there are few connections, each of them ends when nothing has come for a while, and a
//! line has a length.

use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use engine::sys::lack::Lack;
use guards::{Guard, holds};
use packetlab::escape::Escaped;

use super::answer::Answering;
use crate::exit::{Exit, Failure};
use crate::private_socket::{self, SocketFile};

/// Connections at once; each is a descriptor that no session gets.
pub(crate) const CONNECTIONS_MAX: usize = 8;

/// How long a whole request may take to come, and an answer to be taken.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest request.
const LINE_LEN_MAX: usize = 4096;

/// A pause before the next request of a connection: what many of them cost stays small.
const PAUSE: Duration = Duration::from_millis(20);

/// The same before the next connection, so that all together ask no oftener, however short they are.
const PAUSE_OF_ALL: Duration =
    Duration::from_micros(PAUSE.as_micros() as u64 / CONNECTIONS_MAX as u64);

/// The socket is there, and nobody is answered yet.
pub(crate) struct CtlSocket {
    listener: UnixListener,
    file: SocketFile,
}

impl CtlSocket {
    /// Makes it, for its owner alone. One that a program has left behind that is gone makes way.
    ///
    /// # Errors
    /// It cannot be had.
    pub(crate) fn bind(path: &Path) -> Result<Self, Failure> {
        let (listener, file) = private_socket::listen(path).map_err(|error| {
            if Lack::is_why(&error) {
                return Lack::new("listen for --ctl (socket, fchmod, bind, listen)", error).into();
            }
            let shown = Escaped(path.as_os_str().as_bytes());
            let advice = match error.kind() {
                io::ErrorKind::AddrInUse => "another run, or a file, has this name; choose another",
                _ => "choose a path in a folder of yours",
            };
            Failure::new(Exit::Listen, format!("cannot listen on --ctl {shown}: {error}; {advice}"))
        })?;
        Ok(Self { listener, file })
    }

    /// Answers from now on, by threads that live as long as the process. The socket is there for others to find as long as
    /// its file is kept.
    ///
    /// # Errors
    /// No thread can be had.
    pub(crate) fn answer(self, answering: Answering) -> io::Result<SocketFile> {
        let Self { listener, file } = self;
        let answering = Arc::new(answering);
        thread::Builder::new()
            .name("ctl".into())
            .spawn(move || accept_all(&listener, &answering))?;
        Ok(file)
    }
}

fn accept_all(listener: &UnixListener, answering: &Arc<Answering>) {
    let place = Arc::new(());
    loop {
        let Ok((stream, _)) = listener.accept() else {
            thread::sleep(PAUSE);
            continue;
        };
        if Arc::strong_count(&place) > CONNECTIONS_MAX && holds(Guard::BoundsClients) {
            // It is told so if it can be told at once.
            let _ = stream.set_nonblocking(true);
            let _ = (&stream)
                .write_all(b"{\"done\":false,\"told\":\"too many are connected; try again\"}\n");
            continue;
        }
        let (answering, place) = (Arc::clone(answering), Arc::clone(&place));
        let serve = move || {
            // Whoever breaks off, or is too slow, has lost an answer and nothing else.
            let _ = serve(&stream, &answering);
            drop(place);
        };
        // Without a thread it is closed.
        let _ = thread::Builder::new().name("ctl".into()).spawn(serve);
        thread::sleep(PAUSE_OF_ALL);
    }
}

/// Answers requests until the other side ends.
fn serve(mut stream: &UnixStream, answering: &Answering) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut received = Vec::new();
    let mut next_from = Instant::now();
    loop {
        // Who has gone gives back its place at once.
        let Some(line) = next_line(stream, &mut received)? else { return Ok(()) };
        thread::sleep(next_from.saturating_duration_since(Instant::now()));
        let answer = answering.answer(&line);
        let began = Instant::now();
        for chunk in answer.chunks(LINE_LEN_MAX) {
            // All of the answer has one time, however slowly it is taken.
            let left = PATIENCE.checked_sub(began.elapsed()).ok_or(io::ErrorKind::TimedOut)?;
            stream.set_write_timeout(Some(left))?;
            stream.write_all(chunk)?;
        }
        next_from = Instant::now() + PAUSE;
    }
}

/// The next line, without its end; `None` at the end of all.
fn next_line(mut stream: &UnixStream, received: &mut Vec<u8>) -> io::Result<Option<Vec<u8>>> {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(end) = received.iter().position(|byte| *byte == b'\n') {
            let rest = received.split_off(end + 1);
            let mut line = std::mem::replace(received, rest);
            line.pop();
            return Ok(Some(line));
        }
        if received.len() >= LINE_LEN_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let left = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero());
        stream.set_read_timeout(Some(left.ok_or(io::ErrorKind::TimedOut)?))?;
        let mut bytes = [0; LINE_LEN_MAX];
        match stream.read(&mut bytes)? {
            0 => return Ok(None),
            len => received.extend(&bytes[..len]),
        }
    }
}
