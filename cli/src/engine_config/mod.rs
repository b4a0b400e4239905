//! Command line and config file to what the engine runs: names are resolved, keys, certificates and
//! programs read and checked, in the order of spec/pktxpmgr.md 3.1, so that the passphrase is asked for
//! only when everything that can be known before is known to be right.
//!
//! For a check the same is done, but it goes on to the end whatever it finds, and leaves the network alone.

pub(crate) mod address;
mod approach;
mod controller_key;
mod experiment;
mod kept;
pub(crate) mod of_campaign;
mod programs;
mod publication;
mod purpose;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use command_line::cores::Cores;
use engine::config::{
    Approach, Config, EndpointChoice, Experiment, Judging, Publication, Recording,
};
use engine::sys::cpu;
use engine::sys::lack::Lack;
use packetlab::certificate::{Certificate, CertificateError, CertificateType};
use packetlab::escape::Escaped;
use packetlab::key::{KeyId, PrivateKey, PublicKey};
use packetlab::program::Programs;
use packetlab::time::Ticks;
use packetlab_home::file;
use zeroize::Zeroizing;

pub(crate) use self::kept::Kept;
pub(crate) use self::purpose::Purpose;
use crate::args::Args;
use crate::conf::{self, Complaint, Located, Place, Settings, Source};
use crate::ctl;
use crate::exit::{Exit, Failure};
use crate::findings::Findings;
use crate::monitoring::CONNECTIONS_MAX;

/// Largest config, certificate or public key file.
const FILE_LEN_MAX: u64 = 16 << 20;

/// How long before its end a certificate is warned of.
const EXPIRY_NOTICE: Duration = Duration::from_secs(7 * 86_400);

/// The same of one that ends before the publication. A year is what `pktcred` gives both by default, so that every
/// certificate of yesterday ends before every publication of today, and nobody could do anything about it.
const PUBLICATION_NOTICE: Duration = Duration::from_secs(30 * 86_400);

/// Everything that the command line and the config file name.
pub(crate) struct Loaded {
    /// What is run.
    pub(crate) config: Config,
    /// The config file.
    pub(crate) path: PathBuf,
    /// Lines of the `ExpExec` entries whose snikey was drawn at random.
    pub(crate) drawn_snikeys: Vec<usize>,
}

/// Loads everything that the command line and the config file name, of a run to whose `listening` sockets, if there are any,
/// endpoints come; `None` if anything is missing or wrong, which is
/// among the findings with the exit code that belongs to it. What is `kept` of what was loaded before is not made again.
///
/// # Errors
/// A signal came instead of the passphrase, or it cannot be found out what this process may use.
pub(crate) fn load(
    args: &Args,
    now: SystemTime,
    (purpose, listening): (Purpose, &[SocketAddr]),
    kept: &mut Kept,
    findings: &mut Findings,
) -> Result<Option<Loaded>, Failure> {
    let allowed = cpu::allowed_cores()
        .map_err(Lack::when("find out which CPUs we may use (sched_getaffinity)"))?;
    let cores = Cores::choose(args.cores.as_ref(), &allowed)
        .map_err(|error| Failure::new(Exit::Usage, error.to_string()));
    let cores = findings.keep(cores);
    let Some(source) = findings.keep(read_config(args)) else { return Ok(None) };
    let Some(settings) = settings_of(&source, conf::read(&source), findings) else {
        return Ok(None);
    };
    let now = Ticks::from_system_time(now);
    let period = settings.publication.as_ref().and_then(|publication| publication.period);
    if settings.publication.is_none() {
        kept.unpublished();
    }
    let publication_end = period.map(|period| kept.published_since(now).saturating_add(period));
    let mut loader = Loader {
        args,
        source: &source,
        now,
        publication_end,
        purpose,
        listening,
        kept,
        findings,
        drawn_snikeys: Vec::new(),
    };
    let named = loader.load(settings)?;
    let drawn_snikeys = loader.drawn_snikeys;
    // Of what is wrong nothing is run, though it could be read.
    let config = named.zip(cores).filter(|_| findings.is_empty()).map(|(named, cores)| Config {
        controller_key: named.controller_key,
        experiments: named.experiments,
        programs: Arc::new(named.programs),
        approach: named.approach,
        publications: named.publications,
        attempts: args.count.as_ref().and_then(|count| count.sessions),
        singleton: args.singleton(),
        recording: Recording::default(),
        choice: EndpointChoice::default(),
        judging: Judging::default(),
        latency_sample: NonZeroU32::new(args.latency_sample),
        latency_log: args.latency.clone(),
        messages: args.messages(),
        cores,
        spin: args.spin,
        mlet_io: args.mlet_io.into(),
        io: args.io.into(),
        other_files: args.metrics.as_ref().map_or(0, |_| CONNECTIONS_MAX)
            + args.ctl.as_ref().map_or(0, |_| ctl::CONNECTIONS_MAX),
        limits: args.limits(),
    });
    Ok(config.map(|config| Loaded { config, path: source.path, drawn_snikeys }))
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

fn settings_of(
    source: &Source,
    outcome: conf::Outcome,
    findings: &mut Findings,
) -> Option<Settings> {
    for warning in &outcome.warnings {
        findings.warn(source.one_line(warning));
    }
    for complaint in &outcome.errors {
        findings.add(Failure::new(Exit::Config, source.with_caret(complaint)));
    }
    outcome.settings
}

/// What the config file names, read.
struct Named {
    controller_key: Arc<PrivateKey>,
    experiments: Vec<Experiment>,
    programs: Programs,
    approach: Approach,
    publications: Vec<Publication>,
}

/// What every step of loading needs.
struct Loader<'a> {
    args: &'a Args,
    source: &'a Source,
    now: Ticks,
    /// When the publication ends of what does not override it; `None` is never, or that nothing is published.
    publication_end: Option<Ticks>,
    purpose: Purpose,
    /// Sockets of the init system's.
    listening: &'a [SocketAddr],
    kept: &'a mut Kept,
    findings: &'a mut Findings,
    drawn_snikeys: Vec<usize>,
}

