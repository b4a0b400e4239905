//! Reads the sources: the walls between the folders, what every file owes its reader, and where citations lead.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use guards::Guard;

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
    ("std::process", &[("sys/supervisor/process.rs", "reads how a mlet ended")]),
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

/// Traces of work that is not done. Joined here so that this file does not find itself.
const LEFTOVERS: [&str; 5] = [
    concat!("to", "do!("),
    concat!("unimple", "mented!("),
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
];

/// Where a Debug form stands in the code of a program, and why no user ever sees it.
const DEBUG_FORMS: [(&str, &str, &str); 3] = [
    ("engine/packetlab/src/tls/alert.rs", "words(&format!(\"{named:?}\"))", "made into words"),
    ("engine/src/shard/turn.rs", "unreachable!", "a fault of ours, told to whoever mends it"),
    ("engine/packetlab/src/program.rs", "\"Program({:?}", "the Debug form of a program itself"),
];

fn root() -> PathBuf {
    let engine = Path::new(env!("CARGO_MANIFEST_DIR"));
    engine.parent().expect("the engine lies in the workspace").to_owned()
}

fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    files(folder, "rs")
}

fn files(folder: &Path, ending: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else { return found };
    for path in entries.map(|entry| entry.expect("a readable folder").path()) {
        if path.is_dir() && !path.ends_with("target") {
            found.extend(files(&path, ending));
        } else if path.extension().is_some_and(|extension| extension == ending) {
            let text = fs::read_to_string(&path).expect("a readable text");
            found.push((path, text));
        }
    }
    found
}

fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_code = |(_, line): &(usize, &str)| !line.trim_start().starts_with("//");
    text.lines().enumerate().map(|(index, line)| (index + 1, line)).filter(is_code)
}

/// What the code of a file names by a path, with line numbers, up to the tests at its end: `use std::{fs, io};` names
/// `std::fs` and `std::io`.
fn named(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut lines = code_lines(text).take_while(|(_, line)| *line != "mod tests {");
    while let Some((number, line)) = lines.next() {
        let line = line.trim_start();
        let item = line
            .strip_prefix("pub")
            .map_or(line, |line| line.split_once(") ").map_or(line, |(_, item)| item).trim_start());
        if line == "#[cfg(test)]" {
            lines.next();
        } else if let Some(start) = item.strip_prefix("use ") {
            let mut tree = start.to_owned();
            while !tree.contains(';') {
                let Some((_, more)) = lines.next() else { break };
                tree.push_str(more);
            }
            let names = names_in("", tree.split(';').next().unwrap_or_default());
            found.extend(names.into_iter().map(|name| (number, name)));
        } else {
            let is_name = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
            let names = line.split(|c| !is_name(c)).filter(|word| word.contains("::"));
            found.extend(names.map(|name| (number, name.to_owned())));
        }
    }
    found
}

/// The names in a tree of `use`, behind what stands before it.
fn names_in(before: &str, tree: &str) -> Vec<String> {
    let mut depth = 0;
    let branches = tree.split(|c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    });
    let branches = branches.map(str::trim).filter(|branch| !branch.is_empty());
    let names = branches.flat_map(|branch| match branch.split_once('{') {
        Some((path, rest)) => {
            let inner = rest.rsplit_once('}').map_or(rest, |(inner, _)| inner);
            names_in(&format!("{before}{}", path.trim()), inner)
        }
        None => vec![format!("{before}{branch}")],
    });
    names.collect()
}

/// A name from the root of its crate on, where it is given from the module `module` upwards.
fn from_root(module: &[&str], name: &str) -> String {
    let (mut above, mut rest) = (module.to_vec(), name);
    while let Some(behind) = rest.strip_prefix("super::") {
        above.pop();
        rest = behind;
    }
    match rest.len() == name.len() {
        true => name.to_owned(),
        false => [&["crate"], &above[..], &[rest]].concat().join("::"),
    }
}

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

