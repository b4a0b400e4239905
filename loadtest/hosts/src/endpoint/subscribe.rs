//! The subscription to a broker, through which an endpoint hears of experiments
//! (spec/protocol.md 5.5, endpoint side; 1.8).
//!
//! Not here: what becomes of an experiment, and when to try again after a failure (`hosted`).
//!
//! Invariant: nothing is believed but what 5.5 allows: answers to our requests, then notifications.
//! Anything else ends the subscription.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use packetlab::address::HostPort;
use packetlab::certificate::Certificate;
use packetlab::channel::{ChannelId, ChannelList};
use packetlab::key::PublicKey;
use packetlab::message::{EncodeError, Message, MessageType, Status};
use packetlab::name_value::{self, Dialect};
use packetlab::snikey::SniKey;
use packetlab::time::Ticks;
use packetlab::tls::{self, SetupError};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::connect::connect_any;
use crate::link::{Link, LinkError};
use crate::tls_reason;

/// Where subscribers find a broker (spec/protocol.md 7).
const BROKER_PORT: u16 = 20557;
/// One try to connect (spec/protocol.md 5.5).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// From there to the answer to XSUB.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Longer descriptors are ignored, as by the original (spec/protocol.md 5.5).
const XDESCR_LEN_MAX: usize = 4094;
/// Larger messages have no place here: a channel and a descriptor.
const PAYLOAD_LEN_MAX: usize = 64 * 1024;
/// Where controllers are found when the descriptor names no port (spec/protocol.md 1.8).
const CONTROLLER_PORT: u16 = 20556;

/// Whoever subscribes, and to what.
#[derive(Debug, Clone)]
pub struct Subscriber {
    /// The broker.
    pub(crate) broker: HostPort,
    /// Where to connect from; unspecified is anywhere.
    pub(crate) address: IpAddr,
    /// Presents the endpoint's agent certificate; accepts the broker's.
    pub(crate) tls: Arc<ClientConfig>,
    /// XCERT for each certificate, then XSUB; encoded.
    requests: Arc<[Vec<u8>]>,
}

/// An experiment that a broker told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Experiment {
    /// The whole descriptor.
    pub(crate) xdescr: String,
    /// Who runs it.
    pub(crate) controller: Controller,
    /// When the publication ends.
    pub(crate) pub_end: Option<Ticks>,
    /// Larger is more important; 0 if the descriptor names none.
    pub(crate) priority: u64,
}

/// How a controller is found and asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Controller {
    /// Its address, or its proxy's.
    pub(crate) address: HostPort,
    /// The server name to ask for.
    pub(crate) snikey: Option<SniKey>,
}

/// A subscription that a broker has accepted.
#[derive(Debug)]
pub(crate) struct SubscribedLink {
    link: Link<TlsStream<TcpStream>>,
}

/// What an endpoint subscribes with.
#[derive(Debug)]
pub(crate) struct Interest<'a> {
    /// The endpoint's certificates, in file order: subcmd, then delpriv upwards.
    pub(crate) certificates: &'a [Certificate],
    /// The endpoint operators it serves.
    pub(crate) operators: &'a [PublicKey],
    /// `None` stands for the private channels of the certificates.
    pub(crate) channels: &'a [Option<ChannelId>],
    /// What the endpoint is, as `name=value;` text.
    pub(crate) attributes: &'a str,
}

/// Why there can be no subscription of this kind.
#[derive(Debug)]
pub enum InterestError {
    /// None of the operators has signed the last certificate.
    NoOperator,
    /// There are no channels at all.
    NoChannel,
    /// The attributes, or a certificate, do not go into a message.
    Encode(EncodeError),
}

impl fmt::Display for InterestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoOperator => f.write_str(
                "none of the endpoint operators has signed the last of the endpoint's \
                 certificates; name the operator's key, and the certificates from subcmd upwards",
            ),
            Self::NoChannel => f.write_str(
                "without certificates there are no private channels; name a public channel",
            ),
            Self::Encode(cause) => cause.fmt(f),
        }
    }
}

