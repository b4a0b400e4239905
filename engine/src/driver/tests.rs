//! Both drivers do the same with the same operations, on real sockets.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::libc;
use nix::sys::eventfd::EventFd;

use super::Stream::{Pipe, Socket};
use super::*;
use crate::sys::pipes::PIPE_LEN;

const GROUP: [GroupSize; 1] = [GroupSize { count: 2, len: 1024 }];

/// Longer than any completion takes that is under way.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs `test` on each driver.
fn on_both(test: impl Fn(&mut dyn Driver<u32>)) {
    test(&mut Uring::new(&GROUP).unwrap());
    test(&mut Epoll::new(&GROUP).unwrap());
}

/// What the next `count` completions led to, by token.
fn completed(driver: &mut dyn Driver<u32>, count: usize) -> HashMap<u32, Event> {
    let mut events = HashMap::new();
    let until = driver.clocks().0 + PATIENCE;
    while events.len() < count {
        driver.wait(Some(PATIENCE)).unwrap();
        assert!(driver.clocks().0 < until, "nothing completes; there are {events:?}");
        while let Some(Completion { token, event }) = driver.next_completion() {
            assert!(events.insert(token, event).is_none(), "{token} completed twice");
        }
    }
    assert_eq!(events.len(), count);
    events
}

fn assert_idle(driver: &mut dyn Driver<u32>) {
    driver.wait(Some(Duration::ZERO)).unwrap();
    assert_eq!(driver.completions(), 0);
}

fn bytes_of(driver: &mut dyn Driver<u32>, event: Event) -> Vec<u8> {
    let Event::Received(Ok(received)) = event else { panic!("{event:?}") };
    let bytes = driver.bytes(&received).to_vec();
    driver.give_back(received);
    bytes
}

fn error_of(event: &Event) -> Option<i32> {
    match event {
        Event::Received(Err(error)) | Event::Sent(_, Err(error)) | Event::Accepted(Err(error)) => {
            error.raw_os_error()
        }
        _ => None,
    }
}

fn outgoing(bytes: &[u8]) -> Outgoing {
    Outgoing { block: bytes.into(), start: 0, end: bytes.len() }
}

/// A pair as sessions have them, with the other end for the test.
fn pair(driver: &mut dyn Driver<u32>) -> (OwnedFd, UnixStream) {
    let (ours, mlets) = driver.session_pair().unwrap();
    (ours, mlets.into())
}

#[test]
fn a_receive_waits_for_bytes_and_then_for_the_end() {
    on_both(|driver| {
        let (ours, mut other) = pair(driver);
        driver.receive(Socket(ours.as_fd()), 0, 1);
        assert_idle(driver);
        other.write_all(b"first").unwrap();
        let event = completed(driver, 1).remove(&1).unwrap();
        assert_eq!(bytes_of(driver, event), b"first");
        // Both are there before the next receive begins.
        other.write_all(b"last").unwrap();
        drop(other);
        for expected in [&b"last"[..], b""] {
            driver.receive(Socket(ours.as_fd()), 0, 2);
            let event = completed(driver, 1).remove(&2).unwrap();
            assert_eq!(bytes_of(driver, event), expected);
        }
        driver.close(ours);
    });
}

#[test]
fn a_long_stream_comes_whole_and_in_order() {
    let sent: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    on_both(|driver| {
        let (ours, mut other) = pair(driver);
        let bytes = sent.clone();
        let writer = std::thread::spawn(move || other.write_all(&bytes).unwrap());
        let mut came = Vec::new();
        loop {
            driver.receive(Socket(ours.as_fd()), 0, 1);
            let event = completed(driver, 1).remove(&1).unwrap();
            match bytes_of(driver, event) {
                bytes if bytes.is_empty() => break,
                bytes => came.extend(bytes),
            }
        }
        writer.join().unwrap();
        assert!(came == sent);
        driver.close(ours);
    });
}

