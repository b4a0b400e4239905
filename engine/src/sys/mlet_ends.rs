//! The mlet's ends of what leads to it, on their way to it.
//!
//! Not here: our ends (`shard/mlet_streams.rs`), and where a mlet finds its own (`supervisor/spawn.rs`). Invariant: the
//! descriptors of one mlet go together, in one order, or not at all.

use std::os::fd::{BorrowedFd, OwnedFd};

use super::fd_passing;

/// What a mlet has of its session.
#[derive(Debug)]
pub struct MletEnds {
    /// Its socket, of which its descriptor 0 is made.
    pub socket: OwnedFd,
    /// What it reads and what it writes, if it is offered pipes.
    pub pipes: Option<[OwnedFd; 2]>,
}

impl MletEnds {
    /// A socket alone.
    #[must_use]
    pub fn of_socket(socket: OwnedFd) -> Self {
        Self { socket, pipes: None }
    }

    /// Sends a packet with them. They come back whole if that does not go without waiting.
    ///
    /// # Errors
    /// All of them.
    pub fn send(self, to: BorrowedFd<'_>, packet: &[u8]) -> Result<(), Self> {
        let sent = match &self.pipes {
            None => fd_passing::send(to, packet, &[&self.socket]),
            Some([reads, writes]) => fd_passing::send(to, packet, &[&self.socket, reads, writes]),
        };
        sent.map(drop).map_err(|_| self)
    }

    /// The descriptors in the order in which they are sent.
    pub(super) fn into_descriptors(self) -> Vec<OwnedFd> {
        std::iter::once(self.socket).chain(self.pipes.into_iter().flatten()).collect()
    }

    /// Those of descriptors that have come together; none of none, and the descriptors that are something else.
    pub(super) fn from_descriptors(mut fds: Vec<OwnedFd>) -> Result<Option<Self>, Vec<OwnedFd>> {
        match (fds.pop(), fds.pop(), fds.pop(), fds.is_empty()) {
            (None, ..) => Ok(None),
            (Some(socket), None, ..) => Ok(Some(Self::of_socket(socket))),
            (Some(writes), Some(reads), Some(socket), true) => {
                Ok(Some(Self { socket, pipes: Some([reads, writes]) }))
            }
            _ => Err(fds),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::sys::{pipes, socket};

    #[test]
    fn a_mlets_ends_go_together_in_their_order_and_come_back_whole_if_they_do_not() {
        let (here, there) = UnixStream::pair().unwrap();
        for is_offered in [false, true] {
            let (ours, socket) = socket::session_pair().unwrap();
            let (ours, mlets) = match is_offered {
                true => {
                    let ([to, _], mlets) = pipes::session_pipes().unwrap();
                    (to, Some(mlets))
                }
                false => (ours, None),
            };
            std::fs::File::from(ours).write_all(b"first").unwrap();
            assert!(MletEnds { socket, pipes: mlets }.send(here.as_fd(), b"packet").is_ok());
            let received = fd_passing::receive(there.as_fd(), &mut [0; 8]).unwrap();
            assert_eq!(received.fds.len(), if is_offered { 3 } else { 1 });
            let ends = MletEnds::from_descriptors(received.fds).unwrap().unwrap();
            let reads = ends.pipes.as_ref().map_or(&ends.socket, |[reads, _]| reads);
            assert_eq!(socket::waiting_len(reads), 5);

            let (full, _unread) = UnixStream::pair().unwrap();
            while fd_passing::send(full.as_fd(), &[0; 4096], &[] as &[OwnedFd]).is_ok() {}
            let ends = ends.send(full.as_fd(), b"packet").unwrap_err();
            assert_eq!(ends.into_descriptors().len(), if is_offered { 3 } else { 1 });
        }
    }

    #[test]
    fn descriptors_that_are_no_mlets_ends_are_told_from_none() {
        let some = |count| (0..count).map(|_| socket::session_pair().unwrap().0).collect();
        assert!(matches!(MletEnds::from_descriptors(some(0)), Ok(None)));
        for count in [2, 4, 5] {
            assert!(MletEnds::from_descriptors(some(count)).is_err(), "{count}");
        }
    }
}
