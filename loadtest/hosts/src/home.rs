//! Throw-away credentials for one run: a home as `pktcred init` makes it (`packetlab_home`), and beside it
//! N endpoints of its operator, and agents for a broker and a proxy.
//!
//! The keys of the endpoints stay in memory.
//!
//! Invariant: the directory is readable by its owner alone, and goes with the [`Home`] unless it is to be kept. Where the
//! process is killed, the next home that is made takes it away: whoever has one holds the lock on a file in it.

mod agent;
mod error;
mod identity;

use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::Uid;
use packetlab::address::HostPort;
use packetlab::certificate::CertificateType;
use packetlab::key::PublicKey;
use packetlab::program::Program;
use packetlab::snikey::SniKey;
use packetlab::tls;
#[cfg(test)]
use packetlab::{certificate::Certificate, key::PrivateKey};
use packetlab_home::{self as home, CONFIG, PROXY_CONFIG, ProgramFile, Settings};

use crate::endpoint::Endpoint;
use crate::endpoint::subscribe::Subscriber;
pub use agent::Agent;
use agent::validity;
pub use error::HomeError;
pub use identity::EndpointIdentity;

/// The name by which endpoints choose the experiment.
pub const SNIKEY: &str = "demo";
/// How long the credentials of a home are valid: longer than what its config files publish is published, or a run would
/// warn that they expire before.
const VALIDITY: Duration = Duration::from_secs(400 * 24 * 3600);
/// The monitor program that the experimenter's privilege demands of the controller. It lets everything pass.
const PROGRAM: &[u8] = include_bytes!("../monitors/wat/pass_all.wasm");
/// What the names of the directories of homes begin with, and the file in each that its process has locked.
const NAME_START: &str = "pktfleet-demo-";
const LOCK: &str = "lock";
/// A home in the making to which nothing was added for so long is not being made any more.
const MAKING_MAX: Duration = Duration::from_secs(60);
/// Endpoint 1 has the address after this one.
const ADDRESS_BASE: Ipv4Addr = Ipv4Addr::new(127, 1, 0, 0);

/// The credentials of one run.
#[derive(Debug)]
pub struct Home {
    directory: Directory,
    operator: PublicKey,
    identities: Vec<EndpointIdentity>,
    broker: Option<home::Broker>,
}

/// What is around a home: who serves it.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// Where experiments are published.
    pub broker: Option<home::Broker>,
    /// The key that signs the proxy's certificate.
    pub proxy_root: Option<PublicKey>,
}

impl Agent {
    /// A new one.
    ///
    /// # Errors
    /// The system's random generator fails.
    pub fn new() -> Result<Self, HomeError> {
        Self::issue(&settings(Surroundings::default())?.fields(CertificateType::Agent))
    }
}

impl Home {
    /// Makes the credentials of `count` endpoints and the config file. With `keep` the directory stays.
    ///
    /// # Errors
    /// A file cannot be written, or cannot be named in a config file.
    pub fn create(count: usize, keep: bool, surroundings: Surroundings) -> Result<Self, HomeError> {
        let settings = settings(surroundings)?;
        let home = home::Home::draw(settings.clone())?;
        remove_deserted(&settings.directory);
        home.write(|_| None)?;
        let mut directory = Directory { path: settings.directory.clone(), keep, lock: None };
        if !keep {
            let path = directory.path.join(LOCK);
            directory.lock().map_err(|cause| home::HomeError::File { path, cause })?;
        }
        let identities = (1..=count)
            .map(|number| {
                let offset = u32::try_from(number).unwrap_or(u32::MAX);
                let address = Ipv4Addr::from_bits(ADDRESS_BASE.to_bits().saturating_add(offset));
                EndpointIdentity::new(address.into(), &home.operator)
            })
            .collect::<Result<_, _>>()?;
        let operator = home.operator.public_key();
        Ok(Self { directory, operator, identities, broker: settings.broker })
    }

    /// The config file for `pktxpmgr -c`.
    pub fn config_path(&self) -> PathBuf {
        self.directory.path.join(CONFIG)
    }

    /// The config file for a `pktxpmgr` whose endpoints come through a proxy.
    pub fn proxy_config_path(&self) -> PathBuf {
        self.directory.path.join(PROXY_CONFIG)
    }

    /// Where `pktxpmgr --events` is told to write its records.
    pub fn events_path(&self) -> PathBuf {
        self.directory.path.join("events.jsonl")
    }

