//! Notifications that nobody has asked for yet, in the order in which they came.
//!
//! One is found among those of its socket and type, so that those that nobody ever asks for hold up no other.
//!
//! Not here: how much is kept at most (`exchange`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use packetlab::message::MessageType;

use crate::notification::Notification;

/// What a notification is about: its socket, and of what type it is.
type Place = (Option<u8>, MessageType);

/// Types of notifications that are about a socket.
const ABOUT_SOCKETS: [MessageType; 5] = [
    MessageType::NTAG,
    MessageType::NSTAT,
    MessageType::NDATA,
    MessageType::NDROP,
    MessageType::NBLOCK,
];

/// See above.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// Each with its number in the order in which all came. None of these is empty.
    queues: BTreeMap<Place, VecDeque<(u64, Notification)>>,
    /// Where each of these numbers is.
    places: BTreeMap<u64, Place>,
    next: u64,
    len: usize,
}

impl Kept {
    /// What keeping all of them costs, in bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The last that came.
    pub(crate) fn keep(&mut self, notification: Notification) {
        self.len += notification.kept_len();
        let place = (notification.sktid(), notification.message_type());
        self.queues.entry(place).or_default().push_back((self.next, notification));
        self.places.insert(self.next, place);
        self.next += 1;
    }

    /// The first of these sockets and types that is wanted.
    pub(crate) fn take(
        &mut self,
        sktids: &[u8],
        types: &[MessageType],
        is_wanted: impl Fn(&Notification) -> bool,
    ) -> Option<Notification> {
        let of_socket = |sktid: &u8| {
            let sktid = Some(*sktid);
            types.iter().map(move |message_type| (sktid, *message_type))
        };
        let first = self.first(sktids.iter().flat_map(of_socket), is_wanted)?;
        self.remove(first)
    }

    /// The first of any of these sockets.
    pub(crate) fn take_of(&mut self, sktids: &[u8]) -> Option<Notification> {
        self.take(sktids, &ABOUT_SOCKETS, |_| true)
    }

    /// The first, but of these sockets.
    pub(crate) fn take_but_of(&mut self, sktids: &BTreeSet<u8>) -> Option<Notification> {
        let is_other = |(sktid, _): &&Place| sktid.is_none_or(|sktid| !sktids.contains(&sktid));
        // The first at its place as well.
        let place = *self.places.values().find(is_other)?;
        self.remove((place, 0))
    }

    /// The number of the next that comes.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Drops all of this socket that came before the one of this number.
    pub(crate) fn forget(&mut self, sktid: u8, before: u64) {
        for message_type in ABOUT_SOCKETS {
            let place = (Some(sktid), message_type);
            let Some(queue) = self.queues.get_mut(&place) else { continue };
            let left = queue.partition_point(|(number, _)| *number < before);
            for (number, notification) in queue.drain(..left) {
                self.places.remove(&number);
                self.len -= notification.kept_len();
            }
            if queue.is_empty() {
                self.queues.remove(&place);
            }
        }
    }

    /// Where the first at these places is that is wanted.
    fn first(
        &self,
        places: impl Iterator<Item = Place>,
        is_wanted: impl Fn(&Notification) -> bool,
    ) -> Option<(Place, usize)> {
        let found = places.filter_map(|place| {
            let mut queue = self.queues.get(&place)?.iter().enumerate();
            let (at, (number, _)) = queue.find(|(_, (_, notification))| is_wanted(notification))?;
            Some((*number, place, at))
        });
        found.min().map(|(_, place, at)| (place, at))
    }

    fn remove(&mut self, (place, at): (Place, usize)) -> Option<Notification> {
        let queue = self.queues.get_mut(&place)?;
        let (number, notification) = queue.remove(at)?;
        self.places.remove(&number);
        if queue.is_empty() {
            self.queues.remove(&place);
        }
        self.len -= notification.kept_len();
        Some(notification)
    }
}

#[cfg(test)]
mod tests {
    use packetlab::message::{Family, Message, Packet, Status};
    use packetlab::time::Ticks;
    use proptest::prelude::*;

    use super::*;

    /// Of the sockets 0 to 2; RESUMD is about none.
    fn notification(sktid: u8, kind: u8, number: u64) -> Notification {
        let (time, packet) = (Ticks(number), Packet::Tcp { family: Family::Ipv4, data: b"data" });
        let message = match kind {
            0 => Message::Ntag { sktid, tag: 1, time, status: Status::SUCCESS },
            1 => Message::Ntag { sktid, tag: 2, time, status: Status::SUCCESS },
            2 => Message::Ndata { sktid, time, packet },
            _ => Message::Resumd,
        };
        let mut bytes = Vec::new();
        message.encode(&mut bytes).unwrap();
        Notification::new(message.message_type(), &bytes[4..], time)
    }

    fn tag_is_1(one: &Notification) -> bool {
        !matches!(one.message(), Message::Ntag { tag: 2, .. })
    }

    #[test]
    fn what_is_kept_of_others_is_not_looked_at() {
        let mut kept = Kept::default();
        for number in 0..1000 {
            kept.keep(notification(u8::from(number % 2 == 0), [0, 2][number % 2], 0));
        }
        let looked_at = std::cell::Cell::new(0);
        let is_wanted = |_: &Notification| {
            looked_at.set(looked_at.get() + 1);
            true
        };
        assert!(kept.take(&[2], &ABOUT_SOCKETS, is_wanted).is_none());
        assert!(kept.take(&[0], &[MessageType::NDATA], is_wanted).is_some());
        assert_eq!(looked_at.get(), 1);
    }

    proptest! {
        #[test]
        fn what_is_kept_comes_out_as_it_came_whatever_is_asked_for(
            steps in proptest::collection::vec((0_u8..12, 0_u8..3, 0_u8..4), 0..200)
        ) {
            let (mut kept, mut came) = (Kept::default(), Vec::<Notification>::new());
            for (what, sktid, kind) in steps {
                if what < 6 {
                    let one = notification(sktid, kind, kept.next());
                    kept.keep(one.clone());
                    came.push(one);
                } else if what == 6 && kind == 0 {
                    let before = kept.next() / 2;
                    kept.forget(sktid, before);
                    came.retain(|one| one.sktid() != Some(sktid) || one.came() >= Ticks(before));
                } else {
                    let claims = BTreeSet::from([sktid]);
                    let types = [MessageType::NTAG, MessageType::NDATA];
                    let is_wanted = |one: &Notification| match kind {
                        0 => one.sktid() == Some(sktid) && tag_is_1(one),
                        1 => one.sktid().is_some_and(|of| of != sktid),
                        _ => one.sktid() != Some(sktid),
                    };
                    let others: Vec<u8> = (0..3).filter(|other| *other != sktid).collect();
                    let taken = match kind {
                        0 => kept.take(&[sktid], &types, tag_is_1),
                        1 => kept.take_of(&others),
                        _ => kept.take_but_of(&claims),
                    };
                    let at = came.iter().position(is_wanted);
                    prop_assert_eq!(taken, at.map(|at| came.remove(at)));
                }
                let len: usize = came.iter().map(Notification::kept_len).sum();
                prop_assert_eq!((kept.len(), kept.places.len()), (len, came.len()));
            }
        }
    }
}
