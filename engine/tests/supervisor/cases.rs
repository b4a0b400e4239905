//! The cases.

use std::collections::HashSet;
use std::fmt::Display;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use engine::sys::children::{self, Graces};
use engine::sys::mlet_ends::MletEnds;
use engine::sys::pipes::session_pipes;
use engine::sys::supervisor::{
    MletCommand, MletOutput, MletOwner, MletStatus, StartFault, SupervisorEvent, start,
};
use engine::sys::{cpu, fd_passing, limits};
use nix::errno::Errno;
use nix::libc;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, getpgid};

use crate::rig::{self, PATIENCE, Rig};

/// What is told shortly behind something else waits so long behind that.
const WAITS: Duration = Duration::from_millis(5);

macro_rules! all {
    ($($name:ident),* $(,)?) => { &[$((stringify!($name), $name as fn())),*] };
}

pub(crate) const ALL: &[(&str, fn())] = all![
    a_mlet_has_three_descriptors_and_the_given_environment_also_when_64_start_at_once,
    a_mlet_has_sigpipe_ignored_and_every_other_signal_at_default_whatever_we_were_started_with,
    a_mlet_has_its_own_group_and_the_limits_affinity_and_directory_of_the_start,
    every_way_to_end_is_told_once_and_right,
    a_failed_exec_is_told_with_its_reason_and_ends_the_session,
    what_comes_shortly_behind_something_that_was_told_waits_and_keeps_its_time,
    what_a_spawn_sender_asks_for_is_started_and_told_of_like_all_else,
    a_mlet_finds_the_pipes_it_is_offered_where_it_is_told_and_ends_them_with_itself,
    a_script_runs_and_an_argument_arrives_as_given,
    what_a_mlet_writes_goes_to_files_of_its_own_or_nowhere_and_never_keeps_it_from_running,
    a_thousand_mlets_leave_no_zombie_and_no_descriptor,
    the_end_of_a_mlet_is_seen_at_once_while_its_siblings_live,
    ending_all_waits_first_then_asks_and_then_kills_and_starts_none_any_more,
    a_further_request_to_end_all_shortens_what_is_left,
    one_mlet_is_ended_in_the_same_steps_and_no_other,
    what_a_mlet_that_is_ended_leaves_in_its_group_is_killed_with_it_and_nothing_else,
    a_mlet_that_is_being_ended_is_ended_with_all_others_as_well,
    a_supervisor_tells_whether_a_mlet_could_be_started,
    an_orphan_is_reaped_unnoticed,
    terminal_signals_reach_neither_supervisor_nor_mlet,
    nonsense_starts_nothing_and_ends_the_supervisor,
    a_killed_manager_leaves_nothing,
    a_killed_supervisor_is_noticed_and_its_mlets_can_be_ended,
    a_dropped_supervisor_is_waited_for,
    a_supervisor_that_cannot_end_is_not_waited_for_without_end,
    the_supervisor_is_not_started_beside_another_thread,
];

fn own_program() -> String {
    std::env::current_exe().unwrap().to_str().unwrap().to_owned()
}

/// A directory for files of one case, gone at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, content: &str, mode: u32) -> String {
        let path = self.0.join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// Items 79, 80.
fn a_mlet_has_three_descriptors_and_the_given_environment_also_when_64_start_at_once() {
    // A descriptor that is not close-on-exec, as a careless shell would pass on to us.
    let careless = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let careless = nix::unistd::dup(&careless).unwrap();
    let mut rig = Rig::new(&own_program(), &["role=dump"]);
    let sessions: Vec<_> =
        (0..64).map(|n| rig.ask(&[("EPADDR", &format!("::{n}")), ("PKTLAB_SNIKEY", "")])).collect();
    let stdio = [1, 2].map(|fd| fs::read_link(format!("/proc/self/fd/{fd}")).unwrap());
    let program = own_program();
    for (n, (_, mut session)) in sessions.into_iter().enumerate() {
        let mut report = String::new();
        session.read_to_string(&mut report).unwrap();
        let (fd_0, rest) = report.split_once('\n').unwrap();
        assert!(fd_0.starts_with("fd 0 socket:["), "{report}");
        let wanted = format!(
            "fd 1 {}\nfd 2 {}\nenv EPADDR=::{n}\nenv PKTLAB_SNIKEY=\narg {}\narg role=dump\n",
            stdio[0].display(),
            stdio[1].display(),
            program.rsplit('/').next().unwrap(),
        );
        assert_eq!(rest, wanted);
    }
    let exits = (0..128)
        .map(|_| rig.event())
        .filter(|event| matches!(event, SupervisorEvent::Exited { .. }));
    assert_eq!(exits.count(), 64);
    drop(careless);
    drop(rig.supervisor);
}

