//! Processor time, read from /proc: of a manager by its threads, of other programs in one sum.
//!
//! Not here: what is done with it (`figures.rs`). Processes that have ended within are left out, but for the database's.

use std::collections::BTreeMap;
use std::fmt;

use super::postgres::Postgres;
use super::*;

/// Microseconds by who used them.
#[derive(Debug, Clone, Default)]
pub(super) struct Usage(BTreeMap<String, f64>);

impl Usage {
    /// A process by its threads, those of one name in one sum, with its children, and theirs, as one more.
    pub(super) fn of(pid: u32) -> Self {
        let mut usage = Self::default();
        let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        for thread in threads.map(|entry| entry.unwrap().path()) {
            // One may just have ended.
            let name = fs::read_to_string(thread.join("comm")).unwrap_or_default();
            let name = name.trim_end().trim_end_matches(|c: char| c.is_ascii_digit() || c == '-');
            usage.add_as(name, thread_us(&thread));
        }
        usage.add_as("children", children(pid).into_iter().map(|child| Self::of(child).us()).sum());
        usage
    }

    /// In all.
    pub(super) fn us(&self) -> f64 {
        self.0.values().sum()
    }

    pub(super) fn of_name(&self, name: &str) -> f64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    pub(super) fn add_as(&mut self, name: &str, us: f64) {
        *self.0.entry(name.to_owned()).or_default() += us;
    }

    pub(super) fn add(&mut self, other: &Self) {
        other.0.iter().for_each(|(name, us)| self.add_as(name, *us));
    }

    pub(super) fn since(mut self, before: &Self) -> Self {
        before.0.iter().for_each(|(name, us)| self.add_as(name, -us));
        self
    }

    /// Shared among so many.
    pub(super) fn over(self, count: usize) -> Self {
        Self(self.0.into_iter().map(|(name, us)| (name, us / count as f64)).collect())
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told: Vec<_> = self.0.iter().map(|(name, us)| format!("{name} {us:.0}")).collect();
        f.write_str(&told.join(", "))
    }
}

/// All that a database has used: its processes, and those that it had.
pub(super) fn database_us(database: &Postgres) -> f64 {
    let processes = database.processes();
    let running: f64 =
        processes.iter().map(|pid| thread_us(Path::new(&format!("/proc/{pid}")))).sum();
    let stat = fs::read_to_string(format!("/proc/{}/stat", processes[0])).unwrap();
    // Behind the name, which may hold anything: the times of children that were waited for, in ticks of 10 ms.
    let (_, behind_name) = stat.rsplit_once(')').unwrap();
    let ended = behind_name.split_whitespace().skip(13).take(2);
    running + ended.map(|ticks| ticks.parse::<f64>().unwrap() * 1e4).sum::<f64>()
}

fn thread_us(folder: &Path) -> f64 {
    let told = fs::read_to_string(folder.join("schedstat")).unwrap_or_default();
    told.split_whitespace().next().map_or(0.0, |ns| ns.parse::<f64>().unwrap() / 1e3)
}

fn children(pid: u32) -> Vec<u32> {
    let told = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    told.split_whitespace().map(|child| child.parse().unwrap()).collect()
}
