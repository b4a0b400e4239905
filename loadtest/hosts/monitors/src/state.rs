//! What a monitor's store holds beside its instance, for the functions that it may call.
//!
//! Not here: these functions (`host`), and calls of the monitor itself.

use wasmtime::{AsContext, Memory, StoreLimits};

use crate::call_time::CallTime;
use crate::served::Served;
use crate::terms::{PERSISTENT_LEN, Persistent, Surroundings};

/// What a store holds for its monitor.
pub(crate) struct State {
    pub(crate) limits: StoreLimits,
    pub(crate) surroundings: Served,
    pub(crate) memory: Option<Memory>,
    /// Where the persistent memory is, once it is.
    pub(crate) persistent_at: Option<u32>,
    /// What of it was kept last.
    pub(crate) kept: Persistent,
    /// Holds the current packet during a call, from there on.
    pub(crate) packet: Vec<u8>,
    pub(crate) packet_at: usize,
    /// That of the call that is under way.
    pub(crate) time: CallTime,
}

impl State {
    /// Has its persistent memory kept, if it has changed.
    pub(crate) fn keep(&mut self, persistent: Persistent) {
        if self.kept != persistent {
            self.surroundings.keep(&persistent);
            self.kept = persistent;
        }
    }
}

/// The persistent memory of a store's monitor, once it is there.
pub(crate) fn persistent(store: impl AsContext<Data = State>) -> Option<Persistent> {
    let store = store.as_context();
    let State { memory, persistent_at, .. } = *store.data();
    let rest = memory?.data(&store).get(persistent_at? as usize..)?;
    rest.first_chunk::<PERSISTENT_LEN>().copied()
}