    /// Who the endpoints are; endpoint 1 first.
    pub fn identities(&self) -> &[EndpointIdentity] {
        &self.identities
    }

    /// How each endpoint subscribes at the broker; endpoint 1 first.
    ///
    /// # Errors
    /// TLS refuses an identity.
    pub fn subscribers(&self, broker: SocketAddr) -> Result<Vec<Subscriber>, HomeError> {
        let address = HostPort { host: broker.ip().to_string(), port: Some(broker.port()) };
        let root = self.broker.as_ref().and_then(|broker| broker.root);
        let (roots, operators): (Vec<_>, _) = (root.into_iter().collect(), [self.operator]);
        let subscriber = |identity: &EndpointIdentity| {
            identity.subscriber(address.clone(), roots.clone(), &operators, &[None], "")
        };
        self.identities.iter().map(subscriber).collect()
    }

    /// The endpoints, ready to connect to `controller`.
    ///
    /// # Errors
    /// TLS refuses an identity.
    pub fn endpoints(&self, controller: SocketAddr) -> Result<Vec<Endpoint>, HomeError> {
        let server_name = tls::server_name(Some(SNIKEY))?;
        let endpoint = |identity: &EndpointIdentity| {
            Ok(Endpoint {
                controllers: vec![controller],
                server_name: server_name.clone(),
                ..identity.endpoint(&[self.operator])?
            })
        };
        self.identities.iter().map(endpoint).collect()
    }
}

/// A new place in the system's directory for such things, under a name that nobody can foretell.
fn settings(surroundings: Surroundings) -> Result<Settings, HomeError> {
    let name = format!("{NAME_START}{:016x}", RandomState::new().hash_one("pktfleet"));
    let (not_before, not_after) = validity(VALIDITY);
    let program = ProgramFile {
        name: "pass_all.wasm".to_owned(),
        contents: PROGRAM.to_vec(),
        program: Program::from_wasm(PROGRAM)?,
    };
    Ok(Settings {
        directory: home::vacant_place(&std::env::temp_dir().join(name))?,
        not_before,
        not_after,
        snikey: Some(SniKey::parse(SNIKEY)?),
        program: Some(program),
        broker: surroundings.broker,
        proxy_root: surroundings.proxy_root,
    })
}

/// Removes the homes beside this one whose processes were killed, as far as it can.
fn remove_deserted(home: &Path) {
    let Some(Ok(entries)) = home.parent().map(fs::read_dir) else { return };
    let own = Uid::effective().as_raw();
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        let is_finished = name.starts_with(NAME_START.as_bytes());
        // As `packetlab_home` calls one in the making.
        let is_unfinished =
            name.strip_prefix(b".").is_some_and(|name| name.starts_with(NAME_START.as_bytes()));
        let Ok(found) = path.symlink_metadata() else { continue };
        if !(is_finished || is_unfinished) || !found.is_dir() || found.uid() != own {
            continue;
        }
        let is_deserted = match is_unfinished {
            true => found.modified().is_ok_and(|at| at.elapsed().is_ok_and(|age| age > MAKING_MAX)),
            // What has no lock is to be kept, or has just been made.
            false => File::open(path.join(LOCK)).is_ok_and(|lock| lock.try_lock().is_ok()),
        };
        if is_deserted {
            let _ = fs::remove_dir_all(&path);
        }
    }
}

/// A directory for the run, removed when dropped.
#[derive(Debug)]
struct Directory {
    path: PathBuf,
    keep: bool,
    /// That of the file [`LOCK`], once it is there; there is none if the directory is to be kept.
    lock: Option<File>,
}

impl Directory {
    /// Says to others that this process is there, and removes it.
    fn lock(&mut self) -> io::Result<()> {
        // Found under its name when it is locked, and not before.
        let [path, unlocked] = [LOCK, "unlocked"].map(|name| self.path.join(name));
        let file = File::create_new(&unlocked)?;
        file.lock()?;
        fs::rename(unlocked, path)?;
        self.lock = Some(file);
        Ok(())
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            let path = self.path.display();
            // Where nobody reads standard error, nobody can be told.
            let _ = writeln!(io::stderr(), "demo: {path} cannot be removed: {error}");
        }
    }
}

#[cfg(test)]
impl Home {
    /// The program that its controller supplies.
    pub fn program() -> Program {
        Program::from_wasm(PROGRAM).unwrap()
    }

