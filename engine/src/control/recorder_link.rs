//! The control thread's end of its pair with the recorder.
//!
//! Not here: what is done about what it tells (`recorder.rs`).

use std::io;

use tokio::io::Interest;

use crate::sys::recorder::{OutputRecorder, RecorderEvent};
use crate::sys::watch::Watched;

/// What lines that mlets wrote to standard error come from, for whoever sorts the log.
pub const MLET_TARGET: &str = "engine::mlet";

/// The recorder, as far as there is one.
pub(super) struct RecorderLink {
    /// `None` without one, or once it is gone.
    process: Option<Watched<OutputRecorder>>,
    /// What the one mlet of singleton mode writes is still read.
    reads_singleton: bool,
}

impl RecorderLink {
    /// Takes over; must be called within the runtime.
    ///
    /// # Errors
    /// Its descriptor cannot be watched.
    pub(super) fn new(recorder: Option<OutputRecorder>) -> io::Result<Self> {
        Ok(Self { process: recorder.map(Watched::new).transpose()?, reads_singleton: false })
    }

    /// There is one.
    pub(super) fn is_there(&self) -> bool {
        self.process.is_some()
    }

    /// What it has told next; `None` if nothing has come, or nobody is there to tell.
    ///
    /// # Errors
    /// It is lost.
    pub(super) fn receive(&self) -> io::Result<Option<RecorderEvent>> {
        self.process.as_ref().map_or(Ok(None), |process| process.inner.receive())
    }

    /// It is gone.
    pub(super) fn lose(&mut self) {
        *self = Self { process: None, reads_singleton: false };
    }

    /// Waits until it may have told something.
    ///
    /// # Errors
    /// The runtime is ending.
    pub(super) async fn ready(&self) -> io::Result<()> {
        match &self.process {
            Some(process) => process.ready(Interest::READABLE).await,
            None => std::future::pending().await,
        }
    }

    /// The one mlet of singleton mode runs, whose output it reads.
    pub(super) fn begin_singleton(&mut self) {
        self.reads_singleton = self.is_there();
    }

    /// What that wrote has been read to its end.
    pub(super) fn end_singleton(&mut self) {
        self.reads_singleton = false;
    }

    /// What that writes is still read.
    pub(super) fn reads_singleton(&self) -> bool {
        self.reads_singleton
    }
}
