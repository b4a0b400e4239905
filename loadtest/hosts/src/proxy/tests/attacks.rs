//! Strangers at a snikey, and peers that keep others out.

use packetlab::certificate::{CertificateLimits, CertificateType, Delegation};
use packetlab::issue::{CertificateFields, issue};
use packetlab::time::Ticks;

use std::net::SocketAddr;

use tokio::net::TcpSocket;

use super::*;

/// An agent whose certificate `signer` has signed, or the agent itself.
fn agent_of(signer: Option<&PrivateKey>) -> (Certificate, PrivateKey) {
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
    let key = PrivateKey::generate().unwrap();
    let der = issue(&fields, &key.public_key(), signer.unwrap_or(&key)).unwrap();
    (Certificate::from_der(&der).unwrap(), key)
}

/// The share of `count` endpoints that reach one of these connections.
async fn reached(proxy: &Proxy, snikey: &str, count: usize, waiting: Vec<TcpStream>) -> usize {
    let hello = hello(Some(snikey));
    let (sender, mut heard) = tokio::sync::mpsc::channel(count);
    for mut stream in waiting {
        let sender = sender.clone();
        tokio::spawn(async move {
            let _ = stream.read_exact(&mut [0; 5]).await;
            let _ = sender.send(()).await;
            // Kept until the session is over.
            let _ = stream.read(&mut [0; 4096]).await;
        });
    }
    drop(sender);
    let mut endpoints = Vec::new();
    for _ in 0..count {
        endpoints.push(endpoint(proxy, &hello).await);
    }
    let mut reached = 0;
    while reached < count && timeout(SHORT * 10, heard.recv()).await.is_ok_and(|one| one.is_some())
    {
        reached += 1;
    }
    reached
}

/// Before snikeys had owners 2 of 20 endpoints came to the owner.
#[tokio::test]
async fn a_stranger_with_three_hundred_connections_gets_no_endpoint_of_another_snikey() {
    const ENDPOINTS: usize = 20;
    let proxy = start(ProxyLimits::default()).await;
    let (owner, stranger) = (agent_of(None), agent_of(None));
    let _first = waiting_as(&proxy, Some(&owner), "one").await.unwrap();
    let mut refused = 0;
    for agent in [Some(&stranger), None] {
        for _ in 0..150 {
            let asked = waiting_as(&proxy, agent, "one").await;
            refused += usize::from(asked.is_err_and(|status| status == Status::ESYSNOPERM));
        }
    }
    assert_eq!(refused, 300);
    let mut owners = Vec::new();
    for _ in 0..ENDPOINTS {
        owners.push(waiting_as(&proxy, Some(&owner), "one").await.unwrap());
    }
    drop(_first);
    assert_eq!(reached(&proxy, "one", ENDPOINTS, owners).await, ENDPOINTS);
}

#[tokio::test]
async fn all_agents_of_a_signer_that_the_proxy_knows_share_a_snikey() {
    let (group, other) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
    let roots = vec![group.public_key(), other.public_key()];
    let proxy = start_for(ProxyLimits::default(), roots, false).await;
    let (one, two) = (agent_of(Some(&group)), agent_of(Some(&group)));
    let stranger = agent_of(Some(&other));
    let mut waiting = Vec::new();
    for agent in [&one, &two, &one] {
        waiting.push(waiting_as(&proxy, Some(agent), "one").await.unwrap());
    }
    let refused = waiting_as(&proxy, Some(&stranger), "one").await;
    assert_eq!(refused.unwrap_err(), Status::ESYSNOPERM);
    assert_eq!(reached(&proxy, "one", 3, waiting).await, 3);
}