impl std::error::Error for InterestError {}

/// Why a subscription was not made, or ended.
#[derive(Debug)]
pub enum SubscribeError {
    /// The broker's name has no address.
    Resolve(io::Error),
    /// No connection.
    Connect(io::Error),
    /// The TLS handshake failed.
    Handshake(io::Error),
    /// A request was answered with an error.
    Refused(Status),
    /// Something came that a broker may not say here.
    Unexpected(MessageType),
    /// The answers did not come in time.
    TimedOut,
    /// The broker closed.
    Closed,
    /// The connection broke.
    Link(LinkError),
}

impl fmt::Display for SubscribeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolve(cause) => write!(f, "its name has no address: {cause}"),
            Self::Connect(cause) => write!(f, "no connection: {cause}"),
            Self::Handshake(cause) => {
                write!(f, "the TLS handshake failed: {}", tls_reason::reason(cause))
            }
            Self::Refused(status) => write!(f, "it refused the subscription: {status}"),
            Self::Unexpected(message_type) => write!(f, "it sent {message_type} out of place"),
            Self::TimedOut => write!(f, "no answer in {} s", ANSWER_TIMEOUT.as_secs()),
            Self::Closed => f.write_str("it closed the connection"),
            Self::Link(cause) => cause.fmt(f),
        }
    }
}

impl std::error::Error for SubscribeError {}

impl From<LinkError> for SubscribeError {
    fn from(cause: LinkError) -> Self {
        Self::Link(cause)
    }
}

impl Interest<'_> {
    /// The messages that subscribe: XCERT for each certificate, then XSUB.
    fn requests(&self) -> Result<Vec<Vec<u8>>, InterestError> {
        let operator_key = match self.certificates.last() {
            None => [0; 32],
            Some(last) => {
                let mut operators = self.operators.iter();
                let signer = last.authority_key_id;
                operators.find(|key| key.key_id() == signer).ok_or(InterestError::NoOperator)?.0
            }
        };
        let channels = self.channels();
        if channels.is_empty() {
            return Err(InterestError::NoChannel);
        }
        let channels = ChannelList::new(&channels);
        let xcerts = self.certificates.iter();
        let xcerts = xcerts.map(|one| Message::Xcert { certificate: one.der() });
        let xsub = Message::Xsub { channels, operator_key, dattr: self.attributes };
        let encode = |message: Message<'_>| {
            let mut encoded = Vec::new();
            message.encode(&mut encoded).map_err(InterestError::Encode).map(|()| encoded)
        };
        xcerts.chain([xsub]).map(encode).collect()
    }

    /// In configured order; the private ones, last certificate first, where they are asked for.
    fn channels(&self) -> Vec<ChannelId> {
        let signers = self.certificates.iter().rev().map(|one| one.authority_key_id);
        let private: Vec<_> = signers.filter_map(|signer| ChannelId::new(&signer.0).ok()).collect();
        let expand = |channel: &Option<ChannelId>| match channel {
            Some(channel) => vec![*channel],
            None => private.clone(),
        };
        self.channels.iter().flat_map(expand).collect()
    }
}

impl Subscriber {
    /// Subscribes with this interest once it is told to.
    ///
    /// # Errors
    /// The interest makes no valid request.
    pub(crate) fn new(
        broker: HostPort,
        address: IpAddr,
        tls: Arc<ClientConfig>,
        interest: &Interest<'_>,
    ) -> Result<Self, InterestError> {
        Ok(Self { broker, address, tls, requests: interest.requests()?.into() })
    }

    /// Connects and subscribes.
    ///
    /// # Errors
    /// The broker cannot be reached, is not trusted, or refuses.
    pub(crate) async fn open(&self) -> Result<SubscribedLink, SubscribeError> {
        let port = self.broker.port.unwrap_or(BROKER_PORT);
        let addresses = lookup_host((self.broker.host.as_str(), port)).await;
        let addresses: Vec<_> = addresses.map_err(SubscribeError::Resolve)?.collect();
        let stream = connect_any(self.address, &addresses, CONNECT_TIMEOUT)
            .await
            .map_err(SubscribeError::Connect)?;
        timeout(ANSWER_TIMEOUT, self.subscribe(stream))
            .await
            .map_err(|_| SubscribeError::TimedOut)?
    }

