//! `pktxpmgr` as a service: the tests play systemd's side of its protocols.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::endpoint::{LINFO, message};
use common::http::{metrics, metrics_address};
use common::manager::{Manager, PATIENCE, wait_until, zoo};
use common::stalled::Stalled;
use common::{Home, PKTXPMGR, assert_says, run};
use nix::sys::signal::Signal;
use serde_json::Value;

/// The init system's end of `NOTIFY_SOCKET`.
struct Init(UnixDatagram);

impl Init {
    fn at_path(home: &Home) -> Self {
        Self::of(UnixDatagram::bind(home.path("notify")).unwrap())
    }

    /// At a name that is no file, which is also returned as the environment has it.
    fn abstract_one(home: &Home) -> (Self, String) {
        let name = home.path("notify").display().to_string();
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        (Self::of(UnixDatagram::bind_addr(&address).unwrap()), format!("@{name}"))
    }

    fn of(socket: UnixDatagram) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    /// The next that is told.
    #[track_caller]
    fn hears(&self) -> String {
        let mut buffer = [0; 4096];
        let len = self.0.recv(&mut buffer).expect("it tells something");
        String::from_utf8(buffer[..len].to_vec()).unwrap()
    }

    /// What is told until this is, with it.
    #[track_caller]
    fn hears_until(&self, part: &str) -> Vec<String> {
        let start = Instant::now();
        let mut all = Vec::new();
        while all.last().is_none_or(|told: &String| !told.contains(part)) {
            assert!(start.elapsed() < PATIENCE, "{part} is not told: {all:?}");
            all.push(self.hears());
        }
        all
    }

    /// Forgets what was told so far.
    fn forget(&self) {
        self.0.set_nonblocking(true).unwrap();
        while self.0.recv(&mut [0; 4096]).is_ok() {}
        self.0.set_nonblocking(false).unwrap();
    }
}

fn start(home: &Home, environment: &[(&str, &str)], options: &[&str], mlet: &[&str]) -> Manager {
    let mut command = home.command();
    command.envs(environment.iter().copied()).args(options).arg(zoo()).args(mlet);
    Manager::start(home, command)
}

#[test]
fn an_init_system_is_told_when_the_run_is_ready_how_it_is_and_that_it_stops() {
    let home = Home::new();
    let by_path = Init::at_path(&home);
    let (by_name, name) = Init::abstract_one(&home);
    for (init, address) in [(by_path, home.path("notify").to_str().unwrap()), (by_name, &name)] {
        let mut command = home.command();
        command.env("NOTIFY_SOCKET", address).arg(zoo()).arg("echo");
        let mut manager = Manager::spawn(&home, command);
        assert_eq!(init.hears(), "READY=1\n");
        // Endpoints can be served then, whatever was logged so far.
        assert!(manager.listens());
        manager.await_port();
        let mut session = home.dial(&manager).session();
        session.echoes(b"served");
        let told = init.hears_until("sessions 1,");
        assert_eq!(
            told.last().unwrap(),
            "STATUS=running; sessions 1, ended so far 0, of these ok 0\n"
        );
        session.close();
        drop(session);
        init.hears_until("STATUS=running; sessions 0, ended so far 1, of these ok 0\n");
        let all = manager.interrupted();
        assert_eq!(all.code, Some(0));
        let told = init.hears_until("STOPPING=1");
        // Nobody has asked for a watchdog.
        assert!(told.iter().all(|told| !told.contains("WATCHDOG")), "{told:?}");
    }
}

/// Nobody registers at a proxy that is not there, so nobody can come.
#[test]
fn an_init_system_hears_of_no_run_that_is_ready_before_its_proxy_has_answered() {
    let home = Home::new();
    let init = Init::at_path(&home);
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = format!("EnableProxyMode 1\nTargetBacklogConn 1\n{}", home.least());
    home.write("xpmgr.conf", config.as_bytes());
    let mut command = home.command();
    command.env("NOTIFY_SOCKET", home.path("notify"));
    command.args(["-a", &proxy.local_addr().unwrap().to_string()]).arg(zoo()).arg("echo");
    let manager = Manager::spawn(&home, command);
    manager.says("registering 1 connection");
    // What it tells when it is asked to end comes behind whatever was told before.
    manager.signal(Signal::SIGINT);
    let told = init.hears_until("STOPPING=1");
    assert!(told.iter().all(|told| !told.contains("READY")), "{told:?}");
    assert_eq!(manager.ends().code, Some(0));
}

