//! What hostile clients can do, and what others notice of it.

use std::net::SocketAddr;

use super::*;

/// The attack of 17 seconds: a hundred descriptors that nearly match. What they match with is done by the
/// subscriber's own task, so much a second; another client does not wait for it.
#[tokio::test]
async fn nobody_waits_while_others_match_what_nearly_matches() {
    let broker = start(BrokerLimits::default()).await;
    let mut attacker = Peer::controller(&broker).await;
    let nearly = format!("a=*{}B;", "A".repeat(2000));
    for _ in 0..100 {
        attacker.publish(1, &nearly).await;
    }
    let attributes = format!("a={};", "A".repeat(4000));
    let mut matching = Vec::new();
    for _ in 0..10 {
        let mut endpoint = Peer::endpoint(&broker).await;
        endpoint.subscribe(&[1], &attributes).await;
        matching.push(endpoint);
    }
    let started = std::time::Instant::now();
    let (mut endpoint, mut controller) =
        (Peer::endpoint(&broker).await, other_controller(&broker).await);
    endpoint.subscribe(&[2], "a=A;").await;
    controller.publish(2, "a=*A;").await;
    assert_eq!(endpoint.notified().await.0, "a=*A");
    let elapsed = started.elapsed();
    println!("an honest subscription, publication and notification: {elapsed:?}");
    assert!(elapsed < Duration::from_secs(3), "{elapsed:?}");
}

/// A controller with another key than [`Peer::controller`].
async fn other_controller(broker: &Broker) -> Peer {
    let stream = TcpStream::connect(broker.publish_addresses()[0]).await.unwrap();
    Peer::open(stream, "agent_prx", "prx").await.unwrap()
}

#[tokio::test]
async fn a_descriptor_that_is_searched_for_too_long_is_refused() {
    let broker = start(BrokerLimits::default()).await;
    let mut controller = Peer::controller(&broker).await;
    let channels = ChannelList::new(&[ChannelId::new(&[1]).unwrap()]);
    let xdescr = format!("{}controller_addr=h;", "a=*b*;".repeat(33));
    let xpub = Message::Xpub { channels, operator_key: NO_OPERATOR, xdescr: &xdescr };
    assert_eq!(controller.ask(&xpub).await, Status::EPUBBADXD);
    controller.publish(1, &"a=*b*;".repeat(32)).await;
}

