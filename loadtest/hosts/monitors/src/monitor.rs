//! One monitor: an instance with a memory and a store of its own, from CDATA to the end of its session
//! (spec/monitors.md 3, 5 to 7, 9, 11).
//!
//! Not here: what several say together (`monitors`).
//!
//! Invariant: each call ends by a moment that is set before; what it allocated it frees, unless it crashed. A monitor
//! that has crashed goes on being asked: made anew it would forget what it has counted.

use std::sync::Arc;
use std::time::Duration;

use monitor_module::{Kind, PAGES, TABLE_ELEMENTS_MAX, TABLES_MAX, Unfit};
use wasmtime::{
    Func, Instance, Memory, MemoryType, Store, StoreLimitsBuilder, Trap, TypedFunc, UpdateDeadline,
    Val,
};

use crate::call_time::CallTime;
use crate::check::{Argument, Check, Octets};
use crate::compiled::Compiled;
use crate::count::Counted;
use crate::host::{Host, in_words};
use crate::served::Served;
use crate::state::{State, persistent};
use crate::terms::{Crash, Limits, Persistent, Surroundings, Unusable};

/// For the start function with what belongs to it, and for `initialize`.
const START_TIMEOUT: Duration = Duration::from_secs(1);
/// The text that `initialize` may write.
const INFO_LEN: u32 = 0x1_0000;

/// An instance of a monitor program.
pub(crate) struct Monitor {
    host: &'static Host,
    store: Store<State>,
    memory: Memory,
    malloc: TypedFunc<u32, u32>,
    free: TypedFunc<u32, ()>,
    initialize: Option<Func>,
    /// By kind, its check and what is told of it.
    functions: [(Option<Func>, Option<Func>); Kind::ALL.len()],
    call_limit: Duration,
    _counted: Counted,
}

impl Monitor {
    /// Makes an instance and gives it its persistent memory, for a session that has so many already.
    ///
    /// # Errors
    /// The module cannot be a monitor.
    pub(crate) async fn start(
        compiled: &Compiled,
        limits: Limits,
        surroundings: Arc<dyn Surroundings>,
        persistent: &Persistent,
        of_session: usize,
    ) -> Result<Self, Unusable> {
        let counted = Counted::one_more(of_session).ok_or(Unusable::TooMany)?;
        let host = Host::shared().map_err(|cause| Unusable::NoEngine(cause.to_owned()))?;
        let _under_way = host.begin_call();
        let mut store = store(host, limits, surroundings, persistent);
        let not_linked = |error: wasmtime::Error| Unusable::NotLinked(in_words(&error));
        let memory = Memory::new_async(&mut store, MemoryType::new(PAGES, None))
            .await
            .map_err(not_linked)?;
        store.data_mut().memory = Some(memory);
        let mut linker = host.linker.clone();
        linker.define(&store, "monitor", "memory", memory).map_err(not_linked)?;
        begin(&mut store, START_TIMEOUT);
        let instance = linker.instantiate_async(&mut store, &compiled.0).await;
        let instance = instance.map_err(|error| match error.downcast_ref::<Trap>() {
            Some(_) => Unusable::Start(crash(&error, &store)),
            None => not_linked(error),
        })?;
        let mut monitor = Self::of(host, &instance, store, (memory, limits.call, counted))?;
        let address = monitor.allocate(persistent).await;
        let address = address.map_err(|error| Unusable::Malloc(crash(&error, &monitor.store)))?;
        if address == 0 {
            return Err(Unusable::NoPersistentMemory);
        }
        monitor.store.data_mut().persistent_at = Some(address);
        Ok(monitor)
    }

