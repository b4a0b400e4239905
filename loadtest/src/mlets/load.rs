//! `mlet-load ROLE [SIZE]`: the other side of `pktfleet load`. Bytes on fd 0, nothing more.
//!
//! Roles: `exit` at once, `echo` what comes, `sink` it, or be the `source` of messages of SIZE bytes.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

/// Bytes read or written at once.
const CHUNK_LEN: usize = 64 * 1024;

fn main() -> ExitCode {
    let role = std::env::args().nth(1).unwrap_or_default();
    let size = std::env::args().nth(2).and_then(|text| text.parse().ok()).unwrap_or(60);
    match run(&role, size) {
        // The session ends when the endpoint wants it; that is no failure of ours.
        Ok(()) | Err(_) if role != "help" => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn run(role: &str, size: u32) -> io::Result<()> {
    if role == "exit" {
        return Ok(());
    }
    let mut session = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
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
