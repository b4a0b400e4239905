//! What all monitors of the process have below them: wasmtime's engine, the functions that modules may import, and the
//! clock by which calls end (spec/monitors.md 3, 4, 11, 15).
//!
//! ```text
//! resting  no call is under way, and none was for a second; the first one wakes it
//! ticking  each millisecond a tick, at which running calls look whether their time is over
//! ```
//!
//! Not here: modules and their instances.
//!
//! Invariant: there is one, and none before it is asked for. Whatever a module imports beyond these functions is
//! not there.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::Instant;

use monitor_module::{Number, TEXT_LEN_MAX, WASI, WASI_FUNCTIONS, one_line};
use wasmtime::{Caller, Config, Engine, FuncType, Linker, Trap, ValType};

use crate::call_time::TICK;
use crate::state::{State, persistent};
use crate::terms::Surroundings;
use crate::work;

/// So many ticks without a call, and there are no more ticks.
const IDLE_TICKS_MAX: u32 = 1000;
/// Address space set aside for each memory, so that one that grows stays where it is: what it may have unless the
/// operator allows more.
const RESERVED_LEN: u64 = 1 << 20;
/// Behind each memory, of addresses that nothing is at.
const GUARD_LEN: u64 = 0x1_0000;
/// Most of a module's own stack.
const STACK_LEN_MAX: usize = 512 << 10;
/// The stack that a call runs on, with what functions of the host need on it.
const CALL_STACK_LEN: usize = 1 << 20;
/// The current packet is below this address.
const PACKET_END: u32 = 0x0100_0000;

const ENV: &str = "env";

/// What monitors run on.
pub(crate) struct Host {
    pub(crate) engine: Engine,
    /// All that modules may import but their memory.
    pub(crate) linker: Linker<State>,
    clock: Clock,
}

impl Host {
    /// The one of this process.
    ///
    /// # Errors
    /// Programs cannot be compiled on this machine: why.
    pub(crate) fn shared() -> Result<&'static Self, &'static str> {
        static HOST: OnceLock<Result<Host, String>> = OnceLock::new();
        let host = HOST.get_or_init(|| Self::new().map_err(|error| in_words(&error)));
        host.as_ref().map_err(String::as_str)
    }

    fn new() -> wasmtime::Result<Self> {
        let mut config = Config::new();
        config
            .epoch_interruption(true)
            .memory_reservation(RESERVED_LEN)
            .memory_guard_size(GUARD_LEN)
            .max_wasm_stack(STACK_LEN_MAX)
            .async_stack_size(CALL_STACK_LEN)
            // There is the one that is imported.
            .wasm_multi_memory(false)
            // A module's data goes into a memory that is not its own.
            .memory_init_cow(false);
        let engine = Engine::new(&config)?;
        let linker = imports(&engine)?;
        let clock = Clock::start(engine.clone())?;
        Ok(Self { engine, linker, clock })
    }

    /// A call is under way until this is dropped.
    pub(crate) fn begin_call(&'static self) -> CallUnderWay {
        self.clock.begin_call();
        CallUnderWay(&self.clock.shared)
    }
}

/// A call for which there are ticks.
pub(crate) struct CallUnderWay(&'static ClockState);

impl Drop for CallUnderWay {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, SeqCst);
    }
}

/// The thread that ticks.
struct Clock {
    shared: Arc<ClockState>,
    thread: Thread,
}

#[derive(Default)]
struct ClockState {
    /// Under way now.
    calls: AtomicUsize,
    resting: AtomicBool,
}

impl Clock {
    fn start(engine: Engine) -> std::io::Result<Self> {
        let shared = Arc::<ClockState>::default();
        let ticking = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("monitor clock".to_owned())
            .spawn(move || ticking.tick(&engine))?;
        Ok(Self { shared, thread: thread.thread().clone() })
    }

    fn begin_call(&self) {
        self.shared.calls.fetch_add(1, SeqCst);
        if self.shared.resting.load(SeqCst) {
            self.thread.unpark();
        }
    }
}