#[test]
fn names_are_found_in_trees_and_from_any_module() {
    let text = "use std::{fs, io::{self, Read as _}};\npub(crate) use super::super::a::{\n    B,\n};\n\
                // std::env\n#[cfg(test)]\nuse c::D;\nfn f() -> super::G { std::thread::spawn(x) }\n\
                mod tests {\n    use h::I;\n";
    let names = named(text).into_iter().map(|(line, name)| (line, from_root(&["m", "n"], &name)));
    let expected = [
        (1, "std::fs"),
        (1, "std::io::self"),
        (1, "std::io::Read as _"),
        (2, "crate::a::B"),
        (8, "crate::m::G"),
        (8, "std::thread::spawn"),
    ];
    let names = names.collect::<Vec<_>>();
    assert_eq!(names.iter().map(|(at, name)| (*at, name.as_str())).collect::<Vec<_>>(), expected);
}

/// The crates that the library or program of this package is built from.
fn crates_of(package: &str, options: &[&str]) -> Vec<String> {
    let tree = cargo_tree(&[&["-e", "normal,build", "-p", package], options].concat());
    let names = tree.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned);
    names.collect::<BTreeSet<_>>().into_iter().collect()
}

fn cargo_tree(options: &[&str]) -> String {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let ended = Command::new(cargo)
        .args(["tree", "--locked", "--offline", "--prefix", "none"])
        .args(options)
        .current_dir(root())
        .output()
        .expect("cargo runs this test, and is there");
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    String::from_utf8_lossy(&ended.stdout).into_owned()
}

#[test]
fn no_program_is_built_with_a_door_of_benchmarks_or_fuzz_targets() {
    let has_door = |kinds: &str, package: &str, door: &str| {
        let kinds = format!("{kinds},features");
        let tree = cargo_tree(&["--workspace", "-i", package, "-e", &kinds]);
        tree.lines().any(|line| line.starts_with(&format!("{package} feature \"{door}\"")))
    };
    assert!(!has_door("normal,build", "engine", "bench"));
    assert!(has_door("normal,build,dev", "engine", "bench"), "it would be found");
    // Those of fuzz targets, which are in no build of the workspace.
    for package in ["engine", "hosts"] {
        assert!(!has_door("normal,build,dev", package, "fuzz"), "{package}");
    }
}

/// Each guard stands in the code once or more, in docs/reliability.md, and in the list of tests that miss it, in whose
/// place a test of that name is.
#[test]
fn every_guard_is_used_is_documented_and_has_a_test_that_misses_it() {
    let members = ["engine", "cli", "loadtest"].map(|member| sources(&root().join(member)));
    let texts: Vec<String> = members.into_iter().flatten().map(|(_, text)| text).collect();
    let page = fs::read_to_string(root().join("docs/reliability.md")).expect("a readable page");
    let list = include_str!("../guards/tests.csv").lines().skip(1);
    let listed: Vec<Vec<&str>> = list.map(|line| line.split(',').collect()).collect();
    let names = Guard::ALL.iter().map(|guard| guard.name()).collect::<Vec<_>>();
    assert_eq!(listed.iter().map(|row| row[0]).collect::<Vec<_>>(), names, "each once, in order");
    for row in listed {
        let [guard, package, program, test] = row[..] else { panic!("{row:?}") };
        let is_used = texts.iter().any(|text| text.contains(&format!("(Guard::{guard})")));
        assert!(is_used, "nothing asks whether {guard} holds");
        assert!(page.contains(&format!("`{guard}`")), "docs/reliability.md has no {guard}");
        let folder = root().join(match package {
            "cli" => "cli",
            "engine" => "engine",
            _ => "engine/packetlab",
        });
        let (path, name) = test.rsplit_once("::").unwrap_or(("", test));
        let parts = path.split("::").filter(|part| !part.is_empty());
        let place = match program {
            "lib" => parts.fold(folder.join("src"), |place, part| place.join(part)),
            program => folder.join("tests").join(program),
        };
        // Short ones stand at the end of what they test.
        let is_there = place.ancestors().take(2).any(|place| {
            let text = fs::read_to_string(place.with_extension("rs")).unwrap_or_default();
            text.contains(&format!("fn {name}("))
        });
        assert!(is_there, "{guard}: {} has no test {name}", place.display());
    }
}

