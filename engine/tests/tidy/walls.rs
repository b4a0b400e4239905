//! The walls between the folders: what each may name.

use std::collections::BTreeSet;
use std::fs;

use super::names::{from_root, named};
use super::{root, sources};

/// What of the crate `engine` its rooms may name, lowest first; what is not needed any more is taken off. `lib.rs` puts
/// the rooms together.
const LAYERS: [(&str, &[&str]); 18] = [
    ("config", &[]),
    ("guards", &[]),
    ("log_limit", &["crate::guards::"]),
    ("permits", &["crate::guards::"]),
    ("sync", &[]),
    ("sys", &["crate::guards::"]),
    ("driver", &["crate::config::Io", "crate::sys::"]),
    (
        "proto",
        &[
            "crate::config::",
            "crate::guards::",
            "crate::log_limit::",
            "crate::permits::Refusal",
            "crate::sync::",
        ],
    ),
    ("metrics", &["crate::guards::", "crate::sync::", "crate::sys::record_files"]),
    (
        "records",
        &[
            "crate::config::",
            "crate::guards::",
            "crate::metrics::",
            "crate::permits::",
            "crate::proto::",
            "crate::sys::record_files",
            "crate::sys::recorder::Recorded",
            "crate::sys::supervisor::MletStatus",
        ],
    ),
    (
        "view",
        &[
            "crate::config::",
            "crate::metrics::",
            "crate::permits::CampaignSums",
            "crate::records::",
            "crate::sys::cpu",
            "crate::sys::limits",
        ],
    ),
    ("run_error", &["crate::driver::RingError", "crate::sys::"]),
    (
        "mailbox",
        &[
            "crate::metrics::SessionPlaces",
            "crate::permits::",
            "crate::proto::experiments::Experiments",
            "crate::proto::session_end::Force",
            "crate::proto::mlet_facts::MletFacts",
            "crate::records::",
            "crate::run_error::RunError",
            "crate::sync::",
            "crate::sys::bell::Bell",
            "crate::sys::mlet_ends::MletEnds",
        ],
    ),
    (
        "mlet_request",
        &[
            "crate::config::",
            "crate::proto::mlet_facts::MletFacts",
            "crate::records",
            "crate::sys::recorder::",
            "crate::sys::supervisor::",
        ],
    ),
    (
        "shard",
        &[
            "crate::config::",
            "crate::driver::",
            "crate::guards::",
            "crate::mailbox::",
            "crate::metrics::",
            "crate::mlet_request::",
            "crate::permits::",
            "crate::proto::",
            "crate::records::",
            "crate::sys::mlet_ends::MletEnds",
        ],
    ),
    (
        "control",
        &[
            "crate::config::",
            "crate::driver::Backend",
            "crate::guards::",
            "crate::log_limit::",
            "crate::mailbox::",
            "crate::metrics::",
            "crate::mlet_request::",
            "crate::permits::",
            "crate::proto::",
            "crate::records::",
            "crate::run_error::",
            "crate::sys::",
            "crate::view::",
        ],
    ),
    (
        "engine",
        &[
            "crate::config::",
            "crate::control::",
            "crate::driver::",
            "crate::mailbox::",
            "crate::metrics::",
            "crate::permits",
            "crate::proto::",
            "crate::records::",
            "crate::run_error::",
            "crate::shard::",
            "crate::sys::",
            "crate::view::",
        ],
    ),
    (
        "bench",
        &[
            "crate::driver::",
            "crate::mailbox::",
            "crate::mlet_request::",
            "crate::proto::experiments::",
            "crate::random::",
            "crate::shard::",
            "crate::sys::mlet_ends::MletEnds",
        ],
    ),
];

