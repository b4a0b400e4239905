//! Keys and certificates from the files that the command line names.
//!
//! Not here: throw-away credentials (`home`), making any.

use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use packetlab::certificate::{Certificate, CertificateError, CertificateType};
use packetlab::escape::Escaped;
use packetlab::key::{KeyError, PrivateKey, PublicKey};
use packetlab::program::{Program, ProgramLanguage};
use packetlab::tls::SetupError;
use packetlab::trust::ChainError;
use packetlab_home::file::{self, Patient};
use zeroize::Zeroizing;

use crate::clock::now;

/// Largest file of certificates or public keys.
const FILE_LEN_MAX: u64 = 16 << 20;
/// Largest file with a key or passphrase. An encrypted key has about 300 bytes.
const SECRET_LEN_MAX: usize = 64 * 1024;
/// How long a pipe with a passphrase may say nothing.
const PATIENCE: Duration = Duration::from_secs(10);

/// The private key of a broker, proxy or endpoint.
#[derive(Debug, Args)]
pub struct KeyOptions {
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
    pub fn read(&self) -> Result<PrivateKey, CredentialError> {
        let pem = read_secret(&self.key, file::open(&self.key).map(Patient::from))?;
        let passphrase = self.passphrase_file.as_deref();
        let passphrase =
            passphrase.map(|path| read_secret(path, Patient::open(path, PATIENCE))).transpose()?;
        let passphrase = passphrase.map(file::first_line);
        PrivateKey::from_pem(&pem, passphrase.as_ref().map(|text| text.as_slice()))
            .map_err(|cause| CredentialError::new(&self.key, Cause::Key(cause)))
    }
}

/// The one certificate of a broker, proxy or endpoint that connects or is connected to (`--agent`),
/// which no peer accepts unless it is of type agent. A warning if now is not within its dates.
///
/// # Errors
/// The file cannot be read or holds no such certificate.
pub fn certificate(path: &Path) -> Result<Certificate, CredentialError> {
    let certificate = Certificate::from_pem(&read(path)?)
        .map_err(|cause| CredentialError::new(path, Cause::Certificate(cause)))?;
    if certificate.certificate_type != CertificateType::Agent {
        let other = certificate.certificate_type;
        return Err(CredentialError::new(path, Cause::NoAgent(other)));
    }
    if !certificate.is_valid_at(now()) {
        tracing::warn!(
            "{}: the agent certificate will be refused: now is not within its dates; `pktcred sign agent` \
             makes another",
            shown(path)
        );
    }
    Ok(certificate)
}

/// The certificates in PEM files, in that order; each may hold several.
///
/// # Errors
/// A file cannot be read or holds something else than PacketLab certificates.
pub fn certificates(paths: &[PathBuf]) -> Result<Vec<Certificate>, CredentialError> {
    read_all(paths, |pem| Certificate::list_from_pem(pem).map_err(Cause::Certificate))
}

/// The public keys in PEM files, in that order; each may hold several.
///
/// # Errors
/// A file cannot be read or holds something else than Ed25519 keys.
pub fn public_keys(paths: &[PathBuf]) -> Result<Vec<PublicKey>, CredentialError> {
    read_all(paths, |pem| PublicKey::list_from_pem(pem).map_err(Cause::Key))
}

/// The monitor programs in these files, each of which can be one.
///
/// # Errors
/// A file cannot be read or holds no such program.
pub fn monitors(paths: &[PathBuf]) -> Result<Arc<[Program]>, CredentialError> {
    paths.iter().map(|path| monitor(path)).collect()
}

fn monitor(path: &Path) -> Result<Program, CredentialError> {
    let file = read(path)?;
    let unusable = |cause: String| CredentialError::new(path, Cause::Monitor(cause));
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    let language = ProgramLanguage::from_file_name(name)
        .map_err(|_| unusable("its name does not end in .wasm".to_owned()))?;
    let program =
        Program::from_file(language, &file).map_err(|error| unusable(error.to_string()))?;
    for message in monitor_module::check(&program).map_err(|unfit| unusable(unfit.to_string()))? {
        tracing::warn!("{}: {}", shown(path), message.unjudged());
    }
    Ok(program)
}

fn read_all<T>(
    paths: &[PathBuf],
    list: impl Fn(&[u8]) -> Result<Vec<T>, Cause>,
) -> Result<Vec<T>, CredentialError> {
    let mut all = Vec::new();
    for path in paths {
        all.extend(list(&read(path)?).map_err(|cause| CredentialError::new(path, cause))?);
    }
    Ok(all)
}

/// A path in one line, whatever is in its name.
fn shown(path: &Path) -> Escaped<'_> {
    Escaped(path.as_os_str().as_bytes())
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, CredentialError> {
    file::read(path, FILE_LEN_MAX).map_err(|cause| CredentialError::new(path, Cause::File(cause)))
}

fn read_secret(
    path: &Path,
    opened: io::Result<Patient>,
) -> Result<Zeroizing<Vec<u8>>, CredentialError> {
    let secret = opened.and_then(|file| file::read_secret(file, SECRET_LEN_MAX));
    secret.map_err(|cause| CredentialError::new(path, Cause::File(cause)))
}

