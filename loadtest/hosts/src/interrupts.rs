//! INT, TERM and HUP, turned into something to wait for.

use std::fmt;
use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// From its making on none of the three ends the process by itself.
#[derive(Debug)]
pub struct Interrupts {
    int: Signal,
    term: Signal,
    hup: Signal,
}

/// What has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interrupt(SignalKind);

impl Interrupt {
    /// How a run ends that was interrupted: as a shell tells it of a program that was ended by the signal.
    pub fn exit_code(self) -> u8 {
        u8::try_from(128 + self.0.as_raw_value()).unwrap_or(255)
    }
}

impl fmt::Display for Interrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted; everything was ended")
    }
}

impl Interrupts {
    /// Listens for them.
    ///
    /// # Errors
    /// The kernel says no.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            int: signal(SignalKind::interrupt())?,
            term: signal(SignalKind::terminate())?,
            hup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one.
    pub async fn next(&mut self) -> Interrupt {
        Interrupt(tokio::select! {
            _ = self.int.recv() => SignalKind::interrupt(),
            _ = self.term.recv() => SignalKind::terminate(),
            _ = self.hup.recv() => SignalKind::hangup(),
        })
    }

    /// Does this work, unless one comes first or has come already: then the work is dropped as far as it is.
    ///
    /// # Errors
    /// That one.
    pub async fn unless<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Interrupt> {
        tokio::select! {
            biased;
            interrupt = self.next() => Err(interrupt),
            done = work => Ok(done),
        }
    }
}
