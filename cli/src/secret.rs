//! Secret files: private keys and the files with their passphrases.
//!
//! The invariant: bytes read here live only in buffers that are wiped when dropped.

use std::fmt;
use std::fs::File;
use std::io;
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
    read(file, Patient::open(file, PIPE_PATIENCE)).map(file::first_line).map_err(|error| {
        SecretError::Passphrase {
            file: Escaped(file.as_os_str().as_bytes()).to_string(),
            error: error.into(),
        }
    })
}

/// Reads a file that only we and root may read.
fn read(path: &Path, opened: io::Result<Patient>) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let file = opened.map_err(SecretError::Io)?;
    check_owner_and_mode(file.file(), path)?;
    file::read_secret(file, SECRET_LEN_MAX).map_err(SecretError::Io)
}

/// Asks the opened file rather than its path, which could be exchanged in between. A group that may
/// read is only warned of: too strict checks make people copy keys around.
fn check_owner_and_mode(file: &File, path: &Path) -> Result<(), SecretError> {
    let found = file.metadata().map_err(SecretError::Io)?;
    if found.is_dir() {
        return Err(SecretError::Directory);
    }
    let (mode, owner, us) = (found.mode(), found.uid(), geteuid().as_raw());
    file::check_closed_to_others(file).map_err(SecretError::Io)?;
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
