//! A packet for the supervisor of mlets, or from it. The first byte says how many descriptors come with it, whether some were
//! lost on the way, and whether the packet was longer than the buffer.
//!
//! A mlet is started only when the packet is a request that is encoded in this way alone, whole, and with a socket or a socket
//! and two pipes. Whatever can be read is said again in the same bytes.

#![no_main]

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::LazyLock;

use engine::sys::fd_passing::ReceivedMessage;
use engine::sys::supervisor::fuzz::{event_again, request_again, starts_a_mlet};
use libfuzzer_sys::fuzz_target;

/// SPAWN, as its first byte.
const SPAWN: u8 = 1;

static DESCRIPTOR: LazyLock<OwnedFd> = LazyLock::new(|| File::open("/dev/null").unwrap().into());

fuzz_target!(|input: &[u8]| {
    let Some((&choice, packet)) = input.split_first() else { return };
    let request = request_again(packet);
    let event = event_again(packet);
    for again in [&request, &event].into_iter().flatten() {
        assert_eq!(again, packet, "said again in other bytes");
    }
    let count = usize::from(choice % 6);
    let (fds_lost, cut) = (choice & 0x40 != 0, choice & 0x80 != 0);
    let fds = (0..count).map(|_| DESCRIPTOR.try_clone().unwrap()).collect();
    let received = ReceivedMessage { len: packet.len(), fds, fds_lost, cut };
    let is_wanted = request.is_some() && packet[0] == SPAWN;
    let may_start = is_wanted && matches!(count, 1 | 3) && !fds_lost && !cut;
    assert_eq!(starts_a_mlet(received, packet), may_start);
});
