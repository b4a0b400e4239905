//! `mlet-load ROLE [SIZE [CORE [PATH]]]`: the other side of `pktfleet load`. Bytes on fd 0, nothing more; on
//! the connections to a unix socket at PATH, when there is one.
//!
//! Roles: `exit` at once, `echo` what comes, `sink` it, be the `source` of messages of SIZE bytes, or
//! `echo-all` sessions of a singleton. CORE is the core to run on, or `any`.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::ExitCode;
use std::thread;

use engine::sys::{cpu, limits};
use mlet::Sessions;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const USAGE: &str = "mlet-load ROLE [SIZE [CORE [PATH]]]";

/// Bytes read or written at once.
const CHUNK_LEN: usize = 64 * 1024;

/// Bytes read at once of each of many sessions.
const SHARED_CHUNK_LEN: usize = 4 * 1024;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let role = arguments.next().unwrap_or_default();
    if let Some(told) = mlet::tell_about_itself(USAGE, "", Some(&role)) {
        return told;
    }
    let size = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(60);
    let core = arguments.next().and_then(|text| text.parse().ok());
    if let Err(error) = core.map_or(Ok(()), cpu::pin_this_thread) {
        let _ = writeln!(io::stderr(), "mlet-load: it cannot run on this core: {error}");
        return ExitCode::FAILURE;
    }
    let ran = match (arguments.next(), role.as_str()) {
        (Some(path), _) => listen(&path, &role, size),
        (None, "echo-all") => echo_all(),
        (None, "exit") => Ok(()),
        // The session ends when the endpoint wants it; that is no failure of ours.
        (None, "echo" | "sink" | "source") => {
            let session = io::stdin().as_fd().try_clone_to_owned();
            session.map(|session| drop(serve(UnixStream::from(session), &role, size)))
        }
        _ => Err(io::Error::other(format!("usage: {USAGE}"))),
    };
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "mlet-load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(mut session: UnixStream, role: &str, size: u32) -> io::Result<()> {
    let mut bytes = vec![0; CHUNK_LEN];
    if role == "source" {
        let mut message = vec![0x90];
        message.extend_from_slice(&size.to_be_bytes()[1..]);
        message.resize(message.len() + size as usize, 0xa5);
        let batch = message.repeat((CHUNK_LEN / message.len()).max(1));
        loop {
            session.write_all(&batch)?;
        }
    }
    loop {
        let len = session.read(&mut bytes)?;
        if len == 0 {
            return Ok(());
        }
        if role == "echo" {
            session.write_all(&bytes[..len])?;
        }
    }
}

/// Serves whoever connects, until killed.
fn listen(path: &str, role: &str, size: u32) -> io::Result<()> {
    for session in UnixListener::bind(path)?.incoming() {
        let (session, role) = (session?, role.to_owned());
        thread::spawn(move || serve(session, &role, size));
    }
    Ok(())
}

/// Echoes on every session that the manager hands over, until it has no more.
fn echo_all() -> io::Result<()> {
    limits::raise_open_files()?;
    let mut sessions = Sessions::on_stdin().map_err(io::Error::other)?;
    // Its thread inherits the core.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    while let Some((session, _)) = sessions.next().map_err(io::Error::other)? {
        session.set_nonblocking(true)?;
        runtime.spawn(async move {
            let mut session = tokio::net::UnixStream::from_std(session)?;
            let mut bytes = vec![0; SHARED_CHUNK_LEN];
            loop {
                match session.read(&mut bytes).await? {
                    0 => return Ok::<_, io::Error>(()),
                    len => session.write_all(&bytes[..len]).await?,
                }
            }
        });
    }
    Ok(())
}
