//! Instructions, counted by callgrind.
//!
//! The processor that a program sees under valgrind is valgrind's own, but what that can do depends on the machine and on
//! valgrind (AVX2, RDRAND), and aws-lc and libc choose their code by it. Signatures take more or fewer additions by what is
//! signed, and C code is compiled by whatever compiler is there. So instructions in C and assembly are told, and only those
//! in Rust are to be held to anything: a signature that is checked twice does not show in them. They were the same to 0.1% in
//! repeated runs. They depend on the Rust compiler: with another one the file is renewed.
//!
//! How often functions call one another is not read: callgrind counts calls also while it collects nothing.
//!
//! Not here: ceilings. Invariant: a function is in Rust if its name is a path. Callgrind collects a few instructions of what it
//! was told to leave out, at its edges; these are known by the names of the simulated driver.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What callgrind collected.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Collected {
    /// Instructions in functions in Rust.
    pub(crate) rust: u64,
    /// Instructions in C and assembly.
    pub(crate) c: u64,
}

/// Builds the program that is run, optimised, and gives its path.
pub(crate) fn build() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let words =
        "build --release --locked --workspace --example session-steps --message-format json";
    let built = Command::new(cargo).args(words.split(' ')).output().expect("cargo");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let messages = String::from_utf8(built.stdout).expect("JSON");
    let messages = messages.lines().map(|line| serde_json::from_str(line).expect("JSON"));
    let executable = |message: serde_json::Value| Some(message["executable"].as_str()?.into());
    messages.filter_map(executable).next_back().expect("cargo tells where the program is")
}

/// Takes a step so many times under callgrind.
pub(crate) fn collect(program: &Path, step: &str, times: u64) -> Collected {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("callgrind.{step}"));
    let ended = Command::new("timeout")
        .args(["300", "valgrind", "--tool=callgrind"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .args(["counted_turn", "set_apart"].map(|f| format!("--toggle-collect=session_steps::{f}")))
        .arg(program)
        .args([step, &times.to_string()])
        .output()
        .expect("valgrind, which is a package of that name");
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let collected = read(&std::fs::read_to_string(out).expect("what callgrind wrote"));
    assert!(collected.rust > 0 && collected.c > 0, "nothing was collected: {collected:?}");
    collected
}

/// Where a function belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rust,
    C,
    /// It stands for the kernel.
    Simulated,
}

impl Kind {
    fn of(name: &str) -> Self {
        let is_simulated = |part| name.contains(part);
        match name.contains("::") {
            true if ["driver::simulated::", "::counting_driver::"]
                .into_iter()
                .any(is_simulated) =>
            {
                Self::Simulated
            }
            true => Self::Rust,
            false => Self::C,
        }
    }
}

/// Sums a file of callgrind's. A name is told with its number once, and later the number alone; the line behind `calls=` is
/// what the called function took, which is told at that function too.
fn read(text: &str) -> Collected {
    let mut kinds = HashMap::new();
    let mut kind = |entry| {
        let (number, name) = split_name(entry);
        let told = || Kind::of(name.expect("a number is told with its name first"));
        *kinds.entry(number).or_insert_with(told)
    };
    let mut collected = Collected::default();
    let (mut current, mut is_of_call) = (Kind::C, false);
    for line in text.lines() {
        if let Some(entry) = line.strip_prefix("fn=") {
            current = kind(entry);
        } else if let Some(entry) = line.strip_prefix("cfn=") {
            kind(entry);
        } else if line.starts_with("calls=") {
            is_of_call = true;
        } else if line.starts_with(|c: char| c.is_ascii_digit() || "+-*".contains(c)) {
            let cost = line.split(' ').nth(1).and_then(|cost| cost.parse::<u64>().ok());
            let cost = cost.expect("a line of costs has one");
            match current {
                _ if std::mem::take(&mut is_of_call) => {}
                Kind::Rust => collected.rust += cost,
                Kind::C => collected.c += cost,
                Kind::Simulated => {}
            }
        }
    }
    collected
}

/// `(12) name`, or `(12)` alone.
fn split_name(entry: &str) -> (&str, Option<&str>) {
    entry.split_once(' ').map_or((entry, None), |(number, name)| (number, Some(name)))
}

#[test]
fn instructions_are_summed_by_the_language_of_their_function() {
    let text = "events: Ir\nfn=(1) engine::f\n16 400\n+3 7\ncfn=(2) memcpy\ncalls=5 0\n* 90\n* 2\n\
        fn=(2)\n0 90\ncfn=(3) free\ncalls=3 0\n0 1\nfn=(3)\n0 1\nfn=(4) <a as b::C>::d\n-2 30\n\
        cfn=(1)\ncalls=8 0\n* 9\ncfi=(2) x.c\ncfn=(3)\ncalls=2 7\n+1 4\n\
        fn=(5) engine::driver::simulated::kernel::g\n3 50\ncfn=(3)\ncalls=1 7\n+1 4\n\ntotals: 580\n";
    assert_eq!(read(text), Collected { rust: 439, c: 91 });
}