/// A file that does not hold what it should.
#[derive(Debug)]
pub struct CredentialError {
    path: PathBuf,
    cause: Cause,
}

#[derive(Debug)]
enum Cause {
    File(io::Error),
    Key(KeyError),
    Certificate(CertificateError),
    NoAgent(CertificateType),
    Tls(SetupError),
    Chain(ChainError),
    Monitor(String),
}

impl CredentialError {
    fn new(path: &Path, cause: Cause) -> Self {
        Self { path: path.to_owned(), cause }
    }

    /// The certificates in this file cannot be used with the key.
    pub fn unusable(path: &Path, cause: SetupError) -> Self {
        Self::new(path, Cause::Tls(cause))
    }

    /// No peer accepts the certificates that begin in this file.
    pub fn untrusted(path: &Path, cause: ChainError) -> Self {
        Self::new(path, Cause::Chain(cause))
    }
}

impl fmt::Display for CredentialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", shown(&self.path))?;
        match &self.cause {
            Cause::File(cause) => cause.fmt(f),
            Cause::Key(KeyError::PassphraseNeeded) => {
                f.write_str("the key is encrypted; name a --passphrase-file")
            }
            Cause::Key(cause) => cause.fmt(f),
            Cause::Certificate(cause) => cause.fmt(f),
            Cause::NoAgent(other) => write!(
                f,
                "is a certificate of type {other}, and every peer refuses it as an agent's; \
                 `pktcred sign agent` makes one for this key"
            ),
            Cause::Tls(cause) => cause.fmt(f),
            Cause::Monitor(cause) => write!(f, "cannot be a monitor: {cause}"),
            Cause::Chain(cause) => write!(
                f,
                "nobody will accept these certificates: {cause}; name the operator's key, and the certificates \
                 from subcmd upwards"
            ),
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
    fn a_program_that_cannot_be_a_monitor_is_refused_with_its_reason() {
        let directory = Directory::new("monitors");
        let pass = include_bytes!("../monitors/wat/pass_all.wasm");
        let good = directory.write("pass.wasm", pass, 0o644);
        let read = monitors(std::slice::from_ref(&good)).unwrap();
        assert_eq!(read.iter().map(|one| &one.encoded()[1..]).collect::<Vec<_>>(), [&pass[..]]);
        for (name, contents, reason) in [
            ("old.ebpf", &b"0x95 0 0 0 0\n"[..], "it is in eBPF"),
            ("text.wasm", b"(module)", "it cannot be compiled"),
            ("notes.txt", b"(module)", "its name does not end in .wasm"),
        ] {
            let bad = directory.write(name, contents, 0o644);
            let error = monitors(&[good.clone(), bad]).unwrap_err().to_string();
            assert!(error.contains(&format!("{name}: cannot be a monitor: {reason}")), "{error}");
        }
    }

    #[test]
    fn only_an_agent_certificate_is_taken_for_one() {
        let directory = Directory::new("agent");
        for (name, is_agent) in [("agent_ep", true), ("subcmd_eop_ep", false)] {
            let certificate_of = crate::golden::certificate(name);
            let file = directory.write(name, certificate_of.to_pem().as_bytes(), 0o600);
            match certificate(&file) {
                Ok(found) => assert!(is_agent && found == certificate_of, "{name}"),
                Err(error) => {
                    let error = error.to_string();
                    assert!(!is_agent && error.contains("type subcmd"), "{error}");
                    assert!(error.contains("pktcred sign agent"), "{error}");
                }
            }
        }
    }

    #[test]
    fn every_section_of_a_file_counts_and_a_fifo_is_not_waited_for() {
        let directory = Directory::new("bundle");
        let bundle = ["delpriv_eop_del_rep", "subcmd_del_ep"].map(crate::golden::certificate);
        let pem = bundle[0].to_pem() + &bundle[1].to_pem();
        let file = directory.write("chain", pem.as_bytes(), 0o600);
        assert_eq!(certificates(std::slice::from_ref(&file)).unwrap(), bundle);
        let error = certificate(&file).unwrap_err().to_string();
        assert!(error.contains("holds 2 PEM sections `CERTIFICATE`, and one is meant"), "{error}");
        let keys = [0, 1].map(|_| PrivateKey::generate().unwrap().public_key());
        let pem = keys[0].to_pem() + &keys[1].to_pem();
        let file = directory.write("operators", pem.as_bytes(), 0o600);
        assert_eq!(public_keys(&[file]).unwrap(), keys);
        let fifo = directory.0.join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for error in
            [certificate(&fifo).unwrap_err().to_string(), read_key(&fifo, None).unwrap_err()]
        {
            assert!(error.contains("not a regular file but a FIFO"), "{error}");
        }
    }

    #[test]
    fn errors_name_the_file() {
        let missing = Path::new("/nonexistent/agent.cert");
        let error = certificate(missing).unwrap_err().to_string();
        assert!(error.starts_with("/nonexistent/agent.cert: "), "{error}");
        let error = certificate(Path::new("/nonexistent/\u{1b}[2J\n")).unwrap_err().to_string();
        assert!(error.starts_with(r"/nonexistent/\u{1b}[2J\n: "), "{error}");
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
