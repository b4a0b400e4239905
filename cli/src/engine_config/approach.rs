//! How endpoints reach us: `-a`, the proxies of the config file, or the sockets of an init system.
//!
//! Not here: what is published of it (`publication.rs`), and how a name is looked up (`address.rs`).

use std::net::{Ipv4Addr, SocketAddr};

use engine::config::{Approach, Proxy};
use engine::sys::lack::Lack;
use packetlab::address::HostPort;
use packetlab::key::KeyId;

use super::address::{self, ApproachAddresses};
use super::{Loader, shown};
use crate::conf::ProxySettings;
use crate::exit::{Exit, Failure};

impl Loader<'_> {
    /// Resolves `-a`: where to listen, or the proxies; a finding for each that cannot be used.
    pub(super) fn approach(&mut self, uses_proxy: bool) -> Option<ApproachAddresses> {
        let text = self.args.addr.as_deref();
        if uses_proxy && self.listening.is_empty() {
            return self.proxies(text);
        }
        let listened = self.listened(text, uses_proxy);
        self.findings.keep(listened)
    }

    fn listened(&self, text: Option<&str>, uses_proxy: bool) -> Result<ApproachAddresses, Failure> {
        let name = text.map(|text| parsed(text).map(|name| (text, name))).transpose()?;
        if !self.listening.is_empty() {
            return self.handed_over(uses_proxy);
        }
        let default = (Ipv4Addr::UNSPECIFIED, address::EXPERIMENT_PORT).into();
        let Some((text, name)) = name else {
            return Ok(ApproachAddresses::Passive { listen: vec![default] });
        };
        let found = address::resolve_to_listen(&name, self.purpose);
        let found = found.map_err(|error| match text.contains(',') {
            true => {
                let hint = "several addresses are those of proxies (EnableProxyMode 1)";
                failure(Exit::Listen, text, &format!("{error}; {hint}"))
            }
            false => failure(Exit::Listen, text, &error),
        })?;
        let listen = if self.purpose.is_a_run() { usable(text, found)? } else { found };
        Ok(ApproachAddresses::Passive { listen })
    }

    /// Those of `-a`, with commas between.
    fn proxies(&mut self, text: Option<&str>) -> Option<ApproachAddresses> {
        let Some(text) = text else {
            let message = "EnableProxyMode 1 needs the proxy's address; add -a HOST[:PORT]";
            self.findings.add(Failure::new(Exit::Usage, message));
            return None;
        };
        let texts: Vec<&str> = text.split(',').collect();
        let names: Vec<_> = texts.iter().map(|text| self.findings.keep(parsed(text))).collect();
        let names: Vec<HostPort> = names.into_iter().collect::<Option<_>>()?;
        let found = address::resolve_each(&names, address::PROXY_PORT, self.purpose);
        let found: Vec<_> = texts
            .iter()
            .zip(found)
            .map(|(text, found)| {
                let found = found.map_err(|error| failure(Exit::Listen, text, &error));
                self.findings.keep(found)
            })
            .collect();
        let found: Vec<_> = found.into_iter().collect::<Option<_>>()?;
        Some(ApproachAddresses::Proxies(names.into_iter().zip(found).collect()))
    }

    /// The sockets of the init system, which leave nothing to choose.
    fn handed_over(&self, uses_proxy: bool) -> Result<ApproachAddresses, Failure> {
        if self.args.addr.is_some() {
            let problem = "-a and sockets of the init system (LISTEN_FDS) do not go together: \
                           they listen where its socket unit says; leave one of them out";
            return Err(Failure::new(Exit::Usage, problem));
        }
        if uses_proxy {
            let problem = "EnableProxyMode 1 listens nowhere, but the init system hands over \
                           sockets (LISTEN_FDS); run it without a socket unit";
            return Err(Failure::new(Exit::Config, problem));
        }
        Ok(ApproachAddresses::Passive { listen: self.listening.to_vec() })
    }

    /// With what the config file says of the proxy.
    pub(super) fn approach_of(
        &mut self,
        approach: Option<ApproachAddresses>,
        proxy: Option<ProxySettings>,
        owner: Option<&KeyId>,
    ) -> Option<Approach> {
        let proxies = match approach {
            Some(ApproachAddresses::Passive { listen }) => {
                return Some(Approach::Passive { listen });
            }
            Some(ApproachAddresses::Proxies(proxies)) => Some(proxies),
            None => None,
        };
        let settings = proxy?;
        if settings.proxy_roots.is_empty() {
            tracing::warn!(
                "without ProxyCertRootPath the proxy certificate's signature is not checked"
            );
        }
        let certificate = settings.agent_certificate.as_ref();
        let certificate = certificate.map(|path| self.agent_certificate(path, owner));
        let proxy_roots = self.public_keys(&settings.proxy_roots);
        let certificate = certificate.map_or(Some(None), |certificate| certificate.map(Some))?;
        let proxy_roots = proxy_roots?;
        let at = |(name, addresses): (HostPort, Vec<SocketAddr>)| Proxy {
            addresses,
            name: name.to_string(),
            certificate: certificate.clone(),
            proxy_roots: proxy_roots.clone(),
            backlog_target: settings.backlog_target,
            step_timeout: settings.step_timeout,
            bootstrap_timeout: settings.bootstrap_timeout,
        };
        Some(Approach::Proxies(proxies?.into_iter().map(at).collect()))
    }
}

/// An address of `-a`.
fn parsed(text: &str) -> Result<HostPort, Failure> {
    HostPort::parse(text).map_err(|error| failure(Exit::Usage, text, &error))
}

fn failure(exit: Exit, text: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(exit, format!("-a {}: {error}", shown(text)))
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
