//! Who the sessions of the tests are between: the golden controller and endpoint (spec/protocol.md 8).

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::{ClientConfig, ClientConnection};

use crate::config::{
    Approach, Config, EndpointChoice, Experiment, Io, Judging, Limits, MletIo, Recording,
};
use crate::golden;
use crate::proto::endpoint_choice::Choice;
use crate::proto::experiments::Experiments;
use crate::proto::keys::Keys;
use packetlab::certificate::{Certificate, CertificateLimits};
use packetlab::issue::{CertificateFields, issue};
use packetlab::program::{Program, Programs};
use packetlab::snikey::SniKey;
use packetlab::time::Ticks;
use packetlab::tls::{self, Identity, PeerRule};
use packetlab::trust::TrustMode;

/// 2023, within the validity of all golden certificates.
pub(crate) const NOW: Ticks = Ticks(1_700_000_000_000_000_000);
/// 2040, when they have expired.
pub(crate) const TOO_LATE: Ticks = Ticks(2_208_988_800_000_000_000);
/// Another time limit for each wait, so that a test sees which one ran.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
pub(crate) const SETUP_TIMEOUT: Duration = Duration::from_secs(40);
pub(crate) const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
pub(crate) const LINGER_TIMEOUT: Duration = Duration::from_secs(5);

/// The snikey of the experiment with trusted operators.
pub(crate) const TRUSTING: &str = "trusting";
/// The snikey of the experiment that anonymous endpoints may join, which is the default one.
pub(crate) const OPEN: &str = "open";

/// Which experiments there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// [`TRUSTING`] and, as default, [`OPEN`].
    WithDefault,
    /// [`TRUSTING`] alone.
    WithoutDefault,
}

/// A program of `len` bytes.
pub(crate) fn program(len: usize) -> Program {
    Program::from_wasm(&vec![len as u8; len]).unwrap()
}

/// The experiments, whose chains demand `programs` of `supplied` ones.
pub(crate) fn experiments(
    stage: Stage,
    demanded: &[Program],
    supplied: &[Program],
) -> Arc<Experiments> {
    experiments_within(limits(), stage, demanded, supplied)
}

/// The limits of the tests.
pub(crate) fn limits() -> Limits {
    Limits {
        handshake_timeout: HANDSHAKE_TIMEOUT,
        setup_timeout: SETUP_TIMEOUT,
        drain_timeout: DRAIN_TIMEOUT,
        linger_timeout: LINGER_TIMEOUT,
        linfo_max: 8,
        ..Limits::default()
    }
}

/// As [`experiments`], within other limits.
pub(crate) fn experiments_within(
    limits: Limits,
    stage: Stage,
    demanded: &[Program],
    supplied: &[Program],
) -> Arc<Experiments> {
    let mut programs = Programs::default();
    supplied.iter().for_each(|program| programs.insert(program.clone()));
    let mut experiments = vec![experiment(TRUSTING, false, demanded)];
    if stage == Stage::WithDefault {
        experiments.push(experiment(OPEN, true, demanded));
    }
    let config = Config { experiments, programs: Arc::new(programs), limits, ..config() };
    Arc::new(Experiments::new(&config, Keys::new(None), NOW).unwrap())
}

/// A run without experiments.
pub(crate) fn config() -> Config {
    Config {
        controller_key: Arc::new(golden::private_key("xc")),
        experiments: Vec::new(),
        programs: Arc::default(),
        approach: Approach::Passive { listen: Vec::new() },
        publications: Vec::new(),
        attempts: None,
        singleton: None,
        spin: Duration::ZERO,
        mlet_io: MletIo::Socket,
        io: Io::Auto,
        recording: Recording::default(),
        choice: EndpointChoice::default(),
        judging: Judging::default(),
        latency_sample: None,
        latency_log: None,
        messages: None,
        cores: vec![0],
        other_files: 0,
        limits: limits(),
    }
}

