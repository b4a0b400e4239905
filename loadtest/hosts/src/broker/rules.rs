//! What one client of a broker may do: certificates, then a publication or a subscription, again and
//! again (spec/protocol.md 5.4, 5.5).
//!
//! Pure: messages and the time in, a verdict out. Not here: who is told of what and how much a key may
//! publish (`board`), how often it may ask (`key_use`), sockets (`server`).
//!
//! Invariant: whoever names an operator has shown a chain that ends in that operator's key and begins
//! with the key of its own TLS connection; whoever uses a private channel has derived it from such a
//! chain. Certificates count for the one request that follows them, whether it succeeds or not.

use std::collections::HashSet;

use packetlab::address::HostPort;
use packetlab::certificate::Certificate;
use packetlab::channel::{ChannelId, ChannelList};
use packetlab::key::PublicKey;
use packetlab::message::{Message, MessageType};
use packetlab::name_value::{self, Dialect, Pair, Patterns};
use packetlab::snikey;
use packetlab::time::Ticks;
use packetlab::trust::verify_chain;

use super::board::{Publication, Subscription};
use super::limits::BrokerLimits;
use super::refusal::Refusal;
use super::role::Role;

/// Longest `controller_addr` that endpoints can take (spec/protocol.md 1.8).
const CONTROLLER_ADDR_LEN_MAX: usize = 255;
/// What a request without an operator says instead of the operator's key.
const NO_OPERATOR: [u8; 32] = [0; 32];

/// What a client asked for and gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Accepted {
    /// A certificate was put to the others.
    Certificate,
    /// Publications add up.
    Publication(Publication),
    /// A subscription replaces the one before.
    Subscription(Subscription),
}

/// One client.
#[derive(Debug)]
pub(crate) struct Client {
    role: Role,
    /// The key with which it opened its TLS connection.
    key: PublicKey,
    /// Supplied since the last request.
    certificates: Vec<Certificate>,
}

/// A request that names channels and an operator, of either kind.
struct Request {
    channels: ChannelList,
    operator_key: [u8; 32],
    text: String,
}

/// What a verified chain lets a client do.
struct Rights {
    private_channels: Vec<ChannelId>,
    until: Ticks,
}

impl Client {
    /// A client that has said nothing yet; `key` is the one of its TLS connection.
    pub(crate) fn new(role: Role, key: PublicKey) -> Self {
        Self { role, key, certificates: Vec::new() }
    }

    /// The certificates it has supplied do not count.
    pub(crate) fn drop_certificates(&mut self) {
        self.certificates.clear();
    }

    /// Bytes of the certificates that it has supplied for its next request.
    pub(crate) fn certificates_size(&self) -> usize {
        self.certificates.iter().map(|held| held.der().len()).sum()
    }

    /// Judges one message.
    ///
    /// # Errors
    /// The refusal to answer with.
    pub(crate) fn handle(
        &mut self,
        message_type: MessageType,
        payload: &[u8],
        limits: &BrokerLimits,
        now: Ticks,
    ) -> Result<Accepted, Refusal> {
        match (self.role, Message::decode(message_type, payload)) {
            (_, Message::Xcert { certificate }) => {
                self.take_certificate(certificate, limits).map(|()| Accepted::Certificate)
            }
            (Role::Publisher, Message::Xpub { channels, operator_key, xdescr }) => {
                let request = Request { channels, operator_key, text: xdescr.to_owned() };
                self.publish(request, limits, now).map(Accepted::Publication)
            }
            (Role::Subscriber, Message::Xsub { channels, operator_key, dattr }) => {
                let request = Request { channels, operator_key, text: dattr.to_owned() };
                self.subscribe(request, limits, now).map(Accepted::Subscription)
            }
            (role, Message::Raw { malformed: true, .. }) => {
                self.certificates.clear();
                Err(diagnose(role, message_type, payload))
            }
            _ => Err(Refusal::Unsupported(message_type)),
        }
    }

    fn take_certificate(&mut self, der: &[u8], limits: &BrokerLimits) -> Result<(), Refusal> {
        if self.certificates.len() >= limits.certificates_max {
            return Err(Refusal::TooManyCertificates { max: limits.certificates_max });
        }
        if self.certificates_size() + der.len() > limits.certificates_size_max {
            return Err(Refusal::CertificatesTooLarge { max: limits.certificates_size_max });
        }
        self.certificates.push(Certificate::from_der(der).map_err(Refusal::Certificate)?);
        Ok(())
    }

    fn publish(
        &mut self,
        request: Request,
        limits: &BrokerLimits,
        now: Ticks,
    ) -> Result<Publication, Refusal> {
        let rights = self.rights(&request, now)?;
        let channels = permitted(self.role, &request.channels, &rights)?;
        check_size(self.role, &request.text, limits)?;
        let (patterns, end) = check_descriptor(&request.text)?;
        let until = end.min(rights.until);
        Ok(Publication { channels, xdescr: request.text, patterns, until })
    }

