//! The fault matrix of spec/reliability.md 7 (promise P5) in the real world: processes and sockets, as
//! `engine/testdata/fault-matrix.csv` says. docs/reliability.md ("The fault matrix") says how to run it, on both drivers.
//!
//! Each manager serves bystanders meanwhile, whose bytes pass unharmed; at its end it has one record of each session and
//! holds what it held before, or nothing of it is left. Outcome, reason and what became of the mlet are taken from the
//! records. Not here: the simulated world (`engine/src/shard/tests/faults.rs`).

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../../../engine/tests/common/fault_matrix.rs"]
#[expect(dead_code, reason = "that the file is whole is the engine's test")]
mod matrix;

mod brokers;
mod bystanders;
mod cell;
mod proxies;
mod scripted;
mod sessions;
mod world;

use std::time::Instant;

/// The steps of sessions, F10 and F11 in managers of their own.
#[test]
#[ignore = "takes a minute"]
fn every_fault_at_every_step_of_a_session_has_what_the_file_says() {
    let start = Instant::now();
    let found = sessions::walk();
    found.assert_all_of('S');
    println!("sessions: {found} in {:.0?}", start.elapsed());
}

/// The steps of a registration at a proxy.
#[test]
#[ignore = "takes half a minute"]
fn every_fault_of_a_proxy_has_what_the_file_says() {
    let start = Instant::now();
    let found = proxies::walk();
    found.assert_all_of('P');
    println!("proxies: {found} in {:.0?}", start.elapsed());
}

/// The steps of a publication at a broker.
#[test]
#[ignore = "takes half a minute"]
fn every_fault_of_a_broker_has_what_the_file_says() {
    let start = Instant::now();
    let found = brokers::walk();
    found.assert_all_of('B');
    println!("brokers: {found} in {:.0?}", start.elapsed());
}
