//! TLS 1.3 as PacketLab uses it (protocol.md 3): certificates are PacketLab chains, keys are Ed25519,
//! and nothing of the web's certificate rules applies.
//!
//! The only file that names rustls connection types. [`server_config`] and [`client_config`] serve
//! every role; [`Hello`] and [`ServerStream`] are the controller's side towards an endpoint,
//! [`ClientStream`] its side towards a broker or proxy, fed with bytes by whoever owns the socket.
//!
//! Invariant: every [`TlsStream::write_piece`] becomes records of its own, so records never hold
//! bytes of two pieces (1.6); and no read swallows a byte that the peer did not put into TLS.

pub(in crate::proto) mod alert;

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::ops::DerefMut;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{
    CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{Accepted, AcceptedAlert, Acceptor, NoServerSessionStorage};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, ConnectionCommon, DigitallySignedStruct,
    DistinguishedName, Error, OtherError, ServerConfig, ServerConnection, SignatureScheme,
};

use super::trust::{Judge, TrustMode};
use crate::wire::certificate::Certificate;
use crate::wire::key::{KeyId, PrivateKey, PublicKey};
use crate::wire::time::Ticks;

/// A private key with the certificates presented for it.
#[derive(Debug)]
pub struct Identity<'a> {
    /// Certificates in the order they are presented; the first belongs to `key`.
    pub chain: &'a [Certificate],
    /// The key that signs the handshake.
    pub key: &'a PrivateKey,
}

/// How the peer's chain is judged.
#[derive(Debug, Clone)]
pub struct PeerRule {
    /// Which chains are good (protocol.md 4.6).
    pub mode: TrustMode,
    /// Keys in which a chain must end; empty accepts any end.
    pub anchors: Vec<PublicKey>,
    /// A server refuses clients without a certificate. A client always demands one.
    pub mandatory: bool,
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
/// # Errors
/// The identity cannot be used.
pub fn server_config(
    identity: &Identity<'_>,
    rule: PeerRule,
) -> Result<Arc<ServerConfig>, SetupError> {
    let provider = Arc::new(alert::provider());
    let resolver = certified_key(identity)?;
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(ChainVerifier::new(rule, provider)))
        .with_cert_resolver(Arc::new(resolver));
    config.send_tls13_tickets = 0;
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

/// Judges a peer by its PacketLab chain alone, in either role.
#[derive(Debug)]
struct ChainVerifier {
    judge: Judge,
    mandatory: bool,
    provider: Arc<CryptoProvider>,
}

/// The first certificate of a peer that was just believed. rustls asks for the chain and for the signature of
/// one handshake in two calls, mostly one right after the other, and [`TlsStream::peer_key_id`] follows.
struct Leaf {
    der: CertificateDer<'static>,
    subject_key: PublicKey,
    subject_key_id: KeyId,
}

thread_local! {
    /// So that a leaf need not be decoded three times. It is known again by all its bytes.
    static LATEST_LEAF: RefCell<Option<Leaf>> = const { RefCell::new(None) };
}

/// What `read` finds in the certificate `leaf`, which was believed before.
fn leaf_part<T>(leaf: &CertificateDer<'_>, read: fn(&PublicKey, &KeyId) -> T) -> Result<T, Error> {
    let latest = LATEST_LEAF.with_borrow(|latest| {
        let latest = latest.as_ref().filter(|latest| latest.der == *leaf)?;
        Some(read(&latest.subject_key, &latest.subject_key_id))
    });
    match latest {
        Some(part) => Ok(part),
        None => Certificate::from_der(leaf)
            .map(|leaf| read(&leaf.subject_key, &leaf.subject_key_id))
            .map_err(|error| refuse(Arc::new(error))),
    }
}

impl ChainVerifier {
    fn new(rule: PeerRule, provider: Arc<CryptoProvider>) -> Self {
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
        let ders: Vec<&[u8]> = std::iter::once(leaf).chain(rest).map(|der| &der[..]).collect();
        let judged =
            self.judge.judge(ders.into_iter(), now).map_err(|error| refuse(Arc::new(error)))?;
        LATEST_LEAF.set(Some(Leaf {
            der: leaf.clone().into_owned(),
            subject_key: judged.subject_key,
            subject_key_id: judged.subject_key_id,
        }));
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
        let spki = leaf_part(leaf, |key, _| key.to_spki())?;
        verify_tls13_signature_with_raw_key(
            message,
            &SubjectPublicKeyInfoDer::from(&spki[..]),
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }
}

/// Alert 46, certificate_unknown, as the original sends for every chain failure (protocol.md 3.5).
fn refuse(reason: Arc<dyn std::error::Error + Send + Sync>) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(reason)))
}

