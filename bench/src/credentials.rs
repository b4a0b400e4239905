//! Who sessions of benchmarks are between: the controller and the endpoint of the golden credentials (spec/protocol.md 8).
//!
//! Fixed ones, so that no count depends on what was drawn. Not here: the conversation (`endpoint.rs`).

use std::sync::Arc;
use std::time::Duration;

use engine::config::{
    Approach, Config, EndpointChoice, Experiment, Io, Judging, Limits, MletIo, Recording,
};
use engine::proto::experiments::Experiments;
use engine::proto::keys::Keys;
use packetlab::certificate::Certificate;
use packetlab::key::{PrivateKey, PublicKey};
use packetlab::program::Programs;
use packetlab::snikey::SniKey;
use packetlab::time::Ticks;
use packetlab::tls::{self, ClientConfig, Identity, PeerRule};
use packetlab::trust::TrustMode;

/// A time at which all of them are valid.
pub const NOW: Ticks = Ticks(1_790_000_000_000_000_000);

/// Under which endpoints ask for the experiment.
pub const SNIKEY: &str = "bench";

macro_rules! golden {
    ($file:literal) => {
        include_bytes!(concat!("../../engine/testdata/credentials/", $file))
    };
}

/// The operator's key, which is the anchor of either chain.
///
/// # Panics
/// Never: the file is well formed.
#[must_use]
pub fn operator() -> PublicKey {
    private_key(golden!("keys/eop")).public_key()
}

/// What the controller presents: its own certificate and the operator's permission.
///
/// # Panics
/// Never: the files are well formed.
#[must_use]
pub fn controller_chain() -> Vec<Certificate> {
    vec![
        certificate(golden!("pubcmd_exper_xc.cert")),
        certificate(golden!("exppriv_eop_exper.cert")),
    ]
}

/// What the endpoint presents, signed by its operator.
///
/// # Panics
/// Never: the file is well formed.
#[must_use]
pub fn endpoint_chain() -> Vec<Certificate> {
    vec![certificate(golden!("subcmd_eop_ep.cert"))]
}

/// One experiment, which takes the operator's endpoints.
///
/// # Panics
/// Never: key and chain fit together.
#[must_use]
pub fn experiments() -> Arc<Experiments> {
    let experiment = Experiment {
        line: 1,
        is_default: false,
        snikey: SniKey::parse(SNIKEY).expect("a good name"),
        chain: controller_chain(),
        trusted_operators: vec![operator()],
        verified: None,
        channels: Vec::new(),
        overrides: Vec::new(),
    };
    let config = Config {
        controller_key: Arc::new(private_key(golden!("keys/xc"))),
        experiments: vec![experiment],
        programs: Arc::new(Programs::default()),
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
        limits: Limits::default(),
    };
    let experiments = Experiments::new(&config, Keys::new(None), NOW);
    Arc::new(experiments.expect("the key of the chain"))
}

/// The endpoint's side of TLS.
///
/// # Panics
/// Never: key and chain fit together.
#[must_use]
pub fn endpoint_config() -> Arc<ClientConfig> {
    let key = private_key(golden!("keys/ep"));
    let chain = endpoint_chain();
    let rule = PeerRule {
        mode: TrustMode::EndpointAuthenticatesController,
        anchors: vec![operator()],
        mandatory: true,
    };
    tls::client_config(Some(&Identity { chain: &chain, key: &key }), rule)
        .expect("the key of the chain")
}

fn certificate(pem: &[u8]) -> Certificate {
    Certificate::from_pem(pem).expect("a golden certificate")
}

fn private_key(pem: &[u8]) -> PrivateKey {
    PrivateKey::from_pem(pem, None).expect("a golden key")
}
