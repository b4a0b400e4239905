//! The steps of a publication. One manager publishes at a broker for each cell, and at one more; F10 and F11 strike whole
//! managers and have their own.
//!
//! At each broker everything is published and then lost, but where the fault is to strike what is published; the fault
//! strikes the try that follows, and the next is whole again.

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal::SIGTERM;

use crate::bystanders::Bystanders;
use crate::cell::{Found, Side, cells_of, side_by_side};
use crate::common::Home;
use crate::common::broker::take_xpub;
use crate::common::endpoint::{Dial, SUCCESS};
use crate::common::events::{EVENTS, Events};
use crate::common::manager::{Manager, processes_in, wait_until};
use crate::common::tls_peer::TlsPeer;
use crate::matrix::Cell;
use crate::scripted::{Layer, Port, await_line, strike, take_hello, told};
use crate::world::{at_rest, end, feed, starve};

/// How long a broker may take to answer, in seconds.
const BROKER: u64 = 3;

fn layer_of(step: &str) -> Layer {
    if step == "B1" { Layer::Handshake } else { Layer::Tls }
}

/// Goes on with a connection as far as this step.
fn go(peer: &mut TlsPeer, step: &str) {
    if step == "B1" {
        return take_hello(peer);
    }
    peer.handshake().unwrap();
    match step {
        "B2" => assert_eq!(peer.receive().unwrap().0, 0x30),
        "B3" => {
            while peer.receive().unwrap().0 == 0x30 {
                peer.send(&SUCCESS).unwrap();
            }
        }
        _ => drop(take_xpub(peer).unwrap()),
    }
}

/// Goes on from there until everything is published.
fn go_on(peer: &mut TlsPeer, step: &str) {
    match step {
        "B1" => go(peer, "B4"),
        "B2" => {
            peer.send(&SUCCESS).unwrap();
            take_xpub(peer).unwrap();
        }
        "B3" => peer.send(&SUCCESS).unwrap(),
        _ => {}
    }
}

/// A connection with which everything is published.
fn publish(port: &Port) -> TlsPeer {
    let mut peer = port.accept();
    go(&mut peer, "B4");
    peer
}

/// A manager that has published at all of these.
struct Publishing {
    home: Home,
    manager: Manager,
    dial: Dial,
}

