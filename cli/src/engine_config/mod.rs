//! Command line and config file to what the engine runs: names are resolved, keys, certificates and
//! programs read and checked, in the order of spec/pktxpmgr.md 3.1, so that the passphrase is asked for
//! only when everything that can be known before is known to be right.

mod address;
mod experiment;
mod programs;
mod publication;

#[cfg(test)]
mod tests;

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use cli::prompt::PromptError;
use cli::secret::{self, SecretError};
use command_line::cores::Cores;
use engine::config::{Approach, Config, EndpointChoice, Judging, Proxy, Recording};
use engine::sys::cpu;
use engine::sys::lack::Lack;
use nix::sys::signal::Signal;
use packetlab::address::HostPort;
use packetlab::certificate::{Certificate, CertificateError, CertificateType};
use packetlab::escape::Escaped;
use packetlab::key::{KeyError, PrivateKey, PublicKey};
use packetlab::program::Programs;
use packetlab::time::Ticks;
use packetlab_home::file;
use zeroize::Zeroizing;

use self::address::AddressError;
use crate::args::Args;
use crate::conf::{self, Complaint, Located, ProxySettings, Settings, Source};
use crate::exit::{Exit, Failure};

/// Largest config, certificate or public key file.
const FILE_LEN_MAX: u64 = 16 << 20;

/// Loads everything that the command line and the config file name.
///
/// # Errors
/// Anything missing or wrong, with the exit code that belongs to it.
pub(crate) fn load(args: &Args, now: SystemTime) -> Result<Config, Failure> {
    let allowed = cpu::allowed_cores()
        .map_err(Lack::when("find out which CPUs we may use (sched_getaffinity)"))?;
    let cores = Cores::choose(args.cores.as_ref(), &allowed)
        .map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
    let source = read_config(args)?;
    let settings = read_settings(&source)?;
    let loader = Loader { args, source: &source, now: Ticks::from_system_time(now) };

    let approach = loader.approach(settings.proxy)?;
    let publication = match settings.publication {
        Some(publication) => Some(loader.publication_addresses(publication, &approach)?),
        None => None,
    };
    let controller_key = Arc::new(loader.controller_key(&settings.controller_key)?);
    let owner = controller_key.public_key();
    let publication =
        publication.map(|publication| loader.publication(publication, &owner)).transpose()?;
    let approach = loader.approach_of(approach, &owner)?;
    let experiments = loader.experiments(settings.experiments, &owner, publication.is_some())?;
    let programs = match &settings.program_directory {
        Some(directory) => loader.programs(directory)?,
        None => Programs::default(),
    };
    for experiment in &experiments {
        loader.warn_of_chain(experiment, &programs);
    }
    Ok(Config {
        controller_key,
        experiments,
        programs: Arc::new(programs),
        approach,
        publication,
        attempts: args.count.as_ref().and_then(|count| count.sessions),
        singleton: args.single,
        recording: Recording::default(),
        choice: EndpointChoice::default(),
        judging: Judging::default(),
        latency_sample: NonZeroU32::new(args.latency_sample),
        latency_log: args.latency.clone(),
        cores,
        io: args.io.into(),
        limits: args.limits(),
    })
}

/// The file of `-c`, or the usual one (spec/pktxpmgr.md 1.2).
pub(crate) fn config_path(args: &Args) -> PathBuf {
    match (&args.config, std::env::var_os("HOME")) {
        (Some(path), _) => path.clone(),
        (None, Some(home)) => {
            // Appended, not joined: an empty HOME means /.pktlab, as in the original.
            let mut path = home;
            path.push("/.pktlab/xpmgr.conf");
            path.into()
        }
        (None, None) => PathBuf::from("xpmgr.conf"),
    }
}

/// Opens it.
fn read_config(args: &Args) -> Result<Source, Failure> {
    let path = config_path(args);
    if args.config.is_none() && std::env::var_os("HOME").is_none() {
        tracing::warn!("HOME is not set, so there is no ~/.pktlab/xpmgr.conf");
        tracing::warn!("reading xpmgr.conf of the current directory instead; -c names another");
    }
    let text = file::read(&path, FILE_LEN_MAX).map_err(|error| {
        let shown = Escaped(path.as_os_str().as_bytes());
        let hint =
            if args.config.is_some() { "" } else { "; `pktcred init` makes one, -c names another" };
        Failure::new(Exit::Config, format!("cannot read the config file {shown}: {error}{hint}"))
    })?;
    Ok(Source { path, text: text.to_vec() })
}