    async fn subscribe(&self, stream: TcpStream) -> Result<SubscribedLink, SubscribeError> {
        // Brokers have no server name (spec/protocol.md 3.2), and for an address none is sent.
        let no_name = ServerName::IpAddress(Ipv4Addr::UNSPECIFIED.into());
        let connecting = TlsConnector::from(Arc::clone(&self.tls)).connect(no_name, stream);
        let stream = connecting.await.map_err(SubscribeError::Handshake)?;
        let mut link = Link::small(stream, PAYLOAD_LEN_MAX);
        // All at once; the answers come in the same order.
        for request in &*self.requests {
            link.send_encoded(request).await?;
        }
        for _ in 0..self.requests.len() {
            let (message_type, payload) = link.receive().await?.ok_or(SubscribeError::Closed)?;
            match Message::decode(message_type, &payload) {
                Message::Result(outcome) if outcome.is_success() => {}
                Message::Result(outcome) => return Err(SubscribeError::Refused(outcome.status())),
                _ => return Err(SubscribeError::Unexpected(message_type)),
            }
        }
        Ok(SubscribedLink { link })
    }
}

impl SubscribedLink {
    /// The next experiment. Descriptors that no endpoint could follow are passed over. Loses nothing
    /// when abandoned.
    ///
    /// # Errors
    /// The subscription has ended.
    pub(crate) async fn next(&mut self) -> Result<Experiment, SubscribeError> {
        loop {
            let (message_type, payload) =
                self.link.receive().await?.ok_or(SubscribeError::Closed)?;
            let Message::Xnotify { channel, xdescr } = Message::decode(message_type, &payload)
            else {
                return Err(SubscribeError::Unexpected(message_type));
            };
            match Experiment::parse(xdescr) {
                Ok(experiment) => {
                    tracing::debug!("notified on channel {channel}: {xdescr}");
                    return Ok(experiment);
                }
                Err(reason) => tracing::warn!("experiment ignored, {reason}: {xdescr}"),
            }
        }
    }
}

impl Controller {
    /// All its addresses.
    ///
    /// # Errors
    /// Its name has none.
    pub(crate) async fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        let port = self.address.port.unwrap_or(CONTROLLER_PORT);
        Ok(lookup_host((self.address.host.as_str(), port)).await?.collect())
    }

    /// The server name, or an address for none.
    ///
    /// # Errors
    /// TLS refuses it.
    pub(crate) fn server_name(&self) -> Result<ServerName<'static>, SetupError> {
        tls::server_name(self.snikey.as_ref().map(SniKey::as_str))
    }
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.snikey {
            Some(snikey) => write!(f, "{} at {}", snikey.short(), self.address),
            None => self.address.fmt(f),
        }
    }
}