#[test]
fn an_init_system_is_told_that_a_reload_begins_and_when_it_is_over_whatever_came_of_it() {
    let home = Home::new();
    let init = Init::at_path(&home);
    let address = home.path("notify");
    let environment = [("NOTIFY_SOCKET", address.to_str().unwrap())];
    let manager = start(&home, &environment, &[], &["echo"]);
    init.hears_until("READY=1");
    for outcome in ["reloaded for new sessions: ", "WARN reload refused"] {
        manager.signal(Signal::SIGHUP);
        let told = init.hears_until("RELOADING=1\nMONOTONIC_USEC=");
        assert!(told.iter().all(|told| !told.contains("READY=1\n")), "{told:?}");
        init.hears_until("READY=1");
        manager.says(outcome);
        fs::write(home.path("xpmgr.conf"), "Nothing\n").unwrap();
    }
    assert_eq!(manager.interrupted().code, Some(0));
}

#[test]
fn a_run_without_an_init_system_that_listens_says_so_and_goes_on() {
    let home = Home::new();
    let manager = start(&home, &[("NOTIFY_SOCKET", "/nowhere/notify")], &[], &["echo"]);
    manager.says("WARN the init system does not hear that the run is ready (NOTIFY_SOCKET)");
    home.dial(&manager).is_served();
    assert_eq!(manager.interrupted().code, Some(0));
    for (name, value, expected) in [
        ("NOTIFY_SOCKET", "relative", "NOTIFY_SOCKET: the init system cannot be told of the run"),
        ("WATCHDOG_USEC", "soon", "WATCHDOG_USEC is no number"),
        ("LISTEN_FDS", "-1", "LISTEN_FDS is no number"),
    ] {
        let ended = run(home.command().env(name, value).arg("./mlet"));
        assert_eq!((ended.code, ended.loaded), (Some(3), false), "{name}");
        assert_says(&ended.stderr, &[expected]);
    }
}

/// How long each shard stands still, by the label of its core, as metrics tell it.
fn stalled_seconds(address: std::net::SocketAddr) -> BTreeMap<String, f64> {
    let samples = metrics(address).into_iter();
    let of_shards = samples.filter_map(|(name, seconds)| {
        Some((name.strip_prefix("pktxpmgr_core_stalled_seconds")?.to_owned(), seconds))
    });
    of_shards.collect()
}

