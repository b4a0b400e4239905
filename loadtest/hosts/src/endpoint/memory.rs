//! The endpoint's virtual memory, which MREAD and MWRITE see (spec/protocol.md 1.12).
//!
//! ```text
//! 0x1000_0000  address counts, protocols, buffers    0x1000_0100 IPv4 list   0x1000_1000 IPv6 list
//! 0x1001_0000  clock, buffers in all and in use
//! 0x1002_0000  DNS server counts                     +0x010 IPv4 list        +0x100 IPv6 list
//! 0x1002_0200  what becomes of the fields of raw headers, IPv4               +0x010 IPv6
//! 0x1003_0000  host id
//! 0x2000_0000  sockets, 0x400 each by sktid: state, addresses, buffer, drops, failed send, mask, controls
//! 0x3000_0000  time of the latest send, 8 bytes each by tag
//! ```
//!
//! Everything else reads as zeros. Only a socket's mask and control bytes can be written, and, while it is open,
//! the size of its buffer and its failed send.

use std::net::IpAddr;

use packetlab::message::Status;
use packetlab::time::Ticks;

use super::machine::Machine;
use super::sockets::table::{BUFFERS_LEN_MAX, Entry, SocketTable};

const ADDRESS_COUNTS: u32 = 0x1000_0000;
const IPV4_LIST: u32 = 0x1000_0100;
const IPV6_LIST: u32 = 0x1000_1000;
const CLOCK: u32 = 0x1001_0000;
const BUFFERS: u32 = 0x1001_0010;
const DNS_COUNTS: u32 = 0x1002_0000;
const DNS_IPV4_LIST: u32 = 0x1002_0010;
const DNS_IPV6_LIST: u32 = 0x1002_0100;
const IPV4_HEADER: u32 = 0x1002_0200;
const IPV6_HEADER: u32 = 0x1002_0210;
const HOST_ID: u32 = 0x1003_0000;
const HOST_ID_LEN: usize = 256;
const SOCKETS: u32 = 0x2000_0000;
const SOCKET_LEN: u32 = 0x400;
const SOCKETS_END: u32 = SOCKETS + 256 * SOCKET_LEN;
/// From the start of a socket.
const BUFFER_LEN: u32 = 0x40;
const SEND_ERROR: u32 = 0x60;
const MASK: u32 = 0x70;
const CONTROL_BYTES: u32 = 0x100;
const SEND_TIMES: u32 = 0x3000_0000;

/// Bits of the supported protocols.
const RAW_TCP_UDP: u32 = 0b111;

/// What Linux makes of a raw IPv4 header: version, header length, service, total length, identification, flags,
/// fragment offset, time to live, protocol, checksum, source, destination. 0 leaves as it is, 1 changes, 2 fills in
/// if it is zero.
const IPV4_HEADER_BEHAVIOUR: [u8; 12] = [0, 0, 0, 1, 2, 0, 0, 0, 0, 1, 2, 0];
/// The same of IPv6: version, traffic class, flow label, payload length, next header, hop limit, source,
/// destination.
const IPV6_HEADER_BEHAVIOUR: [u8; 8] = [0; 8];

/// What is at `address` now, `len` bytes of it.
pub(super) fn read(
    table: &SocketTable,
    machine: &Machine,
    now: Ticks,
    address: u32,
    len: usize,
) -> Vec<u8> {
    let mut view = View { start: address, bytes: vec![0; len] };
    if view.overlaps(ADDRESS_COUNTS, HOST_ID + 0x1000) {
        show_machine(&mut view, table, machine, now);
    }
    for sktid in view.overlapping(SOCKETS, SOCKET_LEN, 256) {
        show_socket(&mut view, table, u8::try_from(sktid).unwrap_or(u8::MAX));
    }
    for tag in view.overlapping(SEND_TIMES, 8, 0x1_0000) {
        let tag = u16::try_from(tag).unwrap_or(u16::MAX);
        if let Some(time) = table.send_time(tag) {
            view.show(SEND_TIMES + 8 * u32::from(tag), &time.0.to_be_bytes());
        }
    }
    view.bytes
}

