//! One cell: an endpoint that is brought to a step, what goes wrong there, and what came of it.

use std::fmt;
use std::fs;
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::common::endpoint::{CDATA, End, Endpoint, NDATA, RESULT, START, SUCCESS, message};
use crate::common::manager::{is_alive, kill_hard, wait_until};
use crate::matrix::{Cell, Expected};
use crate::world::{DRAIN, HANDSHAKE, LINGER, SETUP, World, order_exit};

/// What is no TLS.
pub(crate) const GARBAGE: [u8; 5000] = [0xff; 5000];

/// The header of a message of 2^24-1 bytes.
pub(crate) const HUGE: [u8; 4] = [RESULT, 0xff, 0xff, 0xff];

/// A message that no one has asked for: NTAG.
const WRONG_TYPE: [u8; 15] = [NTAG, 0, 0, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Its type.
const NTAG: u8 = 0x60;

/// A RESULT that refuses.
const REFUSAL: [u8; 6] = [RESULT, 0, 0, 2, 0, 0x21];

/// The message of which half is sent when the fault comes.
const CUT_LEN: usize = 1000;
/// How much of it, with its header, is sent before.
const CUT_AT: usize = 500;

/// More than sockets hold, so that a mlet that writes it stands in the middle of it while its endpoint does not read.
const BULK_LEN: usize = 16_000_000;

/// Longer than the limit that a cell names it may take as much: the machine is shared, and what is judged is that the limit
/// ends it and nothing else.
const SLACK: Duration = Duration::from_secs(10);

/// A silence that ends nothing: longer than any limit of a session's set-up.
const SILENCE: Duration = Duration::from_secs(SETUP + 1);

/// What a step in the file is here: two have a side each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Only,
    First,
    Second,
}

/// A session that stands at a step.
pub(crate) struct Reached {
    pub(crate) endpoint: Endpoint,
    /// What it would have sent next, below TLS.
    pending: Vec<u8>,
    /// The messages of its mlet that it has not read yet make up so many bytes.
    pub(crate) is_flooded: bool,
    /// Of the message that it has sent in part, the rest.
    cut: Vec<u8>,
}

/// What came of all cells that were walked.
#[derive(Default)]
pub(crate) struct Found {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    walked: Vec<(&'static str, &'static str, Side)>,
    wrong: Vec<String>,
    exchanged: usize,
    bystanders: usize,
    /// The longest that anything took beyond its limit, and which cell did.
    late: (Duration, String),
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock().unwrap();
        write!(
            f,
            "{} cells; {} bystanders exchanged {} messages, all clean; at most {:.1?} beyond its limit ({})",
            distinct(&state),
            state.bystanders,
            state.exchanged,
            state.late.0,
            state.late.1
        )
    }
}

fn distinct(state: &State) -> usize {
    let mut cells: Vec<_> = state.walked.iter().map(|(step, fault, _)| (step, fault)).collect();
    cells.sort();
    cells.dedup();
    cells.len()
}

impl Found {
    /// The bystanders of a manager were clean, and have exchanged so many messages.
    pub(crate) fn add_bystanders(&self, count: usize, exchanged: usize) {
        let mut state = self.state.lock().unwrap();
        state.bystanders += count;
        state.exchanged += exchanged;
    }

    /// A cell was walked, and this of it is not as expected, if anything.
    pub(crate) fn add(&self, cell: &Cell, side: Side, late: Duration, wrong: Option<String>) {
        let mut state = self.state.lock().unwrap();
        state.walked.push((cell.step, cell.fault, side));
        if late > state.late.0 {
            state.late = (late, format!("{} {}", cell.step, cell.fault));
        }
        state.wrong.extend(wrong);
    }

    /// Asserts that every cell of the steps that begin so was walked, and that each was as the file says.
    #[track_caller]
    pub(crate) fn assert_all_of(&self, steps: char) {
        let state = self.state.lock().unwrap();
        let of_file = crate::matrix::cells();
        let cells = of_file.filter(|cell| cell.step.starts_with(steps) && cell.world != "n/a");
        let is_walked = |cell: &Cell| {
            state.walked.iter().any(|(step, fault, _)| (*step, *fault) == (cell.step, cell.fault))
        };
        let missing: Vec<_> = cells.filter(|cell| !is_walked(cell)).collect();
        assert!(missing.is_empty(), "not walked: {missing:?}");
        assert!(
            state.wrong.is_empty(),
            "{} differ:\n{}",
            state.wrong.len(),
            state.wrong.join("\n")
        );
    }
}