impl Publishing {
    fn new(ports: &[Port]) -> (Self, Vec<TlsPeer>) {
        let home = Home::new();
        let brokers: Vec<String> = ports.iter().map(|port| port.address.to_string()).collect();
        let config = format!(
            "EnableExpPublication 1\nBrokerAddr {}\nPubAgentCertPath agent.cert\nControllerPrivkeyPath xc\n\
             ExpExec 1:hello:exppriv.cert,pubcmd.cert:eop.pub::\n",
            brokers.join(",")
        );
        home.write("xpmgr.conf", config.as_bytes());
        let timeout = format!("{BROKER}s");
        let options = [&EVENTS[..], &["--broker-timeout", &timeout]].concat();
        let manager = home.start(&options, &["obey"]);
        let published = thread::scope(|scope| {
            let threads: Vec<_> = ports.iter().map(|port| scope.spawn(|| publish(port))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        manager.says_times("published at the broker ", ports.len());
        let dial = home.dial(&manager);
        (Self { home, manager, dial }, published)
    }

    fn bystanders(&self, count: usize) -> Bystanders {
        Bystanders::of((0..count).map(|_| self.dial.session()).collect())
    }

    /// Asserts that the run, which was told to end, does, with one record of each of so many sessions, and leaves nothing.
    #[track_caller]
    fn ends_with(self, sessions: usize) {
        assert_eq!(self.manager.ends().code, Some(0));
        assert_eq!(Events::of(&self.home).sessions().len(), sessions, "one record of each session");
        wait_until("no process is left", || processes_in(&self.home.path("")).is_empty());
    }
}

/// Walks all of them.
pub(crate) fn walk() -> Found {
    side_by_side(&[shared, lacking, terminated])
}

fn cells(faults: impl Fn(&str) -> bool) -> Vec<Cell> {
    cells_of('B', faults)
}

fn shared(found: &Found) {
    const BYSTANDERS: usize = 20;
    let cells = cells(|fault| !matches!(fault, "F10" | "F11"));
    let mut ports: Vec<Port> = (0..=cells.len()).map(|_| Port::new()).collect();
    let (publishing, mut published) = Publishing::new(&ports);
    let healthy = published.remove(0);
    // Some descriptors are of its start, and gone once a session has run.
    end(publishing.dial.session());
    let before = at_rest(&publishing.manager);
    let bystanders = publishing.bystanders(BYSTANDERS);
    let kept: Vec<TlsPeer> = thread::scope(|scope| {
        let each = cells.iter().zip(ports.iter_mut().skip(1)).zip(published);
        let threads: Vec<_> = each
            .map(|((cell, port), first)| {
                let publishing = &publishing;
                scope.spawn(move || walk_cell(publishing, cell, port, first, found))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    healthy.assert_silent();
    let exchanged = bystanders.are_clean();
    found.add_bystanders(BYSTANDERS, exchanged);
    before.are_back(&publishing.manager);
    publishing.manager.signal(SIGTERM);
    drop(kept);
    publishing.ends_with(1 + BYSTANDERS);
}

/// Returns the connection with which everything is published in the end.
fn walk_cell(
    publishing: &Publishing,
    cell: &Cell,
    port: &mut Port,
    first: TlsPeer,
    found: &Found,
) -> TlsPeer {
    let who = format!("broker {}", port.address);
    let manager = &publishing.manager;
    let goes_on = cell.expected.outcome == "goes_on";
    let mut said = cell.expected.told.to_owned();
    let mut kept = None;
    let mut begun = Instant::now();
    let layer = layer_of(cell.step);
    if cell.step == "B4" {
        match strike(cell.fault, layer, first) {
            Some(peer) if goes_on => kept = Some(peer),
            Some(peer) => said = told(peer, layer),
            None => {}
        }
    } else {
        let queued = if (cell.step, cell.fault) == ("B0", "F1") { port.fill() } else { Vec::new() };
        if (cell.step, cell.fault) == ("B0", "F3") {
            port.refuse();
        }
        drop(first);
        await_line(manager, &who, "it closed the connection");
        if cell.step == "B0" {
            await_line(manager, &who, cell.expected.reason);
            port.listen_again();
            port.drain(queued);
        } else {
            begun = Instant::now();
            let mut peer = port.accept();
            go(&mut peer, cell.step);
            if let Some(peer) = strike(cell.fault, layer, peer) {
                said = told(peer, layer);
            }
        }
    }
    let took = begun.elapsed();
    let last = if let Some(peer) = kept {
        if matches!(cell.fault, "F8" | "F9") {
            await_line(manager, &who, "which is not for us; ignored");
        }
        thread::sleep(Duration::from_secs(BROKER + 1));
        peer.assert_silent();
        peer
    } else {
        await_line(manager, &who, cell.expected.reason);
        await_line(manager, &who, "publishing again in");
        publish(port)
    };
    let wait = Duration::from_secs(if cell.expected.wait == "broker" { BROKER } else { 0 });
    let is_so = said == cell.expected.told && took >= wait;
    let wrong = (!is_so).then(|| {
        format!(
            "{} {}: told {said}, after {took:.1?}\n  instead of {:?}",
            cell.step, cell.fault, cell.expected
        )
    });
    let late = if goes_on { Duration::ZERO } else { took.saturating_sub(wait) };
    found.add(cell, Side::Only, late, wrong);
    last
}

/// F10: while conversations stand at all steps the manager can open nothing; those go on, and the one that is to be begun
/// fails.
fn lacking(found: &Found) {
    let cells = cells(|fault| fault == "F10");
    let ports: Vec<Port> = (0..cells.len()).map(|_| Port::new()).collect();
    let (publishing, mut published) = Publishing::new(&ports);
    let bystanders = publishing.bystanders(2);
    let first = published.remove(0);
    let mut standing = Vec::new();
    for ((cell, port), peer) in cells.iter().zip(&ports).skip(1).zip(published) {
        if cell.step == "B4" {
            standing.push((cell, peer));
            continue;
        }
        drop(peer);
        let mut peer = port.accept();
        // Its ClientHello is in the socket, and is read when it goes on.
        if cell.step != "B1" {
            go(&mut peer, cell.step);
        }
        standing.push((cell, peer));
    }
    let pid = publishing.manager.pid();
    starve(pid);
    drop(first);
    let who = format!("broker {}", ports[0].address);
    await_line(&publishing.manager, &who, cells[0].expected.reason);
    found.add(&cells[0], Side::Only, Duration::ZERO, None);
    let mut kept = Vec::new();
    for (cell, mut peer) in standing {
        go_on(&mut peer, cell.step);
        found.add(cell, Side::Only, Duration::ZERO, None);
        kept.push(peer);
    }
    feed(pid);
    kept.push(publish(&ports[0]));
    for peer in &kept {
        peer.assert_silent();
    }
    found.add_bystanders(2, bystanders.are_clean());
    publishing.manager.signal(SIGTERM);
    for peer in kept {
        assert_eq!(told(peer, Layer::Tls), "close_notify", "a farewell");
    }
    publishing.ends_with(2);
}

/// F11: SIGTERM while conversations stand at all steps: all are let go at once, bystanders are not.
fn terminated(found: &Found) {
    let cells = cells(|fault| fault == "F11");
    let ports: Vec<Port> = (0..cells.len()).map(|_| Port::new()).collect();
    let (publishing, published) = Publishing::new(&ports);
    let bystanders = publishing.bystanders(2);
    let mut standing = Vec::new();
    for ((cell, port), first) in cells.iter().zip(&ports).zip(published) {
        match cell.step {
            "B4" => standing.push((cell, Some(first), Vec::new())),
            "B0" => {
                let queued = port.fill();
                drop(first);
                standing.push((cell, None, queued));
            }
            step => {
                drop(first);
                let mut peer = port.accept();
                go(&mut peer, step);
                standing.push((cell, Some(peer), Vec::new()));
            }
        }
    }
    publishing.manager.signal(SIGTERM);
    publishing.manager.says("a second signal ends them");
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
    found.add_bystanders(2, bystanders.are_clean());
    publishing.ends_with(2);
}
