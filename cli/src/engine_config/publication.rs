//! What is published: the brokers, and the address and host ids in the descriptor (spec/pktxpmgr.md 4.4).

use std::net::SocketAddr;

use engine::config::{Called, ControllerAddr, Publication};
use packetlab::address::HostPort;
use packetlab::key::KeyId;
use packetlab::name_value::{Dialect, Pair};

use super::address::{self, ApproachAddresses};
use super::of_campaign::CampaignPublication;
use super::{Loader, Purpose, shown};
use crate::conf::{self, ExperimentSettings, Located, PublicationSettings};
use crate::exit::{Exit, Failure};

/// A publication of which the addresses are known, as far as they can be, and nothing else was read.
pub(super) struct Addressed {
    settings: PublicationSettings,
    brokers: Option<Vec<Broker>>,
    controller_addr: Option<ControllerAddr>,
}

/// A broker's name, and its addresses as far as they are known.
type Broker = (HostPort, Vec<SocketAddr>);

impl Loader<'_> {
    /// Resolves the brokers and decides which address of ours is published.
    pub(super) fn publication_addresses(
        &mut self,
        settings: PublicationSettings,
        told: (Option<&ApproachAddresses>, &[ExperimentSettings]),
    ) -> Addressed {
        let brokers = settings.brokers.as_ref().and_then(|brokers| self.brokers(brokers));
        let controller_addr = self.controller_addr(&settings, told);
        // Whether the address is known depends on what else is wrong.
        let controller_addr = self.findings.keep(controller_addr).flatten();
        if let Some(hostid) = &self.args.hostid {
            let checked = publishable(hostid).map_err(|problem| usage("-i", hostid, &problem));
            self.findings.keep(checked);
            if let Some(flaw) = conf::pattern_flaw(hostid) {
                tracing::warn!("-i {hostid}: {flaw}; write * or ? in their place");
            }
        }
        Addressed { settings, brokers, controller_addr }
    }

    /// Those of `BrokerAddr`; a finding for each that cannot be used.
    fn brokers(&mut self, brokers: &[Located<HostPort>]) -> Option<Vec<Broker>> {
        let names: Vec<_> = brokers.iter().map(|broker| broker.value.clone()).collect();
        let found = address::resolve_each(&names, address::EXPERIMENT_PORT, self.purpose);
        let found: Vec<_> = brokers
            .iter()
            .zip(found)
            .map(|(broker, found)| {
                let found = found.map_err(|error| {
                    let problem = format!("the broker cannot be used: {error}");
                    let advice =
                        "BrokerAddr is the broker's host[:port], or several with commas between";
                    let complaint = broker.complain(problem, advice);
                    Failure::new(Exit::Publication, self.source.with_caret(&complaint))
                });
                self.findings.keep(found)
            })
            .collect();
        let found: Option<Vec<_>> = found.into_iter().collect();
        Some(names.into_iter().zip(found?).collect())
    }

    /// `-p`, else `PubControllerAddr`, else what `-a` says, else what the broker connection shows.
    fn controller_addr(
        &self,
        settings: &PublicationSettings,
        (approach, experiments): (Option<&ApproachAddresses>, &[ExperimentSettings]),
    ) -> Result<Option<ControllerAddr>, Failure> {
        if let Some(text) = &self.args.publish_addr {
            HostPort::parse(text)
                .map_err(|error| error.to_string())
                .and_then(|name| resolvable(&name, self.purpose))
                .and_then(|()| publishable(text))
                .map_err(|problem| usage("-p", text, &problem))?;
            return Ok(Some(ControllerAddr::Text(text.clone())));
        }
        if let Some((text, name)) = &settings.controller_addr {
            let checked = resolvable(&name.value, self.purpose).and_then(|()| publishable(text));
            checked.map_err(|problem| {
                self.fail(&name.complain(problem, "name the address at which endpoints reach us"))
            })?;
            return Ok(Some(ControllerAddr::Text(text.clone())));
        }
        let Some(approach) = approach else { return Ok(None) };
        let text = match (approach, &self.args.addr) {
            (ApproachAddresses::Proxies(proxies), text) => {
                if proxies.len() > 1 && !all_tell_addresses(experiments) {
                    let problem = "of several proxies none is the one to publish; name with -p what endpoints \
                                   come to: a name that has the addresses of all of them";
                    return Err(usage("-a", text.as_deref().unwrap_or_default(), problem));
                }
                let Some((name, _)) = proxies.first() else { return Ok(None) };
                if proxies.len() == 1 && name.port.is_some_and(|port| port != address::PROXY_PORT) {
                    tracing::warn!(
                        "the proxy is published as {} without a port, so endpoints come to its port {}; if it \
                         listens for them elsewhere, give that address with -p",
                        name.host,
                        address::EXPERIMENT_PORT
                    );
                }
                &name.host
            }
            (ApproachAddresses::Passive { listen }, Some(text)) => {
                if listen.iter().any(|address| address.ip().is_unspecified()) {
                    tracing::warn!("-a {text} is published as it is; give a real address with -p");
                }
                text
            }
            (ApproachAddresses::Passive { listen }, None) => {
                let brokers = settings.brokers.as_ref().map_or(0, Vec::len);
                warn_of_addresses_unsaid(listen, brokers, experiments);
                return Ok(Some(ControllerAddr::BrokerSide));
            }
        };
        publishable(text).map_err(|problem| usage("-a", text, &problem))?;
        Ok(Some(match (approach, HostPort::parse(text)) {
            (ApproachAddresses::Passive { .. }, Ok(HostPort { host, port: Some(0) })) => {
                ControllerAddr::BoundPort(host)
            }
            _ => ControllerAddr::Text(text.clone()),
        }))
    }

    /// Reads the certificate and keys that publication needs. A publication for each broker.
    pub(super) fn publications(
        &mut self,
        from: Addressed,
        owner: Option<&KeyId>,
    ) -> Option<Vec<Publication>> {
        let Addressed { settings, brokers, controller_addr } = from;
        if settings.broker_roots.is_empty() {
            tracing::warn!(
                "without BrokerCertRootPath the broker certificate's signature is not checked"
            );
        }
        let certificate = settings.agent_certificate.as_ref();
        let certificate = certificate.and_then(|path| self.agent_certificate(path, owner));
        let broker_roots = self.public_keys(&settings.broker_roots);
        let (certificate, broker_roots) = (certificate?, broker_roots?);
        let controller_addr = controller_addr?;
        let called = self.called(&settings);
        let at = |(name, broker): Broker| Publication {
            broker,
            broker_name: name.to_string(),
            certificate: certificate.clone(),
            broker_roots: broker_roots.clone(),
            controller_addr: controller_addr.clone(),
            period: settings.period,
            greet_after: settings.greet_after,
            called: called.clone(),
            texts: None,
        };
        Some(brokers?.into_iter().map(at).collect())
    }
}

