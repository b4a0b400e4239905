//! The guards of the crate `guards`, of which a test of the engine can take one out for its own thread: so the simulation
//! of a shard shows that it misses what stands for a defect that was here once.

#[cfg(test)]
use std::cell::Cell;

pub(crate) use guards::Guard;
#[cfg(not(test))]
pub(crate) use guards::holds;

#[cfg(test)]
thread_local! {
    static TAKEN_OUT: Cell<Option<Guard>> = const { Cell::new(None) };
}

/// Takes a guard out for this thread.
#[cfg(test)]
pub(crate) fn take_out(guard: Option<Guard>) {
    TAKEN_OUT.set(guard);
}

/// Whether the guard holds.
#[cfg(test)]
pub(crate) fn holds(guard: Guard) -> bool {
    guards::holds(guard) && TAKEN_OUT.get() != Some(guard)
}