/// Why TLS failed, in words of our own where those of rustls would show code.
pub fn reason(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(reason))) => {
            format!("the peer's certificates are refused: {reason}")
        }
        Error::InvalidCertificate(CertificateError::BadSignature) => {
            "the peer's signature over the handshake is wrong: it may not hold the key of its certificate".into()
        }
        Error::InvalidCertificate(how) => {
            format!("the peer's certificates are refused: {}", alert::words_of(how))
        }
        Error::AlertReceived(alert) => {
            format!("the peer sent the alert {}", alert::name(*alert))
        }
        Error::PeerMisbehaved(how) => {
            format!("the peer broke the protocol: {}", alert::words_of(how))
        }
        Error::PeerIncompatible(how) => {
            format!("the peer is incompatible: {}", alert::words_of(how))
        }
        Error::InvalidMessage(how) => {
            format!("a corrupt message came: {}", alert::words_of(how))
        }
        Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. }
        | Error::InvalidEncryptedClientHello(_)
        | Error::InvalidCertRevocationList(_)
        | Error::InconsistentKeys(_) => alert::words(&error.to_string()),
        error => error.to_string(),
    }
}

/// What to do about a failed handshake with a broker or proxy, whose port is `port` and which may refuse, or be
/// refused by, the files of `keys`.
pub fn remedy(error: &Error, port: &str, keys: &str) -> String {
    match error {
        Error::InvalidMessage(_)
        | Error::InappropriateMessage { .. }
        | Error::PeerSentOversizedRecord => {
            format!("is this {port}?")
        }
        _ => format!("both sides must accept the other's agent certificate ({keys})"),
    }
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

/// A connection of which the ClientHello is still awaited.
#[derive(Default)]
pub struct Hello {
    /// Boxed, because it is many times larger than the later states of a session.
    acceptor: Box<Acceptor>,
}

/// A ClientHello that has arrived; the server name chooses the configuration.
pub struct Greeted {
    accepted: Accepted,
}

/// A failed handshake: the reason, and the alert the peer should still get.
#[derive(Debug)]
pub struct HandshakeError {
    /// Why it failed.
    pub error: Error,
    /// Bytes to send before closing; may be empty.
    pub alert: Vec<u8>,
}

impl HandshakeError {
    fn new((error, mut alert): (Error, AcceptedAlert)) -> Self {
        let mut bytes = Vec::new();
        // Writing to a Vec cannot fail, and an alert that is cut short only costs the peer its reason.
        let _ = alert.write_all(&mut bytes);
        if bytes.is_empty() {
            return Self::unexpected(error);
        }
        Self { error, alert: bytes }
    }

    /// rustls has no alert for some of what may come instead of a ClientHello. Nothing is encrypted yet, so ours is
    /// as good.
    fn unexpected(error: Error) -> Self {
        const FATAL_UNEXPECTED_MESSAGE: [u8; 7] = [21, 3, 3, 0, 2, 2, 10];
        Self { error, alert: FATAL_UNEXPECTED_MESSAGE.to_vec() }
    }
}

impl Hello {
    /// Feeds bytes from the peer, advancing `input`; `Some` once the ClientHello is whole.
    ///
    /// # Errors
    /// What arrived is no acceptable ClientHello.
    pub fn receive(&mut self, input: &mut &[u8]) -> Result<Option<Greeted>, HandshakeError> {
        while !input.is_empty() {
            self.acceptor
                .read_tls(input)
                .map_err(|error| HandshakeError::unexpected(Error::General(error.to_string())))?;
            if let Some(accepted) = self.acceptor.accept().map_err(HandshakeError::new)? {
                return Ok(Some(Greeted { accepted }));
            }
        }
        Ok(None)
    }
}

impl Greeted {
    /// The server name asked for; `None` when there was none.
    pub fn server_name(&self) -> Option<String> {
        self.accepted.client_hello().server_name().map(str::to_owned)
    }

    /// Goes on with the handshake under `config`.
    ///
    /// # Errors
    /// The ClientHello does not fit the configuration, such as one without TLS 1.3.
    pub fn accept(self, config: Arc<ServerConfig>) -> Result<ServerStream, HandshakeError> {
        let connection = self.accepted.into_connection(config).map_err(HandshakeError::new)?;
        Ok(TlsStream { connection: Box::new(connection), has_failed: false })
    }
}

/// What reading plaintext gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plaintext {
    /// This many bytes.
    Bytes(usize),
    /// Nothing more until more is received.
    Empty,
    /// The peer sent close_notify and everything before it has been read.
    Closed,
}

/// Our side of one TLS connection.
pub struct TlsStream<C> {
    connection: Box<C>,
    /// The peer broke the protocol, or told us that we did.
    has_failed: bool,
}

/// The controller's side of a connection with an endpoint.
pub type ServerStream = TlsStream<ServerConnection>;

/// The controller's side of a connection with a broker or proxy.
pub type ClientStream = TlsStream<ClientConnection>;

/// Bytes before the body of a TLS record.
const RECORD_HEADER_LEN: usize = 5;