    fn of(
        host: &'static Host,
        instance: &Instance,
        mut store: Store<State>,
        (memory, call_limit, counted): (Memory, Duration, Counted),
    ) -> Result<Self, Unusable> {
        let lacks = |name| move |_| Unusable::Unfit(Unfit::NoExport(name));
        let malloc = instance.get_typed_func(&mut store, "malloc").map_err(lacks("malloc"))?;
        let free = instance.get_typed_func(&mut store, "free").map_err(lacks("free"))?;
        let initialize = instance.get_func(&mut store, "initialize");
        let functions = Kind::ALL.map(|kind| {
            let mut function = |name| instance.get_func(&mut store, name);
            (function(kind.check_name()), kind.result_name().and_then(function))
        });
        Ok(Self {
            host,
            store,
            memory,
            malloc,
            free,
            initialize,
            functions,
            call_limit,
            _counted: counted,
        })
    }

    /// Lets it begin, which is at START; its text for the controller.
    ///
    /// # Errors
    /// It crashed.
    pub(crate) async fn initialize(&mut self) -> Result<Vec<u8>, Crash> {
        let _under_way = self.host.begin_call();
        begin(&mut self.store, START_TIMEOUT);
        let malloc = self.malloc.call_async(&mut self.store, INFO_LEN).await;
        let info = malloc.map_err(|error| crash(&error, &self.store))?;
        if info == 0 {
            return Err(Crash::Trapped("its malloc has no 64 KiB for the text".to_owned()));
        }
        let mut len = 0;
        if let Some(initialize) = self.initialize {
            let arguments = [Val::I32(info.cast_signed())].into_iter().chain(self.persistent());
            let arguments: Vec<_> = arguments.collect();
            let initialized = self.int_of(initialize, &arguments).await;
            self.keep();
            len = initialized?.cast_unsigned();
        }
        let text = self.memory.data(&self.store).get(info as usize..).unwrap_or_default();
        let text = text.get(..len.min(INFO_LEN) as usize).map(<[u8]>::to_vec);
        let outside = || Crash::Trapped("its text is outside of its memory".to_owned());
        let text = text.ok_or_else(outside)?;
        self.release(info).await?;
        Ok(text)
    }

    /// What it says to a message, as its function returned it.
    ///
    /// # Errors
    /// It crashed.
    pub(crate) async fn check(&mut self, check: &mut Check) -> Result<i32, Crash> {
        let kind = check.kind;
        let (function, _) = self.functions[kind as usize];
        let function = function.ok_or_else(|| Crash::Missing(kind.check_name()))?;
        let mut result = [Val::I32(0)];
        self.call(function, check, None, &mut result).await?;
        int(&result)
    }

    /// Tells it what became of a message.
    ///
    /// # Errors
    /// It crashed.
    pub(crate) async fn tell(&mut self, check: &mut Check, status: u16) -> Result<(), Crash> {
        match self.functions[check.kind as usize] {
            (_, Some(function)) => self.call(function, check, Some(status.into()), &mut []).await,
            (_, None) => Ok(()),
        }
    }

    /// Has its persistent memory kept, if a call has changed it.
    fn keep(&mut self) {
        // It may have said that this is outside of its memory.
        if let Some(persistent) = persistent(&self.store) {
            self.store.data_mut().keep(persistent);
        }
    }

    async fn call(
        &mut self,
        function: Func,
        check: &mut Check,
        status: Option<i32>,
        results: &mut [Val],
    ) -> Result<(), Crash> {
        let _under_way = self.host.begin_call();
        begin(&mut self.store, self.call_limit);
        let mut copies = [0; 4];
        let mut unused = copies.iter_mut();
        let mut arguments = Vec::with_capacity(check.arguments.len() + 2);
        for argument in &check.arguments {
            match *argument {
                Argument::Int(int) => arguments.push(Val::I32(int.cast_signed())),
                Argument::Long(long) => arguments.push(Val::I64(long.cast_signed())),
                Argument::Null => arguments.push(Val::I32(0)),
                Argument::Persistent => arguments.extend(self.persistent()),
                Argument::Copy(octets) => {
                    let address = self.copy(&octets).await;
                    if let Some(place) = unused.next() {
                        *place = address;
                    }
                    arguments.push(Val::I32(address.cast_signed()));
                }
            }
        }
        arguments.extend(status.map(Val::I32));
        let state = self.store.data_mut();
        (state.packet, state.packet_at) = check.lend_packet();
        let called = function.call_async(&mut self.store, &arguments, results).await;
        check.return_packet(std::mem::take(&mut self.store.data_mut().packet));
        self.keep();
        called.map_err(|error| crash(&error, &self.store))?;
        for address in copies.into_iter().filter(|address| *address != 0) {
            self.release(address).await?;
        }
        Ok(())
    }

