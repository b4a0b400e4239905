//! Secret files: private keys and the files with their passphrases.
//!
//! The invariant: bytes read here live only in buffers that are wiped when dropped.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use guards::{Guard, holds};
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
    let mut file = KeyFile::read(path)?;
    match file.take_refusals().into_iter().next() {
        Some(refusal) => Err(refusal),
        None => file.open(passphrase_file),
    }
}

/// The file of a private key, read and still as encrypted as it is there.
pub struct KeyFile {
    path: PathBuf,
    pem: Zeroizing<Vec<u8>>,
    refusals: Vec<SecretError>,
}

impl KeyFile {
    /// Reads it, whoever else may.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(path: &Path) -> Result<Self, SecretError> {
        let file = file::open(path).map_err(SecretError::Io)?;
        let refusals = refusals(&file, path)?;
        // Room for all at once: growing would leave copies behind that nobody wipes.
        let mut pem = Zeroizing::new(Vec::with_capacity(SECRET_LEN_MAX + 64));
        let read = file.take(SECRET_LEN_MAX as u64 + 1).read_to_end(&mut pem);
        if read.map_err(SecretError::Io)? > SECRET_LEN_MAX {
            let problem = format!("it is longer than {SECRET_LEN_MAX} bytes");
            return Err(SecretError::Io(io::Error::other(problem)));
        }
        Ok(Self { path: path.to_owned(), pem, refusals })
    }

    /// Why the key must not be used, as others may have read or exchanged it.
    pub fn take_refusals(&mut self) -> Vec<SecretError> {
        std::mem::take(&mut self.refusals)
    }

    /// Whether its key is to be had with a passphrase only.
    pub fn is_encrypted(&self) -> bool {
        matches!(PrivateKey::from_pem(&self.pem, None), Err(KeyError::PassphraseNeeded))
    }

    /// Whether both hold the same bytes.
    pub fn is_the_same_as(&self, other: &Self) -> bool {
        self.pem == other.pem
    }

    /// The key in it. If it is encrypted the passphrase comes from `passphrase_file`, or else from one prompt on the
    /// terminal.
    ///
    /// # Errors
    /// It is no key, or not to be had with this passphrase.
    pub fn open(&self, passphrase_file: Option<&Path>) -> Result<PrivateKey, SecretError> {
        match PrivateKey::from_pem(&self.pem, None) {
            Err(KeyError::PassphraseNeeded) => {}
            unencrypted => return unencrypted.map_err(SecretError::Key),
        }
        let passphrase = match passphrase_file {
            Some(file) => passphrase(file)?,
            None => {
                let shown = Escaped(self.path.as_os_str().as_bytes());
                prompt::ask(&format!("Passphrase for {shown}: ")).map_err(SecretError::Prompt)?
            }
        };
        PrivateKey::from_pem(&self.pem, Some(&passphrase)).map_err(SecretError::Key)
    }
}

/// Reads a passphrase: the first line of a file, or of what comes out of a pipe.
///
/// # Errors
/// The file cannot be read, or is open to others.
pub fn passphrase(file: &Path) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    read(file).map(file::first_line).map_err(|error| SecretError::Passphrase {
        file: Escaped(file.as_os_str().as_bytes()).to_string(),
        error: error.into(),
    })
}

/// Reads a secret file, or what comes out of a pipe, to its end.
///
/// # Errors
/// It cannot be read, or is open to others.
pub fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let file = Patient::open(path, PIPE_PATIENCE).map_err(SecretError::Io)?;
    match refusals(file.file(), path)?.into_iter().next() {
        Some(refusal) => Err(refusal),
        None => file::read_secret(file, SECRET_LEN_MAX).map_err(SecretError::Io),
    }
}

/// Why a secret file must not be used: others than we and root may have read or exchanged it. Asks the opened file rather
/// than its path, which could be exchanged in between. A group that may read is only warned of: too strict checks make
/// people copy keys around.
fn refusals(file: &File, path: &Path) -> Result<Vec<SecretError>, SecretError> {
    let found = file.metadata().map_err(SecretError::Io)?;
    if found.is_dir() {
        return Err(SecretError::Directory);
    }
    let (mode, owner, us) = (found.mode(), found.uid(), geteuid().as_raw());
    let mut refusals = Vec::new();
    match file::check_closed_to_others(file) {
        Err(error) if holds(Guard::ChecksSecretFiles) => refusals.push(SecretError::Io(error)),
        Ok(()) if mode & 0o060 != 0 => {
            let shown = Escaped(path.as_os_str().as_bytes());
            tracing::warn!("{shown}: its group may use this secret file too; chmod 600 it");
        }
        Err(_) | Ok(()) => {}
    }
    if owner != us && owner != 0 {
        refusals.push(SecretError::ForeignOwner { owner, us });
    }
    // Pipes, as of `--passphrase-file <(...)`, are in no directory.
    if found.is_file() {
        refusals.extend(check_directory(path).err());
    }
    Ok(refusals)
}

/// Whoever may write to the directory may exchange the file.
fn check_directory(path: &Path) -> Result<(), SecretError> {
    let real = path.canonicalize().map_err(SecretError::Io)?;
    let Some(directory) = real.parent() else { return Ok(()) };
    let mode = directory.metadata().map_err(SecretError::Io)?.mode();
    let is_open = mode & 0o002 != 0 && mode & 0o1000 == 0;
    if is_open && holds(Guard::ChecksSecretFolders) {
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