/// Promise P36. The watchdog is fed only while every shard makes turns.
#[test]
fn a_shard_that_stands_still_is_told_of_within_two_seconds_and_feeds_no_watchdog() {
    let home = Home::new();
    let init = Init::at_path(&home);
    let address = home.path("notify");
    let environment = [("NOTIFY_SOCKET", address.to_str().unwrap()), ("WATCHDOG_USEC", "30000000")];
    let options = ["--cores", "2", "--metrics", "0", "--ctl", "ctl.sock"];
    let manager = start(&home, &environment, &options, &["echo"]);
    let address = metrics_address(&manager);
    let stalls = || stalled_seconds(address);
    init.hears_until("WATCHDOG=1");
    assert_eq!(manager.said("has made no turn"), 0);
    assert_eq!(stalls().into_values().collect::<Vec<_>>(), [0.0, 0.0]);
    let stalled = Stalled::shard(&manager, 0);
    let begun = Instant::now();
    let line = manager.says("has made no turn");
    wait_until("metrics tell it", || stalls().into_values().any(|seconds| seconds > 0.0));
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_says(&line, &[" WARN shard 0, on CPU ", "its sessions stand still"]);
    let (_, core) = line.split_once("on CPU ").unwrap();
    let core = core.split(',').next().unwrap();
    let shown = || home.bare_command().args(["ctl", "ctl.sock", "show"]).output().unwrap().stdout;
    let row = format!("core {core} stalled_s ");
    assert_says(str::from_utf8(&shown()).unwrap(), &[&row]);
    let core = format!("{{core=\"{core}\"}}");
    init.forget();
    // Three times it is told how the run is, and never that it is well.
    for _ in 0..3 {
        let told = init.hears_until("STATUS=");
        assert!(told.iter().all(|told| !told.contains("WATCHDOG")), "{told:?}");
    }
    // Of the whole stall less than the part before it was asked, and of nobody else.
    wait_until("it has stood still for 5 s", || begun.elapsed() >= Duration::from_secs(5));
    let mut told = stalls();
    let seconds = told.remove(&core).unwrap();
    assert!((3.0..=begun.elapsed().as_secs_f64()).contains(&seconds), "{seconds}");
    assert_eq!(told.into_values().collect::<Vec<_>>(), [0.0]);
    drop(stalled);
    assert_says(&manager.says("makes turns again"), &[" WARN shard 0, on CPU ", "after "]);
    init.hears_until("WATCHDOG=1");
    assert_eq!(stalls().into_values().collect::<Vec<_>>(), [0.0, 0.0]);
    assert!(!str::from_utf8(&shown()).unwrap().contains(&row));
    home.dial(&manager).is_served();
    assert_eq!(manager.said("has made no turn"), 1);
    assert_eq!(manager.interrupted().code, Some(0));
}

#[test]
fn a_watchdog_that_is_meant_for_another_process_is_not_fed() {
    let home = Home::new();
    let init = Init::at_path(&home);
    let address = home.path("notify");
    let environment = [
        ("NOTIFY_SOCKET", address.to_str().unwrap()),
        ("WATCHDOG_USEC", "100000"),
        ("WATCHDOG_PID", "1"),
    ];
    let manager = start(&home, &environment, &[], &["echo"]);
    for _ in 0..3 {
        let told = init.hears();
        assert!(!told.contains("WATCHDOG"), "{told}");
    }
    assert_eq!(manager.interrupted().code, Some(0));
}

/// A manager that finds this descriptor as its number 3, and is told of so many.
fn handed_over(home: &Home, descriptor: OwnedFd, count: &str, words: &[&str]) -> Command {
    let script = "exec 3<&0 </dev/null; export LISTEN_PID=$$; exec \"$0\" \"$@\"";
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script, PKTXPMGR, "-c", "xpmgr.conf"]).args(words);
    command.current_dir(home.path("")).env_clear().env("LISTEN_FDS", count);
    command.stdin(Stdio::from(descriptor));
    command
}

/// A session is served on either shard, over the one socket; when the run is over, the socket still takes connections.
#[test]
fn endpoints_come_over_the_listening_socket_of_an_init_system() {
    let home = Home::new();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let zoo = zoo();
    let words = ["-vv", zoo.to_str().unwrap(), "echo"];
    let descriptor = OwnedFd::from(socket.try_clone().unwrap());
    let manager = Manager::start(&home, handed_over(&home, descriptor, "1", &words));
    assert_eq!(manager.address, address);
    manager.says(&format!("endpoints connect to us, at {address}"));
    let sessions: Vec<_> = (0..20)
        .map(|_| {
            let mut session = home.dial(&manager).session();
            session.echoes(b"over the socket of another");
            session
        })
        .collect();
    let mlet = common::manager::children_of(manager.supervisor())[0];
    let environment = fs::read_to_string(format!("/proc/{mlet}/environ")).unwrap();
    assert!(environment.contains("EPADDR=") && !environment.contains("LISTEN_"), "{environment}");
    let open = fs::read_dir(format!("/proc/{mlet}/fd")).unwrap().flatten();
    let open = open.map(|entry| fs::read_link(entry.path()).unwrap());
    let sockets = open.filter(|target| target.to_string_lossy().starts_with("socket:"));
    let sockets: BTreeSet<_> = sockets.collect();
    assert_eq!(sockets.len(), 1, "a mlet has its session, and no listening socket");
    drop(sessions);
    assert_eq!(manager.interrupted().code, Some(0));
    let _waiting = TcpStream::connect(address).expect("it is the init system's socket, and open");
}

