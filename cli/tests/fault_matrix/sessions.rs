//! The steps of sessions. Most cells share a manager; what strikes a whole manager, or needs a state of it, has one of its own.

use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal::{SIGCONT, SIGSTOP, SIGTERM};
use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::cell::{
    Found, Reached, Side, await_read, cells_of, go_on, judge, reach, side_by_side, start, strike,
};
use crate::common::Home;
use crate::common::endpoint::{Dial, End, Endpoint, Identity, START};
use crate::matrix::Cell;
use crate::world::{SETUP, World, feed, order_exit, starve};

/// Walks all of them.
pub(crate) fn walk() -> Found {
    side_by_side(&[
        shared,
        spawning,
        permits,
        draining,
        lacking,
        terminated,
        forced,
        lacking_while_draining,
    ])
}

/// The cells of these steps and faults, with their sides.
fn cells(steps: &[&str], faults: impl Fn(&str) -> bool) -> Vec<(Cell, Side)> {
    let mut all = Vec::new();
    for cell in cells_of('S', |fault| faults(fault)) {
        if !steps.contains(&cell.step) {
            continue;
        }
        let sides: &[Side] = match cell.step {
            "S5" | "S9" => &[Side::First, Side::Second],
            _ => &[Side::Only],
        };
        all.extend(sides.iter().map(|side| (cell, *side)));
    }
    assert!(!all.is_empty());
    all
}

/// What endpoint or mlet do.
fn is_of_peers(fault: &str) -> bool {
    !matches!(fault, "F10" | "F11")
}

/// A cell, its side, and the last part of the address from which its endpoint comes.
type Which<'a> = (&'a Cell, Side, u8);

/// Each from an address of its own.
fn numbered(cells: &[(Cell, Side)]) -> Vec<Which<'_>> {
    (2..).zip(cells).map(|(last, (cell, side))| (cell, *side, last)).collect()
}

/// Brings all of them to their steps, those of the set-up last: limits of theirs run.
fn reach_all<'a>(world: &World, cells: &'a [(Cell, Side)]) -> Vec<(Which<'a>, Reached)> {
    let which = numbered(cells).into_iter().rev();
    which.map(|which| (which, reach(world, which))).collect()
}

/// Walks these cells at once; only one at a time is being brought to its step, so that none of the others' limits passes
/// meanwhile.
fn walk_cells(world: &World, cells: &[(Cell, Side)], found: &Found) {
    let turn = Mutex::new(());
    thread::scope(|scope| {
        for which in numbered(cells) {
            let turn = &turn;
            scope.spawn(move || {
                let guard = turn.lock().unwrap();
                let reached = reach(world, which);
                drop(guard);
                finish(world, which, reached, found);
            });
        }
    });
}

/// Lets the fault happen, and the session end.
fn finish(world: &World, which: Which<'_>, reached: Reached, found: &Found) {
    let struck_at = Instant::now();
    let mut struck = strike(world, which, reached);
    if let ("goes on", Some(reached)) = (which.0.expected.wait, &mut struck) {
        go_on(which.0, reached);
    }
    judge(world, which, (struck, struck_at), found);
}

fn signal(pid: i32, signal: nix::sys::signal::Signal) {
    kill(Pid::from_raw(pid), signal).unwrap();
}

/// Steps at which nothing is needed but the endpoint.
const ORDINARY: [&str; 9] = ["S0", "S1", "S2", "S3", "S5", "S6", "S8", "S9", "S10"];

fn shared(found: &Found) {
    let world = World::new((Home::with_programs().0, &[]), 20);
    let cells = cells(&ORDINARY, is_of_peers);
    walk_cells(&world, &cells, found);
    let bystanders = world.bystanders();
    found.add_bystanders(bystanders, world.ends_clean(cells.len()));
}