    /// A function that returns a number.
    async fn int_of(&mut self, function: Func, arguments: &[Val]) -> Result<i32, Crash> {
        let mut result = [Val::I32(0)];
        let called = function.call_async(&mut self.store, arguments, &mut result).await;
        called.map_err(|error| crash(&error, &self.store))?;
        int(&result)
    }

    /// Where its persistent memory is and how long.
    fn persistent(&self) -> [Val; 2] {
        let at = self.store.data().persistent_at.unwrap_or(0);
        [Val::I32(at.cast_signed()), Val::I32(256)]
    }

    async fn copy(&mut self, octets: &Octets) -> u32 {
        // A trap there is its own loss; if its time is over, its function does not come far.
        self.allocate(octets.as_slice()).await.unwrap_or(0)
    }

    /// Has it allocate memory, and puts these bytes there; 0 if it has none.
    ///
    /// # Errors
    /// Its malloc trapped, or its time was over.
    async fn allocate(&mut self, bytes: &[u8]) -> wasmtime::Result<u32> {
        // At most a few hundred bytes.
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let address = self.malloc.call_async(&mut self.store, len).await?;
        let place = self.memory.data_mut(&mut self.store).get_mut(address as usize..);
        Ok(match place.and_then(|place| place.get_mut(..bytes.len())) {
            Some(place) => {
                place.copy_from_slice(bytes);
                address
            }
            None => 0,
        })
    }

    /// Has it free memory. A trap there is its own loss, and nothing else.
    ///
    /// # Errors
    /// The time of the call that this belongs to was over.
    async fn release(&mut self, address: u32) -> Result<(), Crash> {
        let freed = self.free.call_async(&mut self.store, address).await;
        match freed.map_err(|error| crash(&error, &self.store)) {
            Err(late @ (Crash::Late(_) | Crash::Starved(_))) => Err(late),
            _ => Ok(()),
        }
    }
}

fn store(
    host: &Host,
    limits: Limits,
    surroundings: Arc<dyn Surroundings>,
    persistent: &Persistent,
) -> Store<State> {
    let memory_len_max = limits.memory_len_max.max(Limits::MEMORY_LEN_MIN);
    let limits = StoreLimitsBuilder::new()
        .memory_size(memory_len_max)
        .memories(1)
        .instances(1)
        .tables(TABLES_MAX)
        .table_elements(TABLE_ELEMENTS_MAX)
        .build();
    let state = State {
        limits,
        surroundings: Served(surroundings),
        memory: None,
        persistent_at: None,
        kept: *persistent,
        packet: Vec::new(),
        packet_at: 0,
        time: CallTime::begin(Duration::ZERO),
    };
    let mut store = Store::new(&host.engine, state);
    store.limiter(|state| &mut state.limits);
    store.epoch_deadline_callback(|mut store| {
        Ok(if store.data_mut().time.is_over() {
            UpdateDeadline::Interrupt
        } else {
            UpdateDeadline::Yield(1)
        })
    });
    store
}

/// From now on, so much time.
fn begin(store: &mut Store<State>, limit: Duration) {
    store.data_mut().time = CallTime::begin(limit);
    store.set_epoch_deadline(1);
}

/// The number that a function returned. Of a longer one the low half counts, as with the original.
fn int(result: &[Val]) -> Result<i32, Crash> {
    match result {
        [Val::I32(int)] => Ok(*int),
        #[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
        [Val::I64(long)] => Ok(*long as i32),
        _ => Err(Crash::Trapped("it returns no number".to_owned())),
    }
}

fn crash(error: &wasmtime::Error, store: &Store<State>) -> Crash {
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => store.data().time.crash(),
        Some(trap) => Crash::Trapped(trap.to_string()),
        None => Crash::Trapped(in_words(error)),
    }
}