/// Without roots nobody checks who signed: the authority key id of the stranger's certificate names the
/// owner's key, which has not signed it.
#[tokio::test]
async fn a_forged_signer_confers_nothing() {
    let proxy = start(ProxyLimits::default()).await;
    let owner = agent_of(None);
    let _owners = waiting_as(&proxy, Some(&owner), "one").await.unwrap();
    let signer = PrivateKey::generate().unwrap();
    let (certificate, key) = agent_of(Some(&signer));
    let replaced = (signer.public_key().key_id().0, owner.1.public_key().key_id().0);
    let mut der = certificate.der().to_vec();
    let place = der.windows(32).position(|bytes| *bytes == replaced.0).unwrap();
    der[place..place + 32].copy_from_slice(&replaced.1);
    let forged = (Certificate::from_der(&der).unwrap(), key);
    assert_eq!(forged.0.authority_key_id, owner.0.authority_key_id);
    let refused = waiting_as(&proxy, Some(&forged), "one").await;
    assert_eq!(refused.unwrap_err(), Status::ESYSNOPERM);
    // It is one all the same, under its own key.
    assert!(waiting_as(&proxy, Some(&forged), "two").await.is_ok());
    assert!(waiting_as(&proxy, Some(&owner), "two").await.is_err());
}

#[tokio::test]
async fn a_controller_without_a_certificate_yields_its_snikey_to_one_with() {
    let proxy = start(ProxyLimits::default()).await;
    let mut unknown = waiting(&proxy, "one").await;
    let owner = agent_of(None);
    let owners = waiting_as(&proxy, Some(&owner), "one").await.unwrap();
    assert_closed(&mut unknown).await;
    let refused = waiting_as(&proxy, None, "one").await;
    assert_eq!(refused.unwrap_err(), Status::ESYSNOPERM);
    assert_eq!(reached(&proxy, "one", 1, vec![owners]).await, 1);
}

#[tokio::test]
async fn a_key_has_only_so_many_connections_under_all_snikeys() {
    let limits = ProxyLimits { backlog_per_key_max: 2, ..ProxyLimits::default() };
    let proxy = start(limits).await;
    let (one, other) = (agent_of(None), agent_of(None));
    let _one = waiting_as(&proxy, Some(&one), "one").await.unwrap();
    let two = waiting_as(&proxy, Some(&one), "two").await.unwrap();
    let refused = waiting_as(&proxy, Some(&one), "three").await;
    assert_eq!(refused.unwrap_err(), Status::ENORES);
    let _other = waiting_as(&proxy, Some(&other), "three").await.unwrap();
    // The one in a session does not count.
    let _endpoint = endpoint(&proxy, &hello(Some("two"))).await;
    let mut two = two;
    read(&mut two, 5).await;
    assert!(waiting_as(&proxy, Some(&one), "four").await.is_ok());
}

/// With all places taken by peers that say nothing, or have begun and go on no further, one that does
/// what it came for has its turn after a second and not after the deadline.
#[tokio::test]
async fn silent_and_half_hearted_peers_make_room_for_others() {
    let limits = ProxyLimits {
        controllers_max: 3,
        endpoints_max: 3,
        server: ServerLimits { handshakes_max: 2, ..ServerLimits::default() },
        ..ProxyLimits::default()
    };
    let timeouts = ProxyLimits { setup_timeout: 4 * LONG, hello_timeout: 4 * LONG, ..limits };
    let proxy = start(ProxyLimits { wait_timeout: 4 * LONG, ..timeouts }).await;
    let hello = hello(Some("one"));
    let mut idle = Vec::new();
    for begun in [0, 20, 20] {
        idle.push(endpoint(&proxy, &hello[..begun]).await);
        let mut controller = connect_controller(&proxy).await;
        controller.write_all(&hello[..begun]).await.unwrap();
        idle.push(controller);
    }
    let mut controller = within(waiting(&proxy, "one")).await;
    let _endpoint = endpoint(&proxy, &hello).await;
    assert_eq!(read(&mut controller, hello.len()).await, hello);
}

/// Half a ClientHello, at either port.
#[tokio::test]
async fn half_a_hello_takes_no_set_up_from_others() {
    let timeouts =
        ProxyLimits { setup_timeout: LONG, hello_timeout: LONG, ..ProxyLimits::default() };
    let proxy = start(ProxyLimits {
        server: ServerLimits { handshakes_max: 2, ..ServerLimits::default() },
        ..timeouts
    })
    .await;
    let hello = hello(Some("one"));
    let mut held = Vec::new();
    for len in 1..30 {
        held.push(endpoint(&proxy, &hello[..len]).await);
        let mut controller = connect_controller(&proxy).await;
        controller.write_all(&hello[..len]).await.unwrap();
        held.push(controller);
    }
    let started = std::time::Instant::now();
    let mut controller = waiting(&proxy, "one").await;
    let _endpoint = endpoint(&proxy, &hello).await;
    assert_eq!(read(&mut controller, hello.len()).await, hello);
    assert!(started.elapsed() < Duration::from_millis(1500), "{:?}", started.elapsed());
}