/// Writes `data` to the memory at `address`.
///
/// # Errors
/// `EMEMBADADR`, and nothing is written, unless all of it goes to one cell that can be written.
pub(super) fn write(table: &mut SocketTable, address: u32, data: &[u8]) -> Result<(), Status> {
    let bad_address = Status::EMEMBADADR;
    if !(SOCKETS..SOCKETS_END).contains(&address) {
        return Err(bad_address);
    }
    let sktid = u8::try_from((address - SOCKETS) / SOCKET_LEN).map_err(|_| bad_address)?;
    let offset = (address - SOCKETS) % SOCKET_LEN;
    let mut controls = table.controls(sktid);
    match offset {
        CONTROL_BYTES.. => {
            patch(&mut controls.bytes, offset - CONTROL_BYTES, data)?;
            *table.controls_mut(sktid) = controls;
        }
        MASK.. => {
            let mut mask = controls.mask.to_be_bytes();
            patch(&mut mask, offset - MASK, data)?;
            table.controls_mut(sktid).mask = u16::from_be_bytes(mask);
        }
        SEND_ERROR.. => {
            let entry = table.entry_mut(sktid).ok_or(bad_address)?;
            let mut cell = send_error(entry);
            patch(&mut cell, offset - SEND_ERROR, data)?;
            let [status, tag @ ..] = cell;
            let is_set = cell != [0; 3];
            entry.send_error = is_set.then(|| (Status(status.into()), u16::from_be_bytes(tag)));
        }
        BUFFER_LEN.. => {
            let entry = table.entry_mut(sktid).ok_or(bad_address)?;
            let mut len = entry.buffer_len().to_be_bytes();
            patch(&mut len, offset - BUFFER_LEN, data)?;
            entry.set_buffer_len(u32::from_be_bytes(len));
        }
        _ => return Err(bad_address),
    }
    Ok(())
}

/// Overwrites a part of a cell.
fn patch(cell: &mut [u8], at: u32, data: &[u8]) -> Result<(), Status> {
    let part = cell.get_mut(at as usize..).and_then(|rest| rest.get_mut(..data.len()));
    part.ok_or(Status::EMEMBADADR)?.copy_from_slice(data);
    Ok(())
}

/// The latest failed send: its status in one byte, where every status of a packet fits, and its tag.
fn send_error(entry: &Entry) -> [u8; 3] {
    let (status, tag) = entry.send_error.unwrap_or((Status::SUCCESS, 0));
    let ([_, status], [high, low]) = (status.0.to_be_bytes(), tag.to_be_bytes());
    [status, high, low]
}

fn show_machine(view: &mut View, table: &SocketTable, machine: &Machine, now: Ticks) {
    let facts = machine.facts();
    let buffers_max = BUFFERS_LEN_MAX.to_be_bytes();
    view.show(ADDRESS_COUNTS, &[count(facts.ipv4.len()), count(facts.ipv6.len())]);
    view.show(ADDRESS_COUNTS + 2, &RAW_TCP_UDP.to_be_bytes());
    view.show(ADDRESS_COUNTS + 6, &buffers_max);
    let masked = facts.ipv4.iter().flat_map(|(address, mask)| [address.octets(), mask.octets()]);
    view.show(IPV4_LIST, &masked.flatten().collect::<Vec<u8>>());
    view.show(IPV6_LIST, &facts.ipv6.iter().flat_map(|a| a.octets()).collect::<Vec<u8>>());
    view.show(CLOCK, &now.0.to_be_bytes());
    view.show(BUFFERS, &buffers_max);
    view.show(BUFFERS + 4, &table.buffers_used().to_be_bytes());
    view.show(IPV4_HEADER, &IPV4_HEADER_BEHAVIOUR);
    view.show(IPV6_HEADER, &IPV6_HEADER_BEHAVIOUR);
    view.show(DNS_COUNTS, &[count(facts.dns_ipv4.len()), count(facts.dns_ipv6.len())]);
    view.show(DNS_IPV4_LIST, &facts.dns_ipv4.iter().flat_map(|a| a.octets()).collect::<Vec<u8>>());
    view.show(DNS_IPV6_LIST, &facts.dns_ipv6.iter().flat_map(|a| a.octets()).collect::<Vec<u8>>());
    let host_id = machine.host_id().as_bytes();
    view.show(HOST_ID, host_id.get(..HOST_ID_LEN).unwrap_or(host_id));
}

