//! With which a monitor program is written: the protection of an endpoint's operator, who puts its digest into the
//! certificate that grants an experiment, and whose endpoint asks it before it carries anything out.
//!
//! ```ignore
//! #![no_std]
//! use monitor_guest::{monitor, Monitor, Open, Verdict, ALLOW};
//!
//! struct NoRaw;
//!
//! impl Monitor for NoRaw {
//!     fn open(&mut self, open: &Open) -> Verdict {
//!         if open.protocol == 0 { Verdict::refuse(1) } else { ALLOW }
//!     }
//! }
//!
//! monitor!(NoRaw, NoRaw);
//! ```
//!
//! What is not asked about by a monitor of its own is allowed. The monitor lives as long as a session, and its state
//! with it.
//!
//! Not here: the endpoint's side, which is the crate `monitors`.
//!
//! Invariant: unsafe code of monitors is here alone. All of it trusts the endpoint, and what it breaks is the monitor's own memory.

#![no_std]

mod memory;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The endpoint counts that as a refusal.
    core::arch::wasm32::unreachable()
}

// SAFETY: the endpoint has a function of this name and type (spec/monitors.md).
#[link(wasm_import_module = "env")]
extern "C" {
    fn read_vmem_region(address: u32, buffer: *mut u8, len: u32) -> i32;
}

/// What a monitor says.
#[derive(Clone, Copy)]
pub struct Verdict(i32);

/// It may be carried out.
pub const ALLOW: Verdict = Verdict(0);

impl Verdict {
    /// It may not, and the experimenter is told this code; 0 stands for none.
    pub const fn refuse(code: u16) -> Self {
        match code {
            0 | u16::MAX => Self(-1),
            code => Self(code as i32),
        }
    }

    /// As the endpoint reads it.
    pub fn number(self) -> i32 {
        self.0
    }
}

/// An address in network order, of 4 or 16 bytes, and a port. Empty and 0 where a message has none.
#[derive(Clone, Copy)]
pub struct Address<'a> {
    /// The bytes of the address.
    pub ip: &'a [u8],
    /// The port.
    pub port: u16,
}

impl Address<'_> {
    /// From the places where the endpoint has put them.
    ///
    /// # Safety
    /// There are as many bytes there.
    pub unsafe fn at(ip: *const u8, ip_len: u32, port: *const u8, port_len: u32) -> Self {
        let ip = if ip.is_null() { &[] } else { core::slice::from_raw_parts(ip, ip_len as usize) };
        let port = match port_len {
            2 if !port.is_null() => u16::from_be_bytes([*port, *port.add(1)]),
            _ => 0,
        };
        Self { ip, port }
    }
}

/// A socket is to be opened.
pub struct Open<'a> {
    /// The experimenter's number for it.
    pub sktid: u8,
    /// 0 for raw, 6 for TCP, 17 for UDP.
    pub protocol: u8,
    /// Where it is bound.
    pub local: Address<'a>,
    /// Where a TCP connection is made to.
    pub remote: Address<'a>,
}

/// Data is to be sent, or has been received.
pub struct Packet<'a> {
    /// The experimenter's number of the socket.
    pub sktid: u8,
    /// 0 for raw, 6 for TCP, 17 for UDP.
    pub protocol: u8,
    /// Where a datagram of UDP is sent to, or comes from.
    pub remote: Address<'a>,
    /// How long the data is: of a raw socket the whole packet, otherwise the payload.
    pub len: u32,
}

impl<'a> Packet<'a> {
    /// As the endpoint names its parts.
    pub fn new(sktid: u32, protocol: u32, remote: Address<'a>, len: u32) -> Self {
        Self { sktid: sktid as u8, protocol: protocol as u8, remote, len }
    }

    /// The data from there on; zeros behind its end.
    pub fn read(&self, at: u32, buffer: &mut [u8]) {
        read(at, buffer);
    }

    /// Whether the data begins so.
    pub fn begins_with(&self, beginning: &[u8]) -> bool {
        let mut byte = [0];
        self.len as usize >= beginning.len()
            && beginning.iter().zip(0..).all(|(expected, at)| {
                read(at, &mut byte);
                byte[0] == *expected
            })
    }
}

