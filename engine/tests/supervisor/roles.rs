//! The processes that this test program plays itself.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use engine::sys::supervisor::SupervisorEvent;

use crate::rig::{self, MARK, Rig};

pub(crate) fn play(role: &str, words: &[String]) {
    match role {
        "dump" => dump(),
        "status" => status(),
        "manager" => manager(words.first().unwrap().parse().unwrap()),
        other => panic!("no such role: {other}"),
    }
}

/// A mlet that writes its descriptors, environment and arguments to its session, then reads to its end.
fn dump() {
    let mut report = String::new();
    for entry in fs::read_dir("/proc/self/fd").unwrap() {
        let entry = entry.unwrap();
        let target = fs::read_link(entry.path()).unwrap();
        // The descriptor that reads this directory.
        if !target.to_str().unwrap().starts_with("/proc/") {
            report += &format!("fd {} {}\n", entry.file_name().display(), target.display());
        }
    }
    for (name, value) in std::env::vars().filter(|(name, _)| name != MARK) {
        report += &format!("env {name}={value}\n");
    }
    for word in std::env::args() {
        report += &format!("arg {word}\n");
    }
    let session = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let mut session = UnixStream::from(session);
    session.write_all(report.as_bytes()).unwrap();
    session.shutdown(std::net::Shutdown::Write).unwrap();
    session.read_to_end(&mut Vec::new()).unwrap();
}

/// A manager that prints the signal state of supervisor and mlet.
fn status() {
    let mut rig = Rig::new("/bin/cat", &[]);
    let (mlet, session) = rig.spawn(&[]);
    for (name, pid) in [("supervisor", rig.supervisor.pid()), ("mlet", mlet)] {
        for key in ["SigBlk", "SigIgn", "SigCgt"] {
            let set = u64::from_str_radix(&rig::status_of(pid, key), 16).unwrap();
            let numbers = (1..=64).filter(|number| set >> (number - 1) & 1 == 1);
            // 32 and 33 are the C library's own, which it ignores in whatever it spawns.
            let numbers: Vec<_> = numbers.filter(|number| ![32, 33].contains(number)).collect();
            println!("{name} {key} {numbers:?}");
        }
    }
    drop(session);
    rig.exit();
    drop(rig.supervisor);
}

/// A manager that starts `count` mlets that would run for a long time, of three kinds, prints a line for each that runs
/// and never ends by itself.
fn manager(count: usize) {
    let mut rig = Rig::of_script(
        r#"case "$KIND" in
            stubborn) trap '' TERM; exec /bin/sleep 1000 ;;
            daemon) (trap '' TERM; /usr/bin/setsid /bin/sleep 1000 &); exec /bin/sleep 1000 ;;
            *) exec /bin/sleep 1000 ;;
        esac"#,
    );
    let kinds = ["plain", "stubborn", "daemon"];
    let sessions: Vec<_> =
        (0..count).map(|n| rig.ask(&[("KIND", kinds[n % kinds.len()])])).collect();
    for _ in &sessions {
        assert!(matches!(rig.event(), SupervisorEvent::Spawned { .. }));
        println!("spawned");
    }
    loop {
        rig.event();
    }
}