/// Item 81.
fn a_mlet_has_sigpipe_ignored_and_every_other_signal_at_default_whatever_we_were_started_with() {
    // As under nohup, in the background of a script, and below a careless parent.
    let manager = Command::new("/usr/bin/env")
        .args(["--ignore-signal=HUP,INT,TERM,CHLD,USR1", "--block-signal=USR2,CHLD"])
        .args([&own_program(), "role=status"])
        .output()
        .unwrap();
    assert!(manager.status.success(), "{manager:?}");
    let sigchld = libc::SIGCHLD;
    let wanted_of_mlet =
        format!("mlet SigBlk []\nmlet SigIgn [{}]\nmlet SigCgt []\n", libc::SIGPIPE);
    let report = String::from_utf8(manager.stdout).unwrap();
    assert!(report.ends_with(&wanted_of_mlet), "{report}");
    assert!(report.contains(&format!("supervisor SigBlk [{sigchld}]\n")), "{report}");
}

fn a_mlet_has_its_own_group_and_the_limits_affinity_and_directory_of_the_start() {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 200, hard).unwrap();
    let mut rig = Rig::new("/bin/cat", &[]);
    // As the manager does after the start.
    assert_eq!(limits::raise_open_files().unwrap(), hard);
    let cores = cpu::allowed_cores().unwrap();
    cpu::pin_this_thread(cores[0]).unwrap();

    let (mlet, session) = rig.spawn(&[]);
    let group = getpgid(Some(Pid::from_raw(mlet))).unwrap();
    assert_eq!(group.as_raw(), mlet);
    let limit = fs::read_to_string(format!("/proc/{mlet}/limits")).unwrap();
    let limit = limit.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    assert_eq!(limit.split_ascii_whitespace().next(), Some("200"));
    let directory = fs::read_link(format!("/proc/{mlet}/cwd")).unwrap();
    assert_eq!(directory, std::env::current_dir().unwrap());
    let own_cores = rig::status_of(rig.supervisor.pid(), "Cpus_allowed_list");
    assert_eq!(rig::status_of(mlet, "Cpus_allowed_list"), own_cores);
    if cores.len() > 1 {
        assert_ne!(own_cores, cores[0].to_string());
    }

    drop(session);
    assert_eq!(rig.exit(), MletStatus::Code(0));
    drop(rig.supervisor);
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    let mut all = CpuSet::new();
    cores.iter().for_each(|&core| all.set(core).unwrap());
    sched_setaffinity(Pid::from_raw(0), &all).unwrap();
}

