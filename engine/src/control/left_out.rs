//! Warnings that a peer may cause as often as it likes, and what is told of those that are left out.
//!
//! Not here: how many are written (`log_limit.rs`). Invariant: the number of every one that was left out is told by the
//! end of the run.

use std::io;
use std::net::IpAddr;
use std::time::Instant;

use nix::libc::{EMFILE, ENFILE, ENOBUFS, ENOMEM};
use tracing::warn;

use super::Control;
use super::clock::now;
use super::proxies::Proxies;
use crate::log_limit::LogLimit;
use crate::records::SessionId;

impl Control {
    pub(super) fn note_accept_pause(&mut self, error: &io::Error) {
        let lack = lack_of(error);
        self.view.change(|state| *state.accept_pauses.entry(lack).or_default() += 1);
        if let Some(left_out) = self.accept_pauses.admit(now()) {
            warn!(
                "accepting pauses: {error}; raise `ulimit -n` if endpoints wait too long{left_out}"
            );
        }
    }

    pub(super) fn log_refusal(&mut self, source: IpAddr) {
        if let Some(left_out) = self.refusals.admit(now()) {
            warn!("refused {source}: too many of it are in set-up (--per-source-max){left_out}");
        }
    }

    pub(super) fn log_no_pipes(&mut self, id: SessionId, error: &io::Error) {
        if let Some(left_out) = self.without_pipes.admit(now()) {
            warn!(
                session = id,
                "the mlet gets no pipes, only its socket: {error}; raise fs.pipe-user-pages-soft \
                 or `ulimit -n`{left_out}"
            );
        }
    }

    fn log_limits(&mut self) -> impl Iterator<Item = &mut LogLimit> {
        let own = [&mut self.accept_pauses, &mut self.refusals, &mut self.without_pipes];
        let others = self.sessions.log_limits();
        let of_proxies = self.proxies.iter_mut().flat_map(Proxies::log_limits);
        own.into_iter().chain(others).chain(of_proxies)
    }

    /// When [`Self::tend_log`] is due.
    pub(super) fn log_due(&mut self) -> Option<Instant> {
        self.log_limits().filter_map(|limit| limit.due()).min()
    }

    /// Tells what has been left out and is not to be told by a warning that follows.
    pub(super) fn tend_log(&mut self) {
        let now = now();
        for limit in self.log_limits() {
            limit.tell_when_quiet(now);
        }
    }

    /// Tells all that has been left out.
    pub(super) fn tell_left_out(&mut self) {
        for limit in self.log_limits() {
            limit.tell();
        }
    }
}

/// What was lacking where accepting failed, as a name.
fn lack_of(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(EMFILE) => "files_of_process",
        Some(ENFILE) => "files_of_system",
        Some(ENOBUFS | ENOMEM) => "memory",
        _ => "other",
    }
}