    /// The controller's chain, its key and the operator's key, as `pktxpmgr` would read them.
    pub fn controller(&self) -> (Vec<Certificate>, PrivateKey, PublicKey) {
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
    use packetlab::time::Ticks;
    use packetlab::trust::{TrustMode, verify_chain};
    use std::collections::HashSet;
    use std::net::IpAddr;
    use std::os::unix::fs::PermissionsExt;
    use std::time::SystemTime;

    #[test]
    fn the_controllers_chain_verifies_and_demands_the_program_in_the_home() {
        let home = Home::create(1, false, Surroundings::default()).unwrap();
        let now = Ticks::from_system_time(SystemTime::now());
        let mode = TrustMode::EndpointAuthenticatesController;
        let (chain, key, operator) = home.controller();
        assert_eq!(operator, home.operator);
        let verified = verify_chain(&chain, &[operator], mode, now).unwrap();
        let file = fs::read(home.directory.path.join("progs/pass_all.wasm")).unwrap();
        let program = Program::from_wasm(&file).unwrap();
        assert_eq!(verified.monitor_digests().collect::<Vec<_>>(), [*program.digest()]);
        assert_eq!(verified.leaf().unwrap().subject_key, key.public_key());
    }

    #[test]
    fn the_program_of_a_home_is_the_one_whose_text_is_beside_it() {
        let text = include_str!("../monitors/wat/pass_all.wat");
        assert_eq!(PROGRAM, wat::parse_str(text).unwrap());
    }

    #[test]
    fn every_endpoint_has_its_own_key_address_and_verifying_certificate() {
        let home = Home::create(300, false, Surroundings::default()).unwrap();
        let now = Ticks::from_system_time(SystemTime::now());
        let mode = TrustMode::ControllerAuthenticatesEndpoint;
        let (mut keys, mut addresses) = (HashSet::new(), HashSet::new());
        for identity in home.identities() {
            let chain = std::slice::from_ref(&identity.certificate);
            assert!(verify_chain(chain, &[home.operator], mode, now).is_ok());
            assert_eq!(identity.agent.key.public_key(), identity.certificate.subject_key);
            keys.insert(identity.key_id().to_string());
            addresses.insert(identity.address);
        }
        assert_eq!((keys.len(), addresses.len()), (300, 300));
        assert_eq!(home.identities()[0].address, IpAddr::from([127, 1, 0, 1]));
        assert_eq!(home.identities()[299].address, IpAddr::from([127, 1, 1, 44]));
    }

    #[test]
    fn the_directory_is_private_and_goes_with_the_home_unless_kept() {
        let home = Home::create(1, false, Surroundings::default()).unwrap();
        let path = home.directory.path.clone();
        let mode = |name: &str| fs::metadata(path.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(""), mode("keys/k_xc")), (0o700, 0o600));
        assert_eq!(home.config_path(), path.join("xpmgr.conf"));
        drop(home);
        assert!(!path.exists());

        let home = Home::create(1, true, Surroundings::default()).unwrap();
        let path = home.directory.path.clone();
        drop(home);
        assert!(path.join("xpmgr.conf").exists());
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn the_next_home_takes_away_those_whose_processes_were_killed_and_no_others() {
        let home = |keep| Home::create(1, keep, Surroundings::default()).unwrap();
        let path = |home: &Home| home.directory.path.clone();
        let (used, kept, mut left) = (home(false), home(true), home(false));
        let places = [&used, &kept, &left].map(path);
        assert!(places[2].join(LOCK).exists());
        drop(kept);
        // As the kernel does it; from here on any other test may take it away.
        drop(left.directory.lock.take());
        std::mem::forget(left);
        drop(home(false));
        assert_eq!(places.each_ref().map(|place| place.exists()), [true, true, false]);
        fs::remove_dir_all(&places[1]).unwrap();
    }

    #[test]
    fn the_next_home_takes_away_what_was_being_made_a_minute_ago() {
        let place = |age| {
            let name = format!(".{NAME_START}{:016x}.0", RandomState::new().hash_one(age));
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(path.join("keys")).unwrap();
            let at = SystemTime::now() - age;
            File::open(&path).unwrap().set_modified(at).unwrap();
            path
        };
        let places = [MAKING_MAX / 2, MAKING_MAX * 2].map(place);
        drop(Home::create(1, false, Surroundings::default()).unwrap());
        assert_eq!(places.each_ref().map(|place| place.exists()), [true, false]);
        fs::remove_dir_all(&places[0]).unwrap();
    }
}
