//! A connection on its way to be registered at a proxy. The first byte says into how long pieces what the proxy sends is cut; then
//! come operations: what it says within TLS, a record each, and what it sends behind that, as it is.
//!
//! It is registered if the first message is a RESULT of success and the preamble comes behind that record, soon enough, where the
//! proxy's own search finds it too; the endpoint's bytes begin behind it. We say XREG, once, then close_notify, and our
//! preamble only when theirs has come.

#![no_main]

#[path = "../../testdata/golden.rs"]
#[expect(dead_code, reason = "not all of it is needed")]
mod golden;
#[path = "../../../loadtest/hosts/src/proxy/preamble.rs"]
#[expect(dead_code, reason = "not all of it is needed")]
mod preamble;
mod script;

use std::io::{Read, Write};
use std::sync::{Arc, LazyLock};

use engine::proto::backlog::{SetUp, SetUpError, SetUpStep};
use libfuzzer_sys::fuzz_target;
use packetlab::frame::Framer;
use packetlab::message::Message;
use packetlab::snikey::SniKey;
use packetlab::time::Ticks;
use packetlab::tls::{self, ClientConfig, Identity, PeerRule, ServerConfig};
use packetlab::trust::TrustMode;
use preamble::{Finder, PREAMBLE};
use rustls::ServerConnection;
use script::Script;

/// A time at which all golden certificates are valid.
const NOW: Ticks = Ticks(1_700_000_000_000_000_000);

/// The largest payload of a RESULT.
const RESULT_PAYLOAD_MAX: usize = 6;

/// So many bytes without a preamble are given up, with those of one piece.
const SKIPPED_MAX: usize = 64 * 1024;

static CONTROLLER: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| {
    let chain = [golden::certificate("agent_xc")];
    let identity = Identity { chain: &chain, key: &golden::private_key("xc") };
    tls::client_config(Some(&identity), agents(&["bop"])).unwrap()
});

static PROXY: LazyLock<Arc<ServerConfig>> = LazyLock::new(|| {
    let chain = [golden::certificate("agent_bop_rv")];
    let identity = Identity { chain: &chain, key: &golden::private_key("rv") };
    tls::server_config(&identity, agents(&[])).unwrap()
});

fn agents(anchors: &[&str]) -> PeerRule {
    let anchors = anchors.iter().map(|name| golden::public_key(name)).collect();
    PeerRule { mode: TrustMode::Agent, anchors, mandatory: true }
}

fuzz_target!(
    // What TLS does once, before any input's time is taken.
    init: tls::warm_up().unwrap(),
    |input: &[u8]| {
        let mut script = Script(input);
        let Some(piece_len) = script.next() else { return };
        let mut tls = ServerConnection::new(Arc::clone(&PROXY)).unwrap();
        tls.set_buffer_limit(None);
        let mut proxy = Proxy { tls, heard: Vec::new() };
        let mut set_up = SetUp::new(Arc::clone(&CONTROLLER), &SniKey::parse("hello").unwrap()).unwrap();
        while set_up.step() != Some(SetUpStep::Answer) {
            proxy.take(&set_up.take_output());
            set_up.handle_sent();
            set_up.handle_bytes(&proxy.sealed(), NOW).unwrap();
        }
        assert_eq!(proxy.heard, b"\x80\0\0\x05hello");
        proxy.heard.clear();

        let (mut sent, mut said, mut expected) =
            (Vec::new(), Framer::new(RESULT_PAYLOAD_MAX), Expected::Nothing);
        while let Some(operation) = script.next() {
            let bytes = match operation % 4 {
                0 => script.bytes().to_vec(),
                1 => script.message(),
                2 => PREAMBLE.to_vec(),
                _ => b"\x40\0\0\0".to_vec(),
            };
            match operation / 4 % 4 {
                0 if matches!(expected, Expected::Nothing) => {
                    expected = proxy.say(&bytes, &mut said);
                    sent.extend(proxy.sealed());
                    if matches!(expected, Expected::Registered) {
                        expected = Expected::Raw { from: sent.len() };
                    }
                }
                1 if matches!(expected, Expected::Nothing) => {
                    proxy.tls.send_close_notify();
                    sent.extend(proxy.sealed());
                    expected = Expected::Closed;
                }
                // Bytes that are no record end TLS.
                _ if matches!(expected, Expected::Nothing) => {
                    sent.extend(bytes);
                    expected = Expected::Lie;
                }
                _ => sent.extend(bytes),
            }
        }
        let piece_len = usize::from(piece_len) * 16 + 1;
        let mut failed = None;
        for piece in sent.chunks(piece_len) {
            failed = set_up.handle_bytes(piece, NOW).err();
            if failed.is_some() {
                break;
            }
        }
        judge(&expected, &sent, piece_len, failed, set_up, proxy);
    }
);