/// A proxy of which one address gets half.
async fn start_sharing(limits: ProxyLimits) -> Proxy {
    let chain = [certificate("agent_prx")];
    let identity = Identity { chain: &chain, key: &private_key("prx") };
    let rule = PeerRule { mode: TrustMode::Agent, anchors: Vec::new(), mandatory: false };
    let tls = tls::server_config(&identity, rule).unwrap();
    let open = async || Listening::open(&HostPort::parse("127.0.0.1:0").unwrap(), 0).await.unwrap();
    Proxy::start(open().await, open().await, tls, Signers::Unknown, limits)
}

async fn connect_from(last: u8, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, last], 0).into()).unwrap();
    socket.connect(to).await.unwrap()
}

#[tokio::test]
async fn one_source_gets_no_more_than_its_share_of_connections() {
    let limits = ProxyLimits { endpoints_max: 4, wait_timeout: LONG, ..ProxyLimits::default() };
    let proxy = start_sharing(limits).await;
    let hello = hello(Some("one"));
    let connect = async |from: u8| {
        let mut stream = connect_from(from, proxy.endpoint_addresses()[0]).await;
        stream.write_all(&hello).await.unwrap();
        stream
    };
    let mut one = [connect(2).await, connect(2).await];
    assert_closed(&mut connect(2).await).await;
    let _other = connect(3).await;
    let mut controller = waiting(&proxy, "one").await;
    assert_eq!(read(&mut controller, hello.len()).await, hello);
    controller.write_all(b"x").await.unwrap();
    assert_eq!(read(&mut one[0], 1).await, b"x");
}

/// Two addresses whose connections are registered, and two whose endpoints are in a session: each pair holds all
/// places of its kind.
#[tokio::test]
async fn no_two_sources_keep_all_places_for_themselves() {
    let limits = ProxyLimits { controllers_max: 4, endpoints_max: 4, ..ProxyLimits::default() };
    let proxy = start_sharing(limits).await;
    let register = async |from: u8, snikey: &str| {
        let stream = connect_from(from, proxy.controller_addresses()[0]).await;
        waiting_on(stream, None, snikey).await.unwrap().unwrap()
    };
    let mut held = Vec::new();
    for (from, snikey) in [(2, "a"), (3, "b"), (2, "a"), (3, "b")] {
        held.push(register(from, snikey).await);
    }
    let started = std::time::Instant::now();
    let mut newcomer = register(4, "c").await;
    assert!(started.elapsed() < Duration::from_millis(500), "{:?}", started.elapsed());
    assert_closed(&mut held[3]).await;

    // Sessions of the first three: each endpoint is joined before the next one comes.
    let mut joined = Vec::new();
    for (from, snikey, controller) in [(2, "a", 0), (3, "b", 1), (2, "a", 2)] {
        let hello = hello(Some(snikey));
        let mut endpoint = connect_from(from, proxy.endpoint_addresses()[0]).await;
        endpoint.write_all(&hello).await.unwrap();
        read(&mut held[controller], hello.len()).await;
        joined.push(endpoint);
    }
    held.push(register(3, "b").await);
    let hello_of_b = hello(Some("b"));
    let mut endpoint = connect_from(3, proxy.endpoint_addresses()[0]).await;
    endpoint.write_all(&hello_of_b).await.unwrap();
    read(&mut held[4], hello_of_b.len()).await;
    let hello = hello(Some("c"));
    let mut honest = connect_from(4, proxy.endpoint_addresses()[0]).await;
    honest.write_all(&hello).await.unwrap();
    assert_eq!(read(&mut newcomer, hello.len()).await, hello);
    assert_closed(&mut endpoint).await;
}
