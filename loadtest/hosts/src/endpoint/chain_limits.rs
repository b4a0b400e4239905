//! What the controller's chain allows (spec/protocol.md 4.3, `cert_limit`).
//!
//! The limits of every certificate of the chain hold together, and each certificate counts for itself (`ledger`).
//! Bytes are the payloads of NSEND and NDATA, and each of those is a packet, TCP's too. An absent limit limits
//! nothing. Foreign source addresses are another matter: every certificate that grants or passes on the privilege
//! has to allow them.
//!
//! Not here: how it is entered in the accounts of the certificates (`count`); the clock, and what becomes of what is
//! denied.

mod count;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use monitors::Persistent;
use packetlab::certificate::{Certificate, CertificateType, Destination};
use packetlab::message::Status;
use packetlab::program::ProgramDigest;
use packetlab::time::Ticks;
use packetlab::trust::VerifiedChain;

use super::ledger::{CertificateId, Ledger, LedgerError, StateError, Turn, WaitingSends};
use count::{Count, fits, receivable_len};

/// How long what a program of the endpoint's own operator has kept stays behind the last session that it was started for. One
/// that is changed is another program, whose predecessors would stay for ever.
const OWN_KEPT: Duration = Duration::from_secs(365 * 24 * 3600);

/// Highest priority that a chain allows an experiment to have.
pub(super) fn priority_max(chain: &VerifiedChain) -> Option<u64> {
    chain.certificates.iter().filter_map(|certificate| certificate.limits().max_num_priority).min()
}

/// The limits of one session.
#[derive(Debug, Default)]
pub(super) struct ChainLimits {
    period: Option<Duration>,
    /// One list for each certificate that has one; a destination must be in all of them.
    destinations: Vec<Vec<Destination>>,
    spoofing_allowed: bool,
    count: Arc<Count>,
}

/// A socket that counts as open as long as this lives.
#[derive(Debug)]
pub(super) struct SocketPlace(Arc<Count>);

impl Drop for SocketPlace {
    fn drop(&mut self) {
        self.0.each(|_, account| account.sockets = account.sockets.saturating_sub(1));
    }
}

/// What monitor programs keep under the chain's certificates, whose accounts stay while this lives.
#[derive(Debug, Clone, Default)]
pub(super) struct Memories(Arc<Count>);

/// Where a program of the endpoint's own operator keeps what outlives a session, as long as this lives: under no
/// certificate, since it is asked about all.
#[derive(Debug)]
pub(super) struct OwnAccount {
    ledger: Arc<Ledger>,
    pub(super) id: CertificateId,
}

impl Drop for OwnAccount {
    fn drop(&mut self) {
        self.ledger.dismiss(std::iter::once(&self.id));
    }
}

impl Memories {
    /// The account of a program of the endpoint's own operator.
    ///
    /// # Errors
    /// There is no place for it.
    pub(super) fn own(&self, digest: &ProgramDigest) -> Result<OwnAccount, LedgerError> {
        let (ledger, id) = (Arc::clone(&self.0.ledger), CertificateId::of_program(digest));
        let now = crate::clock::now();
        ledger.admit(&[(id.clone(), now.saturating_add(OWN_KEPT))], &id, now)?;
        Ok(OwnAccount { ledger, id })
    }

    /// What a monitor has kept, by its certificate and its index; there is a place for what it will keep.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn read(&self, id: &CertificateId, index: u16) -> Result<Persistent, LedgerError> {
        self.0.ledger.memory(id, index)
    }

    /// Has this kept.
    pub(super) fn keep(&self, id: &CertificateId, index: u16, memory: &Persistent) {
        self.0.ledger.keep_memory(id, index, memory);
    }

    /// Has it written, as [`Ledger::flush`] does; takes the time that the disk takes.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn flush(&self) -> Result<bool, StateError> {
        self.0.ledger.flush()
    }
}

impl ChainLimits {
    /// What monitor programs keep.
    pub(super) fn memories(&self) -> Memories {
        Memories(Arc::clone(&self.count))
    }

