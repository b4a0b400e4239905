//! A server's stream against a client of rustls, which knows nothing of our records.

mod violations;

use std::io::{Read, Write};
use std::sync::Arc;

use proptest::prelude::*;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::kx_group;
use rustls::server::ServerSessionMemoryCache;
use rustls::{CipherSuite, ClientConfig, ClientConnection, Error, KeyLog, ServerConfig};

use super::clock::at;
use super::secrets::TellSecrets;
use super::verify::ChainVerifier;
use super::*;
use crate::certificate::{Certificate, CertificateLimits, CertificateType, Delegation};
use crate::issue::{CertificateFields, issue};
use crate::key::PrivateKey;
use crate::record::SEALED_OVERHEAD_MAX;
use crate::time::Ticks;
use crate::trust::TrustMode;

const SUITES: [CipherSuite; 3] = [
    CipherSuite::TLS13_AES_128_GCM_SHA256,
    CipherSuite::TLS13_AES_256_GCM_SHA384,
    CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
];

fn rule() -> PeerRule {
    PeerRule { mode: TrustMode::Agent, anchors: Vec::new(), mandatory: false }
}

fn server_side() -> Arc<ServerConfig> {
    let key = PrivateKey::generate().unwrap();
    let fields = CertificateFields {
        certificate_type: CertificateType::Agent,
        delegation: Delegation::default(),
        path_len: None,
        not_before: Ticks(0),
        not_after: Ticks::MAX,
        description: None,
        auxiliary: Vec::new(),
        limits: CertificateLimits::default(),
    };
    let der = issue(&fields, &key.public_key(), &key).unwrap();
    let chain = [Certificate::from_der(&der).unwrap()];
    server_config(&Identity { chain: &chain, key: &key }, rule()).unwrap()
}

/// A client that offers this suite alone.
fn client(suite: CipherSuite) -> ClientConnection {
    client_with(|provider| provider.cipher_suites.retain(|offered| offered.suite() == suite))
}

fn client_with(change: impl FnOnce(&mut CryptoProvider)) -> ClientConnection {
    let mut provider = alert::provider();
    change(&mut provider);
    let provider = Arc::new(provider);
    let verifier = ChainVerifier::new(rule(), Arc::clone(&provider));
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    ClientConnection::new(Arc::new(client), server_name(None).unwrap()).unwrap()
}

/// Both ends of a connection.
struct Pair {
    server: ServerStream,
    client: ClientConnection,
    /// What the client has received and not read.
    received: Vec<u8>,
    /// Into how long chunks the network cuts what the client sends.
    cut_len: usize,
}

fn sent_by(client: &mut ClientConnection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).unwrap();
    }
    bytes
}

impl Pair {
    /// A pair whose client has sent its ClientHello.
    fn begin(client: ClientConnection, config: Arc<ServerConfig>, cut_len: usize) -> Self {
        Self::begin_with(client, config, cut_len, b"")
    }

    /// The same, with these bytes behind it.
    fn begin_with(
        mut client: ClientConnection,
        config: Arc<ServerConfig>,
        cut_len: usize,
        behind: &[u8],
    ) -> Self {
        let (mut hello, mut server) = (Hello::default(), None::<ServerStream>);
        for mut cut in [&sent_by(&mut client)[..], behind].concat().chunks(cut_len) {
            while !cut.is_empty() {
                match &mut server {
                    Some(server) => server.receive(&mut cut, Ticks(1)).unwrap(),
                    None => {
                        let whole = hello.receive(&mut cut).unwrap();
                        server = whole.map(|hello| hello.accept(Arc::clone(&config)).unwrap());
                    }
                }
            }
        }
        Self { server: server.unwrap(), client, received: Vec::new(), cut_len }
    }

    /// A pair whose handshake is over.
    fn new(client: ClientConnection, cut_len: usize) -> Self {
        let mut pair = Self::begin(client, server_side(), cut_len);
        pair.shake_hands();
        pair
    }

    fn shake_hands(&mut self) {
        while self.client.is_handshaking() || self.server.is_handshaking() {
            self.give_to_client();
            let sent = sent_by(&mut self.client);
            self.give_to_server(&sent).unwrap();
        }
    }

