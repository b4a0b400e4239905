//! `ExpExec` entries: certificates and keys read, the chain put in order and verified (spec/protocol.md 4.8).

use engine::config::Experiment;
use packetlab::certificate::Certificate;
use packetlab::key::{Hex, PublicKey};
use packetlab::name_value::Pair;
use packetlab::program::Programs;
use packetlab::snikey::SniKey;
use packetlab::trust::{ChainError, TrustMode, check_size, verify_chain};

use super::Loader;
use super::publication::resolvable;
use crate::conf::{Complaint, ExperimentSettings, Located, Override};
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
    /// Loads all entries in file order.
    pub(super) fn experiments(
        &self,
        settings: Vec<ExperimentSettings>,
        owner: &PublicKey,
        publishes: bool,
    ) -> Result<Vec<Experiment>, Failure> {
        settings.into_iter().map(|settings| self.experiment(settings, owner, publishes)).collect()
    }

    fn experiment(
        &self,
        settings: ExperimentSettings,
        owner: &PublicKey,
        publishes: bool,
    ) -> Result<Experiment, Failure> {
        let line = settings.is_default.place.line;
        let (chain, files) = self.chain(&settings, owner)?;
        let trusted_operators = self.public_keys(&settings.trusted_operators)?;
        let mut verified = None;
        if trusted_operators.is_empty() {
            tracing::warn!(
                "line {line}: without TRUSTEDEOP_PATH endpoints need no certificate: anybody who knows \
                 the snikey is served"
            );
        } else {
            let found = verify_chain(&chain, &trusted_operators, CONTROLLERS_CHAIN, self.now);
            verified = Some(found.map_err(|error| {
                let which = which(&error, &chain, &files);
                let problem = format!("endpoints would refuse this chain: {error}{which}");
                let advice = "it needs pubcmd for the controller key, delpriv for each delegation and \
                              exppriv of a key in TRUSTEDEOP_PATH, all valid now";
                self.chain_failure(&settings, problem, advice)
            })?);
        }
        Ok(Experiment {
            line,
            is_default: settings.is_default.value,
            snikey: self.snikey(settings.snikey, line)?,
            chain,
            trusted_operators,
            verified,
            channels: settings.channels,
            overrides: self.overrides(settings.overrides, publishes)?,
        })
    }

    /// Warns of what endpoints will not put up with: they refuse START when a program that the chain
    /// demands was not sent (spec/protocol.md 5.1), and original ones crash on optional limits (Q2).
    pub(super) fn warn_of_chain(&self, experiment: &Experiment, programs: &Programs) {
        let line = experiment.line;
        for name in experiment.chain.iter().flat_map(|one| &one.limits.optional_known_limits) {
            tracing::warn!(
                "line {line}: the chain holds the optional limit *{name}, on which original endpoints \
                 crash; ask its issuer for one without the *"
            );
        }
        // Without anchors as for each endpoint; a chain that does not hold is complained of there.
        let Ok(chain) = verify_chain(&experiment.chain, &[], CONTROLLERS_CHAIN, self.now) else {
            return;
        };
        for digest in chain.monitor_digests().filter(|digest| programs.find(digest).is_none()) {
            tracing::warn!(
                "line {line}: the chain demands the monitor program {}, which was not loaded; endpoints \
                 will refuse START",
                Hex(digest)
            );
        }
    }

    /// The certificates in configured order, with the controller key's swapped to the front, and their files.
    fn chain(
        &self,
        settings: &ExperimentSettings,
        owner: &PublicKey,
    ) -> Result<(Vec<Certificate>, Vec<String>), Failure> {
        let mut named = self.certificates(&settings.chain)?;
        let key_id = owner.key_id();
        let Some(ours) = named.iter().position(|(entry, _)| entry.subject_key_id == key_id) else {
            let problem =
                format!("none of these certificates is for the controller key (key id {key_id})");
            let advice = "add the pubcmd certificate that the experimenter issued for this key";
            return Err(self.chain_failure(settings, problem, advice));
        };
        named.swap(0, ours);
        let (chain, files): (Vec<_>, Vec<_>) = named.into_iter().unzip();
        let size = check_size(chain.iter().map(Certificate::der), CONTROLLERS_CHAIN);
        // Whether it is a whole chain is asked where it is verified.
        if let Err(error @ (ChainError::TooMany { .. } | ChainError::TooLong { .. })) = size {
            let problem = format!("no endpoint could take this chain: {error}");
            let advice = "leave out what does not belong to the controller key's chain";
            return Err(self.chain_failure(settings, problem, advice));
        }
        Ok((chain, files))
    }

    fn chain_failure(
        &self,
        settings: &ExperimentSettings,
        problem: String,
        advice: &str,
    ) -> Failure {
        let place = Some(settings.chain_place);
        self.fail(&Complaint { place, problem, advice: advice.to_owned() })
    }

    fn snikey(&self, given: Option<Located<SniKey>>, line: usize) -> Result<SniKey, Failure> {
        if let Some(given) = given {
            return Ok(given.value);
        }
        let drawn = SniKey::random();
        let drawn = drawn.map_err(|error| Failure::new(Exit::Config, error.to_string()))?;
        tracing::info!("line {line}: random snikey {drawn}");
        Ok(drawn)
    }

    fn overrides(&self, overrides: Vec<Override>, publishes: bool) -> Result<Vec<Pair>, Failure> {
        for pair in overrides.iter().filter(|_| publishes) {
            if let Some(Err(problem)) = pair.address.as_ref().map(resolvable) {
                let advice = "name the address at which endpoints reach us".to_owned();
                return Err(self.fail(&Complaint { place: Some(pair.place), problem, advice }));
            }
        }
        Ok(overrides.into_iter().map(|pair| pair.pair).collect())
    }
}