#[test]
fn nothing_lacks_a_guard_unless_that_is_asked_for() {
    let can_lack = |options: &[&str]| {
        let tree =
            cargo_tree(&[&["--workspace", "-i", "guards", "-e", "features"], options].concat());
        tree.lines().any(|line| line.starts_with("guards feature \"sabotage\""))
    };
    assert!(!can_lack(&[]));
    assert!(can_lack(&["--features", "guards/sabotage"]), "it would be found");
}

#[test]
fn a_mlet_is_built_from_few_crates_and_without_tls_or_an_async_runtime() {
    let library = ["bitflags", "linux-raw-sys", "mlet", "packetlab", "rustix"];
    assert_eq!(crates_of("mlet", &["--no-default-features"]), library);
    let examples = crates_of("mlet", &[]);
    assert!(examples.len() < 50, "{} crates: {examples:?}", examples.len());
    for heavy in ["aws-lc-rs", "aws-lc-sys", "rustls", "tokio", "x509-parser", "engine"] {
        assert!(!examples.iter().any(|name| name == heavy), "a mlet depends on {heavy}");
    }
    let pktfleet = crates_of("loadtest", &[]);
    assert!(pktfleet.iter().any(|name| name == "aws-lc-sys"), "it would be found: {pktfleet:?}");
}

#[test]
fn every_file_says_what_it_is_and_nothing_is_left_over() {
    let mut checked = 0;
    for member in ["engine", "cli", "loadtest", "bench"] {
        for (path, text) in sources(&root().join(member)) {
            checked += 1;
            let shown = path.display();
            assert!(
                text.starts_with("//!") || text.starts_with("#!"),
                "{shown} does not begin with //!"
            );
            for leftover in LEFTOVERS {
                assert!(!text.contains(leftover), "{shown} holds {leftover}");
            }
        }
    }
    assert!(checked > 60, "only {checked} files found");
}

#[test]
fn unsafe_code_lives_in_three_rooms_alone_and_gives_its_reason() {
    // The last is code for the memory of a monitor program.
    let rooms =
        ["engine/src/sys", "engine/src/driver/uring.rs", "loadtest/hosts/monitors/guest/src"];
    let mut reasons = [0; 3];
    for member in ["engine", "cli", "loadtest", "bench"] {
        for (path, text) in sources(&root().join(member)) {
            for (number, _) in code_lines(&text).filter(|(_, line)| is_unsafe(line)) {
                let room = rooms.iter().position(|room| path.starts_with(root().join(room)));
                let room = room.unwrap_or_else(|| panic!("{}:{number} is unsafe", path.display()));
                let before = text.lines().take(number - 1).collect::<Vec<_>>();
                let gives_reason =
                    |line: &&str| line.contains("SAFETY:") || line.contains("/// # Safety");
                assert!(
                    before.iter().rev().take(4).any(gives_reason),
                    "{}:{number} gives no SAFETY reason",
                    path.display()
                );
                reasons[room] += 1;
            }
        }
    }
    assert!(reasons.iter().all(|reasons| *reasons > 1), "found in each room: {reasons:?}");
}

/// A line of code that takes the compiler's checks away: the word itself outside of texts, and foreign functions, which
/// older editions declare without it.
fn is_unsafe(line: &str) -> bool {
    let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let code = line.split("//").next().unwrap_or_default();
    code.starts_with("extern \"C\" {")
        || code.match_indices(concat!("un", "safe")).any(|(at, word)| {
            let (before, behind) = (&code[..at], &code[at + word.len()..]);
            let is_text = before.matches('"').count() % 2 == 1;
            !is_text && !is_part(before.chars().next_back()) && !is_part(behind.chars().next())
        })
}

#[test]
fn unsafe_code_is_known_from_other_code() {
    for form in [
        "    let x = un! { call() };",
        "pub un! fn at(ip: *const u8) -> Self {",
        "        pub un! extern \"C\" fn check(",
        "un! extern \"C\" {",
        "extern \"C\" {",
        "#[un!(no_mangle)]",
        "un! impl Send for X {}",
        "    let x = un!",
    ] {
        assert!(is_unsafe(&form.replace("un!", concat!("un", "safe"))), "{form}");
    }
    for form in [
        "#[allow(un!_code)]",
        "#![forbid(un!_code)]",
        "let x = 1; // un! if there are two",
        "println!(\"un! {}\", x);",
        "fn un!_code_is_known() {",
    ] {
        assert!(!is_unsafe(&form.replace("un!", concat!("un", "safe"))), "{form}");
    }
}

