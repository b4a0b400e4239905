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
//! What is not asked about by a monitor of its own is allowed, and with [`outcomes`] it is told what became of that. The
//! monitor lives as long as a session, and its state with it; [`kept`] bytes outlive it.
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
    fn persistent_memory_flush() -> i32;
    fn endpoint_debug_enabled() -> i32;
    fn monitor_debug(text: *const u8);
}

/// What a monitor says.
#[derive(Clone, Copy)]
pub struct Verdict(i32);

/// It may be carried out.
pub const ALLOW: Verdict = Verdict(0);

impl Verdict {
    /// It may not, and the experimenter is told this code. 0 stands for none, and so does 65,535, which endpoints take for a crash.
    pub const fn refuse(code: u16) -> Self {
        match code {
            0 | u16::MAX => Self(-1),
            code => Self(code as i32),
        }
    }
}

/// As the endpoint reads it.
impl From<Verdict> for i32 {
    fn from(verdict: Verdict) -> Self {
        verdict.0
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
    /// 4 or 6.
    pub family: u8,
    /// 0 for raw, 6 for TCP, 17 for UDP.
    pub protocol: u8,
    /// So many bytes of what is received may wait there.
    pub buffer_len: u32,
    /// Where it is bound.
    pub local: Address<'a>,
    /// Where a TCP connection is made to.
    pub remote: Address<'a>,
}

/// Data is to be sent, or has been received.
pub struct Packet<'a> {
    /// The experimenter's number of the socket.
    pub sktid: u8,
    /// 4 or 6.
    pub family: u8,
    /// 0 for raw, 6 for TCP, 17 for UDP.
    pub protocol: u8,
    /// By which the experimenter knows what is to be sent; 0 of what was received.
    pub tag: u16,
    /// What is to be sent leaves then, or at once if that is past, by the endpoint's [`clock`]; a stream's data not before
    /// what it was to send before. What was received came then.
    pub time: u64,
    /// Where a datagram of UDP is sent to, or comes from.
    pub remote: Address<'a>,
    /// How long the data is: of a raw socket the whole packet, otherwise the payload.
    pub len: u32,
}

impl<'a> Packet<'a> {
    /// As the endpoint names its parts.
    pub fn new(
        [sktid, family, protocol]: [u32; 3], time: u64, tag: u32, remote: Address<'a>, len: u32,
    ) -> Self {
        let (sktid, family, protocol) = (sktid as u8, family as u8, protocol as u8);
        Self { sktid, family, protocol, tag: tag as u16, time, remote, len }
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

/// A raw socket is to receive what a filter wants; [`read`] reads the filter from 0 on, its type first.
pub struct Capture {
    /// The experimenter's number of the socket.
    pub sktid: u8,
    /// 4 or 6.
    pub family: u8,
    /// It ends then, by the endpoint's [`clock`].
    pub end: u64,
}

/// What a monitor says at the beginning of its session: the manager logs it. At most 65,536 bytes; the rest is cut off.
pub struct Info<'a> {
    room: &'a mut [u8],
    len: usize,
}

impl<'a> Info<'a> {
    /// Nothing yet, at the place that the endpoint has allocated for it.
    ///
    /// # Safety
    /// There are 65,536 bytes there that nothing else uses.
    pub unsafe fn at(place: *mut u8) -> Self {
        Self { room: core::slice::from_raw_parts_mut(place, 0x1_0000), len: 0 }
    }

    /// How many bytes it has.
    pub fn len(&self) -> usize {
        self.len
    }
}

impl core::fmt::Write for Info<'_> {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        for (to, from) in self.room[self.len..].iter_mut().zip(text.bytes()) {
            *to = from;
            self.len += 1;
        }
        Ok(())
    }
}

