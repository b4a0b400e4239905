//! Which CPUs this process may use, and tying a thread to one of them.

use std::io;

use nix::errno::Errno;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The thread that calls.
const THIS_THREAD: Pid = Pid::from_raw(0);

/// Numbers of the CPUs the calling thread may run on, ascending; at least one.
///
/// # Errors
/// As the kernel says; EINVAL on a machine with more CPUs than a set holds (1024).
pub fn allowed_cores() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(THIS_THREAD)?;
    Ok((0..CpuSet::count()).filter(|&core| set.is_set(core).unwrap_or(false)).collect())
}

/// Lets the calling thread run on `core` only. Threads and processes it starts later inherit that, which is why
/// the supervisor is forked before any thread is pinned.
///
/// # Errors
/// EINVAL when there is no such core or this process may not use it.
pub fn pin_this_thread(core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    sched_setaffinity(THIS_THREAD, &set).map_err(|errno: Errno| errno.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_may_use_its_core_alone() {
        std::thread::spawn(|| {
            let core = *allowed_cores().unwrap().last().unwrap();
            pin_this_thread(core).unwrap();
            assert_eq!(allowed_cores().unwrap(), [core]);
        })
        .join()
        .unwrap();
        assert!(pin_this_thread(1023).is_err() || allowed_cores().unwrap().contains(&1023));
        assert!(pin_this_thread(1 << 20).is_err());
    }
}
