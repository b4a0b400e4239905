//! Where monitors run, and who has to wait for them.
//!
//! ```text
//! on the thread that asks   from the beginning to the next tick of the clock
//! beside it                 on a thread of its own, to the tick after that
//! behind all others         on one more, which runs only while a core has nothing else to do; the one before serves it
//! ```
//!
//! Most calls take a microsecond, and handing them to another thread would take ten times as long. But a thread of the
//! runtime serves many sessions, and none may wait for one's monitor. One that is interrupted by chance must not wait
//! for an idle core, which on a busy machine may take a second; one that takes long has to. Whoever is behind all others
//! may be interrupted anywhere and stay so for long, so it holds no lock of the endpoint: what a monitor asks of that is done
//! by the thread that serves it ([`ahead`]). The locks of allocator and kernel are left, which are held for moments.
//!
//! Not here: when a call has to end (`host`).
//!
//! Invariant: of the time of a thread that asks, and of threads beside it, calls of one session that are not brief get one
//! part in [`SHARE`].

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::terms::Scheduling;

/// How much less important than the runtime's threads those beside them are.
const NICE: i32 = 5;

/// A call that takes no longer disturbs nobody: serving a request takes as long.
const BRIEF: Duration = Duration::from_micros(100);
/// After a call that was not brief, so many times as long as it took, calls begin where that one should have.
const SHARE: u32 = 100;

/// Where the calls of one session begin.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    scheduling: Scheduling,
    recent: Mutex<Option<Recent>>,
}

/// A call that was not brief.
#[derive(Debug, Clone, Copy)]
struct Recent {
    /// How long it counts.
    until: Instant,
    place: Place,
}

/// Where a call begins that is not begun on the thread that asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Beside,
    Behind,
}

/// What work came to, and processor time of the threads that it was given.
type Done<T> = (T, Duration);

impl Pace {
    /// Nothing is known of its calls yet.
    pub(crate) fn new(scheduling: Scheduling) -> Self {
        Self { scheduling, recent: Mutex::default() }
    }

    /// Does work that pauses only to let others have their turn. If this is abandoned, work that has been begun goes on.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, NoThread> {
        let mut work = Box::pin(work);
        let begun = Instant::now();
        let recent = self.recent().filter(|recent| begun < recent.until);
        let mut took = Duration::ZERO;
        if recent.is_none() {
            let polled = polled(&mut work);
            took = begun.elapsed();
            if let Poll::Ready(done) = polled {
                self.took(took, None);
                return Ok(done);
            }
        }
        let scheduling = self.scheduling;
        let place = recent.map_or(Place::Beside, |recent| recent.place);
        let done = beside(move || to_its_end(work, place, scheduling)).await??;
        let (done, rest) = done;
        // How long one takes there says nothing of how long others would have to wait for the next.
        if place == Place::Beside {
            self.took(took, Some(rest));
        }
        Ok(done)
    }

    /// So long on the thread that asked, by the clock on the wall, which a busy machine stretches, and then `rest` by that
    /// of processors.
    fn took(&self, time: Duration, rest: Option<Duration>) {
        let (time, place) = match rest {
            Some(rest) if rest > BRIEF => (time + rest, Place::Behind),
            _ if time > BRIEF => (time, Place::Beside),
            // So was the one before it, for all that is known.
            _ => return *self.recent() = None,
        };
        let until = Instant::now() + time.saturating_mul(SHARE);
        *self.recent() = Some(Recent { until, place });
    }

    fn recent(&self) -> MutexGuard<'_, Option<Recent>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// There is no thread, or what ran on it did not come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoThread;

/// Does work that takes long on a thread of its own.
pub(crate) async fn beside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, NoThread> {
    let (tell, told) = oneshot::channel();
    let on_thread = move || {
        // Without it the work is done all the same.
        let _ = rustix::process::nice(NICE);
        // Nobody may wait for it any more.
        let _ = tell.send(work());
    };
    named().spawn(on_thread).map_err(|_| NoThread)?;
    told.await.map_err(|_| NoThread)
}

fn named() -> thread::Builder {
    thread::Builder::new().name("monitor".to_owned())
}

/// On a thread beside the one that asked.
fn to_its_end<F: Future<Output: Send> + Send>(
    mut work: Pin<Box<F>>,
    place: Place,
    scheduling: Scheduling,
) -> Result<Done<F::Output>, NoThread> {
    let mut took = Duration::ZERO;
    if place == Place::Beside {
        let own = OwnThread::begin(scheduling, None);
        let polled = polled(&mut work);
        took = own.end();
        if let Poll::Ready(done) = polled {
            return Ok((done, took));
        }
    }
    let (ask, asked) = channel();
    let behind = move || {
        (scheduling.step_back)();
        let own = OwnThread::begin(scheduling, Some(ask));
        let done = loop {
            if let Poll::Ready(done) = polled(&mut work) {
                break done;
            }
        };
        (done, own.end())
    };
    thread::scope(|scope| {
        let thread = named().spawn_scoped(scope, behind).map_err(|_| NoThread)?;
        // Until the other end is gone.
        asked.iter().for_each(|job| job());
        let (done, rest) = thread.join().map_err(|_| NoThread)?;
        Ok((done, took + rest))
    })
}

fn polled<F: Future>(work: &mut Pin<Box<F>>) -> Poll<F::Output> {
    work.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

/// What is done for a thread behind all others.
type Job = Box<dyn FnOnce() + Send>;

thread_local! {
    static OWN: RefCell<Option<Current>> = const { RefCell::new(None) };
}

/// The work that a thread was made for.
struct Current {
    scheduling: Scheduling,
    begun: Duration,
    /// Processor time when it was last asked for.
    asked_at: Cell<Duration>,
    /// To whom serves it, if that is needed.
    ask: Option<Sender<Job>>,
}

/// This thread was made for a monitor, until this is ended.
struct OwnThread;

impl OwnThread {
    fn begin(scheduling: Scheduling, ask: Option<Sender<Job>>) -> Self {
        let begun = (scheduling.processor_time)();
        OWN.set(Some(Current { scheduling, begun, asked_at: Cell::new(begun), ask }));
        Self
    }

    /// Processor time since it began.
    fn end(self) -> Duration {
        let current = OWN.take();
        current.map_or(Duration::ZERO, |current| {
            (current.scheduling.processor_time)().saturating_sub(current.begun)
        })
    }
}

/// Processor time of this thread since this was last asked, or since the thread began; `None` on one that was not made for
/// a monitor.
pub(crate) fn processor_time() -> Option<Duration> {
    OWN.with_borrow(|current| {
        let current = current.as_ref()?;
        let now = (current.scheduling.processor_time)();
        Some(now.saturating_sub(current.asked_at.replace(now)))
    })
}

/// Whether this thread was made for a monitor, and may take its time.
pub(crate) fn is_own_thread() -> bool {
    OWN.with_borrow(Option::is_some)
}

/// Whether others take precedence over this thread everywhere.
pub(crate) fn is_behind() -> bool {
    OWN.with_borrow(|current| current.as_ref().is_some_and(|current| current.ask.is_some()))
}

/// Has a job done that takes what others need, by the thread that serves this one; `None` if there is none.
pub(crate) fn ahead<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let ask = OWN.with_borrow(|current| current.as_ref()?.ask.clone())?;
    let (tell, told) = channel();
    let job = move || {
        // This thread waits for it.
        let _ = tell.send(job());
    };
    ask.send(Box::new(job)).ok()?;
    told.recv().ok()
}
