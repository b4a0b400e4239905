//! The endpoint as a monitor sees it that runs behind all others: what it asks for is done by the thread that serves it.
//!
//! Not here: the endpoint. Invariant: no lock of the endpoint is taken by a thread behind all others.

use std::sync::Arc;

use crate::terms::{Persistent, Surroundings};
use crate::work;

/// An endpoint.
#[derive(Debug)]
pub(crate) struct Served(pub(crate) Arc<dyn Surroundings>);

impl Served {
    /// Does it where it harms nobody; nothing if there is no thread for it.
    fn ahead<T: Send + Default + 'static>(
        &self,
        job: impl FnOnce(&dyn Surroundings) -> T + Send + 'static,
    ) -> T {
        if !work::is_behind() {
            return job(&*self.0);
        }
        let endpoint = Arc::clone(&self.0);
        work::ahead(move || job(&*endpoint)).unwrap_or_default()
    }
}

impl Surroundings for Served {
    fn read(&self, address: u32, buffer: &mut [u8]) {
        if !work::is_behind() {
            return self.0.read(address, buffer);
        }
        let mut bytes = vec![0; buffer.len()];
        let read = self.ahead(move |endpoint| {
            endpoint.read(address, &mut bytes);
            bytes
        });
        // Without a thread for it nothing was read.
        buffer.fill(0);
        buffer.iter_mut().zip(read).for_each(|(to, from)| *to = from);
    }

    fn keep(&self, persistent: &Persistent) {
        let persistent = *persistent;
        self.ahead(move |endpoint| endpoint.keep(&persistent));
    }

    fn flush(&self) -> bool {
        self.ahead(|endpoint| endpoint.flush())
    }

    fn debug(&self, text: &[u8]) {
        let text = text.to_vec();
        self.ahead(move |endpoint| endpoint.debug(&text));
    }

    fn debug_enabled(&self) -> bool {
        self.0.debug_enabled()
    }
}