#[tokio::test]
async fn a_key_that_asks_too_often_is_heard_later_and_others_at_once() {
    let limits = BrokerLimits { messages_per_second: 2, ..BrokerLimits::default() };
    let broker = start(limits).await;
    let (mut first, mut second) =
        (Peer::controller(&broker).await, Peer::controller(&broker).await);
    let mut other = other_controller(&broker).await;
    let started = std::time::Instant::now();
    // Eight at once, over all its connections.
    for _ in 0..4 {
        first.publish(1, "").await;
        second.publish(1, "").await;
    }
    let mut late = tokio::spawn(async move {
        first.publish(1, "").await;
        second.publish(1, "").await;
    });
    assert!(timeout(SHORT, &mut late).await.is_err(), "heard at once");
    other.publish(1, "").await;
    assert!(!late.is_finished());
    timeout(LONG, late).await.unwrap().unwrap();
    assert!(started.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn what_a_key_may_publish_is_counted_over_its_connections() {
    let limits = BrokerLimits { publications_max: 2, ..BrokerLimits::default() };
    let broker = start(limits).await;
    let (mut first, mut second) =
        (Peer::controller(&broker).await, Peer::controller(&broker).await);
    let mut other = other_controller(&broker).await;
    first.publish(1, "").await;
    second.publish(1, "").await;
    let channels = ChannelList::new(&[ChannelId::new(&[1]).unwrap()]);
    let xdescr = "controller_addr=h;";
    let xpub = Message::Xpub { channels, operator_key: NO_OPERATOR, xdescr };
    assert_eq!(first.ask(&xpub).await, Status::ENORES);
    other.publish(1, "").await;
    second.link.shut_down().await.unwrap();
    assert_eq!(second.next().await, None);
    first.publish(1, "").await;
}

#[tokio::test]
async fn a_key_has_only_so_many_connections() {
    let limits = BrokerLimits { connections_per_key_max: 2, ..BrokerLimits::default() };
    let broker = start(limits).await;
    let mut peers = [Peer::endpoint(&broker).await, Peer::endpoint(&broker).await];
    for peer in &mut peers {
        peer.subscribe(&[1], "").await;
    }
    let mut third = Peer::endpoint(&broker).await;
    let started = std::time::Instant::now();
    assert!(matches!(timeout(LONG, third.link.receive()).await.unwrap(), Ok(None) | Err(_)));
    // Original endpoints would be back at once.
    assert!(started.elapsed() > Duration::from_millis(900), "{:?}", started.elapsed());
    other_controller(&broker).await.publish(1, "").await;
}

/// A thousand subscribers with half a message each would keep 92 KiB each for ever.
#[tokio::test]
async fn half_a_message_is_not_waited_for_long() {
    let broker = start(BrokerLimits { message_timeout: SHORT, ..BrokerLimits::default() }).await;
    let mut endpoint = Peer::endpoint(&broker).await;
    endpoint.subscribe(&[1], "").await;
    assert!(
        timeout(2 * SHORT, endpoint.link.receive()).await.is_err(),
        "silence is no half message"
    );
    endpoint.begin(30_000, 3_000).await;
    assert_eq!(endpoint.next().await, None);

    // Half a TLS record is no message yet, but it is kept as well.
    let mut endpoint = Peer::endpoint(&broker).await;
    endpoint.subscribe(&[1], "").await;
    let mut raw = endpoint.link.into_stream();
    raw.get_mut().0.write_all(&[23, 3, 3, 0x40, 0, 1, 2, 3]).await.unwrap();
    let ended = timeout(LONG, raw.read(&mut [0])).await.unwrap();
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
}

#[tokio::test]
async fn certificates_without_a_request_have_a_deadline_too() {
    let broker = start(BrokerLimits { request_timeout: SHORT, ..BrokerLimits::default() }).await;
    let mut controller = Peer::controller(&broker).await;
    controller.publish(1, "").await;
    controller.supply(&CONTROLLER_CHAIN[..1]).await;
    assert_eq!(controller.next().await, None);
    // A request uses them up, even one that is refused.
    let mut controller = Peer::controller(&broker).await;
    controller.publish(1, "").await;
    controller.supply(&CONTROLLER_CHAIN[..1]).await;
    let channels = ChannelList::new(&[eop_channel()]);
    let operator_key = public_key("eop").0;
    let xpub = Message::Xpub { channels, operator_key, xdescr: "controller_addr=h;" };
    assert_eq!(controller.ask(&xpub).await, Status::ECRTBADFRM);
    assert!(timeout(3 * SHORT, controller.link.receive()).await.is_err());
}

#[tokio::test]
async fn what_clients_make_the_broker_keep_is_bounded_in_all() {
    let broker = start(BrokerLimits { memory_max: 64 << 10, ..BrokerLimits::default() }).await;
    let mut controller = Peer::controller(&broker).await;
    let filler = format!("filler={};", "x".repeat(4000));
    for _ in 0..12 {
        controller.publish(1, &filler).await;
    }
    let channels = ChannelList::new(&[ChannelId::new(&[1]).unwrap()]);
    let xdescr = format!("{filler}controller_addr=h;");
    let xpub = Message::Xpub { channels, operator_key: NO_OPERATOR, xdescr: &xdescr };
    assert_eq!(controller.ask(&xpub).await, Status::ENORES);
    let mut endpoint = Peer::endpoint(&broker).await;
    let dattr = "x=y;";
    let many: Vec<_> = (1..=20).map(|c| ChannelId::new(&[c]).unwrap()).collect();
    let xsub =
        Message::Xsub { channels: ChannelList::new(&many), operator_key: NO_OPERATOR, dattr };
    assert_eq!(endpoint.ask(&xsub).await, Status::ENORES);
    // A large message that has begun costs as well.
    let mut large = Peer::endpoint(&broker).await;
    large.subscribe(&[1], "").await;
    large.notified().await;
    large.begin(30_000, 8_000).await;
    let ended = async { while let Ok(Some(_)) = large.link.receive().await {} };
    timeout(LONG, ended).await.unwrap();
    drop(controller);
    while endpoint.ask(&xsub).await != Status::SUCCESS {}
}

/// With all places taken by clients that say nothing, or have begun and go on no further, one that does
/// what it came for has its turn after a second and not after the deadline.
#[tokio::test]
async fn silent_and_half_hearted_clients_make_room_for_others() {
    let limits = BrokerLimits {
        subscribers_max: 3,
        server: ServerLimits { handshakes_max: 2, ..ServerLimits::default() },
        ..BrokerLimits::default()
    };
    let broker = start(BrokerLimits { handshake_timeout: 4 * LONG, ..limits }).await;
    let mut idle = Vec::new();
    for begun in [&[][..], &[22, 3, 1], &[22, 3, 1]] {
        let mut stream = TcpStream::connect(broker.subscribe_addresses()[0]).await.unwrap();
        stream.write_all(begun).await.unwrap();
        idle.push(stream);
    }
    timeout(LONG, Peer::endpoint(&broker)).await.unwrap().subscribe(&[1], "").await;
}

/// A hundred keys with a hundred publications each made everybody who listens wait for half a minute; here
/// one key may publish as much.
#[tokio::test]
async fn what_others_publish_holds_up_no_honest_notification() {
    const COUNT: usize = 2_500;
    let limits = BrokerLimits {
        publications_max: COUNT,
        publications_per_source_max: 0,
        channels_max: COUNT,
        messages_per_second: 0,
        ..BrokerLimits::default()
    };
    let broker = start(limits).await;
    let mut attacker = other_controller(&broker).await;
    let filler = format!("filler={};a=B;", "x".repeat(4000));
    for _ in 0..COUNT {
        attacker.publish(1, &filler).await;
    }
    let (mut endpoint, mut controller) =
        (Peer::endpoint(&broker).await, Peer::controller(&broker).await);
    let started = std::time::Instant::now();
    endpoint.subscribe(&[1], "a=A;").await;
    controller.publish(1, "a=A;").await;
    assert_eq!(endpoint.notified().await.0, "a=A");
    let elapsed = started.elapsed();
    println!("a notification behind {COUNT} publications of 4 KB: {elapsed:?}");
    // A budget of 1 MB a second would make it wait for 6 s.
    assert!(elapsed < Duration::from_secs(3), "{elapsed:?}");
}

/// Patterns that are searched for at every place of the attributes are charged as often as they look.
#[tokio::test]
async fn a_key_whose_texts_are_costly_to_match_waits_and_others_do_not() {
    let limits = BrokerLimits { matching_per_second: 500_000, ..BrokerLimits::default() };
    let broker = start(limits).await;
    let (mut attacker, mut controller) =
        (other_controller(&broker).await, Peer::controller(&broker).await);
    let costly = "a=*AB*;".repeat(32);
    for _ in 0..20 {
        attacker.publish(1, &costly).await;
    }
    controller.publish(1, "marker=1;").await;
    let (mut endpoint, attributes) = (Peer::endpoint(&broker).await, "A".repeat(4000));
    let started = std::time::Instant::now();
    endpoint.subscribe(&[1], &format!("a={attributes};")).await;
    assert_eq!(endpoint.notified().await.0, "marker=1");
    // 20 * 32 * 4,000 looks at least, of which four seconds' worth may be taken at once.
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
    let started = std::time::Instant::now();
    // Here the publisher's key subscribes.
    let stream = TcpStream::connect(broker.subscribe_addresses()[0]).await.unwrap();
    let mut other = Peer::open(stream, "agent_xc", "xc").await.unwrap();
    other.subscribe(&[1], "a=A;").await;
    assert_eq!(other.notified().await.0, "marker=1");
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}

/// What subscribers have to compare is paid for by whoever makes them.
#[tokio::test]
async fn a_publisher_pays_for_each_subscriber_that_it_wakes() {
    let limits = BrokerLimits { matching_per_second: 12_000, ..BrokerLimits::default() };
    let broker = start(limits).await;
    let mut listening = Vec::new();
    for _ in 0..4 {
        let mut endpoint = Peer::endpoint(&broker).await;
        endpoint.subscribe(&[1], "").await;
        listening.push(endpoint);
    }
    let (mut attacker, mut other) =
        (other_controller(&broker).await, Peer::controller(&broker).await);
    let filler = format!("filler={};", "x".repeat(1000));
    let started = std::time::Instant::now();
    // Where nobody listens it costs less, so that five would not have to wait.
    for _ in 0..2 {
        attacker.publish(2, &filler).await;
    }
    attacker.publish(1, &filler).await;
    assert!(started.elapsed() < Duration::from_secs(1));
    let late = async {
        attacker.publish(1, &filler).await;
        attacker.publish(1, &filler).await;
        started.elapsed()
    };
    let at_once = async {
        other.publish(1, "").await;
        started.elapsed()
    };
    let (late, at_once) = tokio::join!(late, at_once);
    assert!(late >= Duration::from_millis(500), "{late:?}");
    assert!(at_once < late, "another key does not wait: {at_once:?}");
}

/// Each message is one, but its channels cost the broker as much as a thousand.
#[tokio::test]
async fn a_subscriber_pays_for_each_channel_it_names() {
    let limits = BrokerLimits {
        matching_per_second: 500_000,
        messages_per_second: 0,
        ..BrokerLimits::default()
    };
    let broker = start(limits).await;
    let channels: Vec<_> =
        (0..999_u16).map(|number| ChannelId::new(&number.to_be_bytes()).unwrap()).collect();
    let channels = ChannelList::new(&channels);
    let xsub = Message::Xsub { channels, operator_key: NO_OPERATOR, dattr: "a=1;" };
    let mut endpoint = Peer::endpoint(&broker).await;
    let started = std::time::Instant::now();
    // Half a million looks each, of which two million may be taken at once.
    for _ in 0..6 {
        assert_eq!(endpoint.ask(&xsub).await, Status::SUCCESS);
    }
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
}

/// A publisher that would have to wait for a minute, or a subscriber, and does not.
#[tokio::test]
async fn who_leaves_while_it_is_made_to_wait_is_gone_at_once() {
    let limits = BrokerLimits { matching_per_second: 1_000, ..BrokerLimits::default() };
    let broker = start(limits).await;
    let mut listening = Peer::endpoint(&broker).await;
    listening.subscribe(&[1], "").await;
    let (mut publisher, mut other) =
        (other_controller(&broker).await, Peer::controller(&broker).await);
    let xdescr = format!("filler={};controller_addr=h;", "x".repeat(4000));
    let channels = ChannelList::new(&[ChannelId::new(&[1]).unwrap()]);
    let xpub = Message::Xpub { channels, operator_key: NO_OPERATOR, xdescr: &xdescr };
    for _ in 0..20 {
        publisher.link.send(&xpub).await.unwrap();
    }
    assert!(timeout(SHORT, publisher.link.receive()).await.is_err(), "it is made to wait");
    drop(publisher);
    other.publish(2, "marker=1;").await;
    // Its publication is gone: who looks at all that there is hears of the marker first.
    let deadline = std::time::Instant::now() + LONG / 3;
    loop {
        assert!(std::time::Instant::now() < deadline, "its publication is still there");
        let stream = TcpStream::connect(broker.subscribe_addresses()[0]).await.unwrap();
        let mut newcomer = Peer::open(stream, "agent_xc", "xc").await.unwrap();
        newcomer.subscribe(&[1, 2], "").await;
        if newcomer.notified().await.0 == "marker=1" {
            break;
        }
        newcomer.link.shut_down().await.unwrap();
    }
}

/// A fleet that shares a key comes back all at once.
#[tokio::test]
async fn who_is_made_to_wait_for_others_of_its_key_does_not_miss_its_deadline() {
    let limits =
        BrokerLimits { messages_per_second: 2, request_timeout: SHORT, ..BrokerLimits::default() };
    let broker = start(limits).await;
    let mut first = Peer::controller(&broker).await;
    for _ in 0..8 {
        first.publish(1, "").await;
    }
    let mut second = Peer::controller(&broker).await;
    let started = std::time::Instant::now();
    second.supply(&CONTROLLER_CHAIN[..1]).await;
    second.publish(1, "").await;
    assert!(started.elapsed() > 2 * SHORT, "it was not made to wait");
    // It is not given more time than that for being silent.
    second.supply(&CONTROLLER_CHAIN[..1]).await;
    assert_eq!(second.next().await, None);
}

#[tokio::test]
async fn a_refused_subscription_leaves_the_one_before() {
    let broker = start(BrokerLimits { memory_max: 8 << 10, ..BrokerLimits::default() }).await;
    let mut endpoint = Peer::endpoint(&broker).await;
    let filler = |len| format!("filler={};", "x".repeat(len));
    endpoint.subscribe(&[1], &filler(4000)).await;
    let many: Vec<_> = (1..=40).map(|c| ChannelId::new(&[c]).unwrap()).collect();
    let channels = ChannelList::new(&many);
    let xsub = Message::Xsub { channels, operator_key: NO_OPERATOR, dattr: "" };
    assert_eq!(endpoint.ask(&xsub).await, Status::ENORES);
    Peer::controller(&broker).await.publish(1, "filler=x*;").await;
    assert_eq!(endpoint.notified().await.0, "filler=x*");
    // For two of this size there is no memory, but it is one instead of the other.
    endpoint.subscribe(&[2], &filler(4050)).await;
}

/// With all handshakes taken by clients from one address that have said hello and then nothing, another
/// address does not wait.
#[tokio::test]
async fn clients_of_one_address_hold_up_no_handshake_of_another() {
    let limits = BrokerLimits {
        server: ServerLimits { handshakes_max: 4, ..ServerLimits::default() },
        handshake_timeout: LONG,
        ..BrokerLimits::default()
    };
    let broker = start_sharing(limits, 50).await;
    let mut held = Vec::new();
    for number in 0..50 {
        let mut stream = TcpStream::connect(broker.subscribe_addresses()[0]).await.unwrap();
        // The last of them have sent one byte, and hold nothing.
        let hello = hello();
        stream.write_all(if number < 25 { &hello } else { &hello[..1] }).await.unwrap();
        held.push(stream);
    }
    let started = std::time::Instant::now();
    let stream = connect_from(2, broker.subscribe_addresses()[0]).await;
    let mut newcomer = Peer::open(stream, "agent_ep", "ep").await.unwrap();
    newcomer.subscribe(&[1], "").await;
    assert!(started.elapsed() < Duration::from_millis(1500), "{:?}", started.elapsed());
}

async fn connect_from(last: u8, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, last], 0).into()).unwrap();
    socket.connect(to).await.unwrap()
}

