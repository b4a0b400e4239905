//! At most 100 NSENDs in each second of the endpoint's clock.
#![no_std]
use monitor_guest::{clock, monitor, Monitor, Packet, Verdict, ALLOW};

const MOST: u32 = 100;

struct Rate {
    second: u64,
    count: u32,
}

impl Monitor for Rate {
    fn send(&mut self, _: &Packet) -> Verdict {
        let second = clock() / 1_000_000_000;
        if second != self.second {
            *self = Rate { second, count: 0 };
        }
        self.count += 1;
        if self.count > MOST { Verdict::refuse(3) } else { ALLOW }
    }
}

monitor!(Rate { second: 0, count: 0 }, Rate);
