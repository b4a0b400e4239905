//! What monitors say, and what becomes of it.

use super::*;

/// Returns the constant.
fn returning(value: &str) -> String {
    nsend(&format!("(i32.const {value})"))
}

/// Test 3 of spec/monitors.md 17.
#[test]
fn every_value_is_the_verdict_of_the_table() {
    run(async {
        for (value, verdict) in [
            ("0", Verdict::Pass),
            ("1", objection(Objection::Code(1))),
            ("65534", objection(Objection::Code(65_534))),
            ("65535", objection(Objection::Failed(None))),
            ("65536", objection(Objection::Failed(None))),
            ("70000", objection(Objection::Failed(None))),
            ("0x7fffffff", objection(Objection::Failed(None))),
            ("-1", objection(Objection::Silent)),
            ("-300", objection(Objection::Silent)),
            ("-70000", objection(Objection::Silent)),
        ] {
            let monitors = session(&[&returning(value)]).await;
            assert_eq!(says(&monitors).await, verdict, "{value}");
        }
    });
}

#[test]
fn every_crash_is_told_as_one() {
    run(async {
        let exit = "(import \"wasi_snapshot_preview1\" \"proc_exit\" (func $exit (param i32)))";
        let exits = nsend("(call $exit (i32.const 0)) (i32.const 0)").replacen(
            "(module",
            &format!("(module {exit}"),
            1,
        );
        for (text, cause) in [
            (nsend("unreachable"), "unreachable"),
            (nsend("(i32.div_u (i32.const 1) (i32.const 0))"), "divide by zero"),
            (nsend("(i32.load (i32.const 0x7fffffff))"), "out of bounds memory access"),
            (exits, "unreachable"),
            (
                module(
                    "(func $f (export \"check_pktlab_message_nsend\") (param i32 i32 i32 i64 i32 i32 i32 i32 i32 i32 i32 i32) (result i32) (call $g)) (func $g (result i32) (i32.add (call $g) (i32.const 1)))",
                ),
                "stack",
            ),
            (
                module(
                    "(func (export \"check_pktlab_message_nsend\") (param i32) (result i32) (i32.const 0))",
                ),
                "expected 1 arguments",
            ),
            (
                module(&format!(
                    "(func (export \"check_pktlab_message_nsend\") {NSEND_PARAMETERS})"
                )),
                "expected 0 results",
            ),
            (
                module(&format!(
                    "(func (export \"check_pktlab_message_nsend\") {NSEND_PARAMETERS} (result f32) (f32.const 0))"
                )),
                "no number",
            ),
        ] {
            let monitors = session(&[&text]).await;
            let said = says(&monitors).await;
            let Verdict::Objection {
                monitor: 0,
                objection: Objection::Failed(Some(Crash::Trapped(text))),
            } = &said
            else {
                panic!("{cause}: {said:?}")
            };
            assert!(text.contains(cause), "{cause}: {text}");
        }
        let missing = session(&[&module("")]).await;
        let crash = Crash::Missing("check_pktlab_message_nsend");
        assert_eq!(says(&missing).await, objection(Objection::Failed(Some(crash))));
        // The low half counts, as with the original.
        let long = module(&format!(
            "(func (export \"check_pktlab_message_nsend\") {NSEND_PARAMETERS} (result i64) (i64.const 0x500000003))"
        ));
        assert_eq!(says(&session(&[&long]).await).await, objection(Objection::Code(3)));
    });
}

