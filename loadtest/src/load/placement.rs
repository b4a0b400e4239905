//! Which core each part of a run is tied to.

use std::fs;
use std::io;

use engine::sys::cpu;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// The cores of one session's parts; `None` where the kernel chooses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placement {
    pub(super) endpoint: Option<usize>,
    pub(super) relay: Option<usize>,
    pub(super) mlet: Option<usize>,
}

impl Placement {
    /// With a relay on `cores`, as `pktxpmgr --cores` takes them: on one core only it has a place.
    pub(super) fn new(
        cores: &str,
        endpoint: Option<usize>,
        mlet: Option<usize>,
    ) -> io::Result<Self> {
        let relay = match cores.split_once('-') {
            Some((first, last)) if first == last => first.parse().ok(),
            None if cores == "1" => cpu::allowed_cores()?.first().copied(),
            _ => None,
        };
        Ok(Self { endpoint, relay, mlet })
    }
}

/// The cores that `pktxpmgr --cores` takes, by its list or by how many of those that this process may use.
///
/// # Errors
/// It is neither.
pub(super) fn cores(text: &str) -> io::Result<Vec<usize>> {
    if let Ok(count) = text.parse() {
        return Ok(cpu::allowed_cores()?.into_iter().take(count).collect());
    }
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    let ranges: Option<Vec<_>> = text.split(',').map(range).collect();
    let ranges =
        ranges.ok_or_else(|| io::Error::other(format!("--cores {text}: no list of cores")))?;
    Ok(ranges.into_iter().flatten().collect())
}

/// Lets a process, with all threads it has, run on these cores only.
///
/// # Errors
/// There is no such process or core.
pub(super) fn pin(pid: u32, cores: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    cores.iter().try_for_each(|&core| set.set(core))?;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let thread = thread?.file_name().to_string_lossy().parse().map_err(io::Error::other)?;
        sched_setaffinity(Pid::from_raw(thread), &set)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sched::sched_getaffinity;

    #[test]
    fn cores_are_a_list_or_a_count() {
        assert_eq!(cores("0,2-4").unwrap(), [0, 2, 3, 4]);
        assert_eq!(cores("3-3").unwrap(), [3]);
        assert_eq!(cores("1").unwrap(), cpu::allowed_cores().unwrap()[..1]);
        assert!(cores("1-").is_err() && cores("x").is_err());
    }

    #[test]
    fn a_process_can_be_pinned_after_its_start() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let core = *cpu::allowed_cores().unwrap().last().unwrap();
        let pinned = pin(child.id(), &[core]);
        let set = sched_getaffinity(Pid::from_raw(i32::try_from(child.id()).unwrap()));
        child.kill().unwrap();
        child.wait().unwrap();
        pinned.unwrap();
        let set = set.unwrap();
        let cores = (0..CpuSet::count()).filter(|&core| set.is_set(core).unwrap());
        assert_eq!(cores.collect::<Vec<_>>(), [core]);
    }

    #[test]
    fn a_relay_has_a_place_only_on_one_core() {
        let relay = |cores| Placement::new(cores, None, None).unwrap().relay;
        assert_eq!(relay("1"), cpu::allowed_cores().unwrap().first().copied());
        assert_eq!(relay("3-3"), Some(3));
        assert_eq!(relay("2"), None);
        assert_eq!(relay("0-1"), None);
        assert_eq!(relay("0,2"), None);
    }
}