/// What reaches beyond a thread's memory, by the beginning of its name, and each place in `engine/src` that may name it,
/// with the reason: a file, or a folder with a slash. A place that does not need it any more is taken off.
const OUTSIDE: [(&str, &[(&str, &str)]); 10] = [
    (
        "std::fs",
        &[
            ("control/mlets.rs", "the first line of a script that did not start"),
            ("control/trace/capture.rs", "the messages of sessions, a file each"),
            ("control/trace/pcap.rs", "the same for Wireshark"),
            ("metrics/interval_log.rs", "the file of relay latency"),
            ("records/journal.rs", "the files of records"),
            ("records/line_file.rs", "a file of lines"),
            ("records/results_folder.rs", "records beside the output of mlets"),
            ("sys/record_files.rs", "files of records"),
            ("sys/children.rs", "/proc/self/task"),
            ("sys/cpu.rs", "/proc/self/task"),
            ("sys/limits.rs", "/proc/self/fd, /dev/null"),
            ("sys/pipes.rs", "/proc/self/status, /proc/sys/fs/pipe-user-pages-soft"),
            ("sys/socket.rs", "/proc/sys/net/core/somaxconn"),
            ("sys/stdin.rs", "/dev/null"),
            ("sys/forked.rs", "/proc/self/task, /proc/self/fd"),
            ("sys/recorder/capture.rs", "the files of a mlet's output"),
            ("sys/recorder/keeping.rs", "the files of all mlets' output"),
            ("sys/recorder/process.rs", "/dev/null"),
            ("sys/recorder/tagged_stdout.rs", "standard output, opened again"),
            ("sys/supervisor/output.rs", "/dev/null"),
        ],
    ),
    (
        "std::thread",
        &[
            ("driver/uring.rs", "a pause until the kernel frees the memory of a ring that is gone"),
            ("control/reload.rs", "the thread that reads the configuration again"),
            ("control/trace.rs", "the thread that shows messages"),
            ("engine.rs", "the threads of shards"),
            ("metrics/interval_log.rs", "the thread that writes it"),
            ("records/journal.rs", "the thread that writes records"),
            ("shard/turn.rs", "yields while its last messages find no room"),
            ("sys/record_files.rs", "a pause until a pipe has a reader"),
            ("sys/children.rs", "a pause while children end"),
            ("sys/forked.rs", "a pause while a process ends"),
            ("sys/supervisor/to_recorder.rs", "a pause until the recorder takes what is left"),
        ],
    ),
    (
        "std::process",
        &[
            ("sys/parent.rs", "for programs that start the manager: a child that ends with them"),
            ("sys/supervisor/process.rs", "reads how a mlet ended"),
        ],
    ),
    ("std::env", &[]),
    (
        "std::net::Tcp",
        &[
            ("control/peer.rs", "connections to broker and proxy"),
            ("control/runtime.rs", "the same, given to the runtime"),
            ("engine.rs", "hands shards their listening sockets"),
            ("shard/listeners.rs", "the listening sockets of a shard"),
            ("shard/turn.rs", "takes them over"),
            ("sys/socket.rs", "makes them"),
        ],
    ),
    ("std::net::Udp", &[]),
    (
        "std::os::unix::net",
        &[
            ("sys/service_manager.rs", "tells the init system how the run is"),
            ("sys/socket.rs", "makes the socket between session and mlet"),
        ],
    ),
    (
        "socket2::",
        &[
            ("control/peer.rs", "our own address on a connection"),
            ("driver/", "whether a socket blocks, its peer, its end"),
            ("sys/service_manager.rs", "what the sockets of the init system are"),
            ("sys/socket.rs", "options of sockets"),
        ],
    ),
    (
        "tokio",
        &[
            ("control/", "the control thread's loop and its tasks"),
            ("sys/watch.rs", "a descriptor that its runtime watches"),
        ],
    ),
    ("io_uring::", &[("driver/uring.rs", "the ring")]),
];

/// What a folder must not name, by the beginnings of names.
const WALLS: [(&str, &[&str]); 22] = [
    (
        "engine/packetlab/src",
        &[
            "tokio",
            "nix::",
            "socket2",
            "io_uring",
            "std::net::Tcp",
            "std::net::Udp",
            "std::fs",
            "std::thread",
            "std::process",
            "std::env",
            "engine::",
        ],
    ),
    ("engine/packetlab/src/record", &["rustls", "crate::tls"]),
    ("engine/src", &["rustls::"]),
    ("engine/src/config/", &["nix::", "tracing::"]),
    ("engine/src/mailbox.rs", &["tracing::"]),
    ("engine/src/mailbox", &["tracing::", "nix::"]),
    ("engine/src/proto", &["nix::"]),
    ("engine/src/shard", &["nix::sys", "nix::poll", "nix::unistd"]),
    ("engine/src/metrics", &["nix::"]),
    ("engine/src/records", &["nix::"]),
    ("cli/src/results", &["engine::", "std::thread", "std::net", "std::process::Command"]),
    ("cli/src/page", &["engine::", "std::thread", "std::net", "std::process", "std::fs"]),
    ("cli/src/report_page", &["engine::", "std::thread", "std::net", "std::process"]),
    (
        "engine/campaign/src",
        &["engine::", "packetlab::", "nix::", "std::fs", "std::process", "std::env"],
    ),
    (
        "engine/campaign/src/machine",
        &["tokio", "rustls", "std::thread", "std::net", "crate::statements"],
    ),
    ("engine/home/src", &["tokio", "engine::", "rustls::"]),
    ("engine/command-line/src", &["tokio", "engine::", "packetlab::", "rustls::"]),
    (
        "engine/monitor-module/src",
        &["tokio", "wasmtime::", "std::fs", "std::thread", "std::net", "std::env", "engine::"],
    ),
    ("loadtest/hosts/src", &["wasmtime::", "wasmparser::"]),
    (
        "loadtest/hosts/monitors/src",
        &[
            "tokio::net",
            "std::fs",
            "std::net::Tcp",
            "std::net::Udp",
            "std::process",
            "std::env",
            "nix::",
            "tracing::",
            "engine::",
            "hosts::",
        ],
    ),
    ("loadtest/mlet/src", &["tokio", "engine::", "hosts::", "rustls"]),
    ("loadtest/mlet-tls/src", &["tokio", "engine::", "hosts::", "std::net::Tcp"]),
];

