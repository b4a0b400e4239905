//! That keys stay in the manager: nobody who may not look into every process can look into it or its supervisor.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;

use common::Home;
use common::manager::Manager;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

/// What the zoo tries of each process.
const FILES: [&str; 5] = ["mem", "environ", "maps", "auxv", "fd"];

/// A manager in a folder that was given to somebody without rights, who runs it.
fn start(home: &Home, stranger: Option<u32>, options: &[&str]) -> Manager {
    let mut command = home.command_of(stranger, "pktxpmgr");
    command.args(["-c", "xpmgr.conf", "-a", "127.0.0.1:"]).args(options);
    Manager::start(home, command)
}

/// Promise P16. A mlet runs as the same user.
#[test]
fn a_mlet_can_look_into_itself_but_not_into_the_processes_with_the_keys() {
    let home = Home::new();
    let stranger = home.give_away();
    let manager = start(&home, stranger, &["./mlet-zoo", "pry"]);
    let report = home.dial(&manager).session().text();
    let of = |pid: &str, verdict: &str| -> String {
        FILES.map(|file| format!("{pid} {file}: {verdict}\n")).concat()
    };
    let (supervisor, pid) = (manager.supervisor().to_string(), manager.pid().to_string());
    let barred = "permission denied";
    let expected = [of("self", "read"), of(&supervisor, barred), of(&pid, barred)].concat();
    assert_eq!(report, expected);
    assert_eq!(manager.interrupted().code, Some(0));
}

/// Promise P16. It descends from neither of them, as a debugger does not. What runs as another user the kernel bars anyway.
#[test]
fn a_process_of_the_same_user_cannot_look_into_the_processes_with_the_keys() {
    let home = Home::new();
    let stranger = home.give_away();
    let manager = start(&home, stranger, &["./mlet-zoo", "echo"]);
    let pids = [manager.pid().to_string(), manager.supervisor().to_string()];
    let output = home.command_of(stranger, "mlet-zoo").arg("pry").args(&pids).output().unwrap();
    let report = String::from_utf8(output.stderr).unwrap();
    assert_eq!(report.matches(": permission denied").count(), FILES.len() * pids.len(), "{report}");
    assert_eq!(manager.interrupted().code, Some(0));
}

/// Promise P16: it is hidden before there is anything to hide. While the passphrase is waited for, the kernel has taken
/// the files about both processes away from their user.
#[test]
fn memory_is_hidden_before_the_key_is_read() {
    let home = Home::new();
    let config = home.least().replace("Path xc", "Path enc");
    home.write("xpmgr.conf", config.as_bytes());
    mkfifo(&home.path("passphrase"), Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    let stranger = home.give_away();
    let mut command = home.command_of(stranger, "pktxpmgr");
    command.args(["-c", "xpmgr.conf", "-a", "127.0.0.1:", "--passphrase-file", "passphrase"]);
    command.arg("./mlet");
    let manager = Manager::spawn(&home, command);
    let mut fifo = home.await_reader("passphrase");
    let owner = |pid: i32| fs::metadata(format!("/proc/{pid}/environ")).unwrap().uid();
    assert_eq!((owner(manager.pid()), owner(manager.supervisor())), (0, 0));
    fifo.write_all(b"hunter2\n").unwrap();
    drop(fifo);
    manager.says("configuration loaded");
    manager.says("listening on");
    assert_eq!(manager.interrupted().code, Some(0));
}

/// Promise P16, where root looks nevertheless: of the controller key's page nothing gets into dump or swap.
#[test]
fn the_page_of_the_controller_key_is_locked_and_left_out_of_dumps() {
    let home = Home::new();
    let manager = home.start(&[], &["echo"]);
    let maps =
        common::manager::readable(fs::read_to_string(format!("/proc/{}/smaps", manager.pid())));
    let is_held = |line: &str| {
        let flags: Vec<&str> = line.split(' ').collect();
        line.starts_with("VmFlags:") && flags.contains(&"dd") && flags.contains(&"lo")
    };
    assert!(maps.unwrap().lines().any(is_held));
}