/// Walks these parts side by side.
pub(crate) fn side_by_side(parts: &[fn(&Found)]) -> Found {
    let found = Found::default();
    thread::scope(|scope| {
        for part in parts {
            let found = &found;
            scope.spawn(move || part(found));
        }
    });
    found
}

/// The cells of steps that begin so, with these faults, that are walked.
pub(crate) fn cells_of(steps: char, faults: impl Fn(&str) -> bool) -> Vec<Cell> {
    let all = crate::matrix::cells().filter(|cell| cell.step.starts_with(steps));
    all.filter(|cell| cell.world != "n/a" && faults(cell.fault)).collect()
}

/// The limit that this names.
pub(crate) fn limit(wait: &str) -> Duration {
    Duration::from_secs(match wait {
        "at once" | "goes on" => 0,
        "handshake" => HANDSHAKE,
        "setup" => SETUP,
        "permit" => 2 * SETUP,
        "drain" => DRAIN,
        "linger" => LINGER,
        other => panic!("{other} is no limit of a session"),
    })
}

/// Brings a session of an endpoint at `127.0.0.x` to this step.
pub(crate) fn reach(world: &World, (cell, side, last): (&Cell, Side, u8)) -> Reached {
    let dial = world.dial.clone().from(last);
    let mut reached = Reached {
        endpoint: match cell.step {
            "S0" | "S1" | "S2" | "S3" => dial.connect(),
            "S4" | "S5" | "S6" => dial.handshake(),
            _ => dial.session(),
        },
        pending: Vec::new(),
        is_flooded: false,
        cut: Vec::new(),
    };
    let endpoint = &mut reached.endpoint;
    match cell.step {
        "S0" => {
            await_accepted(&endpoint.tcp);
            world.await_turn();
            reached.pending = endpoint.hello();
        }
        "S1" => {
            await_accepted(&endpoint.tcp);
            world.await_turn();
            let hello = endpoint.hello();
            let (sent, rest) = hello.split_at(hello.len() / 2);
            endpoint.send_raw(sent);
            reached.pending = rest.to_vec();
        }
        "S2" | "S3" => {
            let hello = endpoint.hello();
            endpoint.send_raw(&hello);
            let flight = endpoint.second_flight().unwrap();
            let sent = if cell.step == "S3" { flight.len() / 2 } else { 0 };
            endpoint.send_raw(&flight[..sent]);
            reached.pending = flight[sent..].to_vec();
        }
        "S4" => {
            await_read(endpoint);
            world.await_turn();
        }
        "S5" => {
            assert_eq!(endpoint.receive().unwrap().0, CDATA);
            // Of the three that are demanded, one twice.
            for _ in 0..if side == Side::Second { 2 } else { 0 } {
                endpoint.send(&SUCCESS);
                assert_eq!(endpoint.receive().unwrap().0, CDATA);
            }
        }
        "S6" => {
            while endpoint.receive().unwrap().0 != START {
                endpoint.send(&SUCCESS);
            }
        }
        "S7" => {}
        _ => reach_in_relay(world, (cell, side, last), &mut reached),
    }
    reached
}

fn reach_in_relay(world: &World, (cell, side, last): (&Cell, Side, u8), reached: &mut Reached) {
    let endpoint = &mut reached.endpoint;
    match cell.step {
        "S8" | "S11" => says(endpoint),
        "S9" if side == Side::First => {
            says(endpoint);
            order(endpoint, &format!("pass {}", 4 + CUT_LEN));
            let whole = message(NDATA, &[7; CUT_LEN]);
            endpoint.send(&whole[..CUT_AT]);
            reached.cut = whole[CUT_AT..].to_vec();
        }
        "S9" | "S10" => {
            let mlet = world.await_mlet_of(last);
            order(endpoint, &format!("flood 1 {BULK_LEN}"));
            endpoint.tcp.peek(&mut [0]).unwrap();
            reached.is_flooded = true;
            if cell.step == "S10" {
                await_full(mlet);
                kill_hard(mlet);
                wait_until("the mlet is gone", || !is_alive(mlet));
            }
        }
        other => panic!("{other} is no step of a session"),
    }
}

