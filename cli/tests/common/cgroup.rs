//! A cgroup of a test's own, to have limits. It takes root.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::manager::wait_until;

/// A cgroup, gone with the value.
pub struct Cgroup(PathBuf);

/// A file of a cgroup: how the second version calls it, and the first.
type File = [&'static str; 2];

pub const PROCESSES_MAX: File = ["pids.max", "pids.max"];
pub const MEMORY_MAX: File = ["memory.max", "memory.limit_in_bytes"];
/// Lines of a name and a number, of which `oom_kill` tells how many processes were killed for want of memory.
pub const MEMORY_EVENTS: File = ["memory.events", "memory.oom_control"];

impl Cgroup {
    /// One that has a limit of this kind.
    #[track_caller]
    pub fn with(limit: File) -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("pktxpmgr-{}-{number}", std::process::id());
        let controller = limit[0].split('.').next().unwrap();
        // The first version of cgroups has a tree of its own for each kind.
        let roots = ["/sys/fs/cgroup".into(), Path::new("/sys/fs/cgroup").join(controller)];
        let made = roots.iter().map(|root| root.join(&name)).find(|group| {
            let is_made = fs::create_dir(group).is_ok();
            let has_limit = limit.iter().any(|file| group.join(file).exists());
            if is_made && !has_limit {
                let _ = fs::remove_dir(group);
            }
            is_made && has_limit
        });
        Self(made.expect("cgroups that may be written to, with this limit"))
    }

    pub fn write(&self, file: File, value: usize) {
        fs::write(self.path(file), value.to_string()).unwrap();
    }

    /// Has the limit on memory, which is set already, be that of memory and swap together.
    pub fn forbid_swap(&self, memory_max: usize) {
        // The first version limits the sum, the second swap alone; without swap the kernel may have neither.
        for (name, value) in [("memory.swap.max", 0), ("memory.memsw.limit_in_bytes", memory_max)] {
            let path = self.0.join(name);
            if path.exists() {
                fs::write(path, value.to_string()).unwrap();
            }
        }
    }

    /// The number behind this name.
    pub fn count(&self, file: File, name: &str) -> u64 {
        let lines = fs::read_to_string(self.path(file)).unwrap();
        let count = lines.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        count.unwrap_or_else(|| panic!("no {name} in {lines}")).parse().unwrap()
    }

    /// How a shell enters it.
    pub fn entering(&self) -> String {
        format!("echo $$ > {};", self.0.join("cgroup.procs").display())
    }

    fn path(&self, file: File) -> PathBuf {
        let mut paths = file.iter().map(|name| self.0.join(name));
        paths.find(|path| path.exists()).unwrap()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The last process may be on its way out.
        wait_until("the cgroup is empty", || fs::remove_dir(&self.0).is_ok());
    }
}
