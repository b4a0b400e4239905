//! Starting one mlet, with exactly what its contract says (spec/pktxpmgr.md 7.4, changed by behaviour.md "Mlets").

use std::ffi::{CStr, CString, NulError, OsStr, OsString};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::libc;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::Pid;

use super::output::{self, MletOutput, Opened, Pair};
use crate::guards::{Guard, holds};
use crate::sys::children::Graces;
use crate::sys::mlet_ends::MletEnds;

/// For [`Lack`](crate::sys::lack::Lack): what a mlet's process takes.
pub const STARTING_A_MLET: &str = "start a process for a mlet (clone3, execve)";

/// The descriptors of the pipes that a mlet is offered, and how it is told of them.
const PIPE_READ_FILENO: i32 = 3;
const PIPE_WRITTEN_FILENO: i32 = 4;
const PIPES_VARIABLE: &CStr = c"PKTLAB_PIPES=3,4";

/// The program every session gets an instance of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MletCommand {
    /// Its file, never searched in PATH. `#!` scripts work.
    pub path: PathBuf,
    /// Its arguments without the zeroth, which is the text after the last `/` of the path.
    pub arguments: Vec<OsString>,
    /// What mlets are given that are left when the manager is gone.
    pub graces: Graces,
    /// What every mlet finds in its environment, beside what it is asked for with.
    pub environment: Vec<(String, OsString)>,
    /// The folder below which [`MletOutput::Folder`] is, if there is one; absolute. It need not be there yet.
    pub results: Option<PathBuf>,
}

impl MletCommand {
    /// A mlet without arguments and variables, and without a results folder.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, graces: Graces) -> Self {
        let (arguments, environment) = (Vec::new(), Vec::new());
        Self { path: path.into(), arguments, graces, environment, results: None }
    }
}

/// The mlet's program, its arguments and the variables of all mlets in the form the kernel takes.
#[derive(Debug)]
pub(super) struct Program {
    path: CString,
    arguments: Vec<CString>,
    variables: Vec<CString>,
}

impl Program {
    /// Refuses only what no program can be given: a NUL.
    pub(super) fn new(command: &MletCommand) -> Result<Self, NulError> {
        let path = command.path.as_os_str().as_bytes();
        let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or(path);
        let words = command.arguments.iter().map(|word| OsStr::as_bytes(word));
        let arguments =
            std::iter::once(name).chain(words).map(CString::new).collect::<Result<_, _>>()?;
        let variables = command
            .environment
            .iter()
            .map(|(name, value)| CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()));
        let variables = variables.collect::<Result<_, _>>()?;
        Ok(Self { path: CString::new(path)?, arguments, variables })
    }
}

/// Starts mlets from this process.
#[derive(Debug)]
pub(super) struct Spawner {
    program: Program,
    attributes: PosixSpawnAttr,
    pub(super) results: PathBuf,
}

impl Spawner {
    /// SIGPIPE is left as it is here, which must be ignored.
    pub(super) fn new(program: Program, results: PathBuf) -> Result<Self, Errno> {
        let mut defaults = SigSet::all();
        defaults.remove(Signal::SIGPIPE);
        let mut attributes = PosixSpawnAttr::init()?;
        attributes.set_sigdefault(&defaults)?;
        attributes.set_sigmask(&SigSet::empty())?;
        // 0: a group of its own, with the mlet's own number.
        attributes.set_pgroup(Pid::from_raw(0))?;
        attributes.set_flags(
            PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF
                | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK
                | PosixSpawnFlags::POSIX_SPAWN_SETPGROUP,
        )?;
        Ok(Self { program, attributes, results })
    }

    /// Starts one mlet on `ends` and returns when its exec has succeeded or failed. They are closed here
    /// either way, or their other ends would not see the mlet close them. Beside the process are what the recorder is to read, if
    /// it is, or why its output is thrown away instead: no full disk keeps a mlet from running.
    pub(super) fn spawn(
        &self,
        environment: &[(String, String)],
        (output, has_recorder): (&MletOutput, bool),
        ends: MletEnds,
    ) -> Result<(Pid, Result<Option<Pair>, Errno>), Errno> {
        let mut variables = self.program.variables.clone();
        variables.extend(ends.pipes.is_some().then(|| PIPES_VARIABLE.to_owned()));
        for (name, value) in environment {
            variables.push(CString::new(format!("{name}={value}")).map_err(|_| Errno::EINVAL)?);
        }
        let (of_mlet, kept) = match output::open(output, &self.results, has_recorder) {
            Ok(Opened { of_mlet, read_ends }) => (of_mlet, Ok(read_ends)),
            Err(error) => (Some(output::discarded().map_err(errno_of)?), Err(errno_of(error))),
        };
        let mut actions = PosixSpawnFileActions::init()?;
        actions.add_dup2(ends.socket.as_raw_fd(), libc::STDIN_FILENO)?;
        if let Some([stdout, stderr]) = &of_mlet {
            actions.add_dup2(stdout.as_raw_fd(), libc::STDOUT_FILENO)?;
            actions.add_dup2(stderr.as_raw_fd(), libc::STDERR_FILENO)?;
        }
        if let Some([reads, writes]) = &ends.pipes {
            // In this order: numbers of descriptors that come together rise in their order, so what the mlet writes to is not
            // where the first one goes.
            actions.add_dup2(reads.as_raw_fd(), PIPE_READ_FILENO)?;
            actions.add_dup2(writes.as_raw_fd(), PIPE_WRITTEN_FILENO)?;
        }
        let Program { path, arguments, .. } = &self.program;
        let pid = posix_spawn(path.as_c_str(), &actions, &self.attributes, arguments, &variables)?;
        Ok((pid, kept))
    }

    /// Makes a process that finds no program to become: whether one can be made at all.
    pub(super) fn prove(&self) -> Result<(), Errno> {
        if !holds(Guard::TriesToStart) {
            return Ok(());
        }
        let actions = PosixSpawnFileActions::init()?;
        let nothing: [CString; 0] = [];
        // No program has the empty name.
        match posix_spawn(c"", &actions, &self.attributes, &nothing, &nothing) {
            Ok(_) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(errno),
        }
    }
}

fn errno_of(error: io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(path: &str, words: &[&str]) -> Option<Vec<String>> {
        let arguments = words.iter().map(Into::into).collect();
        let command = MletCommand { arguments, ..MletCommand::new(path, Graces::NONE) };
        let program = Program::new(&command).ok()?;
        Some(program.arguments.into_iter().map(|word| word.into_string().unwrap()).collect())
    }

    /// Item 79.
    #[test]
    fn the_first_argument_is_the_text_after_the_last_slash() {
        assert_eq!(arguments("/opt/mlets/ping", &["-c", "3"]).unwrap(), ["ping", "-c", "3"]);
        assert_eq!(arguments("./ping", &[]).unwrap(), ["ping"]);
        assert_eq!(arguments("ping", &[]).unwrap(), ["ping"]);
    }

    #[test]
    fn a_nul_in_path_or_argument_is_refused() {
        assert_eq!(arguments("/opt/pi\0ng", &[]), None);
        assert_eq!(arguments("/opt/ping", &["\0"]), None);
    }
}
