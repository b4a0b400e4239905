//! Attacks at `pktxpmgr` by who completes a handshake, each as one connection that is reopened when it ends.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use packetlab::certificate::{Certificate, CertificateLimits, CertificateType, Delegation};
use packetlab::issue::{CertificateFields, issue};
use packetlab::key::PrivateKey;
use packetlab::message::{Message, MessageType};
use packetlab::time::Ticks;
use packetlab::tls::{Instead, seal_instead};
use rustls::crypto::aws_lc_rs::sign::any_eddsa_type;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ClientConnection, ContentType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep, timeout};
use tokio_rustls::TlsConnector;

use super::tally::Count;
use crate::load::error::LoadError;
use hosts::endpoint::Endpoint;
use hosts::home::HomeError;

/// Longest that one connection or handshake of an attacker may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Before an endpoint whose session was refused or ended tries again.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);
/// After a handshake that was refused; at a listener that closes at once it alone bounds the rate.
const HANDSHAKE_PAUSE: Duration = Duration::from_millis(10);
/// Payload of a LINFO; of ESC, which is four bytes in the log.
const LINFO_LEN: usize = 64 * 1024;
const ESC: u8 = 0x1b;
/// Records without data that may come in a row (`packetlab/src/record/README.md`).
const WITHOUT_DATA_MAX: usize = 32;
/// Messages of a session that is flooded, until nothing but records without data comes.
const FLOOD_ROUNDS: u32 = 100;

/// When the steps of one connection are due.
pub(super) struct Pace(Option<Interval>);

impl Pace {
    /// The part of connection `number` of `count` in so many steps a second together, evenly spread.
    pub(super) fn of(per_second: Option<u32>, number: usize, count: usize) -> Self {
        Self(per_second.map(|per_second| {
            let between = Duration::from_secs(1) / per_second;
            let period = between * u32::try_from(count).unwrap_or(u32::MAX);
            let first = between * u32::try_from(number).unwrap_or(u32::MAX);
            let mut due = interval_at(Instant::now() + first, period);
            // What was held up is not made up for.
            due.set_missed_tick_behavior(MissedTickBehavior::Skip);
            due
        }))
    }

    async fn due(&mut self) {
        match &mut self.0 {
            Some(interval) => drop(interval.tick().await),
            // There are others on this thread.
            None => tokio::task::yield_now().await,
        }
    }
}

/// An endpoint that sends LINFOs in its session, so many a second.
pub(super) async fn send_linfos(endpoint: Endpoint, per_second: Option<u32>, count: Count) {
    let linfo = linfo();
    loop {
        count.connection();
        let mut pace = Pace::of(per_second, 0, 1);
        if let Ok(Ok(mut stream)) = timeout(PATIENCE, endpoint.open()).await {
            loop {
                pace.due().await;
                // One message at a time, so that no record holds bytes of two.
                if stream.write_all(&linfo).await.is_err() || stream.flush().await.is_err() {
                    break;
                }
                count.step();
            }
        }
        sleep(REFUSED_PAUSE).await;
    }
}

/// What a session is flooded with, as records that bring no data.
#[derive(Debug, Clone, Copy)]
pub(super) enum Flood {
    KeyUpdates,
    EmptyRecords,
}

impl Flood {
    /// Puts one among the bytes that the connection wants to send.
    fn seal(self, tls: &mut ClientConnection) -> io::Result<()> {
        match self {
            Self::KeyUpdates => tls.refresh_traffic_keys().map_err(io::Error::other),
            Self::EmptyRecords => {
                let content_type = ContentType::ApplicationData;
                let nothing = Instead { content_type, payload: [0; 2], payload_len: 0 };
                let mut sealed = Ok(0);
                seal_instead(nothing, || sealed = tls.writer().write(b"0"));
                sealed.map(drop)
            }
        }
    }
}

/// An endpoint that sends messages in its session, so many a second, and before each as many records without data as may
/// come; after [`FLOOD_ROUNDS`] it sends no more messages, so that it is ended. What comes for it is read and thrown away.
pub(super) async fn send_flood(
    endpoint: Endpoint,
    (flood, message): (Flood, Vec<u8>),
    per_second: Option<u32>,
    count: Count,
) {
    loop {
        count.connection();
        let mut pace = Pace::of(per_second, 0, 1);
        if let Ok(Ok(stream)) = timeout(PATIENCE, endpoint.open()).await {
            let (tcp, mut tls) = stream.into_inner();
            let (mut from, mut to) = tcp.into_split();
            let send = async {
                for round in 0_u32.. {
                    pace.due().await;
                    let mut bytes = Vec::new();
                    for _ in 0..WITHOUT_DATA_MAX {
                        flood.seal(&mut tls)?;
                    }
                    if round < FLOOD_ROUNDS {
                        tls.writer().write_all(&message)?;
                    }
                    while tls.wants_write() {
                        tls.write_tls(&mut bytes)?;
                    }
                    to.write_all(&bytes).await?;
                    count.step();
                }
                io::Result::Ok(())
            };
            let read = async {
                let mut bytes = [0; 16 * 1024];
                while from.read(&mut bytes).await? > 0 {}
                io::Result::Ok(())
            };
            // It ends when it is closed.
            tokio::select! {
                _ = send => {}
                _ = read => {}
            }
        }
        sleep(REFUSED_PAUSE).await;
    }
}

