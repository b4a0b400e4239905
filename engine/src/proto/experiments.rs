//! What every session of a run shares: the experiments with their TLS configurations and programs.
//!
//! Built at start and at each reload. But for the counts of sessions by key, who has been measured, and what endpoints have
//! logged, which all of a run's share, it never changes, so that shards share it without locks. A session keeps the one it
//! began with.

use std::sync::Arc;

use super::endpoint_choice::Choice;
use super::keys::Keys;
use super::linfo::LinfoBudget;
use crate::config::{Config, Experiment, ExperimentId, Limits, PerExperiment};
use packetlab::certificate::Certificate;
use packetlab::program::{Program, Programs};
use packetlab::snikey::SniKey;
use packetlab::time::Ticks;
use packetlab::tls::{self, Identity, PeerRule, ServerConfig, SetupError};
use packetlab::trust::{ChainError, TrustMode, VerifiedChain, verify_chain};

/// The experiments of a run, ready to be served.
pub struct Experiments {
    entries: Arc<PerExperiment<ServedExperiment>>,
    /// Deadlines and sizes.
    pub limits: Limits,
    /// How many sessions each endpoint key has.
    pub keys: Arc<Keys>,
    /// Which endpoints are measured.
    pub choice: Arc<Choice>,
    /// What endpoints may log.
    pub linfo_budget: Arc<LinfoBudget>,
}

/// One experiment, ready to be served.
pub struct ServedExperiment {
    /// Name under which endpoints ask for it.
    pub snikey: SniKey,
    /// Serves endpoints that send no SNI.
    pub is_default: bool,
    /// Our side of TLS.
    pub tls: Arc<ServerConfig>,
    /// Monitor programs to submit, in order (spec/pktxpmgr.md 7.2).
    pub programs: Arc<[Program]>,
    /// As presented.
    pub chain: Vec<Certificate>,
    verified: Option<VerifiedChain>,
}

impl Experiments {
    /// Prepares every experiment of `config`; `keys` counts the sessions of each endpoint key.
    ///
    /// # Errors
    /// The controller key and a chain do not fit together.
    pub fn new(config: &Config, keys: Arc<Keys>, now: Ticks) -> Result<Self, SetupError> {
        let linfo_budget = Arc::new(LinfoBudget::new(&config.limits));
        let choice = Arc::new(Choice::new(&config.choice));
        let (entries, limits) = (entries(config, now)?, config.limits.clone());
        Ok(Self { entries, limits, keys, choice, linfo_budget })
    }

    /// Prepares the experiments of `config` in the place of these. Whatever is no part of an experiment remains.
    ///
    /// # Errors
    /// As of [`Self::new`].
    pub fn reloaded(&self, config: &Config, now: Ticks) -> Result<Self, SetupError> {
        Ok(Self { entries: entries(config, now)?, ..self.within(self.limits.clone()) })
    }

    /// The same within other limits.
    #[must_use]
    pub fn within(&self, limits: Limits) -> Self {
        Self {
            entries: Arc::clone(&self.entries),
            limits,
            keys: Arc::clone(&self.keys),
            choice: Arc::clone(&self.choice),
            linfo_budget: Arc::clone(&self.linfo_budget),
        }
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &ServedExperiment> {
        self.entries.iter()
    }

    /// Whether one of them has this snikey.
    pub fn serves(&self, snikey: &SniKey) -> bool {
        self.entries.iter().any(|entry| entry.snikey == *snikey)
    }

    /// The experiment for a server name, or the default one for none (spec/protocol.md 3.4).
    pub fn choose(&self, server_name: Option<&str>) -> Option<ExperimentId> {
        self.entries.find(|entry| match server_name {
            Some(name) => entry.snikey.as_str() == name,
            None => entry.is_default,
        })
    }

    /// An experiment of this run.
    pub fn experiment(&self, id: ExperimentId) -> &ServedExperiment {
        &self.entries[id]
    }
}

type Entries = Arc<PerExperiment<ServedExperiment>>;

fn entries(config: &Config, now: Ticks) -> Result<Entries, SetupError> {
    let experiments = config.experiments.iter();
    let entries = experiments.map(|experiment| ServedExperiment::new(config, experiment, now));
    entries.collect::<Result<_, _>>().map(Arc::new)
}

impl ServedExperiment {
    fn new(config: &Config, experiment: &Experiment, now: Ticks) -> Result<Self, SetupError> {
        let rule = PeerRule {
            mode: TrustMode::ControllerAuthenticatesEndpoint,
            anchors: experiment.trusted_operators.clone(),
            mandatory: !experiment.trusted_operators.is_empty(),
        };
        let identity = Identity { chain: &experiment.chain, key: &config.controller_key };
        let verified = own_chain(&experiment.chain, now).ok();
        Ok(Self {
            snikey: experiment.snikey.clone(),
            is_default: experiment.is_default,
            tls: tls::server_config(&identity, rule)?,
            programs: demanded_programs(verified.as_ref(), &config.programs),
            chain: experiment.chain.clone(),
            verified,
        })
    }

    /// Whether our own chain holds now; it is checked again for every endpoint, because certificates
    /// expire while we run (spec/protocol.md 5.1).
    ///
    /// # Errors
    /// Why it does not.
    pub fn check_own_chain(&self, now: Ticks) -> Result<(), ChainError> {
        match &self.verified {
            Some(verified) if verified.is_valid_at(now) => Ok(()),
            _ => own_chain(&self.chain, now).map(drop),
        }
    }
}

/// Our chain as an endpoint would see it, but without roots: those are the endpoint's affair.
fn own_chain(chain: &[Certificate], now: Ticks) -> Result<VerifiedChain, ChainError> {
    verify_chain(chain, &[], TrustMode::EndpointAuthenticatesController, now)
}

/// The programs that the chain demands, leaf to root, each certificate's list in order; a digest
/// without a program is skipped, and a digest listed twice is sent twice.
fn demanded_programs(chain: Option<&VerifiedChain>, programs: &Programs) -> Arc<[Program]> {
    chain
        .into_iter()
        .flat_map(VerifiedChain::monitor_digests)
        .filter_map(|digest| programs.find(&digest))
        .cloned()
        .collect()
}
