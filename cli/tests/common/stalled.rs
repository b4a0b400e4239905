//! A shard of a manager that stands still, as a core would that hangs.

use std::fs;

use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use super::manager::Manager;

/// Its thread, which is stopped until this is dropped.
pub struct Stalled(Pid);

impl Stalled {
    /// Stops the shard of this number.
    pub fn shard(manager: &Manager, number: usize) -> Self {
        let thread = thread_of(manager, number);
        ptrace::seize(thread, ptrace::Options::empty()).expect("run the tests as root");
        ptrace::interrupt(thread).unwrap();
        waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap();
        Self(thread)
    }
}

/// Also when a test fails: nobody could wait for the end of a process with a thread that is traced.
impl Drop for Stalled {
    fn drop(&mut self) {
        // It fails only if the thread is gone.
        let _ = ptrace::detach(self.0, None);
    }
}

fn thread_of(manager: &Manager, shard: usize) -> Pid {
    let threads = fs::read_dir(format!("/proc/{}/task", manager.pid())).unwrap().flatten();
    let called = |thread: &fs::DirEntry| fs::read_to_string(thread.path().join("comm")).unwrap();
    let name = format!("shard-{shard}\n");
    let mut found = threads.filter(|thread| called(thread) == name);
    Pid::from_raw(found.next().unwrap().file_name().to_str().unwrap().parse().unwrap())
}