#[test]
fn a_send_waits_for_room_and_leaves_what_does_not_fit() {
    on_both(|driver| {
        let (ours, mut other) = pair(driver);
        let mut left = 8 << 20;
        driver.send(Socket(ours.as_fd()), outgoing(&vec![7; left]), 1);
        let mut sent_len = 0;
        let mut read = vec![0; 1 << 20];
        while left > 0 {
            driver.wait(Some(Duration::from_millis(1))).unwrap();
            while let Some(Completion { event, .. }) = driver.next_completion() {
                let Event::Sent(block, Ok(len)) = event else { panic!("{event:?}") };
                sent_len += len;
                assert!(len > 0 && sent_len <= block.len());
                if sent_len < block.len() {
                    let rest = Outgoing { start: sent_len, end: block.len(), block };
                    driver.send(Socket(ours.as_fd()), rest, 1);
                }
            }
            if sent_len > (8 << 20) - left {
                left -= other.read(&mut read).unwrap();
            }
        }
        assert_eq!(sent_len, 8 << 20);
        driver.close(ours);
    });
}

#[test]
fn a_receive_linked_to_a_send_begins_when_all_has_left() {
    on_both(|driver| {
        let (ours, mut other) = pair(driver);
        let (source, mut feeder) = pair(driver);
        let len = 4 << 20;
        driver.send_then_receive(
            (Socket(ours.as_fd()), outgoing(&vec![7; len]), 1),
            (Socket(source.as_fd()), 0, 2),
        );
        feeder.write_all(b"there already").unwrap();
        driver.wait(Some(Duration::from_millis(20))).unwrap();
        assert_eq!(driver.completions(), 0, "most of it has found no room");
        let reader = std::thread::spawn(move || {
            other.read_exact(&mut vec![0; len]).unwrap();
            other
        });
        let mut events = completed(driver, 2);
        assert!(matches!(events[&1], Event::Sent(_, Ok(sent)) if sent == len));
        let event = events.remove(&2).unwrap();
        assert_eq!(bytes_of(driver, event), b"there already");
        drop(reader.join().unwrap());
        driver.close(ours);
        driver.close(source);
    });
}

#[test]
fn a_send_that_fails_cancels_the_receive_that_was_to_follow() {
    on_both(|driver| {
        let (ours, other) = pair(driver);
        let (source, mut feeder) = pair(driver);
        feeder.write_all(b"kept").unwrap();
        drop(other);
        driver.send_then_receive(
            (Socket(ours.as_fd()), outgoing(b"vain"), 1),
            (Socket(source.as_fd()), 0, 2),
        );
        let events = completed(driver, 2);
        assert_eq!(error_of(&events[&1]), Some(libc::EPIPE));
        assert_eq!(error_of(&events[&2]), Some(libc::ECANCELED));
        driver.receive(Socket(source.as_fd()), 0, 3);
        let event = completed(driver, 1).remove(&3).unwrap();
        assert_eq!(bytes_of(driver, event), b"kept");
        driver.close(ours);
        driver.close(source);
    });
}

#[test]
fn whatever_is_under_way_on_a_socket_can_be_cancelled() {
    on_both(|driver| {
        let (ours, mut other) = pair(driver);
        let (source, _feeder) = pair(driver);
        driver.receive(Socket(ours.as_fd()), 0, 1);
        driver.send_then_receive(
            (Socket(ours.as_fd()), outgoing(&vec![7; 4 << 20]), 2),
            (Socket(source.as_fd()), 0, 3),
        );
        assert_idle(driver);
        driver.cancel(ours.as_fd(), 4);
        let events = completed(driver, 4);
        assert_eq!(error_of(&events[&1]), Some(libc::ECANCELED));
        assert_eq!(error_of(&events[&3]), Some(libc::ECANCELED));
        // A part had left before, and is told, or it would be sent again.
        let Event::Sent(_, Ok(sent)) = events[&2] else { panic!("{:?}", events[&2]) };
        assert!((1..4 << 20).contains(&sent), "{sent} bytes");
        assert!(matches!(events[&4], Event::CancelDone));
        assert_idle(driver);
        other.set_nonblocking(true).unwrap();
        let mut came = 0;
        let mut read = vec![0; 1 << 20];
        while let Ok(len) = other.read(&mut read) {
            came += len;
        }
        assert_eq!(came, sent);
        driver.close(ours);
        driver.close(source);
    });
}