fn linfo() -> Vec<u8> {
    let header_len = u32::try_from(LINFO_LEN).unwrap_or(u32::MAX).to_be_bytes();
    let mut linfo = vec![MessageType::LINFO.0];
    linfo.extend_from_slice(&header_len[1..]);
    linfo.resize(linfo.len() + LINFO_LEN, ESC);
    debug_assert!(!matches!(
        Message::decode(MessageType::LINFO, &linfo[4..]),
        Message::Raw { malformed: false, .. }
    ));
    linfo
}

/// Handshakes with the chain that `tls` presents, each until the refusal.
pub(super) async fn present_chains(
    (tls, name, door): (Arc<ClientConfig>, ServerName<'static>, SocketAddr),
    mut pace: Pace,
    count: Count,
) {
    let connector = TlsConnector::from(tls);
    loop {
        pace.due().await;
        count.connection();
        let handshake = async {
            let tcp = TcpStream::connect(door).await?;
            let mut stream = connector.connect(name.clone(), tcp).await?;
            // The chain has been sent; now it is judged.
            count.step();
            stream.read(&mut [0]).await
        };
        let _ = timeout(PATIENCE, handshake).await;
        sleep(HANDSHAKE_PAUSE).await;
    }
}

/// `tls` with a chain of `len` certificates of strangers in which each has signed the one before, and that
/// ends in a key nobody knows. It is put together here, because what makes identities elsewhere may refuse
/// chains of such length.
pub(super) fn with_long_chain(
    tls: &ClientConfig,
    len: u32,
) -> Result<Arc<ClientConfig>, LoadError> {
    let key = PrivateKey::generate().map_err(HomeError::from)?;
    let chain = strangers_chain(&key, len)?;
    let chain = chain.iter().map(|certificate| CertificateDer::from(certificate.der().to_vec()));
    let der = key.pkcs8_der();
    let key = any_eddsa_type(&PrivatePkcs8KeyDer::from(&der[..])).map_err(io::Error::other)?;
    let mut tls = tls.clone();
    let identity = SingleCertAndKey::from(CertifiedKey::new(chain.collect(), key));
    tls.client_auth_cert_resolver = Arc::new(identity);
    Ok(Arc::new(tls))
}

/// The certificate of `key` first, then what makes it valid, upwards.
fn strangers_chain(key: &PrivateKey, len: u32) -> Result<Vec<Certificate>, HomeError> {
    let fields = |certificate_type| CertificateFields {
        certificate_type,
        delegation: Delegation {
            exppriv: false,
            reppriv: certificate_type == CertificateType::Delpriv,
        },
        path_len: None,
        not_before: Ticks(0),
        not_after: Ticks::MAX,
        description: None,
        auxiliary: Vec::new(),
        limits: CertificateLimits::default(),
    };
    let (mut subject, mut kind) = (key.public_key(), CertificateType::Subcmd);
    let certificate = |_| {
        let signer = PrivateKey::generate()?;
        let der = issue(&fields(kind), &subject, &signer)?;
        (subject, kind) = (signer.public_key(), CertificateType::Delpriv);
        Ok(Certificate::from_der(&der)?)
    };
    (0..len).map(certificate).collect()
}

/// A session that is held for as long as the manager lets it.
pub(super) async fn hold_sessions(endpoint: Endpoint, count: Count) {
    loop {
        count.connection();
        if let Ok(Ok(mut stream)) = timeout(PATIENCE, endpoint.open()).await {
            count.step();
            let mut bytes = [0; 1024];
            while let Ok(1..) = stream.read(&mut bytes).await {}
        }
        sleep(REFUSED_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use packetlab::trust::{TrustMode, verify_chain};

    #[test]
    fn the_long_chain_is_a_good_one_but_for_its_anchor() {
        let key = PrivateKey::generate().unwrap();
        let chain = strangers_chain(&key, 10).unwrap();
        let mode = TrustMode::ControllerAuthenticatesEndpoint;
        assert_eq!(chain[0].subject_key, key.public_key());
        // Any anchor will do if none is demanded.
        assert!(verify_chain(&chain, &[], mode, Ticks(1)).is_ok());
        assert!(verify_chain(&chain, &[key.public_key()], mode, Ticks(1)).is_err());
        let len: usize =
            strangers_chain(&key, 150).unwrap().iter().map(|one| one.der().len()).sum();
        assert!((55_000..65_000).contains(&len), "{len} bytes");
    }

    #[test]
    fn a_linfo_is_one_message_of_64_kib() {
        let linfo = linfo();
        assert_eq!(linfo[..4], [0x65, 1, 0, 0]);
        assert_eq!(linfo.len(), 4 + LINFO_LEN);
    }
}