/// The same, each endpoint of which is measured once.
pub(crate) fn measured_once(mut experiments: Arc<Experiments>) -> Arc<Experiments> {
    let once = EndpointChoice { once: true, ..EndpointChoice::default() };
    Arc::get_mut(&mut experiments).unwrap().choice = Arc::new(Choice::new(&once));
    experiments
}

/// The experiments without programs, made once.
pub(crate) fn plain_experiments() -> Arc<Experiments> {
    static EXPERIMENTS: OnceLock<Arc<Experiments>> = OnceLock::new();
    Arc::clone(EXPERIMENTS.get_or_init(|| experiments(Stage::WithDefault, &[], &[])))
}

fn experiment(snikey: &str, is_default: bool, demanded: &[Program]) -> Experiment {
    let operators = if snikey == TRUSTING { vec![golden::public_key("eop")] } else { Vec::new() };
    Experiment {
        line: 1,
        is_default,
        snikey: SniKey::parse(snikey).unwrap(),
        chain: vec![golden::certificate("pubcmd_exper_xc"), privilege(demanded)],
        trusted_operators: operators,
        verified: None,
        channels: Vec::new(),
        overrides: Vec::new(),
    }
}

/// The operator's permission for the experimenter, with the programs it demands.
fn privilege(demanded: &[Program]) -> Certificate {
    let golden = golden::certificate("exppriv_eop_exper");
    if demanded.is_empty() {
        return golden;
    }
    let monitor = demanded.iter().map(|program| *program.digest()).collect();
    let fields = CertificateFields {
        limits: CertificateLimits { monitor, ..CertificateLimits::default() },
        ..CertificateFields::from(&golden)
    };
    let operator = golden::private_key("eop");
    Certificate::from_der(&issue(&fields, &golden.subject_key, &operator).unwrap()).unwrap()
}

/// What an endpoint presents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Login {
    /// The chain of the trusted operator.
    Operator,
    /// The same, without an end.
    Lasting,
    /// A chain that ends in a key nobody trusts here.
    Stranger,
    /// A chain of another kind.
    WrongKind,
    /// Nothing.
    Anonymous,
}

/// An endpoint's TLS, asking for `snikey`.
pub(crate) fn endpoint_tls(login: Login, snikey: Option<&str>) -> ClientConnection {
    let name = tls::server_name(snikey).unwrap();
    let mut tls = ClientConnection::new(client_config(login), name).unwrap();
    tls.set_buffer_limit(None);
    tls
}

fn client_config(login: Login) -> Arc<ClientConfig> {
    static CONFIGS: [OnceLock<Arc<ClientConfig>>; 5] = [const { OnceLock::new() }; 5];
    let make = || {
        let chain = match login {
            Login::Operator => Some(golden::certificate("subcmd_eop_ep")),
            Login::Lasting => Some(lasting(&golden::certificate("subcmd_eop_ep"))),
            Login::Stranger => Some(golden::certificate("subcmd_del_ep")),
            Login::WrongKind => Some(golden::certificate("agent_ep")),
            Login::Anonymous => None,
        };
        let key = golden::private_key("ep");
        let identity =
            chain.as_ref().map(|chain| Identity { chain: std::slice::from_ref(chain), key: &key });
        let rule = PeerRule {
            mode: TrustMode::EndpointAuthenticatesController,
            anchors: vec![golden::public_key("eop")],
            mandatory: true,
        };
        tls::client_config(identity.as_ref(), rule).unwrap()
    };
    Arc::clone(CONFIGS[login as usize].get_or_init(make))
}

fn lasting(certificate: &Certificate) -> Certificate {
    let fields =
        CertificateFields { not_after: Ticks::MAX, ..CertificateFields::from(certificate) };
    let operator = golden::private_key("eop");
    Certificate::from_der(&issue(&fields, &certificate.subject_key, &operator).unwrap()).unwrap()
}
