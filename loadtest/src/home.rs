//! Throw-away credentials for one run: a home as `pktcred init` makes it (`engine::home`), and beside it
//! N endpoints of its operator.
//!
//! The keys of the endpoints stay in memory.
//!
//! Invariant: the directory is readable by its owner alone, and goes with the [`Home`] unless it is
//! to be kept.

use std::fmt;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use engine::home::{self, CONFIG, ProgramFile, Settings};
use engine::proto::tls::{self, Identity, PeerRule, SetupError};
use engine::proto::trust::TrustMode;
use engine::wire::certificate::{Certificate, CertificateError, CertificateType};
use engine::wire::issue::{IssueError, issue};
use engine::wire::key::{KeyError, KeyId, PrivateKey, PublicKey};
use engine::wire::program::{Program, ProgramError};
use engine::wire::snikey::{SniKey, SniKeyError};
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
    /// The directory cannot be made or written.
    Home(home::HomeError),
    /// The name by which endpoints choose is none.
    SniKey(SniKeyError),
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
            Self::Home(cause) => write!(f, "{cause} (TMPDIR names another place)"),
            Self::SniKey(cause) => write!(f, "the snikey is unusable: {cause}"),
            Self::Key(cause) => write!(f, "no key can be made: {cause}"),
            Self::Program(cause) => write!(f, "the program is unusable: {cause}"),
            Self::Issue(cause) => write!(f, "no certificate can be issued: {cause}"),
            Self::Certificate(cause) => write!(f, "an issued certificate is unusable: {cause}"),
            Self::Tls(cause) => write!(f, "an endpoint cannot use TLS: {cause}"),
        }
    }
}

impl std::error::Error for HomeError {}

impl From<home::HomeError> for HomeError {
    fn from(cause: home::HomeError) -> Self {
        Self::Home(cause)
    }
}

impl From<SniKeyError> for HomeError {
    fn from(cause: SniKeyError) -> Self {
        Self::SniKey(cause)
    }
}

impl From<KeyError> for HomeError {
    fn from(cause: KeyError) -> Self {
        Self::Key(cause)
    }
}

impl From<ProgramError> for HomeError {
    fn from(cause: ProgramError) -> Self {
        Self::Program(cause)
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

    /// Key and certificate of endpoint `number`, which has the address of that number.
    fn issue(number: usize, settings: &Settings, operator: &PrivateKey) -> Result<Self, HomeError> {
        let key = PrivateKey::generate()?;
        let der = issue(&settings.fields(CertificateType::Subcmd), &key.public_key(), operator)?;
        let offset = u32::try_from(number).unwrap_or(u32::MAX);
        let address = Ipv4Addr::from_bits(ADDRESS_BASE.to_bits().saturating_add(offset)).into();
        Ok(Self { address, key, certificate: Certificate::from_der(&der)? })
    }
}

impl Home {
    /// Makes the credentials of `count` endpoints and the config file. With `keep` the directory stays.
    ///
    /// # Errors
    /// A file cannot be written, or cannot be named in a config file.
    pub(crate) fn create(count: usize, keep: bool) -> Result<Self, HomeError> {
        let settings = settings()?;
        let home = home::Home::draw(settings.clone())?;
        home.write(|_| None)?;
        let directory = Directory { path: settings.directory.clone(), keep };
        let identities = (1..=count)
            .map(|number| EndpointIdentity::issue(number, &settings, &home.operator))
            .collect::<Result<_, _>>()?;
        Ok(Self { directory, operator: home.operator.public_key(), identities })
    }

    /// The config file for `pktxpmgr -c`.
    pub(crate) fn config_path(&self) -> PathBuf {
        self.directory.path.join(CONFIG)
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

/// A new place in the system's directory for such things, under a name that nobody can foretell.
fn settings() -> Result<Settings, HomeError> {
    let name = format!("pktfleet-demo-{:016x}", RandomState::new().hash_one("pktfleet"));
    let now = SystemTime::now();
    let before = now.checked_sub(VALIDITY).unwrap_or(SystemTime::UNIX_EPOCH);
    let program = ProgramFile {
        name: "pass_all.ebpf".to_owned(),
        contents: PROGRAM.as_bytes().to_vec(),
        program: Program::from_ebpf_text(PROGRAM.as_bytes())?,
    };
    Ok(Settings {
        directory: home::vacant_place(&std::env::temp_dir().join(name))?,
        not_before: Ticks::from_system_time(before),
        not_after: Ticks::from_system_time(now).saturating_add(VALIDITY),
        snikey: Some(SniKey::parse(SNIKEY)?),
        program: Some(program),
        broker: None,
        proxy_root: None,
    })
}

/// A directory for the run, removed when dropped.
#[derive(Debug)]
struct Directory {
    path: PathBuf,
    keep: bool,
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

#[cfg(test)]
impl Home {
    /// The controller's chain, its key and the operator's key, as `pktxpmgr` would read them.
    pub(crate) fn controller(&self) -> (Vec<Certificate>, PrivateKey, PublicKey) {
        let read = |name| fs::read(self.directory.path.join(name)).unwrap();
        let certificate = |name| Certificate::from_pem(&read(name)).unwrap();
        (
            vec![
                certificate("certs/pubcmd_exper_xc.cert"),
                certificate("certs/exppriv_eop_exper.cert"),
            ],
            PrivateKey::from_pem(&read("keys/k_xc"), None).unwrap(),
            PublicKey::from_pem(&read("keys/k_eop.pub")).unwrap(),
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
        let text = fs::read(home.directory.path.join("progs/pass_all.ebpf")).unwrap();
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
        assert_eq!((mode(""), mode("keys/k_xc")), (0o700, 0o600));
        assert_eq!(home.config_path(), path.join("xpmgr.conf"));
        drop(home);
        assert!(!path.exists());

        let home = Home::create(1, true).unwrap();
        let path = home.directory.path.clone();
        drop(home);
        assert!(path.join("xpmgr.conf").exists());
        fs::remove_dir_all(path).unwrap();
    }
}
