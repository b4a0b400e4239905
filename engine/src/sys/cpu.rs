//! Which CPUs this process may use, tying a thread to one of them, and what a thread has had of one.

use std::fs;
use std::io;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::{Pid, gettid};

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

/// Lets the calling thread run only while nothing else on this machine wants the core (SCHED_IDLE of sched(7)), and with it
/// the threads that it starts from now on. Without privileges there is no way back.
///
/// # Errors
/// As the kernel says.
#[allow(unsafe_code)]
pub fn run_when_idle() -> io::Result<()> {
    let no_priority = libc::sched_param { sched_priority: 0 };
    // SAFETY: the kernel reads the one structure, which lives longer than the call.
    let set = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const no_priority) };
    Errno::result(set)?;
    Ok(())
}

/// Names the calling thread, for [`time_of_thread`].
pub(crate) fn this_thread() -> i32 {
    gettid().as_raw()
}

/// Processor time that this thread of the process has had; `None` if it has ended, or the kernel does not tell.
pub(crate) fn time_of_thread(thread: i32) -> Option<Duration> {
    let told = fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).ok()?;
    told.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_has_had_the_time_that_it_worked() {
        let thread = this_thread();
        let before = time_of_thread(thread).unwrap();
        // Work until the kernel has counted some.
        while time_of_thread(thread).unwrap() < before + Duration::from_millis(2) {
            std::hint::black_box((0..10_000).sum::<u64>());
        }
        let other = std::thread::spawn(this_thread).join().unwrap();
        assert_ne!(other, thread);
    }

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

    /// The policy is field 41 of proc_pid_stat(5); SCHED_IDLE is 5.
    #[test]
    fn a_thread_that_runs_when_idle_says_so_to_the_kernel_and_leaves_others_alone() {
        let policy = |thread: i32| {
            let told = fs::read_to_string(format!("/proc/self/task/{thread}/stat")).unwrap();
            let (_, behind_name) = told.rsplit_once(") ").unwrap();
            behind_name.split(' ').nth(38).unwrap().to_owned()
        };
        let one = std::thread::spawn(move || {
            run_when_idle().unwrap();
            policy(this_thread())
        });
        assert_eq!((one.join().unwrap(), policy(this_thread())), ("5".to_owned(), "0".to_owned()));
    }
}
