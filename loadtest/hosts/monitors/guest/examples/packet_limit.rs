//! At most 1,000 NSENDs for as long as the certificate lives that names this program, in all sessions. How many are left
//! is told at the beginning of each.
#![no_std]
use core::fmt::Write;
use monitor_guest::{debug, keep, kept, monitor, Info, Monitor, Packet, Verdict, ALLOW};

const MOST: u16 = 1_000;

fn sent() -> u16 {
    let kept = kept();
    u16::from_be_bytes([kept[0], kept[1]])
}

struct Limit;

impl Monitor for Limit {
    fn begin(&mut self, info: &mut Info) {
        let _ = write!(info, "{} packets left", MOST.saturating_sub(sent()));
    }
    fn send(&mut self, _: &Packet) -> Verdict {
        let sent = sent();
        if sent >= MOST {
            debug("all packets are used up");
            return Verdict::refuse(5);
        }
        let mut bytes = kept();
        bytes[..2].copy_from_slice(&(sent + 1).to_be_bytes());
        keep(&bytes);
        ALLOW
    }
}

monitor!(Limit, Limit);
