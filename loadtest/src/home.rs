//! Throw-away credentials for one run: an endpoint operator, an experimenter, a controller, N endpoints,
//! and the config file with which `pktxpmgr` serves them.
//!
//! ```text
//! operator   -> exppriv -> experimenter -> pubcmd -> controller     (what pktxpmgr presents)
//! operator   -> subcmd  -> endpoint 1..N                            (what endpoints present)
//! ```
//!
//! Only what `pktxpmgr` reads becomes a file; the keys of the endpoints stay in memory.
//!
//! Invariant: the directory is readable by its owner alone, and goes with the [`Home`] unless it is
//! to be kept.

use std::fmt;
use std::fs::{self, DirBuilder, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use engine::proto::tls::{self, Identity, PeerRule, SetupError};
use engine::proto::trust::TrustMode;
use engine::wire::certificate::{
    Certificate, CertificateError, CertificateLimits, CertificateType, Delegation,
};
use engine::wire::issue::{CertificateFields, IssueError, issue};
use engine::wire::key::{KeyError, KeyId, PrivateKey, PublicKey};
use engine::wire::program::{Program, ProgramError};
use engine::wire::time::Ticks;

use crate::endpoint::Endpoint;

/// The name by which endpoints choose the experiment.
const SNIKEY: &str = "demo";
/// How long the credentials are valid, and how far before now they begin to be: clocks may be set back.
const VALIDITY: Duration = Duration::from_secs(24 * 3600);
/// The program that the experimenter's privilege demands of the controller: `r0 = 1; exit`, which
/// lets everything pass.
const PROGRAM: &str = "0xb7 0 0 0 1\n0x95 0 0 0 0\n";
/// Endpoint 1 has the address after this one.
const ADDRESS_BASE: Ipv4Addr = Ipv4Addr::new(127, 1, 0, 0);

/// The credentials of one run.
#[derive(Debug)]
pub(crate) struct Home {
    directory: Directory,
    operator: PublicKey,
    identities: Vec<EndpointIdentity>,
}

/// Who one endpoint is.
#[derive(Debug)]
pub(crate) struct EndpointIdentity {
    /// Its own address.
    pub(crate) address: IpAddr,
    key: PrivateKey,
    certificate: Certificate,
}

/// Why there are no credentials.
#[derive(Debug)]
pub(crate) enum HomeError {
    /// A file or directory cannot be made.
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        cause: io::Error,
    },
    /// A path that the config file cannot express.
    BadPath(PathBuf),
    /// A key cannot be made.
    Key(KeyError),
    /// The program is none.
    Program(ProgramError),
    /// A certificate cannot be made.
    Issue(IssueError),
    /// A certificate that was made cannot be read.
    Certificate(CertificateError),
    /// TLS refuses an identity.
    Tls(SetupError),
}

impl fmt::Display for HomeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, cause } => {
                write!(
                    f,
                    "{} cannot be written: {cause}; set TMPDIR to another place",
                    path.display()
                )
            }
            Self::BadPath(path) => write!(
                f,
                "a config file cannot name {}; set TMPDIR to a path without ',', ':' and line ends",
                path.display()
            ),
            Self::Key(cause) => write!(f, "no key can be made: {cause}"),
            Self::Program(cause) => write!(f, "the program is unusable: {cause}"),
            Self::Issue(cause) => write!(f, "no certificate can be issued: {cause}"),
            Self::Certificate(cause) => write!(f, "an issued certificate is unusable: {cause}"),
            Self::Tls(cause) => write!(f, "an endpoint cannot use TLS: {cause}"),
        }
    }
}

impl std::error::Error for HomeError {}

impl From<KeyError> for HomeError {
    fn from(cause: KeyError) -> Self {
        Self::Key(cause)
    }
}

impl From<IssueError> for HomeError {
    fn from(cause: IssueError) -> Self {
        Self::Issue(cause)
    }
}

impl From<CertificateError> for HomeError {
    fn from(cause: CertificateError) -> Self {
        Self::Certificate(cause)
    }
}

impl From<SetupError> for HomeError {
    fn from(cause: SetupError) -> Self {
        Self::Tls(cause)
    }
}

impl EndpointIdentity {
    /// Its key id, as `PKTLAB_ENDPOINT_KEY` tells mlets.
    pub(crate) fn key_id(&self) -> KeyId {
        self.certificate.subject_key_id
    }
}

impl Home {
    /// Makes the credentials of `count` endpoints and the config file. With `keep` the directory stays.
    ///
    /// # Errors
    /// A file cannot be written, or cannot be named in a config file.
    pub(crate) fn create(count: usize, keep: bool) -> Result<Self, HomeError> {
        let issuer = Issuer { validity: validity() };
        let operator = PrivateKey::generate()?;
        let directory = Directory::create(keep)?;
        write_controller(&directory, &issuer, &operator)?;
        let identities = (1..=count)
            .map(|number| issuer.endpoint(number, &operator))
            .collect::<Result<_, _>>()?;
        Ok(Self { directory, operator: operator.public_key(), identities })
    }