/// Forms for programmers: `{:?}` of a format string, `?error` of a log line, an error that leaves `main`.
/// Tests may use them.
#[test]
fn no_program_prints_debug_forms() {
    let mut checked = 0;
    for folder in [
        "engine/packetlab/src",
        "engine/guards/src",
        "engine/home/src",
        "engine/campaign/src",
        "engine/command-line/src",
        "engine/monitor-module/src",
        "engine/src",
        "cli/src",
        "loadtest/src",
        "loadtest/hosts/src",
        "loadtest/hosts/monitors/src",
        "loadtest/mlet/src",
        "loadtest/mlet-tls/src",
        "bench/src",
    ] {
        for (path, text) in sources(&root().join(folder)) {
            let shown =
                path.strip_prefix(root()).expect("within the workspace").display().to_string();
            if shown.contains("/tests/") || shown.ends_with("/tests.rs") {
                continue;
            }
            checked += 1;
            let allowed = |line: &str| {
                DEBUG_FORMS.iter().any(|(file, part, _)| *file == shown && line.contains(part))
            };
            for (number, line) in code_lines(&text).take_while(|(_, line)| *line != "mod tests {") {
                assert!(
                    !is_debug_form(line) || allowed(line),
                    "{shown}:{number} shows a Debug form: {line}"
                );
            }
        }
    }
    assert!(checked > 60, "only {checked} files found");
}

fn is_debug_form(line: &str) -> bool {
    let is_format = |(at, _): (usize, &str)| {
        let braces = line.get(..at).unwrap_or_default().rsplit('{').next().unwrap_or_default();
        line.contains('{') && braces.contains(':') && !braces.contains('}')
    };
    let formats = line.match_indices("?}").any(is_format) || line.contains("dbg!(");
    // In code a question mark stands behind something; in front of a name it is the sigil of tracing.
    let is_sigil = |(at, _): (usize, &str)| {
        let before = line.get(..at).and_then(|text| text.chars().next_back());
        let behind = line.get(at + 1..).and_then(|text| text.chars().next());
        before.is_none_or(|c| "(, =".contains(c)) && behind.is_some_and(|c| c.is_ascii_lowercase())
    };
    formats || line.match_indices('?').any(is_sigil) || line.contains("fn main() -> Result")
}

#[test]
fn debug_forms_are_known_from_other_code() {
    for line in [
        r#"write!(f, "failed: {error:?}")"#,
        r#"println!("{:#?}", x);"#,
        r#"println!("{x:>8?} {:02x?}", y);"#,
        "tracing::warn!(?error, name)",
        "debug!(cause = ?error.kind());",
        "fn main() -> Result<(), Error> {",
    ] {
        assert!(is_debug_form(line), "{line}");
    }
    for line in ["let x = f()?;", "where T: ?Sized,", r#"say("what? {name}")"#, "a?.b?", "x? y"] {
        assert!(!is_debug_form(line), "{line}");
    }
}

/// docs/contributing.md "Citations". The specification itself is left out: it cites what its authors read.
#[test]
fn every_citation_names_a_page_and_a_heading_that_is_there() {
    let docs = root().join("docs");
    let pages = files(&docs, "md").into_iter().map(|(path, text)| {
        let name = path.strip_prefix(&docs).expect("below docs").display().to_string();
        (name, headings(&text))
    });
    let pages = pages.collect::<HashMap<_, _>>();
    let members = ["engine", "cli", "loadtest", "bench"];
    let texts = members.into_iter().flat_map(|member| sources(&root().join(member)));
    let mut checked = 0;
    for (path, text) in texts.chain(files(&docs, "md")) {
        // Below, citations are wrong on purpose.
        if path.ends_with("tests/tidy.rs") || path.starts_with(docs.join("spec")) {
            continue;
        }
        for citation in citations(&text) {
            checked += 1;
            assert_eq!(fault_of(&citation, &pages), None, "{}", path.display());
        }
    }
    assert!(checked > 200, "only {checked} citations found");
}