/// Two addresses take all places, and say nothing once they have shaken hands, or publish and stay.
#[tokio::test]
async fn no_two_sources_keep_all_places_for_themselves() {
    for (publishes, patience) in [(false, 1500), (true, 500)] {
        let limits =
            BrokerLimits { publishers_max: 4, request_timeout: LONG, ..BrokerLimits::default() };
        let broker = start_sharing(limits, 50).await;
        let address = broker.publish_addresses()[0];
        let controller = async |from| {
            let stream = connect_from(from, address).await;
            Peer::open(stream, "agent_xc", "xc").await.unwrap()
        };
        let mut held = Vec::new();
        for from in [2, 2, 3, 3] {
            let mut peer = controller(from).await;
            if publishes {
                peer.publish(1, "").await;
            }
            held.push(peer);
        }
        let started = std::time::Instant::now();
        let mut newcomer = controller(4).await;
        newcomer.publish(1, "").await;
        assert!(started.elapsed() < Duration::from_millis(patience), "{:?}", started.elapsed());
        // Of those that are silent the oldest has left, of the others the last.
        let left = if publishes { 3 } else { 0 };
        let ended = timeout(LONG, held[left].link.receive()).await.unwrap();
        assert!(matches!(ended, Ok(None) | Err(_)), "{ended:?}");
        if publishes {
            // All have as many as one may have, so that nobody leaves for another of theirs.
            let mut refused = connect_from(3, address).await;
            let ended = timeout(LONG, refused.read(&mut [0])).await.unwrap();
            assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
            for peer in &mut held[..3] {
                peer.publish(1, "").await;
            }
        }
        newcomer.publish(1, "").await;
    }
}

