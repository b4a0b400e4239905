//! How a connection is set up: who we are, and how the peer is judged.
//!
//! Not here: the judgement itself (`verify.rs`). Invariant: TLS 1.3 alone, no tickets, no resumption.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{CipherSuite, ClientConfig, Error, ServerConfig};

use super::alert;
use super::clock::GivenTime;
use super::failure::reason;
use super::secrets::TellSecrets;
use super::verify::{ChainVerifier, PeerRule};
use crate::certificate::Certificate;
use crate::key::{KeyId, PrivateKey};

/// What a server takes before all others.
const PREFERRED_SUITE: CipherSuite = CipherSuite::TLS13_AES_128_GCM_SHA256;

/// A private key with the certificates presented for it.
#[derive(Debug)]
pub struct Identity<'a> {
    /// Certificates in the order they are presented; the first belongs to `key`.
    pub chain: &'a [Certificate],
    /// The key that signs the handshake.
    pub key: &'a PrivateKey,
}

/// A TLS identity or rule that cannot be used.
#[derive(Debug)]
pub enum SetupError {
    /// The first certificate is for another key, so every peer would refuse the handshake.
    KeyMismatch {
        /// Key id of the first certificate.
        certificate: KeyId,
        /// Key id of the private key.
        key: KeyId,
    },
    /// The chain is empty.
    NoCertificate,
    /// rustls refused the configuration.
    Rustls(Error),
}

impl std::fmt::Display for SetupError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::KeyMismatch { certificate, key } => write!(
                f,
                "the first certificate is for key {certificate}, but the private key is {key}; \
                 use the certificate that was issued for this key"
            ),
            Self::NoCertificate => f.write_str("there is no certificate to present; name one"),
            Self::Rustls(error) => write!(f, "TLS cannot be set up: {}", reason(error)),
        }
    }
}

impl std::error::Error for SetupError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Rustls(error) => Some(error),
            _ => None,
        }
    }
}

impl From<Error> for SetupError {
    fn from(error: Error) -> Self {
        Self::Rustls(error)
    }
}

/// Makes the random generator ready; its first use takes 35 ms, which no endpoint should wait for.
///
/// # Errors
/// The operating system gives no randomness.
pub fn warm_up() -> Result<(), SetupError> {
    let mut byte = [0];
    aws_lc_rs::default_provider()
        .secure_random
        .fill(&mut byte)
        .map_err(|_| Error::FailedToGetRandomBytes.into())
}

/// A server that presents `identity` and judges clients by `rule`; no tickets, no resumption.
///
/// TLS_AES_128_GCM_SHA256 is chosen whenever it is offered, as every client must (RFC 8446 9.1): no other suite costs less
/// of the processor, where it computes AES.
///
/// # Errors
/// The identity cannot be used.
pub fn server_config(
    identity: &Identity<'_>,
    rule: PeerRule,
) -> Result<Arc<ServerConfig>, SetupError> {
    let mut provider = alert::provider();
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != PREFERRED_SUITE);
    let provider = Arc::new(provider);
    let resolver = certified_key(identity)?;
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(ChainVerifier::new(rule, provider)))
        .with_cert_resolver(Arc::new(resolver));
    config.time_provider = Arc::new(GivenTime);
    config.ignore_client_order = true;
    config.send_tls13_tickets = 0;
    config.key_log = Arc::new(TellSecrets);
    config.enable_secret_extraction = true;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}

/// A client that judges the server by `rule` and presents `identity`, if any, when asked.
///
/// SNI is sent when the connection's name is a DNS name; see [`server_name`].
///
/// # Errors
/// The identity cannot be used.
pub fn client_config(
    identity: Option<&Identity<'_>>,
    rule: PeerRule,
) -> Result<Arc<ClientConfig>, SetupError> {
    let provider = Arc::new(alert::provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(ChainVerifier::new(rule, provider)));
    let mut config = match identity {
        Some(identity) => builder.with_client_cert_resolver(Arc::new(certified_key(identity)?)),
        None => builder.with_no_client_auth(),
    };
    config.time_provider = Arc::new(GivenTime);
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// The name a client connects under: the snikey, or an address literal, for which no SNI is sent.
///
/// # Errors
/// The name is one that rustls refuses, such as digits only.
pub fn server_name(snikey: Option<&str>) -> Result<ServerName<'static>, SetupError> {
    match snikey {
        Some(snikey) => ServerName::try_from(snikey.to_owned())
            .map_err(|error| Error::General(format!("snikey {snikey}: {error}")).into()),
        None => Ok(ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into())),
    }
}

fn certified_key(identity: &Identity<'_>) -> Result<SingleCertAndKey, SetupError> {
    let first = identity.chain.first().ok_or(SetupError::NoCertificate)?;
    let key = identity.key.public_key().key_id();
    // rustls would compare them through webpki, which refuses PacketLab's critical extensions.
    if first.subject_key_id != key {
        return Err(SetupError::KeyMismatch { certificate: first.subject_key_id, key });
    }
    let der = identity.key.pkcs8_der();
    let key = aws_lc_rs::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(&der[..]))?;
    let chain =
        identity.chain.iter().map(|cert| CertificateDer::from(cert.der().to_vec())).collect();
    Ok(SingleCertAndKey::from(CertifiedKey::new(chain, key)))
}
