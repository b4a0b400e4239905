//! The table without sockets: fairness, and what bounds its memory.

use std::net::{IpAddr, Ipv4Addr};

use packetlab::message::{Family, MessageType, Protocol};

use super::super::super::ledger::{ALL_WAITING_MAX, Ledger, WAITING_MAX};
use super::entry::UNITS_MAX;
use super::*;

const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// A table with these UDP sockets, each with room for 100 bytes.
fn table(sktids: &[u8]) -> (SocketTable, Vec<SocketNumber>) {
    let mut table = SocketTable::default();
    let numbers = sktids
        .iter()
        .map(|&sktid| {
            let socket = Socket { sktid, family: Family::Ipv4, protocol: Protocol::Udp };
            insert(&mut table, socket, 100, State::Open)
        })
        .collect();
    (table, numbers)
}

fn insert(table: &mut SocketTable, socket: Socket, buffer_len: u32, state: State) -> SocketNumber {
    let place = table.limits().take_socket().unwrap();
    table.insert(socket, buffer_len, ANY, state, place)
}

fn receive(table: &mut SocketTable, number: SocketNumber, data: &[u8]) {
    table.received(number, Ticks(1), Packet::Udp { remote: ANY, data });
}

/// Types and sktids of all messages that can be told now.
fn told(table: &mut SocketTable) -> Vec<(MessageType, u8)> {
    std::iter::from_fn(|| table.pop())
        .map(|message| (MessageType(message[0]), message[4]))
        .collect()
}

#[test]
fn sockets_take_turns_so_that_a_flooded_one_does_not_silence_the_others() {
    let (mut table, numbers) = table(&[7, 1, 255]);
    for _ in 0..3 {
        receive(&mut table, numbers[0], b"flood");
    }
    receive(&mut table, numbers[1], b"x");
    receive(&mut table, numbers[2], b"x");
    let sktids: Vec<u8> = told(&mut table).iter().map(|(_, sktid)| *sktid).collect();
    assert_eq!(sktids, [1, 7, 255, 7, 7]);
}

#[test]
fn a_late_report_finds_no_socket_of_its_number() {
    let (mut table, numbers) = table(&[1]);
    receive(&mut table, numbers[0], b"x");
    table.remove(1).unwrap();
    let socket = Socket { sktid: 1, family: Family::Ipv4, protocol: Protocol::Udp };
    let new = insert(&mut table, socket, 100, State::Open);
    receive(&mut table, numbers[0], b"late");
    table.sent(numbers[0], 7, 4, Ticks(1), Ok(()));
    table.ended(numbers[0], State::Reset, Ticks(1));
    assert!(told(&mut table).is_empty());
    assert_eq!((table.send_time(7), table.find(new).unwrap().state), (None, State::Open));
}

#[test]
fn what_a_closed_connection_has_still_to_send_counts_until_it_is_gone() {
    const LEN: usize = WAITING_MAX - ORDER_LEN;
    let mut table = SocketTable::default();
    let open = |table: &mut SocketTable, sktid, state| {
        let socket = Socket { sktid, family: Family::Ipv4, protocol: Protocol::Tcp };
        insert(table, socket, 100, state)
    };
    let data = vec![0; LEN];
    let packet = Packet::Tcp { family: Family::Ipv4, data: &data };
    let admit = |table: &mut SocketTable, sktid| {
        table.admit_send(sktid, Ticks(0), Ticks(0), &packet, |_| false)
    };
    let full = Err(Status::ESYSNOBUFS);
    for told in [false, true] {
        let number = open(&mut table, 1, State::PeerClosed);
        assert_eq!(admit(&mut table, 1), Ok(None));
        assert_eq!(table.remove(1), Ok(Some(number)));
        open(&mut table, 2, State::Open);
        assert_eq!(admit(&mut table, 2), full);
        if told {
            table.sent(number, 7, LEN, Ticks(1), Ok(()));
        } else {
            table.forget(number);
        }
        assert_eq!(admit(&mut table, 2), Ok(None));
        let number = table.remove(2).unwrap().unwrap();
        table.forget(number);
    }
    // Nothing is lost of these.
    for state in [State::PeerClosed, State::Ended, State::Reset, State::Opening] {
        open(&mut table, 3, state);
        assert_eq!(table.remove(3), Ok(None), "{state:?}");
    }
}

#[test]
fn lines_for_the_log_that_nobody_takes_hold_up_requests() {
    let mut table = SocketTable::default();
    (0..BACKLOG_MAX).for_each(|_| table.log("raw sockets"));
    assert!(table.is_backlogged());
    table.pop().unwrap();
    assert!(!table.is_backlogged());
}

#[test]
fn however_small_only_so_many_packets_wait() {
    let (mut table, numbers) = table(&[1]);
    for _ in 0..UNITS_MAX + 5 {
        receive(&mut table, numbers[0], b"");
    }
    let told = told(&mut table);
    assert_eq!(told.len(), UNITS_MAX + 1);
    assert_eq!(told.last(), Some(&(MessageType::NDROP, 1)));
    assert_eq!(table.entry(1).unwrap().dropped, (0, 5));
}