/// Test 2 of spec/monitors.md 17.
#[test]
fn the_first_that_objects_decides_and_none_behind_it_is_asked() {
    run(async {
        let counts = module(&format!(
            r#"(global $calls (mut i32) (i32.const 0))
            (func (export "check_pktlab_message_nsend") {NSEND_PARAMETERS} (result i32)
              (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
              (if (i32.gt_u (global.get $calls) (i32.const 1)) (then (return (global.get $calls))))
              (i32.const 0))"#
        ));
        let monitors = session(&[&returning("0"), &returning("5"), &counts]).await;
        for _ in 0..3 {
            let said = Verdict::Objection { monitor: 1, objection: Objection::Code(5) };
            assert_eq!(says(&monitors).await, said);
        }
        let monitors = session(&[&counts, &returning("5")]).await;
        let second = Verdict::Objection { monitor: 1, objection: Objection::Code(5) };
        assert_eq!(says(&monitors).await, second);
        assert_eq!(says(&monitors).await, objection(Objection::Code(2)));
    });
}

#[test]
fn all_are_told_what_became_of_a_message_until_one_crashes() {
    run(async {
        let told = |instructions: &str| {
            module(&format!(
                r#"(func (export "pktlab_message_nsend_result") (param i32 i32 i32 i64 i32 i32 i32 i32 i32 i32 i32 i32 i32)
                  {instructions})"#
            ))
        };
        // The persistent memory, and the status at the end.
        let stores = told("(i32.store (local.get 10) (local.get 12))");
        let traps = told("unreachable");
        for (texts, status, told, kept) in [
            (vec![&stores, &stores], 0x38, None, vec![vec![0x38], vec![0x38]]),
            (vec![&stores, &traps, &stores], 0x39, Some(1), vec![vec![0x39], vec![], vec![]]),
        ] {
            let (mut monitors, mut endpoints) = (Monitors::default(), Vec::new());
            for text in texts {
                endpoints.push(Arc::<Endpoint>::default());
                add(&mut monitors, text, endpoints.last().unwrap()).await.unwrap();
            }
            let crashed = monitors.tell(udp(b"x"), status).await.err().map(|(index, _)| index);
            assert_eq!(crashed, told);
            let of = |endpoint: &Arc<Endpoint>| -> Vec<u8> {
                endpoint.kept.lock().unwrap().iter().map(|kept| kept[0]).collect()
            };
            assert_eq!(endpoints.iter().map(of).collect::<Vec<_>>(), kept);
        }
    });
}

#[test]
fn persistent_bytes_are_there_when_it_is_made_and_are_kept_when_it_says_so() {
    run(async {
        let counts = nsend(
            "(i32.store (local.get 10) (i32.add (i32.load (local.get 10)) (i32.const 1)))
             (if (call $flush) (then (return (i32.const 99))))
             (i32.load (local.get 10))",
        );
        let compiled = Compiled::of(&program(&counts)).await.unwrap();
        let mut persistent = [0; 256];
        persistent[0] = 4;
        for (full, code) in [(false, 5), (true, 99)] {
            let endpoint = Arc::new(Endpoint { full, ..Endpoint::default() });
            let mut monitors = Monitors::default();
            let surroundings = Arc::clone(&endpoint) as Arc<dyn Surroundings>;
            monitors.add(compiled.clone(), PATIENT, surroundings, persistent).await.unwrap();
            assert_eq!(says(&monitors).await, objection(Objection::Code(code)));
            // Once: when it says so, and not again when nothing has changed since.
            let kept = endpoint.kept.lock().unwrap();
            assert_eq!(kept.iter().map(|kept| kept[0]).collect::<Vec<_>>(), [5]);
        }
    });
}

/// Test 5 of spec/monitors.md 17.
#[test]
fn a_monitor_reads_the_packet_and_zeros_behind_it_and_nothing_into_foreign_memory() {
    run(async {
        // Reads from the address in the tag, `len` bytes to `to`, and says the first byte + 1, or 99 if that failed.
        let reads = |at: u32, to: u32, len: u32| {
            nsend(&format!(
                "(i32.store8 (i32.const 512) (i32.const 0xEE))
                 (if (call $read (i32.const {at}) (i32.const {to}) (i32.const {len})) (then (return (i32.const 999))))
                 (i32.add (i32.load8_u (i32.const 512)) (i32.const 1))"
            ))
        };
        for (at, to, len, code) in [
            (0, 512, 4, u16::from(b'h') + 1),
            (4, 512, 4, u16::from(b'o') + 1),
            (5, 512, 4, 1),
            (0x00FF_FFFF, 512, 4, 1),
            (0x0100_0000, 512, 8, 0x12),
            (0, 131_072 - 4, 4, 0xEF),
            (0, 131_072 - 4, 5, 999),
            (0, 0xFFFF_FFFF, 1, 999),
            (0, 0xFFFF_FFF0, 0x20, 999),
            (0, 512, 0, 0xEF),
        ] {
            let monitors = session(&[&reads(at, to, len)]).await;
            let verdict = monitors.check(udp(b"hello")).await.unwrap().0;
            assert_eq!(verdict, objection(Objection::Code(code)), "{at:#x} {to:#x} {len:#x}");
        }
        // The first byte + 1: a message without data has none, and the data of NCAP is its filter.
        let socket = Socket { sktid: 1, family: Family::Ipv4, protocol: Protocol::Raw };
        let open = Open::Raw { local: [0; 4].into() };
        for (kind, parameters, message, code) in [
            ("nclose", "i32 i32 i32".to_owned(), Message::Nclose { sktid: 1 }, 1),
            (
                "nopen",
                "i32 ".repeat(14),
                Message::Nopen { sktid: 1, receive_buffer_len: 1, open },
                1,
            ),
            (
                "ncap",
                "i32 i32 i32 i64 i32 i32".to_owned(),
                Message::Ncap { socket, end: Ticks(0), filter: &[6, 0xb7] },
                7,
            ),
        ] {
            let reads = module(&format!(
                r#"(func (export "check_pktlab_message_{kind}") (param {parameters}) (result i32)
                  (i32.store8 (i32.const 512) (i32.const 77))
                  (drop (call $read (i32.const 0) (i32.const 512) (i32.const 1)))
                  (i32.add (i32.load8_u (i32.const 512)) (i32.const 1)))"#
            ));
            let verdict = session(&[&reads]).await.check(check_of(&message)).await.unwrap().0;
            assert_eq!(verdict, objection(Objection::Code(code)), "{kind}");
        }
        // The message comes back whole.
        let pass = session(&[&returning("0")]).await;
        let check = udp(b"hello");
        assert_eq!(pass.check(check.clone()).await.unwrap(), (Verdict::Pass, check));
    });
}