fn every_way_to_end_is_told_once_and_right() {
    let mut rig = Rig::of_script(r#"eval "$DO""#);
    let table = [
        ("exit 0", MletStatus::Code(0)),
        ("exit 1", MletStatus::Code(1)),
        ("exit 255", MletStatus::Code(255)),
        ("kill -TERM $$", MletStatus::Signal(libc::SIGTERM)),
        ("kill -KILL $$", MletStatus::Signal(libc::SIGKILL)),
        ("ulimit -c 0; kill -SEGV $$", MletStatus::Signal(libc::SIGSEGV)),
        ("ulimit -c 0; kill -ABRT $$", MletStatus::Signal(libc::SIGABRT)),
        ("kill -40 $$", MletStatus::Signal(40)),
    ];
    let began = rig::now();
    let sessions: Vec<_> = table.iter().map(|(text, _)| rig.ask(&[("DO", text)])).collect();
    let mut pids = std::collections::HashMap::new();
    let mut ended = HashSet::new();
    for _ in 0..2 * table.len() {
        match rig.event() {
            SupervisorEvent::Spawned { owner, pid, .. } => {
                assert!(pids.insert(owner, pid).is_none())
            }
            SupervisorEvent::Exited { owner, pid, status, run_time, output_errno: 0 } => {
                assert_eq!(pids.get(&owner), Some(&pid));
                let asked = sessions.iter().position(|(asked, _)| *asked == owner);
                let (text, wanted) = table[asked.expect("one that was asked for")];
                assert_eq!(status, wanted, "{text}");
                assert!(ended.insert(owner), "{text} twice");
                assert!(run_time > Duration::ZERO && run_time <= began.elapsed(), "{run_time:?}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(ended.len(), sessions.len());
    drop(rig.supervisor);
}

fn what_comes_shortly_behind_something_that_was_told_waits_and_keeps_its_time() {
    let mut rig = Rig::new("/bin/cat", &[]);
    let began = rig::now();
    let (_, _first) = rig.spawn(&[]);
    let asked = rig::now();
    let (second, _second) = rig.ask(&[]);
    match rig.event() {
        SupervisorEvent::Spawned { owner, age, .. } if owner == second => {
            assert!(age > Duration::ZERO && age <= asked.elapsed(), "{age:?}");
        }
        other => panic!("{other:?}"),
    }
    assert!(began.elapsed() >= WAITS, "{:?}", began.elapsed());
    drop((_first, _second));
    rig.exit();
    rig.exit();
    drop(rig.supervisor);
}

fn what_a_spawn_sender_asks_for_is_started_and_told_of_like_all_else() {
    let mut rig =
        Rig::of_script("echo $NUMBER >&0; read -r line <&3; echo $line >&4; exit $NUMBER");
    let mut sender = rig.supervisor.spawn_sender();
    let (ours, mlets) = engine::sys::socket::session_pair().unwrap();
    let ([to, from], pipes) = session_pipes().unwrap();
    let (owner, mark) = (MletOwner::Session(70), rig::mark());
    let environment: [(&str, &dyn Display); 2] = [("NUMBER", &7), (rig::MARK, &mark)];
    let unheard_of = [("A=B", &7 as &dyn Display)];
    assert!(sender.packet(owner, &unheard_of, &MletOutput::Inherited).is_none());
    let packet = sender.packet(owner, &environment, &MletOutput::Inherited);
    let (socket, packet) = packet.unwrap();
    MletEnds { socket: mlets, pipes: Some(pipes) }.send(socket, packet).unwrap();
    File::from(to).write_all(b"asked\n").unwrap();
    assert_eq!(rig::read_to_end(ours), "7\n");
    let mut answer = String::new();
    File::from(from).read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "asked\n");
    let told = rig.event();
    assert!(matches!(told, SupervisorEvent::Spawned { owner: told, .. } if told == owner));
    assert_eq!(rig.exit(), MletStatus::Code(7));
    // Whoever sends nonsense there is no manager either.
    fd_passing::send(socket, b"\x09", &[] as &[UnixStream]).unwrap();
    assert_eq!(rig.loss().kind(), std::io::ErrorKind::UnexpectedEof);
    drop(rig.supervisor);
}

/// Item 89, as far as it is the supervisor's.
fn a_failed_exec_is_told_with_its_reason_and_ends_the_session() {
    let scratch = Scratch::new();
    let table = [
        (scratch.0.join("absent").to_str().unwrap().to_owned(), libc::ENOENT),
        (scratch.file("not-executable", "#!/bin/sh\n", 0o644), libc::EACCES),
        (scratch.file("no-interpreter", "#!/nonexistent/sh\n", 0o755), libc::ENOENT),
        (scratch.file("no-format", "exit 0\n", 0o755), libc::ENOEXEC),
        ("/".to_owned(), libc::EACCES),
        // A program in PATH, but not in this directory.
        ("cat".to_owned(), libc::ENOENT),
    ];
    for (path, wanted) in table {
        let mut rig = Rig::new(&path, &[]);
        for _ in 0..3 {
            let (asked, mut session) = rig.ask(&[]);
            match rig.event() {
                SupervisorEvent::SpawnFailed { owner, errno } => {
                    assert_eq!((owner, errno), (asked, wanted), "{path}")
                }
                other => panic!("{path}: {other:?}"),
            }
            assert_eq!(session.read(&mut [0]).unwrap(), 0, "the session is closed");
        }
        assert!(rig::children_of(rig.supervisor.pid()).is_empty());
        drop(rig.supervisor);
    }
}

fn a_mlet_finds_the_pipes_it_is_offered_where_it_is_told_and_ends_them_with_itself() {
    let mut rig = Rig::of_script(
        r#"read -r line <&3; echo "$PKTLAB_PIPES $line" >&4; exec /bin/ls /proc/self/fd >&4"#,
    );
    let before = fs::read_dir(format!("/proc/{}/fd", rig.supervisor.pid())).unwrap().count();
    let ([to, from], mlets) = session_pipes().unwrap();
    let (_, _session) = rig.ask_over(&[], MletOutput::Inherited, Some(mlets));
    assert!(matches!(rig.event(), SupervisorEvent::Spawned { .. }));
    File::from(to).write_all(b"asked\n").unwrap();
    let mut answer = String::new();
    File::from(from).read_to_string(&mut answer).unwrap();
    // The last is that of the directory that is read.
    assert_eq!(answer, "3,4 asked\n0\n1\n2\n3\n4\n5\n");
    assert_eq!(rig.exit(), MletStatus::Code(0));
    let after = fs::read_dir(format!("/proc/{}/fd", rig.supervisor.pid())).unwrap().count();
    assert_eq!(after, before, "the supervisor keeps none of them");
    drop(rig.supervisor);
}

fn a_script_runs_and_an_argument_arrives_as_given() {
    let scratch = Scratch::new();
    let script = scratch.file("script", "#!/bin/sh\nprintf '%s|' \"$@\" >&0\n", 0o755);
    let mut rig = Rig::new(&script, &["-x", "", "two words", "\u{20ac}"]);
    let (_, session) = rig.spawn(&[]);
    assert_eq!(rig::read_to_end(session), "-x||two words|\u{20ac}|");
    assert_eq!(rig.exit(), MletStatus::Code(0));
    drop(rig.supervisor);
}

/// Item 90; promise P8. Prints the rate, which depends on the machine.
fn a_thousand_mlets_leave_no_zombie_and_no_descriptor() {
    const MLETS: usize = 1000;
    const AT_ONCE: usize = 100;
    let mut rig = Rig::new("/bin/true", &[]);
    let supervisor = rig.supervisor.pid();
    let fds = |pid: i32| fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let (_, session) = rig.spawn(&[]);
    rig.exit();
    drop(session);
    let fds_before = fds(supervisor);
    assert_eq!(fds_before, 8, "stdio, two pairs, signals, epoll, the list of children");
    let stdin = fs::read_link(format!("/proc/{supervisor}/fd/0")).unwrap();
    assert_eq!(stdin, Path::new("/dev/null"));
    let began = rig::now();
    let mut spawned = 0;
    let mut exited = 0;
    for _ in 0..MLETS / AT_ONCE {
        let _sessions: Vec<_> = (0..AT_ONCE).map(|_| rig.ask(&[])).collect();
        for _ in 0..2 * AT_ONCE {
            match rig.event() {
                SupervisorEvent::Spawned { .. } => spawned += 1,
                SupervisorEvent::Exited { status: MletStatus::Code(0), .. } => exited += 1,
                other => panic!("{other:?}"),
            }
        }
    }
    let took = began.elapsed();
    println!(
        "{MLETS} mlets started and reaped in {took:?}: {:.0}/s",
        MLETS as f64 / took.as_secs_f64()
    );
    assert_eq!((spawned, exited), (MLETS, MLETS));
    assert!(rig::children_of(supervisor).is_empty());
    assert_eq!(fds(supervisor), fds_before);
    drop(rig.supervisor);
}

/// Promise P15.
fn the_end_of_a_mlet_is_seen_at_once_while_its_siblings_live() {
    let mut rig = Rig::of_script("read line; exec /bin/true");
    let mut mlets: Vec<_> = (0..64).map(|_| rig.spawn(&[])).collect();
    // Each in turn, the oldest first: every later one might have inherited its session.
    for (pid, mut session) in mlets.drain(..) {
        session.write_all(b"\n").unwrap();
        assert_eq!(session.read(&mut [0]).unwrap(), 0);
        match rig.event() {
            SupervisorEvent::Exited { pid: ended, status: MletStatus::Code(0), .. } => {
                assert_eq!(ended, pid)
            }
            other => panic!("{other:?}"),
        }
    }
    drop(rig.supervisor);
}

/// A mlet for each of these kinds, which run when this returns. One reads to the end of its session.
fn mlets_of(rig: &mut Rig, kinds: &[&str]) -> Vec<(i32, UnixStream)> {
    let started = kinds.iter().map(|kind| {
        let (pid, mut session) = rig.spawn(&[("KIND", kind)]);
        // Its trap is set.
        session.read_exact(&mut [0]).unwrap();
        (pid, session)
    });
    started.collect()
}

const KINDS: &str = r#"[ "$KIND" = stubborn ] && trap '' TERM; echo >&0
                       [ "$KIND" = reader ] && { read line; exit 5; }; exec /bin/sleep 1000"#;

fn ending_all_waits_first_then_asks_and_then_kills_and_starts_none_any_more() {
    let mut rig = Rig::of_script(KINDS);
    let mut mlets = mlets_of(&mut rig, &["plain", "stubborn", "plain", "reader"]);
    let graces = Graces { eof: Duration::from_secs(1), term: Duration::from_millis(200) };
    let began = rig::now();
    rig.supervisor.end_all(graces);
    let (refused, _session) = rig.ask(&[]);
    assert_eq!(
        rig.event(),
        SupervisorEvent::SpawnFailed { owner: refused, errno: libc::ECANCELED }
    );
    let reader = mlets.pop().unwrap();
    drop(reader.1);
    assert_eq!(rig.exit(), MletStatus::Code(5), "it was let finish");
    assert!(began.elapsed() < graces.eof, "{:?} are too long to tell", began.elapsed());
    let mut ends = Vec::new();
    for least in [graces.eof, graces.eof, graces.total()] {
        match rig.event() {
            SupervisorEvent::Exited { pid, status, .. } => ends.push((pid, status)),
            event => panic!("{event:?}"),
        }
        assert!(began.elapsed() >= least, "ended before its grace was over: {ends:?}");
    }
    let term = MletStatus::Signal(libc::SIGTERM);
    let ended: HashSet<_> = ends[..2].iter().map(|&(pid, _)| pid).collect();
    assert_eq!(ended, HashSet::from([mlets[0].0, mlets[2].0]));
    assert!(ends[..2].iter().all(|&(_, status)| status == term), "{ends:?}");
    assert_eq!(ends[2], (mlets[1].0, MletStatus::Signal(libc::SIGKILL)));
    drop(rig.supervisor);
}

fn a_further_request_to_end_all_shortens_what_is_left() {
    let mut rig = Rig::of_script(KINDS);
    let _mlets = mlets_of(&mut rig, &["plain", "stubborn"]);
    rig.supervisor.end_all(Graces { eof: PATIENCE, term: PATIENCE });
    let began = rig::now();
    rig.supervisor.end_all(Graces::NONE);
    for _ in 0..2 {
        assert_eq!(rig.exit(), MletStatus::Signal(libc::SIGKILL));
    }
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    // Nor does a longer one lengthen it.
    rig.supervisor.end_all(Graces { eof: PATIENCE, term: PATIENCE });
    drop(rig.supervisor);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

fn one_mlet_is_ended_in_the_same_steps_and_no_other() {
    let mut rig = Rig::of_script(KINDS);
    let mlets = mlets_of(&mut rig, &["plain", "plain", "stubborn", "reader"]);
    let owner = |index: u64| MletOwner::Session(index);
    let graces = Graces { eof: Duration::from_millis(400), term: Duration::from_millis(400) };
    let began = rig::now();
    // The same process for another session, and another process for this session, are nobody.
    rig.supervisor.end_one(owner(0), mlets[1].0, Graces::NONE);
    rig.supervisor.end_one(owner(99), mlets[0].0, Graces::NONE);
    rig.supervisor.end_one(owner(0), -1, Graces::NONE);
    for index in [3, 1, 2] {
        rig.supervisor.end_one(owner(index), mlets[index as usize].0, graces);
    }
    rig.supervisor.flush().unwrap();
    let mut mlets = mlets;
    let reader = mlets.pop().unwrap();
    drop(reader.1);
    let mut told = Vec::new();
    for least in [Duration::ZERO, graces.eof, graces.total()] {
        match rig.event() {
            SupervisorEvent::Exited { owner, status, .. } => told.push((owner, status)),
            event => panic!("{event:?}"),
        }
        assert!(began.elapsed() >= least, "ended before its grace was over: {told:?}");
    }
    let expected = [
        (owner(3), MletStatus::Code(5)),
        (owner(1), MletStatus::Signal(libc::SIGTERM)),
        (owner(2), MletStatus::Signal(libc::SIGKILL)),
    ];
    assert_eq!(told, expected);
    assert!(began.elapsed() < graces.total() + Duration::from_secs(2), "{:?}", began.elapsed());
    // The first runs on, and more are started.
    let (_, _session) = rig.spawn(&[("KIND", "reader")]);
    assert_eq!(rig::children_of(rig.supervisor.pid()).len(), 2);
    assert!(rig::children_of(rig.supervisor.pid()).contains(&mlets[0].0));
    drop(rig.supervisor);
}

/// Of a mlet that ended by itself in time nothing is touched.
fn what_a_mlet_that_is_ended_leaves_in_its_group_is_killed_with_it_and_nothing_else() {
    // Its child ignores TERM; the mlet exits at the end of its session, or does not.
    let mut rig = Rig::of_script(
        r#"(trap '' TERM; exec 0<&-; exec /bin/sleep 1000) & echo $! >&0
           [ "$KIND" = reader ] && { read line; exit 5; }; exec /bin/sleep 1000"#,
    );
    let mut mlets = Vec::new();
    for kind in ["reader", "plain"] {
        let (mlet, session) = rig.spawn(&[("KIND", kind)]);
        let mut line = String::new();
        BufReader::new(session.try_clone().unwrap()).read_line(&mut line).unwrap();
        mlets.push((mlet, session, line.trim().parse::<i32>().unwrap()));
    }
    let graces = Graces { eof: Duration::from_millis(300), term: Duration::from_millis(300) };
    for (index, (mlet, ..)) in (0..).zip(&mlets) {
        rig.supervisor.end_one(MletOwner::Session(index), *mlet, graces);
    }
    rig.supervisor.flush().unwrap();
    let (_, session, left_behind) = mlets.remove(0);
    drop(session);
    let (mlet, session, child) = mlets.remove(0);
    assert_eq!(rig.exit(), MletStatus::Code(5));
    assert_eq!(rig.exit(), MletStatus::Signal(libc::SIGTERM));
    let supervisor = rig.supervisor.pid();
    assert!(rig::children_of(supervisor).contains(&child), "it outlives the leader of its group");
    assert_eq!(getpgid(Some(Pid::from_raw(child))), Ok(Pid::from_raw(mlet)));
    let deadline = rig::now() + PATIENCE;
    while rig::children_of(supervisor).contains(&child) {
        assert!(rig::now() < deadline, "it is not killed");
    }
    assert_eq!(rig::children_of(supervisor), [left_behind]);
    drop(session);
    drop(rig.supervisor);
}

fn a_mlet_that_is_being_ended_is_ended_with_all_others_as_well() {
    let mut rig = Rig::of_script(KINDS);
    let mlets = mlets_of(&mut rig, &["stubborn", "stubborn"]);
    let began = rig::now();
    rig.supervisor.end_one(
        MletOwner::Session(0),
        mlets[0].0,
        Graces { eof: Duration::ZERO, term: Duration::from_millis(200) },
    );
    rig.supervisor.end_all(Graces { eof: Duration::ZERO, term: Duration::from_millis(700) });
    let mut ended = Vec::new();
    for least in [200, 700] {
        match rig.event() {
            SupervisorEvent::Exited { pid, status, .. } => {
                assert_eq!(status, MletStatus::Signal(libc::SIGKILL));
                ended.push(pid);
            }
            event => panic!("{event:?}"),
        }
        assert!(began.elapsed() >= Duration::from_millis(least), "{:?}", began.elapsed());
    }
    assert_eq!(ended, [mlets[0].0, mlets[1].0], "each at its own time");
    drop(rig.supervisor);
}

/// That one could not be is seen in `cli/tests/lacks.rs`.
fn a_supervisor_tells_whether_a_mlet_could_be_started() {
    let mut rig = Rig::new("/bin/cat", &[]);
    rig.supervisor.prove();
    assert_eq!(rig.event(), SupervisorEvent::Proved { errno: 0 });
    let (_mlet, session) = rig.spawn(&[]);
    rig.supervisor.prove();
    assert_eq!(rig.event(), SupervisorEvent::Proved { errno: 0 });
    drop(session);
    assert_eq!(rig.exit(), MletStatus::Code(0));
    drop(rig.supervisor);
}

fn an_orphan_is_reaped_unnoticed() {
    // The orphan holds its session until it reads a line; its parent has ended by then.
    // A shell gives its background commands another stdin unless told otherwise.
    let mut rig = Rig::of_script(
        "exec 3<&0; (/usr/bin/setsid /bin/sh -c 'read line; exit 3' <&3 &) ; exit 7",
    );
    let supervisor = rig.supervisor.pid();
    let (mlet, mut session) = rig.spawn(&[]);
    assert_eq!(rig.exit(), MletStatus::Code(7));
    let deadline = rig::now() + PATIENCE;
    while rig::children_of(supervisor).is_empty() {
        assert!(rig::now() < deadline, "adopted by somebody else");
    }
    assert!(!rig::children_of(supervisor).contains(&mlet));
    session.write_all(b"\n").unwrap();
    assert_eq!(session.read(&mut [0]).unwrap(), 0);
    while !rig::children_of(supervisor).is_empty() {
        assert!(rig::now() < deadline, "not reaped");
    }
    // The next event is not of the orphan.
    let (_, _session) = rig.spawn(&[]);
    drop(rig.supervisor);
}

fn terminal_signals_reach_neither_supervisor_nor_mlet() {
    let mut rig = Rig::new("/bin/cat", &[]);
    let (_, session) = rig.spawn(&[]);
    let supervisor = Pid::from_raw(rig.supervisor.pid());
    assert_eq!(getpgid(Some(supervisor)), Ok(supervisor), "a group of its own");
    for signal in ["HUP", "INT", "QUIT", "TERM", "USR1", "TSTP", "TTIN", "TTOU", "PIPE"] {
        let signal: Signal = format!("SIG{signal}").parse().unwrap();
        kill(supervisor, signal).unwrap();
    }
    // It still works, after all of them.
    let (_, other) = rig.spawn(&[]);
    drop((session, other));
    assert_eq!(rig.exit(), MletStatus::Code(0));
    assert_eq!(rig.exit(), MletStatus::Code(0));
    drop(rig.supervisor);
}

fn nonsense_starts_nothing_and_ends_the_supervisor() {
    let spawn_without_variables = b"\x01\0\0\0\0\0\0\0\0\x07\0\0";
    let table: [(&[u8], bool); 8] = [
        (b"\x09", false),
        (b"\x09", true),
        (&[1; 5000], true),
        // Without a session, and with something behind it.
        (spawn_without_variables, false),
        (b"\x01\0\0\0\0\0\0\0\0\x07\0\0\0", true),
        // An output that there is not, and a folder's name that ends too soon.
        (b"\x01\0\0\0\0\0\0\0\0\x07\x04\0", true),
        (b"\x01\0\0\0\0\0\0\0\0\x07\x02\x05ab", true),
        // Nobody's.
        (b"\x01\x02\0\0\0\0\0\0\0\x07\0\0", true),
    ];
    for (bytes, with_fd) in table {
        let mut rig = Rig::new("/bin/cat", &[]);
        let (ours, mlets) = engine::sys::socket::session_pair().unwrap();
        let fd = with_fd.then_some(&mlets);
        fd_passing::send(rig.supervisor.as_fd(), bytes, fd.as_slice()).unwrap();
        drop(mlets);
        assert_eq!(rig::read_to_end(ours), "", "the session is closed");
        assert_eq!(rig.loss().kind(), std::io::ErrorKind::UnexpectedEof);
        drop(rig.supervisor);
    }
    // The same with a session is a request.
    let mut rig = Rig::new("/bin/true", &[]);
    let (_ours, mlets) = engine::sys::socket::session_pair().unwrap();
    fd_passing::send(rig.supervisor.as_fd(), spawn_without_variables, &[&mlets]).unwrap();
    assert!(matches!(rig.event(), SupervisorEvent::Spawned { owner: MletOwner::Session(7), .. }));
    rig.exit();
    drop(rig.supervisor);
}

fn what_a_mlet_writes_goes_to_files_of_its_own_or_nowhere_and_never_keeps_it_from_running() {
    let scratch = Scratch::new();
    let results = scratch.0.join("results");
    let mut rig = Rig::with_results("echo out $OF_ALL; echo err >&2; exit 3", &results);
    let folder = |name: &str| MletOutput::Folder(name.to_owned());
    let mut run = |output| {
        let (_, session) = rig.ask_with(&[], output);
        let SupervisorEvent::Spawned { output_errno, .. } = rig.event() else {
            panic!("not started")
        };
        drop(session);
        assert_eq!(rig.exit(), MletStatus::Code(3));
        Errno::from_raw(output_errno)
    };
    let read = |name: &str| fs::read_to_string(results.join(name)).unwrap();
    let out = format!("out {}\n", results.display());
    assert_eq!(run(folder("sessions/000001-ab")), Errno::from_raw(0));
    assert_eq!(
        (read("sessions/000001-ab/stdout"), read("sessions/000001-ab/stderr")),
        (out.clone(), "err\n".into())
    );
    assert_eq!(run(folder("sessions/000001-ab")), Errno::from_raw(0));
    assert_eq!(read("sessions/000001-ab/stdout"), out.repeat(2), "what is there stays");
    let mode = |name: &str| fs::metadata(results.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("sessions/000001-ab"), mode("sessions/000001-ab/stdout")), (0o700, 0o600));
    assert_eq!(run(MletOutput::Discarded), Errno::from_raw(0));
    fs::write(results.join("file"), "").unwrap();
    assert_eq!(run(folder("file/000002-ab")), Errno::ENOTDIR);
    drop(rig.supervisor);
}

/// Promise P9: mlets that ignore TERM and orphans in a session of their own included, at several moments of the
/// starting of mlets.
fn a_killed_manager_leaves_nothing() {
    const MLETS: usize = 30;
    for killed_after in [0, 1, 7, 20, MLETS] {
        let mut manager = Command::new(own_program())
            .args(["role=manager", &MLETS.to_string()])
            .env(rig::MARK, rig::mark())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(manager.stdout.take().unwrap()).lines();
        assert_eq!(lines.by_ref().take(killed_after).map(Result::unwrap).count(), killed_after);
        rig::wait_until_marked(killed_after + 1);
        manager.kill().unwrap();
        assert_eq!(manager.wait().unwrap().signal(), Some(libc::SIGKILL));
        let took = rig::wait_until_none_is_marked();
        assert!(took < Duration::from_secs(3), "{took:?}");
    }
}

/// Promise P10, as far as it is the supervisor's.
fn a_killed_supervisor_is_noticed_and_its_mlets_can_be_ended() {
    children::become_subreaper().unwrap();
    let mut rig = Rig::of_script(
        r#"[ "$KIND" = stubborn ] && trap '' TERM; (/usr/bin/setsid /bin/sleep 1000 &); exec /bin/sleep 1000"#,
    );
    let _sessions: Vec<_> =
        (0..10).map(|n| rig.spawn(&[("KIND", ["plain", "stubborn"][n % 2])])).collect();
    kill(Pid::from_raw(rig.supervisor.pid()), Signal::SIGKILL).unwrap();
    assert_eq!(rig.loss().kind(), std::io::ErrorKind::UnexpectedEof);
    assert!(rig.supervisor.flush().is_ok(), "nothing to send");
    let (_ours, mlets) = engine::sys::socket::session_pair().unwrap();
    rig.supervisor
        .spawn(MletOwner::Session(99), &[], &MletOutput::Inherited, MletEnds::of_socket(mlets))
        .unwrap();
    assert!(rig.supervisor.flush().is_err());

    let began = rig::now();
    children::end_all_children(rig::GRACES, || false).unwrap();
    assert!(began.elapsed() < Duration::from_secs(3));
    assert!(rig::marked().is_empty());
    set_child_subreaper(false).unwrap();
}

fn a_dropped_supervisor_is_waited_for() {
    let mut rig = Rig::of_script("trap '' TERM; read line; exec /bin/sleep 1000");
    let pid = Pid::from_raw(rig.supervisor.pid());
    let (mlet, _ours) = rig.spawn(&[]);
    let began = rig::now();
    drop(rig);
    assert!(began.elapsed() >= rig::GRACES.term, "the mlet was killed at once");
    // Neither is even a zombie any more.
    for gone in [pid, Pid::from_raw(mlet)] {
        assert_eq!(kill(gone, None), Err(Errno::ESRCH), "process {gone}");
    }
}

fn a_supervisor_that_cannot_end_is_not_waited_for_without_end() {
    let rig = Rig::of_script(":");
    let pid = Pid::from_raw(rig.supervisor.pid());
    kill(pid, Signal::SIGSTOP).unwrap();
    let began = rig::now();
    drop(rig);
    let waited = began.elapsed();
    assert!(waited >= rig::GRACES.total(), "{waited:?}");
    assert!(waited < PATIENCE, "{waited:?}");
    kill(pid, Signal::SIGKILL).expect("it was left behind");
    waitpid(pid, None).unwrap();
}

fn the_supervisor_is_not_started_beside_another_thread() {
    let (hold, held) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || held.recv());
    let command = MletCommand::new("/bin/true", rig::GRACES);
    let error = start(&command, None).unwrap_err();
    assert!(matches!(error.why, StartFault::ManyThreads(2)), "{error}");
    drop(hold);
    thread.join().unwrap().unwrap_err();
}
