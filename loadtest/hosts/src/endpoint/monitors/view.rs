//! What one monitor sees of its endpoint, and where it keeps its memory.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use monitors::{Persistent, Surroundings};
use packetlab::escape::Escaped;
use packetlab::key::Hex;
use packetlab::program::ProgramDigest;

use super::super::chain_limits::{Memories, OwnAccount};
use super::super::ledger::CertificateId;
use super::super::sockets::MemoryView;

/// Lines that one monitor may write in a session, and of them in a second.
const DEBUG_LINES_MAX: u32 = 1000;
const DEBUG_LINES_PER_SECOND_MAX: u32 = 100;

/// How many a monitor has written.
#[derive(Debug, Default)]
pub(super) struct DebugLines {
    all: u32,
    /// When the second began, and how many there were in it, with those that were too many.
    second: Option<Instant>,
    of_second: u32,
}

/// What becomes of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    Logged,
    FirstBeyondSecond,
    FirstBeyondSession,
    Lost,
}

impl DebugLines {
    fn next(&mut self, now: Instant) -> Line {
        let is_over = |begun| now.saturating_duration_since(begun) >= Duration::from_secs(1);
        if self.second.is_none_or(is_over) {
            (self.second, self.of_second) = (Some(now), 0);
        }
        if self.all > DEBUG_LINES_MAX || self.of_second > DEBUG_LINES_PER_SECOND_MAX {
            return Line::Lost;
        }
        self.of_second += 1;
        if self.of_second > DEBUG_LINES_PER_SECOND_MAX {
            return Line::FirstBeyondSecond;
        }
        self.all += 1;
        if self.all > DEBUG_LINES_MAX { Line::FirstBeyondSession } else { Line::Logged }
    }
}

/// Under what a monitor keeps what outlives its session.
#[derive(Debug)]
pub(super) struct Keeps {
    pub(super) certificate: CertificateId,
    pub(super) index: u16,
    /// Of one of the operator's own, which takes the place of a certificate.
    pub(super) _own: Option<OwnAccount>,
}

/// The endpoint as one monitor sees it.
#[derive(Debug)]
pub(super) struct View {
    pub(super) endpoint: String,
    pub(super) index: u16,
    pub(super) digest: ProgramDigest,
    pub(super) keeps: Keeps,
    pub(super) memory: MemoryView,
    pub(super) memories: Memories,
    pub(super) debug: bool,
    pub(super) debug_lines: Mutex<DebugLines>,
}

impl View {
    fn name(&self) -> String {
        let digest = Hex(self.digest.get(..8).unwrap_or(&self.digest));
        format!("{}: monitor {} ({digest})", self.endpoint, self.index)
    }
}

impl Surroundings for View {
    fn read(&self, address: u32, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.memory.read(address, buffer.len()));
    }

    fn keep(&self, persistent: &Persistent) {
        self.memories.keep(&self.keeps.certificate, self.keeps.index, persistent);
    }

    fn flush(&self) -> bool {
        self.memories.flush().unwrap_or_else(|error| {
            tracing::error!("{error}");
            false
        })
    }

    fn debug(&self, text: &[u8]) {
        let line =
            self.debug_lines.lock().unwrap_or_else(PoisonError::into_inner).next(Instant::now());
        match line {
            Line::Logged => tracing::info!("{} says: {}", self.name(), Escaped(text)),
            Line::FirstBeyondSecond => {
                tracing::warn!("{} says more, which is not logged in this second", self.name());
            }
            Line::FirstBeyondSession => {
                tracing::warn!("{} says more, which is not logged in this session", self.name());
            }
            Line::Lost => {}
        }
    }

    fn debug_enabled(&self) -> bool {
        self.debug
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_monitor_writes_so_many_lines_in_a_second_and_in_a_session() {
        let (mut lines, begun) = (DebugLines::default(), Instant::now());
        for second in 0..10 {
            let now = begun + Duration::from_secs(second);
            let told: Vec<_> = (0..200).map(|_| lines.next(now)).collect();
            assert!(told[..100].iter().all(|line| *line == Line::Logged), "in second {second}");
            assert_eq!(told[100], Line::FirstBeyondSecond);
            assert!(told[101..].iter().all(|line| *line == Line::Lost));
        }
        let next = |lines: &mut DebugLines| lines.next(begun + Duration::from_secs(10));
        assert_eq!(
            [(); 3].map(|()| next(&mut lines)),
            [Line::FirstBeyondSession, Line::Lost, Line::Lost]
        );
    }
}
