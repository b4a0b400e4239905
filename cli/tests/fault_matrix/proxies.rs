//! The steps of a registration at a proxy. One manager has a proxy for each cell, and one more, through which the bystanders
//! have come; F10 and F11 strike whole managers and have their own.
//!
//! Each proxy registers a connection, which an endpoint takes; the fault strikes the one that is to replace it, and the
//! next is registered.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal::SIGTERM;
use serde_json::Value;

use crate::bystanders::Bystanders;
use crate::cell::{Found, Side, cells_of, limit, side_by_side};
use crate::common::Home;
use crate::common::endpoint::{Dial, End, Endpoint, Identity, SUCCESS};
use crate::common::events::{EVENTS, Events};
use crate::common::manager::{Manager, processes_in, wait_until, zoo};
use crate::common::tls_peer::TlsPeer;
use crate::matrix::Cell;
use crate::scripted::{Layer, Port, await_line, strike, take_hello, told};
use crate::world::{HANDSHAKE, at_rest, end, feed, starve};

const PREAMBLE: &[u8; 6] = b"PKTLAB";

/// How long each step may take, in seconds.
const STEP: u64 = 3;

/// How far the proxy goes with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stand {
    Hello,
    Tls,
    Registered,
    Answered,
    Preamble,
    Done,
}

fn stand_of(step: &str) -> Stand {
    match step {
        "P1" => Stand::Hello,
        "P2" => Stand::Tls,
        "P3" => Stand::Registered,
        "P4" => Stand::Answered,
        "P5" => Stand::Preamble,
        other => panic!("{other} is no step that a proxy comes to"),
    }
}

fn layer_of(step: &str) -> Layer {
    match step {
        "P1" => Layer::Handshake,
        "P2" | "P3" => Layer::Tls,
        "P4" => Layer::Raw(PREAMBLE),
        // Half of it is the beginning of a ClientHello.
        _ => Layer::Raw(&[0x16, 3, 1, 2, 0, 1, 0, 1]),
    }
}

/// Goes on with a connection from one stand to another.
fn go(peer: &mut TlsPeer, from: Option<Stand>, to: Stand) {
    let passes = |stand| from.is_none_or(|from| from < stand) && stand <= to;
    if passes(Stand::Hello) && to == Stand::Hello {
        return take_hello(peer);
    }
    if passes(Stand::Tls) {
        peer.handshake().unwrap();
    }
    if passes(Stand::Registered) {
        assert_eq!(peer.receive().unwrap(), (0x80, b"hello".to_vec()));
    }
    if passes(Stand::Answered) {
        peer.send(&SUCCESS).unwrap();
        assert_eq!(peer.receive(), Err(End::CloseNotify));
    }
    if passes(Stand::Preamble) {
        peer.tcp.write_all(PREAMBLE).unwrap();
        let mut preamble = [0; 6];
        peer.tcp.read_exact(&mut preamble).unwrap();
        assert_eq!(&preamble, PREAMBLE);
    }
}

/// A connection that is registered.
fn register(port: &Port) -> TcpStream {
    let mut peer = port.accept();
    go(&mut peer, None, Stand::Done);
    peer.tcp
}

/// A manager behind these proxies, each of which has a registered connection.
struct Behind {
    home: Home,
    manager: Manager,
    dial: Dial,
}

