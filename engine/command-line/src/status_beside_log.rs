//! A thread that tells how far something is, beside a log.
//!
//! Not here: what it tells, and how that is shown (`status_line.rs`).

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};

use crate::log::LogWriter;
use crate::status_line::Way;

/// A line beside a log, told by a thread of its own as long as this is kept.
#[derive(Debug)]
pub struct StatusLine {
    /// Dropped to end the thread.
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl StatusLine {
    /// Shows what `text` makes of so many columns, again and again.
    ///
    /// # Errors
    /// No thread can be had.
    pub fn start(
        way: Way,
        log: Arc<LogWriter>,
        mut text: impl FnMut(usize) -> String + Send + 'static,
    ) -> io::Result<Self> {
        if way == Way::Hidden {
            return Ok(Self { stop: None, thread: None });
        }
        let (stop, stopped) = sync_channel::<()>(0);
        let body = move || {
            while stopped.recv_timeout(way.pause()) == Err(RecvTimeoutError::Timeout) {
                let text = text(way.columns());
                match way {
                    Way::Terminal => log.show_status(&text),
                    Way::Lines | Way::Hidden => tracing::info!("{text}"),
                }
            }
            log.show_status("");
        };
        // Inherited by the thread: signals are for those who wait for them.
        let mut before = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&SigSet::all()), Some(&mut before))?;
        let started = thread::Builder::new().name("status".into()).spawn(body);
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None)?;
        Ok(Self { stop: Some(stop), thread: Some(started?) })
    }
}

impl Drop for StatusLine {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It fails only if the thread panicked, and then nobody shows anything.
            let _ = thread.join();
        }
    }
}
