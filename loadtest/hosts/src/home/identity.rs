//! Who an endpoint is: its key and its certificates, made at random or as they were kept.
//!
//! Not here: where they are kept (`pktfleet fleet`), and what the endpoint does. Invariant: one that was kept is what it
//! would be if it were made now: of its operator, and within its dates.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use packetlab::address::HostPort;
use packetlab::certificate::{Certificate, CertificateLimits, CertificateType, Delegation};
use packetlab::channel::ChannelId;
use packetlab::issue::{CertificateFields, issue};
use packetlab::key::{KeyId, PrivateKey, PublicKey};
use packetlab::pem::Section;
use packetlab::tls::{self, Identity, PeerRule};
use packetlab::trust::{TrustMode, verify_chain};
use zeroize::Zeroizing;

use super::agent::{Agent, validity};
use super::error::HomeError;
use crate::clock::now;
use crate::endpoint::subscribe::{Interest, Subscriber};
use crate::endpoint::{Endpoint, MonitorRule, MonitorSettings};

/// How long a new one is valid: it may be part of a fleet that runs for long.
const VALIDITY: Duration = Duration::from_secs(365 * 24 * 3600);

/// Who one endpoint is.
#[derive(Debug)]
pub struct EndpointIdentity {
    /// Its own address.
    pub address: IpAddr,
    pub(super) agent: Agent,
    pub(super) certificate: Certificate,
}

impl EndpointIdentity {
    /// Its key id, as `PKTLAB_ENDPOINT_KEY` tells mlets.
    pub fn key_id(&self) -> KeyId {
        self.certificate.subject_key_id
    }

    /// A new endpoint at `address`, which represents `operator` for a year from now.
    ///
    /// # Errors
    /// The system's random generator fails.
    pub fn new(address: IpAddr, operator: &PrivateKey) -> Result<Self, HomeError> {
        let (not_before, not_after) = validity(VALIDITY);
        let fields = |certificate_type| CertificateFields {
            certificate_type,
            delegation: Delegation::default(),
            path_len: None,
            not_before,
            not_after,
            description: None,
            auxiliary: Vec::new(),
            limits: CertificateLimits::default(),
        };
        let agent = Agent::issue(&fields(CertificateType::Agent))?;
        let subject = agent.key.public_key();
        let der = issue(&fields(CertificateType::Subcmd), &subject, operator)?;
        Ok(Self { address, agent, certificate: Certificate::from_der(&der)? })
    }

    /// How it subscribes at a broker whose certificate one of `roots` has signed, to the private channels
    /// of its operator or to those named.
    ///
    /// # Errors
    /// TLS refuses the identity, or the interest makes no request.
    pub fn subscriber(
        &self,
        broker: HostPort,
        roots: Vec<PublicKey>,
        operators: &[PublicKey],
        channels: &[Option<ChannelId>],
        attributes: &str,
    ) -> Result<Subscriber, HomeError> {
        let rule = PeerRule { mode: TrustMode::Agent, anchors: roots, mandatory: true };
        let tls = tls::client_config(Some(&self.agent.identity()), rule)?;
        let certificates = std::slice::from_ref(&self.certificate);
        let interest = Interest { certificates, operators, channels, attributes };
        Ok(Subscriber::new(broker, self.address, tls, &interest)?)
    }

    /// The endpoint, which serves experiments that `operators` let run, and runs their monitors.
    ///
    /// # Errors
    /// TLS refuses the identity.
    pub fn endpoint(&self, operators: &[PublicKey]) -> Result<Endpoint, HomeError> {
        let chain = std::slice::from_ref(&self.certificate);
        let rule = PeerRule {
            mode: TrustMode::EndpointAuthenticatesController,
            anchors: operators.to_vec(),
            mandatory: true,
        };
        Ok(Endpoint {
            address: self.address,
            host_id: self.key_id().to_string(),
            controllers: Vec::new(),
            server_name: tls::server_name(None)?,
            tls: tls::client_config(Some(&Identity { chain, key: &self.agent.key }), rule)?,
            operators: operators.to_vec(),
            priority: None,
            monitors: MonitorRule::Run(MonitorSettings::default()),
            own_monitors: Arc::default(),
            ledger: Arc::default(),
            ran: Duration::ZERO,
            leave_at: None,
        })
    }

    /// Everything that the endpoint is but its address, as PEM sections in the order of [`Self::from_pem`].
    pub fn to_pem(&self) -> Zeroizing<String> {
        let key = self.agent.key.to_pem();
        let certificates = self.agent.certificate.to_pem() + &self.certificate.to_pem();
        // Room for all at once: growing would leave copies behind that nobody wipes.
        let mut pem = Zeroizing::new(String::with_capacity(key.len() + certificates.len()));
        pem.push_str(&key);
        pem.push_str(&certificates);
        pem
    }

    /// An endpoint at `address`, whose private key, agent certificate and certificate of its operator these PEM
    /// sections are. It represents one of `operators` now.
    ///
    /// # Errors
    /// A section holds something else, or the certificates are not of the key, of an operator or of this time.
    pub fn from_pem(
        address: IpAddr,
        [key, agent, certificate]: [Section<'_>; 3],
        operators: &[PublicKey],
    ) -> Result<Self, HomeError> {
        let key = PrivateKey::from_pem(key.text, None)?;
        let agent = Agent { key, certificate: Certificate::from_pem(agent.text)? };
        let certificate = Certificate::from_pem(certificate.text)?;
        let subject = agent.key.public_key();
        if [&agent.certificate, &certificate].iter().any(|one| one.subject_key != subject) {
            return Err(HomeError::OtherKey);
        }
        let mode = TrustMode::ControllerAuthenticatesEndpoint;
        verify_chain(std::slice::from_ref(&certificate), operators, mode, now())
            .map_err(HomeError::Chain)?;
        Ok(Self { address, agent, certificate })
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use packetlab::pem::sections;

    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn read(pem: &str, operator: &PrivateKey) -> Result<EndpointIdentity, String> {
        let sections = sections(pem.as_bytes()).try_into().unwrap();
        EndpointIdentity::from_pem(ADDRESS, sections, &[operator.public_key()])
            .map_err(|error| error.to_string())
    }

    #[test]
    fn an_endpoint_that_is_kept_is_the_same_again_and_nobody_elses() {
        let [operator, stranger] = [(); 2].map(|()| PrivateKey::generate().unwrap());
        let [one, other] = [(); 2].map(|()| EndpointIdentity::new(ADDRESS, &operator).unwrap());
        let pem = one.to_pem();
        assert_eq!(read(&pem, &operator).unwrap().to_pem(), pem);
        let error = read(&pem, &stranger).unwrap_err();
        assert!(error.contains("neither trusted nor among the certificates"), "{error}");
        let key = other.agent.key.to_pem();
        let mixed = key.to_string() + &pem[key.len()..];
        assert_eq!(
            read(&mixed, &operator).unwrap_err(),
            "the certificates are not those of the key"
        );
    }
}
