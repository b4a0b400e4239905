//! What one client of a broker says. The first byte says whether it publishes and with which of the golden keys it has opened its
//! connection; then come messages, most of them made of good parts, see `Conversation::message`.
//!
//! Whoever gets a private channel names an operator and has supplied certificates since its last request, one of which is by the
//! channel's key. What is taken keeps the limits and its end; what is refused says why. Certificates count once, and who says
//! the same again to another broker gets the same verdicts.

#![no_main]

#[path = "../../testdata/golden.rs"]
#[expect(dead_code, reason = "not all of it is needed")]
mod golden;
mod script;

use std::collections::HashSet;
use std::sync::LazyLock;

use hosts::broker::BrokerLimits;
use hosts::broker::fuzz::{Client, Verdict};
use libfuzzer_sys::fuzz_target;
use packetlab::certificate::Certificate;
use packetlab::channel::{ChannelId, ChannelList};
use packetlab::key::PublicKey;
use packetlab::message::{HEADER_LEN, Message, MessageType, Status};
use packetlab::name_value::{Dialect, parse};
use packetlab::time::Ticks;
use script::Script;

/// A time at which all golden certificates are valid, and one at which none is.
const NOW: Ticks = Ticks(1_700_000_000_000_000_000);
const TOO_LATE: Ticks = Ticks(2_208_988_800_000_000_000);

static CERTIFICATES: LazyLock<Vec<Certificate>> =
    LazyLock::new(|| golden::CERTIFICATES.map(golden::certificate).into());
static KEYS: LazyLock<Vec<PublicKey>> =
    LazyLock::new(|| golden::KEYS.map(golden::public_key).into());
static LIMITS: LazyLock<BrokerLimits> =
    LazyLock::new(|| BrokerLimits { channels_max: 20, ..BrokerLimits::default() });

fuzz_target!(|input: &[u8]| {
    let mut script = Script(input);
    let choice = script.number();
    let publishes = choice & 1 != 0;
    let key = KEYS[choice / 2 % KEYS.len()];
    let mut conversation =
        Conversation { client: Client::new(publishes, key), publishes, key, supplied: Vec::new() };
    let mut verdicts = Vec::new();
    while let Some(operation) = script.next() {
        let now = if operation & 0x80 == 0 { NOW } else { TOO_LATE };
        let (message_type, payload) = conversation.message(operation % 0x80, &mut script);
        let verdict = conversation.client.handle(message_type, &payload, &LIMITS, now);
        conversation.judge(message_type, &payload, &verdict, now);
        verdicts.push((message_type, payload, now, verdict));
    }
    let mut other = Client::new(publishes, key);
    for (message_type, payload, now, verdict) in verdicts {
        assert_eq!(sorted(other.handle(message_type, &payload, &LIMITS, now)), sorted(verdict));
    }
});

struct Conversation {
    client: Client,
    publishes: bool,
    key: PublicKey,
    /// Certificates that were taken since the last request.
    supplied: Vec<Certificate>,
}

impl Conversation {
    fn message(&self, operation: u8, script: &mut Script<'_>) -> (MessageType, Vec<u8>) {
        let mut encoded = Vec::new();
        let message = match operation % 4 {
            0 => {
                let certificate = CERTIFICATES[script.number() % CERTIFICATES.len()].der();
                Message::Xcert { certificate }
            }
            1 => {
                let channels = ChannelList::new(&channels(script));
                let operator = script.number();
                let operator_key =
                    if operator == 0 { [0; 32] } else { KEYS[operator % KEYS.len()].0 };
                let text = script.bytes();
                let good = "controller_addr=192.0.2.1:5555;sni_key=hello;";
                let text = if text.is_empty() { Ok(good) } else { std::str::from_utf8(text) };
                let (xdescr, dattr) = (text.unwrap_or(good), text.unwrap_or("a=b;"));
                match self.publishes == (operation & 4 == 0) {
                    true => Message::Xpub { channels, operator_key, xdescr },
                    false => Message::Xsub { channels, operator_key, dattr },
                }
            }
            2 => Message::Xcert { certificate: script.bytes() },
            _ => return (MessageType(script.number() as u8), script.bytes().to_vec()),
        };
        match message.encode(&mut encoded) {
            Ok(()) => (MessageType(encoded[0]), encoded.split_off(HEADER_LEN)),
            Err(_) => (MessageType::XCERT, Vec::new()),
        }
    }

