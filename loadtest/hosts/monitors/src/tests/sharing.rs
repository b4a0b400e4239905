//! A module is compiled once, whoever asks for it and whoever leaves.

use std::pin::pin;
use std::task::{Context, Waker};

use monitor_module::Unfit;

use super::*;
use crate::compiled::{kept_count, under_way_count};

/// The compiler is busy with it for a while: many variables at many jumps.
fn slow(name: &str) -> Program {
    let blocks = format!("{} local.get 0 br_if 0 {}", "block ".repeat(400), "end ".repeat(400));
    let functions = format!("(func (local {}) {blocks})", "i32 ".repeat(60)).repeat(5);
    program(&module(&format!("(func (export \"{name}\")) {functions}")))
}

#[test]
fn a_module_whose_session_has_left_is_compiled_to_its_end_and_once() {
    let program = slow("left");
    let digest = program.digest();
    run(async {
        {
            let mut asked = pin!(Compiled::of(&program));
            // Other tests may have all turns.
            while under_way_count(digest) == 0 {
                let polled = asked.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                assert!(polled.is_pending(), "it has been compiled before anybody could leave");
                tokio::task::yield_now().await;
            }
        }
        // Its session has left, and both of these wait for what it began.
        assert_eq!((under_way_count(digest), kept_count(digest)), (1, 0));
        let (one, other) = tokio::join!(Compiled::of(&program), Compiled::of(&program));
        let (one, other) = (one.unwrap(), other.unwrap());
        assert_eq!(one.0.text().as_ptr(), other.0.text().as_ptr());
        let again = Compiled::of(&program).await.unwrap();
        assert_eq!(again.0.text().as_ptr(), one.0.text().as_ptr());
        assert_eq!(kept_count(digest), 1);
    });
}

#[test]
fn who_asks_at_the_same_time_shares_one_module() {
    let program = slow("together");
    run(async {
        let asked: Vec<_> = (0..6)
            .map(|_| {
                let program = program.clone();
                tokio::spawn(async move { Compiled::of(&program).await.unwrap() })
            })
            .collect();
        let mut places = Vec::new();
        for one in asked {
            places.push(one.await.unwrap().0.text().as_ptr() as usize);
        }
        places.dedup();
        assert_eq!(places.len(), 1);
        assert_eq!(kept_count(program.digest()), 1);
    });
}

#[test]
fn what_cannot_be_a_monitor_is_not_kept() {
    let no_free = r#"(module (import "monitor" "memory" (memory 1))
      (func (export "malloc") (param i32) (result i32) (i32.const 1024)))"#;
    let program = program(no_free);
    run(async {
        assert_eq!(
            Compiled::of(&program).await.err(),
            Some(Unusable::Unfit(Unfit::NoExport("free")))
        );
        assert_eq!(kept_count(program.digest()), 0);
    });
}