#[test]
fn a_cancellation_ends_nothing_on_other_descriptors() {
    on_both(|driver| {
        let (one, mut feeder) = pair(driver);
        let (other, _other_feeder) = pair(driver);
        // What is over on the one, and what begins on the other then, may have the same key.
        driver.receive(Socket(one.as_fd()), 0, 1);
        feeder.write_all(b"over").unwrap();
        let event = completed(driver, 1).remove(&1).unwrap();
        bytes_of(driver, event);
        driver.receive(Socket(other.as_fd()), 0, 2);
        for token in [3, 4] {
            driver.cancel(one.as_fd(), token);
            assert!(matches!(completed(driver, 1)[&token], Event::CancelDone));
        }
        assert_idle(driver);
        driver.receive(Socket(one.as_fd()), 0, 5);
        driver.cancel(other.as_fd(), 6);
        let events = completed(driver, 2);
        assert_eq!(error_of(&events[&2]), Some(libc::ECANCELED));
        assert_idle(driver);
        driver.cancel(one.as_fd(), 7);
        assert_eq!(error_of(&completed(driver, 2)[&5]), Some(libc::ECANCELED));
        driver.close(one);
        driver.close(other);
    });
}

/// The kernel looks at every operation that waits if it is told only a descriptor, and cancels one that it is told at once.
#[test]
fn a_ring_names_the_operation_that_it_cancels_where_there_is_but_one() {
    let mut ring = Uring::new(&GROUP).unwrap();
    let (ours, mut other) = pair(&mut ring);
    let on_it = ours.as_fd();
    assert_eq!(ring.sole_operation(on_it), None);
    ring.send(Socket(on_it), outgoing(b"sent"), 1);
    assert!(ring.sole_operation(on_it).is_some());
    completed(&mut ring, 1);
    assert_eq!(ring.sole_operation(on_it), None, "it is over");
    ring.receive(Socket(on_it), 0, 2);
    assert!(ring.sole_operation(on_it).is_some(), "though it may have the key of the send");
    let (source, _feeder) = pair(&mut ring);
    ring.send_then_receive(
        (Socket(on_it), outgoing(&vec![7; 4 << 20]), 3),
        (Socket(source.as_fd()), 0, 4),
    );
    assert_eq!(ring.sole_operation(on_it), None, "there are two");
    other.write_all(b"more").unwrap();
    let event = completed(&mut ring, 1).remove(&2).unwrap();
    bytes_of(&mut ring, event);
    assert!(ring.sole_operation(on_it).is_some(), "the send is left");
    ring.cancel(on_it, 7);
    completed(&mut ring, 3);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    ring.accept(listener.as_fd(), 5);
    assert_eq!(ring.sole_operation(listener.as_fd()), None, "of accepts there may be several");
    ring.cancel(listener.as_fd(), 6);
    completed(&mut ring, 2);
    ring.close(ours);
    ring.close(source);
}

#[test]
fn who_finds_no_buffer_is_told_and_finds_one_when_it_is_back() {
    on_both(|driver| {
        let mut pairs: Vec<_> = (0..3).map(|_| pair(driver)).collect();
        for (number, (ours, other)) in (0..).zip(&mut pairs) {
            other.write_all(&[number as u8]).unwrap();
            driver.receive(Socket(ours.as_fd()), 0, number);
        }
        let events = completed(driver, 3);
        let (without, with): (Vec<_>, Vec<_>) =
            events.into_iter().partition(|(_, event)| error_of(event) == Some(libc::ENOBUFS));
        assert_eq!((without.len(), with.len()), (1, 2), "there are two buffers");
        for (number, event) in with {
            assert_eq!(bytes_of(driver, event), [number as u8]);
        }
        let number = without[0].0;
        driver.receive(Socket(pairs[number as usize].0.as_fd()), 0, number);
        let event = completed(driver, 1).remove(&number).unwrap();
        assert_eq!(bytes_of(driver, event), [number as u8]);
        for (ours, _) in pairs {
            driver.close(ours);
        }
    });
}

#[test]
fn a_bell_that_is_watched_again_is_heard_each_time_and_when_it_rang_before() {
    on_both(|driver| {
        let bell = EventFd::from_flags(nix::sys::eventfd::EfdFlags::EFD_NONBLOCK).unwrap();
        for round in 0..3 {
            driver.watch(bell.as_fd(), round);
            bell.write(1).unwrap();
            assert!(matches!(completed(driver, 1)[&round], Event::Readable));
            bell.read().unwrap();
        }
        bell.write(1).unwrap();
        driver.watch(bell.as_fd(), 9);
        assert!(matches!(completed(driver, 1)[&9], Event::Readable));
    });
}

