//! HTTP alone: TCP to port 80, of which each piece that is sent begins with a method.
#![no_std]
use monitor_guest::{monitor, Monitor, Open, Packet, Verdict, ALLOW};

struct HttpOnly;

impl Monitor for HttpOnly {
    fn open(&mut self, open: &Open) -> Verdict {
        let is_http = open.protocol == 6 && open.remote.port == 80;
        if is_http { ALLOW } else { Verdict::refuse(1) }
    }
    fn send(&mut self, packet: &Packet) -> Verdict {
        let methods: [&[u8]; 3] = [b"GET ", b"HEAD ", b"OPTIONS "];
        let has_method = methods.iter().any(|method| packet.begins_with(method));
        if has_method { ALLOW } else { Verdict::refuse(2) }
    }
}

monitor!(HttpOnly, HttpOnly);
