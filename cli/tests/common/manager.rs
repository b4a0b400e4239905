//! A running `pktxpmgr`: started on a free port of loopback, its log read line by line as it comes,
//! and killed when the test is over, whatever became of it.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc::O_NONBLOCK;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use super::debug_forms::assert_no_debug_form;
use super::{Ended, Home, PKTXPMGR, pid, sabotage};

/// Longest that any single wait may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The mlet of many kinds (`cli/examples/mlet-zoo.rs`), which `cargo test` builds beside the tests.
pub fn zoo() -> PathBuf {
    example("mlet-zoo")
}

/// A program of `cli/examples`.
pub fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test.parent().unwrap().with_file_name("examples").join(name);
    assert!(
        program.exists(),
        "{} is missing; `cargo build --examples` makes it",
        program.display()
    );
    program
}

/// A `pktxpmgr` that listens.
pub struct Manager {
    child: Child,
    // Of both only one thread at a time hears.
    ended: Mutex<mpsc::Receiver<()>>,
    log: Arc<Log>,
    /// Tells when the log has been read to its end.
    log_read: Mutex<mpsc::Receiver<()>>,
    stdout: PathBuf,
    pub address: SocketAddr,
}

/// The lines said so far.
#[derive(Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    grown: Condvar,
}

impl Home {
    /// Starts `pktxpmgr` with these options and a mlet of the zoo of this kind.
    pub fn start(&self, options: &[&str], kind: &[&str]) -> Manager {
        let mut command = self.command();
        command.args(options).arg(zoo()).args(kind);
        Manager::start(self, command)
    }
}

impl Home {
    /// The same, where it may end before it serves anybody.
    pub fn spawn(&self, options: &[&str], kind: &[&str]) -> Manager {
        let mut command = self.command();
        command.args(options).arg(zoo()).args(kind);
        Manager::spawn(self, command)
    }

    /// Starts `pktxpmgr` from a shell, behind this script, with this mlet.
    pub fn start_behind(&self, script: &str, mlet: &[&str]) -> Manager {
        let mut manager = self.spawn_behind(script, mlet);
        manager.await_listening();
        manager
    }

    /// The same, where it may end before it listens.
    pub fn spawn_behind(&self, script: &str, mlet: &[&str]) -> Manager {
        let script = format!("{script} exec \"$0\" \"$@\"");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &script, PKTXPMGR, "-c", "xpmgr.conf", "-a", "127.0.0.1:"]);
        command.args(mlet).current_dir(self.path("")).env_clear().stdin(Stdio::null());
        Manager::spawn(self, command)
    }

    /// Waits until somebody reads this FIFO, and returns its other end.
    pub fn await_reader(&self, name: &str) -> File {
        let mut fifo = None;
        wait_until("the FIFO is read", || {
            // Fails until somebody reads.
            let mut options = File::options();
            fifo = options.write(true).custom_flags(O_NONBLOCK).open(self.path(name)).ok();
            fifo.is_some()
        });
        fifo.unwrap()
    }
}

/// The port at which this process listens, as the kernel tells it.
fn listening_port(pid: i32) -> Option<u16> {
    const LISTENING: &str = "0A";
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    let targets = descriptors.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    let sockets: Vec<PathBuf> = targets.collect();
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    table.lines().skip(1).find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let socket = PathBuf::from(format!("socket:[{}]", words.get(9)?));
        let is_its = *words.get(3)? == LISTENING && sockets.contains(&socket);
        let port = words.get(1)?.split_once(':')?.1;
        is_its.then(|| u16::from_str_radix(port, 16).ok()).flatten()
    })
}

impl Manager {
    /// Runs this command and waits until it listens.
    pub fn start(home: &Home, command: Command) -> Self {
        let mut manager = Self::spawn(home, command);
        manager.await_listening();
        manager
    }

    /// Waits until it listens; then its address is known.
    #[track_caller]
    pub fn await_listening(&mut self) {
        let line = self.says("listening on ");
        let address = line.rsplit(' ').next().unwrap();
        self.address = address.parse().unwrap();
    }

    /// Waits until it listens where it does not say so (`-q`); then its address is known.
    #[track_caller]
    pub fn await_port(&mut self) {
        wait_until("it listens", || self.listens());
        self.address.set_port(listening_port(self.pid()).unwrap());
    }

    /// Whether it listens, as the kernel tells it.
    pub fn listens(&self) -> bool {
        listening_port(self.pid()).is_some()
    }