    /// What the session has waiting to be sent, beside others of its endpoint.
    pub(super) fn waiting_sends(&self) -> WaitingSends {
        WaitingSends::new(&self.count.ledger)
    }

    /// Waits until what the chain's certificates use up cannot be kept.
    pub(super) fn not_kept(&self) -> impl Future<Output = ()> + use<> {
        let ledger = Arc::clone(&self.count.ledger);
        async move { ledger.failed().await }
    }

    /// Those of a verified chain, whose certificates go on with their accounts.
    ///
    /// # Errors
    /// There is no place for their accounts, or one of them has too many burst rates.
    pub(super) fn of(
        chain: &VerifiedChain,
        ledger: &Arc<Ledger>,
        now: Ticks,
    ) -> Result<Self, LedgerError> {
        Self::of_certificates(&chain.certificates, ledger, now)
    }

    fn of_certificates(
        certificates: &[Certificate],
        ledger: &Arc<Ledger>,
        now: Ticks,
    ) -> Result<Self, LedgerError> {
        let limits: Vec<_> = certificates.iter().map(Certificate::limits).collect();
        let period = limits.iter().filter_map(|limits| limits.max_exp_period).min();
        let lists = limits.iter().map(|limits| &limits.valid_dest).filter(|list| !list.is_empty());
        let may_limit = |certificate: &&Certificate| {
            matches!(
                certificate.certificate_type,
                CertificateType::Exppriv | CertificateType::Delpriv
            )
        };
        // Without any such certificate nobody has allowed it.
        let mut granting = certificates.iter().filter(may_limit).peekable();
        let spoofing_allowed = granting.peek().is_some()
            && granting.all(|certificate| certificate.limits().src_ip_spoofing == Some(true));
        Ok(Self {
            period: period.map(Duration::from_nanos),
            destinations: lists.cloned().collect(),
            spoofing_allowed,
            count: Arc::new(Count::begin(certificates, ledger, now)?),
        })
    }

    /// Longest experiment, from START on.
    pub(super) fn period(&self) -> Option<Duration> {
        self.period
    }

    /// Whether packets may carry source addresses that are not this endpoint's.
    pub(super) fn spoofing_allowed(&self) -> bool {
        self.spoofing_allowed
    }

    /// Whether packets and connections may go there.
    pub(super) fn allows_destination(&self, address: IpAddr) -> bool {
        self.destinations.iter().all(|list| list.iter().any(|network| contains(network, address)))
    }

    /// A place for one more socket beside those that all sessions of the certificates have open.
    pub(super) fn take_socket(&self) -> Option<SocketPlace> {
        let taken = self.count.take_if(
            |limits, account| limits.max_socket_count.is_none_or(|max| account.sockets < max),
            |account| account.sockets += 1,
        );
        taken.then(|| SocketPlace(Arc::clone(&self.count)))
    }

    /// Takes one packet off the totals of what may be sent. One that would never have its turn, whole or, if it
    /// may be cut, in pieces, is denied as well.
    ///
    /// # Errors
    /// `ESKTPKTDENY`, and nothing is taken.
    pub(super) fn take_send(&self, len: usize, may_be_cut: bool) -> Result<(), Status> {
        let len = len as u64;
        let burst_len = if may_be_cut { len.min(1) } else { len };
        let taken = self.count.take_if(
            |limits, account| {
                fits(account.totals.sent_bytes, len, limits.max_send_byte)
                    && fits(account.totals.sent_packets, 1, limits.max_send_pkt)
                    && limits.max_burst_rate_byte.iter().all(|rate| burst_len <= rate.count)
                    && limits.max_burst_rate_pkt.iter().all(|rate| rate.count > 0)
            },
            |account| account.send(len),
        );
        if taken { Ok(()) } else { Err(Status::ESKTPKTDENY) }
    }

    /// Most bytes that can leave at one moment.
    pub(super) fn burst_len_max(&self) -> usize {
        let limits = self.count.certificates.iter().map(|certificate| &certificate.limits);
        let rates = limits.flat_map(|limits| &limits.max_burst_rate_byte);
        let least = rates.map(|rate| rate.count).min().unwrap_or(u64::MAX);
        usize::try_from(least).unwrap_or(usize::MAX)
    }

