//! The monitors of one session, in the order of their indices, and what they say together (spec/monitors.md 1, 8, 9).
//!
//! Not here: what becomes of a message they object to.
//!
//! Invariant: each check is asked of one after the other, and the first that objects decides. One call is under way at
//! a time, and goes on to its end if nobody waits for it any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

use tokio::sync::Mutex;

use crate::check::Check;
use crate::compiled::Compiled;
use crate::monitor::Monitor;
use crate::terms::{Crash, Limits, Persistent, Scheduling, Surroundings, Unusable};
use crate::work::Pace;

/// What a check returns from which on it says nothing but that it does not know (spec/monitors.md 8).
const CRASHED: i32 = 65_535;

/// The monitors of one session.
#[derive(Default)]
pub struct Monitors {
    all: Arc<Mutex<Vec<Monitor>>>,
    pace: Pace,
    /// The one that begins, or began last.
    beginning: Arc<AtomicU16>,
}

/// What monitors say to a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// None objects.
    Pass,
    /// One does.
    Objection {
        /// Its index.
        monitor: u16,
        /// What it says.
        objection: Objection,
    },
}

/// What a monitor that objects says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Objection {
    /// A code for the controller, 1 to 65,534.
    Code(u16),
    /// Nothing: it returned a negative number.
    Silent,
    /// It does not know: it returned a number that is too large, or crashed.
    Failed(Option<Crash>),
}

impl std::fmt::Debug for Monitors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Monitors").finish_non_exhaustive()
    }
}

impl Monitors {
    /// None yet.
    #[must_use]
    pub fn new(scheduling: Scheduling) -> Self {
        Self { all: Arc::default(), pace: Pace::new(scheduling), beginning: Arc::default() }
    }

    /// Adds an instance of a program, behind those that are there.
    ///
    /// # Errors
    /// The program cannot be a monitor.
    pub async fn add(
        &mut self,
        compiled: Compiled,
        limits: Limits,
        surroundings: Arc<dyn Surroundings>,
        persistent: Persistent,
    ) -> Result<(), Unusable> {
        let of_session = self.all.lock().await.len();
        let starting = async move {
            Monitor::start(&compiled, limits, surroundings, &persistent, of_session).await
        };
        let monitor = self.pace.run(starting).await.map_err(|_| Unusable::NoThread)??;
        self.all.lock().await.push(monitor);
        Ok(())
    }

    /// Lets all begin; their texts for the controller, in order.
    ///
    /// # Errors
    /// The first that crashed, by its index.
    pub async fn initialize(&self) -> Result<Vec<Vec<u8>>, (u16, Crash)> {
        let mut all = Arc::clone(&self.all).lock_owned().await;
        let beginning = Arc::clone(&self.beginning);
        let initializing = async move {
            let mut texts = Vec::new();
            for (index, monitor) in (0..).zip(all.iter_mut()) {
                beginning.store(index, Relaxed);
                texts.push(monitor.initialize().await.map_err(|crash| (index, crash))?);
            }
            Ok(texts)
        };
        self.pace.run(initializing).await.unwrap_or(Err((0, Crash::NoThread)))
    }

    /// The index of the one that begins, or began last: who gives up waiting for [`Monitors::initialize`] learns which
    /// took too long.
    pub fn beginning(&self) -> u16 {
        self.beginning.load(Relaxed)
    }

    /// Asks them in order, until one objects.
    ///
    /// # Errors
    /// There was no thread to go on with: nobody knows what they say, and the message is gone.
    pub async fn check(&self, mut check: Check) -> Result<(Verdict, Check), Crash> {
        let mut all = Arc::clone(&self.all).lock_owned().await;
        let checking = async move {
            for (index, monitor) in (0..).zip(all.iter_mut()) {
                let objection = match monitor.check(&mut check).await {
                    Ok(0) => continue,
                    Ok(..0) => Objection::Silent,
                    Ok(code @ 1..CRASHED) => {
                        Objection::Code(u16::try_from(code).unwrap_or(u16::MAX))
                    }
                    Ok(_) => Objection::Failed(None),
                    Err(crash) => Objection::Failed(Some(crash)),
                };
                return (Verdict::Objection { monitor: index, objection }, check);
            }
            (Verdict::Pass, check)
        };
        self.pace.run(checking).await.map_err(|_| Crash::NoThread)
    }

    /// Tells them in order what status the answer to a message has.
    ///
    /// # Errors
    /// The first that crashed, after which none is told; of [`Crash::NoThread`] the index says nothing.
    pub async fn tell(&self, mut check: Check, status: u16) -> Result<(), (u16, Crash)> {
        if check.kind.result_name().is_none() {
            return Ok(());
        }
        let mut all = Arc::clone(&self.all).lock_owned().await;
        let telling = async move {
            for (index, monitor) in (0..).zip(all.iter_mut()) {
                monitor.tell(&mut check, status).await.map_err(|crash| (index, crash))?;
            }
            Ok(())
        };
        self.pace.run(telling).await.unwrap_or(Err((0, Crash::NoThread)))
    }
}
