//! A clock that wakes a task on time, to microseconds.
//!
//! Not here: what is to be done then.

use std::future::pending;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use packetlab::time::Ticks;
use tokio::io::unix::AsyncFd;

use crate::clock::now;
use crate::watched::watched;

/// Wakes its task at a time of the real-time clock.
///
/// The runtime's own timers count whole milliseconds. A timerfd is as precise as the kernel's, costs
/// nothing while it waits (a spinning thread would cost a core, and here are thousands of endpoints),
/// and follows the clock when that is set.
#[derive(Debug, Default)]
pub struct Alarm {
    timer: Option<AsyncFd<Timer>>,
    armed: Option<Ticks>,
}

impl Alarm {
    /// Returns after this time, or a few microseconds later. May be abandoned.
    pub async fn wait_for(&mut self, time: Duration) {
        self.wait(Some(now().saturating_add(time))).await;
    }

    /// Returns at `time`, or at once if that has passed; never without a time. May be abandoned.
    pub(crate) async fn wait(&mut self, time: Option<Ticks>) {
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
