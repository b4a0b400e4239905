//! Pipes that are put aside while standard output takes nothing, so that only mlets which print wait for it.
//!
//! Not here: what waits to be taken (`tagged_stdout.rs`). Invariant: a pipe that is aside is not watched, and is watched again
//! as soon as nothing waits.

use nix::sys::epoll::{EpollEvent, EpollFlags};

use super::{Process, token};
use crate::sys::recorder::capture::Which;
use crate::sys::socket::waiting_len;

impl Process {
    /// What the pipe brings, or its end, has to wait until standard output has taken what waits: there would be another
    /// line, or its mlet's output would be told to be closed before its lines are out.
    pub(super) fn must_wait(&mut self, number: u64, which: Which) -> bool {
        if !self.is_stdout_pending() {
            return false;
        }
        let Some(captured) = self.captured.get_mut(&number) else { return false };
        let pipe = captured.pipe(which);
        let brings_line = which == Which::Stdout
            && (pipe.lines.held() > 0
                || pipe.read_end.as_ref().is_some_and(|pipe| waiting_len(pipe) > 0));
        brings_line || self.awaiting_stdout.contains(&number)
    }

    /// Watches the pipes again that were put aside.
    pub(super) fn take_back(&mut self) {
        self.awaiting_stdout.clear();
        for (number, which) in std::mem::take(&mut self.aside) {
            let Some(captured) = self.captured.get_mut(&number) else { continue };
            let Some(read_end) = &captured.pipe(which).read_end else { continue };
            let event = EpollEvent::new(EpollFlags::EPOLLIN, token(number, which));
            if let Err(errno) = self.epoll.add(read_end, event) {
                captured.lose(&errno.into());
                self.close(number, which);
            }
        }
    }

    pub(super) fn put_aside(&mut self, number: u64, which: Which) {
        let Some(captured) = self.captured.get_mut(&number) else { return };
        if let Some(read_end) = &captured.pipe(which).read_end
            && self.epoll.delete(read_end).is_ok()
        {
            self.aside.push((number, which));
        }
    }
}