/// The longest body of a record that TLS 1.3 allows (RFC 8446 5.2).
const RECORD_BODY_LEN_MAX: usize = (1 << 14) + 256;

/// How many bytes the TLS record at the front of `bytes` has; `None` until its header is whole.
///
/// For a stream that turns from TLS to raw bytes: rustls takes all it is given, so it must be given
/// no byte behind the last record (protocol.md 5.3).
///
/// # Errors
/// No record is that long.
pub fn record_len(bytes: &[u8]) -> Result<Option<usize>, Error> {
    let Some([_, _, _, high, low]) = bytes.first_chunk::<RECORD_HEADER_LEN>() else {
        return Ok(None);
    };
    let body_len = usize::from(u16::from_be_bytes([*high, *low]));
    if body_len > RECORD_BODY_LEN_MAX {
        return Err(Error::PeerSentOversizedRecord);
    }
    Ok(Some(RECORD_HEADER_LEN + body_len))
}

impl ClientStream {
    /// Begins a handshake without a server name; [`TlsStream::take_output`] gives the ClientHello.
    ///
    /// # Errors
    /// The operating system gives no randomness.
    pub fn connect(config: Arc<ClientConfig>) -> Result<Self, SetupError> {
        let connection = ClientConnection::new(config, server_name(None)?)?;
        Ok(Self { connection: Box::new(connection), has_failed: false })
    }
}

impl<C, S> TlsStream<C>
where
    C: DerefMut<Target = ConnectionCommon<S>>,
{
    /// Feeds one step's worth of bytes, advancing `input`, and processes them.
    ///
    /// Call again with what is left after draining [`Self::read`]. Bytes behind a close_notify are
    /// skipped.
    ///
    /// # Errors
    /// The peer broke the protocol; what [`Self::write_output`] gives next is the alert for it.
    pub fn receive(&mut self, input: &mut &[u8]) -> Result<(), Error> {
        debug_assert!(!input.is_empty(), "rustls takes an empty read for the end of the stream");
        let received = match self.connection.read_tls(input) {
            Ok(0) => {
                *input = &[];
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(error) => Err(Error::General(error.to_string())),
        };
        let processed = received.and_then(|()| self.connection.process_new_packets().map(drop));
        if let Err(error) = &processed
            && !std::mem::replace(&mut self.has_failed, true)
            && let Some(alert) = alert::unanswered(error)
        {
            // Nothing is sent if rustls has an alert of its own on the way.
            alert::seal_instead(alert::fatal(alert), || self.connection.send_close_notify());
        }
        processed
    }

    /// The handshake is not over.
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Takes decrypted bytes.
    pub fn read(&mut self, into: &mut [u8]) -> Plaintext {
        match self.connection.reader().read(into) {
            Ok(0) if into.is_empty() => Plaintext::Empty,
            Ok(0) => Plaintext::Closed,
            Ok(len) => Plaintext::Bytes(len),
            // WouldBlock; the end of the TCP stream is never told to rustls, so no other error comes.
            Err(_) => Plaintext::Empty,
        }
    }

    /// Seals `piece` into records of its own; returns how many bytes were taken, fewer than given when
    /// the sealed bytes wait to be sent.
    pub fn write_piece(&mut self, piece: &[u8]) -> usize {
        self.connection.writer().write(piece).unwrap_or(0)
    }

    /// Sealed bytes wait to be sent.
    pub fn has_output(&self) -> bool {
        self.connection.wants_write()
    }

    /// Takes sealed bytes to be sent; returns how many.
    pub fn write_output(&mut self, into: &mut [u8]) -> usize {
        let room = into.len();
        let mut rest = into;
        while !rest.is_empty() && self.connection.wants_write() {
            match self.connection.write_tls(&mut rest) {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
        room - rest.len()
    }

    /// Appends all sealed bytes that wait to be sent to `into`.
    pub fn take_output(&mut self, into: &mut Vec<u8>) {
        while self.connection.wants_write() && self.connection.write_tls(into).is_ok() {}
    }

    /// Announces the end of what we send, unless TLS has failed: then the connection ends with the alert that says why,
    /// and not as if all were well (RFC 8446 6.2). Nothing may be written afterwards.
    pub fn close(&mut self) {
        if !self.has_failed {
            self.connection.send_close_notify();
        }
    }

    /// Key id of the peer's first certificate; `None` when it presented none.
    pub fn peer_key_id(&self) -> Option<KeyId> {
        let leaf = self.connection.peer_certificates()?.first()?;
        // The verifier has decoded it once already, so it decodes.
        leaf_part(leaf, |_, key_id| *key_id).ok()
    }

    /// Gives back what a burst made the receive buffer grow to, once it has been drained.
    pub fn shrink(&mut self) {
        struct Nothing;
        impl Read for Nothing {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::WouldBlock.into())
            }
        }
        // It always "fails" with WouldBlock; rustls resizes its buffer on the way.
        let _ = self.connection.read_tls(&mut Nothing);
    }
}