#[test]
fn connections_are_accepted_as_many_as_are_asked_for_and_the_rest_waits() {
    on_both(|driver| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        driver.prepare(listener.as_fd());
        driver.accept(listener.as_fd(), 0);
        driver.accept(listener.as_fd(), 1);
        assert_idle(driver);
        let address = listener.local_addr().unwrap();
        let mut clients: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
        let mut accepted = completed(driver, 2);
        driver.accept(listener.as_fd(), 2);
        accepted.extend(completed(driver, 1));
        for (token, event) in accepted {
            let Event::Accepted(Ok(socket)) = event else { panic!("{event:?}") };
            let peer = clients[token as usize].local_addr().unwrap();
            assert_eq!(driver.peer(socket.as_fd()), Some(peer));
            driver.receive(Socket(socket.as_fd()), 0, 10 + token);
            // The kernel queues them in the order of their connects.
            clients[token as usize].write_all(b"hello").unwrap();
            let event = completed(driver, 1).remove(&(10 + token)).unwrap();
            assert_eq!(bytes_of(driver, event), b"hello");
            driver.close(socket);
        }
        driver.accept(listener.as_fd(), 3);
        driver.cancel(listener.as_fd(), 4);
        let events = completed(driver, 2);
        assert_eq!(error_of(&events[&3]), Some(libc::ECANCELED));
    });
}

#[test]
fn a_descriptor_whose_number_was_used_before_is_a_new_one() {
    on_both(|driver| {
        for round in 0..3_u8 {
            let (ours, mut other) = pair(driver);
            driver.receive(Socket(ours.as_fd()), 0, 1);
            assert_idle(driver);
            other.write_all(&[round]).unwrap();
            let event = completed(driver, 1).remove(&1).unwrap();
            assert_eq!(bytes_of(driver, event), [round]);
            driver.close(ours);
        }
    });
}

#[test]
fn a_wait_ends_in_time_and_does_not_turn_meanwhile() {
    const TIMEOUT: Duration = Duration::from_millis(30);
    on_both(|driver| {
        let until = driver.clocks().0 + TIMEOUT;
        while driver.clocks().0 < until {
            driver.wait(Some(until - driver.clocks().0)).unwrap();
        }
        assert!(driver.clocks().0 < until + PATIENCE);
        assert!(driver.enters() <= 3, "{} times", driver.enters());
    });
}

/// Our ends of two pipes, to another and from it, and the ends of that other.
fn pipes(driver: &mut dyn Driver<u32>) -> ([OwnedFd; 2], File, File) {
    let (ours, [read, written]) = driver.session_pipes().unwrap();
    (ours, read.into(), written.into())
}

#[test]
fn what_a_watch_tells_of_a_pipe_is_left_there_for_the_receives_behind_it() {
    on_both(|driver| {
        let ([to, from], _read, mut written) = pipes(driver);
        driver.watch(from.as_fd(), 1);
        assert_idle(driver);
        written.write_all(b"first").unwrap();
        assert!(matches!(completed(driver, 1).remove(&1), Some(Event::Readable)));
        assert_eq!(driver.waiting_len(from.as_fd()), 5);
        for (more, expected) in [(&b""[..], &b"first"[..]), (b"second", b"second")] {
            written.write_all(more).unwrap();
            driver.receive(Pipe(from.as_fd()), 0, 2);
            let event = completed(driver, 1).remove(&2).unwrap();
            assert_eq!(bytes_of(driver, event), expected);
        }
        driver.receive(Pipe(from.as_fd()), 0, 3);
        assert_idle(driver);
        drop(written);
        let event = completed(driver, 1).remove(&3).unwrap();
        assert_eq!(bytes_of(driver, event), b"");
        assert!(driver.has_hung_up(from.as_fd()));
        driver.close(to);
        driver.close(from);
    });
}