#[test]
fn of_events_that_are_held_back_the_oldest_are_forgotten() {
    let (mut table, numbers) = table(&[1]);
    table.controls_mut(1).mask = hold_back::NTAG;
    for tag in 1..=UNITS_MAX + 5 {
        table.sent(numbers[0], u16::try_from(tag).unwrap(), 1, Ticks(1), Ok(()));
    }
    assert!(!table.is_backlogged());
    assert!(told(&mut table).is_empty());
    table.controls_mut(1).mask = 0;
    assert!(table.is_backlogged());
    let first = table.pop().unwrap();
    assert_eq!(first[5..7], [0, 6]);
    assert_eq!(told(&mut table).len(), UNITS_MAX - 1);
    assert!(!table.is_backlogged());
}

#[test]
fn data_is_received_however_many_events_are_held_back() {
    let (mut table, numbers) = table(&[1]);
    table.controls_mut(1).mask = hold_back::NTAG;
    for _ in 0..UNITS_MAX {
        table.sent(numbers[0], 7, 4, Ticks(1), Ok(()));
    }
    assert_eq!(table.entry(1).unwrap().events, UNITS_MAX);
    assert_eq!(table.readable_len(numbers[0]), Some(100));
    receive(&mut table, numbers[0], b"x");
    assert_eq!(told(&mut table), [(MessageType::NDATA, 1)]);
}

#[test]
fn buffers_as_large_as_there_is_share_it_and_each_socket_keeps_a_part() {
    const PACKET: u32 = 1 << 14;
    let mut table = SocketTable::default();
    let open = |table: &mut SocketTable, sktid| {
        let socket = Socket { sktid, family: Family::Ipv4, protocol: Protocol::Udp };
        insert(table, socket, u32::MAX, State::Open)
    };
    // The first two take all they can get.
    let data = vec![0; PACKET as usize];
    for sktid in [0, 1] {
        let number = open(&mut table, sktid);
        while table.entry(sktid).unwrap().dropped == (0, 0) {
            receive(&mut table, number, &data);
        }
    }
    let used = |table: &SocketTable, sktid| table.entry(sktid).unwrap().used;
    assert_eq!(used(&table, 0), BUFFERS_LEN_MAX / 2 + BUFFER_SHARE);
    assert_eq!(used(&table, 1), BUFFER_SHARE);
    // All others have their parts.
    for sktid in 2..=255 {
        let number = open(&mut table, sktid);
        assert_eq!(table.readable_len(number), Some(BUFFER_SHARE as usize));
        for _ in 0..=BUFFER_SHARE / PACKET {
            receive(&mut table, number, &data);
        }
        assert_eq!(used(&table, sktid), BUFFER_SHARE);
    }
    assert_eq!(table.buffers_used(), BUFFERS_LEN_MAX);
    // What one gives back another can have.
    table.remove(0).unwrap();
    let number = SocketNumber { sktid: 1, number: 2 };
    assert_eq!(table.readable_len(number), Some((BUFFERS_LEN_MAX / 2) as usize));
}

#[test]
fn a_buffer_made_smaller_than_its_content_takes_no_more_and_loses_nothing() {
    let (mut table, numbers) = table(&[1]);
    receive(&mut table, numbers[0], b"12345678");
    table.entry_mut(1).unwrap().set_buffer_len(4);
    assert_eq!(table.readable_len(numbers[0]), Some(0));
    receive(&mut table, numbers[0], b"9");
    assert_eq!(table.entry(1).unwrap().dropped, (1, 1));
    assert_eq!(told(&mut table), [(MessageType::NDATA, 1), (MessageType::NDROP, 1)]);
    receive(&mut table, numbers[0], b"1234");
    assert_eq!(told(&mut table), [(MessageType::NDATA, 1)]);
}

/// Packets without data, for a time that never comes: each costs memory.
#[test]
fn what_waits_to_be_sent_is_bounded_by_what_it_costs_and_over_all_sessions() {
    let place = size_of::<(Ticks, u64)>() + size_of::<super::super::schedule::Action>();
    assert!(ORDER_LEN >= 2 * place, "{place}");
    let ledger = std::sync::Arc::<Ledger>::default();
    let new = || {
        let mut table = SocketTable::new(ChainLimits::of_session(&[], &ledger));
        let socket = Socket { sktid: 1, family: Family::Ipv4, protocol: Protocol::Udp };
        insert(&mut table, socket, 100, State::Open);
        table
    };
    let send = |table: &mut SocketTable, data: &[u8]| {
        let packet = Packet::Udp { remote: "192.0.2.1:7".parse().unwrap(), data };
        table.admit_send(1, Ticks::MAX, Ticks(0), &packet, |_| false)
    };
    let mut first = new();
    let count = (0..1_000_000).take_while(|_| send(&mut first, b"").is_ok()).count();
    assert_eq!(count, WAITING_MAX / ORDER_LEN);
    assert_eq!(send(&mut first, b"").unwrap_err(), Status::ESYSNOBUFS);
    let large = vec![0; WAITING_MAX - ORDER_LEN];
    let fill = || {
        let mut table = new();
        send(&mut table, &large).map(|_| table)
    };
    let others: Vec<_> = std::iter::from_fn(|| fill().ok()).take(99).collect();
    assert_eq!(1 + others.len(), ALL_WAITING_MAX / WAITING_MAX);
    // A session that has little may always send.
    let mut last = new();
    assert!(send(&mut last, b"x").is_ok());
    assert_eq!(send(&mut last, &large).unwrap_err(), Status::ESYSNOBUFS);
    drop(others);
    assert!(send(&mut last, &large[1000..]).is_ok());
}

