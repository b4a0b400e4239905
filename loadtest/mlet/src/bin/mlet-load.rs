//! `mlet-load ROLE [SIZE [CORE [PATH]]]`: the other side of `pktfleet load`. Bytes on fd 0, or on the pipes that are offered
//! beside it, nothing more; on the connections to a unix socket at PATH, when there is one.
//!
//! Roles: `exit` at once, `echo` what comes, `sink` it, be the `source` of messages of SIZE bytes, do what is
//! `asked` by the type of the first message (0x91: sink, 0x92: source, else echo), or `echo-all` sessions of a
//! singleton; `source-each` writes each message by itself, as mlets do, where `source` writes many at once. CORE is the core to run on, or `any`.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::ExitCode;
use std::thread;

use mlet::{MletError, SessionStream, Sessions, arguments};
use nix::errno::Errno;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;
use packetlab::message::PAYLOAD_LEN_MAX;

const USAGE: &str = "mlet-load ROLE [SIZE [CORE [PATH]]]";

const ROLES: [&str; 7] = ["exit", "echo", "sink", "source", "source-each", "asked", "echo-all"];

/// Bytes of a message of the source's, unless it is told otherwise.
const SIZE: u32 = 60;

/// Bytes read or written at once.
const CHUNK_LEN: usize = 64 * 1024;

/// Bytes read at once of each of many sessions.
const SHARED_CHUNK_LEN: usize = 4 * 1024;

/// Types of the first message by which a session asks for something else than an echo.
const ASKED_SINK: u8 = 0x91;
const ASKED_SOURCE: u8 = 0x92;

/// A message that says nothing, for who would else not write, and pipes are used by who does.
const NOTHING: [u8; 4] = [0x90, 0, 0, 0];

/// The manager's descriptor among those that are watched.
const MANAGER: u64 = 0;

/// What is asked for.
struct Arguments {
    role: String,
    size: u32,
    core: Option<usize>,
    path: Option<String>,
}

fn main() -> ExitCode {
    let Arguments { role, size, core, path } = match arguments::judged(USAGE, judged) {
        Ok(arguments) => arguments,
        Err(ended) => return ended,
    };
    if let Err(error) = core.map_or(Ok(()), pin) {
        let _ = writeln!(io::stderr(), "mlet-load: it cannot run on this core: {error}");
        return ExitCode::FAILURE;
    }
    let ran = match (path, role.as_str()) {
        (Some(path), _) => listen(&path, &role, size),
        (None, "echo-all") => echo_all(),
        (None, "exit") => Ok(()),
        // The session ends when the endpoint wants it; that is no failure of ours.
        (None, _) => SessionStream::on_stdin().map(|session| drop(serve(session, &role, size))),
    };
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "mlet-load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn judged(words: &[String]) -> Result<Arguments, MletError> {
    let [role, rest @ ..] = arguments::without_options(words)? else {
        return Err(MletError::Usage);
    };
    if !ROLES.contains(&&**role) || rest.len() > 3 {
        return Err(MletError::Usage);
    }
    let size = rest.first().map_or(Ok(SIZE), |size| arguments::number::<u32>(size))?;
    if size as usize > PAYLOAD_LEN_MAX {
        return Err(MletError::Failed(format!("messages have at most {PAYLOAD_LEN_MAX} bytes")));
    }
    let core = rest.get(1).filter(|core| **core != "any");
    let core = core.map(|core| arguments::number(core)).transpose()?;
    Ok(Arguments { role: role.clone(), size, core, path: rest.get(2).cloned() })
}

/// Lets this process, which has one thread yet, run on this core alone.
fn pin(core: usize) -> Result<(), Errno> {
    let mut cores = CpuSet::new();
    cores.set(core)?;
    sched_setaffinity(Pid::from_raw(0), &cores)
}

fn serve(mut session: SessionStream, role: &str, size: u32) -> io::Result<()> {
    if let Some(how) = role.strip_prefix("source") {
        return be_the_source(session, size, if how == "-each" { 1 } else { CHUNK_LEN });
    }
    let mut bytes = vec![0; CHUNK_LEN];
    let mut is_echo = (role != "asked").then_some(role == "echo");
    let mut is_to_choose = session.has_pipes();
    loop {
        if is_echo == Some(false) && std::mem::take(&mut is_to_choose) {
            session.write_all(&NOTHING)?;
        }
        let len = session.read(&mut bytes)?;
        let came = bytes.get(..len).unwrap_or_default();
        let Some(first) = came.first() else { return Ok(()) };
        if is_echo.is_none() && *first == ASKED_SOURCE {
            return be_the_source(session, size, CHUNK_LEN);
        }
        if *is_echo.get_or_insert(*first != ASKED_SINK) {
            session.write_all(came)?;
        }
    }
}

/// Sends messages until the session ends, so many bytes of them at once, but one at least.
fn be_the_source(mut session: impl Write, size: u32, len: usize) -> io::Result<()> {
    let mut message = vec![0x90];
    message.extend_from_slice(&size.to_be_bytes()[1..]);
    message.resize(message.len() + size as usize, 0xa5);
    let batch = message.repeat((len / message.len()).max(1));
    loop {
        session.write_all(&batch)?;
    }
}