fn read_settings(source: &Source) -> Result<Settings, Failure> {
    let outcome = conf::read(source);
    for warning in &outcome.warnings {
        tracing::warn!("{}", source.one_line(warning));
    }
    outcome.settings.map_err(|complaints| {
        let shown: Vec<_> =
            complaints.iter().map(|complaint| source.with_caret(complaint)).collect();
        Failure::new(Exit::Config, shown.join("\n"))
    })
}

/// Where endpoints reach us, before any key is read.
enum ApproachAddresses {
    Passive { listen: Vec<SocketAddr> },
    Proxy { name: HostPort, addresses: Vec<SocketAddr>, settings: ProxySettings },
}

/// What every step of loading needs.
struct Loader<'a> {
    args: &'a Args,
    source: &'a Source,
    now: Ticks,
}

impl Loader<'_> {
    /// Resolves `-a`: where to listen, or the proxy.
    fn approach(&self, proxy: Option<ProxySettings>) -> Result<ApproachAddresses, Failure> {
        let text = self.args.addr.as_deref().unwrap_or_default();
        let failure = |exit, error: &dyn std::fmt::Display| {
            Failure::new(exit, format!("-a {}: {error}", shown(text)))
        };
        let unusable = |error: AddressError| failure(Exit::Listen, &error);
        let name = self.args.addr.as_deref().map(HostPort::parse).transpose();
        let name = name.map_err(|error| failure(Exit::Usage, &error))?;
        let Some(settings) = proxy else {
            let default = (Ipv4Addr::UNSPECIFIED, address::EXPERIMENT_PORT).into();
            let Some(name) = name else {
                return Ok(ApproachAddresses::Passive { listen: vec![default] });
            };
            let found = address::resolve_to_listen(&name).map_err(unusable)?;
            return Ok(ApproachAddresses::Passive { listen: usable(text, found)? });
        };
        let Some(name) = name else {
            let message = "EnableProxyMode 1 needs the proxy's address; add -a HOST[:PORT]";
            return Err(Failure::new(Exit::Usage, message));
        };
        let addresses = address::resolve(&name, address::PROXY_PORT);
        let addresses = addresses.map_err(unusable)?;
        Ok(ApproachAddresses::Proxy { name, addresses, settings })
    }

    fn controller_key(&self, path: &Located<PathBuf>) -> Result<PrivateKey, Failure> {
        secret::private_key(&path.value, self.args.passphrase_file.as_deref()).map_err(|error| {
            let exit = match &error {
                SecretError::Prompt(PromptError::Interrupted(Signal::SIGINT)) => Exit::Interrupted,
                SecretError::Prompt(PromptError::Interrupted(_)) => Exit::Terminated,
                _ => Exit::Config,
            };
            let problem = format!("the controller key cannot be used: {error}");
            if error.is_of_the_passphrase() {
                let hint = match &error {
                    SecretError::Prompt(PromptError::NoTerminal(_)) => {
                        "; give it with --passphrase-file"
                    }
                    _ => "",
                };
                return Failure::new(exit, problem + hint);
            }
            let advice = match &error {
                SecretError::Key(KeyError::WrongPassphrase) => {
                    "try again; of --passphrase-file the first line counts, blanks included"
                }
                _ => "ControllerPrivkeyPath is a PKCS#8 PEM file with an Ed25519 key, encrypted or not",
            };
            Failure::new(exit, self.source.with_caret(&path.complain(problem, advice)))
        })
    }

    fn approach_of(
        &self,
        approach: ApproachAddresses,
        owner: &PublicKey,
    ) -> Result<Approach, Failure> {
        let (name, addresses, settings) = match approach {
            ApproachAddresses::Passive { listen } => return Ok(Approach::Passive { listen }),
            ApproachAddresses::Proxy { name, addresses, settings } => (name, addresses, settings),
        };
        let certificate = settings.agent_certificate.as_ref();
        if settings.proxy_roots.is_empty() {
            tracing::warn!(
                "without ProxyCertRootPath the signature of the proxy's certificate is not checked"
            );
        }
        Ok(Approach::Proxy(Box::new(Proxy {
            addresses,
            name: name.to_string(),
            certificate: certificate.map(|path| self.agent_certificate(path, owner)).transpose()?,
            proxy_roots: self.public_keys(&settings.proxy_roots)?,
            backlog_target: settings.backlog_target,
            step_timeout: settings.step_timeout,
            bootstrap_timeout: settings.bootstrap_timeout,
        })))
    }

    /// An agent certificate must be one, and belong to the controller key. That it may still be
    /// refused by whom it is shown to is only warned of, as the peer's clock decides it.
    fn agent_certificate(
        &self,
        path: &Located<PathBuf>,
        owner: &PublicKey,
    ) -> Result<Certificate, Failure> {
        let certificate = self.certificate(path)?;
        if certificate.subject_key_id != owner.key_id() {
            let problem = "this certificate does not belong to the controller key";
            return Err(
                self.fail(&path.complain(problem, "name the one issued for ControllerPrivkeyPath"))
            );
        }
        if certificate.certificate_type != CertificateType::Agent {
            let kind = certificate.certificate_type;
            let problem = format!(
                "this is a certificate of type {kind}, and every peer refuses it as an agent's"
            );
            let advice = "name one of type agent; `pktcred sign agent` makes it";
            return Err(self.fail(&path.complain(problem, advice)));
        }
        if !certificate.is_valid_at(self.now) {
            let flaw = "now is not within its dates";
            let complaint = path.complain("the agent certificate will be refused", flaw);
            tracing::warn!("{}", self.source.one_line(&complaint));
        }
        Ok(certificate)
    }

    /// The one certificate in a file.
    fn certificate(&self, path: &Located<PathBuf>) -> Result<Certificate, Failure> {
        Certificate::from_pem(&self.file(path)?).map_err(|error| self.no_certificate(path, &error))
    }

    /// Every certificate in these files, each with the name of its file, escaped.
    fn certificates(
        &self,
        paths: &[Located<PathBuf>],
    ) -> Result<Vec<(Certificate, String)>, Failure> {
        let mut all = Vec::new();
        for path in paths {
            let listed = Certificate::list_from_pem(&self.file(path)?);
            let listed = listed.map_err(|error| self.no_certificate(path, &error))?;
            let file = Escaped(path.value.as_os_str().as_bytes()).to_string();
            all.extend(listed.into_iter().map(|certificate| (certificate, file.clone())));
        }
        Ok(all)
    }

    fn no_certificate(&self, path: &Located<PathBuf>, error: &CertificateError) -> Failure {
        let problem = format!("this is no PacketLab certificate: {error}");
        self.fail(&path.complain(problem, "name a PEM file with a CERTIFICATE"))
    }

    /// Every public key in these files.
    fn public_keys(&self, paths: &[Located<PathBuf>]) -> Result<Vec<PublicKey>, Failure> {
        let mut all = Vec::new();
        for path in paths {
            let listed = PublicKey::list_from_pem(&self.file(path)?);
            all.extend(listed.map_err(|error| {
                let problem = format!("this is no public key: {error}");
                self.fail(&path.complain(problem, "name a PEM file with an Ed25519 PUBLIC KEY"))
            })?);
        }
        Ok(all)
    }

    fn programs(&self, path: &Located<PathBuf>) -> Result<Programs, Failure> {
        programs::load(&path.value).map_err(|error| {
            let problem = format!("cannot read the program directory: {error}");
            self.fail(&path.complain(problem, "make it readable, or remove the line"))
        })
    }

    fn file(&self, path: &Located<PathBuf>) -> Result<Zeroizing<Vec<u8>>, Failure> {
        file::read(&path.value, FILE_LEN_MAX).map_err(|error| {
            let shown = Escaped(path.value.as_os_str().as_bytes());
            self.fail(&path.complain(format!("cannot read {shown}: {error}"), "make it readable"))
        })
    }

    fn fail(&self, complaint: &Complaint) -> Failure {
        Failure::new(Exit::Config, self.source.with_caret(complaint))
    }
}

/// Keeps the addresses on which this machine can listen; there must be one.
fn usable(text: &str, addresses: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Failure> {
    let mut listen = Vec::new();
    let mut last_error = String::new();
    for address in addresses {
        match address::is_ours(address) {
            Ok(()) => listen.push(address),
            Err(error) if Lack::is_why(&error) => {
                return Err(Lack::new("bind a socket (socket, bind)", error).into());
            }
            Err(error) => last_error = format!("cannot listen on {address}: {error}"),
        }
    }
    let text = shown(text);
    if listen.is_empty() {
        let message = format!("-a {text}: {last_error}; name an address of this machine");
        return Err(Failure::new(Exit::Listen, message));
    }
    if !last_error.is_empty() {
        tracing::warn!("-a {text}: {last_error}; listening on the other addresses");
    }
    Ok(listen)
}

/// An option as a message repeats it.
fn shown(text: &str) -> String {
    Escaped(text.as_bytes()).cut(200)
}
