//! What the processes of a run hold while it goes on, and how that grows.

use std::fmt;
use std::fs;
use std::time::Instant;

use crate::common::manager::{
    Manager, children_of, memory_kib_of, open_fds_of, wait_until, zombies,
};

/// What the fitted line may rise by in the second half. The allocator keeps what the busiest moment took, and so memory
/// rises by steps, the rarer the longer it runs; what leaks in each session rises all the time, in half an hour by 6 bytes
/// times 360,000.
const MEMORY_KIB_MAX: f64 = 2048.0;
/// What may end between two looks of the supervisor.
const ZOMBIES_MAX: f64 = 50.0;

/// What one process holds. All but the first is counted: as much as there are sessions, and at rest exactly as before.
const HELD: [&str; 4] = ["RssAnon KiB", "descriptors", "threads", "children"];

fn held_by(pid: i32) -> [usize; HELD.len()] {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().count();
    [memory_kib_of(pid), open_fds_of(pid), threads, children_of(pid).len()]
}

/// What is held, over time.
pub(super) struct Samples {
    start: Instant,
    /// Manager, supervisor, recorder.
    processes: [(&'static str, i32); 3],
    /// What each held before.
    at_rest: [[usize; HELD.len()]; 3],
    times: Vec<f64>,
    /// For each process, for each of [`HELD`].
    values: [[Vec<f64>; HELD.len()]; 3],
    zombies: Vec<f64>,
}

/// How much of something is held in the second half.
struct Growth {
    process: &'static str,
    held: &'static str,
    /// What the fitted line begins with.
    first: f64,
    /// What it rises by.
    rise: f64,
    max: f64,
}

impl Samples {
    /// Of a manager that is at rest.
    pub(super) fn of(manager: &Manager) -> Self {
        let recorder = manager.recorder().expect("a recorder");
        let processes = [
            ("manager", manager.pid()),
            ("supervisor", manager.supervisor()),
            ("recorder", recorder),
        ];
        let at_rest = processes.map(|(_, pid)| held_by(pid));
        let (start, times, zombies) = (Instant::now(), Vec::new(), Vec::new());
        Self { start, processes, at_rest, times, values: Default::default(), zombies }
    }

    /// How many have been taken.
    pub(super) fn len(&self) -> u32 {
        self.times.len().try_into().unwrap()
    }

    pub(super) fn take(&mut self) {
        self.times.push(self.start.elapsed().as_secs_f64());
        for ((_, pid), values) in self.processes.into_iter().zip(&mut self.values) {
            values
                .iter_mut()
                .zip(held_by(pid))
                .for_each(|(values, value)| values.push(value as f64));
        }
        self.zombies.push(zombies(self.processes[1].1) as f64);
        println!("soak: {:.0} s: {:?}", self.times.last().unwrap(), self.last());
    }

    fn last(&self) -> [[f64; HELD.len()]; 3] {
        self.values.each_ref().map(|held| held.each_ref().map(|values| *values.last().unwrap()))
    }

    /// Waits until each holds what it held before, but for memory.
    pub(super) fn are_back(&self) {
        println!("soak: held at rest, before and after: {:?}", self.at_rest);
        let counted = |held: &[usize; HELD.len()]| held[1..].to_vec();
        let before = self.at_rest.each_ref().map(counted);
        wait_until("all is as before", || {
            self.processes.map(|(_, pid)| counted(&held_by(pid))) == before
        });
    }

    /// Prints how all of it grew, and asserts that memory did not.
    pub(super) fn have_not_grown(&self) {
        let half = self.times.len() / 2;
        assert!(half >= 10, "{half} samples are no half to fit a line to");
        let mut faults = Vec::new();
        for ((process, _), values) in self.processes.iter().zip(&self.values) {
            for (held, values) in HELD.into_iter().zip(values) {
                let growth = Growth::of(process, held, &self.times[half..], &values[half..]);
                println!("soak: {growth}");
                if held == HELD[0] && growth.rise > MEMORY_KIB_MAX {
                    faults.push(format!("{growth}, and {MEMORY_KIB_MAX} are allowed"));
                }
            }
        }
        let zombies = self.zombies.iter().copied().fold(0.0, f64::max);
        println!("soak: at most {zombies} zombies at any of {} looks", self.zombies.len());
        assert!(zombies <= ZOMBIES_MAX, "{zombies} zombies");
        assert_eq!(faults, Vec::<String>::new());
    }
}

impl Growth {
    /// Least squares.
    fn of(process: &'static str, held: &'static str, times: &[f64], values: &[f64]) -> Self {
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let (time, value) = (mean(times), mean(values));
        let along = times.iter().zip(values).map(|(at, held)| (at - time) * (held - value));
        let square = times.iter().map(|at| (at - time).powi(2));
        let slope = along.sum::<f64>() / square.sum::<f64>();
        let first = value + slope * (times[0] - time);
        let rise = slope * (times[times.len() - 1] - times[0]);
        let max = values.iter().copied().fold(f64::MIN, f64::max);
        Self { process, held, first, rise, max }
    }
}

impl fmt::Display for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { process, held, first, rise, max } = self;
        write!(
            f,
            "{process}: {held}: {rise:+.1} over the second half, from {first:.1}, at most {max}"
        )
    }
}
