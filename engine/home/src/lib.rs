//! A home: the directory with everything that one experimenter, controller, endpoint operator and
//! endpoint need to begin with, under the names of the original's example configs (spec/pktxpmgr.md 2.6).
//!
//! ```text
//! keys/   k_exper k_xc k_eop k_ep, each with its .pub; CAIDA's public keys; roots of broker and proxy
//!         if given
//! certs/  operator -> exppriv -> experimenter -> pubcmd -> controller; operator -> subcmd -> endpoint;
//!         agents of controller and endpoint, signed by themselves
//! csrs/   what the experimenter and the operator may send to others to be signed
//! progs/  monitor programs
//! xpmgr.conf, xpmgr.proxy.conf
//! ```
//!
//! Not here: passphrase prompts and options (`cli`). `pktcred init` and the demo of `pktfleet` both make
//! theirs with this. Invariant: [`Home::draw`] touches no file, and [`Home::write`] leaves either the
//! whole home or nothing, readable by its owner alone.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use packetlab::certificate::{Certificate, CertificateLimits, CertificateType, Delegation};
use packetlab::issue::{CertificateFields, issue};
use packetlab::key::PrivateKey;
use packetlab::request::{SigningRequest, request};

pub mod caida;
mod config;
mod error;
pub mod file;
mod names;
mod settings;

pub use config::experiment_line;
pub use error::HomeError;
use names::{AGENT_CONTROLLER, AGENT_ENDPOINT, BROKER_ROOT, EXPPRIV, PROXY_ROOT, SUBCMD};
pub use names::{CERTIFICATES, CONFIG, KEY_NAMES, KEYS, PROGRAMS, PROXY_CONFIG, PUBCMD, REQUESTS};
pub use settings::{Broker, ProgramFile, Settings};