    /// The config file for `pktxpmgr -c`.
    pub(crate) fn config_path(&self) -> PathBuf {
        self.directory.path.join("xpmgr.conf")
    }

    /// Who the endpoints are; endpoint 1 first.
    pub(crate) fn identities(&self) -> &[EndpointIdentity] {
        &self.identities
    }

    /// The endpoints, ready to connect to `controller`.
    ///
    /// # Errors
    /// TLS refuses an identity.
    pub(crate) fn endpoints(&self, controller: SocketAddr) -> Result<Vec<Endpoint>, HomeError> {
        let server_name = tls::server_name(Some(SNIKEY))?;
        let endpoint = |identity: &EndpointIdentity| {
            let chain = std::slice::from_ref(&identity.certificate);
            let rule = PeerRule {
                mode: TrustMode::EndpointAuthenticatesController,
                anchors: vec![self.operator],
                mandatory: true,
            };
            Ok(Endpoint {
                address: identity.address,
                controller,
                server_name: server_name.clone(),
                tls: tls::client_config(Some(&Identity { chain, key: &identity.key }), rule)?,
                operators: vec![self.operator],
                leave_at: None,
            })
        };
        self.identities.iter().map(endpoint).collect()
    }
}

/// First and last moment of everything that is issued for one run.
fn validity() -> (Ticks, Ticks) {
    let now = SystemTime::now();
    let before = now.checked_sub(VALIDITY).unwrap_or(SystemTime::UNIX_EPOCH);
    (Ticks::from_system_time(before), Ticks::from_system_time(now).saturating_add(VALIDITY))
}

/// Issues certificates that differ in type, limits and keys only.
struct Issuer {
    validity: (Ticks, Ticks),
}

impl Issuer {
    fn issue(
        &self,
        certificate_type: CertificateType,
        limits: CertificateLimits,
        subject: &PublicKey,
        signer: &PrivateKey,
    ) -> Result<Certificate, HomeError> {
        let (not_before, not_after) = self.validity;
        let fields = CertificateFields {
            certificate_type,
            delegation: Delegation::default(),
            path_len: None,
            not_before,
            not_after,
            description: None,
            auxiliary: Vec::new(),
            limits,
        };
        let der = issue(&fields, subject, signer)?;
        Ok(Certificate::from_der(&der)?)
    }

    /// Key and certificate of endpoint `number`, which has the address of that number.
    fn endpoint(
        &self,
        number: usize,
        operator: &PrivateKey,
    ) -> Result<EndpointIdentity, HomeError> {
        let key = PrivateKey::generate()?;
        let none = CertificateLimits::default();
        let subject = key.public_key();
        let certificate = self.issue(CertificateType::Subcmd, none, &subject, operator)?;
        let offset = u32::try_from(number).unwrap_or(u32::MAX);
        let address = Ipv4Addr::from_bits(ADDRESS_BASE.to_bits().saturating_add(offset)).into();
        Ok(EndpointIdentity { address, key, certificate })
    }
}

/// Writes all that `pktxpmgr` reads: its key, its chain, the operator's key, the program, the config.
fn write_controller(
    directory: &Directory,
    issuer: &Issuer,
    operator: &PrivateKey,
) -> Result<(), HomeError> {
    let (experimenter, controller) = (PrivateKey::generate()?, PrivateKey::generate()?);
    let program = Program::from_ebpf_text(PROGRAM.as_bytes()).map_err(HomeError::Program)?;
    let demands =
        CertificateLimits { monitor: vec![*program.digest()], ..CertificateLimits::default() };
    let subject = experimenter.public_key();
    let exppriv = issuer.issue(CertificateType::Exppriv, demands, &subject, operator)?;
    let none = CertificateLimits::default();
    let subject = controller.public_key();
    let pubcmd = issuer.issue(CertificateType::Pubcmd, none, &subject, &experimenter)?;

    let key = directory.write("controller.key", controller.to_pem().as_bytes())?;
    let pubcmd = directory.write("pubcmd.cert", pubcmd.to_pem().as_bytes())?;
    let exppriv = directory.write("exppriv.cert", exppriv.to_pem().as_bytes())?;
    let operator = directory.write("operator.pub", operator.public_key().to_pem().as_bytes())?;
    let programs = directory.create_directory("programs")?;
    directory.write("programs/pass_all.ebpf", PROGRAM.as_bytes())?;
    let config = format!(
        "EnableExpPublication 0\n\
         ControllerPrivkeyPath {key}\n\
         ProgramDirPath {programs}\n\
         ExpExec 1:{SNIKEY}:{pubcmd},{exppriv}:{operator}::\n"
    );
    directory.write("xpmgr.conf", config.as_bytes())?;
    Ok(())
}

/// A directory for the run, removed when dropped.
#[derive(Debug)]
struct Directory {
    path: PathBuf,
    keep: bool,
}