    /// Runs this command, which may end before it listens. The address is not known then.
    pub fn spawn(home: &Home, mut command: Command) -> Self {
        let stdout = home.path("stdout");
        let file = File::options().append(true).create(true).open(&stdout).unwrap();
        // How the whole suite is run on epoll, whatever else the environment of a test is.
        command.envs(std::env::vars_os().filter(|(name, _)| name == "PKTXPMGR_IO"));
        command.envs(sabotage());
        let mut child = command.stdout(file).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Log::default());
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let writer = Arc::clone(&log);
        let (tell_read, log_read) = mpsc::channel();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                writer.lines.lock().unwrap().push(line);
                writer.grown.notify_all();
            }
            let _ = tell_read.send(());
        });
        let (tell, ended) = mpsc::channel();
        let id = pid(&child);
        thread::spawn(move || {
            // Not reaped here, so that the number stays its own until it is.
            let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
            while waitid(Id::Pid(id), flags) == Err(Errno::EINTR) {}
            let _ = tell.send(());
        });
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let (ended, log_read) = (Mutex::new(ended), Mutex::new(log_read));
        Self { child, ended, log, log_read, stdout, address }
    }

    /// Waits until a line contains this, and returns the first that does.
    #[track_caller]
    pub fn says(&self, part: &str) -> String {
        self.says_times(part, 1)
    }

    /// Waits until so many lines contain this, and returns the last of them.
    #[track_caller]
    pub fn says_times(&self, part: &str, times: usize) -> String {
        let found = |lines: &[String]| {
            lines.iter().filter(|line| line.contains(part)).nth(times - 1).cloned()
        };
        let lines = self.log.lines.lock().unwrap();
        let (lines, _) = self
            .log
            .grown
            .wait_timeout_while(lines, PATIENCE, |lines| found(lines).is_none())
            .unwrap();
        let line = found(&lines);
        drop(lines);
        line.unwrap_or_else(|| {
            panic!("{part:?} was not said {times} times; the log:\n{}", self.last_lines())
        })
    }

    /// How many lines contain this so far.
    pub fn said(&self, part: &str) -> usize {
        self.log.lines.lock().unwrap().iter().filter(|line| line.contains(part)).count()
    }

    /// Reads no more of its log until the guard is dropped; nothing may wait for a line meanwhile.
    pub fn hold_log(&self) -> MutexGuard<'_, Vec<String>> {
        self.log.lines.lock().unwrap()
    }

    pub fn log(&self) -> String {
        self.log.lines.lock().unwrap().join("\n")
    }

    /// The end of the log, for a panic.
    fn last_lines(&self) -> String {
        let lines = self.log.lines.lock().unwrap();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    pub fn pid(&self) -> i32 {
        pid(&self.child).as_raw()
    }

    /// The process that starts the mlets.
    pub fn supervisor(&self) -> i32 {
        self.child_called("pktx-supervisor").expect("a supervisor")
    }

    /// The process that reads what mlets write, if there is one.
    pub fn recorder(&self) -> Option<i32> {
        self.child_called("pktx-recorder")
    }

    fn child_called(&self, name: &str) -> Option<i32> {
        children_of(self.pid()).into_iter().find(|child| name_of(*child) == name)
    }

    pub fn signal(&self, signal: Signal) {
        kill(pid(&self.child), signal).unwrap();
    }

    /// Waits until the process is over.
    #[track_caller]
    pub fn ends(mut self) -> Ended {
        if self.ended.get_mut().unwrap().recv_timeout(PATIENCE).is_err() {
            panic!("it does not end");
        }
        let status = self.child.wait().unwrap();
        if let Some(signal) = status.signal() {
            assert_eq!(signal, 9, "killed by a signal that nobody sent");
        }
        // A process left behind on purpose may hold the stream; then what was read so far must do.
        let _ = self.log_read.get_mut().unwrap().recv_timeout(Duration::from_secs(5));
        let stdout = String::from_utf8_lossy(&fs::read(&self.stdout).unwrap()).into_owned();
        assert_no_debug_form(&stdout);
        Ended { code: status.code(), loaded: true, stdout, stderr: self.log() }
    }

    /// Sends SIGINT and waits until the process is over.
    #[track_caller]
    pub fn interrupted(self) -> Ended {
        self.signal(Signal::SIGINT);
        self.ends()
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        matches!(self.ended.lock().unwrap().try_recv(), Err(mpsc::TryRecvError::Empty))
    }

    /// Descriptors it has open. Some are of its start, and gone once a session has run.
    pub fn open_fds(&self) -> usize {
        open_fds_of(self.pid())
    }

    /// Sockets among them.
    pub fn open_sockets(&self) -> usize {
        self.open_of_kind("socket:")
    }

    /// Rings among them.
    pub fn rings(&self) -> usize {
        self.open_of_kind("anon_inode:[io_uring]")
    }

    fn open_of_kind(&self, kind: &str) -> usize {
        let fds = readable(fs::read_dir(format!("/proc/{}/fd", self.pid()))).unwrap().flatten();
        let targets = fds.filter_map(|fd| fs::read_link(fd.path()).ok());
        targets.filter(|target| target.to_string_lossy().starts_with(kind)).count()
    }

    /// Memory of its own that it has in use, in KiB.
    pub fn memory_kib(&self) -> usize {
        memory_kib_of(self.pid())
    }

    /// Threads that run.
    pub fn threads(&self) -> usize {
        self.thread_names().len()
    }

    /// Waits until no shard runs any more.
    #[track_caller]
    pub fn await_end_of_shards(&self) {
        let is_shard = |name: &String| name.starts_with("shard-");
        wait_until("the shards have ended", || !self.thread_names().iter().any(is_shard));
    }

    fn thread_names(&self) -> Vec<String> {
        let threads = fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap().flatten();
        threads.filter_map(|thread| fs::read_to_string(thread.path().join("comm")).ok()).collect()
    }

    /// Processor time it has used, all threads together.
    pub fn cpu_time(&self) -> Duration {
        cpu_time_of(self.pid())
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        // It is not reaped yet, or this fails. Its supervisor then ends what is left.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("{}", self.last_lines());
        } else {
            assert_no_debug_form(&self.log());
        }
    }
}