impl Loader<'_> {
    /// What a campaign's descriptors are made of, but for its experiments; nothing is read for it.
    pub(super) fn campaigns(&self, from: Addressed) -> CampaignPublication {
        let Addressed { settings, controller_addr, .. } = from;
        let called = self.called(&settings);
        CampaignPublication { called, controller_addr, period: settings.period }
    }

    fn called(&self, settings: &PublicationSettings) -> Called {
        Called {
            priority: settings.priority,
            countries: settings.countries.clone(),
            locations: settings.locations.clone(),
            hostid: self.args.hostid.clone(),
        }
    }
}

/// Warns of what endpoints may be told where each broker is told the address from which we come to it.
fn warn_of_addresses_unsaid(
    listen: &[SocketAddr],
    brokers: usize,
    experiments: &[ExperimentSettings],
) {
    if let Some(other) = listen.iter().find(|address| address.port() != address::EXPERIMENT_PORT) {
        tracing::warn!(
            "no port is published, so endpoints come to {}, not to {other}; see -p",
            address::EXPERIMENT_PORT
        );
    }
    if brokers > 1 && !all_tell_addresses(experiments) {
        tracing::warn!(
            "each of the {brokers} brokers is told the address from which we come to it; where these differ, \
             endpoints hear of several: name one with -p"
        );
    }
}

/// Whether every experiment says by itself where endpoints are to come.
fn all_tell_addresses(experiments: &[ExperimentSettings]) -> bool {
    experiments.iter().all(|one| one.overrides.iter().any(|pair| pair.address.is_some()))
}

/// Whether an experiment descriptor can carry the text.
fn publishable(text: &str) -> Result<(), String> {
    let pair = Pair::new(Dialect::Descriptor, "value", text);
    pair.map(drop).map_err(|_| {
        "it cannot be published: descriptors hold letters, digits, blanks and _-.:[],/()*? only"
            .to_owned()
    })
}

/// What endpoints are to connect to must at least be known here, and be a port.
pub(super) fn resolvable(name: &HostPort, purpose: Purpose) -> Result<(), String> {
    if name.port == Some(0) {
        return Err("nobody can connect to port 0; name the one at which endpoints reach us".into());
    }
    if name.host == "*" {
        return Err("* stands for every address of this machine, and only -a takes it; name the one at which \
                    endpoints reach us"
            .into());
    }
    let found = address::resolve(name, address::EXPERIMENT_PORT, purpose);
    let found = found.map_err(|error| error.to_string())?;
    if found.iter().any(|address| address.ip().is_unspecified()) {
        tracing::warn!("{} is published as it is; no endpoint can connect to it", name.host);
    }
    Ok(())
}

fn usage(option: &str, text: &str, problem: &str) -> Failure {
    Failure::new(Exit::Usage, format!("{option} {}: {problem}", shown(text)))
}
