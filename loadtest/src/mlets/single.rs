//! `mlet-single MLET [ARGUMENT..]`: runs another mlet for every endpoint, in singleton mode
//! (`pktxpmgr -s`): that one gets the session on fd 0 and the address in `EPADDR`, as if `pktxpmgr` had
//! started it.
//!
//! Only SIGPIPE has its default there and is not ignored, because that is how Rust starts programs; mlets
//! in Rust and Python ignore it themselves.

use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, Stdio};

use mlet::Sessions;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((mlet, arguments)) = arguments.split_first().filter(|(mlet, _)| *mlet != "--help")
    else {
        eprintln!("usage: pktxpmgr -s [OPTIONS] mlet-single MLET [ARGUMENT..]");
        return ExitCode::FAILURE;
    };
    let mut sessions = match Sessions::on_stdin() {
        Ok(sessions) => sessions,
        Err(error) => {
            eprintln!("mlet-single: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut running: Vec<Child> = Vec::new();
    let end = loop {
        let (session, endpoint) = match sessions.next() {
            Ok(Some(session)) => session,
            Ok(None) => break ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("mlet-single: {error}");
                break ExitCode::FAILURE;
            }
        };
        let session = Stdio::from(OwnedFd::from(session));
        let mut command = Command::new(mlet);
        command.arg0(mlet.rsplit('/').next().unwrap_or(mlet)).args(arguments);
        command.env_clear().env("EPADDR", &endpoint).stdin(session);
        match command.spawn() {
            Ok(child) => running.push(child),
            // The session closes, and with it the experiment at this endpoint.
            Err(error) => eprintln!("mlet-single: {mlet} cannot run for {endpoint}: {error}"),
        }
        // Those that have ended are not kept.
        running.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    };
    for mut child in running {
        // Each tells itself what went wrong.
        let _ = child.wait();
    }
    end
}