/// Pause between two looks at what nothing announces.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// Looks until this holds, for as long as patience lasts; returns how long it took. For states of
/// the kernel that no descriptor announces.
#[track_caller]
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "in vain: {what}");
        thread::sleep(LOOK_INTERVAL);
    }
    start.elapsed()
}

/// Waits until a mlet has written nothing for a while, and neither it nor the manager has lacked processor time
/// for it: its output is full up to the endpoint.
pub fn await_standstill(manager: &Manager, mlet: i32) {
    let written = || {
        let io = fs::read_to_string(format!("/proc/{mlet}/io")).unwrap();
        io.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap().to_owned()
    };
    let (mut last, mut since) = (written(), Instant::now());
    wait_until("the mlet can write no more", || {
        let now = written();
        let all_wait = [manager.pid(), mlet].into_iter().all(|pid| is_all(pid, 'S'));
        if now != last || !all_wait {
            (last, since) = (now, Instant::now());
        }
        since.elapsed() > Duration::from_millis(200)
    });
}

/// Whether every thread of this process is in this state, such as `S`, which is asleep (proc(5)).
pub fn is_all(pid: i32, state: char) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let mut stats =
        tasks.map(|task| fs::read_to_string(task.path().join("stat")).unwrap_or_default());
    stats.all(|stat| stat.rsplit(") ").next().unwrap_or_default().starts_with(state))
}

/// Every process that runs in this folder: manager, supervisor, mlets and what those left.
pub fn processes_in(home: &Path) -> Vec<i32> {
    let home = home.canonicalize().unwrap_or_default();
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let runs_there = |pid: &i32| match fs::read_link(format!("/proc/{pid}/cwd")) {
        // Others may bar us as well.
        Err(_) if !is_of_pktxpmgr(*pid) => false,
        cwd => readable(cwd).is_some_and(|cwd| cwd == home),
    };
    pids.filter(runs_there).collect()
}

/// Whether this is a manager, a supervisor or a recorder, by its name.
fn is_of_pktxpmgr(pid: i32) -> bool {
    ["pktxpmgr", "pktx-supervisor", "pktx-recorder"].contains(&name_of(pid).as_str())
}

/// What a process is called.
fn name_of(pid: i32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim().to_owned()
}

/// What was read of a process, `None` if it is gone. A manager shows itself to those only who may look into every
/// process.
pub fn readable<T>(read: io::Result<T>) -> Option<T> {
    let barred = matches!(&read, Err(error) if error.kind() == ErrorKind::PermissionDenied);
    assert!(!barred, "only CAP_SYS_PTRACE may look into a manager: run the tests as root");
    read.ok()
}

/// Processes whose parent is `parent`, zombies too.
pub fn children_of(parent: i32) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{parent}/task")).unwrap();
    let lists = tasks.flatten().map(|task| fs::read_to_string(task.path().join("children")));
    let lists: Vec<String> = lists.map(Result::unwrap_or_default).collect();
    lists.join(" ").split_ascii_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// Children of a process that have ended and were not waited for.
pub fn zombies(parent: i32) -> usize {
    let children = children_of(parent);
    let stats = children.iter().map(|pid| fs::read_to_string(format!("/proc/{pid}/stat")));
    stats.flatten().filter(|stat| stat.rsplit(") ").next().unwrap().starts_with('Z')).count()
}

/// Descriptors that a process has open.
pub fn open_fds_of(pid: i32) -> usize {
    readable(fs::read_dir(format!("/proc/{pid}/fd"))).unwrap().count()
}

/// Memory of its own that a process has in use, in KiB.
pub fn memory_kib_of(pid: i32) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Whether there is such a process; a zombie is none.
pub fn is_alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(") ").next().unwrap().starts_with('Z'))
}

/// Processor time that a process has used, all threads together.
pub fn cpu_time_of(pid: i32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields = stat.rsplit(") ").next().unwrap();
    let ticks: u64 =
        fields.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
    // The kernel tells it in hundredths of a second on every Linux there is.
    Duration::from_millis(ticks * 10)
}

/// Sets a limit of a process that runs, as prlimit(1) calls it and its value. Its own user does, since root may be barred.
#[track_caller]
pub fn set_limit(pid: i32, name: &str, value: &str) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let of_user = |name| status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    let [user, group] = ["Uid:", "Gid:"]
        .map(|name| of_user(name).split_whitespace().next().unwrap().parse().unwrap());
    let option = format!("--{name}={value}");
    let mut command = Command::new("prlimit");
    command.args(["--pid", &pid.to_string(), &option]);
    command.uid(user).gid(group);
    assert!(command.status().unwrap().success(), "prlimit {option} of {pid}");
}

pub fn kill_hard(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
}
