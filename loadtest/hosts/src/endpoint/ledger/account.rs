//! The account of one certificate: what it has used up.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use monitors::Persistent;
use packetlab::certificate::Certificate;
use packetlab::key::{Hex, KEY_LEN, KeyId, sha256};
use packetlab::program::ProgramDigest;
use packetlab::time::Ticks;

use super::burst::Bursts;

/// A certificate, by its signer and the number that the signer gave it. Signers may choose numbers of any length;
/// of one that is as long as its SHA-256 or longer only that is kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in super::super) struct CertificateId {
    pub(super) authority: KeyId,
    pub(super) serial: Vec<u8>,
}

impl CertificateId {
    /// That of a certificate.
    pub(in super::super) fn of(certificate: &Certificate) -> Self {
        Self::new(certificate.authority_key_id, certificate.serial())
    }

    /// What stands for a program of the endpoint's own operator, which no certificate names. None can be taken for it: an
    /// authority is the SHA-256 of a key, and this that of a program.
    pub(in super::super) fn of_program(digest: &ProgramDigest) -> Self {
        Self::new(KeyId(*digest), &[0])
    }

    pub(super) fn new(authority: KeyId, serial: &[u8]) -> Self {
        let is_short = serial.len() < KEY_LEN;
        let serial = if is_short { serial.to_vec() } else { sha256(serial).to_vec() };
        Self { authority, serial }
    }
}

impl fmt::Display for CertificateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.authority, Hex(&self.serial))
    }
}

/// What has been sent and received, over all time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in super::super) struct Totals {
    /// Payload bytes of NSEND.
    pub(in super::super) sent_bytes: u64,
    /// NSENDs.
    pub(in super::super) sent_packets: u64,
    /// Payload bytes of NDATA.
    pub(in super::super) received_bytes: u64,
    /// NDATAs.
    pub(in super::super) received_packets: u64,
}

/// The account of one certificate.
#[derive(Debug)]
pub(in super::super) struct Account {
    /// The last certificate of its chain.
    pub(super) privilege: CertificateId,
    /// When the certificate expires, or what a program of the operator's own has kept.
    pub(in super::super) not_after: Ticks,
    /// What has been used up.
    pub(in super::super) totals: Totals,
    /// What monitor programs keep from session to session, each by its index among those of its session.
    pub(super) memories: BTreeMap<u16, Persistent>,
    /// What was sent lately.
    pub(in super::super) bursts: Bursts,
    /// Sockets that are open.
    pub(in super::super) sockets: u64,
    /// Sessions that go on.
    pub(super) sessions: usize,
}

impl Account {
    pub(super) fn new(privilege: CertificateId, not_after: Ticks) -> Self {
        let (totals, bursts) = (Totals::default(), Bursts::default());
        let memories = BTreeMap::new();
        Self { privilege, not_after, totals, memories, bursts, sockets: 0, sessions: 0 }
    }

    /// One packet of so many bytes is to be sent.
    pub(in super::super) fn send(&mut self, len: u64) {
        self.totals.sent_bytes = self.totals.sent_bytes.saturating_add(len);
        self.totals.sent_packets = self.totals.sent_packets.saturating_add(1);
    }

    /// One packet of so many bytes was received.
    pub(in super::super) fn receive(&mut self, len: u64) {
        self.totals.received_bytes = self.totals.received_bytes.saturating_add(len);
        self.totals.received_packets = self.totals.received_packets.saturating_add(1);
    }

    /// Whether there is anything that has to outlive the process.
    pub(super) fn is_used(&self) -> bool {
        self.totals != Totals::default() || self.kept_memories().next().is_some()
    }

    /// What monitor programs keep. Zeros alone are what each finds at first.
    pub(super) fn kept_memories(&self) -> impl Iterator<Item = (u16, &Persistent)> {
        let memories = self.memories.iter().map(|(index, memory)| (*index, memory));
        memories.filter(|(_, memory)| memory.iter().any(|byte| *byte != 0))
    }

    /// Whether nothing is lost if it is forgotten.
    pub(in super::super) fn is_idle(&mut self, now: Ticks) -> bool {
        let unused = !self.is_used() && self.bursts.are_over(now);
        self.sessions == 0 && (unused || self.not_after < now)
    }
}

/// The accounts, by certificate.
pub(in super::super) type Accounts = HashMap<CertificateId, Account>;