impl Behind {
    /// The ports serve until each has one.
    fn new(ports: &[Port]) -> (Self, Vec<TcpStream>) {
        let home = Home::new();
        let more =
            format!("TargetBacklogConn 1\nBacklogConnTimeout {STEP}s\nBootstrapBacklogTimeout 60s");
        home.write("xpmgr.conf", home.behind_proxy(&more).as_bytes());
        let addresses: Vec<String> = ports.iter().map(|port| port.address.to_string()).collect();
        let handshake = format!("{HANDSHAKE}s");
        let mut command = home.bare_command();
        command.args(["-v", "-c", "xpmgr.conf", "-a", &addresses.join(",")]).args(EVENTS);
        command.args(["--handshake-timeout", &handshake]).arg(zoo()).arg("obey");
        let manager = Manager::spawn(&home, command);
        let registered = thread::scope(|scope| {
            let threads: Vec<_> = ports.iter().map(|port| scope.spawn(|| register(port))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        manager.says_times("backlog filled: ", ports.len());
        let dial = Dial::to(ports[0].address).with(&Identity::of(&home.keys.operator));
        (Self { home, manager, dial }, registered)
    }

    /// The session of an endpoint that comes through this connection.
    fn session(&self, tcp: TcpStream) -> Endpoint {
        let mut endpoint = self.dial.over(tcp).unwrap();
        endpoint.handshake().unwrap();
        endpoint.set_up().unwrap();
        endpoint
    }

    /// So many bystanders, who come through this proxy; it is left with a registered connection.
    fn bystanders(
        &self,
        port: &Port,
        mut waiting: TcpStream,
        count: usize,
    ) -> (Bystanders, TcpStream) {
        let mut sessions = Vec::new();
        for _ in 0..count {
            sessions.push(self.session(waiting));
            waiting = register(port);
        }
        (Bystanders::of(sessions), waiting)
    }

    fn records(&self) -> Vec<Value> {
        Events::of(&self.home).sessions()
    }

    /// Outcome and reason of the connection through this proxy that was lost, beside the session of an endpoint.
    fn lost_through(&self, port: &Port) -> (String, String) {
        let mut records = Vec::new();
        wait_until("its record", || {
            records = self.records_through(port);
            records.len() == 2
        });
        let lost = records.iter().find(|record| record["outcome"] != "ok").unwrap();
        let word = |name: &str| lost[name].as_str().unwrap().to_owned();
        (word("outcome"), word("reason"))
    }

    /// The records of sessions through this proxy.
    fn records_through(&self, port: &Port) -> Vec<Value> {
        let text = fs::read_to_string(self.home.path(EVENTS[1])).unwrap_or_default();
        let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let records = lines.map(|line| serde_json::from_str::<Value>(line).unwrap());
        let peer = port.address.to_string();
        records.filter(|one| one["ev"] == "session.end" && one["ep"]["peer"] == *peer).collect()
    }
}

/// Walks all of them.
pub(crate) fn walk() -> Found {
    side_by_side(&[shared, lacking, terminated])
}

fn cells(faults: impl Fn(&str) -> bool) -> Vec<Cell> {
    cells_of('P', faults)
}

fn shared(found: &Found) {
    const BYSTANDERS: usize = 20;
    let cells = cells(|fault| !matches!(fault, "F10" | "F11"));
    let mut ports: Vec<Port> = (0..=cells.len()).map(|_| Port::new()).collect();
    let (behind, mut registered) = Behind::new(&ports);
    let healthy = registered.remove(0);
    // Some descriptors are of its start, and gone once a session has run.
    end(behind.session(healthy));
    let healthy = register(&ports[0]);
    let before = at_rest(&behind.manager);
    let (bystanders, healthy) = behind.bystanders(&ports[0], healthy, BYSTANDERS);
    let kept: Vec<TcpStream> = thread::scope(|scope| {
        let each = cells.iter().zip(ports.iter_mut().skip(1)).zip(registered);
        let threads: Vec<_> = each
            .map(|((cell, port), first)| {
                let behind = &behind;
                scope.spawn(move || walk_cell(behind, cell, port, first, found))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let exchanged = bystanders.are_clean();
    found.add_bystanders(BYSTANDERS, exchanged);
    before.are_back(&behind.manager);
    assert_eq!(behind.manager.interrupted().code, Some(0));
    let events = Events::of(&behind.home);
    let of_records = |cell: &&Cell| cell.step == "P5" && cell.expected.outcome != "goes_on";
    let lost = cells.iter().filter(of_records).count();
    assert_eq!(events.sessions().len(), 1 + BYSTANDERS + cells.len() + lost, "one record of each");
    wait_until("no process is left", || processes_in(&behind.home.path("")).is_empty());
    drop((kept, healthy));
}

/// An endpoint takes the connection that is registered; the fault strikes the next. Returns the one that is registered in
/// the end.
fn walk_cell(
    behind: &Behind,
    cell: &Cell,
    port: &mut Port,
    first: TcpStream,
    found: &Found,
) -> TcpStream {
    let who = format!("proxy {}, ", port.address);
    let begun = Instant::now();
    let mut session = behind.dial.over(first).unwrap();
    let mut said = cell.expected.told.to_owned();
    let mut kept = None;
    if cell.step == "P0" {
        bar(behind, cell, port, &mut session);
    } else {
        session.handshake().unwrap();
        session.set_up().unwrap();
        let mut peer = port.accept();
        go(&mut peer, None, stand_of(cell.step));
        let layer = layer_of(cell.step);
        match strike(cell.fault, layer, peer) {
            Some(peer) if cell.expected.outcome == "goes_on" => kept = Some(peer.tcp),
            Some(peer) => said = told(peer, layer),
            None => {}
        }
    }
    let took = begun.elapsed();
    end(session);
    let (mut outcome, mut reason) = (cell.expected.outcome.to_owned(), String::new());
    let last = if let Some(waiting) = kept {
        // It waits for longer than any limit of a session's set-up.
        thread::sleep(Duration::from_secs(HANDSHAKE + 1));
        waiting.set_nonblocking(true).unwrap();
        let heard = waiting.peek(&mut [0]).map_err(|error| error.kind());
        assert_eq!(heard, Err(ErrorKind::WouldBlock), "it waits still");
        waiting
    } else {
        if cell.step == "P5" {
            (outcome, reason) = behind.lost_through(port);
        } else {
            await_line(&behind.manager, &who, cell.expected.reason);
            cell.expected.reason.clone_into(&mut reason);
        }
        register(port)
    };
    let wait = match cell.expected.wait {
        "step" => Duration::from_secs(STEP),
        other => limit(other),
    };
    let is_so = outcome == cell.expected.outcome
        && reason.contains(cell.expected.reason)
        && said == cell.expected.told
        && took >= wait;
    let wrong = (!is_so).then(|| {
        format!(
            "{} {}: {outcome}, {reason}, told {said}, after {took:.1?}\n  instead of {:?}",
            cell.step, cell.fault, cell.expected
        )
    });
    let late = if kept_open(cell) { Duration::ZERO } else { took.saturating_sub(wait) };
    found.add(cell, Side::Only, late, wrong);
    last
}

/// P0: the connection that is to replace the one that this endpoint takes cannot be made; then one can again.
fn bar(behind: &Behind, cell: &Cell, port: &mut Port, session: &mut Endpoint) {
    let queued = if cell.fault == "F1" { port.fill() } else { Vec::new() };
    if cell.fault == "F3" {
        port.refuse();
    }
    session.handshake().unwrap();
    session.set_up().unwrap();
    let who = format!("proxy {}, ", port.address);
    await_line(&behind.manager, &who, cell.expected.reason);
    if cell.fault == "F3" {
        port.listen();
    }
    port.drain(queued);
}

fn kept_open(cell: &Cell) -> bool {
    cell.expected.outcome == "goes_on"
}

/// F10: while set-ups stand at all steps the manager can open nothing; those go on, and the one that is to be made fails.
fn lacking(found: &Found) {
    let cells = cells(|fault| fault == "F10");
    let ports: Vec<Port> = (0..cells.len()).map(|_| Port::new()).collect();
    let (behind, mut registered) = Behind::new(&ports);
    let first = registered.remove(0);
    let (bystanders, first) = behind.bystanders(&ports[0], first, 2);
    let mut standing = Vec::new();
    for ((cell, port), tcp) in cells.iter().zip(&ports).skip(1).zip(registered) {
        end(behind.session(tcp));
        let mut peer = port.accept();
        let stand = stand_of(cell.step);
        // Its ClientHello is in the socket, and is read when it goes on.
        if stand != Stand::Hello {
            go(&mut peer, None, stand);
        }
        standing.push((cell, peer, stand));
    }
    let pid = behind.manager.pid();
    starve(pid);
    drop(first);
    let who = format!("proxy {}, ", ports[0].address);
    await_line(&behind.manager, &who, cells[0].expected.reason);
    found.add(&cells[0], Side::Only, Duration::ZERO, None);
    let mut kept = Vec::new();
    for (cell, mut peer, stand) in standing {
        go(&mut peer, Some(stand), Stand::Done);
        found.add(cell, Side::Only, Duration::ZERO, None);
        kept.push(peer.tcp);
    }
    feed(pid);
    kept.push(register(&ports[0]));
    found.add_bystanders(2, bystanders.are_clean());
    assert_eq!(behind.manager.interrupted().code, Some(0));
    // Of the bystanders, of who took the place of each set-up, and of the connection that was closed.
    assert_eq!(Events::of(&behind.home).sessions().len(), 2 + (cells.len() - 1) + 1);
    wait_until("no process is left", || processes_in(&behind.home.path("")).is_empty());
}

/// F11: SIGTERM while set-ups stand at all steps: all are let go at once, bystanders are not.
fn terminated(found: &Found) {
    let cells = cells(|fault| fault == "F11");
    let ports: Vec<Port> = (0..=cells.len()).map(|_| Port::new()).collect();
    let (behind, mut registered) = Behind::new(&ports);
    let healthy = registered.remove(0);
    let (bystanders, _healthy) = behind.bystanders(&ports[0], healthy, 2);
    let mut standing = Vec::new();
    for ((cell, port), tcp) in cells.iter().zip(&ports[1..]).zip(registered) {
        if cell.step == "P0" {
            let queued = port.fill();
            end(behind.session(tcp));
            standing.push((cell, None, queued));
            continue;
        }
        end(behind.session(tcp));
        let mut peer = port.accept();
        go(&mut peer, None, stand_of(cell.step));
        standing.push((cell, Some(peer), Vec::new()));
    }
    behind.manager.signal(SIGTERM);
    behind.manager.says("a second signal ends them");
    for (cell, peer, _queued) in standing {
        let said = match peer {
            Some(peer) => told(peer, layer_of(cell.step)),
            None => "nothing".into(),
        };
        let wrong = (said != cell.expected.told).then(|| {
            format!("{} {}: told {said} instead of {:?}", cell.step, cell.fault, cell.expected)
        });
        found.add(cell, Side::Only, Duration::ZERO, wrong);
    }
    let others = behind.records().len();
    found.add_bystanders(2, bystanders.are_clean());
    assert_eq!(behind.manager.ends().code, Some(0));
    let records = Events::of(&behind.home).sessions();
    assert!(records.len() >= others && records.iter().all(|record| record["outcome"] == "ok"));
    wait_until("no process is left", || processes_in(&behind.home.path("")).is_empty());
}
