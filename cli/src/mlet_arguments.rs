//! `--check-mlet`: what a mlet says of its own arguments when it is asked for nothing else
//! (behaviour.md "What a mlet is asked before a run").
//!
//! Not here: whether its file can be executed (`mlet_file`). The invariant: only a mlet that says in the agreed words that
//! it takes its arguments is taken to do so, and one that does not end is ended.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use packetlab::escape::Escaped;

use crate::exit::{Exit, Failure};

/// Before its arguments: to judge them, and to do nothing else.
const CHECK_ARGS: &str = "--check-args";
/// What it prints, with exit code 0, if it takes them.
const ARGUMENTS_OK: &[u8] = b"arguments ok\n";
/// The exit code of a mlet that does not take them.
const USAGE_ERROR: i32 = 2;

/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes that are read of what it prints, and of what it complains of.
const OUTPUT_LEN_MAX: u64 = 4096;

/// What it has said.
struct Judgement {
    status: ExitStatus,
    printed: Vec<u8>,
    complaint: Vec<u8>,
}

/// Lets a mlet judge its arguments.
///
/// # Errors
/// It does not take them, or cannot judge them.
pub(crate) fn check(mlet: &Path, arguments: &[OsString]) -> Result<(), Failure> {
    let shown = Escaped(mlet.as_os_str().as_bytes()).to_string();
    let refuse =
        |problem: String| Err(Failure::new(Exit::Config, format!("the mlet {shown} {problem}")));
    let Judgement { status, printed, complaint } = match asked(mlet, arguments) {
        Ok(Some(judgement)) => judgement,
        Ok(None) => {
            let seconds = PATIENCE.as_secs();
            return refuse(format!(
                "did not judge its arguments within {seconds} s, and was killed"
            ));
        }
        Err(cause) => return refuse(format!("could not be asked about its arguments: {cause}")),
    };
    // The last says what is wrong, behind a call or a trace.
    let complaint =
        complaint.trim_ascii_end().rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
    let told = match complaint {
        b"" => String::new(),
        line => format!(": {}", Escaped(line)),
    };
    match (status.code(), status.signal()) {
        (Some(0), _) if printed == ARGUMENTS_OK => Ok(()),
        (Some(USAGE_ERROR), _) => refuse(format!("does not take its arguments{told}")),
        (Some(code), _) => refuse(format!(
            "does not judge its arguments (exit code {code}{told}); leave out --check-mlet"
        )),
        (None, signal) => refuse(format!(
            "was ended by signal {} while it judged its arguments{told}",
            signal.unwrap_or_default()
        )),
    }
}

/// Its answer; `None` if there is none in time.
fn asked(mlet: &Path, arguments: &[OsString]) -> io::Result<Option<Judgement>> {
    // A path, never searched in PATH. It finds the environment of a run without an endpoint: nothing.
    let path =
        if mlet.components().nth(1).is_none() { Path::new(".").join(mlet) } else { mlet.into() };
    let mut command = Command::new(path);
    command.arg(CHECK_ARGS).args(arguments).env_clear().process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn()?;
    let group = i32::try_from(child.id()).map(Pid::from_raw).map_err(io::Error::other)?;
    let (sender, answer) = mpsc::channel();
    thread::spawn(move || sender.send(heard(child)));
    if let Ok(judgement) = answer.recv_timeout(PATIENCE) {
        return judgement.map(Some);
    }
    // It is not waited for before its output ends, so that the group is still its own.
    let _ = killpg(group, Signal::SIGKILL);
    Ok(None)
}

/// What it says, up to its end.
fn heard(mut child: Child) -> io::Result<Judgement> {
    let complaint = read(child.stderr.take());
    let printed = read(child.stdout.take()).join().unwrap_or_default();
    let complaint = complaint.join().unwrap_or_default();
    Ok(Judgement { status: child.wait()?, printed, complaint })
}

fn read(output: Option<impl Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What came before an error is all that there is.
        let _ = output.map(|output| output.take(OUTPUT_LEN_MAX).read_to_end(&mut bytes));
        bytes
    })
}