/// What a monitor is asked. Everything is allowed that it does not judge.
pub trait Monitor {
    /// The session begins.
    fn begin(&mut self, _: &mut Info<'_>) {}
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
    fn capture(&mut self, _: &Capture) -> Verdict {
        ALLOW
    }
}

/// What a monitor is told once the endpoint has decided about what all monitors have allowed, if [`outcomes`] stands behind
/// [`monitor`]. `status` is what the experimenter is answered, 0 if it is carried out (`spec/protocol.md` names the others).
pub trait Outcomes {
    /// Of NOPEN: 0 says that the socket is open, and not that a connection stands.
    fn opened(&mut self, _: &Open<'_>, _status: u16) {}
    /// Of NCLOSE.
    fn closed(&mut self, _sktid: u8, _status: u16) {}
    /// Of NSEND: 0 says that it is to leave in its time, and not that it has left.
    fn sent(&mut self, _: &Packet<'_>, _status: u16) {}
    /// Of NCAP.
    fn capturing(&mut self, _: &Capture, _status: u16) {}
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

/// How many bytes outlive a session.
pub const KEPT_LEN: usize = 256;

/// Where they are; null before the endpoint has said it.
static mut KEPT: *mut u8 = core::ptr::null_mut();

/// The bytes that outlive the session: those that were kept last under the certificate that names this program, at its
/// place among the monitors of a session. Zeros at first.
pub fn kept() -> [u8; KEPT_LEN] {
    let mut bytes = [0; KEPT_LEN];
    // SAFETY: where it is not null, there are as many bytes, which nothing else names during a call.
    unsafe {
        if !KEPT.is_null() {
            core::ptr::copy_nonoverlapping(KEPT, bytes.as_mut_ptr(), KEPT_LEN);
        }
    }
    bytes
}

/// Keeps these bytes. The endpoint takes them when the call is over; whoever must not lose them by a crash of the endpoint
/// asks for a [`flush`].
pub fn keep(bytes: &[u8; KEPT_LEN]) {
    // SAFETY: where it is not null, there are as many bytes, which nothing else names during a call.
    unsafe {
        if !KEPT.is_null() {
            core::ptr::copy_nonoverlapping(bytes.as_ptr(), KEPT, KEPT_LEN);
        }
    }
}

/// Has the endpoint write what is kept now; false if it cannot, or has nowhere to.
pub fn flush() -> bool {
    // SAFETY: it takes nothing, and reads the bytes that are kept.
    unsafe { persistent_memory_flush() == 0 }
}

/// Where the kept bytes are, as the endpoint says in each call.
///
/// # Safety
/// There are [`KEPT_LEN`] bytes there, for the monitor alone.
pub unsafe fn keep_at(place: *mut u8) {
    KEPT = place;
}

/// Whether the operator wants to read what monitors write for their authors (`--monitor-debug`).
pub fn debug_enabled() -> bool {
    // SAFETY: it takes nothing.
    unsafe { endpoint_debug_enabled() != 0 }
}

/// Longest line of [`debug`], in bytes; endpoints show no more.
const DEBUG_LEN_MAX: usize = 200;

/// Writes a line for the monitor's author, up to its first NUL, in the log of an endpoint whose operator wants to read it.
pub fn debug(line: &str) {
    // The last byte stays 0, which ends the line.
    let mut text = [0; DEBUG_LEN_MAX + 1];
    for (to, from) in text[..DEBUG_LEN_MAX].iter_mut().zip(line.bytes()) {
        *to = from;
    }
    // SAFETY: the endpoint reads as far as the 0.
    unsafe { monitor_debug(text.as_ptr()) }
}

/// Makes a program of a monitor: its value at the beginning of a session, and its type.
#[macro_export]
macro_rules! monitor {
    ($value:expr, $kind:ty) => {
        static mut MONITOR: $kind = $value;

        // SAFETY: the endpoint alone calls it, one call at a time, and has allocated as many bytes for the text and for what is
        // kept.
        #[no_mangle]
        pub unsafe extern "C" fn initialize(info: *mut u8, persistent: *mut u8, _len: u32) -> u32 {
            $crate::keep_at(persistent);
            let mut info = $crate::Info::at(info);
            $crate::Monitor::begin(&mut MONITOR, &mut info);
            info.len() as u32
        }

        // SAFETY: the endpoint alone calls it, one call at a time, and puts as many bytes into the memory as it says.
        #[no_mangle]
        pub unsafe extern "C" fn check_pktlab_message_ndata(
            sktid: u32, family: u32, protocol: u32, time: u64,
            ip_len: u32, ip: *const u8, port_len: u32, port: *const u8, len: u32,
            persistent: *mut u8, _persistent_len: u32,
        ) -> i32 {
            $crate::keep_at(persistent);
            let remote = $crate::Address::at(ip, ip_len, port, port_len);
            let packet = $crate::Packet::new([sktid, family, protocol], time, 0, remote, len);
            $crate::Monitor::received(&mut MONITOR, &packet).into()
        }

        $crate::of_requests! {
            Monitor() -> i32;
            check_pktlab_message_nopen open;
            check_pktlab_message_nclose close;
            check_pktlab_message_nsend send;
            check_pktlab_message_ncap capture;
        }
    };
}

/// Has the monitor told of [`Outcomes`], each of which is one more call.
#[macro_export]
macro_rules! outcomes {
    () => {
        $crate::of_requests! {
            Outcomes(status) -> ();
            pktlab_message_nopen_result opened;
            pktlab_message_nclose_result closed;
            pktlab_message_nsend_result sent;
            pktlab_message_ncap_result capturing;
        }
    };
}

/// The functions that are asked about requests, and those that are told of them, which have one argument more.
#[doc(hidden)]
#[macro_export]
macro_rules! of_requests {
    (
        $of:ident($($status:ident)?) -> $answer:ty;
        $nopen:ident $open:ident;
        $nclose:ident $close:ident;
        $nsend:ident $send:ident;
        $ncap:ident $capture:ident;
    ) => {
        // SAFETY: the endpoint alone calls it, one call at a time, and puts as many bytes into the memory as it says.
        #[no_mangle]
        pub unsafe extern "C" fn $nopen(
            sktid: u32, family: u32, protocol: u32, buffer_len: u32,
            local_len: u32, local_port_len: u32, remote_len: u32, remote_port_len: u32,
            local: *const u8, local_port: *const u8, remote: *const u8, remote_port: *const u8,
            persistent: *mut u8, _persistent_len: u32, $($status: u32)?
        ) -> $answer {
            $crate::keep_at(persistent);
            let open = $crate::Open {
                sktid: sktid as u8,
                family: family as u8,
                protocol: protocol as u8,
                buffer_len,
                local: $crate::Address::at(local, local_len, local_port, local_port_len),
                remote: $crate::Address::at(remote, remote_len, remote_port, remote_port_len),
            };
            $crate::$of::$open(&mut MONITOR, &open $(, $status as u16)?).into()
        }

        // SAFETY: the endpoint alone calls it, one call at a time, and puts as many bytes into the memory as it says.
        #[no_mangle]
        pub unsafe extern "C" fn $nclose(
            sktid: u32, persistent: *mut u8, _persistent_len: u32, $($status: u32)?
        ) -> $answer {
            $crate::keep_at(persistent);
            $crate::$of::$close(&mut MONITOR, sktid as u8 $(, $status as u16)?).into()
        }

        // SAFETY: the endpoint alone calls it, one call at a time, and puts as many bytes into the memory as it says.
        #[no_mangle]
        pub unsafe extern "C" fn $nsend(
            sktid: u32, family: u32, protocol: u32, time: u64, tag: u32,
            ip_len: u32, ip: *const u8, port_len: u32, port: *const u8, len: u32,
            persistent: *mut u8, _persistent_len: u32, $($status: u32)?
        ) -> $answer {
            $crate::keep_at(persistent);
            let remote = $crate::Address::at(ip, ip_len, port, port_len);
            let packet = $crate::Packet::new([sktid, family, protocol], time, tag, remote, len);
            $crate::$of::$send(&mut MONITOR, &packet $(, $status as u16)?).into()
        }

        // SAFETY: the endpoint alone calls it, one call at a time, and puts as many bytes into the memory as it says.
        #[no_mangle]
        pub unsafe extern "C" fn $ncap(
            sktid: u32, family: u32, _protocol: u32, end: u64,
            persistent: *mut u8, _persistent_len: u32, $($status: u32)?
        ) -> $answer {
            $crate::keep_at(persistent);
            let capture = $crate::Capture { sktid: sktid as u8, family: family as u8, end };
            $crate::$of::$capture(&mut MONITOR, &capture $(, $status as u16)?).into()
        }
    };
}
