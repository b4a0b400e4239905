//! Keys and certificates from the files that the command line names.
//!
//! Not here: throw-away credentials (`home`), making any.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use clap::Args;
use engine::proto::tls::SetupError;
use engine::wire::certificate::{Certificate, CertificateError};
use engine::wire::key::{KeyError, PrivateKey, PublicKey};
use zeroize::Zeroizing;

/// The private key of a broker, proxy or endpoint.
#[derive(Debug, Args)]
pub(crate) struct KeyOptions {
    /// Private key, PEM; only its owner may read the file
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The first line of this file is the passphrase of the key
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl KeyOptions {
    /// Reads the key.
    ///
    /// # Errors
    /// A file cannot be read, others may read it, or it holds no such key.
    pub(crate) fn read(&self) -> Result<PrivateKey, CredentialError> {
        let pem = read_secret(&self.key)?;
        let passphrase = self.passphrase_file.as_deref().map(read_secret).transpose()?;
        let passphrase = passphrase.as_ref().map(|text| first_line(text));
        PrivateKey::from_pem(&pem, passphrase)
            .map_err(|cause| CredentialError::new(&self.key, Cause::Key(cause)))
    }
}

/// The certificate in a PEM file.
///
/// # Errors
/// The file cannot be read or holds no PacketLab certificate.
pub(crate) fn certificate(path: &Path) -> Result<Certificate, CredentialError> {
    Certificate::from_pem(&read(path)?)
        .map_err(|cause| CredentialError::new(path, Cause::Certificate(cause)))
}

/// The certificates in PEM files, in that order.
///
/// # Errors
/// As [`certificate`].
pub(crate) fn certificates(paths: &[PathBuf]) -> Result<Vec<Certificate>, CredentialError> {
    paths.iter().map(|path| certificate(path)).collect()
}

/// The public keys in PEM files, in that order.
///
/// # Errors
/// A file cannot be read or holds no Ed25519 key.
pub(crate) fn public_keys(paths: &[PathBuf]) -> Result<Vec<PublicKey>, CredentialError> {
    let public_key = |path: &PathBuf| {
        PublicKey::from_pem(&read(path)?)
            .map_err(|cause| CredentialError::new(path, Cause::Key(cause)))
    };
    paths.iter().map(public_key).collect()
}

fn read(path: &Path) -> Result<Vec<u8>, CredentialError> {
    std::fs::read(path).map_err(|cause| CredentialError::new(path, Cause::File(cause)))
}

/// Asks the opened file rather than its path, which could be exchanged in between.
fn read_secret(path: &Path) -> Result<Zeroizing<Vec<u8>>, CredentialError> {
    let failed = |cause| CredentialError::new(path, cause);
    let mut file = File::open(path).map_err(|cause| failed(Cause::File(cause)))?;
    let mode = file.metadata().map_err(|cause| failed(Cause::File(cause)))?.mode();
    if mode & 0o006 != 0 {
        return Err(failed(Cause::OpenToOthers { mode: mode & 0o7777 }));
    }
    let mut secret = Zeroizing::new(Vec::new());
    file.read_to_end(&mut secret).map_err(|cause| failed(Cause::File(cause)))?;
    Ok(secret)
}

fn first_line(text: &[u8]) -> &[u8] {
    let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// A file that does not hold what it should.
#[derive(Debug)]
pub(crate) struct CredentialError {
    path: PathBuf,
    cause: Cause,
}

#[derive(Debug)]
enum Cause {
    File(io::Error),
    OpenToOthers { mode: u32 },
    Key(KeyError),
    Certificate(CertificateError),
    Tls(SetupError),
}

impl CredentialError {
    fn new(path: &Path, cause: Cause) -> Self {
        Self { path: path.to_owned(), cause }
    }

    /// The certificates in this file cannot be used with the key.
    pub(crate) fn unusable(path: &Path, cause: SetupError) -> Self {
        Self::new(path, Cause::Tls(cause))
    }
}

impl fmt::Display for CredentialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.path.display())?;
        match &self.cause {
            Cause::File(cause) => cause.fmt(f),
            Cause::OpenToOthers { mode } => {
                write!(f, "everybody may read or write it (mode {mode:04o}); chmod 600 it")
            }
            Cause::Key(KeyError::PassphraseNeeded) => {
                f.write_str("the key is encrypted; name a --passphrase-file")
            }
            Cause::Key(cause) => cause.fmt(f),
            Cause::Certificate(cause) => cause.fmt(f),
            Cause::Tls(cause) => cause.fmt(f),
        }
    }
}

impl std::error::Error for CredentialError {}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A directory of one test, which goes with it.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("pktfleet-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn write(&self, name: &str, contents: &[u8], mode: u32) -> PathBuf {
            let path = self.0.join(name);
            fs::write(&path, contents).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            path
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn read_key(key: &Path, passphrase_file: Option<&Path>) -> Result<PrivateKey, String> {
        let passphrase_file = passphrase_file.map(Path::to_owned);
        let options = KeyOptions { key: key.to_owned(), passphrase_file };
        options.read().map_err(|error| error.to_string())
    }

    #[test]
    fn a_key_is_read_with_and_without_a_passphrase() {
        let directory = Directory::new("keys");
        let key = PrivateKey::generate().unwrap();
        let plain = directory.write("plain", key.to_pem().as_bytes(), 0o600);
        assert_eq!(read_key(&plain, None).unwrap().public_key(), key.public_key());

        let encrypted = key.to_encrypted_pem(b"hunter2").unwrap();
        let encrypted = directory.write("encrypted", encrypted.as_bytes(), 0o600);
        let error = read_key(&encrypted, None).unwrap_err();
        assert!(error.ends_with("encrypted; name a --passphrase-file"), "{error}");
        let passphrase = directory.write("passphrase", b"hunter2\r\nrest", 0o600);
        let read = read_key(&encrypted, Some(&passphrase)).unwrap();
        assert_eq!(read.public_key(), key.public_key());
    }

    #[test]
    fn a_key_that_everybody_may_read_is_refused() {
        let directory = Directory::new("modes");
        let key = PrivateKey::generate().unwrap();
        let open = directory.write("open", key.to_pem().as_bytes(), 0o644);
        let error = read_key(&open, None).unwrap_err();
        assert!(error.contains("mode 0644") && error.contains("chmod 600"), "{error}");
    }

    #[test]
    fn errors_name_the_file() {
        let missing = Path::new("/nonexistent/agent.cert");
        let error = certificate(missing).unwrap_err().to_string();
        assert!(error.starts_with("/nonexistent/agent.cert: "), "{error}");
        let directory = Directory::new("files");
        let text = directory.write("text", b"no PEM", 0o600);
        for error in [
            certificate(&text).unwrap_err().to_string(),
            public_keys(std::slice::from_ref(&text)).unwrap_err().to_string(),
            read_key(&text, None).unwrap_err(),
        ] {
            assert!(error.starts_with(&format!("{}: ", text.display())), "{error}");
        }
    }
}