/// The NDATA that monitors are to be asked about next.
fn unchecked(table: &mut SocketTable) -> (SocketNumber, Vec<u8>) {
    match table.next() {
        Some(News::Unchecked(number, ndata)) => (number, ndata),
        other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_overtakes_data_that_monitors_have_not_passed() {
    let (mut table, numbers) = table(&[1, 2]);
    table.have_monitors();
    receive(&mut table, numbers[0], b"x");
    table.sent(numbers[0], 7, 1, Ticks(1), Ok(()));
    assert!(told(&mut table).is_empty());
    // That of another socket does.
    table.sent(numbers[1], 7, 1, Ticks(1), Ok(()));
    assert_eq!(told(&mut table), [(MessageType::NTAG, 2)]);
    let (number, ndata) = unchecked(&mut table);
    assert!(told(&mut table).is_empty());
    table.checked(number, Checked::Passed(ndata.clone()));
    assert_eq!(table.pop(), Some(ndata));
    assert_eq!(told(&mut table), [(MessageType::NTAG, 1)]);
    assert_eq!(table.buffers_used(), 0);
}

#[test]
fn data_that_monitors_drop_leaves_its_room_and_an_nblock_in_its_place() {
    let (mut table, numbers) = table(&[1]);
    table.have_monitors();
    let nblock = vec![MessageType::NBLOCK.0, 0, 0, 13, 1];
    for (told_of, types) in [
        (Some(nblock), vec![MessageType::NBLOCK, MessageType::NTAG]),
        (None, vec![MessageType::NTAG]),
    ] {
        receive(&mut table, numbers[0], &[0; 100]);
        table.sent(numbers[0], 7, 1, Ticks(1), Ok(()));
        assert_eq!(table.buffers_used(), 100);
        let (number, _) = unchecked(&mut table);
        table.checked(number, Checked::Blocked(told_of));
        assert_eq!(table.buffers_used(), 0);
        assert_eq!(told(&mut table).iter().map(|(told, _)| *told).collect::<Vec<_>>(), types);
    }
}

#[test]
fn checks_and_what_may_be_told_take_turns() {
    let (mut table, numbers) = table(&[1]);
    table.have_monitors();
    let mut turns = String::new();
    for _ in 0..3 {
        receive(&mut table, numbers[0], b"x");
    }
    let (number, ndata) = unchecked(&mut table);
    table.checked(number, Checked::Passed(ndata));
    for _ in 0..5 {
        match table.next() {
            Some(News::Message(_)) => turns.push('t'),
            Some(News::Unchecked(number, ndata)) => {
                turns.push('c');
                table.checked(number, Checked::Passed(ndata));
            }
            None => turns.push('-'),
        }
    }
    assert_eq!(turns, "tctct");
}

#[test]
fn sockets_take_turns_with_monitors_so_that_a_flooded_one_does_not_silence_the_others() {
    let (mut table, numbers) = table(&[1, 7, 255]);
    table.have_monitors();
    receive(&mut table, numbers[0], b"flood");
    let mut asked_about = Vec::new();
    for _ in 0..4 {
        // One more is always there.
        receive(&mut table, numbers[0], b"flood");
        if asked_about.is_empty() {
            receive(&mut table, numbers[2], b"x");
            receive(&mut table, numbers[1], b"x");
        }
        let (number, _) = unchecked(&mut table);
        asked_about.push(number.sktid);
        table.checked(number, Checked::Blocked(None));
        // The turn of what may be told.
        table.checks_first = false;
    }
    assert_eq!(asked_about, [1, 7, 255, 1]);
}

#[test]
fn blocked_data_of_a_flood_does_not_grow_without_bounds() {
    let (mut table, numbers) = table(&[1]);
    table.have_monitors();
    for _ in 0..2 * UNITS_MAX {
        receive(&mut table, numbers[0], b"x");
        let number = loop {
            if let Some(News::Unchecked(number, _)) = table.next() {
                break number;
            }
        };
        let nblock = vec![MessageType::NBLOCK.0, 0, 0, 13, 1];
        table.controls_mut(1).mask = hold_back::NBLOCK;
        table.checked(number, Checked::Blocked(Some(nblock)));
    }
    table.controls_mut(1).mask = 0;
    assert_eq!(told(&mut table).len(), UNITS_MAX);
}