impl ClockState {
    /// For ever.
    fn tick(&self, engine: &Engine) {
        let mut idle_ticks = 0;
        loop {
            let idle = self.calls.load(SeqCst) == 0;
            idle_ticks = if idle { idle_ticks + 1 } else { 0 };
            if idle_ticks == IDLE_TICKS_MAX {
                self.rest();
                idle_ticks = 0;
            }
            thread::sleep(TICK);
            engine.increment_epoch();
        }
    }

    /// Until there is a call. Who begins one counts it first and then looks whether there is rest, here it is the other
    /// way round: one of the two sees the other.
    fn rest(&self) {
        self.resting.store(true, SeqCst);
        while self.calls.load(SeqCst) == 0 {
            thread::park();
        }
        self.resting.store(false, SeqCst);
    }
}

/// An error of wasmtime in one line.
pub(crate) fn in_words(error: &wasmtime::Error) -> String {
    one_line(&format!("{error:#}"))
}

fn imports(engine: &Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    linker.func_wrap(ENV, "read_vmem_region", read_vmem_region)?;
    linker.func_wrap_async(
        ENV,
        "persistent_memory_flush",
        |caller: Caller<'_, State>, (): ()| Box::new(persistent_memory_flush(caller)),
    )?;
    linker.func_wrap(ENV, "endpoint_debug_enabled", |caller: Caller<'_, State>| {
        i32::from(caller.data().surroundings.debug_enabled())
    })?;
    linker.func_wrap(ENV, "monitor_debug", monitor_debug)?;
    for (name, parameters, has_result) in WASI_FUNCTIONS {
        let parameters = parameters.iter().map(|parameter| match parameter {
            Number::I64 => ValType::I64,
            Number::I32 => ValType::I32,
        });
        let function = FuncType::new(engine, parameters, has_result.then_some(ValType::I32));
        linker.func_new(
            WASI,
            name,
            function,
            |_, _, _| Err(Trap::UnreachableCodeReached.into()),
        )?;
    }
    Ok(linker)
}

fn read_vmem_region(mut caller: Caller<'_, State>, address: u32, buffer: u32, length: u32) -> i32 {
    let Some(memory) = caller.data().memory else { return -1 };
    let (bytes, state) = memory.data_and_store_mut(&mut caller);
    let Some(end) = buffer.checked_add(length) else { return -1 };
    let Some(buffer) = bytes.get_mut(buffer as usize..end as usize) else { return -1 };
    if address < PACKET_END {
        buffer.fill(0);
        let packet = state.packet.get(state.packet_at..).unwrap_or_default();
        for (to, from) in buffer.iter_mut().zip(packet.get(address as usize..).unwrap_or_default())
        {
            *to = *from;
        }
    } else {
        state.surroundings.read(address, buffer);
    }
    0
}

async fn persistent_memory_flush(mut caller: Caller<'_, State>) -> i32 {
    // The disk must not hold up the thread of the runtime: the call goes on beside it.
    PauseOnce::default().await;
    let Some(persistent) = persistent(&caller) else { return -1 };
    let before = Instant::now();
    let state = caller.data_mut();
    state.keep(persistent);
    let is_flushed = state.surroundings.flush();
    state.time.add(before.elapsed());
    if is_flushed { 0 } else { -1 }
}

fn monitor_debug(mut caller: Caller<'_, State>, text: u32) {
    // Else nobody wants to know where it ends.
    let state = caller.data();
    let Some(memory) = state.memory.filter(|_| state.surroundings.debug_enabled()) else { return };
    let (bytes, state) = memory.data_and_store_mut(&mut caller);
    let rest = bytes.get(text as usize..).unwrap_or_default();
    let Some(end) = rest.iter().position(|byte| *byte == 0) else { return };
    let text = rest.get(..end.min(TEXT_LEN_MAX)).unwrap_or_default();
    state.surroundings.debug(text);
}

/// Pauses on the thread that asks, so that the call is moved, and then is done.
#[derive(Default)]
struct PauseOnce {
    paused: bool,
}

impl Future for PauseOnce {
    type Output = ();

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<()> {
        if work::is_own_thread() || std::mem::replace(&mut self.paused, true) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    }
}
