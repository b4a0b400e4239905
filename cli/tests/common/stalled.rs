//! A thread of a manager that stands still: a shard, as if its core hung, or the control thread, where others overtake it.

use std::fs;

use nix::libc;
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::manager::{Manager, wait_until};

/// The thread, which is stopped until this is dropped.
pub struct Stalled(Pid);

impl Stalled {
    /// Stops the shard of this number.
    pub fn shard(manager: &Manager, number: usize) -> Self {
        Self::stop(thread_of(manager, number))
    }

    /// Stops the control thread in a turn in which it has heard shards and the supervisor, and is about to hear the recorder.
    pub fn before_it_hears_the_recorder(manager: &Manager) -> Self {
        let stalled = Self::stop(Pid::from_raw(manager.pid()));
        ptrace::syscall(stalled.0, None).unwrap();
        let mut asked = None;
        wait_until("a turn of the control thread", || {
            let flags = WaitPidFlag::__WALL | WaitPidFlag::WNOHANG;
            if waitpid(stalled.0, Some(flags)).unwrap() == WaitStatus::StillAlive {
                return false;
            }
            match call_of(stalled.0) {
                // The bell of its mailbox, with which a turn begins.
                Some((libc::SYS_read, _)) => asked = None,
                // The supervisor is asked first, the recorder next.
                Some((libc::SYS_recvmsg, socket)) => match &asked {
                    Some(supervisor) if *supervisor != socket => return true,
                    _ => asked = Some(socket),
                },
                _ => {}
            }
            ptrace::syscall(stalled.0, None).unwrap();
            false
        });
        stalled
    }

    fn stop(thread: Pid) -> Self {
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

/// The system call that a stopped thread is in, and its first argument (proc_pid_syscall(5)); `None` if it is in none.
fn call_of(thread: Pid) -> Option<(i64, String)> {
    let call = fs::read_to_string(format!("/proc/{thread}/syscall")).unwrap();
    let mut words = call.split(' ');
    Some((words.next()?.parse().ok()?, words.next()?.to_owned()))
}