/// S7: the supervisor is stopped, so that a mlet is asked for and does not run yet. One cell at a time, since it starts
/// nobody's mlet meanwhile.
fn spawning(found: &Found) {
    let world = World::new((Home::new(), &[]), 4);
    let supervisor = world.manager.supervisor();
    let cells = cells(&["S7"], |fault| fault != "F11");
    for which in numbered(&cells) {
        let (cell, ..) = which;
        signal(supervisor, SIGSTOP);
        let reached = reach(&world, which);
        if cell.fault == "F10" {
            starve(supervisor);
        }
        // The mlet that is to die has to run; silence and what trickles take longer than a mlet is waited for.
        let goes_first = matches!(cell.fault, "F1" | "F5" | "F10" | "F12");
        if goes_first {
            signal(supervisor, SIGCONT);
        }
        let struck_at = Instant::now();
        let mut struck = strike(&world, which, reached);
        if !goes_first {
            signal(supervisor, SIGCONT);
        }
        if let ("goes on", Some(reached)) = (cell.expected.wait, &mut struck) {
            go_on(cell, reached);
        }
        judge(&world, which, (struck, struck_at), found);
        if cell.fault == "F10" {
            feed(supervisor);
        }
    }
    let bystanders = world.bystanders();
    found.add_bystanders(bystanders, world.ends_clean(cells.len()));
}

/// An endpoint of its own key that has got the one permit that is left, and keeps it.
fn holder(world: &World) -> Endpoint {
    let mut endpoint = other(world).handshake();
    assert_eq!(endpoint.receive().unwrap().0, START);
    endpoint
}

/// One with another key than all others.
fn other(world: &World) -> Dial {
    world.dial.clone().with(&Identity::of(&world.home.keys.operator))
}

/// S4: the permits of -n are held by others.
fn permits(found: &Found) {
    thread::scope(|scope| {
        scope.spawn(|| permits_of_peers(found));
        scope.spawn(|| permit_while_lacking(found));
        scope.spawn(|| permit_at_the_end(found));
    });
}

/// Each has the permit for a time, so that the last of them gets it before the others' time to wait for one is over, and
/// keeps it for longer.
fn pass_on(holders: Vec<Endpoint>) {
    /// Four of them are longer than twice the time that START may take, and three are shorter.
    const TURN: Duration = Duration::from_millis(SETUP * 1000 * 7 / 12);
    let mut holders = holders.into_iter();
    let mut holder = holders.next().unwrap();
    for mut next in holders {
        thread::sleep(TURN);
        drop(holder);
        assert_eq!(next.receive().unwrap().0, START);
        holder = next;
    }
    assert_eq!(holder.receive(), Err(End::Fin), "it has answered no START");
}

fn permits_of_peers(found: &Found) {
    let world = World::new((Home::new(), &["-n", "3"]), 2);
    let cells = cells(&["S4"], is_of_peers);
    let mut holders = vec![holder(&world)];
    for _ in 0..3 {
        let waiting = other(&world).handshake();
        await_read(&waiting);
        world.await_turn();
        holders.push(waiting);
    }
    let others = holders.len();
    thread::scope(|scope| {
        scope.spawn(|| pass_on(holders));
        walk_cells(&world, &cells, found);
    });
    let bystanders = world.bystanders();
    world.manager.signal(SIGTERM);
    found.add_bystanders(bystanders, world.has_ended(cells.len() + others, 0));
}

fn permit_while_lacking(found: &Found) {
    let world = World::new((Home::new(), &["-n", "2"]), 1);
    let (cell, side) = cells(&["S4"], |fault| fault == "F10")[0];
    let holder = holder(&world);
    let mut reached = reach(&world, (&cell, side, 2));
    let pid = world.manager.pid();
    starve(pid);
    let probe = world.lacks_descriptors();
    drop(holder);
    let struck_at = Instant::now();
    start(&cell, &mut reached);
    assert_eq!(world.mlet_of(2), None, "there is no socket for it");
    feed(pid);
    order_exit(&mut reached.endpoint);
    judge(&world, (&cell, side, 2), (Some(reached), struck_at), found);
    drop(probe);
    let bystanders = world.bystanders();
    // With the holder and the connection that was not accepted, unless the run has ended before.
    found.add_bystanders(bystanders, world.has_ended_with(2..=3, 0));
}

fn permit_at_the_end(found: &Found) {
    let world = World::new((Home::new(), &["-n", "2"]), 1);
    let (cell, side) = cells(&["S4"], |fault| fault == "F11")[0];
    let holder = holder(&world);
    let reached = reach(&world, (&cell, side, 2));
    let struck_at = Instant::now();
    terminate(&world);
    judge(&world, (&cell, side, 2), (Some(reached), struck_at), found);
    drop(holder);
    let bystanders = world.bystanders();
    found.add_bystanders(bystanders, world.has_ended(2, 0));
}

