//! What a socket has to do, by time, and a clock that wakes it on time.
//!
//! Not here: doing it.
//!
//! Invariant: orders come out by time, those of one time in the order they were given. What a stream sends stays
//! in the order it was given whatever its times: nothing is due before its predecessor. The end of a stream is due
//! at its own time, but not before what it was ordered to send before.

use std::collections::BTreeMap;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use packetlab::time::Ticks;
use tokio::io::unix::AsyncFd;

use super::kernel_socket::watched;
use crate::clock::now;

/// What a mlet asked a socket to do, and when.
#[derive(Debug)]
pub(super) struct Order {
    /// Not before.
    pub(super) time: Ticks,
    /// What.
    pub(super) action: Action,
}

/// What a socket can do.
#[derive(Debug)]
pub(super) enum Action {
    /// NSEND.
    Send {
        /// Reported by NTAG.
        tag: u16,
        /// Where to, if the socket is not connected.
        remote: Option<SocketAddr>,
        /// What.
        data: Vec<u8>,
    },
    /// NCTL FIN.
    Finish,
}

/// Orders that wait for their time.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    orders: BTreeMap<(Ticks, u64), Action>,
    count: u64,
    /// Set for a stream: the latest time so far.
    latest: Option<Ticks>,
    /// The next order has to wait until then, whatever its time.
    held_until: Ticks,
}

impl Schedule {
    /// For a stream, whose data never overtakes other data.
    pub(super) fn of_stream() -> Self {
        Self { latest: Some(Ticks(0)), ..Self::default() }
    }

    /// Adds an order.
    pub(super) fn push(&mut self, order: Order) {
        let mut time = order.time;
        if let Some(latest) = &mut self.latest {
            time = time.max(*latest);
            if matches!(order.action, Action::Send { .. }) {
                *latest = time;
            }
        }
        self.orders.insert((time, self.count), order.action);
        self.count += 1;
    }

    /// When the next order is due; `None` without one.
    pub(super) fn next_time(&self) -> Option<Ticks> {
        self.orders.first_key_value().map(|((time, _), _)| self.held_until.max(*time))
    }

    /// The next order.
    pub(super) fn next(&self) -> Option<&Action> {
        self.orders.first_key_value().map(|(_, action)| action)
    }

    /// Takes out the next order.
    pub(super) fn pop(&mut self) -> Option<Action> {
        self.orders.pop_first().map(|(_, action)| action)
    }

    /// Lets nothing be due before that time.
    pub(super) fn hold(&mut self, until: Ticks) {
        self.held_until = until;
    }
}

/// Wakes its task at a time of the real-time clock.
///
/// The runtime's own timers count whole milliseconds. A timerfd is as precise as the kernel's, costs
/// nothing while it waits (a spinning thread would cost a core, and here are thousands of endpoints),
/// and follows the clock when that is set.
#[derive(Debug, Default)]
pub(super) struct Alarm {
    timer: Option<AsyncFd<Timer>>,
    armed: Option<Ticks>,
}

impl Alarm {
    /// Returns at `time`, or at once if that has passed; never without a time. May be abandoned.
    pub(super) async fn wait(&mut self, time: Option<Ticks>) {
        let Some(time) = time else { return pending().await };
        while now() < time {
            if self.ring_at(time).await.is_err() {
                // Without fds for a timer the runtime's own has to do.
                self.armed = None;
                tokio::time::sleep(time.saturating_duration_since(now())).await;
            }
        }
    }

    async fn ring_at(&mut self, time: Ticks) -> io::Result<()> {
        let timer = match &mut self.timer {
            Some(timer) => timer,
            none => none.insert(watched(Timer(TimerFd::new(
                ClockId::CLOCK_REALTIME,
                TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK,
            )?))?),
        };
        if self.armed != Some(time) {
            let at = TimeSpec::from_duration(Duration::from_nanos(time.0));
            timer.get_ref().0.set(Expiration::OneShot(at), TimerSetTimeFlags::TFD_TIMER_ABSTIME)?;
            self.armed = Some(time);
        }
        let mut ready = timer.readable().await?;
        // Arming it anew takes the readiness away in the kernel; here it must be said.
        ready.clear_ready();
        self.armed = None;
        Ok(())
    }
}

/// For the runtime, which asks for the number.
#[derive(Debug)]
struct Timer(TimerFd);

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(time: u64, tag: u16) -> Order {
        let action = Action::Send { tag, remote: None, data: Vec::new() };
        Order { time: Ticks(time), action }
    }

    fn tags(mut schedule: Schedule) -> Vec<u16> {
        std::iter::from_fn(|| schedule.pop())
            .map(|action| match action {
                Action::Send { tag, .. } => tag,
                Action::Finish => 0,
            })
            .collect()
    }

    #[test]
    fn packets_leave_by_time_and_a_stream_in_order() {
        let orders = || [order(5, 1), order(3, 2), order(5, 3), order(0, 4)];
        let (mut packets, mut stream) = (Schedule::default(), Schedule::of_stream());
        orders().into_iter().for_each(|order| packets.push(order));
        orders().into_iter().for_each(|order| stream.push(order));
        assert_eq!((packets.next_time(), stream.next_time()), (Some(Ticks(0)), Some(Ticks(5))));
        assert_eq!(tags(packets), [4, 2, 1, 3]);
        assert_eq!(tags(stream), [1, 2, 3, 4]);
        assert_eq!(Schedule::default().next_time(), None);
    }

    #[test]
    fn a_stream_ends_by_time_after_what_it_was_to_send_before() {
        let finish = |time| Order { time: Ticks(time), action: Action::Finish };
        // Tag 0 stands for the end.
        for (orders, expected) in [
            ([order(3, 1), finish(9), order(5, 2), order(9, 3)], [1, 2, 0, 3]),
            ([order(7, 1), finish(3), order(5, 2), order(8, 3)], [1, 0, 2, 3]),
        ] {
            let mut stream = Schedule::of_stream();
            orders.into_iter().for_each(|order| stream.push(order));
            assert_eq!(tags(stream), expected);
        }
    }

    #[test]
    fn nothing_is_due_while_the_schedule_is_held_and_the_order_stays() {
        let mut packets = Schedule::default();
        packets.push(order(5, 1));
        packets.hold(Ticks(9));
        packets.push(order(3, 2));
        assert_eq!(packets.next_time(), Some(Ticks(9)));
        packets.push(order(10, 3));
        assert_eq!(tags(packets), [2, 1, 3]);
    }

    #[tokio::test]
    async fn an_alarm_rings_at_its_time_and_can_be_set_earlier_and_later() {
        let mut alarm = Alarm::default();
        alarm.wait(Some(Ticks(0))).await;
        let far = now().saturating_add(Duration::from_secs(3600));
        tokio::select! {
            biased;
            () = alarm.wait(Some(far)) => panic!("an hour early"),
            () = tokio::task::yield_now() => {}
        }
        for _ in 0..3 {
            let soon = now().saturating_add(Duration::from_millis(3));
            alarm.wait(Some(soon)).await;
            assert!(now() >= soon);
        }
        tokio::select! {
            biased;
            () = alarm.wait(Some(Ticks::MAX)) => panic!("500 years early"),
            () = tokio::task::yield_now() => {}
        }
    }
}
