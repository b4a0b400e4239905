//! The line that tells how far a run is: rewritten on a terminal, beside a log that it never tears, and every 10 s elsewhere.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use common::endpoint::{Dial, Identity};
use common::events::EVENTS;
use common::manager::{Manager, PATIENCE, wait_until, zoo};
use common::screen::Screen;
use common::{Home, PKTXPMGR, pid};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};

/// A manager whose standard error is a terminal.
struct OnTerminal {
    child: Child,
    master: File,
    line: OwnedFd,
    screen: Screen,
    raw: String,
}

impl OnTerminal {
    fn start(home: &Home, columns: u16, options: &[&str], environment: &[(&str, &str)]) -> Self {
        let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None).unwrap();
        for fd in [&pty.master, &pty.slave] {
            fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
        }
        let mut command = Command::new(PKTXPMGR);
        command.args(["-c", "xpmgr.conf", "-a", "127.0.0.1:"]).args(EVENTS).args(options);
        command.arg(zoo()).arg("echo").current_dir(home.path("")).env_clear();
        command.env("TERM", "xterm").envs(environment.iter().copied());
        let on_line = Stdio::from(pty.slave.try_clone().unwrap());
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(on_line).spawn();
        let screen = Screen::new(usize::from(columns));
        let (master, line) = (File::from(pty.master), pty.slave);
        Self { child: child.unwrap(), master, line, screen, raw: String::new() }
    }

    /// Reads what comes until this is so.
    #[track_caller]
    fn until(&mut self, what: &str, mut is_so: impl FnMut(&Screen) -> bool) {
        let start = Instant::now();
        while !is_so(&self.screen) {
            let left = PollTimeout::try_from(PATIENCE.saturating_sub(start.elapsed())).unwrap();
            let ready = poll(&mut [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)], left);
            assert_eq!(ready.unwrap(), 1, "{what}: {:?} is shown", self.screen.last());
            let mut bytes = [0; 4096];
            let len = self.master.read(&mut bytes).unwrap();
            let text = str::from_utf8(&bytes[..len]).unwrap();
            self.raw.push_str(text);
            self.screen.write(text);
        }
    }

    fn dial(&mut self, home: &Home) -> Dial {
        let listening = |screen: &Screen| {
            let lines = screen.above();
            lines.into_iter().find(|line| line.contains("listening on "))
        };
        self.until("it listens", |screen| listening(screen).is_some());
        let line = listening(&self.screen).unwrap();
        let address = line.trim_end().rsplit(' ').next().unwrap().parse().unwrap();
        Dial::to(address).with(&Identity::of(&home.keys.operator))
    }

    /// Ends it, and reads to the end.
    fn end(mut self) -> (Screen, String) {
        kill(pid(&self.child), Signal::SIGINT).unwrap();
        self.until("its last line", |screen| {
            screen.above().iter().any(|line| line.contains("written: "))
        });
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        let raw = std::mem::take(&mut self.raw);
        (std::mem::replace(&mut self.screen, Screen::new(1)), raw)
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        // It has ended and been waited for, unless the test has failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Every line above the status is a line of the log, whole.
#[track_caller]
fn assert_whole(lines: &[String]) {
    for line in lines {
        let (time, rest) = line.split_once("Z ").unwrap_or_else(|| panic!("torn: {line:?}"));
        assert!(time.starts_with("20") && time.len() == 26, "torn: {line:?}");
        let level = rest.trim_start().split(' ').next().unwrap();
        assert!(["INFO", "WARN"].contains(&level), "torn: {line:?}");
        assert!(!rest.contains("  hs "), "a status is left in the log: {line:?}");
    }
}

#[test]
fn on_a_terminal_one_line_is_rewritten_below_the_log_and_is_gone_in_the_end() {
    let home = Home::new();
    let mut run = OnTerminal::start(&home, 80, &["-n", "50"], &[]);
    let dial = run.dial(&home);
    let mut endpoint = dial.session();
    endpoint.echoes(b"it runs");
    run.until("one runs", |screen| screen.last().contains("  0%  hs 0 setup 0 run 1  ok 0 fail 0"));
    let first = run.screen.last();
    run.until("it is rewritten", |screen| screen.last() != first && !screen.last().is_empty());
    // Log lines beside it.
    for _ in 0..8 {
        dial.is_served();
    }
    run.until("what is done is told", |screen| screen.last().contains("run 1  ok 0 fail 8"));
    let status = run.screen.last();
    assert!(status.starts_with("00:") && status.contains("  16%, "), "{status}");
    assert!(status.contains("/s  ") && status.contains(" MB/s"), "{status}");
    assert_whole(&run.screen.above());
    endpoint.close();
    let _ = endpoint.receive();
    let (screen, _) = run.end();
    assert_whole(&screen.above());
    assert_eq!(screen.last(), "", "nothing of it is left");
    assert!(screen.above().iter().any(|line| line.contains("9 sessions served")));
}

/// A wide one shows more, a narrow one less; and of what the narrower window has wrapped nothing is left.
#[test]
fn what_finds_no_room_is_left_out_also_when_the_window_is_resized() {
    let home = Home::new();
    let mut run = OnTerminal::start(&home, 200, &["--latency-sample", "1"], &[("NO_COLOR", "1")]);
    let mut endpoint = run.dial(&home).session();
    endpoint.echoes(b"it runs");
    run.until("all is told", |screen| {
        let line = screen.last();
        line.contains(" MB/s  p99 ") && line.contains("s  fd ") && line.contains("run 1")
    });
    let resized = Command::new("stty")
        .args(["cols", "32"])
        .stdin(run.line.try_clone().unwrap())
        .status()
        .unwrap();
    assert!(resized.success());
    run.screen.resize(32);
    run.until("it is shorter", |screen| {
        let line = screen.last();
        line.ends_with("run 1") && line.len() <= 31
    });
    // Log lines are as long as they are; the status is not.
    let before = run.screen.cleared;
    run.until("it is rewritten", |screen| screen.cleared > before + 1);
    assert!(run.screen.last().len() <= 31, "{}", run.screen.last());
    endpoint.close();
    let _ = endpoint.receive();
    let (screen, raw) = run.end();
    assert_whole(&screen.above());
    assert_eq!(screen.last(), "");
    assert!(!raw.contains("\x1b[3") && !raw.contains("\x1b[2m"), "a colour in {raw:?}");
}

#[test]
fn a_terminal_that_cannot_rewrite_gets_lines_and_who_wants_none_nothing() {
    let home = Home::new();
    let start =
        |options: &[&str], terminal| OnTerminal::start(&home, 80, options, &[("TERM", terminal)]);
    let runs = [
        start(&[], "dumb"),
        start(&["--no-status"], "xterm"),
        start(&["-v", "--no-status"], "xterm"),
    ];
    let mut rewriting = OnTerminal::start(&home, 80, &[], &[]);
    rewriting.until("it is rewritten", |screen| screen.cleared > 2);
    for mut run in runs {
        run.dial(&home);
        let (screen, raw) = run.end();
        assert_eq!(screen.cleared, 0, "{raw:?}");
    }
    rewriting.end();
}

/// All at the same time, since it takes 10 s.
#[test]
fn elsewhere_a_line_is_logged_every_ten_seconds_unless_nobody_wants_it() {
    let home = Home::new();
    let start = |options: &[&str]| home.start(options, &["echo"]);
    // With more to tell than a line of the log has room for.
    let (told, hidden) = (start(&["-n", "50", "--latency-sample", "1"]), start(&["--no-status"]));
    let mut quiet = home.command();
    quiet.arg("-q").arg(zoo()).arg("echo");
    let mut quiet = Manager::spawn(&home, quiet);
    quiet.await_port();
    let mut endpoint = home.dial(&told).session();
    endpoint.echoes(b"it runs");
    let line = told.says("  0%  hs 0 setup 0 run 1  ok 0 fail 0  ");
    assert!(line.contains(" INFO 00:1") && !line.contains('\r'), "{line}");
    let (_, text) = line.split_once(" INFO ").unwrap();
    assert!(text.len() <= 80 && text.contains(" MB/s") && !text.contains("  fd "), "{text}");
    assert_eq!((hidden.said("  hs "), quiet.said("  hs ")), (0, 0));
    endpoint.close();
    for manager in [told, hidden, quiet] {
        assert_eq!(manager.interrupted().code, Some(0));
    }
}

/// The terminal is stopped as with Ctrl-S: nobody reads, and the run goes on.
#[test]
fn a_terminal_that_nobody_reads_holds_up_nothing() {
    let home = Home::new();
    let mut run = OnTerminal::start(&home, 80, &[], &[]);
    let dial = run.dial(&home);
    // Far more than a terminal takes.
    for _ in 0..60 {
        dial.is_served();
    }
    let events = common::events::Events::of(&home);
    events.await_sessions(60);
    run.until("it is read again", |screen| screen.last().contains("ok 0 fail 60"));
    assert_whole(&run.screen.above());
    wait_until("it runs", || run.child.try_wait().unwrap().is_none());
    run.end();
}
