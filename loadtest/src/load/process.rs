//! What a process uses, read from /proc.

use std::fs;
use std::io;
use std::time::Duration;

use super::error::LoadError;

/// What the manager used at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Usage {
    /// CPU time since its start, user and system.
    pub(super) cpu: Duration,
    /// Its proportional share of memory.
    pub(super) pss_bytes: u64,
    /// Open files.
    pub(super) fds: usize,
    /// Threads.
    pub(super) threads: usize,
}

impl Usage {
    /// Reads the usage of process `pid`.
    pub(super) fn of(pid: u32) -> Result<Self, LoadError> {
        Self::read(pid).map_err(|cause| LoadError::Usage { pid, cause })
    }

    fn read(pid: u32) -> io::Result<Self> {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        Ok(Self {
            cpu: cpu(pid)?,
            pss_bytes: field(&rollup, "Pss:").unwrap_or(0) * 1024,
            fds: fs::read_dir(format!("/proc/{pid}/fd"))?.count(),
            threads: fs::read_dir(format!("/proc/{pid}/task"))?.count(),
        })
    }
}

/// Resident memory of process `pid` in bytes, which costs the process less to tell than its share does; 0 once
/// it has ended.
pub(super) fn resident_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    field(&status, "VmRSS:").unwrap_or(0) * 1024
}

/// The CPU time of process `pid` since its start, user and system.
pub(super) fn cpu_of(pid: u32) -> Result<Duration, LoadError> {
    cpu(pid).map_err(|cause| LoadError::Usage { pid, cause })
}

/// CPU time of all threads, to the nanosecond: `stat` counts in ticks of 10 ms.
fn cpu(pid: u32) -> io::Result<Duration> {
    let mut nanoseconds = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let schedstat = fs::read_to_string(task?.path().join("schedstat"))?;
        nanoseconds += schedstat
            .split_whitespace()
            .next()
            .and_then(|field| field.parse::<u64>().ok())
            .unwrap_or(0);
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// SYNs that this machine has sent more than once, because an accept queue was full.
pub(super) fn syns_sent_again() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/net/netstat")?;
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let names = lines.next().unwrap_or_default().split_whitespace();
    let values = lines.next().unwrap_or_default().split_whitespace();
    let value = names.zip(values).find(|(name, _)| *name == "TCPSynRetrans");
    Ok(value.and_then(|(_, value)| value.parse().ok()).unwrap_or(0))
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}
