//! Messages between endpoints and mlets through the running program: whole, in order, to the last
//! byte.
//!
//! Every endpoint here also holds the records it gets to the rule of spec/protocol.md 1.6 (item 85).

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::net::Shutdown;
use std::time::{Duration, Instant};

use common::endpoint::{End, Endpoint, LINFO, MADE_UP, NDATA, made_up, message};
use common::manager::{await_standstill, children_of, is_all, wait_until};
use common::tail::a_slow_endpoint_gets_every_byte;
use common::{Home, assert_says, told};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use packetlab::message::PAYLOAD_LEN_MAX;

/// Items 82, 121: whatever the type and however senseless the payload. LINFO alone stays behind.
#[test]
fn every_type_passes_byte_for_byte_both_ways() {
    let home = Home::new();
    let manager = home.start(&[], &["echo"]);
    let mut endpoint = home.dial(&manager).session();
    for message_type in (0..=u8::MAX).filter(|byte| *byte != LINFO) {
        let payload = vec![message_type ^ 0x5a; usize::from(message_type) % 9];
        endpoint.send(&message(message_type, &payload));
        assert_eq!(endpoint.receive().unwrap(), (message_type, payload));
    }
}

/// Item 82: a message of the largest size either way, whole and costing no more memory than its pieces.
#[test]
fn the_largest_message_passes_both_ways() {
    let home = Home::new();
    let manager = home.start(&[], &["both", "1", &PAYLOAD_LEN_MAX.to_string()]);
    let mut endpoint = home.dial(&manager).session();
    let largest = made_up(0, PAYLOAD_LEN_MAX);
    let before = manager.memory_kib();
    assert!(
        endpoint.receive() == Ok((MADE_UP, largest.clone())),
        "not the message that was made up"
    );
    endpoint.send(&message(NDATA, &largest));
    endpoint.close();
    manager.says(&format!("sank 1 messages with {PAYLOAD_LEN_MAX} bytes"));
    let grown = manager.memory_kib().saturating_sub(before);
    // Bytes in bulk have large buffers and blocks, which all sessions share.
    assert!(grown < 4 * 1024, "{grown} KiB for messages of 16 MiB");
    assert_eq!(manager.interrupted().code, Some(0));
}

/// Original endpoints write a message in pieces with Nagle's algorithm on, so the second piece leaves when the first is
/// acknowledged; and messages that are whole wait for one another in the same way.
#[test]
fn an_endpoint_with_nagle_on_does_not_wait_for_delayed_acknowledgements() {
    const ROUNDS: usize = 41;
    let home = Home::new();
    // Messages for which there is one answer, and the pieces they are sent in.
    for (messages, pieces) in [
        ("1", vec![&message(NDATA, &[7; 60])[..4], &[7; 60]]),
        ("2", vec![&message(0x40, b""), &message(0x60, &[0; 11])]),
    ] {
        let manager = home.start(&[], &["answer", messages]);
        let mut endpoint = home.dial(&manager).session();
        endpoint.tcp.set_nodelay(false).unwrap();
        let mut times: Vec<Duration> = (0..ROUNDS)
            .map(|_| {
                let start = Instant::now();
                pieces.iter().for_each(|piece| endpoint.send(piece));
                assert_eq!(endpoint.receive().unwrap(), (MADE_UP, b"answer".to_vec()));
                start.elapsed()
            })
            .collect();
        times.sort_unstable();
        let median = times[ROUNDS / 2];
        // Linux delays an acknowledgement by 40 ms, so that each round would take that long.
        assert!(median < Duration::from_millis(20), "{messages}: {median:?} of {times:?}");
    }
}

/// Item 82: every byte of three messages in a record of its own.
#[test]
fn messages_in_pieces_of_one_byte_pass_whole() {
    let home = Home::new();
    let manager = home.start(&[], &["echo"]);
    let mut endpoint = home.dial(&manager).session();
    let payloads = [&b"first"[..], b"", b"third"];
    for byte in payloads.map(|payload| message(NDATA, payload)).concat() {
        endpoint.send(&[byte]);
    }
    for payload in payloads {
        assert_eq!(endpoint.receive(), Ok((NDATA, payload.to_vec())));
    }
}

