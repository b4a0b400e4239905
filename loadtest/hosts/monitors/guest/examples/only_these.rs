//! Only these addresses and ports: TCP to them, and datagrams to them and from them. Everything else is refused.
#![no_std]
use monitor_guest::{monitor, Address, Monitor, Open, Packet, Verdict, ALLOW};

const ALLOWED: [([u8; 4], u16); 2] = [([192, 0, 2, 1], 80), ([192, 0, 2, 53], 53)];

fn judge(remote: &Address) -> Verdict {
    let is_it = |(ip, port): &([u8; 4], u16)| remote.ip == ip && remote.port == *port;
    if ALLOWED.iter().any(is_it) { ALLOW } else { Verdict::refuse(2) }
}

struct OnlyThese;

impl Monitor for OnlyThese {
    fn open(&mut self, open: &Open) -> Verdict {
        match open.protocol {
            6 => judge(&open.remote),
            17 => ALLOW,
            _ => Verdict::refuse(1),
        }
    }
    fn send(&mut self, packet: &Packet) -> Verdict {
        if packet.protocol == 17 { judge(&packet.remote) } else { ALLOW }
    }
    fn received(&mut self, packet: &Packet) -> Verdict {
        self.send(packet)
    }
}

monitor!(OnlyThese, OnlyThese);
