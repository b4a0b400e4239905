//! A program on a pseudo-terminal. To give it one as controlling terminal without unsafe code, a test
//! program starts itself again, and that child calls [`take_terminal`] before it executes the program.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::pty::openpty;
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::{setsid, ttyname};

use super::PATIENCE;

/// Leaves the session of the test run and opens the named terminal, which thereby becomes the
/// controlling one; without a name there is none then.
pub fn take_terminal(name: &str) -> Option<File> {
    setsid().unwrap();
    (!name.is_empty()).then(|| File::options().read(true).write(true).open(name).unwrap())
}

/// A program on a pseudo-terminal.
pub struct Terminal {
    pub child: Child,
    keyboard: File,
    /// Kept open so that the terminal's settings outlive the program.
    line: OwnedFd,
    shown: mpsc::Receiver<Vec<u8>>,
    pending: Vec<u8>,
}

impl Terminal {
    /// Starts the command, which is made for the terminal of this name.
    pub fn start(command: impl FnOnce(&str) -> Command) -> Self {
        let pty = openpty(None, None).unwrap();
        for fd in [&pty.master, &pty.slave] {
            fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
        }
        let name = ttyname(&pty.slave).unwrap();
        let mut command = command(name.to_str().unwrap());
        let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let keyboard = File::from(pty.master);
        let mut screen = keyboard.try_clone().unwrap();
        let (sender, shown) = mpsc::channel();
        thread::spawn(move || {
            let mut bytes = [0; 256];
            while let Ok(len @ 1..) = screen.read(&mut bytes) {
                if sender.send(bytes[..len].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self { child, keyboard, line: pty.slave, shown, pending: Vec::new() }
    }

    /// What the terminal shows up to and with this text.
    pub fn read_until(&mut self, end: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        while !String::from_utf8_lossy(&self.pending).ends_with(end) {
            let left = deadline.saturating_duration_since(Instant::now());
            let bytes = self.shown.recv_timeout(left).unwrap_or_else(|_| {
                panic!("{end:?} is not shown, only {:?}", String::from_utf8_lossy(&self.pending))
            });
            self.pending.extend(bytes);
        }
        String::from_utf8(std::mem::take(&mut self.pending)).unwrap()
    }

    /// What the terminal shows after the program ended. A mark behind it tells when that is all.
    pub fn read_rest(&mut self) -> String {
        File::from(self.line.try_clone().unwrap()).write_all(b"<end>").unwrap();
        self.read_until("<end>").trim_end_matches("<end>").to_owned()
    }

    pub fn type_in(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    pub fn echoes(&self) -> bool {
        tcgetattr(&self.line).unwrap().local_flags.contains(LocalFlags::ECHO)
    }

    /// Waits for the end: whether it loaded, its exit code and what it said on stderr.
    pub fn end(&mut self) -> (bool, Option<i32>, String) {
        super::watch(&mut self.child)
    }
}
