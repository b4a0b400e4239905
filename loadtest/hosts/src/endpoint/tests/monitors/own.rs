//! Monitors of the endpoint's own operator (spec/monitors.md 13).

use super::*;

const PACKET_LIMIT: &str = include_str!("../../../../monitors/wat/packet_limit.wat");

/// Refuses NOPEN with this code.
fn refusing(code: u16) -> Program {
    with(&[(NOPEN, &format!("{NOPEN_PARAMETERS} (i32.const {code})"))])
}

#[tokio::test]
async fn an_operators_own_monitors_are_asked_behind_those_that_the_chain_demands() {
    let (pass, open) = (wasm(PASS_ALL_WAT), nopen(1, Open::Udp { local: ANY }));
    // Of none that is demanded, of one that lets all pass, of one that decides before.
    for (demanded, answer) in [
        (vec![], "40000006001200000007"),
        (vec![&pass], "40000006001200010007"),
        (vec![&refusing(5)], "40000006001200000005"),
    ] {
        let mut scene = Scene::new(&demanded).await;
        scene.own = [refusing(7), refusing(8)].into();
        let mut session = scene.begin().await;
        for program in &demanded {
            assert_eq!(session.supply(program).await, "40000000");
        }
        assert_eq!(session.answer(&Message::Start).await, "40000000");
        for index in 0..demanded.len() + 2 {
            assert!(session.next().await.ends_with(&format!("6d6f6e69746f72{index:02x}00")));
        }
        assert_eq!(session.answer(&open).await, answer);
        session.end().await.unwrap();
    }
}

/// Its bytes are those of the program, under whatever certificate and at whatever place.
#[tokio::test]
async fn what_an_operators_own_monitor_has_counted_it_has_counted_over_all_experiments() {
    let (limit, pass) = (wasm(PACKET_LIMIT), wasm(PASS_ALL_WAT));
    let directory = Directory::new("own");
    let server = UdpSocket::bind(LOOPBACK).await.unwrap();
    let to = server.local_addr().unwrap();
    for (demanded, answers) in
        [(vec![], [true; 6]), (vec![&pass], [true, true, true, true, false, false])]
    {
        let mut scene = Scene::new(&demanded).await;
        (scene.own, scene.ledger) = ([limit.clone()].into(), ledger(&directory.0));
        let mut session = scene.begin().await;
        for program in &demanded {
            assert_eq!(session.supply(program).await, "40000000");
        }
        assert_eq!(session.answer(&Message::Start).await, "40000000");
        for _ in 0..=demanded.len() {
            session.next().await;
        }
        session.open_udp().await;
        for passes in answers {
            assert_eq!(session.send(to, b"x").await == "40000000", passes);
        }
        session.end().await.unwrap();
    }
}

#[tokio::test]
async fn no_experiment_begins_without_a_monitor_of_the_operators_own() {
    let pass = wasm(PASS_ALL_WAT);
    let no_malloc = PASS_ALL_WAT.replace(
        "(local.get $place))\n  (func (export \"free\")",
        "(i32.const 0))\n  (func (export \"free\")",
    );
    let crashes = with(&[("initialize", "(param i32 i32 i32) (result i32) unreachable")]);
    for (own, reason) in
        [(wasm(&no_malloc), "its malloc did not give it"), (crashes, "its initialize failed")]
    {
        let mut scene = Scene::new(&[&pass]).await;
        scene.own = [own.clone()].into();
        let mut session = scene.begin().await;
        assert_eq!(session.supply(&pass).await, "40000000");
        let refused = outcome(Outcome::MonitorFailed { monitor_index: 1 });
        assert_eq!(session.answer(&Message::Start).await, refused);
        assert!(session.link.receive().await.unwrap().is_none());
        let error = session.end().await.unwrap_err().to_string();
        let digest = Hex(own.digest()).to_string();
        for expected in [reason, &digest, "of this endpoint's operator"] {
            assert!(error.contains(expected), "{expected}: {error}");
        }
    }
}
