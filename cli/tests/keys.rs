//! The controller key: who may read its file, and where its passphrase comes from.
//!
//! The prompt is tested on a real pseudo-terminal. To give it to `pktxpmgr` as controlling terminal
//! without unsafe code, this test program starts itself again ([`become_pktxpmgr`]).

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use common::terminal::{Terminal, take_terminal};
use common::{Home, PKTXPMGR, assert_says, pid, run};
use nix::sys::signal::{Signal, kill};

fn with_key(home: &Home, key: &str) -> String {
    home.least().replace("ControllerPrivkeyPath xc", &format!("ControllerPrivkeyPath {key}"))
}

/// Item 48.
#[test]
fn an_unencrypted_key_needs_no_terminal() {
    let home = Home::new();
    let mut command = without_terminal(&home);
    assert!(run(&mut command).loaded);
}

/// Item 50.
#[test]
fn an_encrypted_key_without_a_terminal_is_code_3_at_once() {
    let home = Home::new();
    home.write("xpmgr.conf", with_key(&home, "enc").as_bytes());
    let ended = run(&mut without_terminal(&home));
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    assert_says(&ended.stderr, &["FATAL: the controller key", "no terminal", "--passphrase-file"]);
}

/// A key encrypted with nothing loads silently, as in the original.
#[test]
fn an_empty_passphrase_is_tried_before_asking() {
    let home = Home::new();
    let pem = home.keys.controller.to_encrypted_pem(b"").unwrap();
    home.write("xc", pem.as_bytes());
    assert!(run(&mut without_terminal(&home)).loaded);
}

#[test]
fn a_passphrase_file_replaces_the_prompt() {
    let home = Home::new();
    home.write("xpmgr.conf", with_key(&home, "enc").as_bytes());
    for right in ["hunter2", "hunter2\n", "hunter2\r\nmore\n"] {
        home.write("pass", right.as_bytes());
        let ended = run_with_passphrase_file(&home, "pass");
        assert!(ended.loaded, "{right:?}: {}", ended.stderr);
    }
    for wrong in ["hunter3\n", "hunter2 \n", "\nhunter2\n"] {
        home.write("pass", wrong.as_bytes());
        let ended = run_with_passphrase_file(&home, "pass");
        assert_eq!(ended.code, Some(3), "{wrong:?}: {}", ended.stderr);
        assert_says(
            &ended.stderr,
            &["passphrase does not open", "= try again; of --passphrase-file"],
        );
        assert!(!ended.stderr.contains("hunter"), "{}", ended.stderr);
    }
}

/// The key and its line of the config file are not to blame.
#[test]
fn an_error_of_the_passphrase_file_names_that_file_and_its_remedy_alone() {
    let home = Home::new();
    home.write("xpmgr.conf", with_key(&home, "enc").as_bytes());
    home.write("pass", b"hunter2\n");
    home.chmod("pass", 0o644);
    home.make_directory("folder");
    for (name, expected) in [
        ("nowhere", "No such file or directory"),
        ("pass", "everybody may read or write it (mode 0644); chmod 600 it"),
        ("folder", "it is a directory; name a file"),
    ] {
        let ended = run_with_passphrase_file(&home, name);
        assert_eq!(ended.code, Some(3), "{}", ended.stderr);
        let said = format!(
            "FATAL: the controller key cannot be used: cannot use the passphrase file {name}: {expected}"
        );
        assert_says(&ended.stderr, &[&said]);
        let is_elsewhere = |word| ended.stderr.contains(word);
        assert!(!["xpmgr.conf:", "^", "PKCS#8"].into_iter().any(is_elsewhere), "{}", ended.stderr);
    }
}

#[test]
fn a_passphrase_may_come_through_a_pipe() {
    let home = Home::new();
    home.write("xpmgr.conf", with_key(&home, "enc").as_bytes());
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(b"hunter2\n").unwrap();
    drop(writer);
    let mut command =
        without_terminal_running(&home, &["--passphrase-file", "/dev/stdin", "./mlet"]);
    let ended = run(command.stdin(reader));
    assert!(ended.loaded, "{}", ended.stderr);
}

