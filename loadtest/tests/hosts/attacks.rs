//! What strangers can do to a broker and a proxy that a group runs, and what honest peers notice of it.
//!
//! The figures that they print are those of docs/reliability.md.

use super::*;

/// An agent of its own, and TLS with it as a client.
pub(super) fn stranger(scene: &Scene, name: &str) -> Arc<rustls::ClientConfig> {
    scene.endpoint(name);
    agent_tls(scene, name, &format!("{name}.agent"))
}

fn agent_tls(scene: &Scene, key: &str, certificate: &str) -> Arc<rustls::ClientConfig> {
    let chain = [Certificate::from_pem(&fs::read(scene.path(certificate)).unwrap()).unwrap()];
    let key = PrivateKey::from_pem(&fs::read(scene.path(key)).unwrap(), None).unwrap();
    let rule = PeerRule { mode: TrustMode::Agent, anchors: Vec::new(), mandatory: true };
    tls::client_config(Some(&tls::Identity { chain: &chain, key: &key }), rule).unwrap()
}

fn channel(name: &[u8]) -> ChannelList {
    ChannelList::new(&[ChannelId::new(name).unwrap()])
}

/// A subscription, a publication for it and the notification of it, with connections of their own: how
/// long that takes.
fn honest_round(scene: &Scene, publish: SocketAddr, subscribe: SocketAddr) -> Duration {
    let endpoint = agent_tls(scene, "ep", "agent_ep.cert");
    let controller = agent_tls(scene, "xc", "agent_xc.cert");
    let (operator_key, xdescr) = ([0; 32], "hostid=EP*;controller_addr=192.0.2.1;");
    let started = Instant::now();
    let xsub = Message::Xsub { channels: channel(b"lab"), operator_key, dattr: "hostid=EP1;" };
    let mut subscriber = BrokerClient::open(subscribe, &endpoint, &xsub);
    let xpub = Message::Xpub { channels: channel(b"lab"), operator_key, xdescr };
    let _publisher = BrokerClient::open(publish, &controller, &xpub);
    let mut expected = Vec::new();
    let id = ChannelId::new(b"lab").unwrap();
    Message::Xnotify { channel: id, xdescr }.encode(&mut expected).unwrap();
    assert_eq!(subscriber.read(expected.len()), expected);
    started.elapsed()
}

#[test]
fn an_honest_experiment_does_not_wait_for_what_strangers_make_the_broker_match() {
    let scene = Scene::new("matching");
    let mut broker = scene.broker();
    let (publish, subscribe) = (broker.address("publishers"), broker.address("subscribers"));
    let alone = honest_round(&scene, publish, subscribe);
    let (attacker, operator_key) = (stranger(&scene, "stranger"), [0; 32]);
    // Half as long as the value, so that it is tried in as many places as it has characters.
    let (pattern, value) = ("A".repeat(2000), "A".repeat(4000));
    let xdescr = format!("a=*{pattern}B;controller_addr=h;");
    let dattr = format!("a={value};");
    let xpub = Message::Xpub { channels: channel(b"x"), operator_key, xdescr: &xdescr };
    let xsub = Message::Xsub { channels: channel(b"x"), operator_key, dattr: &dattr };
    let mut attack = BrokerClient::open(publish, &attacker, &xpub);
    for _ in 1..100 {
        attack.ask(&xpub);
    }
    let matching: Vec<_> =
        (0..4).map(|_| BrokerClient::open(subscribe, &attacker, &xsub)).collect();
    let beside = honest_round(&scene, publish, subscribe);
    println!("an honest round: {alone:?} alone, {beside:?} beside the attack");
    assert!(beside < Duration::from_secs(3), "{beside:?}");
    drop((attack, matching));
    broker.end(Signal::SIGTERM);
}