/// What the kernel tells of the manager's end of this connection: what waits in its queues, and to which file it belongs.
fn other_end(tcp: &TcpStream) -> Option<(String, String)> {
    let SocketAddr::V4(ours) = tcp.local_addr().unwrap() else { panic!("loopback") };
    let remote = format!("{:08X}:{:04X}", u32::from_le_bytes(ours.ip().octets()), ours.port());
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    table.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let is_it = words.get(2) == Some(&&*remote);
        is_it.then(|| Some((words.get(4)?.to_string(), words.get(9)?.to_string()))).flatten()
    })
}

/// Waits until the manager has taken the connection out of its kernel's queue: one that waits there belongs to no file.
fn await_accepted(tcp: &TcpStream) {
    wait_until("the connection is accepted", || {
        other_end(tcp).is_some_and(|(_, inode)| inode != "0")
    });
}

/// Waits until the manager has read all that the endpoint has sent.
pub(crate) fn await_read(endpoint: &Endpoint) {
    wait_until("all is read", || {
        let rest = other_end(&endpoint.tcp).map(|(queues, _)| queues);
        endpoint.untaken_len() == 0 && rest.is_some_and(|queues| queues.ends_with(":00000000"))
    });
}

fn says(endpoint: &mut Endpoint) {
    order(endpoint, "say");
    assert_eq!(endpoint.receive().unwrap().1, b"say");
}

fn order(endpoint: &mut Endpoint, order: &str) {
    endpoint.send(&message(NDATA, order.as_bytes()));
}

/// Waits until a mlet has written nothing for half a second: its output is full up to the endpoint.
fn await_full(mlet: i32) {
    let written = || {
        let io = fs::read_to_string(format!("/proc/{mlet}/io")).unwrap();
        io.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap().to_owned()
    };
    let (mut last, mut since) = (written(), Instant::now());
    wait_until("the mlet can write no more", || {
        let now = written();
        if now != last {
            (last, since) = (now, Instant::now());
        }
        since.elapsed() > Duration::from_millis(500)
    });
}

/// Lets the endpoint, or its mlet, do what the fault says; `None` if the endpoint is gone with it.
pub(crate) fn strike(
    world: &World,
    (cell, _, last): (&Cell, Side, u8),
    mut reached: Reached,
) -> Option<Reached> {
    let goes_on = cell.expected.wait == "goes on";
    let is_over_tls = !matches!(cell.step, "S0" | "S1" | "S2" | "S3");
    let spoken: &[u8] = match cell.fault {
        "F5" if is_over_tls => &SUCCESS,
        "F7" => &HUGE,
        "F8" => &WRONG_TYPE,
        "F9" => &REFUSAL,
        _ => &[],
    };
    let endpoint = &mut reached.endpoint;
    if goes_on && !spoken.is_empty() && !reached.is_flooded && reached.cut.is_empty() {
        order(endpoint, &format!("pass {}", spoken.len()));
    }
    match cell.fault {
        // Where it is to end the session, its limit does.
        "F1" if goes_on => thread::sleep(SILENCE),
        "F2" => endpoint.tcp.shutdown(Shutdown::Write).unwrap(),
        "F3" => {
            reached.endpoint.reset();
            return None;
        }
        "F4" => endpoint.send_raw(&GARBAGE),
        "F5" => {
            let bytes = if is_over_tls {
                endpoint.seal(spoken)
            } else {
                std::mem::take(&mut reached.pending)
            };
            trickle(&endpoint.tcp, &bytes);
        }
        "F6" => {
            let bytes = if is_over_tls {
                endpoint.seal(&SUCCESS)
            } else {
                std::mem::take(&mut reached.pending)
            };
            endpoint.send_raw(&bytes[..bytes.len() / 2]);
            endpoint.tcp.shutdown(Shutdown::Write).unwrap();
        }
        "F7" | "F8" | "F9" => endpoint.send(spoken),
        "F12" => kill(Pid::from_raw(world.await_mlet_of(last)), Signal::SIGKILL).unwrap(),
        // Of F10 and F11 the endpoint has no part.
        _ => {}
    }
    if !spoken.is_empty() && !reached.cut.is_empty() {
        reached.cut.splice(..spoken.len(), []);
    }
    Some(reached)
}

/// Sends these bytes, one each second, until the manager takes no more.
pub(crate) fn trickle(mut tcp: &TcpStream, bytes: &[u8]) {
    for byte in bytes {
        if tcp.write_all(&[*byte]).is_err() {
            return;
        }
        thread::sleep(Duration::from_secs(1));
    }
}