/// Item 117 (the original: 40 ms).
#[test]
fn a_round_trip_takes_no_forty_milliseconds() {
    let home = Home::new();
    let manager = home.start(&[], &["echo"]);
    let mut endpoint = home.dial(&manager).session();
    let mut times: Vec<Duration> = (0..101)
        .map(|_| {
            let start = Instant::now();
            endpoint.echoes(&[7; 300]);
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    assert!(times[50] < Duration::from_millis(5), "median {:?}", times[50]);
}

/// Items 84, 87.
#[test]
fn what_a_mlet_wrote_before_it_ended_arrives_to_the_last_message() {
    for (count, len) in [(1, 4), (20_000, 12), (300, 60_000), (2, 3_000_000)] {
        let home = Home::new();
        let words = ["flood", &count.to_string(), &len.to_string()];
        let manager = home.start(&["-n", "1"], &words);
        let mut endpoint = home.dial(&manager).session();
        for index in 0..count {
            let (message_type, payload) = endpoint.receive().unwrap();
            assert!(message_type == MADE_UP && payload == made_up(index, len), "message {index}");
        }
        assert_eq!(endpoint.receive(), Err(End::CloseNotify));
        endpoint.close();
        assert_eq!(manager.ends().code, Some(0));
    }
}

/// Item 120.
#[test]
fn a_mlet_that_leaves_its_input_unread_loses_nothing_of_its_output() {
    let home = Home::new();
    let manager = home.start(&["-n", "1"], &["leave", "100", "20000"]);
    let mut endpoint = home.dial(&manager).session();
    for _ in 0..10 {
        endpoint.send(&message(NDATA, b"never read"));
    }
    assert_eq!(endpoint.read_to_end(), (100, End::CloseNotify));
    endpoint.close();
    assert_says(&manager.ends().stderr, &["over: the mlet ended; mlet exit code 0"]);
}

/// Promise P14, items 84, 88, 120: the endpoint reads at 1 MB/s and has sent what the mlet never reads.
#[test]
fn a_slow_endpoint_gets_the_last_byte_of_a_mlet_that_is_long_gone_whatever_it_does_then() {
    a_slow_endpoint_gets_every_byte(24);
}

/// Item 88.
#[test]
fn a_mlet_reads_everything_before_the_end_of_its_endpoint() {
    let home = Home::new();
    let manager = home.start(&["-n", "1"], &["sink"]);
    let mut endpoint = home.dial(&manager).session();
    let packed: Vec<u8> = (0..1000).flat_map(|_| message(NDATA, &[1; 10])).collect();
    endpoint.send(&packed);
    endpoint.send(&message(NDATA, &vec![2; 1_000_000]));
    endpoint.close();
    manager.says("sank 1001 messages with 1010000 bytes");
    assert_says(&manager.ends().stderr, &["over: the endpoint closed; mlet exit code 0"]);
}

/// Item 88: so it is when the endpoint is killed, with what had arrived.
#[test]
fn an_endpoint_that_breaks_off_is_an_end_like_any_other() {
    let home = Home::new();
    let manager = home.start(&["-n", "1"], &["echo"]);
    let mut endpoint = home.dial(&manager).session();
    endpoint.echoes(b"here");
    endpoint.reset();
    assert_says(&manager.ends().stderr, &["over: endpoint_reset; mlet exit code 0"]);
}

/// Item 121: the piece is delivered, then the end, which tells the mlet that its frame is cut.
#[test]
fn a_frame_cut_by_the_end_ends_the_session() {
    let home = Home::new();
    let manager = home.start(&["-n", "1"], &["sink"]);
    let mut endpoint = home.dial(&manager).session();
    endpoint.send(&message(NDATA, &[0; 1000])[..500]);
    endpoint.close();
    manager.says("failed to fill whole buffer");
    assert_says(&manager.ends().stderr, &["over: the endpoint closed; mlet exit code 1"]);
}

/// Item 118.
#[test]
fn a_mlet_that_pauses_inside_a_frame_goes_on_receiving() {
    let home = Home::new();
    let manager = home.start(&[], &["half"]);
    let mut endpoint = home.dial(&manager).session();
    for _ in 0..3 {
        endpoint.send(&message(NDATA, &[3; 5000]));
    }
    assert_eq!(endpoint.receive().unwrap(), (MADE_UP, b"a frame in two halves".to_vec()));
    endpoint.echoes(b"and so on");
}

/// Items 84, 86: each side writes all its messages at once, the endpoint as many into a record as fit, while
/// the other does the same; both read them one by one, in order and unchanged.
#[test]
fn thousands_of_small_messages_written_at_once_cross_in_order_both_ways() {
    const COUNT: usize = 20_000;
    const LEN: usize = 13;
    let home = Home::new();
    let words = ["swap", &COUNT.to_string(), &LEN.to_string()];
    let manager = home.start(&["-n", "1"], &words);
    let mut endpoint = home.dial(&manager).session();
    let messages = (0..COUNT).map(|index| message(MADE_UP, &made_up(index, LEN)));
    endpoint.send(&messages.collect::<Vec<_>>().concat());
    for index in 0..COUNT {
        assert_eq!(endpoint.receive(), Ok((MADE_UP, made_up(index, LEN))), "message {index}");
    }
    endpoint.close();
    assert_eq!(endpoint.receive(), Err(End::CloseNotify));
    let ended = manager.ends();
    assert_eq!(ended.code, Some(0));
    assert_says(&ended.stderr, &[&format!("127.0.0.1 sent {COUNT} messages in order")]);
}

/// Items 91, 119 (the original deadlocks): both sides write more than buffers hold before they read.
#[test]
fn both_sides_may_write_first_and_read_later() {
    let home = Home::new();
    let manager = home.start(&["-n", "1"], &["both", "200", "60000"]);
    let mut endpoint = home.dial(&manager).session();
    let before = manager.memory_kib();
    endpoint.send(&message(NDATA, &vec![9; 1_000_000]));
    for _ in 0..200 {
        assert_eq!(endpoint.receive().unwrap().1.len(), 60_000);
    }
    let grown = manager.memory_kib().saturating_sub(before);
    assert!(grown < 4 * 1024, "{grown} KiB for 13 MB");
    endpoint.close();
    manager.says("sank 1 messages with 1000000 bytes");
    assert_eq!(manager.ends().code, Some(0));
}

/// How an endpoint ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    CloseNotifyAndFin,
    Fin,
    CloseNotifyAndReset,
    Reset,
    /// TCP stays open, so that nothing but TLS tells.
    CloseNotify,
}

impl Ending {
    const OF_TCP: [Self; 4] =
        [Self::CloseNotifyAndFin, Self::Fin, Self::CloseNotifyAndReset, Self::Reset];

    /// Ends this endpoint so; returns it if the manager may still send it something.
    fn end(self, mut endpoint: Endpoint) -> Option<Endpoint> {
        match self {
            Self::CloseNotifyAndFin => endpoint.close(),
            Self::Fin => endpoint.tcp.shutdown(Shutdown::Write).unwrap(),
            Self::CloseNotifyAndReset | Self::Reset => {
                if self == Self::CloseNotifyAndReset {
                    endpoint.send_close_notify();
                }
                endpoint.reset();
                return None;
            }
            Self::CloseNotify => endpoint.send_close_notify(),
        }
        Some(endpoint)
    }
}

/// Payload of each message of the tests that follow.
const LEN: usize = 1000;

/// What an endpoint sent before it ended.
struct Sent {
    ending: Ending,
    count: usize,
    /// How many of them our kernel has acknowledged.
    acknowledged: usize,
}

/// Sends so many numbered messages from `first` on, each in a record of its own; returns how long one is.
fn send_numbered(endpoint: &mut Endpoint, first: usize, count: usize) -> usize {
    let records = (first..first + count)
        .map(|index| endpoint.send_record(&message(MADE_UP, &made_up(index, LEN))));
    records.max().unwrap()
}

/// Sends numbered messages until our kernel takes no more of them, as its receive buffer is full.
fn send_more_than_is_taken(endpoint: &mut Endpoint, ending: Ending) -> Sent {
    const AT_ONCE: usize = 250;
    for count in (AT_ONCE..=40 * AT_ONCE).step_by(AT_ONCE) {
        let record_len = send_numbered(endpoint, count - AT_ONCE, AT_ONCE);
        let untaken = endpoint.await_full_receiver();
        if untaken > 0 {
            return Sent { ending, count, acknowledged: count - untaken.div_ceil(record_len) };
        }
    }
    panic!("10 MB are taken for a mlet that reads nothing");
}

/// Asserts that the mlet of the endpoint `127.0.0.LAST` read what it had to, then EOF and no error.
fn assert_read(log: &str, last: usize, sent: &Sent) {
    let Sent { ending, count, acknowledged } = *sent;
    let address = format!("127.0.0.{last}");
    let line = log.lines().find_map(|line| line.strip_prefix(&format!("{address} sent ")));
    let line = line.unwrap_or_else(|| panic!("{address}, {ending:?}: {log}"));
    let read: usize = line.split(' ').next().unwrap().parse().unwrap();
    println!("{ending:?}: {count} sent, {acknowledged} acknowledged before the end, {read} read");
    match ending {
        Ending::CloseNotifyAndFin | Ending::Fin | Ending::CloseNotify => {
            assert_eq!(read, count, "{ending:?}");
        }
        Ending::CloseNotifyAndReset | Ending::Reset => {
            assert!(read >= acknowledged, "{ending:?}: {read} of {acknowledged} are read");
        }
    }
    let told = told::sessions(log).into_iter().find(|told| told.peer == address).unwrap();
    assert_eq!(told.mlet, "exit code 0", "{ending:?}");
    let reasons = ["the endpoint closed", "endpoint_reset"];
    assert!(reasons.contains(&&*told.reason), "{ending:?}: {told:?}");
}

/// Item 88. What an endpoint sent is read when it is long gone, then EOF: everything if it ended with FIN, and
/// if it reset the connection, whatever our kernel had acknowledged, for Linux keeps that readable. The mlets
/// are stopped meanwhile, and more is sent than their sockets hold.
#[test]
fn a_mlet_reads_what_arrived_before_any_end_of_its_endpoint_then_eof() {
    let home = Home::new();
    let manager = home.start(&["-v", "-n", "4"], &["check", &LEN.to_string()]);
    let dial = home.dial(&manager);
    let endpoints = [1, 2, 3, 4].map(|last| dial.clone().from(last).session());
    // Then exec has succeeded, and stopping a mlet stops nobody else.
    manager.says_times("mlet runs as process", endpoints.len());
    let mlets = children_of(manager.supervisor());
    let signal_all =
        |signal| mlets.iter().for_each(|pid| kill(Pid::from_raw(*pid), signal).unwrap());
    signal_all(Signal::SIGSTOP);
    let mut open = Vec::new();
    let sent: Vec<Sent> = endpoints
        .into_iter()
        .zip(Ending::OF_TCP)
        .map(|(mut endpoint, ending)| {
            let sent = send_more_than_is_taken(&mut endpoint, ending);
            open.extend(ending.end(endpoint));
            sent
        })
        .collect();
    signal_all(Signal::SIGCONT);
    let ended = manager.ends();
    assert_eq!(ended.code, Some(0));
    for (index, sent) in sent.iter().enumerate() {
        assert_read(&ended.stderr, index + 1, sent);
    }
}

/// Item 88, with output of the mlet that nobody ever reads: a close of its socket with that inside would make its
/// next read fail with ECONNRESET (unix(7)). It reads only when all of that is written, which takes the end of
/// its endpoint.
#[test]
fn a_mlet_whose_output_nobody_reads_reads_everything_and_eof_all_the_same() {
    reads_everything_behind_output(200, 60_000);
}

/// Of short messages all that is received at once leaves in one send, and the next receive is linked to it, which must
/// not wait until the endpoint takes that.
#[test]
fn a_mlet_whose_short_messages_nobody_reads_reads_everything_and_eof_all_the_same() {
    reads_everything_behind_output(12_000, 1_000);
}

/// The mlets write so many messages of so many bytes before they read.
#[track_caller]
fn reads_everything_behind_output(output: usize, len: usize) {
    const FEW: usize = 60;
    let home = Home::new();
    let words = ["both", &output.to_string(), &len.to_string(), &LEN.to_string()];
    let manager = home.start(&["-v", "-n", "7"], &words);
    let dial = home.dial(&manager);
    let endpoints = [1, 2, 3, 4, 5, 6, 7].map(|last| dial.clone().from(last).session());
    manager.says_times("mlet runs as process", endpoints.len());
    for mlet in children_of(manager.supervisor()) {
        await_standstill(&manager, mlet);
    }
    let few = [&Ending::OF_TCP[..], &[Ending::CloseNotify]].concat();
    let mut open = Vec::new();
    let sent: Vec<Sent> = endpoints
        .into_iter()
        .zip(few.iter().copied().chain([Ending::CloseNotifyAndReset, Ending::Reset]))
        .enumerate()
        .map(|(index, (mut endpoint, ending))| {
            let sent = if index < few.len() {
                send_numbered(&mut endpoint, 0, FEW);
                wait_until("all has arrived", || endpoint.untaken_len() == 0);
                Sent { ending, count: FEW, acknowledged: FEW }
            } else {
                send_more_than_is_taken(&mut endpoint, ending)
            };
            open.extend(ending.end(endpoint));
            sent
        })
        .collect();
    manager.says_times(" messages in order", sent.len());
    for mut endpoint in open {
        let (came, _) = endpoint.read_to_end();
        assert!(came < output, "the output had been taken before the end, which proves nothing");
    }
    let ended = manager.ends();
    assert_eq!(ended.code, Some(0));
    for (index, sent) in sent.iter().enumerate() {
        assert_read(&ended.stderr, index + 1, sent);
    }
}

/// All sessions of a shard receive at the same moment, twice as many as it has receive buffers (32), and many
/// times each: those that find none are woken when some are back. (Nothing tells from outside that a session
/// found no buffer; with the waking taken out this test failed each time.)
#[test]
fn more_sessions_than_a_shard_has_buffers_may_send_in_the_same_instant() {
    const SESSIONS: usize = 64;
    const COUNT: usize = 200;
    let home = Home::new();
    // Nor may the looks at sessions in which nothing moves wake them.
    let manager = home.start(&["--cores", "1", "--drain-timeout", "1h"], &["echo"]);
    let dial = home.dial(&manager);
    let mut endpoints: Vec<Endpoint> = (0..SESSIONS).map(|_| dial.session()).collect();
    for endpoint in &mut endpoints {
        endpoint.echoes(b"past the set-up, whose receives use other buffers");
    }
    for _ in 0..3 {
        // What is sent to a stopped manager is all there in the instant that it goes on.
        manager.signal(Signal::SIGSTOP);
        wait_until("the manager is stopped", || is_all(manager.pid(), 'T'));
        for endpoint in &mut endpoints {
            send_numbered(endpoint, 0, COUNT);
        }
        manager.signal(Signal::SIGCONT);
        for (number, endpoint) in endpoints.iter_mut().enumerate() {
            for index in 0..COUNT {
                let came = endpoint.receive();
                assert!(came == Ok((MADE_UP, made_up(index, LEN))), "session {number}, {index}");
            }
        }
    }
}