#[test]
fn lines_of_a_monitor_are_logged_if_they_are_wanted_and_end_within_its_memory() {
    run(async {
        let says_so = nsend(
            "(i32.store (i32.const 512) (i32.const 0x006f6c68))
             (call $debug (i32.const 512))
             (call $debug (i32.const -4))
             (memory.fill (i32.const 130000) (i32.const 0x41) (i32.const 1072))
             (call $debug (i32.const 130000))
             (call $debugging)",
        );
        for debug_enabled in [true, false] {
            let endpoint = Arc::new(Endpoint { debug_enabled, ..Endpoint::default() });
            let mut monitors = Monitors::default();
            add(&mut monitors, &says_so, &endpoint).await.unwrap();
            let expected =
                if debug_enabled { objection(Objection::Code(1)) } else { Verdict::Pass };
            assert_eq!(says(&monitors).await, expected);
            let said = endpoint.said.lock().unwrap();
            assert_eq!(*said, if debug_enabled { vec![b"hlo".to_vec()] } else { vec![] });
        }
    });
}

/// Test 7 of spec/monitors.md 17.
#[test]
fn what_initialize_writes_is_told_as_far_as_there_is_room() {
    run(async {
        let writes = |len: &str| {
            module(&format!(
                r#"(func (export "initialize") (param i32 i32 i32) (result i32)
                  (memory.fill (local.get 0) (i32.const 0x61) (i32.const 65536)) (i32.const {len}))"#
            ))
        };
        for (len, told) in
            [("0", 0), ("30", 30), ("65536", 65_536), ("65537", 65_536), ("-1", 65_536)]
        {
            let texts = session(&[&writes(len)]).await.initialize().await.unwrap();
            assert_eq!(texts, [vec![0x61; told]], "{len}");
        }
        let nothing = session(&[&module(""), &module("")]).await;
        assert_eq!(nothing.initialize().await, Ok(vec![vec![], vec![]]));
        let traps =
            module(r#"(func (export "initialize") (param i32 i32 i32) (result i32) unreachable)"#);
        let mistyped = module(r#"(func (export "initialize"))"#);
        for text in [&traps, &mistyped] {
            let (monitor, _) = session(&[&module(""), text]).await.initialize().await.unwrap_err();
            assert_eq!(monitor, 1);
        }
        // Reading the packet is reading none.
        let reads = module(
            r#"(func (export "initialize") (param i32 i32 i32) (result i32)
              (i32.store8 (local.get 0) (i32.const 7))
              (call $read (i32.const 0) (local.get 0) (i32.const 1)) drop (i32.const 1))"#,
        );
        assert_eq!(session(&[&reads]).await.initialize().await, Ok(vec![vec![0]]));
        let starts = nsend("(i32.add (i32.load8_u (i32.const 512)) (i32.const 1))").replace(
            "(func (export \"check",
            r#"(func $start
              (i32.store8 (i32.const 512) (i32.const 7))
              (drop (call $read (i32.const 0) (i32.const 512) (i32.const 1))))
            (start $start) (func (export "check"#,
        );
        assert!(starts.contains("(start $start)"));
        assert_eq!(says(&session(&[&starts]).await).await, objection(Objection::Code(1)));
    });
}

#[test]
fn who_gives_up_waiting_for_monitors_to_begin_learns_which_is_under_way() {
    let endless = module(
        r#"(func (export "initialize") (param i32 i32 i32) (result i32) (loop $again (br $again)) (i32.const 0))"#,
    );
    run(async {
        let monitors = session(&[&nsend("(i32.const 0)"), &endless]).await;
        let reached = async {
            while monitors.beginning() != 1 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            () = reached => {}
            begun = monitors.initialize() => panic!("{begun:?}"),
        }
    });
}