/// What may be cited of a page: the numbers of its sections, and its headings as they are read.
fn headings(page: &str) -> Vec<String> {
    let lines = page.lines().filter(|line| line.starts_with('#'));
    let headings = lines.map(|line| line.trim_start_matches('#').trim().replace('`', ""));
    let number = |heading: &str| {
        let first = heading.split(' ').next().unwrap_or_default().trim_end_matches('.').to_owned();
        first.starts_with(|c: char| c.is_ascii_digit()).then_some(first)
    };
    headings.flat_map(|heading| number(&heading).into_iter().chain([heading])).collect()
}

/// A page as it is named, and the place in it if one is.
type Citation = (String, Option<String>);

/// Every page that a text names with a place, or by a path from docs on. A line may end within a citation.
fn citations(text: &str) -> Vec<Citation> {
    let words = text.lines().map(|line| line.trim().trim_start_matches(['/', '!']).trim());
    let text = words.collect::<Vec<_>>().join(" ");
    let mut found = Vec::new();
    for (at, ending) in text.match_indices(".md") {
        let (before, behind) = (&text[..at], &text[at + ending.len()..]);
        let is_path = |c: char| c.is_ascii_alphanumeric() || "/_-".contains(c);
        let page = format!("{}.md", before.rsplit(|c| !is_path(c)).next().unwrap_or_default());
        let places = places(behind);
        if places.is_empty() && (page.starts_with("docs/") || page.starts_with("spec/")) {
            found.push((page, None));
        } else {
            found.extend(places.into_iter().map(|place| (page.clone(), Some(place))));
        }
    }
    found
}

/// The heading in quotation marks, or the numbers as far as they go on (`1.3, 1.4`; `4.5 to 4.7`), behind a page.
fn places(behind: &str) -> Vec<String> {
    let Some(behind) = behind.strip_prefix(' ') else { return Vec::new() };
    if let Some((heading, _)) = behind.strip_prefix('"').and_then(|rest| rest.split_once('"')) {
        return vec![heading.to_owned()];
    }
    let mut places = Vec::new();
    for word in behind.split(' ') {
        let number = word.trim_end_matches(|c: char| !c.is_ascii_digit());
        let is_number = number.starts_with(|c: char| c.is_ascii_digit())
            && number.chars().all(|c| c.is_ascii_digit() || c == '.');
        if is_number {
            places.push(number.to_owned());
        }
        let goes_on = is_number && ["", ","].contains(&&word[number.len()..]);
        if !goes_on && !["to", "and"].contains(&word) {
            break;
        }
    }
    places
}

fn fault_of((page, place): &Citation, pages: &HashMap<String, Vec<String>>) -> Option<String> {
    let Some(headings) = pages.get(page.trim_start_matches("docs/")) else {
        return Some(format!("{page} is not below docs"));
    };
    let place = place.as_ref().filter(|place| !headings.contains(place))?;
    Some(format!("{page} has no section or heading {place}"))
}

#[test]
fn wrong_citations_are_known_from_right_ones() {
    let page = "# 1. Messages\n## 1.4 Payloads [x.c: f]\n## 1.5 Lists\n## Counting: `-n`\n";
    let pages = HashMap::from([("spec/a.md".to_owned(), headings(page))]);
    for (text, faults) in [
        ("/// As said (spec/a.md 1.4, 1.5, and the mlet).", &[][..]),
        ("as docs/spec/a.md 1.4 to 1.5, step 9, has it", &[]),
        ("see spec/a.md \"Counting: -n\", [a.md](x/a.md) and CHANGES.md", &[]),
        ("/// (spec/a.md\n    /// 1, 1.9). 7 more", &["spec/a.md has no section or heading 1.9"]),
        ("// spec/a.md 1.4 and 1.6)", &["spec/a.md has no section or heading 1.6"]),
        ("`spec/a.md 2`", &["spec/a.md has no section or heading 2"]),
        ("spec/a.md \"Counting\"", &["spec/a.md has no section or heading Counting"]),
        ("(a.md 1.4)", &["a.md is not below docs"]),
        ("docs/b.md says so", &["docs/b.md is not below docs"]),
    ] {
        let found = citations(text);
        let found = found.iter().filter_map(|citation| fault_of(citation, &pages));
        assert_eq!(found.collect::<Vec<_>>(), faults, "{text}");
    }
}
