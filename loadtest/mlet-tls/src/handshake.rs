//! A handshake of TLS 1.3 over a TCP connection of the endpoint's, timed by the endpoint's clock.
//!
//! Not here: what the certificates say.
//!
//! Invariant: each flight of ours is timed from its own departure to the end of the server's answer to it, whatever order
//! the news come in; and a server that does not come to an end is given up.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mlet::{Client, Family, Message, MletError, Packet, Status, Ticks, check_closed};
use packetlab::tls;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::TLS13;
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, DigitallySignedStruct, Error, HandshakeKind,
    SignatureScheme,
};

const SKTID: u8 = 1;
/// Of every flight: there is one at a time.
const TAG: NonZeroU16 = NonZeroU16::MIN;
const RECEIVE_BUFFER_LEN: u32 = 0x1_0000;

/// Whom to greet.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    /// The name that it is asked for; an address is not told to it.
    pub(crate) name: String,
}

/// What a server has shown.
pub(crate) struct Handshake {
    /// How long it and the way to it took.
    pub(crate) taken: Duration,
    pub(crate) suite: String,
    /// Whether it holds the key of its certificate; why that is not known.
    pub(crate) proof: Result<(), String>,
    /// Its own first; DER.
    pub(crate) certificates: Vec<Vec<u8>>,
}

/// A flight of ours, and the answer to it.
#[derive(Default)]
struct Flight {
    departed: Option<Ticks>,
    /// When the last that came has arrived.
    arrived: Option<Ticks>,
    /// Nothing more of the answer is to come.
    is_answered: bool,
}

/// Takes every certificate, and keeps whether the signature over the handshake fits its key.
#[derive(Debug)]
struct Unverified {
    provider: Arc<CryptoProvider>,
    proof: Mutex<Result<(), String>>,
}

/// Whether a server can be asked for this name.
///
/// # Errors
/// It cannot.
pub(crate) fn check_name(name: &str) -> Result<ServerName<'static>, MletError> {
    ServerName::try_from(name.to_owned())
        .map_err(|_| MletError::Failed(format!("'{}' is no name of a server", name.escape_debug())))
}

impl Server {
    /// Connects, shakes hands and takes leave.
    ///
    /// # Errors
    /// There is no connection, the server breaks off or breaks the rules, or time is up.
    pub(crate) fn greet(
        &self,
        client: &mut Client,
        patience: Duration,
    ) -> Result<Handshake, MletError> {
        let deadline = Instant::now() + patience;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let unverified =
            Arc::new(Unverified { provider, proof: Mutex::new(Err("not asked for".to_owned())) });
        let mut tls = self.connection(&unverified).map_err(|error| self.failed(&error))?;
        client.connect_within(patience, SKTID, self.address, RECEIVE_BUFFER_LEN)?;
        let taken = self.shake_hands(client, &mut tls, deadline)?;
        tls.send_close_notify();
        self.send(client, &mut tls, deadline)?;
        client.request_before(&Message::Nclose { sktid: SKTID }, deadline)?;
        let suite = tls.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
        let proof = unverified.proof.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let certificates = tls.peer_certificates().unwrap_or_default();
        Ok(Handshake {
            taken,
            suite: suite.unwrap_or("unknown").to_owned(),
            proof,
            certificates: certificates.iter().map(|certificate| certificate.to_vec()).collect(),
        })
    }

    fn connection(&self, unverified: &Arc<Unverified>) -> Result<ClientConnection, Error> {
        let config = ClientConfig::builder_with_provider(Arc::clone(&unverified.provider))
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(unverified) as Arc<dyn ServerCertVerifier>)
            .with_no_client_auth();
        let name = check_name(&self.name).map_err(|error| Error::General(error.to_string()))?;
        ClientConnection::new(Arc::new(config), name)
    }

    /// How long the server took over all flights.
    fn shake_hands(
        &self,
        client: &mut Client,
        tls: &mut ClientConnection,
        deadline: Instant,
    ) -> Result<Duration, MletError> {
        let (mut taken, mut flight) = (Duration::ZERO, Flight::default());
        self.send(client, tls, deadline)?;
        loop {
            if let Flight { departed: Some(departed), arrived: Some(arrived), is_answered: true } =
                flight
            {
                taken += arrived.saturating_duration_since(departed);
                if !tls.is_handshaking() {
                    return Ok(taken);
                }
                flight = Flight::default();
                self.send(client, tls, deadline)?;
            }
            let Some(notification) = client.notification_before(deadline)? else {
                return Err(self.told("did not shake hands in time"));
            };
            match notification.message() {
                Message::Ntag { sktid: SKTID, status: Status::SUCCESS, time, .. } => {
                    flight.departed = Some(time);
                }
                Message::Ntag { sktid: SKTID, status, .. } => {
                    return Err(MletError::Failed(format!("a message was not sent: {status}")));
                }
                Message::Ndata { sktid: SKTID, time, packet: Packet::Tcp { data, .. } } => {
                    read(tls, data).map_err(|error| self.failed(&error))?;
                    flight.arrived = Some(time);
                    flight.is_answered = !tls.is_handshaking() || is_asked_again(tls);
                }
                Message::Nstat { sktid: SKTID, change, .. } if !flight.is_answered => {
                    check_closed(change)?;
                    return Err(self.told("closed in the middle of the handshake"));
                }
                Message::Nblock { monitor_errid, .. } => {
                    return Err(MletError::blocked(monitor_errid));
                }
                _ => {}
            }
        }
    }

    /// Sends what is to be said now, in one piece.
    fn send(
        &self,
        client: &mut Client,
        tls: &mut ClientConnection,
        deadline: Instant,
    ) -> Result<(), MletError> {
        let mut data = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut data)?;
        }
        let packet = Packet::Tcp { family: Family::of(self.address.ip()), data: &data };
        let asks = Message::Nsend { sktid: SKTID, time: Ticks(0), tag: TAG.get(), packet };
        Ok(client.request_before(&asks, deadline)?)
    }

    fn told(&self, what: &str) -> MletError {
        MletError::Failed(format!("{} {what}", self.address))
    }

    fn failed(&self, error: &Error) -> MletError {
        match error {
            Error::AlertReceived(AlertDescription::ProtocolVersion) => {
                self.told("speaks no TLS 1.3, and this mlet nothing else")
            }
            Error::PeerIncompatible(_) => self.told(&format!(
                "answers, but not so that TLS 1.3 can be spoken: {}",
                tls::reason(error)
            )),
            error => self.told(&format!("broke off the handshake: {}", tls::reason(error))),
        }
    }
}

/// Whether the server wants another first message. That there is something to send does not say so: a change_cipher_spec is
/// there as soon as the first message of the server's flight has come.
fn is_asked_again(tls: &ClientConnection) -> bool {
    tls.wants_write() && tls.handshake_kind() == Some(HandshakeKind::FullWithHelloRetryRequest)
}

/// Takes in what came. Of TLS nothing is held back: what is not read of this the peer will not send again.
fn read(tls: &mut ClientConnection, mut data: &[u8]) -> Result<(), Error> {
    while !data.is_empty() {
        // It reads from memory, and says no more than that it has too much unread.
        let taken = tls
            .read_tls(&mut data)
            .map_err(|error: io::Error| Error::General(error.to_string()))?;
        tls.process_new_packets()?;
        if taken == 0 {
            break;
        }
    }
    Ok(())
}

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        let proof = verify_tls13_signature(message, certificate, signature, algorithms);
        let proof = proof.map(drop).map_err(|error| tls::reason(&error));
        *self.proof.lock().unwrap_or_else(PoisonError::into_inner) = proof;
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
