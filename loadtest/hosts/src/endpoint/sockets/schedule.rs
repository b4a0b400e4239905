//! What a socket has to do, by time.
//!
//! Not here: doing it, and what wakes it on time (`alarm`).
//!
//! Invariant: orders come out by time, those of one time in the order they were given. What a stream sends stays
//! in the order it was given whatever its times: nothing is due before its predecessor. The end of a stream is due
//! at its own time, but not before what it was ordered to send before.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use packetlab::time::Ticks;

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
}
