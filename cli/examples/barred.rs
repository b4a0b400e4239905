//! Becomes another program in which one system call is barred, as a sandbox bars it: for tests.
//!
//! `barred CALL ERRNO PROGRAM [ARGUMENT]...`, both numbers as the kernel counts them.

use std::collections::BTreeMap;
use std::env::args_os;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

fn main() -> ExitCode {
    let words: Vec<OsString> = args_os().skip(1).collect();
    let [call, errno, program, arguments @ ..] = &words[..] else { return ExitCode::from(2) };
    let number = |word: &OsString| word.to_str().and_then(|word| word.parse::<u32>().ok());
    let (Some(call), Some(errno)) = (number(call), number(errno)) else { return ExitCode::from(2) };
    if let Err(error) = bar(call, errno) {
        eprintln!("barred: {error}");
        return ExitCode::from(3);
    }
    eprintln!("barred: {}", Command::new(program).args(arguments).exec());
    ExitCode::from(4)
}

fn bar(call: u32, errno: u32) -> Result<(), seccompiler::Error> {
    // No condition: whatever its arguments are.
    let rules = BTreeMap::from([(i64::from(call), Vec::new())]);
    let architecture = std::env::consts::ARCH.try_into()?;
    let (otherwise, barred) = (SeccompAction::Allow, SeccompAction::Errno(errno));
    let filter = SeccompFilter::new(rules, otherwise, barred, architecture)?;
    let program: BpfProgram = filter.try_into()?;
    apply_filter(&program)
}
