//! Why a file cannot be executed, in words that say what to do.
//!
//! Not here: how that is found out.

use std::fmt;
use std::io;

/// This machine, in words.
pub(super) const OUR_NAME: &str = if cfg!(target_arch = "x86_64") {
    "x86-64"
} else if cfg!(target_arch = "aarch64") {
    "AArch64"
} else {
    std::env::consts::ARCH
};

/// What the kernel reads of a script to find its interpreter, `#!` included.
pub(super) const SCRIPT_START_LEN: usize = 256;

/// Why a file cannot be executed.
#[derive(Debug)]
pub(crate) enum Flaw {
    /// It is not there, or cannot be reached.
    Unreachable(io::Error),
    /// A directory, a device or the like.
    NotRegular,
    /// Nobody, or not this user, may execute it.
    NotExecutable,
    /// It has no bytes.
    Empty,
    /// Neither a script nor an ELF file.
    UnknownFormat,
    /// The `#!` line ends in CR LF, so that the kernel takes the CR for a part of a name.
    CarriageReturn,
    /// A byte order mark stands before `#!`.
    ByteOrderMark,
    /// The `#!` line names nothing.
    NoInterpreter,
    /// The kernel reads only a part of the interpreter's name.
    LineTooLong,
    /// ELF of another processor.
    Foreign {
        /// Of which, in words.
        machine: String,
    },
    /// An ELF file whose headers are cut or make no sense.
    Damaged,
    /// An ELF file that is an object file or a dump.
    NoProgram,
    /// The `#!` line names env(1), and that will not find this program.
    NotFoundByEnv {
        /// Its name, escaped.
        name: String,
    },
    /// What the `#!` line names cannot be executed.
    Interpreter {
        /// Its name, escaped.
        path: String,
        /// Why not.
        flaw: Box<Self>,
    },
    /// The loader that an ELF program names cannot be executed.
    Loader {
        /// Its name, escaped.
        path: String,
        /// Why not.
        flaw: Box<Self>,
    },
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(error) => error.fmt(f),
            Self::NotRegular => f.write_str("it is not a regular file"),
            Self::NotExecutable => f.write_str("it is not executable; chmod +x it"),
            Self::Empty => f.write_str("it is empty"),
            Self::UnknownFormat => f.write_str(
                "it is no ELF program, and no script with a first line such as #!/bin/sh; write one",
            ),
            Self::CarriageReturn => f.write_str(
                "its first line ends in a carriage return, which is taken for a part of a name; \
                 save it with the line ends of Unix",
            ),
            Self::ByteOrderMark => f.write_str(
                "a byte order mark (BOM) stands before its #!, so that it is no script; save it as \
                 UTF-8 without one",
            ),
            Self::NoInterpreter => f.write_str(
                "its first line names no interpreter behind #!; write one, as in #!/bin/sh",
            ),
            Self::LineTooLong => write!(
                f,
                "its first line names an interpreter that does not end within {} bytes, which is \
                 all the kernel reads; shorten it",
                SCRIPT_START_LEN
            ),
            Self::NotFoundByEnv { name } => write!(
                f,
                "env, which its first line names, does not find '{name}': mlets have no PATH; \
                 write the whole path of the interpreter, without env"
            ),
            Self::Foreign { machine } => write!(
                f,
                "it is a program for {machine}, and this machine is {}; build it for this one",
                OUR_NAME
            ),
            Self::Damaged => {
                f.write_str("its ELF headers are damaged or cut; build or copy it again")
            }
            Self::NoProgram => f.write_str("it is an ELF file and no program; link it to one"),
            Self::Interpreter { path, flaw } => {
                write!(f, "the interpreter {path} of its first line cannot be used: {flaw}")
            }
            Self::Loader { path, flaw } => write!(
                f,
                "the loader {path} that it was linked for cannot be used: {flaw}; install that \
                 loader, or link the program statically"
            ),
        }
    }
}

impl std::error::Error for Flaw {}
