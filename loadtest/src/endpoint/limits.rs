//! What the controller's chain allows, and how much of it is used up (protocol.md 4.3, `cert_limit`).
//!
//! The limits of every certificate of the chain hold together. Totals count from START to the end of
//! the session: bytes are the payloads of NSEND and NDATA, and each of those is a packet, TCP's too. An
//! absent limit limits nothing, and neither does an absent `src_ip_spoofing`.
//!
//! Not here: the clock, and what becomes of what is denied.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use engine::proto::trust::VerifiedChain;
use engine::wire::certificate::{BurstRate, CertificateLimits, Destination};
use engine::wire::message::Status;
use engine::wire::time::Ticks;

/// Entries one burst rate remembers. Beyond, the oldest are taken together, as if all had been at the
/// latest of their times: that may deny a little more, and never allows more.
const REMEMBERED_MAX: usize = 0x1_0000;

/// The limits of one session.
#[derive(Debug, Default)]
pub(super) struct Limits {
    priority_max: Option<u64>,
    period: Option<Duration>,
    sockets_max: Option<u64>,
    sent_bytes: Budget,
    sent_packets: Budget,
    received_bytes: Budget,
    received_packets: Budget,
    byte_bursts: Vec<Burst>,
    packet_bursts: Vec<Burst>,
    /// One list for each certificate that has one; a destination must be in all of them.
    destinations: Vec<Vec<Destination>>,
    spoofing_forbidden: bool,
}

impl Limits {
    /// Those of a verified chain.
    pub(super) fn of(chain: &VerifiedChain) -> Self {
        let mut limits = Self::default();
        for certificate in &chain.certificates {
            limits.add(&certificate.limits);
        }
        limits
    }

    fn add(&mut self, more: &CertificateLimits) {
        let tighten = |limit: &mut Option<u64>, other: Option<u64>| {
            *limit = [*limit, other].into_iter().flatten().min();
        };
        tighten(&mut self.priority_max, more.max_num_priority);
        tighten(&mut self.sockets_max, more.max_socket_count);
        tighten(&mut self.sent_bytes.left, more.max_send_byte);
        tighten(&mut self.sent_packets.left, more.max_send_pkt);
        tighten(&mut self.received_bytes.left, more.max_recv_byte);
        tighten(&mut self.received_packets.left, more.max_recv_pkt);
        let period = more.max_exp_period.map(Duration::from_nanos);
        self.period = [self.period, period].into_iter().flatten().min();
        self.byte_bursts.extend(more.max_burst_rate_byte.iter().copied().map(Burst::new));
        self.packet_bursts.extend(more.max_burst_rate_pkt.iter().copied().map(Burst::new));
        if !more.valid_dest.is_empty() {
            self.destinations.push(more.valid_dest.clone());
        }
        self.spoofing_forbidden |= more.src_ip_spoofing == Some(false);
    }

    /// Highest priority an experiment may have.
    pub(super) fn priority_max(&self) -> Option<u64> {
        self.priority_max
    }

    /// Longest experiment, from START on.
    pub(super) fn period(&self) -> Option<Duration> {
        self.period
    }

    /// Whether packets must carry a source address of this endpoint.
    pub(super) fn spoofing_forbidden(&self) -> bool {
        self.spoofing_forbidden
    }

    /// Whether packets and connections may go there.
    pub(super) fn allows_destination(&self, address: IpAddr) -> bool {
        self.destinations.iter().all(|list| list.iter().any(|network| contains(network, address)))
    }

    /// Whether one more socket may be opened beside `open` ones.
    pub(super) fn allows_socket(&self, open: usize) -> bool {
        self.sockets_max.is_none_or(|max| (open as u64) < max)
    }

    /// Takes one packet off the totals of what may be sent.
    ///
    /// # Errors
    /// `ESKTPKTDENY`, and nothing is taken.
    pub(super) fn take_send(&mut self, len: usize) -> Result<(), Status> {
        let len = len as u64;
        if !self.sent_bytes.allows(len) || !self.sent_packets.allows(1) {
            return Err(Status::ESKTPKTDENY);
        }
        self.sent_bytes.take(len);
        self.sent_packets.take(1);
        Ok(())
    }

    /// Counts one packet, which is sent now, against the burst rates.
    ///
    /// # Errors
    /// `ESKTPKTDENY`, and nothing is counted.
    pub(super) fn take_burst(&mut self, now: Ticks, len: usize) -> Result<(), Status> {
        let len = len as u64;
        let bytes_fit = self.byte_bursts.iter_mut().all(|burst| burst.allows(now, len));
        if !bytes_fit || !self.packet_bursts.iter_mut().all(|burst| burst.allows(now, 1)) {
            return Err(Status::ESKTPKTDENY);
        }
        self.byte_bursts.iter_mut().for_each(|burst| burst.take(now, len));
        self.packet_bursts.iter_mut().for_each(|burst| burst.take(now, 1));
        Ok(())
    }

    /// Takes one packet off the totals of what may be received; false, and nothing taken, if it
    /// exceeds them.
    pub(super) fn take_received(&mut self, len: usize) -> bool {
        let len = len as u64;
        if !self.received_bytes.allows(len) || !self.received_packets.allows(1) {
            return false;
        }
        self.received_bytes.take(len);
        self.received_packets.take(1);
        true
    }

    /// Bytes that one more packet may have; `None` if there may be no more.
    pub(super) fn receivable_len(&self) -> Option<u64> {
        let bytes = self.received_bytes.left.unwrap_or(u64::MAX);
        (bytes > 0 && self.received_packets.allows(1)).then_some(bytes)
    }
}

