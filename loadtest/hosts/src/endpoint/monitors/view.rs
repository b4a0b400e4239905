//! What one monitor sees of its endpoint, and where it keeps its memory.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use monitors::{Persistent, Surroundings};
use packetlab::escape::Escaped;
use packetlab::key::Hex;
use packetlab::program::ProgramDigest;

use super::super::chain_limits::{Memories, OwnAccount};
use super::super::ledger::CertificateId;
use super::super::sockets::MemoryView;

/// Lines that one monitor may write in a session.
const DEBUG_LINES_MAX: u32 = 1000;

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
    /// How many it has written.
    pub(super) debug_lines: AtomicU32,
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
        match self.debug_lines.fetch_add(1, Relaxed) {
            ..DEBUG_LINES_MAX => tracing::info!("{} says: {}", self.name(), Escaped(text)),
            DEBUG_LINES_MAX => {
                tracing::warn!("{} says more, which is not logged in this session", self.name());
            }
            // It must not come round to zero.
            _ => self.debug_lines.store(DEBUG_LINES_MAX + 1, Relaxed),
        }
    }

    fn debug_enabled(&self) -> bool {
        self.debug
    }
}
