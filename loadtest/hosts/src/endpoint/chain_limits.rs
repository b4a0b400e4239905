//! What the controller's chain allows (spec/protocol.md 4.3, `cert_limit`).
//!
//! The limits of every certificate of the chain hold together, and each certificate counts for itself (`ledger`).
//! Bytes are the payloads of NSEND and NDATA, and each of those is a packet, TCP's too. An absent limit limits
//! nothing. Foreign source addresses are another matter: every certificate that grants or passes on the privilege
//! has to allow them.
//!
//! Not here: the clock, and what becomes of what is denied.
//!
//! Invariant: what is asked of all certificates is entered for all of them, or for none.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use packetlab::certificate::{Certificate, CertificateLimits, CertificateType, Destination};
use packetlab::message::Status;
use packetlab::time::Ticks;
use packetlab::trust::VerifiedChain;

use super::ledger::{Account, Accounts, CertificateId, Ledger, LedgerError, Turn, WaitingSends};

/// Highest priority that a chain allows an experiment to have.
pub(super) fn priority_max(chain: &VerifiedChain) -> Option<u64> {
    chain.certificates.iter().filter_map(|certificate| certificate.limits.max_num_priority).min()
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

/// The certificates of a session that limit what is counted, and their accounts.
#[derive(Debug, Default)]
struct Count {
    ledger: Arc<Ledger>,
    certificates: Vec<Counted>,
}

#[derive(Debug)]
struct Counted {
    id: CertificateId,
    limits: CertificateLimits,
}

/// A socket that counts as open as long as this lives.
#[derive(Debug)]
pub(super) struct SocketPlace(Arc<Count>);

impl Drop for SocketPlace {
    fn drop(&mut self) {
        self.0.each(|_, account| account.sockets = account.sockets.saturating_sub(1));
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.ledger.dismiss(self.certificates.iter().map(|certificate| &certificate.id));
    }
}

impl ChainLimits {
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
        let all = || certificates.iter().map(|certificate| &certificate.limits);
        let period = all().filter_map(|limits| limits.max_exp_period).min();
        let lists = all().map(|limits| &limits.valid_dest).filter(|list| !list.is_empty());
        let may_limit = |certificate: &&Certificate| {
            matches!(
                certificate.certificate_type,
                CertificateType::Exppriv | CertificateType::Delpriv
            )
        };
        // Without any such certificate nobody has allowed it.
        let mut granting = certificates.iter().filter(may_limit).peekable();
        let spoofing_allowed = granting.peek().is_some()
            && granting.all(|certificate| certificate.limits.src_ip_spoofing == Some(true));
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

impl Count {
    fn begin(
        certificates: &[Certificate],
        ledger: &Arc<Ledger>,
        now: Ticks,
    ) -> Result<Self, LedgerError> {
        let counted = || certificates.iter().filter(|certificate| counts(&certificate.limits));
        let ids: Vec<_> = counted()
            .map(|certificate| (CertificateId::of(certificate), certificate.not_after))
            .collect();
        if let Some(top) = certificates.last() {
            ledger.admit(&ids, &CertificateId::of(top), now)?;
        }
        let certificates = counted()
            .zip(ids)
            .map(|(certificate, (id, _))| Counted { id, limits: certificate.limits.clone() });
        let count = Self { ledger: Arc::clone(ledger), certificates: certificates.collect() };
        let mut watched = Ok(());
        count.each(|limits, account| watched = watched.and_then(|()| account.bursts.watch(limits)));
        watched.map(|()| count)
    }

    /// Does something with all accounts at one moment; what results if there are none.
    fn with_accounts<R>(&self, without: R, act: impl FnOnce(&mut Accounts) -> R) -> R {
        if self.certificates.is_empty() { without } else { act(&mut self.ledger.accounts()) }
    }

    /// Does something with the account of every certificate.
    fn each(&self, act: impl FnMut(&CertificateLimits, &mut Account)) {
        self.with_accounts((), |accounts| self.each_of(accounts, act));
    }

    /// The same; all of them are there while this lives.
    fn each_of(
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
    fn take_if(
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

    fn receivable_len(&self, accounts: &mut Accounts) -> Option<u64> {
        let mut least = Some(u64::MAX);
        self.each_of(accounts, |limits, account| {
            least = least.and_then(|least| Some(least.min(receivable_len(limits, account)?)));
        });
        least
    }
}

/// Whether a certificate limits anything that is counted.
fn counts(limits: &CertificateLimits) -> bool {
    let totals = [
        limits.max_send_byte,
        limits.max_send_pkt,
        limits.max_recv_byte,
        limits.max_recv_pkt,
        limits.max_socket_count,
    ];
    totals.iter().any(Option::is_some)
        || !limits.max_burst_rate_byte.is_empty()
        || !limits.max_burst_rate_pkt.is_empty()
}

fn fits(used: u64, more: u64, max: Option<u64>) -> bool {
    max.is_none_or(|max| used.saturating_add(more) <= max)
}

/// Bytes that one more packet may have under one certificate; `None` if there may be no more packet.
fn receivable_len(limits: &CertificateLimits, account: &Account) -> Option<u64> {
    let may_have_packet = fits(account.totals.received_packets, 1, limits.max_recv_pkt);
    let left = |max: u64| max.saturating_sub(account.totals.received_bytes);
    may_have_packet.then(|| limits.max_recv_byte.map_or(u64::MAX, left))
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
    use packetlab::certificate::Delegation;
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
mod tests {
    use super::*;

    fn limits(texts: &[&str]) -> ChainLimits {
        ChainLimits::of_session(&certificates(texts), &Arc::default())
    }

    const DENIED: Result<(), Status> = Err(Status::ESKTPKTDENY);

    #[test]
    fn no_limits_allow_everything_but_foreign_sources() {
        let limits = limits(&[""]);
        assert!(limits.take_socket().is_some() && limits.allows_destination([10, 0, 0, 1].into()));
        assert_eq!(limits.period(), None);
        assert!(limits.take_send(usize::MAX, false).is_ok());
        assert_eq!(limits.take_turn(Ticks(0), 9, 1), Turn::Now);
        assert!(limits.take_received(1) && !limits.spoofing_allowed());
        assert_eq!(limits.receivable_len(), Some(u64::MAX));
    }

    #[test]
    fn the_tightest_limit_of_the_chain_holds() {
        let limits = limits(&["max_socket_count=2;max_exp_period=5;", "max_socket_count=3;"]);
        assert_eq!(limits.period(), Some(Duration::from_nanos(5)));
        let places = [limits.take_socket(), limits.take_socket()];
        assert!(places.iter().all(Option::is_some) && limits.take_socket().is_none());
        drop(places);
        assert!(limits.take_socket().is_some());
    }

    #[test]
    fn every_certificate_that_passes_a_privilege_on_has_to_allow_foreign_sources() {
        let (yes, no) = ("src_ip_spoofing=1;", "src_ip_spoofing=0;");
        for (texts, allowed) in [
            (&[yes][..], true),
            (&[no], false),
            (&[""], false),
            (&["max_send_pkt=9;"], false),
            (&[yes, yes], true),
            (&[yes, no], false),
            (&[no, yes], false),
            (&[yes, ""], false),
            (&["", yes], false),
        ] {
            assert_eq!(limits(texts).spoofing_allowed(), allowed, "{texts:?}");
        }
    }

    #[test]
    fn totals_are_used_up_and_what_is_denied_costs_nothing() {
        let limits = limits(&["max_send_byte=10;max_send_pkt=3;max_recv_byte=5;max_recv_pkt=2;"]);
        let send = |len| limits.take_send(len, false);
        assert_eq!((send(6), send(5)), (Ok(()), DENIED));
        assert_eq!((send(4), send(0), send(0)), (Ok(()), Ok(()), DENIED));
        assert_eq!(limits.receivable_len(), Some(5));
        assert!(!limits.take_received(6) && limits.take_received(4));
        assert_eq!(limits.receivable_len(), Some(1));
        assert!(limits.take_received(0) && !limits.take_received(1));
        assert_eq!(limits.receivable_len(), None);
    }

    #[test]
    fn what_no_burst_could_ever_hold_is_denied_at_once_unless_it_may_be_cut() {
        let limits = limits(&["max_burst_rate_byte=10/5;", "max_burst_rate_byte=8/5;"]);
        assert_eq!((limits.take_send(9, false), limits.take_send(9, true)), (DENIED, Ok(())));
        assert_eq!((limits.take_send(8, false), limits.burst_len_max()), (Ok(()), 8));
        for text in ["max_burst_rate_byte=0/5;", "max_burst_rate_pkt=0/5;"] {
            assert_eq!(self::limits(&[text]).take_send(1, true), DENIED, "{text}");
        }
    }

    #[test]
    fn a_turn_is_taken_of_all_certificates_or_of_none() {
        let limits = limits(&["max_burst_rate_pkt=3/100;", "max_burst_rate_pkt=1/10;"]);
        assert_eq!(limits.take_turn(Ticks(0), 1, 1), Turn::Now);
        assert_eq!(limits.take_turn(Ticks(1), 1, 1), Turn::Later(Ticks(10)));
        assert_eq!(limits.take_turn(Ticks(10), 1, 1), Turn::Now);
        assert_eq!(limits.take_turn(Ticks(20), 1, 1), Turn::Now);
        assert_eq!(limits.take_turn(Ticks(30), 1, 1), Turn::Later(Ticks(100)));
    }

    #[test]
    fn a_stream_takes_what_it_reads_and_no_more() {
        let limits = limits(&["max_recv_byte=10;max_recv_pkt=3;"]);
        assert_eq!(limits.receive_by(6, Ok).unwrap(), 6);
        assert_eq!(limits.receive_by(6, |len| Ok(len.min(3))).unwrap(), 3);
        let nothing = limits.receive_by(6, |_| Err(io::ErrorKind::WouldBlock.into()));
        assert!(nothing.is_err());
        assert_eq!(limits.receive_by(6, |_| Ok(0)).unwrap(), 0);
        assert_eq!(limits.receivable_len(), Some(1));
        assert_eq!(limits.receive_by(6, Ok).unwrap(), 1);
        assert_eq!(limits.receivable_len(), None);
    }

    #[test]
    fn each_certificate_counts_for_itself_in_every_session_and_chain() {
        let ledger = Arc::default();
        let chain = certificates(&["max_send_pkt=3;max_socket_count=2;", "max_send_pkt=4;"]);
        let (delegated, top) = (&chain[..], &chain[1..]);
        let session = |certificates| ChainLimits::of_session(certificates, &ledger);
        let first = session(delegated);
        let socket = first.take_socket();
        assert!(socket.is_some() && first.take_send(1, false).is_ok());
        // Another session at the same time, and others after it.
        let second = session(delegated);
        assert!(second.take_socket().is_some() && second.take_send(1, false).is_ok());
        let both = (second.take_socket(), second.take_socket());
        assert!(both.0.is_some() && both.1.is_none());
        drop((first, second, both, socket));
        let third = session(delegated);
        assert!(third.take_send(1, false).is_ok() && third.take_send(1, false) == DENIED);
        // The upper certificate has one packet left, in whatever chain.
        let fourth = session(top);
        assert!(fourth.take_send(1, false).is_ok() && fourth.take_send(1, false) == DENIED);
        // Another certificate with the same limits begins with all of them.
        let other = certificates(&["max_send_pkt=3;"]);
        assert!(session(&other).take_send(1, false).is_ok());
    }

    #[test]
    fn a_burst_rate_does_not_begin_anew_with_each_session() {
        let (ledger, chain) = (Arc::default(), certificates(&["max_burst_rate_pkt=1/100;"]));
        let session = || ChainLimits::of_session(&chain, &ledger);
        assert_eq!(session().take_turn(Ticks(0), 1, 1), Turn::Now);
        assert_eq!(session().take_turn(Ticks(1), 1, 1), Turn::Later(Ticks(100)));
    }

    #[test]
    fn a_chain_with_very_many_burst_rates_begins_no_session() {
        for name in ["max_burst_rate_byte", "max_burst_rate_pkt"] {
            let session = |rates: Vec<String>| {
                let chain = certificates(&["", &format!("{name}={};", rates.join(","))]);
                ChainLimits::of_certificates(&chain, &Arc::default(), Ticks(0)).map(drop)
            };
            let rate = |count| format!("{count}/7");
            assert_eq!(session((1..=8).map(rate).collect()), Ok(()));
            let refused = Err(LedgerError::TooManyRates);
            assert_eq!(session((1..=9).map(rate).collect()), refused);
            assert_eq!(session(vec![rate(1); 2500]), refused);
        }
    }

    #[test]
    fn a_destination_must_be_in_every_list() {
        let limits = limits(&[
            "valid_dest=10.1.2.3/8,2001:db8::/32,192.0.2.7;",
            "valid_dest=10.0.0.0/9,192.0.2.0/24,2001:db8:1::/48;",
        ]);
        for (address, allowed) in [
            ("10.1.2.4", true),
            ("10.127.255.255", true),
            ("10.128.0.0", false),
            ("11.0.0.1", false),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("2001:db8:1::5", true),
            ("2001:db8:2::5", false),
            ("::ffff:10.1.2.4", false),
        ] {
            assert_eq!(limits.allows_destination(address.parse().unwrap()), allowed, "{address}");
        }
        assert!(self::limits(&["valid_dest=0.0.0.0/0;"]).allows_destination([1, 2, 3, 4].into()));
        assert!(
            !self::limits(&["valid_dest=0.0.0.0/0;"]).allows_destination("::1".parse().unwrap())
        );
    }
}
