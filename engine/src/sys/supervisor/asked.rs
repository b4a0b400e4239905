//! What a packet asks the supervisor for: its bytes, and the descriptors that have come with them.
//!
//! Not here: the bytes alone (`message.rs`), and what is done (`process.rs`). Invariant: a packet asks for a mlet only when all
//! of it can be read and the mlet's ends have come with it, and those alone.

use super::message::SupervisorRequest;
use super::output::MletOutput;
use crate::sys::children::Graces;
use crate::sys::fd_passing::ReceivedMessage;
use crate::sys::mlet_ends::MletEnds;
use crate::sys::mlet_owner::MletOwner;

/// What the manager, or a shard, wants.
#[derive(Debug)]
pub(super) enum Asked {
    /// A mlet.
    Spawn {
        owner: MletOwner,
        environment: Vec<(String, String)>,
        output: MletOutput,
        ends: MletEnds,
    },
    /// The same, but its ends could not be taken: this process is at its limit of open files.
    SpawnWithoutEnds(MletOwner),
    /// The end of all mlets.
    EndAll(Graces),
    /// The end of one.
    EndOne { owner: MletOwner, pid: i32, graces: Graces },
    /// Whether a mlet could be started.
    Prove,
}

impl Asked {
    /// What was received into `buffer`; `None` if that is nothing that a manager says.
    pub(super) fn of(received: ReceivedMessage, buffer: &[u8]) -> Option<Self> {
        let bytes = buffer.get(..received.len).filter(|_| !received.cut)?;
        let request = SupervisorRequest::decode(bytes)?;
        if let (SupervisorRequest::Spawn { owner, .. }, true) = (&request, received.fds_lost) {
            return Some(Self::SpawnWithoutEnds(*owner));
        }
        match (request, MletEnds::from_descriptors(received.fds).ok()?) {
            (SupervisorRequest::Spawn { owner, environment, output }, Some(ends)) => {
                Some(Self::Spawn { owner, environment, output, ends })
            }
            (SupervisorRequest::EndAll(graces), None) => Some(Self::EndAll(graces)),
            (SupervisorRequest::EndOne { owner, pid, graces }, None) => {
                Some(Self::EndOne { owner, pid, graces })
            }
            (SupervisorRequest::Prove, None) => Some(Self::Prove),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::*;
    use crate::sys::socket::session_pair;

    fn asked(bytes: &[u8], ends: usize, fds_lost: bool, cut: bool) -> Option<Asked> {
        let fds: Vec<OwnedFd> = (0..ends).map(|_| session_pair().unwrap().0).collect();
        Asked::of(ReceivedMessage { len: bytes.len(), fds, fds_lost, cut }, bytes)
    }

    #[test]
    fn a_mlet_is_asked_for_only_by_a_whole_packet_with_all_its_ends() {
        let (owner, output) = (MletOwner::Session(7), MletOutput::Inherited);
        let spawn = SupervisorRequest::Spawn { owner, environment: Vec::new(), output };
        let spawn = spawn.encode().unwrap();
        for ends in 0..6 {
            let is_asked = matches!(asked(&spawn, ends, false, false), Some(Asked::Spawn { .. }));
            assert_eq!(is_asked, matches!(ends, 1 | 3), "{ends} descriptors");
            assert!(asked(&spawn, ends, false, true).is_none(), "a packet that was cut");
            assert!(asked(&[&spawn[..], b"x"].concat(), ends, false, false).is_none());
            let lost = asked(&spawn, ends, true, false);
            assert!(matches!(lost, Some(Asked::SpawnWithoutEnds(of)) if of == owner));
        }
        let prove = SupervisorRequest::Prove.encode().unwrap();
        assert!(matches!(asked(&prove, 0, false, false), Some(Asked::Prove)));
        assert!(asked(&prove, 1, false, false).is_none(), "what nobody takes");
    }
}