/// Serves whoever connects, until killed.
fn listen(path: &str, role: &str, size: u32) -> io::Result<()> {
    for session in UnixListener::bind(path)?.incoming() {
        let (session, role) = (session?, role.to_owned());
        thread::spawn(move || serve(session.into(), &role, size));
    }
    Ok(())
}

/// Echoes on every session that the manager hands over, until it has no more.
fn echo_all() -> io::Result<()> {
    let (_, files_max) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, files_max, files_max)?;
    let mut sessions = Sessions::on_stdin().map_err(io::Error::other)?;
    let watched = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    watched.add(io::stdin(), EpollEvent::new(EpollFlags::EPOLLIN, MANAGER))?;
    let mut echoes = HashMap::new();
    let mut events = [EpollEvent::empty(); 256];
    let mut chunk = [0; SHARED_CHUNK_LEN];
    loop {
        let count = match watched.wait(&mut events, EpollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            count => count?,
        };
        for event in events.iter().take(count) {
            if event.data() == MANAGER {
                let next = sessions.next().map_err(io::Error::other)?;
                let Some((session, _)) = next else { return Ok(()) };
                session.set_nonblocking(true)?;
                let number = u64::try_from(session.as_raw_fd()).map_err(io::Error::other)?;
                watched.add(&session, EpollEvent::new(EpollFlags::EPOLLIN, number))?;
                echoes.insert(number, Echo { session, rest: Vec::new() });
            } else if let Some(echo) = echoes.get_mut(&event.data()) {
                match echo.go_on(&mut chunk) {
                    Ok(Some(awaited)) => {
                        let mut event = EpollEvent::new(awaited, event.data());
                        watched.modify(&echo.session, &mut event)?;
                    }
                    // It is closed, and watched no more.
                    Ok(None) | Err(_) => drop(echoes.remove(&event.data())),
                }
            }
        }
    }
}

/// A session whose bytes go back.
struct Echo {
    session: UnixStream,
    /// Read and not yet written.
    rest: Vec<u8>,
}

impl Echo {
    /// Writes what is left, or reads and writes once, as far as neither has to be waited for; what is awaited then, or
    /// `None` at the session's end.
    fn go_on(&mut self, chunk: &mut [u8]) -> io::Result<Option<EpollFlags>> {
        if self.rest.is_empty() {
            match self.session.read(chunk) {
                Ok(0) => return Ok(None),
                Ok(len) => self.rest.extend(chunk.iter().take(len)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        while !self.rest.is_empty() {
            match self.session.write(&self.rest) {
                Ok(len) => drop(self.rest.drain(..len)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Some(EpollFlags::EPOLLOUT));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Some(EpollFlags::EPOLLIN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_gets_what_its_first_message_asks_for() {
        for (first, expected) in
            [(0x90, &[0x90, 0, 0, 0, 7][..]), (ASKED_SINK, &[]), (ASKED_SOURCE, &[0x90, 0, 0, 2])]
        {
            let (session, mut peer) = UnixStream::pair().unwrap();
            let served = thread::spawn(move || serve(session.into(), "asked", 2));
            peer.write_all(&[first, 0, 0, 0]).unwrap();
            // Only the first message asks.
            peer.write_all(&[7]).unwrap();
            let mut answer = vec![0; expected.len()];
            peer.read_exact(&mut answer).unwrap();
            assert_eq!(answer, expected);
            peer.shutdown(std::net::Shutdown::Write).unwrap();
            if first != ASKED_SOURCE {
                assert_eq!(peer.read_to_end(&mut answer).unwrap(), 0);
            }
            drop(peer);
            assert_eq!(served.join().unwrap().is_ok(), first != ASKED_SOURCE);
        }
    }

    #[test]
    fn what_finds_no_room_on_its_way_back_is_kept_until_there_is_some() {
        let (session, mut peer) = UnixStream::pair().unwrap();
        session.set_nonblocking(true).unwrap();
        peer.set_nonblocking(true).unwrap();
        let mut echo = Echo { session, rest: Vec::new() };
        let (mut chunk, mut sent, mut received) = ([0; SHARED_CHUNK_LEN], Vec::new(), Vec::new());
        // Until both ways are full.
        while echo.go_on(&mut chunk).unwrap() == Some(EpollFlags::EPOLLIN) {
            let part = [u8::try_from(sent.len() % 251).unwrap(); 1000];
            let len = peer.write(&part).unwrap();
            sent.extend_from_slice(&part[..len]);
        }
        assert!(!echo.rest.is_empty());
        peer.shutdown(std::net::Shutdown::Write).unwrap();
        while let Some(awaited) = echo.go_on(&mut chunk).unwrap() {
            assert!(awaited == EpollFlags::EPOLLIN || received.len() < sent.len());
            let mut part = [0; 3000];
            match peer.read(&mut part) {
                Ok(len) => received.extend_from_slice(&part[..len]),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
        drop(echo);
        peer.read_to_end(&mut received).unwrap();
        assert!(received == sent, "{} of {} bytes came back", received.len(), sent.len());
    }
}