    fn judge(&mut self, message_type: MessageType, payload: &[u8], verdict: &Verdict, now: Ticks) {
        let message = Message::decode(message_type, payload);
        match (&message, verdict) {
            (Message::Xcert { certificate }, Verdict::Certificate) => {
                self.supplied.push(Certificate::from_der(certificate).unwrap());
            }
            (
                Message::Xpub { operator_key, xdescr: said, .. }
                | Message::Xsub { operator_key, dattr: said, .. },
                Verdict::Taken { channels, text, until },
            ) => {
                assert_eq!(*said, text);
                self.judge_taken(operator_key, channels, text, (*until, now));
                self.supplied.clear();
            }
            (_, Verdict::Refused { status, ends }) => {
                assert_ne!(*status, Status::SUCCESS);
                let is_malformed = matches!(message, Message::Raw { malformed: true, .. });
                assert!(!ends || is_malformed, "it ends though it speaks the protocol");
                let is_request = matches!(message, Message::Xpub { .. } | Message::Xsub { .. });
                let is_own = message_type
                    == if self.publishes { MessageType::XPUB } else { MessageType::XSUB };
                if is_malformed || is_request && is_own {
                    self.supplied.clear();
                }
            }
            (message, verdict) => panic!("{message:?} has this verdict: {verdict:?}"),
        }
        let size: usize = self.supplied.iter().map(|one| one.der().len()).sum();
        assert_eq!(self.client.certificates_size(), size, "certificates count once");
        assert!(self.supplied.len() <= LIMITS.certificates_max);
        assert!(size <= LIMITS.certificates_size_max);
    }

    fn judge_taken(
        &self,
        operator_key: &[u8; 32],
        channels: &[ChannelId],
        text: &str,
        (until, now): (Ticks, Ticks),
    ) {
        assert!(!channels.is_empty() && text.len() <= LIMITS.descriptor_max);
        assert_eq!(channels.iter().collect::<HashSet<_>>().len(), channels.len(), "twice");
        if *operator_key != [0; 32] {
            assert!(now < TOO_LATE && until <= TOO_LATE, "its certificates have expired");
            let leaf = self.supplied.first().expect("an operator's word");
            assert_eq!(leaf.subject_key, self.key, "another's chain");
            let operator = PublicKey(*operator_key);
            assert!(self.supplied.iter().any(|one| one.verify_signature(&operator)));
        }
        for channel in channels.iter().filter(|channel| channel.is_private()) {
            assert_ne!(*operator_key, [0; 32], "a private channel without an operator");
            let is_signer = |one: &Certificate| one.authority_key_id.0 == channel.as_bytes();
            assert!(self.supplied.iter().any(is_signer), "a private channel of somebody else");
        }
        let dialect = if self.publishes { Dialect::Descriptor } else { Dialect::Attributes };
        let pairs = parse(dialect, text.as_bytes()).expect("well formed");
        let values = |name: &'static str| pairs.iter().filter(move |pair| pair.name == name);
        if self.publishes {
            assert_eq!(values("controller_addr").count(), 1);
            for end in values("pub_end") {
                assert!(until.0 <= end.value.parse::<u64>().unwrap(), "it outlives its pub_end");
            }
        } else {
            assert!(channels.len() <= LIMITS.channels_max);
        }
    }
}

/// Public ones and private ones, of golden keys.
fn channels(script: &mut Script<'_>) -> Vec<ChannelId> {
    let count = script.number() % 32;
    let channel = |number: usize| match KEYS.get(number % 16) {
        Some(key) => ChannelId::new(&key.key_id().0).unwrap(),
        None => ChannelId::new(&[number as u8]).unwrap(),
    };
    (0..count).map(|_| channel(script.number())).collect()
}

/// Channels of a subscription come in any order.
fn sorted(verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::Taken { mut channels, text, until } => {
            channels.sort();
            Verdict::Taken { channels, text, until }
        }
        other => other,
    }
}
