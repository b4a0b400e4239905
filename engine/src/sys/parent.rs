//! A child that does not outlive its parent, however that ends.
//!
//! Not here: mlets, which the supervisor ends with their graces where the manager is killed (`children`).

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid};

/// Lets the kernel kill what this command starts when the thread ends that starts it: so let that be one that lasts as long
/// as the process.
pub fn end_with_parent(command: &mut Command) {
    let parent = Pid::this();
    let ask = move || -> io::Result<()> {
        set_pdeathsig(Signal::SIGKILL)?;
        // A parent that ended before it was asked for sends nothing any more.
        if getppid() == parent { Ok(()) } else { Err(Errno::ESRCH.into()) }
    };
    #[allow(unsafe_code)]
    // SAFETY: between fork and exec it makes two system calls and allocates nothing.
    unsafe {
        command.pre_exec(ask);
    }
}