#[test]
fn what_is_no_listening_socket_of_tcp_is_refused_by_its_number() {
    let home = Home::new();
    let listening = || OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap());
    let accepting = TcpListener::bind("127.0.0.1:0").unwrap();
    let connected = TcpStream::connect(accepting.local_addr().unwrap()).unwrap();
    let file = fs::File::open(home.path("xpmgr.conf")).unwrap();
    for (descriptor, count, reason) in [
        (OwnedFd::from(file), "1", "descriptor 3 is no socket"),
        (UdpSocket::bind("127.0.0.1:0").unwrap().into(), "1", "is a socket, but none of TCP"),
        (UnixListener::bind(home.path("unix")).unwrap().into(), "1", "but none of TCP"),
        (connected.into(), "1", "descriptor 3 is a TCP socket that does not listen"),
        (listening(), "2", "LISTEN_FDS=2: descriptor 4 is not open"),
        (listening(), "99999999999", "descriptor 4 is not open"),
    ] {
        let ended = run(&mut handed_over(&home, descriptor, count, &["./mlet"]));
        assert_eq!((ended.code, ended.loaded), (Some(4), false), "{reason}: {}", ended.stderr);
        assert_says(&ended.stderr, &["FATAL: LISTEN_FDS=", reason, "ListenStream="]);
    }
    let ended = run(&mut handed_over(&home, listening(), "1", &["-a", "127.0.0.1:", "./mlet"]));
    assert_eq!((ended.code, ended.loaded), (Some(2), false));
    assert_says(&ended.stderr, &["-a and sockets of the init system", "do not go together"]);
    // Handed over to somebody else, such as a shell that has started us: no business of ours.
    let script = "exec 3<&0 </dev/null; export LISTEN_PID=1; exec \"$0\" \"$@\"";
    let mut other = Command::new("/bin/sh");
    other.args(["-c", script, PKTXPMGR, "-c", "xpmgr.conf", "-a", "127.0.0.1:", "./mlet"]);
    other.current_dir(home.path("")).env_clear().env("LISTEN_FDS", "1");
    assert!(run(other.stdin(Stdio::from(listening()))).loaded);
}

#[test]
fn the_passphrase_is_taken_from_the_credentials_of_the_service() {
    let home = Home::new();
    let config = home.least().replace("ControllerPrivkeyPath xc", "ControllerPrivkeyPath enc");
    home.write("xpmgr.conf", config.as_bytes());
    home.make_directory("credentials");
    let with = |home: &Home| {
        run(home.command().env("CREDENTIALS_DIRECTORY", home.path("credentials")).arg("./mlet"))
    };
    // Without such a credential it is as ever.
    let ended = with(&home);
    assert_eq!(ended.code, Some(3));
    assert_says(&ended.stderr, &["give it with --passphrase-file"]);
    home.write("credentials/passphrase", b"hunter2\n");
    assert!(with(&home).loaded);
    home.write("credentials/passphrase", b"wrong\n");
    let ended = with(&home);
    assert_eq!((ended.code, ended.loaded), (Some(3), false));
    // An option is nearer.
    home.write("right", b"hunter2\n");
    let mut command = home.command();
    command.env("CREDENTIALS_DIRECTORY", home.path("credentials"));
    assert!(run(command.args(["--passphrase-file", "right", "./mlet"])).loaded);
}

/// The log of a run with lines of every level, LINFOs and mlets' output, which ends with an error.
fn log_of_every_level(log_format: &str) -> String {
    let home = Home::new();
    let mut command = home.command();
    command.args(["-vv", "--log-format", log_format, "--require", "5"]).arg(zoo()).arg("echo");
    let mut manager = Manager::spawn(&home, command);
    manager.says("listening on ");
    manager.await_port();
    let mut session = home.dial(&manager).session();
    let linfo = message(LINFO, b"\x04name\0\0\0\0two\nlines \x1b[2J");
    session.send(&linfo);
    session.echoes(b"passed");
    manager.says("endpoint logs");
    session.close();
    drop(session);
    manager.signal(Signal::SIGUSR1);
    manager.says("status: ");
    let ended = manager.interrupted();
    assert_eq!(ended.code, Some(1));
    assert_says(&ended.stderr, &["(--require)"]);
    ended.stderr
}

