//! What outlives a session (test 6 of spec/monitors.md 17).

use super::*;

const PACKET_LIMIT: &str = include_str!("../../../../monitors/wat/packet_limit.wat");

/// The conversation of `icmp_limit`, and test 6.
#[tokio::test]
async fn what_a_monitor_has_counted_outlives_sessions_and_the_endpoint() {
    let limit = wasm(PACKET_LIMIT);
    let directory = Directory::new("monitors");
    let mut scene = Scene::new(&[&limit]).await;
    scene.ledger = ledger(&directory.0);
    let server = UdpSocket::bind(LOOPBACK).await.unwrap();
    let to = server.local_addr().unwrap();
    let refused = "4000000600120000000a";
    let mut session = scene.start(&[&limit]).await;
    session.open_udp().await;
    for _ in 0..6 {
        assert_eq!(session.send(to, b"x").await, "40000000");
    }
    // A session that yields, one that breaks off, one of an endpoint that was started anew.
    session.link.send(&Message::Yield { resume: Ticks(0) }).await.unwrap();
    assert!(matches!(session.end().await, Ok(End::Yielded { .. })));
    let mut session = scene.start(&[&limit]).await;
    session.open_udp().await;
    for _ in 0..3 {
        assert_eq!(session.send(to, b"x").await, "40000000");
    }
    drop(session.link);
    session.session.await.unwrap().end.unwrap();
    drop(std::mem::take(&mut scene.ledger));
    scene.ledger = ledger(&directory.0);
    let mut session = scene.start(&[&limit]).await;
    session.open_udp().await;
    assert_eq!(session.send(to, b"x").await, "40000000");
    assert_eq!(session.send(to, b"x").await, refused);
    assert_eq!(session.send(to, b"x").await, refused);
    session.end().await.unwrap();
    // Another certificate has another memory.
    let mut other = Scene::new(&[&limit]).await;
    std::mem::swap(&mut other.ledger, &mut scene.ledger);
    let mut session = other.start(&[&limit]).await;
    session.open_udp().await;
    assert_eq!(session.send(to, b"x").await, "40000000");
}

/// How many packets a new session may still send of the ten that `PACKET_LIMIT` allows.
async fn left(scene: &Scene, limit: &Program, to: SocketAddr) -> usize {
    let mut session = scene.start(&[limit]).await;
    session.open_udp().await;
    let mut count = 0;
    while session.send(to, b"x").await == "40000000" {
        count += 1;
    }
    session.end().await.unwrap();
    count
}

#[tokio::test]
async fn what_a_monitor_has_counted_outlives_a_session_that_the_endpoint_ends() {
    let limit = wasm(PACKET_LIMIT);
    let server = UdpSocket::bind(LOOPBACK).await.unwrap();
    let to = server.local_addr().unwrap();
    let scene = Scene::new(&[&limit]).await;
    let (preempt, preempted) = oneshot::channel();
    let mut session = scene.begin_until(async { preempted.await.unwrap() }).await;
    session.start(&[&limit]).await;
    session.open_udp().await;
    assert_eq!(session.send(to, b"x").await, "40000000");
    preempt.send(()).unwrap();
    let ended = timeout(LONG, session.session).await.unwrap().unwrap().end;
    assert!(matches!(ended, Ok(End::Preempted)), "{ended:?}");
    assert_eq!(left(&scene, &limit, to).await, 9);
    // The same when the period is over: two seconds after START, whatever has been sent by then.
    let scene = Scene::limited(&[&limit], "max_exp_period=2000000000;").await;
    let mut session = scene.start(&[&limit]).await;
    session.open_udp().await;
    assert_eq!(session.send(to, b"x").await, "40000000");
    let ended = timeout(LONG, session.session).await.unwrap().unwrap().end;
    assert!(matches!(ended, Ok(End::PeriodOver)), "{ended:?}");
    assert_eq!(left(&scene, &limit, to).await, 9);
}

/// Section 4: 0 says that it is stored durably.
#[tokio::test]
async fn a_flush_succeeds_only_where_something_outlives_the_process() {
    let flushes =
        with(&[(NSEND, &format!("{NSEND_PARAMETERS} (i32.eq (call $flush) (i32.const -1))"))]);
    let directory = Directory::new("flush");
    let mut scene = Scene::new(&[&flushes]).await;
    for (ledger, answer) in
        [(ledger(&directory.0), "40000000"), (Arc::default(), "40000006001200000001")]
    {
        scene.ledger = ledger;
        let mut session = scene.start(&[&flushes]).await;
        session.open_udp().await;
        assert_eq!(session.send("127.0.0.1:9".parse().unwrap(), b"x").await, answer);
        session.end().await.unwrap();
    }
}

/// Section 5: in another place of the order a monitor has another memory.
#[tokio::test]
async fn a_monitor_has_a_memory_of_its_own_for_each_position_in_a_session() {
    let (limit, pass) = (wasm(PACKET_LIMIT), wasm(PASS_ALL_WAT));
    let scene = Scene::new(&[&limit, &pass]).await;
    let to = "127.0.0.1:9".parse().unwrap();
    for (order, first, index) in [
        ([&limit, &pass], "40000000", 0),
        // It begins anew behind the other one, and goes on where it was.
        ([&pass, &limit], "40000000", 1),
        ([&limit, &pass], "4000000600120000000a", 0),
        ([&pass, &limit], "4000000600120001000a", 1),
    ] {
        let mut session = scene.start(&order).await;
        session.open_udp().await;
        assert_eq!(session.send(to, b"x").await, first, "at {index}");
        for _ in 1..10 {
            session.send(to, b"x").await;
        }
        assert_eq!(session.send(to, b"x").await, format!("400000060012000{index}000a"));
        session.end().await.unwrap();
    }
}

/// Section 5: who writes last wins.
#[tokio::test]
async fn of_two_sessions_at_once_the_last_word_is_kept() {
    let limit = wasm(PACKET_LIMIT);
    let server = UdpSocket::bind(LOOPBACK).await.unwrap();
    let to = server.local_addr().unwrap();
    let scene = Scene::new(&[&limit]).await;
    let mut first = scene.start(&[&limit]).await;
    let mut second = scene.start(&[&limit]).await;
    for (session, count) in [(&mut first, 6), (&mut second, 1)] {
        session.open_udp().await;
        for _ in 0..count {
            assert_eq!(session.send(to, b"x").await, "40000000");
        }
    }
    for session in [first, second] {
        session.end().await.unwrap();
    }
    assert_eq!(left(&scene, &limit, to).await, 9);
}