    /// Counts what leaves now against the burst rates, if it is its turn; when that is.
    pub(super) fn take_turn(&self, now: Ticks, len: usize, packets: u64) -> Turn {
        let (len, count) = (len as u64, &self.count);
        let mut turn = Turn::Now;
        count.with_accounts((), |accounts| {
            count.each_of(accounts, |_, account| {
                turn = turn.max(account.bursts.turn(now, len, packets));
            });
            if turn == Turn::Now {
                count.each_of(accounts, |_, account| account.bursts.take(now, len, packets));
            }
        });
        turn
    }

    /// Takes one packet off the totals of what may be received; false, and nothing taken, if it
    /// exceeds them.
    pub(super) fn take_received(&self, len: usize) -> bool {
        let len = len as u64;
        self.count.take_if(
            |limits, account| receivable_len(limits, account).is_some_and(|max| len <= max),
            |account| account.receive(len),
        )
    }

    /// Bytes that one more packet may have; `None` if there may be no more.
    pub(super) fn receivable_len(&self) -> Option<u64> {
        let count = &self.count;
        let len = count.with_accounts(Some(u64::MAX), |accounts| count.receivable_len(accounts));
        len.filter(|len| *len > 0)
    }

    /// Receives as much as `read` takes of the bytes that it is told it may; 0 takes nothing. Nobody else receives
    /// meanwhile, or what this one was told would not hold.
    pub(super) fn receive_by(
        &self,
        len_max: usize,
        read: impl FnOnce(usize) -> io::Result<usize>,
    ) -> io::Result<usize> {
        if self.count.certificates.is_empty() {
            return read(len_max);
        }
        let mut accounts = self.count.ledger.accounts();
        let allowed = self.count.receivable_len(&mut accounts).unwrap_or(0);
        let len = read(len_max.min(usize::try_from(allowed).unwrap_or(usize::MAX)))?;
        if len > 0 {
            self.count.each_of(&mut accounts, |_, account| account.receive(len as u64));
        }
        Ok(len)
    }
}

/// Only the leading bits count: host bits in the certificate are ignored (Q3).
fn contains(network: &Destination, address: IpAddr) -> bool {
    let differing = match (network.address, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            u128::from(network.to_bits() ^ address.to_bits()) << 96
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => network.to_bits() ^ address.to_bits(),
        _ => return false,
    };
    differing.leading_zeros() >= network.prefix_len.into()
}

/// Certificates with these limits, such as an operator and delegates issue them.
#[cfg(test)]
pub(super) fn certificates(texts: &[&str]) -> Vec<Certificate> {
    use packetlab::certificate::{CertificateLimits, Delegation};
    use packetlab::issue::{CertificateFields, issue};
    use packetlab::key::PrivateKey;

    use crate::clock::now;

    let certificate = |(index, text): (usize, &&str)| {
        let is_top = index + 1 == texts.len();
        let fields = CertificateFields {
            certificate_type: if is_top {
                CertificateType::Exppriv
            } else {
                CertificateType::Delpriv
            },
            delegation: Delegation { exppriv: !is_top, reppriv: false },
            path_len: None,
            not_before: Ticks(0),
            not_after: now().saturating_add(Duration::from_secs(3600)),
            description: None,
            auxiliary: Vec::new(),
            limits: CertificateLimits::parse(text.as_bytes()).unwrap(),
        };
        let key = PrivateKey::generate().unwrap();
        Certificate::from_der(&issue(&fields, &key.public_key(), &key).unwrap()).unwrap()
    };
    texts.iter().enumerate().map(certificate).collect()
}

#[cfg(test)]
impl ChainLimits {
    /// Those of one certificate with this text.
    pub(super) fn of_text(text: &str) -> Self {
        Self::of_session(&certificates(&[text]), &Arc::default())
    }

    /// Those of a session whose chain has these certificates.
    pub(super) fn of_session(certificates: &[Certificate], ledger: &Arc<Ledger>) -> Self {
        Self::of_certificates(certificates, ledger, crate::clock::now()).unwrap()
    }
}

#[cfg(test)]
mod tests;
