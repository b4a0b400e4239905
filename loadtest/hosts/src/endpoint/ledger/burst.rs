//! What was sent within the windows of burst rates, and when more may be.
//!
//! Not here: the clock.
//!
//! Invariant: no window of a rate, wherever it begins, holds more than the rate allows.

use std::collections::VecDeque;
use std::time::Duration;

use packetlab::certificate::{BurstRate, CertificateLimits};
use packetlab::time::Ticks;

use super::bounds::{LedgerError, RATES_MAX};

/// Entries one burst rate remembers. Beyond, the oldest are taken together, as if all had been at the
/// latest of their times: that may delay a little more, and never allows more.
const REMEMBERED_MAX: usize = 0x1_0000;
/// When a packet may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) enum Turn {
    /// Now.
    Now,
    /// Not before then, and perhaps later, if others leave meanwhile.
    Later(Ticks),
    /// It alone is more than a rate allows.
    Never,
}

/// What was sent under one certificate.
#[derive(Debug, Default)]
pub(in super::super) struct Bursts {
    of_bytes: Vec<Burst>,
    of_packets: Vec<Burst>,
}

impl Bursts {
    /// Sees to it that what is sent is remembered for these limits.
    ///
    /// # Errors
    /// They have too many burst rates, alone or with those that are watched for the same account already.
    pub(in super::super) fn watch(
        &mut self,
        limits: &CertificateLimits,
    ) -> Result<(), LedgerError> {
        for (bursts, rates) in [
            (&mut self.of_bytes, &limits.max_burst_rate_byte),
            (&mut self.of_packets, &limits.max_burst_rate_pkt),
        ] {
            if rates.len() > RATES_MAX {
                return Err(LedgerError::TooManyRates);
            }
            for rate in rates {
                if bursts.iter().any(|burst| burst.rate == *rate) {
                    continue;
                }
                if bursts.len() == RATES_MAX {
                    return Err(LedgerError::TooManyRates);
                }
                bursts.push(Burst::new(*rate));
            }
        }
        Ok(())
    }

    /// When so much may leave.
    pub(in super::super) fn turn(&mut self, now: Ticks, bytes: u64, packets: u64) -> Turn {
        let bytes = self.of_bytes.iter_mut().map(|burst| burst.turn(now, bytes));
        let packets = self.of_packets.iter_mut().map(|burst| burst.turn(now, packets));
        bytes.chain(packets).max().unwrap_or(Turn::Now)
    }

    /// Remembers what leaves.
    pub(in super::super) fn take(&mut self, now: Ticks, bytes: u64, packets: u64) {
        self.of_bytes.iter_mut().for_each(|burst| burst.take(now, bytes));
        self.of_packets.iter_mut().for_each(|burst| burst.take(now, packets));
    }

    /// Whether nothing that was sent counts any more.
    pub(super) fn are_over(&mut self, now: Ticks) -> bool {
        self.of_bytes.iter_mut().chain(&mut self.of_packets).all(|burst| {
            burst.forget(now);
            burst.sent.is_empty()
        })
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

    /// When what was sent at `time` counts no more.
    fn end_of(&self, time: Ticks) -> Ticks {
        time.saturating_add(Duration::from_nanos(self.rate.window))
    }

    fn forget(&mut self, now: Ticks) {
        while let Some(&(time, count)) = self.sent.front()
            && self.end_of(time) <= now
        {
            self.sent.pop_front();
            self.count -= count;
        }
    }

    /// When no window that ends then would hold too much.
    fn turn(&mut self, now: Ticks, amount: u64) -> Turn {
        if amount > self.rate.count {
            return Turn::Never;
        }
        self.forget(now);
        let mut too_much = self.count.saturating_add(amount).saturating_sub(self.rate.count);
        if too_much == 0 {
            return Turn::Now;
        }
        for (time, count) in &self.sent {
            too_much = too_much.saturating_sub(*count);
            if too_much == 0 {
                return Turn::Later(self.end_of(*time));
            }
        }
        Turn::Never
    }

    fn take(&mut self, now: Ticks, amount: u64) {
        if amount == 0 {
            return;
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn bursts(text: &str) -> Bursts {
        let mut bursts = Bursts::default();
        bursts.watch(&CertificateLimits::parse(text.as_bytes()).unwrap()).unwrap();
        bursts
    }

    /// Sends it if it may leave.
    fn send(bursts: &mut Bursts, now: u64, bytes: u64) -> Turn {
        let turn = bursts.turn(Ticks(now), bytes, 1);
        if turn == Turn::Now {
            bursts.take(Ticks(now), bytes, 1);
        }
        turn
    }

    #[test]
    fn every_window_holds_no_more_than_its_burst() {
        let mut bursts = bursts("max_burst_rate_byte=100/10;max_burst_rate_pkt=2/5,3/1000;");
        for (now, bytes, turn) in [
            (0, 101, Turn::Never),
            (0, 60, Turn::Now),
            (6, 60, Turn::Later(Ticks(10))),
            (6, 40, Turn::Now),
            (9, 0, Turn::Now),
            // Two packets within 5, then three within 1000.
            (10, 1, Turn::Later(Ticks(1000))),
            (999, 1, Turn::Later(Ticks(1000))),
            (1000, 1, Turn::Now),
        ] {
            assert_eq!(send(&mut bursts, now, bytes), turn, "{bytes} at {now}");
        }
    }

    #[test]
    fn a_packet_waits_until_enough_of_what_was_sent_before_counts_no_more() {
        let mut bursts = bursts("max_burst_rate_byte=10/100;");
        for now in [0, 1, 2] {
            assert_eq!(send(&mut bursts, now, 3), Turn::Now);
        }
        assert_eq!(send(&mut bursts, 3, 1), Turn::Now);
        assert_eq!(send(&mut bursts, 4, 5), Turn::Later(Ticks(101)));
        assert_eq!(send(&mut bursts, 4, 10), Turn::Later(Ticks(103)));
        assert!(!bursts.are_over(Ticks(102)) && bursts.are_over(Ticks(103)));
    }

    #[test]
    fn a_rate_is_watched_once_however_many_sessions_have_it() {
        let text = "max_burst_rate_pkt=1/10,2/20;";
        let mut bursts = bursts(text);
        assert_eq!(send(&mut bursts, 0, 1), Turn::Now);
        bursts.watch(&CertificateLimits::parse(text.as_bytes()).unwrap()).unwrap();
        assert_eq!(bursts.of_packets.len(), 2);
        assert_eq!(send(&mut bursts, 1, 1), Turn::Later(Ticks(10)));
    }

    #[test]
    fn certificates_of_one_number_have_only_so_many_rates_together() {
        let limits = |counts: std::ops::Range<u64>| CertificateLimits {
            max_burst_rate_pkt: counts.map(|count| BurstRate { count, window: 1 }).collect(),
            ..CertificateLimits::default()
        };
        let mut bursts = Bursts::default();
        assert_eq!(bursts.watch(&limits(0..5)), Ok(()));
        assert_eq!(bursts.watch(&limits(0..8)), Ok(()));
        assert_eq!(bursts.watch(&limits(1..9)), Err(LedgerError::TooManyRates));
        assert_eq!(bursts.of_packets.len(), RATES_MAX);
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
}
