//! `ExpExec` entries: certificates and keys read, the chain put in order and verified (spec/protocol.md 4.8).

use std::path::PathBuf;

use engine::config::Experiment;
use engine::proto::descriptor::publication_end;
use packetlab::certificate::{Certificate, CertificateType};
use packetlab::key::{Hex, KeyId};
use packetlab::name_value::Pair;
use packetlab::program::Programs;
use packetlab::snikey::SniKey;
use packetlab::trust::{ChainError, TrustMode, check_size, verify_chain};

use super::Loader;
use super::publication::resolvable;
use crate::conf::{Complaint, ExperimentSettings, Located, Override, Place};
use crate::exit::{Exit, Failure};

/// How endpoints judge us.
const CONTROLLERS_CHAIN: TrustMode = TrustMode::EndpointAuthenticatesController;

/// Which certificate an error is about: its place in the chain is not the one in the config file.
fn which(error: &ChainError, chain: &[Certificate], files: &[String]) -> String {
    let found = error.index().and_then(|index| Some((index, chain.get(index)?, files.get(index)?)));
    found.map_or_else(String::new, |(index, certificate, file)| {
        let (start, end) = (certificate.not_before.date(), certificate.not_after.date());
        let kind = certificate.certificate_type;
        format!("; certificate {index} is the {kind} of {file}, valid from {start} to {end}")
    })
}