    /// Everything is received by the set-up's way.
    fn give_to_server(&mut self, bytes: &[u8]) -> Result<(), Error> {
        for mut cut in bytes.chunks(self.cut_len) {
            while !cut.is_empty() {
                self.server.receive(&mut cut, Ticks(1))?;
            }
        }
        Ok(())
    }

    /// The data that what the client has sent is opened to.
    fn opened(&mut self) -> (Vec<u8>, Result<Next, Error>) {
        let (mut data, mut next) = (Vec::new(), Ok(Next::Input));
        for mut cut in sent_by(&mut self.client).chunks(self.cut_len) {
            let mut room = vec![0; cut.len() + 20_000];
            let opened = self.server.open(&mut cut, &mut room);
            data.extend_from_slice(&room[..opened.len]);
            next = opened.next;
            assert!(cut.is_empty() || next.is_err());
        }
        (data, next)
    }

    fn seal(&mut self, piece: &[u8]) {
        let mut room = vec![0; piece.len() + SEALED_OVERHEAD_MAX];
        let len = self.server.seal(piece, &mut room);
        self.take_at_client(&room[..len]);
    }

    fn give_to_client(&mut self) {
        let mut room = [0; 100];
        while self.server.has_output() {
            let len = self.server.write_output(&mut room);
            assert!(len > 0, "a hundred bytes are room enough");
            self.take_at_client(&room[..len]);
        }
    }

    fn take_at_client(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            self.client.read_tls(&mut bytes).unwrap();
            at(Ticks(1), || self.client.process_new_packets().map(drop)).unwrap();
            // It would block where close_notify has not come.
            let _ = self.client.reader().read_to_end(&mut self.received);
        }
    }

    fn read_at_client(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.received)
    }
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| at as u8).collect()
}

#[test]
fn data_passes_both_ways_in_all_suites_at_every_chunking() {
    for suite in SUITES {
        for cut_len in [1, 2, 3, 5, 6, 7, 21, 22, 23, 100, 4096, 16_406, 40_000] {
            let mut pair = Pair::new(client(suite), cut_len);
            for len in [1, 2, 100, 16_384, 16_385, 40_000] {
                pair.client.writer().write_all(&bytes(len)).unwrap();
                let (data, next) = pair.opened();
                assert!(data == bytes(len) && next == Ok(Next::Input), "{suite:?} {cut_len} {len}");
                for piece in bytes(len).chunks(16_384) {
                    pair.seal(piece);
                    assert!(pair.read_at_client() == piece, "{suite:?} {cut_len} {len}");
                }
            }
        }
    }
}

#[test]
fn a_server_takes_the_cheapest_suite_that_a_client_offers_wherever_it_stands() {
    let [aes_128, aes_256, chacha20] = SUITES;
    for (offered, taken) in [
        (&[aes_256, chacha20, aes_128][..], aes_128),
        (&[aes_128, aes_256], aes_128),
        (&[aes_256, chacha20], aes_256),
        (&[chacha20], chacha20),
    ] {
        let place = |suite| offered.iter().position(|offer| *offer == suite);
        let pair = Pair::new(
            client_with(|provider| {
                provider.cipher_suites.retain(|suite| offered.contains(&suite.suite()));
                provider.cipher_suites.sort_by_key(|suite| place(suite.suite()));
            }),
            usize::MAX,
        );
        let suite = pair.client.negotiated_cipher_suite().unwrap().suite();
        assert_eq!(suite, taken, "{offered:?}");
    }
}

#[test]
fn nothing_behind_the_record_that_ends_the_handshake_is_lost() {
    for suite in SUITES {
        let whole = {
            let mut pair = Pair::begin(client(suite), server_side(), usize::MAX);
            pair.give_to_client();
            sent_by(&mut pair.client).len()
        };
        // As much of the data behind the handshake comes with it as there is, or less.
        for with_it in [0, 1, 4, 5, 6, 26, 27, 28, 32, 54] {
            let mut pair = Pair::begin(client(suite), server_side(), usize::MAX);
            pair.give_to_client();
            pair.client.writer().write_all(b"first").unwrap();
            pair.client.writer().write_all(b"second").unwrap();
            let sent = sent_by(&mut pair.client);
            let (front, rest) = sent.split_at(sent.len().min(whole + with_it));
            pair.give_to_server(front).unwrap();
            assert!(!pair.server.is_handshaking());
            pair.give_to_server(rest).unwrap();
            let mut data = [0; 100];
            assert_eq!(pair.server.read(&mut data), Plaintext::Bytes(11));
            assert_eq!(&data[..11], b"firstsecond", "{with_it}");
        }
    }
}

