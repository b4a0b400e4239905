//! Secret files: private keys and the files with their passphrases.
//!
//! The invariant: bytes read here live only in buffers that are wiped when dropped.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use nix::unistd::geteuid;
use packetlab::escape::Escaped;
use packetlab::key::{KeyError, PrivateKey};
use packetlab_home::file::{self, Patient};
use zeroize::Zeroizing;

use crate::prompt::{self, PromptError};

/// Largest secret file. An encrypted key has about 300 bytes.
const SECRET_LEN_MAX: usize = 64 * 1024;
/// How long a pipe with a passphrase may say nothing: whoever writes into it may have to start first.
const PIPE_PATIENCE: Duration = Duration::from_secs(10);

/// Reads a private key. If it is encrypted the passphrase comes from `passphrase_file`, or else from
/// one prompt on the terminal.
///
/// # Errors
/// The key cannot be read, is open to others, or not to be had with this passphrase.
pub fn private_key(path: &Path, passphrase_file: Option<&Path>) -> Result<PrivateKey, SecretError> {
    let pem = read(path, file::open(path).map(Patient::from))?;
    match PrivateKey::from_pem(&pem, None) {
        Err(KeyError::PassphraseNeeded) => {}
        unencrypted => return unencrypted.map_err(SecretError::Key),
    }
    let passphrase = match passphrase_file {
        Some(file) => passphrase(file)?,
        None => {
            let shown = Escaped(path.as_os_str().as_bytes());
            prompt::ask(&format!("Passphrase for {shown}: ")).map_err(SecretError::Prompt)?
        }
    };
    PrivateKey::from_pem(&pem, Some(&passphrase)).map_err(SecretError::Key)
}

/// Reads a passphrase: the first line of a file, or of what comes out of a pipe.
///
/// # Errors
/// The file cannot be read, or is open to others.
pub fn passphrase(file: &Path) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    read(file, Patient::open(file, PIPE_PATIENCE)).map(first_line).map_err(|error| {
        SecretError::Passphrase {
            file: Escaped(file.as_os_str().as_bytes()).to_string(),
            error: error.into(),
        }
    })
}

fn first_line(mut text: Zeroizing<Vec<u8>>) -> Zeroizing<Vec<u8>> {
    let end = text.iter().position(|byte| *byte == b'\n').unwrap_or(text.len());
    text.truncate(end);
    if text.ends_with(b"\r") {
        text.truncate(end - 1);
    }
    text
}

/// Reads a file that only we and root may read.
fn read(path: &Path, opened: io::Result<Patient>) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let mut file = opened.map_err(SecretError::Io)?;
    check_owner_and_mode(file.file(), path)?;
    // Full length from the start: growing would leave copies behind that nobody wipes.
    let mut bytes = Zeroizing::new(vec![0; SECRET_LEN_MAX]);
    let mut len = 0;
    loop {
        let room =
            bytes.get_mut(len..).filter(|room| !room.is_empty()).ok_or(SecretError::TooLong)?;
        match file.read(room) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(SecretError::Io(error)),
        }
    }
    bytes.truncate(len);
    Ok(bytes)
}

/// Asks the opened file rather than its path, which could be exchanged in between. A group that may
/// read is only warned of: too strict checks make people copy keys around.
fn check_owner_and_mode(file: &File, path: &Path) -> Result<(), SecretError> {
    let found = file.metadata().map_err(SecretError::Io)?;
    if found.is_dir() {
        return Err(SecretError::Directory);
    }
    let (mode, owner, us) = (found.mode(), found.uid(), geteuid().as_raw());
    if mode & 0o006 != 0 {
        return Err(SecretError::OpenToOthers { mode: mode & 0o7777 });
    }
    if owner != us && owner != 0 {
        return Err(SecretError::ForeignOwner { owner, us });
    }
    if mode & 0o060 != 0 {
        let shown = Escaped(path.as_os_str().as_bytes());
        tracing::warn!("{shown}: its group may use this secret file too; chmod 600 it");
    }
    // Pipes, as of `--passphrase-file <(...)`, are in no directory.
    if found.is_file() { check_directory(path) } else { Ok(()) }
}

/// Whoever may write to the directory may exchange the file.
fn check_directory(path: &Path) -> Result<(), SecretError> {
    let real = path.canonicalize().map_err(SecretError::Io)?;
    let Some(directory) = real.parent() else { return Ok(()) };
    let mode = directory.metadata().map_err(SecretError::Io)?.mode();
    if mode & 0o002 != 0 && mode & 0o1000 == 0 {
        let directory = Escaped(directory.as_os_str().as_bytes()).to_string();
        return Err(SecretError::OpenDirectory { directory });
    }
    Ok(())
}

/// Why a secret cannot be used.
#[derive(Debug)]
pub enum SecretError {
    /// The file cannot be read.
    Io(io::Error),
    /// A directory, which has no first line.
    Directory,
    /// Larger than any key.
    TooLong,
    /// Others may read or write the file.
    OpenToOthers {
        /// Its permission bits.
        mode: u32,
    },
    /// The file belongs to a third party.
    ForeignOwner {
        /// Whose it is.
        owner: u32,
        /// Who we are.
        us: u32,
    },
    /// Anybody may exchange the file.
    OpenDirectory {
        /// Where it is, escaped.
        directory: String,
    },
    /// Not a key, or not with this passphrase.
    Key(KeyError),
    /// The passphrase file cannot be used.
    Passphrase {
        /// Which, escaped.
        file: String,
        /// Why not.
        error: Box<Self>,
    },
    /// The terminal gave no passphrase.
    Prompt(PromptError),
}

impl SecretError {
    /// Whether it is about where the passphrase was to come from, and not about the key.
    #[must_use]
    pub fn is_of_the_passphrase(&self) -> bool {
        matches!(self, Self::Passphrase { .. } | Self::Prompt(_))
    }
}

impl fmt::Display for SecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Directory => f.write_str("it is a directory; name a file"),
            Self::TooLong => write!(f, "it is longer than {SECRET_LEN_MAX} bytes"),
            Self::OpenToOthers { mode } => {
                write!(f, "everybody may read or write it (mode {mode:04o}); chmod 600 it")
            }
            Self::ForeignOwner { owner, us } => write!(
                f,
                "it belongs to user {owner}, and we are user {us}; it must be ours or root's"
            ),
            Self::OpenDirectory { directory } => {
                write!(f, "everybody may write to its directory {directory}; chmod o-w that")
            }
            Self::Key(error) => error.fmt(f),
            Self::Passphrase { file, error } => {
                write!(f, "cannot use the passphrase file {file}: {error}")
            }
            Self::Prompt(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SecretError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_passphrase_is_the_first_line_without_its_end() {
        for (text, expected) in [
            ("hunter2\n", "hunter2"),
            ("hunter2", "hunter2"),
            ("hunter2\r\nmore\n", "hunter2"),
            (" a b \n", " a b "),
            ("\n", ""),
            ("", ""),
        ] {
            let line = first_line(Zeroizing::new(text.as_bytes().to_vec()));
            assert_eq!(&**line, expected.as_bytes(), "{text:?}");
        }
    }
}