#[test]
fn every_line_for_the_journal_begins_with_its_priority() {
    let log = log_of_every_level("journald");
    for line in log.lines() {
        let priority = line.strip_prefix('<').and_then(|rest| rest.split_once('>'));
        let (priority, text) = priority.unwrap_or_else(|| panic!("no priority: {line}"));
        assert!(["2", "4", "6", "7"].contains(&priority) && !text.is_empty(), "{line}");
        assert!(!text.starts_with("20"), "the journal knows the time: {line}");
    }
    for expected in ["<2>FATAL: ", "<4>SIGINT: ", "<6>listening on ", "<6>endpoint logs", "<7>"] {
        assert!(log.lines().any(|line| line.starts_with(expected)), "{expected}: {log}");
    }
}

#[test]
fn every_line_of_json_is_one_object_with_time_level_and_message() {
    let log = log_of_every_level("json");
    let mut levels = Vec::new();
    for line in log.lines() {
        let object: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        let text = |name: &str| object[name].as_str().unwrap_or_else(|| panic!("{line}"));
        assert!(text("time").ends_with('Z') && !text("message").is_empty(), "{line}");
        levels.push(text("level").to_owned());
        if text("message").starts_with("endpoint logs") {
            assert!(object["session"].is_u64(), "{line}");
        }
    }
    for level in ["FATAL", "WARN", "INFO", "DEBUG"] {
        assert!(levels.iter().any(|found| found == level), "{level}: {log}");
    }
}

/// What comes before there is a log, of several lines.
#[test]
fn a_run_that_cannot_begin_says_why_in_the_format_of_the_log() {
    let home = Home::new();
    home.write("xpmgr.conf", b"EnableExpPublication maybe\n");
    let ended = run(home.command().args(["--log-format", "journald", "./mlet"]));
    assert_eq!(ended.code, Some(3));
    assert!(ended.stderr.lines().count() > 2, "{}", ended.stderr);
    assert!(ended.stderr.lines().all(|line| line.starts_with("<2>")), "{}", ended.stderr);
    let ended = run(home.command().args(["--log-format", "json", "./nowhere"]));
    let object: Value = serde_json::from_str(&ended.stderr).unwrap();
    assert!(object["message"].as_str().unwrap().starts_with("cannot run the mlet ./nowhere"));
}

const UNIT: &str = include_str!("../../docs/pktxpmgr.service");

/// What the unit runs is a command line that is understood.
#[test]
fn the_unit_runs_what_the_program_understands() {
    let start = UNIT.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/bin/pktxpmgr "));
    let words: Vec<&str> = start.unwrap().split(' ').collect();
    let home = Home::new();
    let mut command = home.bare_command();
    for word in words {
        command.arg(match word {
            "/etc/pktxpmgr/xpmgr.conf" => "xpmgr.conf",
            "$PKTXPMGR_RUN" => "./mlet",
            word => word,
        });
    }
    command.args(["x"]);
    let mut check = home.bare_command();
    check.args(["--check", "-a", "127.0.0.1:"]).args(command.get_args());
    let ended = run(&mut check);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

#[test]
#[ignore = "needs systemd-analyze"]
fn systemd_understands_the_unit() {
    let home = Home::new();
    // It asks whether what is run is there.
    let unit = UNIT.replace("/usr/bin/pktxpmgr", PKTXPMGR);
    home.write("pktxpmgr.service", unit.as_bytes());
    let mut analyze = Command::new("systemd-analyze");
    analyze.args(["verify", "--man=no"]).arg(home.path("pktxpmgr.service"));
    let mut said = String::new();
    let mut child = analyze.stderr(Stdio::piped()).spawn().unwrap();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().success() && !said.contains("pktxpmgr.service"), "{said}");
}