#[test]
fn half_a_record_behind_the_client_hello_is_no_end_of_the_handshake() {
    let change_cipher_spec = [20, 3, 3, 0, 1, 1];
    for len in 0..=change_cipher_spec.len() {
        let (with_it, rest) = change_cipher_spec.split_at(len);
        let (client, config) = (client(SUITES[0]), server_side());
        let mut pair = Pair::begin_with(client, config, usize::MAX, with_it);
        pair.give_to_server(rest).unwrap();
        pair.shake_hands();
        pair.client.writer().write_all(b"data").unwrap();
        assert_eq!(pair.opened(), (b"data".to_vec(), Ok(Next::Input)), "{len}");
    }
}

#[test]
fn what_is_due_waits_behind_what_was_sealed_before() {
    let mut pair = Pair::new(client(SUITES[0]), usize::MAX);
    assert_eq!(pair.server.write_piece(&bytes(1000)), 1000);
    pair.client.refresh_traffic_keys().unwrap();
    assert_eq!(pair.opened(), (Vec::new(), Ok(Next::Input)));
    pair.server.close();
    pair.give_to_client();
    assert!(pair.read_at_client() == bytes(1000));
}

#[test]
fn no_more_is_sealed_than_may_wait() {
    let mut pair = Pair::new(client(SUITES[0]), usize::MAX);
    let (piece, mut written) = (bytes(1 << 20), 0);
    while written < piece.len() {
        let len = pair.server.write_piece(&piece[written..]);
        assert!((1..=80 * 1024).contains(&len), "{len}");
        assert_eq!(pair.server.write_piece(b"x"), 0);
        pair.give_to_client();
        assert!(pair.read_at_client() == piece[written..][..len]);
        written += len;
    }
}

#[test]
fn secrets_come_through_a_second_client_hello_too() {
    let only_later = |provider: &mut CryptoProvider| {
        provider.kx_groups.insert(0, kx_group::MLKEM768);
    };
    for cut_len in [1, 1000] {
        let mut pair = Pair::new(client_with(only_later), cut_len);
        assert_eq!(
            pair.client.handshake_kind(),
            Some(rustls::HandshakeKind::FullWithHelloRetryRequest)
        );
        pair.client.writer().write_all(b"data").unwrap();
        assert_eq!(pair.opened(), (b"data".to_vec(), Ok(Next::Input)));
        pair.seal(b"answer");
        assert_eq!(pair.read_at_client(), b"answer");
    }
}

#[test]
fn keys_that_rustls_has_sealed_a_record_with_are_not_taken_over() {
    let mut config = (*server_side()).clone();
    config.send_tls13_tickets = 1;
    config.session_storage = ServerSessionMemoryCache::new(10);
    let mut pair = Pair::begin(client(SUITES[0]), Arc::new(config), 1000);
    pair.give_to_client();
    let sent = sent_by(&mut pair.client);
    let refused = pair.give_to_server(&sent);
    assert!(reason(&refused.unwrap_err()).contains("cannot be taken over"));
    assert!(pair.server.is_closed() && pair.server.is_handshaking());
    assert_eq!(pair.server.write_piece(b"x"), 0);
    assert_eq!(pair.server.seal(b"x", &mut [0; 100]), 0);
    assert!(pair.server.take_peer().is_none());
}

#[test]
fn secrets_are_told_to_nobody_who_has_not_asked() {
    let label = "SERVER_TRAFFIC_SECRET_0";
    assert!(!TellSecrets.will_log(label));
    TellSecrets.log(label, b"", &[1; 32]);
    let mut secrets = secrets::Secrets::default();
    secrets::told_during(&mut secrets, || {
        assert!(TellSecrets.will_log(label) && !TellSecrets.will_log("EXPORTER_SECRET"));
    });
    assert!(secrets.ours.is_empty() && secrets.theirs.is_empty());
}