    fn subscribe(
        &mut self,
        request: Request,
        limits: &BrokerLimits,
        now: Ticks,
    ) -> Result<Subscription, Refusal> {
        let rights = self.rights(&request, now)?;
        let channels = permitted(self.role, &request.channels, &rights)?;
        check_size(self.role, &request.text, limits)?;
        if channels.len() > limits.channels_max {
            return Err(Refusal::TooManyChannels { max: limits.channels_max });
        }
        let channels = HashSet::from_iter(channels);
        Subscription::new(channels, request.text, rights.until)
            .map_err(|_| Refusal::MalformedText(self.role))
    }

    /// Uses up the certificates.
    fn rights(&mut self, request: &Request, now: Ticks) -> Result<Rights, Refusal> {
        let chain = std::mem::take(&mut self.certificates);
        if request.operator_key == NO_OPERATOR {
            return Ok(Rights { private_channels: Vec::new(), until: Ticks::MAX });
        }
        let operator = PublicKey(request.operator_key);
        let verified = verify_chain(&chain, &[operator], self.role.trust_mode(), now)
            .map_err(Refusal::Chain)?;
        if verified.leaf().is_none_or(|leaf| leaf.subject_key != self.key) {
            return Err(Refusal::ForeignChain { key: self.key.key_id() });
        }
        let private_channels = self.role.private_channels(&verified);
        // Valid in the last second itself (4.6), so over one tick later.
        let until = Ticks(verified.not_after.0.saturating_add(1));
        Ok(Rights { private_channels, until })
    }
}

/// The channels of a request in order and without duplicates, all of which the client may use.
fn permitted(
    role: Role,
    channels: &ChannelList,
    rights: &Rights,
) -> Result<Vec<ChannelId>, Refusal> {
    let mut distinct = HashSet::new();
    let permitted: Vec<_> = channels.iter().filter(|channel| distinct.insert(*channel)).collect();
    if permitted.is_empty() {
        return Err(Refusal::NoChannel(role));
    }
    let is_foreign =
        |channel: &&ChannelId| channel.is_private() && !rights.private_channels.contains(channel);
    match permitted.iter().find(is_foreign) {
        Some(channel) => Err(Refusal::ForeignChannel(role, *channel)),
        None => Ok(permitted),
    }
}

fn check_size(role: Role, text: &str, limits: &BrokerLimits) -> Result<(), Refusal> {
    let (len, max) = (text.len(), limits.descriptor_max);
    if len > max { Err(Refusal::TextTooLong { role, len, max }) } else { Ok(()) }
}

/// What endpoints rely on in a descriptor (spec/protocol.md 1.8); returns its patterns and its `pub_end`.
///
/// An original endpoint overflows a buffer on a longer `sni_key` (Q26), so none gets one from here.
fn check_descriptor(xdescr: &str) -> Result<(Patterns, Ticks), Refusal> {
    let pairs = name_value::parse(Dialect::Descriptor, xdescr.as_bytes())
        .map_err(|_| Refusal::Descriptor("it is not well formed"))?;
    name_value::check_search(&pairs).map_err(Refusal::Search)?;
    match values(&pairs, "controller_addr")[..] {
        [address] if is_reachable(address) => {}
        _ => return Err(Refusal::Address),
    }
    match values(&pairs, "exp_priority")[..] {
        [] => {}
        [priority] if decimal(priority).is_some() => {}
        _ => return Err(Refusal::Priority),
    }
    match values(&pairs, "sni_key")[..] {
        [] => {}
        [name] if snikey::check(name.as_bytes()).is_ok() => {}
        _ => return Err(Refusal::Descriptor("its sni_key is none, or there are several")),
    }
    let end = match values(&pairs, "pub_end")[..] {
        [] => Ticks::MAX,
        [end] => decimal(end)
            .map(Ticks)
            .ok_or(Refusal::Descriptor("its pub_end is no number of nanoseconds since 1970"))?,
        _ => return Err(Refusal::Descriptor("it has several pub_end")),
    };
    Ok((Patterns::new(pairs), end))
}

fn values<'p>(pairs: &'p [Pair], name: &str) -> Vec<&'p str> {
    pairs.iter().filter(|pair| pair.name == name).map(|pair| pair.value.as_str()).collect()
}

fn decimal(text: &str) -> Option<u64> {
    // u64's own parser would also take a plus sign.
    text.parse().ok().filter(|_| text.bytes().all(|c| c.is_ascii_digit()))
}

/// An address that an endpoint can connect to, as far as its text can show that.
fn is_reachable(address: &str) -> bool {
    address.len() <= CONTROLLER_ADDR_LEN_MAX
        && !address.contains(['*', '?'])
        && HostPort::parse(address).is_ok_and(|address| address.port != Some(0))
}

/// What is wrong with a payload that does not decode; the codes for requests say more than
/// "malformed message" (spec/protocol.md 1.11).
fn diagnose(role: Role, message_type: MessageType, payload: &[u8]) -> Refusal {
    let malformed = Refusal::Malformed(message_type);
    let expected = match role {
        Role::Publisher => MessageType::XPUB,
        Role::Subscriber => MessageType::XSUB,
    };
    if message_type != expected {
        return malformed;
    }
    match ChannelList::decode_front(payload) {
        Err(error) => Refusal::ChannelList(role, error),
        Ok((_, rest)) if rest.len() < NO_OPERATOR.len() => malformed,
        Ok(_) => Refusal::MalformedText(role),
    }
}

#[cfg(test)]
mod tests;