/// Five thousand that had sent one byte made a newcomer wait for 7 s, also at their own address.
#[tokio::test]
async fn one_byte_takes_no_handshake_from_others() {
    let limits = BrokerLimits {
        server: ServerLimits { handshakes_max: 2, ..ServerLimits::default() },
        handshake_timeout: LONG,
        ..BrokerLimits::default()
    };
    let broker = start(limits).await;
    let mut held = Vec::new();
    for _ in 0..50 {
        let mut stream = TcpStream::connect(broker.subscribe_addresses()[0]).await.unwrap();
        stream.write_all(&[0x16]).await.unwrap();
        held.push(stream);
    }
    let started = std::time::Instant::now();
    Peer::endpoint(&broker).await.subscribe(&[1], "").await;
    assert!(started.elapsed() < Duration::from_millis(1500), "{:?}", started.elapsed());
}

/// A ClientHello.
fn hello() -> Vec<u8> {
    let rule = PeerRule { mode: TrustMode::Agent, anchors: Vec::new(), mandatory: true };
    let config = tls::client_config(None, rule).unwrap();
    let name = tls::server_name(None).unwrap();
    let mut tls = rustls::ClientConnection::new(config, name).unwrap();
    let mut bytes = Vec::new();
    tls.write_tls(&mut bytes).unwrap();
    bytes
}