/// A home before it is written.
#[derive(Debug)]
pub struct Home {
    settings: Settings,
    /// Key of the experimenter.
    pub experimenter: PrivateKey,
    /// Key of the controller, that is of `pktxpmgr`.
    pub controller: PrivateKey,
    /// Key of the endpoint operator.
    pub operator: PrivateKey,
    /// Key of the endpoint.
    pub endpoint: PrivateKey,
    certificates: Vec<(&'static str, Certificate)>,
    requests: Vec<(&'static str, SigningRequest)>,
}

impl Home {
    /// Draws the keys, issues the certificates, makes the requests. Nothing is written.
    ///
    /// # Errors
    /// The system's random generator fails, or the dates are out of order.
    pub fn draw(settings: Settings) -> Result<Self, HomeError> {
        config::text_of(&settings.directory)?;
        let (experimenter, controller) = (PrivateKey::generate()?, PrivateKey::generate()?);
        let (operator, endpoint) = (PrivateKey::generate()?, PrivateKey::generate()?);
        let limits = CertificateLimits {
            monitor: settings.program.iter().map(|file| *file.program.digest()).collect(),
            ..CertificateLimits::default()
        };
        let plain = |kind| settings.fields(kind);
        let exppriv = CertificateFields { limits, ..plain(CertificateType::Exppriv) };
        let agent = plain(CertificateType::Agent);
        let certificates = [
            (AGENT_CONTROLLER, &agent, &controller, &controller),
            (AGENT_ENDPOINT, &agent, &endpoint, &endpoint),
            (EXPPRIV, &exppriv, &experimenter, &operator),
            (PUBCMD, &plain(CertificateType::Pubcmd), &controller, &experimenter),
            (SUBCMD, &plain(CertificateType::Subcmd), &endpoint, &operator),
        ]
        .into_iter()
        .map(|(name, fields, subject, signer)| {
            let der = issue(fields, &subject.public_key(), signer)?;
            Ok((name, Certificate::from_der(&der)?))
        })
        .collect::<Result<_, HomeError>>()?;
        let delpriv = |exppriv, reppriv| CertificateFields {
            delegation: Delegation { exppriv, reppriv },
            ..plain(CertificateType::Delpriv)
        };
        let requests = [
            ("exppriv_exper.csr", plain(CertificateType::Exppriv), &experimenter),
            ("delpriv_exp_exper.csr", delpriv(true, false), &experimenter),
            ("delpriv_rep_eop.csr", delpriv(false, true), &operator),
        ]
        .into_iter()
        .map(|(name, fields, key)| Ok((name, SigningRequest::from_der(&request(&fields, key)?)?)))
        .collect::<Result<_, HomeError>>()?;
        Ok(Self { settings, experimenter, controller, operator, endpoint, certificates, requests })
    }

    /// Where the home will be.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.settings.directory
    }

    /// Writes the home: into a directory beside it first, which then takes its name. Each private key
    /// is encrypted with what `passphrase` has for its name.
    ///
    /// # Errors
    /// Something is there already, or a file cannot be written; nothing is left behind then.
    pub fn write(
        &self,
        passphrase: impl Fn(&str) -> Option<Zeroizing<Vec<u8>>>,
    ) -> Result<(), HomeError> {
        let directory = &self.settings.directory;
        check_vacant(directory)?;
        let files = self.files(passphrase)?;
        let staging = Staging::create(directory)?;
        for folder in [KEYS, CERTIFICATES, REQUESTS, PROGRAMS] {
            make_directory(&staging.path.join(folder))?;
        }
        for HomeFile { name, contents } in &files {
            let path = staging.path.join(name);
            file::create(&path, contents).map_err(|cause| HomeError::file(&path, cause))?;
        }
        staging.become_home(directory)
    }

    /// Every file, by its name within the home.
    fn files(
        &self,
        passphrase: impl Fn(&str) -> Option<Zeroizing<Vec<u8>>>,
    ) -> Result<Vec<HomeFile>, HomeError> {
        let mut files = Vec::new();
        let mut add = |folder: &str, name: &str, contents: &[u8]| {
            let contents = Zeroizing::new(contents.to_vec());
            files.push(HomeFile { name: Path::new(folder).join(name), contents });
        };
        let keys = [&self.experimenter, &self.controller, &self.operator, &self.endpoint];
        for (name, key) in KEY_NAMES.into_iter().zip(keys) {
            let pem = match passphrase(name) {
                Some(passphrase) => Zeroizing::new(key.to_encrypted_pem(&passphrase)?),
                None => key.to_pem(),
            };
            add(KEYS, name, pem.as_bytes());
            add(KEYS, &format!("{name}.pub"), key.public_key().to_pem().as_bytes());
        }
        let broker_root = self.settings.broker.as_ref().and_then(|broker| broker.root);
        for (name, key) in [
            (caida::BROKER_OPERATOR_FILE, Some(caida::broker_operator())),
            (caida::ENDPOINT_OPERATOR_FILE, Some(caida::endpoint_operator())),
            (BROKER_ROOT, broker_root.filter(|root| *root != caida::broker_operator())),
            (PROXY_ROOT, self.settings.proxy_root),
        ] {
            if let Some(key) = key {
                add(KEYS, name, key.to_pem().as_bytes());
            }
        }
        for (name, certificate) in &self.certificates {
            add(CERTIFICATES, name, certificate.to_pem().as_bytes());
        }
        for (name, request) in &self.requests {
            add(REQUESTS, name, request.to_pem().as_bytes());
        }
        if let Some(file) = &self.settings.program {
            add(PROGRAMS, &file.name, &file.contents);
        }
        let (passive, proxy) = config::texts(&self.settings)?;
        add("", CONFIG, passive.as_bytes());
        add("", PROXY_CONFIG, proxy.as_bytes());
        Ok(files)
    }
}

/// One file of a home.
struct HomeFile {
    /// Within the home.
    name: PathBuf,
    contents: Zeroizing<Vec<u8>>,
}

/// The absolute path of a home that is to be made, if nothing is in its place.
///
/// # Errors
/// Something is there, the directory above it is not, or a config file could not name it.
pub fn vacant_place(directory: &Path) -> Result<PathBuf, HomeError> {
    let name = directory.file_name().ok_or_else(|| HomeError::Nameless(directory.to_owned()))?;
    let parent = match directory.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let parent = fs::canonicalize(parent).map_err(|cause| HomeError::file(parent, cause))?;
    let place = parent.join(name);
    config::text_of(&place)?;
    check_vacant(&place)?;
    Ok(place)
}

/// An empty directory does not count: it is replaced.
fn check_vacant(directory: &Path) -> Result<(), HomeError> {
    match fs::read_dir(directory).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !directory.is_symlink() => Ok(()),
        Ok(false) | Err(_) => Err(HomeError::Occupied(directory.to_owned())),
    }
}

/// A half-made home, removed when dropped.
struct Staging {
    path: PathBuf,
}

impl Staging {
    fn create(home: &Path) -> Result<Self, HomeError> {
        let path = file::beside(home);
        make_directory(&path)?;
        Ok(Self { path })
    }

    /// Takes the name of the home. Renaming onto a directory with entries fails, so whoever came first
    /// keeps theirs.
    fn become_home(self, home: &Path) -> Result<(), HomeError> {
        match fs::rename(&self.path, home) {
            Ok(()) => file::sync_parent(home).map_err(|cause| HomeError::file(home, cause)),
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                Err(HomeError::Occupied(home.to_owned()))
            }
            Err(cause) => Err(HomeError::file(home, cause)),
        }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Once it is the home there is nothing of this name any more.
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn make_directory(path: &Path) -> Result<(), HomeError> {
    DirBuilder::new().mode(0o700).create(path).map_err(|cause| HomeError::file(path, cause))
}

#[cfg(test)]
mod tests;
