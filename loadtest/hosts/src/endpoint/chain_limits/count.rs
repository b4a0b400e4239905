//! The certificates of a session that limit what is counted, and what is entered in their accounts.
//!
//! Invariant: what is asked of all certificates is entered for all of them, or for none.

use std::sync::Arc;

use packetlab::certificate::{Certificate, CertificateLimits};
use packetlab::time::Ticks;

use super::super::ledger::{Account, Accounts, CertificateId, Ledger, LedgerError};

/// The certificates of a session that limit what is counted, and their accounts.
#[derive(Debug, Default)]
pub(super) struct Count {
    pub(super) ledger: Arc<Ledger>,
    pub(super) certificates: Vec<Counted>,
}

#[derive(Debug)]
pub(super) struct Counted {
    id: CertificateId,
    pub(super) limits: CertificateLimits,
}

impl Drop for Count {
    fn drop(&mut self) {
        self.ledger.dismiss(self.certificates.iter().map(|certificate| &certificate.id));
    }
}

impl Count {
    pub(super) fn begin(
        certificates: &[Certificate],
        ledger: &Arc<Ledger>,
        now: Ticks,
    ) -> Result<Self, LedgerError> {
        let limits = certificates.iter().map(|certificate| (certificate, certificate.limits()));
        let counted: Vec<_> = limits.filter(|(_, limits)| counts(limits)).collect();
        let ids: Vec<_> = counted
            .iter()
            .map(|(certificate, _)| (CertificateId::of(certificate), certificate.not_after))
            .collect();
        if let Some(top) = certificates.last() {
            ledger.admit(&ids, &CertificateId::of(top), now)?;
        }
        let certificates =
            counted.into_iter().zip(ids).map(|((_, limits), (id, _))| Counted { id, limits });
        let count = Self { ledger: Arc::clone(ledger), certificates: certificates.collect() };
        let mut watched = Ok(());
        count.each(|limits, account| watched = watched.and_then(|()| account.bursts.watch(limits)));
        watched.map(|()| count)
    }

    /// Does something with all accounts at one moment; what results if there are none.
    pub(super) fn with_accounts<R>(&self, without: R, act: impl FnOnce(&mut Accounts) -> R) -> R {
        if self.certificates.is_empty() { without } else { act(&mut self.ledger.accounts()) }
    }

    /// Does something with the account of every certificate.
    pub(super) fn each(&self, act: impl FnMut(&CertificateLimits, &mut Account)) {
        self.with_accounts((), |accounts| self.each_of(accounts, act));
    }

    /// The same; all of them are there while this lives.
    pub(super) fn each_of(
        &self,
        accounts: &mut Accounts,
        mut act: impl FnMut(&CertificateLimits, &mut Account),
    ) {
        for certificate in &self.certificates {
            if let Some(account) = accounts.get_mut(&certificate.id) {
                act(&certificate.limits, account);
            }
        }
    }

    /// Takes of all accounts, if all of them allow it.
    pub(super) fn take_if(
        &self,
        allows: impl Fn(&CertificateLimits, &Account) -> bool,
        take: impl Fn(&mut Account),
    ) -> bool {
        self.with_accounts(true, |accounts| {
            let mut allowed = true;
            self.each_of(accounts, |limits, account| allowed &= allows(limits, account));
            if allowed {
                self.each_of(accounts, |_, account| take(account));
            }
            allowed
        })
    }

    pub(super) fn receivable_len(&self, accounts: &mut Accounts) -> Option<u64> {
        let mut least = Some(u64::MAX);
        self.each_of(accounts, |limits, account| {
            least = least.and_then(|least| Some(least.min(receivable_len(limits, account)?)));
        });
        least
    }
}

/// Whether a certificate limits anything that is counted, or has monitors that may count.
fn counts(limits: &CertificateLimits) -> bool {
    let totals = [
        limits.max_send_byte,
        limits.max_send_pkt,
        limits.max_recv_byte,
        limits.max_recv_pkt,
        limits.max_socket_count,
    ];
    totals.iter().any(Option::is_some)
        || !limits.monitor.is_empty()
        || !limits.max_burst_rate_byte.is_empty()
        || !limits.max_burst_rate_pkt.is_empty()
}

pub(super) fn fits(used: u64, more: u64, max: Option<u64>) -> bool {
    max.is_none_or(|max| used.saturating_add(more) <= max)
}

/// Bytes that one more packet may have under one certificate; `None` if there may be no more packet.
pub(super) fn receivable_len(limits: &CertificateLimits, account: &Account) -> Option<u64> {
    let may_have_packet = fits(account.totals.received_packets, 1, limits.max_recv_pkt);
    let left = |max: u64| max.saturating_sub(account.totals.received_bytes);
    may_have_packet.then(|| limits.max_recv_byte.map_or(u64::MAX, left))
}