/// What is left of a total; `None` is no limit.
#[derive(Debug, Default)]
struct Budget {
    left: Option<u64>,
}

impl Budget {
    fn allows(&self, amount: u64) -> bool {
        self.left.is_none_or(|left| amount <= left)
    }

    fn take(&mut self, amount: u64) {
        self.left = self.left.map(|left| left.saturating_sub(amount));
    }
}

/// A burst rate and what was sent within its window.
#[derive(Debug)]
struct Burst {
    rate: BurstRate,
    sent: VecDeque<(Ticks, u64)>,
    /// Sum of `sent`.
    count: u64,
}

impl Burst {
    fn new(rate: BurstRate) -> Self {
        Self { rate, sent: VecDeque::new(), count: 0 }
    }

    /// Whether no window that ends now would hold too much.
    fn allows(&mut self, now: Ticks, amount: u64) -> bool {
        let window = Duration::from_nanos(self.rate.window);
        while let Some(&(time, count)) = self.sent.front()
            && time.saturating_add(window) <= now
        {
            self.sent.pop_front();
            self.count -= count;
        }
        self.count.saturating_add(amount) <= self.rate.count
    }

    fn take(&mut self, now: Ticks, amount: u64) {
        self.count += amount;
        self.sent.push_back((now, amount));
        if self.sent.len() > REMEMBERED_MAX
            && let Some((_, oldest)) = self.sent.pop_front()
            && let Some((_, next)) = self.sent.front_mut()
        {
            *next += oldest;
        }
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

#[cfg(test)]
impl Limits {
    /// Those of one certificate with this text.
    pub(super) fn of_text(text: &str) -> Self {
        let mut limits = Self::default();
        limits.add(&CertificateLimits::parse(text.as_bytes()).unwrap());
        limits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(texts: &[&str]) -> Limits {
        let mut limits = Limits::default();
        for text in texts {
            limits.add(&CertificateLimits::parse(text.as_bytes()).unwrap());
        }
        limits
    }

    const DENIED: Result<(), Status> = Err(Status::ESKTPKTDENY);

    #[test]
    fn no_limits_allow_everything() {
        let mut limits = limits(&[]);
        assert!(limits.allows_socket(255) && limits.allows_destination([10, 0, 0, 1].into()));
        assert_eq!((limits.priority_max(), limits.period()), (None, None));
        assert!(limits.take_send(usize::MAX).is_ok() && limits.take_burst(Ticks(0), 9).is_ok());
        assert!(limits.take_received(1) && !limits.spoofing_forbidden());
        assert_eq!(limits.receivable_len(), Some(u64::MAX));
    }

    #[test]
    fn the_tightest_limit_of_the_chain_holds() {
        let limits = limits(&[
            "max_num_priority=9;max_socket_count=2;max_exp_period=5;src_ip_spoofing=1;",
            "max_num_priority=7;max_socket_count=3;src_ip_spoofing=0;",
        ]);
        assert_eq!(
            (limits.priority_max(), limits.period()),
            (Some(7), Some(Duration::from_nanos(5)))
        );
        assert!(limits.allows_socket(1) && !limits.allows_socket(2));
        assert!(limits.spoofing_forbidden());
    }

    #[test]
    fn totals_are_used_up_and_what_is_denied_costs_nothing() {
        let mut limits =
            limits(&["max_send_byte=10;max_send_pkt=3;max_recv_byte=5;max_recv_pkt=2;"]);
        assert_eq!(limits.take_send(6), Ok(()));
        assert_eq!(limits.take_send(5), DENIED);
        assert_eq!(
            (limits.take_send(4), limits.take_send(0), limits.take_send(0)),
            (Ok(()), Ok(()), DENIED)
        );
        assert_eq!(limits.receivable_len(), Some(5));
        assert!(!limits.take_received(6) && limits.take_received(4));
        assert_eq!(limits.receivable_len(), Some(1));
        assert!(limits.take_received(0) && !limits.take_received(1));
        assert_eq!(limits.receivable_len(), None);
    }

    #[test]
    fn every_window_holds_no_more_than_its_burst() {
        let mut limits = limits(&["max_burst_rate_byte=100/10;", "max_burst_rate_pkt=2/5,3/1000;"]);
        assert_eq!(limits.take_burst(Ticks(0), 101), DENIED);
        assert_eq!(limits.take_burst(Ticks(0), 60), Ok(()));
        assert_eq!(limits.take_burst(Ticks(6), 60), DENIED);
        assert_eq!(limits.take_burst(Ticks(6), 40), Ok(()));
        assert_eq!(limits.take_burst(Ticks(9), 0), Ok(()));
        // Two packets within 5, then three within 1000.
        assert_eq!(limits.take_burst(Ticks(10), 1), DENIED);
        assert_eq!(limits.take_burst(Ticks(999), 1), DENIED);
        assert_eq!(limits.take_burst(Ticks(1000), 1), Ok(()));
    }

    #[test]
    fn a_burst_remembers_only_so_much_and_errs_on_the_safe_side() {
        let rate = BurstRate { count: u64::MAX, window: 1 << 40 };
        let mut burst = Burst::new(rate);
        for time in 0..=REMEMBERED_MAX as u64 {
            burst.take(Ticks(time), 1);
        }
        assert_eq!(burst.sent.len(), REMEMBERED_MAX);
        assert_eq!(burst.sent.front(), Some(&(Ticks(1), 2)));
        assert_eq!(burst.count, REMEMBERED_MAX as u64 + 1);
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