impl Experiment {
    /// What a descriptor says of how to find the controller (spec/protocol.md 1.8).
    fn parse(xdescr: &str) -> Result<Self, String> {
        if xdescr.len() > XDESCR_LEN_MAX {
            return Err(format!("its descriptor is longer than {XDESCR_LEN_MAX} bytes"));
        }
        let pairs = name_value::parse(Dialect::Descriptor, xdescr.as_bytes())
            .map_err(|error| error.to_string())?;
        let value = |name: &str| pairs.iter().find(|pair| pair.name == name).map(|p| &*p.value);
        let address = value("controller_addr").ok_or("it has no controller_addr")?;
        let address = HostPort::parse(address).map_err(|error| error.to_string())?;
        let snikey = value("sni_key").map(SniKey::parse).transpose();
        let snikey = snikey.map_err(|error| error.to_string())?;
        Ok(Self {
            controller: Controller { address, snikey },
            pub_end: value("pub_end").and_then(|end| end.parse().ok()).map(Ticks),
            priority: value("exp_priority").and_then(|text| text.parse().ok()).unwrap_or(0),
            xdescr: xdescr.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::{certificate, public_key};

    /// The example of spec/protocol.md 5.5.
    #[test]
    fn an_endpoint_with_a_delegated_chain_subscribes_as_the_original() {
        let certificates = ["subcmd_del_ep", "delpriv_eop_del_rep"].map(certificate);
        let operators = [public_key("bop"), public_key("eop")];
        let channel = |hex| Some(ChannelId::from_hex(hex).unwrap());
        let channels = [channel("0102"), None, channel("aa")];
        let attributes = "hostid=EP1;endpoint_country=USA;";
        let interest = Interest {
            certificates: &certificates,
            operators: &operators,
            channels: &channels,
            attributes,
        };
        let requests = interest.requests().unwrap();
        assert_eq!(requests.len(), 3);
        for (request, certificate) in requests.iter().zip(&certificates) {
            assert_eq!(request[0], 0x30);
            assert_eq!(&request[4..], certificate.der());
        }
        let (eop, del) = (public_key("eop"), public_key("del"));
        let expected = [
            &[0x38, 0, 0, 0x88, 2, 1, 2, 0x20][..],
            &eop.key_id().0,
            &[0x20],
            &del.key_id().0,
            &[1, 0xaa, 0],
            &eop.0,
            attributes.as_bytes(),
        ]
        .concat();
        assert_eq!(requests[2], expected);
        assert_eq!(requests[2][8..12], [0x2c, 0x02, 0xac, 0x29]);
        assert_eq!(requests[2][41..45], [0xc6, 0x0b, 0x4d, 0xb1]);
    }

    #[test]
    fn an_endpoint_without_certificates_names_no_operator_and_public_channels_only() {
        let channels = [Some(ChannelId::new(&[7]).unwrap())];
        let mut interest =
            Interest { certificates: &[], operators: &[], channels: &channels, attributes: "" };
        let requests = interest.requests().unwrap();
        assert_eq!(requests, [[&[0x38, 0, 0, 35, 1, 7, 0][..], &[0; 32]].concat()]);
        interest.channels = &[None];
        assert!(matches!(interest.requests(), Err(InterestError::NoChannel)));
    }

    #[test]
    fn the_operator_must_have_signed_the_last_certificate() {
        let certificates = [certificate("subcmd_eop_ep")];
        let operators = [public_key("bop")];
        let interest = Interest {
            certificates: &certificates,
            operators: &operators,
            channels: &[None],
            attributes: "",
        };
        assert!(matches!(interest.requests(), Err(InterestError::NoOperator)));
    }

    #[test]
    fn a_descriptor_tells_where_to_connect_and_which_name_to_ask_for() {
        let xdescr = "hostid=H*;exp_priority=7;pub_end=17;controller_addr=198.51.100.7:5555;sni_key=hello;x=y;";
        let experiment = Experiment::parse(xdescr).unwrap();
        let Controller { address, snikey } = experiment.controller;
        assert_eq!(address, HostPort::parse("198.51.100.7:5555").unwrap());
        assert_eq!(snikey, Some(SniKey::parse("hello").unwrap()));
        assert_eq!((experiment.pub_end, experiment.priority), (Some(Ticks(17)), 7));
        let experiment = Experiment::parse("controller_addr=host;").unwrap();
        assert_eq!(experiment.controller.address.port, None);
        assert_eq!(experiment.controller.snikey, None);
    }

    #[test]
    fn a_descriptor_that_cannot_be_followed_is_refused_with_the_reason() {
        let long = format!("controller_addr=h;x={};", "y".repeat(4094));
        for (xdescr, reason) in [
            ("", "no controller_addr"),
            ("sni_key=hello;", "no controller_addr"),
            ("controller_addr=;", "empty"),
            ("controller_addr=h;sni_key=123;", "number"),
            ("controller_addr=h", "';'"),
            (&long, "longer than 4094"),
        ] {
            let error = Experiment::parse(xdescr).unwrap_err();
            assert!(error.contains(reason), "{xdescr}: {error}");
        }
    }
}
