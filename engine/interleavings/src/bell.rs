//! The bell of the engine, without a kernel: an eventfd is a number behind a lock, and whoever polls it sleeps until it is
//! not 0 (`fs/eventfd.c` of Linux).

use std::io;

use loom::sync::{Condvar, Mutex};

/// A bell, silent at first.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    rings: Mutex<u64>,
    rung: Condvar,
}

impl Bell {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self::default())
    }

    pub(crate) fn ring(&self) {
        *self.rings.lock().unwrap() += 1;
        self.rung.notify_all();
    }

    pub(crate) fn silence(&self) -> bool {
        std::mem::take(&mut *self.rings.lock().unwrap()) > 0
    }

    /// Sleeps until it rings, as a shard or the control thread does that has nothing else to do.
    pub(crate) fn wait(&self) {
        let mut rings = self.rings.lock().unwrap();
        while *rings == 0 {
            rings = self.rung.wait(rings).unwrap();
        }
    }
}