/// Goes on with the set-up as if nothing had happened, if the step is in it: START is answered.
pub(crate) fn start(cell: &Cell, reached: &mut Reached) {
    let endpoint = &mut reached.endpoint;
    if matches!(cell.step, "S0" | "S1" | "S2" | "S3") {
        endpoint.send_raw(&std::mem::take(&mut reached.pending));
        endpoint.handshake().unwrap();
    }
    match cell.step {
        "S0" | "S1" | "S2" | "S3" | "S4" => drop(endpoint.set_up().unwrap()),
        "S5" => {
            endpoint.send(&SUCCESS);
            endpoint.set_up().unwrap();
        }
        "S6" => endpoint.send(&SUCCESS),
        _ => {}
    }
}

/// Goes on as if nothing had happened, to the end of the session by its mlet.
pub(crate) fn go_on(cell: &Cell, reached: &mut Reached) {
    start(cell, reached);
    let endpoint = &mut reached.endpoint;
    if reached.is_flooded {
        assert_eq!(endpoint.receive().unwrap().1.len(), BULK_LEN, "{} {}", cell.step, cell.fault);
        return;
    }
    if !reached.cut.is_empty() {
        endpoint.send(&std::mem::take(&mut reached.cut));
        let (message_type, payload) = endpoint.receive().unwrap();
        assert_eq!((message_type, payload.len()), (NDATA, CUT_LEN));
    } else if matches!(cell.fault, "F5" | "F8" | "F9") {
        let expected: &[u8] = match cell.fault {
            "F5" => &SUCCESS,
            "F8" => &WRONG_TYPE,
            _ => &REFUSAL,
        };
        let (message_type, payload) = endpoint.receive().unwrap();
        assert_eq!(message(message_type, &payload), expected, "{}: it passes", cell.step);
    }
    order_exit(endpoint);
}

/// Takes what the endpoint is told, and the record; adds what is not as expected.
pub(crate) fn judge(
    world: &World,
    (cell, side, last): (&Cell, Side, u8),
    (struck, struck_at): (Option<Reached>, Instant),
    found: &Found,
) {
    let Expected { outcome, reason, wait, told, mlet } = cell.expected;
    let limit = limit(wait);
    let mut said = "gone".to_owned();
    let record = match struck {
        None => world.await_record_of(last),
        // It does not read, so that nobody can say.
        Some(reached) if cell.step == "S10" => {
            let record = world.await_record_of(last);
            "nothing".clone_into(&mut said);
            drop(reached);
            record
        }
        Some(mut reached) => {
            // A ClientHello that was not sent is no answer to what comes.
            reached.endpoint.hello();
            said = in_words(reached.endpoint.read_to_end().1);
            drop(reached);
            world.await_record_of(last)
        }
    };
    let took = struck_at.elapsed();
    let lasted = Duration::from_secs_f64(record["ms"]["total"].as_f64().unwrap() / 1e3);
    // What the fault does not end takes as long as whoever walks it.
    let late = if wait == "goes on" { Duration::ZERO } else { took.saturating_sub(limit) };
    let is_so = record["outcome"] == outcome
        && record["reason"].as_str().unwrap_or_default().contains(reason)
        && said == told
        && is_mlet(&record, mlet)
        // What lingers ends sooner where nothing is under way.
        && (lasted >= limit || wait == "linger")
        && late <= SLACK;
    let wrong = (!is_so).then(|| {
        format!(
            "{} {} {side:?}: told {said}, after {took:.1?}, record {record}\n  instead of {:?}",
            cell.step, cell.fault, cell.expected
        )
    });
    found.add(cell, side, late, wrong);
}

/// A FIN without a word is as good as the RST that follows where bytes of the peer's are left unread.
pub(crate) fn in_words(end: End) -> String {
    match end {
        End::CloseNotify => "close_notify".into(),
        End::Fin | End::Reset => "fin".into(),
        End::Alert(number) => format!("alert {number}"),
        other => format!("{other:?}"),
    }
}

/// Whether the record tells that of the mlet.
fn is_mlet(record: &Value, mlet: &str) -> bool {
    let (exit, signal) = (record["exit"].as_i64(), record["signal"].as_i64());
    match mlet {
        "none" => (exit, signal) == (None, None),
        "ended" => (exit, signal) == (Some(0), None),
        "eof" => exit.is_some() && signal.is_none(),
        "killed" | "gone" => signal == Some(9),
        other => panic!("{other} is nothing that becomes of a mlet"),
    }
}