/// What must come of what the proxy has said.
enum Expected {
    /// No whole message has come.
    Nothing,
    /// The RESULT of success is in the last record.
    Registered,
    /// It is, and what is behind so many bytes is no TLS any more.
    Raw { from: usize },
    /// Another message.
    Refused,
    /// Bytes that are no TLS instead of a record.
    Lie,
    /// The end of TLS instead of a message.
    Closed,
}

fn judge(
    expected: &Expected,
    sent: &[u8],
    piece_len: usize,
    failed: Option<SetUpError>,
    mut set_up: SetUp,
    mut proxy: Proxy,
) {
    let output = set_up.take_output();
    let Expected::Raw { from } = *expected else {
        match expected {
            Expected::Refused => assert!(
                matches!(failed, Some(SetUpError::Refused(_) | SetUpError::Unexpected { .. })),
                "{failed:?}"
            ),
            Expected::Closed => assert_eq!(failed, Some(SetUpError::Closed)),
            Expected::Lie => {
                assert!(matches!(failed, None | Some(SetUpError::Tls(_))), "{failed:?}")
            }
            _ => assert_eq!(failed, None),
        }
        assert!(!output.ends_with(PREAMBLE), "it is not registered");
        return;
    };
    let raw = &sent[from..];
    match (Finder::default().find(raw), failed) {
        (Some(end), None) => {
            assert_eq!(set_up.step(), Some(SetUpStep::Reply));
            let close_notify = output.strip_suffix(PREAMBLE).expect("our preamble");
            proxy.take(close_notify);
            assert!(proxy.heard.is_empty(), "XREG is all that is said");
            set_up.handle_sent();
            assert_eq!(set_up.step(), None);
            assert_eq!(set_up.into_endpoint_bytes(), raw[end..]);
        }
        (None, None) => {
            assert_eq!(set_up.step(), Some(SetUpStep::Preamble));
            assert!(!output.ends_with(PREAMBLE), "theirs has not come");
            assert!(raw.len() <= SKIPPED_MAX + PREAMBLE.len());
        }
        (end, Some(error)) => {
            assert_eq!(error, SetUpError::NoPreamble);
            assert!(end.unwrap_or(raw.len()) + piece_len > SKIPPED_MAX, "given up too soon");
        }
    }
}

/// A proxy's side of TLS.
struct Proxy {
    tls: ServerConnection,
    heard: Vec<u8>,
}

impl Proxy {
    fn take(&mut self, mut sealed: &[u8]) {
        while !sealed.is_empty() {
            self.tls.read_tls(&mut sealed).unwrap();
            let state = self.tls.process_new_packets().unwrap();
            let mut plain = vec![0; state.plaintext_bytes_to_read()];
            self.tls.reader().read_exact(&mut plain).unwrap();
            self.heard.extend(plain);
        }
    }

    fn sealed(&mut self) -> Vec<u8> {
        let mut sealed = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut sealed).unwrap();
        }
        sealed
    }

    /// Says bytes in records of their own; `said` is what it has said.
    fn say(&mut self, bytes: &[u8], said: &mut Framer) -> Expected {
        self.tls.writer().write_all(bytes).unwrap();
        said.push(bytes);
        let (message_type, payload) = match said.next() {
            Ok(Some(message)) => message,
            Ok(None) => return Expected::Nothing,
            // No RESULT is so long.
            Err(_) => return Expected::Refused,
        };
        match Message::decode(message_type, payload) {
            Message::Result(outcome) if outcome.is_success() => Expected::Registered,
            _ => Expected::Refused,
        }
    }
}
