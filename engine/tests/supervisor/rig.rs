//! A supervisor under test and what the kernel says about processes. Every wait ends in a panic after ten seconds.

use std::fmt::Display;
use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use engine::sys::children::Graces;
use engine::sys::mlet_ends::MletEnds;
use engine::sys::socket::session_pair;
use engine::sys::supervisor::{
    Flushed, MletCommand, MletOutput, MletOwner, MletStatus, Supervisor, SupervisorEvent, start,
};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// Name of the variable by which processes of this test are found.
pub(crate) const MARK: &str = "SUPERVISOR_TEST_MARK";

#[expect(clippy::disallowed_methods, reason = "measures and bounds a test")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// What mlets are given when their manager is gone.
pub(crate) const GRACES: Graces =
    Graces { eof: Duration::from_millis(300), term: Duration::from_millis(300) };

/// A supervisor for `/bin/sh -c SCRIPT` and the events it has sent.
pub(crate) struct Rig {
    pub(crate) supervisor: Supervisor,
    next_id: u64,
}

impl Rig {
    pub(crate) fn new(path: &str, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(Into::into).collect();
        let command = MletCommand { arguments, ..MletCommand::new(path, GRACES) };
        Self { supervisor: start(&command, None).unwrap(), next_id: 0 }
    }

    /// Mlets run a shell script, without PATH.
    pub(crate) fn of_script(script: &str) -> Self {
        Self::new("/bin/sh", &["-c", script])
    }

    /// Mlets run a shell script and find a variable of all mlets; their output goes below the folder `results`.
    pub(crate) fn with_results(script: &str, results: &Path) -> Self {
        let command = MletCommand {
            arguments: ["-c", script].map(Into::into).into(),
            environment: vec![("OF_ALL".into(), results.into())],
            results: Some(results.to_owned()),
            ..MletCommand::new("/bin/sh", GRACES)
        };
        Self { supervisor: start(&command, None).unwrap(), next_id: 0 }
    }

    /// Asks for a mlet and returns whose it is and our end of its session.
    pub(crate) fn ask(&mut self, environment: &[(&str, &str)]) -> (MletOwner, UnixStream) {
        self.ask_with(environment, MletOutput::Inherited)
    }

    /// The same of one whose output goes there.
    pub(crate) fn ask_with(
        &mut self,
        environment: &[(&str, &str)],
        output: MletOutput,
    ) -> (MletOwner, UnixStream) {
        self.ask_over(environment, output, None)
    }

    /// The same of one that is offered these pipes.
    pub(crate) fn ask_over(
        &mut self,
        environment: &[(&str, &str)],
        output: MletOutput,
        pipes: Option<[OwnedFd; 2]>,
    ) -> (MletOwner, UnixStream) {
        let (ours, mlets) = session_pair().unwrap();
        let mark = mark();
        let own = environment.iter().map(|(name, value)| (*name, value as &dyn Display));
        let own: Vec<_> = own.chain([(MARK, &mark as _)]).collect();
        let owner = MletOwner::Session(self.next_id);
        self.next_id += 1;
        let ends = MletEnds { socket: mlets, pipes };
        self.supervisor.spawn(owner, &own, &output, ends).unwrap();
        self.supervisor.flush().unwrap();
        let ours = UnixStream::from(ours);
        ours.set_read_timeout(Some(PATIENCE)).unwrap();
        (owner, ours)
    }

    /// Asks for a mlet and waits until it runs.
    pub(crate) fn spawn(&mut self, environment: &[(&str, &str)]) -> (i32, UnixStream) {
        let (asked, ours) = self.ask(environment);
        match self.event() {
            SupervisorEvent::Spawned { owner, pid, .. } if owner == asked => (pid, ours),
            other => panic!("{other:?}"),
        }
    }

