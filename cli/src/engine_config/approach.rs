//! How endpoints reach us: `-a`, the proxy of the config file, or the sockets of an init system.
//!
//! Not here: what is published of it (`publication.rs`), and how a name is looked up (`address.rs`).

use std::net::{Ipv4Addr, SocketAddr};

use engine::config::{Approach, Proxy};
use engine::sys::lack::Lack;
use packetlab::address::HostPort;
use packetlab::key::KeyId;

use super::address::{self, AddressError, ApproachAddresses};
use super::{Loader, shown};
use crate::conf::ProxySettings;
use crate::exit::{Exit, Failure};

impl Loader<'_> {
    /// Resolves `-a`: where to listen, or the proxy.
    pub(super) fn approach(&self, uses_proxy: bool) -> Result<ApproachAddresses, Failure> {
        let text = self.args.addr.as_deref().unwrap_or_default();
        let failure = |exit, error: &dyn std::fmt::Display| {
            Failure::new(exit, format!("-a {}: {error}", shown(text)))
        };
        let unusable = |error: AddressError| failure(Exit::Listen, &error);
        let name = self.args.addr.as_deref().map(HostPort::parse).transpose();
        let name = name.map_err(|error| failure(Exit::Usage, &error))?;
        if !self.listening.is_empty() {
            return self.handed_over(uses_proxy);
        }
        if !uses_proxy {
            let default = (Ipv4Addr::UNSPECIFIED, address::EXPERIMENT_PORT).into();
            let Some(name) = name else {
                return Ok(ApproachAddresses::Passive { listen: vec![default] });
            };
            let found = address::resolve_to_listen(&name, self.purpose).map_err(unusable)?;
            let listen = if self.purpose.is_a_run() { usable(text, found)? } else { found };
            return Ok(ApproachAddresses::Passive { listen });
        }
        let Some(name) = name else {
            let message = "EnableProxyMode 1 needs the proxy's address; add -a HOST[:PORT]";
            return Err(Failure::new(Exit::Usage, message));
        };
        let addresses = address::resolve(&name, address::PROXY_PORT, self.purpose);
        let addresses = addresses.map_err(unusable)?;
        Ok(ApproachAddresses::Proxy { name, addresses })
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
        let address = match approach {
            Some(ApproachAddresses::Passive { listen }) => {
                return Some(Approach::Passive { listen });
            }
            Some(ApproachAddresses::Proxy { name, addresses }) => Some((name, addresses)),
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
        let (name, addresses) = address?;
        Some(Approach::Proxy(Box::new(Proxy {
            addresses,
            name: name.to_string(),
            certificate: certificate.map_or(Some(None), |certificate| certificate.map(Some))?,
            proxy_roots: proxy_roots?,
            backlog_target: settings.backlog_target,
            step_timeout: settings.step_timeout,
            bootstrap_timeout: settings.bootstrap_timeout,
        })))
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