#[test]
fn a_key_that_is_no_key_is_told_apart() {
    let home = Home::new();
    let cut = &home.keys.controller.to_pem()[..60];
    for (pem, expected) in [
        ("", "holds no readable PEM section"),
        (cut, "holds no readable PEM section"),
        (&home.keys.controller.public_key().to_pem(), "holds no readable PEM section"),
    ] {
        home.write("xc", pem.as_bytes());
        let ended = run(&mut without_terminal(&home));
        assert_eq!(ended.code, Some(3));
        assert_says(
            &ended.stderr,
            &["xpmgr.conf:2:23: the controller key cannot be used", expected],
        );
    }
}

#[test]
fn a_key_that_others_may_touch_is_refused_and_a_group_warned_of() {
    let home = Home::new();
    for mode in [0o604, 0o602, 0o644, 0o666, 0o777] {
        home.chmod("xc", mode);
        let said = home.refused(&home.least());
        assert_says(
            &said,
            &["everybody may read or write it", &format!("mode {mode:04o}"), "chmod 600"],
        );
    }
    for (mode, warns) in
        [(0o640, true), (0o660, true), (0o600, false), (0o400, false), (0o711, false)]
    {
        home.chmod("xc", mode);
        let said = home.loads(&home.least());
        assert_eq!(said.contains("WARN xc: its group may use"), warns, "{mode:o}: {said}");
    }
}

#[test]
fn a_key_in_a_directory_that_everybody_may_write_is_refused() {
    let home = Home::new();
    home.make_directory("open");
    home.write("open/xc", home.keys.controller.to_pem().as_bytes());
    std::os::unix::fs::symlink("open/xc", home.path("link")).unwrap();
    let config = with_key(&home, "link");
    home.chmod("open", 0o777);
    assert_says(
        &home.refused(&config),
        &["everybody may write to its directory", "/open; chmod o-w"],
    );
    home.chmod("open", 0o1777);
    home.loads(&config);
    home.chmod("open", 0o770);
    home.loads(&config);
}

/// Item 49.
#[test]
fn the_prompt_takes_the_right_passphrase_without_echo() {
    let home = Home::new();
    let mut terminal = on_terminal(&home, &with_key(&home, "enc"));
    let shown = terminal.read_until("Passphrase for enc: ");
    assert_eq!(shown, "Passphrase for enc: ");
    assert!(!terminal.echoes());
    terminal.type_in("hunter2\n");
    let (loaded, code, said) = terminal.end();
    assert!(loaded, "{code:?} {said}");
    assert!(terminal.echoes());
    let shown = terminal.read_rest();
    assert_eq!(shown, "\r\n", "only the line's end is shown");
}

/// Item 49.
#[test]
fn the_prompt_refuses_a_wrong_passphrase_after_one_try() {
    let home = Home::new();
    let mut terminal = on_terminal(&home, &with_key(&home, "enc"));
    terminal.read_until("Passphrase for enc: ");
    terminal.type_in("hunter3\n");
    let (_, code, said) = terminal.end();
    assert_eq!(code, Some(3));
    assert_says(&said, &["the passphrase does not open the private key"]);
    assert!(terminal.echoes());
}

#[test]
fn no_prompt_comes_up_for_an_unencrypted_or_broken_key() {
    let home = Home::new();
    let mut terminal = on_terminal(&home, &home.least());
    assert!(terminal.end().0);
    assert_eq!(terminal.read_rest(), "");
    let mut terminal = on_terminal(&home, &with_key(&home, "eop.pub"));
    assert_eq!(terminal.end().1, Some(3));
    assert_eq!(terminal.read_rest(), "");
}

