//! Which core each part of a run is tied to.

use std::fs;
use std::io;

use command_line::cores::{Cores, CoresError};
use engine::sys::cpu;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use super::error::LoadError;

/// The cores of one session's parts; `None` where the kernel chooses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placement {
    pub(super) endpoint: Option<usize>,
    pub(super) relay: Option<usize>,
    pub(super) mlet: Option<usize>,
}

impl Placement {
    /// With a relay on `cores`: on one core only it has a place.
    pub(super) fn new(cores: &[usize], endpoint: Option<usize>, mlet: Option<usize>) -> Self {
        let relay = match cores {
            [core] => Some(*core),
            _ => None,
        };
        Self { endpoint, relay, mlet }
    }
}

/// The cores that `pktxpmgr --cores` takes, by its list or by how many of those that this process may use.
///
/// # Errors
/// It is neither, or there are not so many.
pub(super) fn cores(text: &str) -> Result<Vec<usize>, LoadError> {
    let allowed = cpu::allowed_cores()?;
    let chosen = Cores::parse(text).ok().map(|wanted| Cores::choose(Some(&wanted), &allowed));
    let core = match chosen {
        Some(Ok(cores)) => return Ok(cores),
        Some(Err(CoresError::NotAllowed { cpu, .. })) => cpu.to_string(),
        Some(Err(CoresError::TooMany { .. })) | None => text.to_owned(),
    };
    Err(LoadError::NoCore { option: "--cores", core, allowed })
}

/// That this process may use these cores.
///
/// # Errors
/// One of them it may not, or there is no such core.
pub(super) fn check(option: &'static str, cores: &[usize]) -> Result<(), LoadError> {
    let allowed = cpu::allowed_cores()?;
    match cores.iter().find(|core| !allowed.contains(core)) {
        Some(core) => Err(LoadError::NoCore { option, core: core.to_string(), allowed }),
        None => Ok(()),
    }
}

/// A core as `mlet-load` and `tokio-relay` take it.
pub(super) fn core_name(core: Option<usize>) -> String {
    core.map_or_else(|| "any".to_owned(), |core| core.to_string())
}

/// Lets the calling thread run on these cores only.
///
/// # Errors
/// There is no such core.
pub(super) fn pin_this_thread(cores: &[usize]) -> io::Result<()> {
    Ok(sched_setaffinity(Pid::from_raw(0), &set_of(cores)?)?)
}

/// Lets a process, with all threads it has, run on these cores only.
///
/// # Errors
/// There is no such process or core.
pub(super) fn pin(pid: u32, cores: &[usize]) -> io::Result<()> {
    let set = set_of(cores)?;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let thread = thread?.file_name().to_string_lossy().parse().map_err(io::Error::other)?;
        sched_setaffinity(Pid::from_raw(thread), &set)?;
    }
    Ok(())
}

fn set_of(cores: &[usize]) -> io::Result<CpuSet> {
    let mut set = CpuSet::new();
    cores.iter().try_for_each(|&core| set.set(core))?;
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sched::sched_getaffinity;

    #[test]
    fn cores_are_a_list_or_a_count() {
        let allowed = cpu::allowed_cores().unwrap();
        let (first, last) = (allowed[0], allowed[allowed.len() - 1]);
        assert_eq!(cores(&format!("{first},{last}-{last}")).unwrap(), [first, last]);
        assert_eq!(cores(&format!("{first}-{first}")).unwrap(), [first]);
        assert_eq!(cores("1").unwrap(), [first]);
        let many = (allowed.len() + 1).to_string();
        for none in ["1-", "x", "", "0", "0,1023", &many] {
            let error = cores(none).unwrap_err().to_string();
            let said = format!(
                "--cores {}: there is no such core here; ",
                if none == "0,1023" { "1023" } else { none }
            );
            assert!(error.starts_with(&said), "{error}");
        }
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
        let relay = |cores| Placement::new(cores, None, None).relay;
        assert_eq!(relay(&[3]), Some(3));
        assert_eq!(relay(&[0, 2]), None);
    }
}
