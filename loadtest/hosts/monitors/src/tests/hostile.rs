//! What a monitor does to harm its endpoint costs its own session alone (tests 3 and 7 of spec/monitors.md 17).

use std::time::Instant;

use super::*;

/// A session with this monitor and the default limits.
async fn hurried(text: &str) -> Monitors {
    let mut monitors = Monitors::default();
    add_limited(&mut monitors, text, &Arc::default(), Limits::default()).await.unwrap();
    monitors
}

const FOREVER: &str = "(loop $again (br $again))";

/// Every message that is judged, with its parameters.
fn every_kind() -> [(&'static str, String, Message<'static>); 5] {
    let (packet, time) = (Packet::Udp { remote: LOOPBACK, data: b"x" }, Ticks(0));
    let socket = Socket { sktid: 1, family: Family::Ipv4, protocol: Protocol::Raw };
    let open = Open::Raw { local: [0; 4].into() };
    let with_time = |behind: usize| "i32 i32 i32 i64 ".to_owned() + &"i32 ".repeat(behind);
    [
        ("nopen", "i32 ".repeat(14), Message::Nopen { sktid: 1, receive_buffer_len: 1, open }),
        ("nclose", "i32 ".repeat(3), Message::Nclose { sktid: 1 }),
        ("nsend", with_time(8), Message::Nsend { sktid: 1, time, tag: 0, packet }),
        ("ncap", with_time(2), Message::Ncap { socket, end: time, filter: &[0, 0xb7] }),
        ("ndata", with_time(7), Message::Ndata { sktid: 1, time, packet }),
    ]
}

#[test]
fn an_endless_loop_ends_at_the_deadline_wherever_it_is() {
    run(async {
        let limit = Limits::default().call;
        let late = objection(Objection::Failed(Some(Crash::Late(limit))));
        let check = nsend(&format!("{FOREVER} (i32.const 0)"));
        // Not for its persistent memory, and for no address.
        let malloc = nsend("(i32.const 0)").replacen(
            "(local $place i32)",
            &format!("(local $place i32) (if (i32.le_u (local.get $len) (i32.const 16)) (then {FOREVER}))"),
            1,
        );
        let free = nsend("(i32.const 0)").replacen(
            "(param $place i32)\n",
            &format!("(param $place i32) {FOREVER}\n"),
            1,
        );
        assert!(malloc.contains("i32.le_u") && free.matches(FOREVER).count() == 1);
        for text in [&check, &malloc, &free] {
            let monitors = hurried(text).await;
            let before = Instant::now();
            assert_eq!(says(&monitors).await, late, "{text}");
            assert!(before.elapsed() >= limit);
        }
        for (kind, parameters, message) in every_kind() {
            let check = module(&format!(
                r#"(func (export "check_pktlab_message_{kind}") (param {parameters}) (result i32)
                  {FOREVER} (i32.const 0))"#
            ));
            let said = hurried(&check).await.check(check_of(&message)).await.unwrap().0;
            assert_eq!(said, objection(Objection::Failed(Some(Crash::Late(limit)))), "{kind}");
            if kind != "ndata" {
                let told = module(&format!(
                    r#"(func (export "pktlab_message_{kind}_result") (param {parameters} i32)
                      {FOREVER})"#
                ));
                let told = hurried(&told).await.tell(check_of(&message), 0).await;
                assert_eq!(told, Err((0, Crash::Late(limit))), "{kind}");
            }
        }
        let second = Duration::from_secs(1);
        assert_eq!(session(&[&free]).await.initialize().await, Err((0, Crash::Late(second))));
        let start = module(&format!("(func $start {FOREVER}) (start $start)"));
        let refused = add(&mut Monitors::default(), &start, &Arc::default()).await;
        assert_eq!(refused, Err(Unusable::Start(Crash::Late(second))));
        let malloc =
            module("").replacen("(local $place i32)", &format!("(local $place i32) {FOREVER}"), 1);
        let refused = add(&mut Monitors::default(), &malloc, &Arc::default()).await;
        assert_eq!(refused, Err(Unusable::Malloc(Crash::Late(second))));
        let initialize = module(&format!(
            r#"(func (export "initialize") (param i32 i32 i32) (result i32) {FOREVER} (i32.const 0))"#
        ));
        let begun = session(&[&initialize]).await.initialize().await;
        assert_eq!(begun, Err((0, Crash::Late(second))));
    });
}

/// It is moved to another thread meanwhile.
#[test]
fn a_call_that_takes_longer_than_a_tick_and_less_than_its_time_passes() {
    run(async {
        let counts = nsend(
            "(local $left i32) (local.set $left (i32.const 50000000))
             (loop $again
               (local.set $left (i32.sub (local.get $left) (i32.const 1)))
               (br_if $again (local.get $left)))
             (i32.const 0)",
        );
        let compiled = Compiled::of(&program(&counts)).await.unwrap();
        let mut monitors = Monitors::default();
        let surroundings = Arc::<Endpoint>::default();
        monitors.add(compiled, PATIENT, surroundings, [0; 256]).await.unwrap();
        assert_eq!(says(&monitors).await, Verdict::Pass);
    });
}

