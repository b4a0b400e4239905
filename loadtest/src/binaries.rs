//! Finds the programs that `pktfleet` runs: those of one build lie in one directory.
//!
//! Not here: running them.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

/// A program that cannot be run.
#[derive(Debug)]
pub(crate) enum BinaryError {
    /// Our own path is unknown, so that "beside it" means nothing.
    OwnPath(io::Error),
    /// There is no executable file at this path.
    Missing {
        /// Where it was looked for.
        path: PathBuf,
        /// The option that names another place.
        option: &'static str,
        /// Why the file cannot be executed.
        cause: nix::Error,
    },
}

impl fmt::Display for BinaryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OwnPath(cause) => write!(
                f,
                "cannot find the directory of this program ({cause}); name the programs with --pktxpmgr and --mlet"
            ),
            Self::Missing { path, option, cause } => write!(
                f,
                "{} cannot be executed ({cause}); build it with `cargo build --release`, or say where it is with {option} PATH",
                path.display()
            ),
        }
    }
}

impl std::error::Error for BinaryError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::OwnPath(cause) => Some(cause),
            Self::Missing { cause, .. } => Some(cause),
        }
    }
}

/// The path of program `name`: `given` if there is one, else beside our own executable.
///
/// `option` is the command-line option that sets `given`, for the message.
///
/// # Errors
/// No executable file is there.
pub(crate) fn find(
    name: &str,
    given: Option<&Path>,
    option: &'static str,
) -> Result<PathBuf, BinaryError> {
    let path = match given {
        Some(path) => std::path::absolute(path).map_err(BinaryError::OwnPath)?,
        None => std::env::current_exe().map_err(BinaryError::OwnPath)?.with_file_name(name),
    };
    let missing = |cause| BinaryError::Missing { path: path.clone(), option, cause };
    access(&path, AccessFlags::X_OK).map_err(missing)?;
    // Directories are "executable" too.
    if path.is_dir() { Err(missing(nix::Error::EISDIR)) } else { Ok(path) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_path_wins() {
        let own = std::env::current_exe().unwrap();
        assert_eq!(find("other", Some(&own), "--mlet").unwrap(), own);
        assert_eq!(find("sh", Some(Path::new("/bin/sh")), "--mlet").unwrap(), Path::new("/bin/sh"));
    }

    #[test]
    fn a_program_is_looked_for_beside_our_own() {
        let own = std::env::current_exe().unwrap();
        let name = own.file_name().unwrap().to_str().unwrap();
        assert_eq!(find(name, None, "--mlet").unwrap(), own);
    }

    #[test]
    fn a_missing_program_says_how_to_get_it() {
        let error = find("no-such-program", None, "--pktxpmgr").unwrap_err().to_string();
        assert!(error.contains("no-such-program"), "{error}");
        assert!(error.contains("cargo build --release"), "{error}");
        assert!(error.contains("--pktxpmgr PATH"), "{error}");
    }

    #[test]
    fn directories_and_plain_files_are_not_programs() {
        assert!(find("x", Some(Path::new("/")), "--mlet").is_err());
        assert!(find("x", Some(Path::new("/etc/passwd")), "--mlet").is_err());
    }
}
