//! A monitor program: any bytes as its module. Whatever they are, it is refused with a reason, or it begins and judges a
//! message, and all of that ends by its time.

#![no_main]

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use monitors::{Check, Compiled, Limits, Monitors, Persistent, Surroundings};
use packetlab::message::MessageType;
use packetlab::program::Program;
use tokio::runtime::{Builder, Runtime};

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_multi_thread().worker_threads(1).build().unwrap());

/// An endpoint whose memory is empty.
#[derive(Debug)]
struct Nothing;

impl Surroundings for Nothing {
    fn read(&self, _: u32, buffer: &mut [u8]) {
        buffer.fill(0);
    }

    fn keep(&self, _: &Persistent) {}

    fn flush(&self) -> bool {
        true
    }

    fn debug(&self, _: &[u8]) {}

    fn debug_enabled(&self) -> bool {
        true
    }
}

fuzz_target!(|input: &[u8]| {
    let Ok(program) = Program::from_wasm(input) else { return };
    let limits = Limits { call: Duration::from_millis(5), ..Limits::default() };
    RUNTIME.block_on(async {
        let Ok(compiled) = Compiled::of(&program).await else { return };
        let mut monitors = Monitors::default();
        if monitors.add(compiled, limits, Arc::new(Nothing), [0; 256]).await.is_err() {
            return;
        }
        let _ = monitors.initialize().await;
        // NSEND of one byte by UDP.
        let nsend = [1, 4, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 127, 0, 0, 1, 0, 9, b'x'];
        let check = Check::new(MessageType::NSEND, nsend.to_vec(), 0).unwrap();
        let (_, check) = monitors.check(check).await.unwrap();
        assert_eq!(check.payload(), nsend);
        let _ = monitors.tell(check, 0).await;
    });
});
