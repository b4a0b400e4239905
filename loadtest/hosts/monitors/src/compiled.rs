//! Modules, compiled once for all sessions of the process.
//!
//! Not here: their instances. Invariant: a module is compiled once, whoever asks meanwhile, and kept even if nobody waits
//! for it any more; [`COMPILED_MAX`] are kept, those that were asked for last, and none that cannot be a monitor; at
//! most [`COMPILING_MAX`] are compiled at a time, each within what the crate `monitor-module` lets one cost.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};

use packetlab::key::KEY_LEN;
use packetlab::program::Program;
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use wasmtime::Module;

use crate::host::{Host, in_words};
use crate::terms::Unusable;
use crate::work::beside;

/// Modules that are kept.
const COMPILED_MAX: usize = 32;
/// Modules that are compiled at the same time: one that takes long holds up no other.
const COMPILING_MAX: usize = 2;

type Digest = [u8; KEY_LEN];
type Outcome = Result<Module, Unusable>;

/// A module that can be instantiated. Cloning shares it.
#[derive(Clone)]
pub struct Compiled(pub(crate) Module);

/// What is there, and what will be.
struct Modules {
    /// The one asked for last at the end.
    kept: Vec<(Digest, Module)>,
    /// At most [`COMPILING_MAX`].
    under_way: Vec<(Digest, watch::Receiver<Option<Outcome>>)>,
}

static MODULES: Mutex<Modules> = Mutex::new(Modules { kept: Vec::new(), under_way: Vec::new() });
static COMPILING: Semaphore = Semaphore::const_new(COMPILING_MAX);

impl Compiled {
    /// The module of a program in WebAssembly, compiled now if it has not been yet. If this is abandoned, what has been
    /// begun goes on, and is kept.
    ///
    /// # Errors
    /// It is too large, no module, cannot be a monitor, costs too much, or nothing can be compiled here.
    pub async fn of(program: &Program) -> Result<Self, Unusable> {
        let digest = *program.digest();
        let found = modules().find(&digest);
        if let Some(found) = found {
            return found.outcome().await;
        }
        // The semaphore is never closed.
        let turn = COMPILING.acquire().await.map_err(|_| Unusable::NoThread)?;
        let compiling = {
            let mut modules = modules();
            // Somebody may have begun it meanwhile.
            match modules.find(&digest) {
                Some(found) => Err(found),
                None => Ok(Compiling::begin(&mut modules, digest, turn)),
            }
        };
        match compiling {
            Ok(compiling) => {
                let program = program.clone();
                let outcome = beside(move || compiling.run(&program)).await;
                Ok(Self(outcome.map_err(|_| Unusable::NoThread)??))
            }
            Err(found) => found.outcome().await,
        }
    }
}

/// What there is of a module.
enum Found {
    Kept(Module),
    UnderWay(watch::Receiver<Option<Outcome>>),
}

impl Found {
    async fn outcome(self) -> Result<Compiled, Unusable> {
        match self {
            Self::Kept(module) => Ok(Compiled(module)),
            Self::UnderWay(mut told) => {
                let outcome = told.wait_for(Option::is_some).await;
                // It is told unless there was no thread for it.
                let outcome = outcome.ok().and_then(|outcome| outcome.clone());
                outcome.unwrap_or(Err(Unusable::NoThread)).map(Compiled)
            }
        }
    }
}

impl Modules {
    fn find(&mut self, digest: &Digest) -> Option<Found> {
        if let Some(index) = self.kept.iter().position(|(kept, _)| kept == digest) {
            let found = self.kept.remove(index);
            let module = found.1.clone();
            self.kept.push(found);
            return Some(Found::Kept(module));
        }
        let mut under_way = self.under_way.iter();
        under_way.find(|(one, _)| one == digest).map(|(_, told)| Found::UnderWay(told.clone()))
    }

    fn keep(&mut self, digest: Digest, module: &Module) {
        if self.kept.len() == COMPILED_MAX {
            self.kept.remove(0);
        }
        self.kept.push((digest, module.clone()));
    }
}

/// A module that is being compiled, until this is dropped.
struct Compiling {
    digest: Digest,
    tell: watch::Sender<Option<Outcome>>,
    _turn: SemaphorePermit<'static>,
}

impl Compiling {
    /// Whoever asks for the module from now on waits for this.
    fn begin(modules: &mut Modules, digest: Digest, turn: SemaphorePermit<'static>) -> Self {
        let (tell, told) = watch::channel(None);
        modules.under_way.push((digest, told));
        Self { digest, tell, _turn: turn }
    }

    /// Here and not where it is waited for: nobody may wait any more.
    fn run(self, program: &Program) -> Outcome {
        // The compiler has places where it gives up by a panic.
        let outcome = catch_unwind(AssertUnwindSafe(|| compile(program)))
            .unwrap_or(Err(Unusable::CompilerFailed));
        if let Ok(module) = &outcome {
            modules().keep(self.digest, module);
        }
        self.tell.send_replace(Some(outcome.clone()));
        outcome
    }
}

/// After what it has come to is kept or told: who asks in between finds that.
impl Drop for Compiling {
    fn drop(&mut self) {
        modules().under_way.retain(|(digest, _)| *digest != self.digest);
    }
}

fn modules() -> MutexGuard<'static, Modules> {
    MODULES.lock().unwrap_or_else(PoisonError::into_inner)
}

fn compile(program: &Program) -> Outcome {
    // What cannot be judged is told when it is asked about.
    match monitor_module::check(program) {
        // It is taken, and fails when it is to begin (spec/monitors.md 6).
        Ok(_) | Err(monitor_module::Unfit::Initialize) => {}
        Err(unfit) => return Err(Unusable::Unfit(unfit)),
    }
    let file = program.encoded().get(1..).unwrap_or_default();
    let host = Host::shared().map_err(|cause| Unusable::NoEngine(cause.to_owned()))?;
    Module::from_binary(&host.engine, file).map_err(|error| Unusable::NotCompiled(in_words(&error)))
}

/// How many of a digest are being compiled.
#[cfg(test)]
pub(crate) fn under_way_count(digest: &Digest) -> usize {
    modules().under_way.iter().filter(|(one, _)| one == digest).count()
}

/// How many of a digest are kept.
#[cfg(test)]
pub(crate) fn kept_count(digest: &Digest) -> usize {
    modules().kept.iter().filter(|(one, _)| one == digest).count()
}
