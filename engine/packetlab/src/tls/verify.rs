//! The peer's certificates and its signature of the handshake, judged by PacketLab's rules (spec/protocol.md 3.5).
//!
//! Not here: those rules (`trust`).

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use guards::{Guard, holds};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, PeerMisbehaved,
    SignatureScheme,
};

use crate::certificate::Certificate;
use crate::key::{KeyId, PublicKey};
use crate::time::Ticks;
use crate::trust::{Judge, TrustMode};

/// How the peer's chain is judged.
#[derive(Debug, Clone)]
pub struct PeerRule {
    /// Which chains are good (spec/protocol.md 4.6).
    pub mode: TrustMode,
    /// Keys in which a chain must end; empty accepts any end.
    pub anchors: Vec<PublicKey>,
    /// A server refuses clients without a certificate. A client always demands one.
    pub mandatory: bool,
}

/// Judges a peer by its PacketLab chain alone, in either role.
#[derive(Debug)]
pub(super) struct ChainVerifier {
    judge: Judge,
    mandatory: bool,
    provider: Arc<CryptoProvider>,
}

/// A peer whose certificates are believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Key id of its first certificate.
    pub key_id: KeyId,
    /// Key id of the anchor that signed its chain: of an endpoint's, its operator's. `None` without anchors.
    pub anchor: Option<KeyId>,
}

/// What a peer has shown, whether or not it goes on to prove that it holds the key.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shown {
    /// Certificates that are believed.
    Believed(Peer),
    /// Others, the first of which is of this key.
    Refused(KeyId),
}

thread_local! {
    /// The first certificate of the peer that was believed last, so that it need not be decoded twice: rustls asks for the
    /// chain and for the signature of one handshake in two calls, mostly one right after the other. It is known again by
    /// all its bytes.
    static LATEST_LEAF: RefCell<Option<Arc<Certificate>>> = const { RefCell::new(None) };
    /// rustls has no place for it beside a connection.
    static SHOWN: Cell<Option<Shown>> = const { Cell::new(None) };
}

/// Runs `work`, which passes bytes to one connection, and tells what its peer has shown meanwhile.
pub(super) fn shown_during<T>(work: impl FnOnce() -> T) -> (T, Option<Shown>) {
    SHOWN.set(None);
    let result = work();
    (result, SHOWN.take())
}

/// The key of the certificate `leaf`, which was believed before.
fn leaf_key(leaf: &CertificateDer<'_>) -> Result<PublicKey, Error> {
    let latest = LATEST_LEAF.with_borrow(|latest| {
        let latest = latest.as_ref().filter(|latest| latest.der() == &leaf[..])?;
        Some(latest.subject_key)
    });
    match latest {
        Some(key) => Ok(key),
        None => Certificate::from_der(leaf)
            .map(|leaf| leaf.subject_key)
            .map_err(|error| refuse(Arc::new(error))),
    }
}

impl ChainVerifier {
    pub(super) fn new(rule: PeerRule, provider: Arc<CryptoProvider>) -> Self {
        let judge = Judge::new(rule.mode, &rule.anchors);
        Self { judge, mandatory: rule.mandatory, provider }
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let now = Ticks(now.as_secs().saturating_mul(1_000_000_000));
        // A list of them would be larger than the shortest that a stranger can send.
        let ders = (0..rest.len() + 1)
            .map(|index| index.checked_sub(1).map_or(&leaf[..], |above| &rest[above][..]));
        let judged = self.judge.judge(ders, now).map_err(|error| {
            let leaf = Certificate::from_der(leaf).ok();
            SHOWN.set(leaf.map(|leaf| Shown::Refused(leaf.subject_key_id)));
            refuse(Arc::new(error))
        })?;
        let peer = Peer { key_id: judged.leaf.subject_key_id, anchor: judged.anchor };
        LATEST_LEAF.set(Some(judged.leaf));
        SHOWN.set(Some(Shown::Believed(peer)));
        Ok(())
    }

    /// The CertificateVerify signature, checked with the raw key because webpki cannot parse the
    /// certificate; without it any stolen public chain would be a login.
    fn verify_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // rustls would try any scheme it knows, also those that were not asked for.
        if signature.scheme != SignatureScheme::ED25519 {
            return Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
        }
        if !holds(Guard::ChecksPossession) {
            return Ok(HandshakeSignatureValid::assertion());
        }
        let spki = leaf_key(leaf)?.to_spki();
        verify_tls13_signature_with_raw_key(
            message,
            &SubjectPublicKeyInfoDer::from(&spki[..]),
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }
}

/// Alert 46, certificate_unknown, as the original sends for every chain failure (spec/protocol.md 3.5).
fn refuse(reason: Arc<dyn std::error::Error + Send + Sync>) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(reason)))
}

fn tls12_is_off() -> Error {
    Error::General("TLS 1.2 is not offered".into())
}

impl ClientCertVerifier for ChainVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(leaf, rest, now).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _leaf: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls12_is_off())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_signature(message, leaf, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

impl ServerCertVerifier for ChainVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(leaf, rest, now).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _leaf: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls12_is_off())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_signature(message, leaf, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

#[cfg(test)]
mod tests;