/// The files of `engine/src` as they are named from there on, without those of tests, and what each names.
fn engine_files() -> Vec<(String, Vec<(usize, String)>)> {
    let source = root().join("engine/src");
    let files = sources(&source).into_iter().map(|(path, text)| {
        let file = path.strip_prefix(&source).expect("below engine/src").display().to_string();
        let modules = file.trim_end_matches(".rs").trim_end_matches("/mod");
        let modules = modules.split('/').collect::<Vec<_>>();
        let names = named(&text).into_iter();
        let names = names.map(|(line, name)| (line, from_root(&modules, &name))).collect();
        (file, names)
    });
    let is_test =
        |file: &str| ["tests", "driver/simulated", "random"].iter().any(|part| file.contains(part));
    files.filter(|(file, _)| !is_test(file)).collect()
}

#[test]
fn rooms_of_the_engine_name_only_what_lies_below_them() {
    let mut needed = BTreeSet::new();
    for (file, names) in engine_files() {
        let room = file.trim_end_matches(".rs").split('/').next().unwrap_or_default();
        if room == "lib" {
            continue;
        }
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == room) else {
            panic!("{file} is in no room that is known; say what it may name");
        };
        let own = format!("crate::{room}::");
        for (line, name) in names.iter().filter(|(_, name)| name.starts_with("crate::")) {
            let permission = allowed.iter().find(|allowed| name.starts_with(**allowed));
            assert!(
                permission.is_some() || name.starts_with(&own),
                "engine/src/{file}:{line} names {name}, which {room} must not"
            );
            needed.extend(permission.map(|allowed| (room.to_owned(), *allowed)));
        }
    }
    for (room, allowed) in LAYERS {
        for name in allowed {
            let is_needed = needed.contains(&(room.to_owned(), *name));
            assert!(is_needed, "{room} names no {name} any more: take it off");
        }
    }
}

#[test]
fn what_reaches_outside_is_named_in_its_places_alone() {
    let files = engine_files();
    assert!(files.len() > 60, "only {} files found", files.len());
    for (outside, places) in OUTSIDE {
        let is_in = |file: &str, place: &str| {
            file == place || place.ends_with('/') && file.starts_with(place)
        };
        let mut needed = BTreeSet::<&(&str, &str)>::new();
        for (file, names) in &files {
            for (line, name) in names.iter().filter(|(_, name)| name.starts_with(outside)) {
                let place = places.iter().find(|(place, _)| is_in(file, place));
                assert!(place.is_some(), "engine/src/{file}:{line} names {name} and must not");
                needed.extend(place);
            }
        }
        for place in places {
            assert!(needed.contains(place), "{} names no {outside} any more: take it off", place.0);
        }
    }
}

#[test]
fn folders_do_not_name_what_is_walled_off() {
    let mut checked = 0;
    for (folder, forbidden) in WALLS {
        let path = root().join(folder);
        let files = match path.is_file() {
            true => vec![(path.clone(), fs::read_to_string(&path).expect("a readable text"))],
            false => sources(&path),
        };
        for (path, text) in files {
            let shown = path.strip_prefix(root()).expect("within the workspace").display();
            if shown.to_string().contains("tests") {
                continue;
            }
            checked += 1;
            for (number, name) in named(&text) {
                let is_forbidden = forbidden.iter().any(|wall| name.starts_with(wall));
                assert!(!is_forbidden, "{shown}:{number} names {name}, which {folder} must not");
            }
        }
    }
    assert!(checked > 100, "only {checked} files found");
}
