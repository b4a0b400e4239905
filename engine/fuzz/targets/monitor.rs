//! A monitor program on its way to an endpoint: CDATA of any bytes as its program, START, and NSEND. Whatever they are, START is
//! refused, or all that is demanded judges the message; and all of that ends by its time.
//!
//! Not here: a supply that is cut off, and other messages between (tests of `hosts`).

#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use hosts::endpoint::fuzz::supply;
use libfuzzer_sys::fuzz_target;
use monitors::Limits;
use packetlab::program::Program;
use tokio::runtime::{Builder, Runtime};

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap());

const MONITOR: &[u8] = b"monitor";

/// NSEND of one byte by UDP.
const NSEND: [u8; 20] = [1, 4, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 127, 0, 0, 1, 0, 9, b'x'];

fuzz_target!(|input: &[u8]| {
    // The first byte of a module, 0, stands for the language of modules, 1, so that a module is an input.
    let language = input.first().map_or(1, |first| first ^ 1);
    let encoded = [&[language], input].concat();
    let demanded = Program::decode(&encoded).map(|program| *program.digest());
    let limits = Limits { call: Duration::from_millis(5), ..Limits::default() };
    RUNTIME.block_on(async {
        let Ok(digest) = demanded else {
            // What is no program is not supplied.
            let passes = supply(&[[0; 32]], &[(MONITOR, &encoded)], limits, &NSEND).await;
            return assert_eq!(passes, None);
        };
        supply(&[digest], &[(MONITOR, &encoded)], limits, &NSEND).await;
        if input.len() % 2 == 0 {
            return;
        }
        let twice = [(MONITOR, &encoded[..]), (MONITOR, &encoded)];
        supply(&[digest, digest], &twice, limits, &NSEND).await;
        let missing = supply(&[digest, [0; 32]], &twice, limits, &NSEND).await;
        assert_eq!(missing, None, "one is missing");
        let unwelcome = supply(&[digest], &[(b"filter", &encoded)], limits, &NSEND).await;
        assert_eq!(unwelcome, None, "it came as something else");
    });
});