fn show_socket(view: &mut View, table: &SocketTable, sktid: u8) {
    let base = SOCKETS + SOCKET_LEN * u32::from(sktid);
    let controls = table.controls(sktid);
    view.show(base + MASK, &controls.mask.to_be_bytes());
    view.show(base + CONTROL_BYTES, &controls.bytes);
    let Some(entry) = table.entry(sktid) else { return };
    let [state] = (entry.state as i8).to_be_bytes();
    view.show(base, &[entry.socket.family as u8, entry.socket.protocol as u8, state]);
    let remote = entry.remote;
    view.show(base + 0x10, &octets(entry.local.ip()));
    view.show(base + 0x20, &remote.map(|remote| octets(remote.ip())).unwrap_or_default());
    view.show(base + 0x30, &entry.local.port().to_be_bytes());
    view.show(base + 0x32, &remote.map_or(0, |remote| remote.port()).to_be_bytes());
    view.show(base + BUFFER_LEN, &entry.buffer_len().to_be_bytes());
    view.show(base + 0x44, &entry.used.to_be_bytes());
    let (bytes, packets) = entry.dropped;
    view.show(base + 0x50, &bytes.to_be_bytes());
    view.show(base + 0x54, &packets.to_be_bytes());
    view.show(base + SEND_ERROR, &send_error(entry));
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// A full list of 256 shows as 255: the cell has one byte.
fn count(len: usize) -> u8 {
    u8::try_from(len).unwrap_or(u8::MAX)
}

/// A piece of memory that is being read.
struct View {
    start: u32,
    bytes: Vec<u8>,
}

impl View {
    /// Shows `content`, which is at `address`, as far as it is in view.
    fn show(&mut self, address: u32, content: &[u8]) {
        let hidden = self.start.saturating_sub(address) as usize;
        let at = address.saturating_sub(self.start) as usize;
        let Some(content) = content.get(hidden..) else { return };
        let Some(target) = self.bytes.get_mut(at..) else { return };
        let len = content.len().min(target.len());
        if let (Some(target), Some(content)) = (target.get_mut(..len), content.get(..len)) {
            target.copy_from_slice(content);
        }
    }

    fn overlaps(&self, start: u32, end: u32) -> bool {
        let (from, to) = (u64::from(self.start), u64::from(self.start) + self.bytes.len() as u64);
        from < end.into() && to > start.into()
    }

    /// Which of the `count` cells of `len` bytes from `start` on are in view, at least in part.
    fn overlapping(&self, start: u32, len: u32, count: u32) -> std::ops::Range<u32> {
        let end = u64::from(self.start) + self.bytes.len() as u64;
        let first = self.start.saturating_sub(start) / len;
        let beyond = end.saturating_sub(start.into()).div_ceil(len.into()).min(count.into());
        first.min(count)..u32::try_from(beyond).unwrap_or(count)
    }
}

#[cfg(test)]
mod tests {
    use super::super::chain_limits::ChainLimits;
    use super::*;

    fn machine() -> Machine {
        Machine::new([127, 8, 0, 1].into(), "endpoint 7".to_owned())
    }

    fn see(table: &SocketTable, address: u32, len: u16) -> Vec<u8> {
        read(table, &machine(), Ticks(0x0102_0304_0506_0708), address, len.into())
    }

    #[test]
    fn the_clock_can_be_read_whole_and_in_part() {
        let table = SocketTable::default();
        assert_eq!(see(&table, CLOCK, 8), [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(see(&table, CLOCK - 2, 4), [0, 0, 1, 2]);
        assert_eq!(see(&table, CLOCK + 6, 4), [7, 8, 0, 0]);
    }

    #[test]
    fn the_machine_shows_itself() {
        let table = SocketTable::new(ChainLimits::default());
        let counts = see(&table, ADDRESS_COUNTS, 10);
        assert_eq!(counts[0], count(machine().facts().ipv4.len()));
        assert_eq!(counts[2..], [0, 0, 0, 7, 4, 0, 0, 0]);
        assert_eq!(see(&table, IPV4_LIST, 8), [127, 8, 0, 1, 255, 0, 0, 0]);
        assert_eq!(see(&table, HOST_ID, 12), b"endpoint 7\0\0");
        assert_eq!(see(&table, BUFFERS, 8), [4, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(see(&table, IPV4_HEADER, 13), [0, 0, 0, 1, 2, 0, 0, 0, 0, 1, 2, 0, 0]);
        assert_eq!(see(&table, IPV6_HEADER, 8), [0; 8]);
        let counts = see(&table, DNS_COUNTS, 2);
        assert_eq!(counts[0], count(machine().facts().dns_ipv4.len()));
        assert_eq!(see(&table, DNS_IPV4_LIST, 0x40).len(), 0x40);
    }

    #[test]
    fn unmapped_memory_is_zeros_up_to_its_end() {
        let table = SocketTable::default();
        for (address, len) in
            [(0, 100), (0x1002_0220, 20), (0x4000_0000, 0xFFFF), (0xFFFF_0000, 0xFFFF)]
        {
            assert_eq!(see(&table, address, len), vec![0; len.into()], "{address:#x}");
        }
    }

    #[test]
    fn the_size_of_a_buffer_and_a_failed_send_can_be_written_while_the_socket_is_open() {
        use packetlab::message::{Family, Protocol, Socket};

        let mut table = SocketTable::default();
        let socket = Socket { sktid: 7, family: Family::Ipv4, protocol: Protocol::Udp };
        let socket_7 = SOCKETS + 7 * SOCKET_LEN;
        let cells = [(BUFFER_LEN, &[0, 0, 1, 2][..]), (SEND_ERROR, &[0x39, 4, 5])];
        for (cell, data) in cells {
            assert_eq!(write(&mut table, socket_7 + cell, data), Err(Status::EMEMBADADR));
        }
        let place = table.limits().take_socket().unwrap();
        let local = ([127, 8, 0, 1], 7).into();
        let number =
            table.insert(socket, 100, local, super::super::sockets::table::State::Open, place);
        for (cell, data) in cells {
            assert_eq!(write(&mut table, socket_7 + cell, data), Ok(()));
            assert_eq!(see(&table, socket_7 + cell, 4)[..data.len()], *data);
        }
        assert_eq!(table.readable_len(number), Some(0x102));
        // The mlet has seen it, and makes room for the next.
        assert_eq!(write(&mut table, socket_7 + SEND_ERROR, &[0; 3]), Ok(()));
        table.sent(number, 9, 1, Ticks(1), Err(Status::EPKTNOTSENT));
        assert_eq!(see(&table, socket_7 + SEND_ERROR, 3), [0x41, 0, 9]);
        assert_eq!(write(&mut table, socket_7 + SEND_ERROR, &[0]), Ok(()));
        assert_eq!(see(&table, socket_7 + SEND_ERROR, 3), [0, 0, 9]);
        for (cell, len) in [(BUFFER_LEN, 5), (BUFFER_LEN + 4, 1), (SEND_ERROR, 4), (0x50, 1)] {
            let result = write(&mut table, socket_7 + cell, &vec![1; len]);
            assert_eq!(result, Err(Status::EMEMBADADR), "{cell:#x}");
        }
    }

    #[test]
    fn only_masks_and_control_bytes_can_be_written_of_a_socket_that_is_not_open() {
        let mut table = SocketTable::default();
        let socket_7 = SOCKETS + 7 * SOCKET_LEN;
        for (address, data, result) in [
            (socket_7 + MASK, &[0, 0x3E][..], Ok(())),
            (socket_7 + MASK + 1, &[0x3C], Ok(())),
            (socket_7 + CONTROL_BYTES, &[1; 128], Ok(())),
            (socket_7 + CONTROL_BYTES + 127, &[2], Ok(())),
            (socket_7 + MASK, &[], Ok(())),
            (socket_7 + MASK, &[0; 3], Err(Status::EMEMBADADR)),
            (socket_7 + MASK + 1, &[0; 2], Err(Status::EMEMBADADR)),
            (socket_7 + MASK + 2, &[0], Err(Status::EMEMBADADR)),
            (socket_7 + CONTROL_BYTES, &[0; 129], Err(Status::EMEMBADADR)),
            (socket_7, &[0], Err(Status::EMEMBADADR)),
            (socket_7 + CONTROL_BYTES + 128, &[0], Err(Status::EMEMBADADR)),
            (CLOCK, &[0; 8], Err(Status::EMEMBADADR)),
            (SOCKETS_END, &[0; 2], Err(Status::EMEMBADADR)),
            (0, &[0], Err(Status::EMEMBADADR)),
            (0xFFFF_FFFE, &[0], Err(Status::EMEMBADADR)),
        ] {
            assert_eq!(write(&mut table, address, data), result, "{address:#x} {data:?}");
        }
        assert_eq!(table.controls(7).mask, 0x003C);
        assert_eq!(see(&table, socket_7 + MASK, 3), [0, 0x3C, 0]);
        assert_eq!(see(&table, socket_7 + CONTROL_BYTES + 126, 3), [1, 2, 0]);
        assert_eq!(table.controls(6).mask, 0);
    }
}
