//! The agent's key and certificate, with which brokers, proxies and endpoints know each other.

use std::time::{Duration, SystemTime};

use packetlab::certificate::Certificate;
use packetlab::issue::{CertificateFields, issue};
use packetlab::key::PrivateKey;
use packetlab::time::Ticks;
use packetlab::tls::Identity;

use super::error::HomeError;

/// How far back what is made here begins to be valid.
const BEFORE: Duration = Duration::from_secs(24 * 3600);

/// The key and certificate of a broker, proxy or endpoint towards the others; signed by itself.
#[derive(Debug)]
pub struct Agent {
    /// The key.
    pub key: PrivateKey,
    /// Its certificate.
    pub certificate: Certificate,
}

impl Agent {
    /// A new one with a certificate like this.
    ///
    /// # Errors
    /// The system's random generator fails.
    pub(super) fn issue(fields: &CertificateFields) -> Result<Self, HomeError> {
        let key = PrivateKey::generate()?;
        let der = issue(fields, &key.public_key(), &key)?;
        Ok(Self { certificate: Certificate::from_der(&der)?, key })
    }

    /// As TLS presents it.
    pub fn identity(&self) -> Identity<'_> {
        Identity { chain: std::slice::from_ref(&self.certificate), key: &self.key }
    }
}

/// First and last moment of everything that is made here.
pub(super) fn validity(period: Duration) -> (Ticks, Ticks) {
    let now = SystemTime::now();
    // Clocks may be set back.
    let before = now.checked_sub(BEFORE).unwrap_or(SystemTime::UNIX_EPOCH);
    (Ticks::from_system_time(before), Ticks::from_system_time(now).saturating_add(period))
}