#[test]
fn an_idle_stream_keeps_no_buffer() {
    let mut pair = Pair::new(client(SUITES[0]), 10);
    pair.client.writer().write_all(&bytes(1000)).unwrap();
    let sent = sent_by(&mut pair.client);
    pair.give_to_server(&sent).unwrap();
    assert_eq!(pair.server.write_piece(&bytes(1000)), 1000);
    let mut data = [0; 600];
    assert_eq!(pair.server.read(&mut data), Plaintext::Bytes(600));
    assert_eq!(pair.server.read(&mut data), Plaintext::Bytes(400));
    assert_eq!(pair.server.read(&mut data), Plaintext::Empty);
    pair.give_to_client();
    assert_eq!(pair.server.kept_len(), 0);
    assert!(pair.read_at_client() == bytes(1000));
}

#[test]
fn what_set_up_has_not_read_comes_before_what_is_opened() {
    let mut pair = Pair::new(client(SUITES[0]), usize::MAX);
    pair.client.writer().write_all(b"answer, rest").unwrap();
    let sent = sent_by(&mut pair.client);
    pair.give_to_server(&sent).unwrap();
    let mut answer = [0; 8];
    assert_eq!(pair.server.read(&mut answer), Plaintext::Bytes(8));
    pair.client.writer().write_all(b", more").unwrap();
    assert_eq!(pair.opened(), (b"rest, more".to_vec(), Ok(Next::Input)));
}

#[test]
fn each_side_can_close_and_the_other_goes_on() {
    let mut pair = Pair::new(client(SUITES[0]), usize::MAX);
    pair.client.writer().write_all(b"last").unwrap();
    pair.client.send_close_notify();
    assert_eq!(pair.opened(), (b"last".to_vec(), Ok(Next::Closed)));
    pair.seal(b"still");
    pair.server.close();
    assert!(pair.server.is_closed() && pair.server.has_output());
    pair.give_to_client();
    assert_eq!(pair.read_at_client(), b"still");
    assert!(pair.client.reader().read(&mut [0]).is_ok_and(|len| len == 0), "close_notify has come");
}

#[derive(Debug, Clone)]
enum Step {
    ClientWrites(usize),
    ClientUpdates,
    ServerSeals(usize),
    ServerSendsDue,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..3000usize).prop_map(Step::ClientWrites),
        1 => (10_000..40_000usize).prop_map(Step::ClientWrites),
        1 => Just(Step::ClientUpdates),
        4 => (1..3000usize).prop_map(Step::ServerSeals),
        1 => (10_000..16_385usize).prop_map(Step::ServerSeals),
        1 => Just(Step::ServerSendsDue),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn both_sides_see_the_same_data_whatever_keys_change_meanwhile(
        suite in prop::sample::select(&SUITES[..]),
        cut_len in prop_oneof![1..40usize, 1..20_000usize],
        records_per_key in 3..12u64,
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let mut pair = Pair::new(client(suite), cut_len);
        pair.server.records_mut().unwrap().limit_records_per_key(records_per_key);
        for step in steps {
            match step {
                Step::ClientWrites(len) => {
                    pair.client.writer().write_all(&bytes(len)).unwrap();
                    let (data, next) = pair.opened();
                    prop_assert!(data == bytes(len) && next == Ok(Next::Input));
                }
                Step::ClientUpdates => {
                    // Once between two pieces, as both sides take 32 of them for a flood.
                    pair.client.writer().write_all(b"x").unwrap();
                    pair.client.refresh_traffic_keys().unwrap();
                    prop_assert_eq!(pair.opened(), (b"x".to_vec(), Ok(Next::Input)));
                    prop_assert!(pair.server.has_output());
                }
                Step::ServerSeals(len) => {
                    pair.seal(&bytes(len));
                    prop_assert!(pair.read_at_client() == bytes(len));
                }
                Step::ServerSendsDue => pair.give_to_client(),
            }
        }
    }
}