/// For a check the passphrase is asked for where it is needed, whatever else is wrong, and where somebody can be asked.
#[test]
fn a_check_asks_for_the_passphrase_where_it_is_needed_and_can_be_had() {
    let home = Home::new();
    let check = |terminal: &str, words: &str| {
        let mut command = itself(&home, terminal);
        command.env("TEST_WORDS", words);
        command
    };
    let config = with_key(&home, "enc") + "ProgramDirPath gone\n";
    home.write("xpmgr.conf", config.replace(":eop.pub:", ":exper.pub:").as_bytes());
    let ended = run(&mut check("", "--check"));
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    let unasked = "ERROR: the controller key cannot be used: there is no terminal";
    let others = ["cannot use 'gone'", "endpoints would refuse this chain", "errors: 3\n"];
    assert_says(&ended.stderr, &[unasked, "; give it with --passphrase-file"]);
    assert_says(&ended.stderr, &others);

    let mut terminal = Terminal::start(|terminal| check(terminal, "--check"));
    terminal.read_until("Passphrase for enc: ");
    terminal.type_in("hunter2\n");
    let (_, code, said) = terminal.end();
    assert_eq!(code, Some(3));
    assert_says(&said, &["cannot use 'gone'", "endpoints would refuse this chain", "errors: 2\n"]);
    let mut terminal = Terminal::start(|terminal| check(terminal, "--check"));
    terminal.read_until("Passphrase for enc: ");
    terminal.type_in("\x03");
    assert_eq!(terminal.end().1, Some(130));

    home.write("xpmgr.conf", with_key(&home, "enc").as_bytes());
    home.write("pass", b"hunter2\n");
    let ended = run(&mut check("", "--check --passphrase-file pass"));
    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""));
    home.write("xpmgr.conf", home.least().as_bytes());
    let mut terminal = Terminal::start(|terminal| check(terminal, "--check"));
    assert_eq!(terminal.end().1, Some(0));
    assert_eq!(terminal.read_rest(), "");
}

#[test]
fn a_signal_at_the_prompt_ends_it_and_restores_the_echo() {
    for (signal, expected) in [
        (Signal::SIGINT, 130),
        (Signal::SIGTERM, 143),
        (Signal::SIGQUIT, 143),
        (Signal::SIGHUP, 143),
    ] {
        let home = Home::new();
        let mut terminal = on_terminal(&home, &with_key(&home, "enc"));
        terminal.read_until("Passphrase for enc: ");
        assert!(!terminal.echoes());
        kill(pid(&terminal.child), signal).unwrap();
        let (_, code, said) = terminal.end();
        assert_eq!(code, Some(expected), "{signal}: {said}");
        assert_says(&said, &[signal.as_str()]);
        assert!(terminal.echoes(), "{signal}");
    }
}

#[test]
fn ctrl_c_and_ctrl_d_at_the_prompt_end_it_and_restore_the_echo() {
    for (key, expected) in [("\x03", 130), ("hun\x03", 130), ("\x04", 3)] {
        let home = Home::new();
        let mut terminal = on_terminal(&home, &with_key(&home, "enc"));
        terminal.read_until("Passphrase for enc: ");
        terminal.type_in(key);
        assert_eq!(terminal.end().1, Some(expected), "{key:?}");
        assert!(terminal.echoes(), "{key:?}");
    }
}

/// `pktxpmgr` in a session of its own, so that `/dev/tty` does not exist for it.
fn without_terminal(home: &Home) -> Command {
    without_terminal_running(home, &["./mlet"])
}

fn without_terminal_running(home: &Home, words: &[&str]) -> Command {
    let mut command = itself(home, "");
    command.env("TEST_WORDS", words.join(" "));
    command
}

fn run_with_passphrase_file(home: &Home, name: &str) -> common::Ended {
    run(&mut without_terminal_running(home, &["--passphrase-file", name, "./mlet"]))
}

/// `pktxpmgr` with this config on a terminal of its own.
fn on_terminal(home: &Home, config: &str) -> Terminal {
    home.write("xpmgr.conf", config.as_bytes());
    Terminal::start(|terminal| itself(home, terminal))
}

/// This test program, told to become `pktxpmgr` on this terminal.
fn itself(home: &Home, terminal: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "become_pktxpmgr", "--nocapture", "--quiet"]);
    command.current_dir(home.path("")).env_clear().stdin(Stdio::null());
    command.env("TEST_TERMINAL", terminal).env("TEST_WORDS", "./mlet");
    command
}

/// Not a test but the child of one: leaves the session of the test run, opens the terminal it is
/// given, which thereby becomes its controlling terminal, and executes the program under test.
#[test]
fn become_pktxpmgr() {
    let (Ok(terminal), Ok(words)) = (std::env::var("TEST_TERMINAL"), std::env::var("TEST_WORDS"))
    else {
        return;
    };
    let _terminal = take_terminal(&terminal);
    let mut command = Command::new(PKTXPMGR);
    command.args(["-c", "xpmgr.conf", "-a", "127.0.0.1:"]).args(words.split(' ')).env_clear();
    panic!("cannot execute {PKTXPMGR}: {}", command.exec());
}