impl Loader<'_> {
    /// `None` if something is missing or wrong.
    fn load(&mut self, settings: Settings) -> Result<Option<Named>, Failure> {
        if self.has_failed() {
            return Ok(None);
        }
        let approach = self.approach(settings.proxy.is_some());
        let publishes = settings.publication.is_some();
        let addressed = settings.publication.map(|publication| {
            let told = (approach.as_ref(), &settings.experiments[..]);
            self.publication_addresses(publication, told)
        });
        if self.has_failed() {
            return Ok(None);
        }
        let controller_key = match &settings.controller_key {
            Some(path) => self.controller_key(path)?,
            None => None,
        };
        if self.has_failed() {
            return Ok(None);
        }
        let owner = controller_key.as_ref().map(|key| key.public_key().key_id());
        // What is not published needs nothing.
        let publications = match addressed {
            Some(addressed) => self.publications(addressed, owner.as_ref()),
            None => Some(Vec::new()),
        };
        let approach = self.approach_of(approach, settings.proxy, owner.as_ref());
        let experiments = self.experiments(settings.experiments, owner.as_ref(), publishes);
        let programs = match &settings.program_directory {
            Some(directory) => self.programs(directory),
            None => Some(Programs::default()),
        };
        if let Some(programs) = &programs {
            experiments.iter().flatten().for_each(|one| self.warn_of_chain(one, programs));
        }
        let all = || {
            Some(Named {
                controller_key: controller_key?,
                experiments: experiments.into_iter().collect::<Option<_>>()?,
                programs: programs?,
                approach: approach?,
                publications: publications?,
            })
        };
        Ok(all())
    }

    /// Whether there is no next step.
    fn has_failed(&self) -> bool {
        self.purpose.is_a_run() && !self.findings.is_empty()
    }

    /// An agent certificate must be one, and belong to the controller key. That it may still be
    /// refused by whom it is shown to is only warned of, as the peer's clock decides it.
    fn agent_certificate(
        &mut self,
        path: &Located<PathBuf>,
        owner: Option<&KeyId>,
    ) -> Option<Certificate> {
        let read = self.certificate(path);
        let certificate = self.findings.keep(read)?;
        let is_ours = owner.is_none_or(|owner| certificate.subject_key_id == *owner);
        if !is_ours {
            let problem = "this certificate does not belong to the controller key";
            let advice = "name the one issued for ControllerPrivkeyPath";
            self.findings.add(self.fail(&path.complain(problem, advice)));
        }
        let kind = certificate.certificate_type;
        let is_agent = kind == CertificateType::Agent;
        if !is_agent {
            let problem = format!(
                "this is a certificate of type {kind}, and every peer refuses it as an agent's"
            );
            let advice = "name one of type agent; `pktcred sign agent` makes it";
            self.findings.add(self.fail(&path.complain(problem, advice)));
        }
        if !is_ours || !is_agent {
            return None;
        }
        if !certificate.is_valid_at(self.now) {
            let flaw = "now is not within its dates";
            let complaint = path.complain("the agent certificate will be refused", flaw);
            tracing::warn!("{}", self.source.one_line(&complaint));
        }
        let file = Escaped(path.value.as_os_str().as_bytes()).to_string();
        self.tell_of_expiry(path.place, &certificate, &file, self.publication_end);
        Some(certificate)
    }

    /// Tells of a certificate that is valid now and not for long, or not `until` then; `None` is no such time.
    fn tell_of_expiry(
        &self,
        place: Place,
        certificate: &Certificate,
        file: &str,
        until: Option<Ticks>,
    ) {
        let end = certificate.not_after;
        let until = until.filter(|until| *until != Ticks::MAX && end < *until);
        let before = match until {
            _ if end < self.now => return,
            Some(until) => format!("before the publication, which ends at {}", until.date()),
            None if end < self.now.saturating_add(EXPIRY_NOTICE) => "within 7 days".into(),
            None => return,
        };
        let kind = certificate.certificate_type;
        let problem =
            format!("the {kind} certificate of {file} expires at {}, {before}", end.date());
        let complaint =
            Complaint { place: Some(place), problem, advice: "have it renewed in time".into() };
        let line = self.source.one_line(&complaint);
        match end < self.now.saturating_add(PUBLICATION_NOTICE) {
            true => tracing::warn!("{line}"),
            false => tracing::info!("{line}"),
        }
    }

    /// The one certificate in a file.
    fn certificate(&self, path: &Located<PathBuf>) -> Result<Certificate, Failure> {
        Certificate::from_pem(&self.file(path)?).map_err(|error| self.no_certificate(path, &error))
    }

    /// Every certificate in these files, each with the name of its file, escaped.
    fn certificates(&mut self, paths: &[Located<PathBuf>]) -> Option<Vec<(Certificate, String)>> {
        self.all_of(paths, |loader, path| {
            let listed = Certificate::list_from_pem(&loader.file(path)?);
            let listed = listed.map_err(|error| loader.no_certificate(path, &error))?;
            let file = Escaped(path.value.as_os_str().as_bytes()).to_string();
            Ok(listed.into_iter().map(|certificate| (certificate, file.clone())).collect())
        })
    }

    /// What all of these files hold; a finding for each that cannot be read.
    fn all_of<T>(
        &mut self,
        paths: &[Located<PathBuf>],
        read: fn(&Self, &Located<PathBuf>) -> Result<Vec<T>, Failure>,
    ) -> Option<Vec<T>> {
        let mut all = Some(Vec::new());
        for path in paths {
            let listed = read(self, path);
            all = all.zip(self.findings.keep(listed)).map(|(mut all, listed)| {
                all.extend(listed);
                all
            });
        }
        all
    }

    fn no_certificate(&self, path: &Located<PathBuf>, error: &CertificateError) -> Failure {
        let problem = format!("this is no PacketLab certificate: {error}");
        self.fail(&path.complain(problem, "name a PEM file with a CERTIFICATE"))
    }

    /// Every public key in these files.
    fn public_keys(&mut self, paths: &[Located<PathBuf>]) -> Option<Vec<PublicKey>> {
        self.all_of(paths, |loader, path| {
            PublicKey::list_from_pem(&loader.file(path)?).map_err(|error| {
                let problem = format!("this is no public key: {error}");
                loader.fail(&path.complain(problem, "name a PEM file with an Ed25519 PUBLIC KEY"))
            })
        })
    }

    fn programs(&mut self, path: &Located<PathBuf>) -> Option<Programs> {
        let loaded = programs::load(&path.value).map_err(|error| {
            let problem = format!("cannot read the program directory: {error}");
            self.fail(&path.complain(problem, "make it readable, or remove the line"))
        });
        self.findings.keep(loaded)
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

/// An option as a message repeats it.
fn shown(text: &str) -> String {
    Escaped(text.as_bytes()).cut(200)
}