/// SIGTERM, which is taken.
fn terminate(world: &World) {
    world.manager.signal(SIGTERM);
    world.manager.says("a second signal ends them");
}

/// S11: the run drains.
fn draining(found: &Found) {
    let world = World::new((Home::new(), &[]), 4);
    let cells = cells(&["S11"], is_of_peers);
    let reached = reach_all(&world, &cells);
    terminate(&world);
    thread::scope(|scope| {
        for (which, reached) in reached {
            let world = &world;
            scope.spawn(move || finish(world, which, reached, found));
        }
    });
    let bystanders = world.bystanders();
    found.add_bystanders(bystanders, world.has_ended(cells.len() + 1, 0));
}

/// Lets sessions end that the fault, which has happened, does not, and judges all.
fn end_all(world: &World, all: Vec<(Which<'_>, Reached)>, struck_at: Instant, found: &Found) {
    thread::scope(|scope| {
        for (which, mut reached) in all {
            scope.spawn(move || {
                if which.0.expected.wait == "goes on" {
                    go_on(which.0, &mut reached);
                }
                judge(world, which, (Some(reached), struck_at), found);
            });
        }
    });
}

/// F10: the manager's limit of open files falls to nothing. All sessions stand at their steps then.
fn lacking(found: &Found) {
    let world = World::new((Home::with_programs().0, &[]), 4);
    let cells = cells(&ORDINARY, |fault| fault == "F10");
    let reached = reach_all(&world, &cells);
    let pid = world.manager.pid();
    starve(pid);
    let struck_at = Instant::now();
    let probe = world.lacks_descriptors();
    let is_relaying = |which: Which<'_>| matches!(which.0.step, "S8" | "S9" | "S10");
    let (relaying, mut starting): (Vec<_>, Vec<_>) =
        reached.into_iter().partition(|(which, _)| is_relaying(*which));
    for (which, reached) in &mut starting {
        start(which.0, reached);
    }
    end_all(&world, relaying, struck_at, found);
    for ((cell, _, last), _) in &starting {
        assert_eq!(world.mlet_of(*last), None, "{}: there is no socket for it", cell.step);
    }
    feed(pid);
    for (which, mut reached) in starting {
        order_exit(&mut reached.endpoint);
        judge(&world, which, (Some(reached), struck_at), found);
    }
    drop(probe);
    let bystanders = world.bystanders();
    found.add_bystanders(bystanders, world.ends_clean(cells.len() + 1));
}

/// F11: SIGTERM, while sessions stand at all steps.
fn terminated(found: &Found) {
    let world = World::new((Home::with_programs().0, &[]), 4);
    let mut steps = ORDINARY.to_vec();
    steps.push("S7");
    let cells = cells(&steps, |fault| fault == "F11");
    let reached = reach_all(&world, &cells);
    terminate(&world);
    let struck_at = Instant::now();
    end_all(&world, reached, struck_at, found);
    let bystanders = world.bystanders();
    found.add_bystanders(bystanders, world.has_ended(cells.len() + 1, 0));
}

/// S11, F11: the second signal. Bystanders would be ended as well.
fn forced(found: &Found) {
    let world = World::new((Home::new(), &[]), 0);
    let (cell, side) = cells(&["S11"], |fault| fault == "F11")[0];
    let reached = reach(&world, (&cell, side, 2));
    terminate(&world);
    let struck_at = Instant::now();
    world.manager.signal(SIGTERM);
    judge(&world, (&cell, side, 2), (Some(reached), struck_at), found);
    world.has_ended(2, 143);
}

/// S11, F10.
fn lacking_while_draining(found: &Found) {
    let world = World::new((Home::new(), &[]), 1);
    let (cell, side) = cells(&["S11"], |fault| fault == "F10")[0];
    let mut reached = reach(&world, (&cell, side, 2));
    terminate(&world);
    let pid = world.manager.pid();
    starve(pid);
    // Nobody is let in any more, so nothing can be seen to fail.
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(line.split_whitespace().nth(3), Some("0"), "{line}");
    let struck_at = Instant::now();
    go_on(&cell, &mut reached);
    judge(&world, (&cell, side, 2), (Some(reached), struck_at), found);
    let bystanders = world.bystanders();
    found.add_bystanders(bystanders, world.has_ended(2, 0));
}