/// More than there may be handshakes, from the address of the honest one.
#[test]
fn newcomers_do_not_wait_for_those_who_have_sent_one_byte() {
    const COUNT: usize = 600;
    const ROUNDS: usize = 20;
    let scene = Scene::new("half_hello");
    let mut broker = scene.broker_with(&["--per-source-percent", "100"]);
    let (publish, subscribe) = (broker.address("publishers"), broker.address("subscribers"));
    let held: Vec<_> = (0..COUNT)
        .map(|_| {
            let mut stream = TcpStream::connect(subscribe).unwrap();
            stream.write_all(&[0x16]).unwrap();
            stream
        })
        .collect();
    let mut rounds: Vec<_> =
        (0..ROUNDS).map(|_| honest_round(&scene, publish, subscribe)).collect();
    rounds.sort_unstable();
    let (median, longest) = (rounds[ROUNDS / 2], rounds[ROUNDS - 1]);
    println!("beside {COUNT} that sent one byte: median {median:?}, longest {longest:?}");
    assert!(longest < Duration::from_millis(1500), "{longest:?}");
    drop(held);
    broker.end(Signal::SIGTERM);
}

#[test]
fn a_client_that_is_refused_again_and_again_fills_no_log() {
    const COUNT: usize = 400;
    let scene = Scene::new("flood");
    let mut broker = scene.broker();
    let publish = broker.address("publishers");
    let attacker = stranger(&scene, "stranger");
    let xdescr = format!("a={};controller_addr=h;", "x".repeat(4000));
    let xpub = Message::Xpub { channels: channel(b"x"), operator_key: [0; 32], xdescr: &xdescr };
    let mut client = BrokerClient::open(publish, &attacker, &xpub);
    for _ in 1..COUNT {
        // START has no place here.
        client.send(&Message::Start);
    }
    for _ in 1..COUNT {
        assert_eq!(client.read(6), [0x40, 0, 0, 2, 0, 0x11]);
    }
    drop(client);
    broker.wait_for("log lines left out");
    let log = broker.end(Signal::SIGTERM);
    let bytes: usize = log.iter().map(String::len).sum();
    println!("{COUNT} requests of one connection: {} lines, {bytes} bytes of log", log.len());
    assert!(log.len() < 50 && bytes < 10_000, "{log:?}");
    assert!(log.iter().any(|line| line.contains("has no place here")), "{log:?}");
}

/// Before snikeys had owners it was 2 of 20.
#[test]
fn a_stranger_gets_none_of_the_endpoints_of_another_snikey() {
    const COUNT: usize = 20;
    let scene = Scene::new("snikey");
    let mut proxy = scene.proxy(&[]);
    let (controllers, endpoints) = (proxy.address("controllers"), proxy.address("endpoints"));
    let owner = agent_tls(&scene, "xc", "agent_xc.cert");
    let stranger = stranger(&scene, "stranger");
    let mut owners: Vec<_> = (0..2).map(|_| register(controllers, &owner, "one")).collect();
    let strangers: Vec<_> =
        (0..300).filter_map(|_| try_register(controllers, &stranger, "one")).collect();
    owners.extend((2..COUNT).map(|_| register(controllers, &owner, "one")));
    let tls = stranger;
    let (sender, reached) = mpsc::channel();
    for mut stream in owners {
        let sender = sender.clone();
        thread::spawn(move || {
            let heard = stream.read_exact(&mut [0; 5]).is_ok();
            let _ = sender.send(heard);
            // Kept until the endpoint has gone.
            let _ = stream.read(&mut [0; 4096]);
            thread::park_timeout(PATIENCE);
        });
    }
    let served: Vec<_> = (0..COUNT)
        .map(|_| {
            let server_name = tls::server_name(Some("one")).unwrap();
            let mut endpoint_tls = ClientConnection::new(tls.clone(), server_name).unwrap();
            let mut endpoint = TcpStream::connect(endpoints).unwrap();
            endpoint_tls.write_tls(&mut endpoint).unwrap();
            endpoint
        })
        .collect();
    let patience = || reached.recv_timeout(Duration::from_secs(3));
    let count = (0..COUNT).take_while(|_| patience() == Ok(true)).count();
    println!(
        "{count} of {COUNT} endpoints reached the owner; {} registrations of the stranger",
        strangers.len()
    );
    assert_eq!((count, strangers.len()), (COUNT, 0));
    drop(served);
    let log = proxy.end(Signal::SIGTERM);
    for what in ["each controller key owns its snikeys alone", "registration refused"] {
        let says = |line: &String| line.contains(what) && line.contains("--client-root");
        assert!(log.iter().any(says), "{what}: {log:?}");
    }
}
