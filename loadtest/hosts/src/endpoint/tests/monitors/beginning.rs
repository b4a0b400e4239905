//! From CDATA to START: which experiments begin (tests 2, 8 and 9 of spec/monitors.md 17).

use super::super::super::monitor_error::MonitorError;
use super::*;

/// Tests 1 and 2.
#[tokio::test]
async fn monitors_are_asked_in_the_order_in_which_they_came() {
    let pass = wasm(PASS_ALL_WAT);
    let refuses = with(&[(NOPEN, &format!("{NOPEN_PARAMETERS} (i32.const 0x1234)"))]);
    let scene = Scene::new(&[&pass, &refuses]).await;
    let open = nopen(1, Open::Udp { local: ANY });
    for (order, answer) in
        [([&pass, &refuses], "40000006001200011234"), ([&refuses, &pass], "40000006001200001234")]
    {
        let mut session = scene.start(&order).await;
        assert_eq!(session.answer(&open).await, answer);
        assert!(matches!(session.end().await, Ok(End::Closed)));
    }
    // Of two that refuse the first decides.
    let too = with(&[(NOPEN, &format!("{NOPEN_PARAMETERS} (i32.const 0x4321)"))]);
    let scene = Scene::new(&[&refuses, &too]).await;
    for (order, answer) in
        [([&refuses, &too], "40000006001200001234"), ([&too, &refuses], "40000006001200004321")]
    {
        assert_eq!(scene.start(&order).await.answer(&open).await, answer);
    }
    // Twice in the list and sent twice are two instances.
    let scene = Scene::new(&[&refuses, &refuses]).await;
    let mut session = scene.begin().await;
    assert_eq!(session.supply(&refuses).await, "40000000");
    assert_eq!(session.supply(&refuses).await, "40000000");
    assert_eq!(session.answer(&Message::Start).await, "40000000");
    for info in ["0000", "0100"] {
        assert!(session.next().await.ends_with(&format!("6d6f6e69746f72{info}")));
    }
    assert_eq!(session.answer(&open).await, "40000006001200001234");
    // Once in the list and sent twice is one.
    let mut session = Scene::new(&[&refuses]).await.begin().await;
    assert_eq!(session.supply(&refuses).await, "40000000");
    session.start(&[&refuses]).await;
    assert_eq!(session.answer(&open).await, "40000006001200001234");
}