    /// The next event.
    pub(crate) fn event(&mut self) -> SupervisorEvent {
        let deadline = now() + PATIENCE;
        loop {
            let flushed = self.supervisor.flush().unwrap();
            if let Some(event) = self.supervisor.receive().unwrap() {
                return event;
            }
            assert!(now() < deadline, "no event");
            let mut wanted = PollFlags::POLLIN;
            if flushed == Flushed::WhenWritable {
                wanted |= PollFlags::POLLOUT;
            }
            wait_for(&self.supervisor, wanted);
        }
    }

    /// The end of one mlet, which must be the next event.
    pub(crate) fn exit(&mut self) -> MletStatus {
        match self.event() {
            SupervisorEvent::Exited { status, .. } => status,
            other => panic!("{other:?}"),
        }
    }

    /// What `receive` fails with, once the supervisor is gone.
    pub(crate) fn loss(&mut self) -> std::io::Error {
        loop {
            match self.supervisor.receive() {
                Ok(None) => wait_for(&self.supervisor, PollFlags::POLLIN),
                Ok(Some(_)) => {}
                Err(error) => return error,
            }
        }
    }
}

fn wait_for(fd: &impl AsFd, wanted: PollFlags) {
    let timeout = PollTimeout::try_from(PATIENCE).unwrap();
    let ready = poll(&mut [PollFd::new(fd.as_fd(), wanted)], timeout).unwrap();
    assert_eq!(ready, 1, "nothing in {PATIENCE:?}");
}

/// Waits until a process has ended and been reaped, told by the kernel closing its descriptors: `end` is the other
/// end of a pipe or socket that only this process and its descendants hold.
pub(crate) fn read_to_end(end: impl Into<OwnedFd>) -> String {
    let mut stream = UnixStream::from(end.into());
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// The mark of this test process, which its manager processes are given to use as theirs.
pub(crate) fn mark() -> String {
    std::env::var(MARK).unwrap_or_else(|_| format!("of-{}", std::process::id()))
}

/// Processes whose parent is `parent`, zombies too.
pub(crate) fn children_of(parent: i32) -> Vec<i32> {
    let list = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
    list.split_ascii_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// One line of `/proc/PID/status`.
pub(crate) fn status_of(pid: i32, key: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.unwrap().trim().to_owned()
}

/// Every process, anywhere, that carries the mark of this test.
pub(crate) fn marked() -> Vec<i32> {
    let wanted = format!("{MARK}={}", mark());
    let is_marked = |pid: &i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|&byte| byte == 0).any(|variable| variable == wanted.as_bytes())
    };
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(is_marked).collect()
}

/// Waits until so many processes are marked: whoever starts a program hears of it before the kernel shows its environment.
pub(crate) fn wait_until_marked(count: usize) {
    let start = now();
    while marked().len() < count {
        assert!(start.elapsed() < PATIENCE, "marked: {:?}", marked());
        std::thread::yield_now();
    }
}

/// Waits until no marked process is left and returns how long that took. The end of a process that is nobody's child
/// here is announced by nothing, so this looks again and again.
pub(crate) fn wait_until_none_is_marked() -> Duration {
    let start = now();
    loop {
        let left = marked();
        if left.is_empty() {
            return start.elapsed();
        }
        assert!(start.elapsed() < PATIENCE, "left over: {left:?}");
        std::thread::yield_now();
    }
}

/// After a case: no child, no marked process. Says what there is otherwise.
pub(crate) fn nothing_is_left(case: &str) -> bool {
    let child = waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG));
    let marked = marked();
    if child == Err(Errno::ECHILD) && marked.is_empty() {
        return true;
    }
    eprintln!("{case} left behind: child {child:?}, marked {marked:?}");
    false
}

/// After a failed case: waits for what it did not, so that the next ones are judged by themselves. Always false.
pub(crate) fn await_the_rest() -> bool {
    while waitpid(Pid::from_raw(-1), None) != Err(Errno::ECHILD) {}
    wait_until_none_is_marked();
    false
}