impl Loader<'_> {
    /// Loads all entries in file order. `None` stands for one that has a finding.
    pub(super) fn experiments(
        &mut self,
        settings: Vec<ExperimentSettings>,
        owner: Option<&KeyId>,
        publishes: bool,
    ) -> Vec<Option<Experiment>> {
        settings.into_iter().map(|settings| self.experiment(settings, owner, publishes)).collect()
    }

    fn experiment(
        &mut self,
        settings: ExperimentSettings,
        owner: Option<&KeyId>,
        publishes: bool,
    ) -> Option<Experiment> {
        let (line, place) = (settings.is_default.place.line, settings.chain_place);
        let chain = settings.chain.and_then(|paths| self.chain(&paths, place, owner));
        let trusted = settings.trusted_operators.and_then(|paths| self.public_keys(&paths));
        let snikey = self.snikey(settings.snikey, line);
        let overrides = self.overrides(settings.overrides, publishes);
        let ((chain, files), trusted_operators) = (chain?, trusted?);
        let mut verified = None;
        if trusted_operators.is_empty() {
            tracing::warn!(
                "line {line}: without TRUSTEDEOP_PATH endpoints need no certificate: anybody who knows \
                 the snikey is served"
            );
        } else {
            let found = verify_chain(&chain, &trusted_operators, CONTROLLERS_CHAIN, self.now);
            let found = found.map_err(|error| {
                let which = which(&error, &chain, &files);
                let problem = format!("endpoints would refuse this chain: {error}{which}");
                let advice = "it needs pubcmd for the controller key, delpriv for each delegation and \
                              exppriv of a key in TRUSTEDEOP_PATH, all valid now";
                self.chain_failure(place, problem, advice)
            });
            verified = Some(self.findings.keep(found)?);
        }
        let experiment = Experiment {
            line,
            is_default: settings.is_default.value,
            snikey: snikey?,
            chain,
            trusted_operators,
            verified,
            channels: settings.channels,
            overrides: overrides?,
        };
        let until = publication_end(&experiment, self.publication_end).filter(|_| publishes);
        for (certificate, file) in experiment.chain.iter().zip(&files) {
            self.tell_of_expiry(place, certificate, file, until);
        }
        Some(experiment)
    }

    /// An entry as far as descriptors tell of it, without the files that it names. `None` if it has a finding.
    pub(super) fn described_experiment(
        &mut self,
        settings: ExperimentSettings,
    ) -> Option<Experiment> {
        let line = settings.is_default.place.line;
        let snikey = self.snikey(settings.snikey, line);
        let overrides = self.overrides(settings.overrides, true);
        Some(Experiment {
            line,
            is_default: settings.is_default.value,
            snikey: snikey?,
            chain: Vec::new(),
            trusted_operators: Vec::new(),
            verified: None,
            channels: settings.channels,
            overrides: overrides?,
        })
    }

    /// Warns of what endpoints will not put up with: they refuse START when a program that the chain
    /// demands was not sent (spec/protocol.md 5.1) or cannot be run (spec/monitors.md 3), and original ones crash on
    /// optional limits (Q2). No more than a warning: original ones take programs in eBPF, and have other limits.
    pub(super) fn warn_of_chain(&self, experiment: &Experiment, programs: &Programs) {
        let line = experiment.line;
        for name in experiment.chain.iter().flat_map(|one| one.limits().optional_known_limits) {
            tracing::warn!(
                "line {line}: the chain holds the optional limit *{name}, on which original endpoints \
                 crash; ask its issuer for one without the *"
            );
        }
        // Without anchors as for each endpoint.
        let chain = match verify_chain(&experiment.chain, &[], CONTROLLERS_CHAIN, self.now) {
            Ok(chain) => chain,
            Err(error) => {
                tracing::warn!(
                    "line {line}: no endpoint will be served, as the chain does not hold: {error}"
                );
                return;
            }
        };
        for digest in chain.monitor_digests() {
            let demanded =
                format!("line {line}: the chain demands the monitor program {}", Hex(&digest));
            match programs.find(&digest).map(monitor_module::check) {
                None => {
                    tracing::warn!("{demanded}, which was not loaded; endpoints will refuse START")
                }
                Some(Err(unfit)) => tracing::warn!("{demanded}, which cannot be run: {unfit}"),
                Some(Ok(unjudged)) => {
                    for message in unjudged {
                        tracing::warn!("{demanded}: {}", message.unjudged());
                    }
                }
            }
        }
    }

    /// The certificates in configured order, with the controller key's swapped to the front, and their files.
    /// While that key is not known, the first of the type that it must have is taken for its certificate.
    fn chain(
        &mut self,
        paths: &[Located<PathBuf>],
        place: Place,
        owner: Option<&KeyId>,
    ) -> Option<(Vec<Certificate>, Vec<String>)> {
        let mut named = self.certificates(paths)?;
        let ours = named.iter().position(|(entry, _)| match owner {
            Some(key_id) => entry.subject_key_id == *key_id,
            None => entry.certificate_type == CertificateType::Pubcmd,
        });
        let Some(ours) = ours else {
            let key =
                owner.map_or_else(String::new, |key_id| format!(" (key id {})", key_id.short()));
            let problem = format!("none of these certificates is for the controller key{key}");
            let advice = "add the pubcmd certificate that the experimenter issued for this key";
            self.findings.add(self.chain_failure(place, problem, advice));
            return None;
        };
        named.swap(0, ours);
        let (chain, files): (Vec<_>, Vec<_>) = named.into_iter().unzip();
        let size = check_size(chain.iter().map(Certificate::der), CONTROLLERS_CHAIN);
        // Whether it is a whole chain is asked where it is verified.
        if let Err(error @ (ChainError::TooMany { .. } | ChainError::TooLong { .. })) = size {
            let problem = format!("no endpoint could take this chain: {error}");
            let advice = "leave out what does not belong to the controller key's chain";
            self.findings.add(self.chain_failure(place, problem, advice));
            return None;
        }
        Some((chain, files))
    }

    fn chain_failure(&self, place: Place, problem: String, advice: &str) -> Failure {
        self.fail(&Complaint { place: Some(place), problem, advice: advice.to_owned() })
    }

    fn snikey(&mut self, given: Option<Located<SniKey>>, line: usize) -> Option<SniKey> {
        if let Some(given) = given {
            return Some(given.value);
        }
        self.drawn_snikeys.push(line);
        if let Some(kept) = self.kept.snikey(self.drawn_snikeys.len()) {
            return Some(kept);
        }
        let drawn = SniKey::random();
        let drawn = drawn.map_err(|error| Failure::new(Exit::Config, error.to_string()));
        let drawn = self.findings.keep(drawn)?;
        self.kept.keep_snikey(drawn.clone());
        // Whole, and so with few words beside it: an endpoint that no broker tells of it is given it by hand.
        tracing::info!("line {line}: snikey {drawn}");
        Some(drawn)
    }

    fn overrides(&mut self, overrides: Vec<Override>, publishes: bool) -> Option<Vec<Pair>> {
        let mut is_usable = true;
        for pair in overrides.iter().filter(|_| publishes) {
            let checked = pair.address.as_ref().map(|name| resolvable(name, self.purpose));
            if let Some(Err(problem)) = checked {
                let advice = "name the address at which endpoints reach us".to_owned();
                let complaint = Complaint { place: Some(pair.place), problem, advice };
                self.findings.add(self.fail(&complaint));
                is_usable = false;
            }
        }
        is_usable.then(|| overrides.into_iter().map(|pair| pair.pair).collect())
    }
}