impl Directory {
    /// A new one in the system's directory for such things, under a name that nobody can foretell.
    fn create(keep: bool) -> Result<Self, HomeError> {
        let parent = std::env::temp_dir();
        let parent =
            fs::canonicalize(&parent).map_err(|cause| HomeError::File { path: parent, cause })?;
        let name = format!("pktfleet-demo-{:016x}", RandomState::new().hash_one("pktfleet"));
        let path = parent.join(name);
        config_text(&path)?;
        create_private_directory(&path)?;
        Ok(Self { path, keep })
    }

    /// Writes a file for its owner alone; its path as the config file names it.
    fn write(&self, name: &str, contents: &[u8]) -> Result<String, HomeError> {
        let path = self.path.join(name);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let written = options.open(&path).and_then(|mut file| file.write_all(contents));
        match written {
            Ok(()) => config_text(&path),
            Err(cause) => Err(HomeError::File { path, cause }),
        }
    }

    fn create_directory(&self, name: &str) -> Result<String, HomeError> {
        let path = self.path.join(name);
        create_private_directory(&path)?;
        config_text(&path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            eprintln!("demo: {} cannot be removed: {error}", self.path.display());
        }
    }
}

fn create_private_directory(path: &Path) -> Result<(), HomeError> {
    DirBuilder::new()
        .mode(0o700)
        .create(path)
        .map_err(|cause| HomeError::File { path: path.to_owned(), cause })
}

/// The path as text for the config file, whose lists have no way to quote (pktxpmgr.md 2.5).
fn config_text(path: &Path) -> Result<String, HomeError> {
    match path.to_str() {
        Some(text) if !text.contains([',', ':', '\n', '\r']) => Ok(text.to_owned()),
        _ => Err(HomeError::BadPath(path.to_owned())),
    }
}

#[cfg(test)]
impl Home {
    /// The controller's chain, its key and the operator's key, as `pktxpmgr` would read them.
    pub(crate) fn controller(&self) -> (Vec<Certificate>, PrivateKey, PublicKey) {
        let read = |name| fs::read(self.directory.path.join(name)).unwrap();
        let certificate = |name| Certificate::from_pem(&read(name)).unwrap();
        (
            vec![certificate("pubcmd.cert"), certificate("exppriv.cert")],
            PrivateKey::from_pem(&read("controller.key"), None).unwrap(),
            PublicKey::from_pem(&read("operator.pub")).unwrap(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::proto::trust::verify_chain;
    use std::collections::HashSet;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_controllers_chain_verifies_and_demands_the_program_in_the_home() {
        let home = Home::create(1, false).unwrap();
        let now = Ticks::from_system_time(SystemTime::now());
        let mode = TrustMode::EndpointAuthenticatesController;
        let (chain, key, operator) = home.controller();
        assert_eq!(operator, home.operator);
        let verified = verify_chain(&chain, &[operator], mode, now).unwrap();
        let text = fs::read(home.directory.path.join("programs/pass_all.ebpf")).unwrap();
        let program = Program::from_ebpf_text(&text).unwrap();
        assert_eq!(verified.monitor_digests().collect::<Vec<_>>(), [program.digest()]);
        assert_eq!(verified.leaf().unwrap().subject_key, key.public_key());
    }

    #[test]
    fn every_endpoint_has_its_own_key_address_and_verifying_certificate() {
        let home = Home::create(300, false).unwrap();
        let now = Ticks::from_system_time(SystemTime::now());
        let mode = TrustMode::ControllerAuthenticatesEndpoint;
        let (mut keys, mut addresses) = (HashSet::new(), HashSet::new());
        for identity in home.identities() {
            let chain = std::slice::from_ref(&identity.certificate);
            assert!(verify_chain(chain, &[home.operator], mode, now).is_ok());
            assert_eq!(identity.key.public_key(), identity.certificate.subject_key);
            keys.insert(identity.key_id().to_string());
            addresses.insert(identity.address);
        }
        assert_eq!((keys.len(), addresses.len()), (300, 300));
        assert_eq!(home.identities()[0].address, IpAddr::from([127, 1, 0, 1]));
        assert_eq!(home.identities()[299].address, IpAddr::from([127, 1, 1, 44]));
    }

    #[test]
    fn the_directory_is_private_and_goes_with_the_home_unless_kept() {
        let home = Home::create(1, false).unwrap();
        let path = home.directory.path.clone();
        let mode = |name: &str| fs::metadata(path.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(""), mode("controller.key")), (0o700, 0o600));
        assert_eq!(home.config_path(), path.join("xpmgr.conf"));
        drop(home);
        assert!(!path.exists());

        let home = Home::create(1, true).unwrap();
        let path = home.directory.path.clone();
        drop(home);
        assert!(path.join("xpmgr.conf").exists());
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn paths_that_a_config_cannot_name_are_refused() {
        for path in ["/tmp/a,b", "/tmp/a:b", "/tmp/a\nb"] {
            assert!(matches!(config_text(Path::new(path)), Err(HomeError::BadPath(_))), "{path}");
        }
        assert_eq!(config_text(Path::new("/tmp/a b")).unwrap(), "/tmp/a b");
    }
}
