//! A mlet that is gone while most of what it wrote is still on its way.

use std::thread;
use std::time::{Duration, Instant};

use super::endpoint::{End, Endpoint, MADE_UP, NDATA, made_up, message};
use super::{Home, assert_says};

/// Payload of each message, so that there are 16 to the MiB.
const LEN: usize = 65_532;

/// How fast the endpoints read, in bytes per second.
const RATE: u64 = 1_000_000;

/// What an endpoint does when it has everything.
#[derive(Debug, Clone, Copy)]
enum After {
    CloseNotify,
    Fin,
    Reset,
}

/// The mlet writes so many messages of 64 KiB and exits. Its endpoints, three side by side, have sent
/// 1 MiB that it never reads, and read at 1 MB/s: each gets every byte, then close_notify, then FIN.
/// Returns how long the slowest took.
pub fn a_slow_endpoint_gets_every_byte(count: usize) -> Duration {
    let home = Home::new();
    let words = ["leave", &count.to_string(), &LEN.to_string()];
    let manager = home.start(&["-n", "3"], &words);
    let dial = home.dial(&manager);
    let start = Instant::now();
    thread::scope(|scope| {
        for after in [After::CloseNotify, After::Fin, After::Reset] {
            let mut endpoint = dial.session();
            scope.spawn(move || {
                endpoint.send(&message(NDATA, &vec![1; 1 << 20]));
                reads_slowly(&mut endpoint, count);
                assert_eq!(endpoint.receive(), Err(End::CloseNotify), "{after:?}");
                assert_eq!(endpoint.raw_rest(), Ok(Vec::new()), "{after:?}: FIN and no reset");
                match after {
                    After::CloseNotify => endpoint.close(),
                    After::Fin => drop(endpoint),
                    After::Reset => endpoint.reset(),
                }
            });
        }
    });
    let took = start.elapsed();
    let ended = manager.ends();
    assert_eq!(ended.code, Some(0));
    assert_says(&ended.stderr, &["3 sessions served", "mlets by exit code: 3 succeeded"]);
    took
}

fn reads_slowly(endpoint: &mut Endpoint, count: usize) {
    let start = Instant::now();
    for index in 0..count {
        let (message_type, payload) = endpoint.receive().unwrap();
        assert!(message_type == MADE_UP && payload == made_up(index, LEN), "message {index}");
        let due = Duration::from_micros((index as u64 + 1) * (LEN as u64 + 4) * 1_000_000 / RATE);
        thread::sleep(due.saturating_sub(start.elapsed()));
    }
}
