//! `mlet-single MLET [ARGUMENT..]`: runs another mlet for every endpoint, in singleton mode
//! (`pktxpmgr -s`): that one gets the session on fd 0 and the address in `EPADDR`, as if `pktxpmgr` had
//! started it; with `--single-facts` also the variables for session, key and snikey.
//!
//! A session that is lost, or whose mlet cannot be started or fails, is told on standard error and the
//! others go on. The exit code is 0 if none of them failed. Of its arguments the other mlet judges those that are its own.

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use mlet::arguments::{self, CommandLine};
use mlet::{Endpoint, Sessions, SingletonError};
use nix::errno::Errno;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, posix_spawn};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{AccessFlags, Pid, access};

const USAGE: &str = "mlet-single MLET [ARGUMENT..]";

/// What runs, and what has become of the rest.
#[derive(Default)]
struct Mlets {
    /// Whose they are.
    running: HashMap<Pid, Endpoint>,
    failed: usize,
}

fn main() -> ExitCode {
    let CommandLine { is_check, words } = CommandLine::of_process();
    // A C string each: no argument holds a NUL.
    let words = words.into_iter().map(|word| CString::new(word.into_vec()));
    let words: Vec<CString> = words.collect::<Result<_, _>>().unwrap_or_default();
    let first = words.first().and_then(|word| word.to_str().ok());
    if let Some(told) = mlet::tell_about_itself(USAGE, "-s ", first) {
        return told;
    }
    let Some(mlet) = words.first() else {
        let usage = format!("usage: pktxpmgr -s [OPTIONS] {USAGE}");
        mlet::complain(&format!("mlet-single: the mlet is missing; {usage}"));
        return mlet::USAGE_ERROR.into();
    };
    if is_check {
        return judged(mlet, &words);
    }
    let mut mlets = Mlets::default();
    // Before an endpoint comes, which may be much later.
    if let Err(errno) = access(mlet.as_c_str(), AccessFlags::X_OK) {
        mlets.failure(&cannot_run(mlet, errno));
    } else if let Err(error) = mlets.serve(&words) {
        mlets.failure(&error.to_string());
    }
    mlets.reap(WaitPidFlag::empty());
    if mlets.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Lets the mlet judge its own arguments, in place of this process.
fn judged(mlet: &CStr, words: &[CString]) -> ExitCode {
    let word = |word: &CStr| OsStr::from_bytes(word.to_bytes()).to_owned();
    let own = words.iter().skip(1).map(|own| word(own));
    let error = Command::new(word(mlet)).arg(arguments::CHECK_ARGS).args(own).exec();
    let errno = error.raw_os_error().map_or(Errno::EINVAL, Errno::from_raw);
    mlet::complain(&format!("mlet-single: {}", cannot_run(mlet, errno)));
    ExitCode::FAILURE
}

impl Mlets {
    /// Starts a mlet for every session, until there are no more.
    fn serve(&mut self, words: &[CString]) -> Result<(), SingletonError> {
        let mut sessions = Sessions::on_stdin()?;
        loop {
            match sessions.next() {
                Ok(Some((session, endpoint))) => match spawn(words, &session, &endpoint) {
                    Ok(mlet) => drop(self.running.insert(mlet, endpoint)),
                    // The session closes, and with it the experiment at this endpoint.
                    Err(errno) => {
                        let why =
                            words.first().map_or_else(String::new, |mlet| cannot_run(mlet, errno));
                        self.failure(&format!("endpoint {endpoint}: {why}"));
                    }
                },
                Ok(None) => return Ok(()),
                // There may be room for the next one.
                Err(error @ SingletonError::TooManyFiles) => self.failure(&error.to_string()),
                Err(error) => return Err(error),
            }
            self.reap(WaitPidFlag::WNOHANG);
        }
    }

    /// Takes in those that have ended; with no flag, waits for all.
    fn reap(&mut self, flag: WaitPidFlag) {
        loop {
            let (mlet, end) = match waitpid(None, Some(flag)) {
                Ok(WaitStatus::Exited(mlet, 0)) => (mlet, None),
                Ok(WaitStatus::Exited(mlet, code)) => (mlet, Some(format!("exit code {code}"))),
                Ok(WaitStatus::Signaled(mlet, signal, _)) => (mlet, Some(signal.to_string())),
                Err(Errno::EINTR) => continue,
                // The others still run, or none is left.
                Ok(_) | Err(_) => return,
            };
            let endpoint = self.running.remove(&mlet).unwrap_or_default();
            match end {
                None => {}
                Some(end) => self.failure(&format!("endpoint {endpoint}: the mlet ended: {end}")),
            }
        }
    }

    fn failure(&mut self, what: &str) {
        mlet::complain(&format!("mlet-single: {what}"));
        self.failed += 1;
    }
}

/// What keeps a mlet from running, and what to do.
fn cannot_run(mlet: &CStr, errno: Errno) -> String {
    let is_there = access(mlet, AccessFlags::F_OK).is_ok();
    let why = match errno {
        Errno::ENOENT if is_there => "the interpreter that its #! line names is not there",
        Errno::ENOEXEC => {
            "it is no program and has no #! line; begin it with one, such as #!/bin/sh"
        }
        Errno::EACCES if is_there => "it is not executable (chmod +x)",
        other => other.desc(),
    };
    format!("cannot run the mlet {}: {why}", mlet.to_string_lossy())
}

/// Unlike the standard library's way of starting programs this one leaves SIGPIPE ignored, on which mlets
/// rely.
fn spawn(words: &[CString], session: &UnixStream, endpoint: &Endpoint) -> Result<Pid, Errno> {
    let [mlet, arguments @ ..] = words else { return Err(Errno::ENOENT) };
    let name = mlet.as_bytes().rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let name = CString::new(name).map_err(|_| Errno::EINVAL)?;
    let arguments: Vec<_> = std::iter::once(&name).chain(arguments).collect();
    let variables = endpoint.environment().map(|(name, value)| format!("{name}={value}"));
    let environment: Result<Vec<_>, _> = variables.map(CString::new).collect();
    let environment = environment.map_err(|_| Errno::EINVAL)?;
    let mut actions = PosixSpawnFileActions::init()?;
    actions.add_dup2(session.as_raw_fd(), 0)?;
    let attributes = PosixSpawnAttr::init()?;
    posix_spawn(mlet.as_c_str(), &actions, &attributes, &arguments, &environment)
}