/// What a monitor is asked. Everything is allowed that it does not judge.
pub trait Monitor {
    /// NOPEN.
    fn open(&mut self, _: &Open<'_>) -> Verdict {
        ALLOW
    }
    /// NCLOSE.
    fn close(&mut self, _sktid: u8) -> Verdict {
        ALLOW
    }
    /// NSEND.
    fn send(&mut self, _: &Packet<'_>) -> Verdict {
        ALLOW
    }
    /// NDATA.
    fn received(&mut self, _: &Packet<'_>) -> Verdict {
        ALLOW
    }
    /// NCAP.
    fn capture(&mut self, _sktid: u8) -> Verdict {
        ALLOW
    }
}

/// The endpoint's clock, in nanoseconds since 1970.
pub fn clock() -> u64 {
    let mut bytes = [0; 8];
    read(0x1001_0000, &mut bytes);
    u64::from_be_bytes(bytes)
}

/// Reads the endpoint's memory; zeros where nothing is.
pub fn read(address: u32, buffer: &mut [u8]) {
    // SAFETY: the endpoint writes no more than it is told.
    unsafe {
        read_vmem_region(address, buffer.as_mut_ptr(), buffer.len() as u32);
    }
}

/// Makes a program of a monitor: its value at the beginning of a session, and its type.
#[macro_export]
macro_rules! monitor {
    ($value:expr, $kind:ty) => {
        static mut MONITOR: $kind = $value;

        // SAFETY: the endpoint alone calls it, one call at a time, and puts as many bytes into the memory as it says.
        #[no_mangle]
        pub unsafe extern "C" fn check_pktlab_message_nopen(
            sktid: u32, _family: u32, protocol: u32, _buffer_len: u32,
            local_len: u32, local_port_len: u32, remote_len: u32, remote_port_len: u32,
            local: *const u8, local_port: *const u8, remote: *const u8, remote_port: *const u8,
            _persistent: *mut u8, _persistent_len: u32,
        ) -> i32 {
            let open = $crate::Open {
                sktid: sktid as u8,
                protocol: protocol as u8,
                local: $crate::Address::at(local, local_len, local_port, local_port_len),
                remote: $crate::Address::at(remote, remote_len, remote_port, remote_port_len),
            };
            $crate::Monitor::open(&mut MONITOR, &open).number()
        }

        // SAFETY: the endpoint alone calls it, one call at a time, and puts as many bytes into the memory as it says.
        #[no_mangle]
        pub unsafe extern "C" fn check_pktlab_message_nclose(
            sktid: u32, _persistent: *mut u8, _persistent_len: u32,
        ) -> i32 {
            $crate::Monitor::close(&mut MONITOR, sktid as u8).number()
        }

        // SAFETY: the endpoint alone calls it, one call at a time, and puts as many bytes into the memory as it says.
        #[no_mangle]
        pub unsafe extern "C" fn check_pktlab_message_nsend(
            sktid: u32, _family: u32, protocol: u32, _time: u64, _tag: u32,
            ip_len: u32, ip: *const u8, port_len: u32, port: *const u8, len: u32,
            _persistent: *mut u8, _persistent_len: u32,
        ) -> i32 {
            let remote = $crate::Address::at(ip, ip_len, port, port_len);
            let packet = $crate::Packet::new(sktid, protocol, remote, len);
            $crate::Monitor::send(&mut MONITOR, &packet).number()
        }

        // SAFETY: the endpoint alone calls it, one call at a time, and puts as many bytes into the memory as it says.
        #[no_mangle]
        pub unsafe extern "C" fn check_pktlab_message_ndata(
            sktid: u32, _family: u32, protocol: u32, _time: u64,
            ip_len: u32, ip: *const u8, port_len: u32, port: *const u8, len: u32,
            _persistent: *mut u8, _persistent_len: u32,
        ) -> i32 {
            let remote = $crate::Address::at(ip, ip_len, port, port_len);
            let packet = $crate::Packet::new(sktid, protocol, remote, len);
            $crate::Monitor::received(&mut MONITOR, &packet).number()
        }

        // SAFETY: the endpoint alone calls it, one call at a time, and puts as many bytes into the memory as it says.
        #[no_mangle]
        pub unsafe extern "C" fn check_pktlab_message_ncap(
            sktid: u32, _family: u32, _protocol: u32, _time: u64,
            _persistent: *mut u8, _persistent_len: u32,
        ) -> i32 {
            $crate::Monitor::capture(&mut MONITOR, sktid as u8).number()
        }
    };
}
