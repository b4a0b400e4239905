//! At most 4 sockets at once, of IPv4 alone; and captures that end within a minute.
#![no_std]
use monitor_guest::{clock, monitor, outcomes, Capture, Monitor, Open, Outcomes, Verdict, ALLOW};

const MOST: usize = 4;
const MINUTE: u64 = 60_000_000_000;

struct FewSockets {
    is_open: [bool; 256],
}

impl Monitor for FewSockets {
    fn open(&mut self, open: &Open) -> Verdict {
        let count = self.is_open.iter().filter(|is_open| **is_open).count();
        match open.family {
            4 if count < MOST => ALLOW,
            4 => Verdict::refuse(6),
            _ => Verdict::refuse(7),
        }
    }
    fn capture(&mut self, capture: &Capture) -> Verdict {
        if capture.end <= clock() + MINUTE { ALLOW } else { Verdict::refuse(8) }
    }
}

// What was allowed may fail all the same, as where a number is in use.
impl Outcomes for FewSockets {
    fn opened(&mut self, open: &Open, status: u16) {
        self.is_open[open.sktid as usize] |= status == 0;
    }
    fn closed(&mut self, sktid: u8, status: u16) {
        self.is_open[sktid as usize] &= status != 0;
    }
}

monitor!(FewSockets { is_open: [false; 256] }, FewSockets);
outcomes!();
