//! No raw sockets: NOPEN of one is refused with code 1.
#![no_std]
use monitor_guest::{monitor, Monitor, Open, Verdict, ALLOW};

struct NoRaw;

impl Monitor for NoRaw {
    fn open(&mut self, open: &Open) -> Verdict {
        if open.protocol == 0 { Verdict::refuse(1) } else { ALLOW }
    }
}

monitor!(NoRaw, NoRaw);
