//! At most 100 NSENDs leave in each second of the endpoint's clock, whenever they were asked for. What is to leave later than
//! a minute from now is refused, and so is data of a stream that is not to leave at once: what follows it would leave with it.
#![no_std]
use monitor_guest::{clock, monitor, Monitor, Packet, Verdict, ALLOW};

const MOST: u32 = 100;
const SECONDS: usize = 60;

struct Rate {
    /// For each of the seconds ahead, which it is and how many leave in it.
    leaving: [(u64, u32); SECONDS],
}

impl Monitor for Rate {
    fn send(&mut self, packet: &Packet) -> Verdict {
        let now = clock();
        let (second, is_later) = (packet.time.max(now) / 1_000_000_000, packet.time > now);
        let is_stream = packet.protocol == 6;
        if second >= now / 1_000_000_000 + SECONDS as u64 || is_stream && is_later {
            return Verdict::refuse(4);
        }
        let of_second = &mut self.leaving[second as usize % SECONDS];
        if of_second.0 != second {
            *of_second = (second, 0);
        }
        of_second.1 += 1;
        if of_second.1 > MOST { Verdict::refuse(3) } else { ALLOW }
    }
}

monitor!(Rate { leaving: [(0, 0); SECONDS] }, Rate);