#[test]
fn a_pipe_takes_what_fits_and_the_rest_when_it_has_room() {
    let len = 3 * PIPE_LEN;
    let sent: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
    on_both(|driver| {
        let ([to, from], mut read, _written) = pipes(driver);
        let (mut block, mut start, mut came) = (sent.clone().into_boxed_slice(), 0, Vec::new());
        while start < len {
            driver.send(Pipe(to.as_fd()), Outgoing { block, start, end: len }, 1);
            driver.wait(Some(Duration::ZERO)).unwrap();
            let waiting = driver.waiting_len(to.as_fd());
            came.resize(came.len() + waiting, 0);
            let end = came.len();
            read.read_exact(&mut came[end - waiting..]).unwrap();
            let Some(Event::Sent(back, Ok(sent))) = completed(driver, 1).remove(&1) else {
                panic!()
            };
            assert!(sent > 0);
            (block, start) = (back, start + sent);
        }
        let rest = len - came.len();
        came.resize(len, 0);
        read.read_exact(&mut came[len - rest..]).unwrap();
        assert!(came == sent);
        driver.close(to);
        driver.close(from);
    });
}

#[test]
fn a_receive_behind_a_send_to_a_pipe_begins_when_all_of_that_has_left_and_not_otherwise() {
    on_both(|driver| {
        let ([to, from], mut read, mut written) = pipes(driver);
        written.write_all(b"answer").unwrap();
        let receive = (Pipe(from.as_fd()), 0, 2);
        driver.send_then_receive((Pipe(to.as_fd()), outgoing(b"ask"), 1), receive);
        let mut events = completed(driver, 2);
        assert!(matches!(events[&1], Event::Sent(_, Ok(3))));
        let event = events.remove(&2).unwrap();
        assert_eq!(bytes_of(driver, event), b"answer");
        // One that does not fit may leave in part, without what was to follow.
        let len = PIPE_LEN + 1;
        written.write_all(b"more").unwrap();
        driver.send_then_receive((Pipe(to.as_fd()), outgoing(&vec![7; len]), 1), receive);
        let until = driver.clocks().0 + PATIENCE;
        while driver.completions() < 2 {
            assert!(driver.clocks().0 < until, "it never leaves");
            driver.wait(Some(Duration::from_millis(1))).unwrap();
            let waiting_len = driver.waiting_len(to.as_fd());
            read.read_exact(&mut vec![0; waiting_len]).unwrap();
        }
        let mut events = completed(driver, 2);
        let Event::Sent(_, Ok(sent)) = events[&1] else { panic!("{events:?}") };
        let followed = events.remove(&2).unwrap();
        match sent == len {
            true => assert_eq!(bytes_of(driver, followed), b"more"),
            false => assert_eq!(error_of(&followed), Some(libc::ECANCELED)),
        }
        drop(read);
        driver.send_then_receive((Pipe(to.as_fd()), outgoing(b"vain"), 1), receive);
        let events = completed(driver, 2);
        assert_eq!(error_of(&events[&1]), Some(libc::EPIPE));
        assert_eq!(error_of(&events[&2]), Some(libc::ECANCELED));
        driver.close(to);
        driver.close(from);
    });
}

#[test]
fn what_waits_on_pipes_can_be_cancelled_a_watch_too() {
    on_both(|driver| {
        let ([to, from], _read, _written) = pipes(driver);
        driver.watch(from.as_fd(), 1);
        driver.cancel(from.as_fd(), 2);
        assert!(matches!(completed(driver, 2)[&1], Event::Readable));
        driver.receive(Pipe(from.as_fd()), 0, 3);
        driver.send(Pipe(to.as_fd()), outgoing(&vec![7; PIPE_LEN]), 4);
        assert!(matches!(completed(driver, 1)[&4], Event::Sent(_, Ok(PIPE_LEN))));
        driver.send(Pipe(to.as_fd()), outgoing(b"no room"), 4);
        assert_idle(driver);
        driver.cancel(from.as_fd(), 5);
        driver.cancel(to.as_fd(), 6);
        let events = completed(driver, 4);
        assert_eq!(error_of(&events[&3]), Some(libc::ECANCELED));
        assert_eq!(error_of(&events[&4]), Some(libc::ECANCELED));
        driver.close(to);
        driver.close(from);
    });
}
