//! What it takes to reach a database: where it is, and who asks. The secrets in it are read from files by the caller.

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{Error, InconsistentKeys, RootCertStore};
use zeroize::Zeroizing;

use crate::address::Address;

/// Where the database is, and who asks.
#[derive(Clone)]
pub struct Access {
    /// The database and the campaign.
    pub address: Address,
    /// The password, if one is needed.
    pub password: Option<Zeroizing<Vec<u8>>>,
    /// Who may have signed the database's certificate. Needed over the network alone.
    pub roots: Option<Roots>,
    /// With what the database is told who asks, beside or instead of a password.
    pub certificate: Option<ClientCertificate>,
}

/// Certificates, one of which must have signed the database's.
#[derive(Clone)]
pub struct Roots(Arc<RootCertStore>);

/// Why there are no roots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootsError {
    /// There is no certificate.
    None,
    /// It is not PEM.
    Pem(String),
    /// A certificate is none that can sign.
    Certificate(String),
}

/// A certificate of PostgreSQL's client with its key; none of PacketLab's.
#[derive(Clone)]
pub struct ClientCertificate(Arc<CertifiedKey>);

/// Why a certificate cannot be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientCertificateError {
    /// There is no certificate; what was found instead.
    Certificate(String),
    /// There is no key that can be used; what was found instead.
    Key(String),
    /// The key is another certificate's.
    Mismatch,
}

impl Roots {
    /// Reads PEM.
    ///
    /// # Errors
    /// There is none in it, or one that cannot be used.
    pub fn from_pem(pem: &[u8]) -> Result<Self, RootsError> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| RootsError::Pem(error.to_string()))?;
            let added = roots.add(certificate);
            added.map_err(|error| RootsError::Certificate(error.to_string()))?;
        }
        if roots.is_empty() { Err(RootsError::None) } else { Ok(Self(Arc::new(roots))) }
    }

    pub(crate) fn store(&self) -> Arc<RootCertStore> {
        Arc::clone(&self.0)
    }
}

impl ClientCertificate {
    /// Reads PEM: a chain with the leaf first, and the key of the leaf, without a passphrase.
    ///
    /// # Errors
    /// Either is not there, or they are not of one another.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, ClientCertificateError> {
        use ClientCertificateError as Bad;
        let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|error| Bad::Certificate(error.to_string()))?;
        if chain.is_empty() {
            return Err(Bad::Certificate("no items found".to_owned()));
        }
        let key =
            PrivateKeyDer::from_pem_slice(key).map_err(|error| Bad::Key(error.to_string()))?;
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let key = provider.key_provider.load_private_key(key);
        let pair = CertifiedKey::new(chain, key.map_err(|error| Bad::Key(error.to_string()))?);
        // Of a certificate of version 1, which openssl makes where nothing is to be added, rustls does not find the key. The
        // database takes it.
        match pair.keys_match() {
            Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => Err(Bad::Mismatch),
            _ => Ok(Self(Arc::new(pair))),
        }
    }

    pub(crate) fn shown(&self) -> Arc<SingleCertAndKey> {
        Arc::new(SingleCertAndKey::from(Arc::clone(&self.0)))
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("address", &self.address).finish_non_exhaustive()
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Roots").finish_non_exhaustive()
    }
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCertificate").finish_non_exhaustive()
    }
}

impl fmt::Display for ClientCertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(found) => write!(f, "it holds no certificate in PEM: {found}"),
            Self::Key(found) => {
                write!(f, "it holds no private key in PEM that needs no passphrase: {found}")
            }
            Self::Mismatch => f.write_str("it is not the key of the certificate"),
        }
    }
}

impl std::error::Error for ClientCertificateError {}

impl fmt::Display for RootsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("it holds no certificate in PEM"),
            Self::Pem(why) => write!(f, "it is no PEM: {why}"),
            Self::Certificate(why) => write!(f, "a certificate in it cannot be used: {why}"),
        }
    }
}

impl std::error::Error for RootsError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_certificate_is_no_roots() {
        for (pem, why) in [
            ("", RootsError::None),
            ("no PEM", RootsError::None),
            ("-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n", RootsError::None),
        ] {
            assert_eq!(Roots::from_pem(pem.as_bytes()).expect_err(pem), why);
        }
        let cut = Roots::from_pem(b"-----BEGIN CERTIFICATE-----\n").expect_err("cut");
        assert!(matches!(cut, RootsError::Pem(_)), "{cut}");
        let empty = b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";
        let empty = Roots::from_pem(empty).expect_err("a zero");
        assert!(matches!(empty, RootsError::Certificate(_)), "{empty}");
    }
}