/// What cannot be a monitor (test 8), and a word of the reason for each.
fn unusable() -> Vec<(Vec<u8>, &'static str)> {
    let memory = r#"(import "monitor" "memory" (memory 1))"#;
    let malloc = r#"(func (export "malloc") (param i32) (result i32) (i32.const 1024))"#;
    let free = r#"(func (export "free") (param i32))"#;
    let with_memory = |memory: &str| format!("{memory} {malloc} {free}");
    let with_malloc = |does: &str| {
        format!(r#"{memory} {free} (func (export "malloc") (param i32) (result i32) {does})"#)
    };
    let importing = |import: &str| format!("(import {import}) {memory} {malloc} {free}");
    let starting = |does: &str| format!("{memory} {malloc} {free} (func $s {does}) (start $s)");
    let texts = [
        (with_memory("(memory 1)"), "does not import its memory"),
        (with_memory(r#"(import "env" "memory" (memory 1))"#), "does not import its memory"),
        (with_memory(r#"(import "monitor" "memory" (memory 3))"#), "wants another memory"),
        (with_memory(r#"(import "monitor" "memory" (memory 1 9))"#), "wants another memory"),
        (importing(r#""env" "nothing" (func)"#), "imports env.nothing"),
        (importing(r#""env" "monitor_debug" (func)"#), "imports env.monitor_debug"),
        (format!("{memory} {free}"), "has no function malloc"),
        (format!("{memory} {malloc}"), "has no function free"),
        (with_malloc("(i32.const 0)"), "its malloc did not give"),
        (with_malloc("unreachable"), "its malloc failed: wasm trap"),
        (starting("unreachable"), "its start function failed"),
        (starting("(call $s)"), "its start function failed: wasm trap: call stack exhausted"),
    ];
    let file = |text: &str| wat::parse_str(format!("(module {text})")).unwrap();
    let mut files: Vec<_> = texts.iter().map(|(text, cause)| (file(text), *cause)).collect();
    let whole = Home::program().encoded()[1..].to_vec();
    files.push((whole[..whole.len() - 1].to_vec(), "cannot be compiled"));
    files.push((vec![0; ::monitors::MODULE_LEN_MAX + 1], "are compiled at most"));
    files
}

/// Test 8, and defect D1.
#[tokio::test]
async fn an_experiment_does_not_begin_without_a_monitor_that_cannot_be_run() {
    let pass = wasm(PASS_ALL_WAT);
    for (file, reason) in unusable() {
        let program = Program::from_wasm(&file).unwrap();
        let mut session = Scene::new(&[&pass, &program]).await.begin().await;
        assert_eq!(session.supply(&pass).await, "40000000");
        assert_eq!(session.supply(&program).await, "400000020020", "{reason}");
        assert_eq!(session.answer(&Message::Start).await, "400000020021", "{reason}");
        assert!(session.link.receive().await.unwrap().is_none());
        let error = session.end().await.unwrap_err().to_string();
        assert!(
            error.contains(reason) && error.contains(&Hex(program.digest()).to_string()),
            "{reason}: {error}"
        );
    }
}

/// As managers do, who need no START to know that it would fail.
#[tokio::test]
async fn an_endpoint_says_why_a_monitor_cannot_be_run_when_the_controller_leaves_at_its_refusal() {
    let own_memory = wasm("(module (memory 1))");
    let broken = Program::from_ebpf_text(b"0xff 0 0 0 0\n0x95 0 0 0 0\n").unwrap();
    for (program, reason) in
        [(&own_memory, "does not import its memory"), (&broken, "it is in eBPF")]
    {
        let mut session = Scene::new(&[program]).await.begin().await;
        assert_eq!(session.supply(program).await, "400000020020");
        let error = session.end().await.unwrap_err().to_string();
        assert!(
            error.contains(reason) && error.contains(&Hex(program.digest()).to_string()),
            "{error}"
        );
    }
    let error = Scene::new(&[&own_memory]).await.begin().await.end().await.unwrap_err();
    assert!(matches!(error, EndpointError::ClosedInSetup), "{error}");
}

#[tokio::test]
async fn an_experiment_does_not_begin_without_a_monitor_that_is_not_there_or_crashes() {
    let pass = wasm(PASS_ALL_WAT);
    let crashes = with(&[("initialize", "(param i32 i32 i32) (result i32) unreachable")]);
    let scene = Scene::new(&[&pass, &crashes]).await;
    let mut session = scene.begin().await;
    assert_eq!(session.supply(&pass).await, "40000000");
    assert_eq!(session.answer(&Message::Start).await, "400000020021");
    assert!(matches!(session.end().await, Err(EndpointError::ProgramsMissing { count: 1 })));
    let mut session = scene.begin().await;
    for program in [&pass, &crashes] {
        assert_eq!(session.supply(program).await, "40000000");
    }
    let refused = outcome(Outcome::MonitorFailed { monitor_index: 1 });
    assert_eq!(session.answer(&Message::Start).await, refused);
    assert!(session.link.receive().await.unwrap().is_none());
    let error = session.end().await.unwrap_err().to_string();
    assert!(error.contains("its initialize failed"), "{error}");
}

/// Test 9. A program that does not verify is refused at once.
#[tokio::test]
async fn a_monitor_in_ebpf_is_refused_at_start_with_its_reason() {
    let denies = Program::from_ebpf_text(b"0xb7 0 0 0 0\n0x95 0 0 0 0\n").unwrap();
    let broken = Program::from_ebpf_text(b"0xff 0 0 0 0\n0x95 0 0 0 0\n").unwrap();
    let pass = wasm(PASS_ALL_WAT);
    let mut session = Scene::new(&[&pass, &denies, &broken]).await.begin().await;
    assert_eq!(session.supply(&pass).await, "40000000");
    assert_eq!(session.supply(&broken).await, "400000020020");
    assert_eq!(session.answer(&Message::Start).await, "400000020021");
    let mut session = Scene::new(&[&pass, &denies]).await.begin().await;
    assert_eq!(session.supply(&pass).await, "40000000");
    assert_eq!(session.supply(&denies).await, "40000000");
    assert_eq!(session.answer(&Message::Start).await, "4000000400130001");
    let error = session.end().await.unwrap_err().to_string();
    assert!(
        error.contains("in eBPF") && error.contains(&Hex(denies.digest()).to_string()),
        "{error}"
    );
}

/// The time of a set-up whose monitors take a second.
const HURRIED: Duration = Duration::from_millis(200);

#[tokio::test]
async fn a_set_up_that_was_over_while_a_monitor_was_started_here_says_so() {
    let (before, _) = PASS_ALL_WAT.rsplit_once(')').unwrap();
    let endless = "(func $endless (loop $again (br $again))) (start $endless)";
    let program = wasm(&format!("{before} {endless})"));
    let (near, far) = tokio::io::duplex(64 * 1024);
    let mut link = Link::new(near);
    link.send(&Message::Cdata { hint: b"monitor", data: program.encoded() }).await.unwrap();
    let supply = supply(std::slice::from_ref(&program), RUN);
    let end = setup::run(&mut Link::new(far), supply, HURRIED, ready(true)).await.map(drop);
    let error = end.unwrap_err();
    let EndpointError::Monitors(MonitorError::SupplySlow { digest, .. }) = &error else {
        panic!("{error}")
    };
    assert_eq!(digest, program.digest());
    assert!(error.to_string().contains(&Hex(digest).to_string()), "{error}");
}

#[tokio::test]
async fn monitors_that_begin_too_slowly_are_told_of_before_the_session_ends() {
    let endless = "(param i32 i32 i32) (result i32) (loop $again (br $again)) (i32.const 0)";
    let program = with(&[("initialize", endless)]);
    let mut supply = supply(std::slice::from_ref(&program), RUN);
    supply.take(b"monitor", program.encoded()).await.unwrap();
    let (near, far) = tokio::io::duplex(1024);
    let mut link = Link::new(near);
    link.send(&Message::Start).await.unwrap();
    let end = setup::run(&mut Link::new(far), supply, HURRIED, ready(true)).await.map(drop);
    let (message_type, payload) = link.receive().await.unwrap().unwrap();
    let said = format!("{:02x}{:06x}{}", message_type.0, payload.len(), Hex(&payload));
    assert_eq!(said, outcome(Outcome::MonitorFailed { monitor_index: 0 }));
    let error = end.unwrap_err();
    let EndpointError::Monitors(MonitorError::Slow { index: 0, digest, .. }) = &error else {
        panic!("{error}")
    };
    assert_eq!(digest, program.digest());
}