#[test]
fn memory_grows_up_to_its_limit_without_a_trap() {
    run(async {
        let grows = nsend(
            "(loop $again (br_if $again (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
             (memory.size)",
        );
        let monitors = session(&[&grows]).await;
        assert_eq!(says(&monitors).await, objection(Objection::Code(16)));
        // As with the original's monitors, there is no room in two pages for the text of `initialize`.
        let high = grows.replace("(mut i32) (i32.const 1024)", "(mut i32) (i32.const 70000)");
        let compiled = Compiled::of(&program(&high)).await.unwrap();
        for (memory_len_max, pages) in [(0, 2), (131_072, 2), (40 * 65_536, 40)] {
            let limits = Limits { memory_len_max, ..PATIENT };
            let mut monitors = Monitors::default();
            let surroundings = Arc::<Endpoint>::default();
            monitors.add(compiled.clone(), limits, surroundings, [0; 256]).await.unwrap();
            assert_eq!(says(&monitors).await, objection(Objection::Code(pages)));
            assert_eq!(monitors.initialize().await.is_err(), pages == 2);
        }
        let table = module(&format!(
            "(table $t 0 funcref)
            (func (export \"check_pktlab_message_nsend\") {NSEND_PARAMETERS} (result i32)
             (loop $again (br_if $again (i32.ne (table.grow $t (ref.null func) (i32.const 100)) (i32.const -1))))
             (table.size $t))"
        ));
        assert_eq!(says(&session(&[&table]).await).await, objection(Objection::Code(10_000)));
    });
}

#[test]
fn a_monitor_that_has_crashed_goes_on_with_what_it_has_counted() {
    run(async {
        let every_second = module(&format!(
            r#"(global $calls (mut i32) (i32.const 0))
            (func (export "check_pktlab_message_nsend") {NSEND_PARAMETERS} (result i32)
              (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
              (if (i32.and (global.get $calls) (i32.const 1)) (then unreachable))
              (global.get $calls))"#
        ));
        let monitors = session(&[&every_second]).await;
        for code in [2, 4, 6] {
            let crashed = says(&monitors).await;
            assert!(matches!(crashed, Verdict::Objection { objection: Objection::Failed(_), .. }));
            assert_eq!(says(&monitors).await, objection(Objection::Code(code)));
        }
    });
}

/// While one monitor loops, the one thread of the runtime serves others.
#[test]
fn a_monitor_that_takes_long_holds_up_no_thread_of_the_runtime() {
    run(async {
        let slow = hurried(&nsend(&format!("{FOREVER} (i32.const 0)"))).await;
        let quick = session(&[&nsend("(i32.const 0)")]).await;
        let slow = tokio::spawn(async move { says(&slow).await });
        // Lets it begin: on one thread it runs to its first wait.
        tokio::task::yield_now().await;
        let mut count = 0;
        while !slow.is_finished() {
            assert_eq!(says(&quick).await, Verdict::Pass);
            tokio::task::yield_now().await;
            count += 1;
        }
        let said = slow.await.unwrap();
        assert!(matches!(
            said,
            Verdict::Objection { objection: Objection::Failed(Some(Crash::Late(_))), .. }
        ));
        assert!(count > 20, "{count} calls of others in the time of one that is late");
    });
}

#[test]
fn only_a_session_whose_monitor_took_long_begins_its_calls_beside_the_runtime() {
    run(async {
        // The first byte of the packet says whether it loops; a line comes first.
        let loops = nsend(&format!(
            "(call $debug (i32.const 0)) (drop (call $read (i32.const 0) (i32.const 512) (i32.const 1)))
             (if (i32.load8_u (i32.const 512)) (then {FOREVER})) (i32.const 0)"
        ));
        let endpoint = Arc::new(Endpoint { debug_enabled: true, ..Endpoint::default() });
        let mut monitors = Monitors::default();
        add_limited(&mut monitors, &loops, &endpoint, Limits::default()).await.unwrap();
        let was_beside = async |byte| {
            let _ = monitors.check(udp(&[byte])).await.unwrap();
            endpoint.said_by.lock().unwrap().pop().unwrap() == "monitor"
        };
        // On a busy machine not every call is brief.
        let patience = Instant::now();
        while was_beside(0).await {
            assert!(patience.elapsed() < Duration::from_secs(60), "none begins on the runtime");
        }
        was_beside(1).await;
        assert!(was_beside(0).await);
    });
}

/// By a clock of processors that stands still for four fifths of the time, as if others had the machine.
#[test]
fn a_call_is_late_by_the_time_that_it_ran_and_not_by_that_for_which_it_waited() {
    run(async {
        let processor_time = || (Scheduling::default().processor_time)() / 5;
        let mut monitors = Monitors::new(Scheduling { processor_time, ..Scheduling::default() });
        let limits = Limits { call: Duration::from_millis(20), ..Limits::default() };
        let loops = nsend(&format!("{FOREVER} (i32.const 0)"));
        add_limited(&mut monitors, &loops, &Arc::default(), limits).await.unwrap();
        let before = Instant::now();
        let late = Crash::Late(limits.call);
        assert_eq!(says(&monitors).await, objection(Objection::Failed(Some(late))));
        assert!(before.elapsed() > 4 * limits.call);
    });
}

/// Threads on which a monitor has stepped back, of one test.
static BEHIND: Mutex<Vec<ThreadId>> = Mutex::new(Vec::new());

#[test]
fn a_call_that_takes_long_steps_back_and_takes_nothing_there_that_others_need() {
    run(async {
        let step_back = || BEHIND.lock().unwrap().push(std::thread::current().id());
        let mut monitors = Monitors::new(Scheduling { step_back, ..Scheduling::default() });
        let asks_for_all = "(if (call $flush) (then (return (i32.const 1))))
             (drop (call $read (i32.const 0x10010000) (i32.const 512) (i32.const 4)))
             (call $debug (i32.const 0))
             (i32.store (local.get 10) (i32.const 8))
             (if (i32.ne (i32.load (i32.const 512)) (i32.const 0x11111111)) (then (return (i32.const 2))))";
        // The first byte of the packet says whether it takes long.
        let takes_long = nsend(&format!(
            "(local $left i32)
             (drop (call $read (i32.const 0) (i32.const 512) (i32.const 1)))
             (if (i32.eqz (i32.load8_u (i32.const 512))) (then (return (i32.const 0))))
             (local.set $left (i32.const 50000000))
             (loop $again
               (local.set $left (i32.sub (local.get $left) (i32.const 1)))
               (br_if $again (local.get $left)))
             (i32.store (local.get 10) (i32.const 7))
             {asks_for_all} (i32.const 0)"
        ));
        let endpoint = Arc::new(Endpoint { debug_enabled: true, ..Endpoint::default() });
        add(&mut monitors, &takes_long, &endpoint).await.unwrap();
        let stepped_back = async |byte| {
            let before = BEHIND.lock().unwrap().len();
            assert_eq!(monitors.check(udp(&[byte])).await.unwrap().0, Verdict::Pass);
            BEHIND.lock().unwrap().len() > before
        };
        // On a busy machine not every call is brief.
        let patience = Instant::now();
        while stepped_back(0).await {
            assert!(patience.elapsed() < Duration::from_secs(60), "every call steps back");
        }
        assert!(stepped_back(1).await);
        let kept: Vec<_> = endpoint.kept.lock().unwrap().iter().map(|kept| kept[0]).collect();
        assert_eq!(kept, [7, 8]);
        // The next one begins there, if the one before it began elsewhere.
        while !stepped_back(0).await {
            assert!(patience.elapsed() < Duration::from_secs(60), "long calls are forgotten");
            stepped_back(1).await;
        }
        let (behind, asked_on) = (BEHIND.lock().unwrap(), endpoint.asked_on.lock().unwrap());
        // Two words that are kept, one flush, one look at the clock, one line, and as much of each further long one.
        assert!(asked_on.len() >= 5);
        assert!(asked_on.iter().all(|thread| !behind.contains(thread)));
    });
}

/// Whoever waited has left; the memory is as the call left it.
#[test]
fn a_call_that_nobody_waits_for_any_more_goes_on_to_its_end() {
    run(async {
        let endpoint = Arc::new(Endpoint { debug_enabled: true, ..Endpoint::default() });
        let mut monitors = Monitors::default();
        let stores = nsend(&format!(
            "(i32.store (local.get 10) (i32.const 7)) (call $debug (i32.const 0)) {FOREVER} (i32.const 0)"
        ));
        add_limited(&mut monitors, &stores, &endpoint, Limits::default()).await.unwrap();
        let asked = tokio::spawn(async move { says(&monitors).await });
        let patience = Instant::now();
        let wait_for = async |happened: &dyn Fn() -> bool| {
            while !happened() {
                assert!(patience.elapsed() < Duration::from_secs(60));
                tokio::task::yield_now().await;
            }
        };
        wait_for(&|| !endpoint.said.lock().unwrap().is_empty()).await;
        asked.abort();
        assert!(asked.await.is_err());
        wait_for(&|| !endpoint.kept.lock().unwrap().is_empty()).await;
        assert_eq!(endpoint.kept.lock().unwrap()[0][0], 7);
    });
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    /// Whatever comes behind a module's header ends in a reason or in a monitor.
    #[test]
    fn no_bytes_of_a_module_do_harm(at in 8_usize..400, byte: u8) {
        let mut file = wat::parse_str(nsend("(i32.const 0)")).unwrap();
        let at = at % file.len();
        file[at] = byte;
        run(async {
            if let Ok(compiled) = Compiled::of(&Program::from_wasm(&file).unwrap()).await {
                let mut monitors = Monitors::default();
                let surroundings = Arc::<Endpoint>::default();
                if monitors.add(compiled, Limits::default(), surroundings, [0; 256]).await.is_ok() {
                    let _ = monitors.initialize().await;
                    let _ = says(&monitors).await;
                }
            }
        });
    }
}
