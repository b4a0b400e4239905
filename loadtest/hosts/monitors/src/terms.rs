//! What is agreed with whoever runs monitors: what one may take, what it sees, and how it fails.
//!
//! Not here: running one.

use std::fmt;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use monitor_module::{PAGES, Unfit};

use crate::count::MONITORS_MAX;

/// Bytes of a monitor that outlive its session.
pub const PERSISTENT_LEN: usize = 256;

/// The bytes of a monitor that outlive its session.
pub type Persistent = [u8; PERSISTENT_LEN];

/// What a monitor may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest call, with what is allocated and freed for it, by the time of processors that it has had.
    pub call: Duration,
    /// Most memory, in bytes; at least [`Limits::MEMORY_LEN_MIN`].
    pub memory_len_max: usize,
}

impl Limits {
    /// The memory that every monitor has at first.
    pub const MEMORY_LEN_MIN: usize = PAGES as usize * 0x1_0000;
}

impl Default for Limits {
    fn default() -> Self {
        Self { call: Duration::from_millis(100), memory_len_max: 16 * 0x1_0000 }
    }
}

/// What is asked of the machine for the threads on which monitors run long.
#[derive(Debug, Clone, Copy)]
pub struct Scheduling {
    /// Has the calling thread run only while a core has nothing else to do, if that can be had.
    pub step_back: fn(),
    /// The time of processors that the calling thread has had.
    pub processor_time: fn() -> Duration,
}

/// That of a machine which shares its cores evenly: time that passes counts as time of a processor.
impl Default for Scheduling {
    fn default() -> Self {
        static BEGINNING: LazyLock<Instant> = LazyLock::new(Instant::now);
        Self { step_back: || {}, processor_time: || BEGINNING.elapsed() }
    }
}

/// What a monitor sees of its endpoint.
pub trait Surroundings: fmt::Debug + Send + Sync {
    /// Fills `buffer` with what is at `address` of the endpoint's virtual memory; zeros where nothing is. Never asked
    /// for the current packet.
    fn read(&self, address: u32, buffer: &mut [u8]);

    /// The bytes that outlive the session have changed. Takes no time.
    fn keep(&self, persistent: &Persistent);

    /// Makes what is kept durable, within a second if another flush was just before; false if that failed, or nothing
    /// outlives the process. Takes the time that the disk takes.
    fn flush(&self) -> bool;

    /// A line for the operator, as the monitor wrote it, cut to a few hundred bytes.
    fn debug(&self, text: &[u8]);

    /// Whether such lines are wanted.
    fn debug_enabled(&self) -> bool;
}

/// Why a program cannot be a monitor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unusable {
    /// It can be seen without running it.
    Unfit(Unfit),
    /// The compiler refuses it.
    NotCompiled(String),
    /// Its beginning asks for more than it may have.
    NotLinked(String),
    /// Its start function did not end well.
    Start(Crash),
    /// Its `malloc` did not end well when it was to give the persistent memory.
    Malloc(Crash),
    /// It did not allocate its persistent memory.
    NoPersistentMemory,
    /// Programs cannot be compiled on this machine.
    NoEngine(String),
    /// The process has as many monitors as it may have.
    TooMany,
    /// There is no thread to compile or start it on.
    NoThread,
    /// The compiler gave up.
    CompilerFailed,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unfit(cause) => cause.fmt(f),
            Self::NotCompiled(cause) => write!(f, "it cannot be compiled: {cause}"),
            Self::NotLinked(cause) => write!(f, "it cannot be linked: {cause}"),
            Self::Start(crash) => write!(f, "its start function {crash}"),
            Self::Malloc(crash) => write!(f, "its malloc {crash}"),
            Self::NoPersistentMemory => {
                write!(f, "its malloc did not give it the {PERSISTENT_LEN} bytes that are kept")
            }
            Self::NoEngine(cause) => write!(f, "programs cannot be compiled here: {cause}"),
            Self::TooMany => write!(
                f,
                "this process runs as many monitor programs as it can, {MONITORS_MAX} at most and half of them for \
                 sessions with many; let fewer endpoints run in it"
            ),
            Self::NoThread => f.write_str("there is no thread for it"),
            Self::CompilerFailed => f.write_str("the compiler failed at it"),
        }
    }
}

impl std::error::Error for Unusable {}

/// How a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Crash {
    /// There is no such function among its exports.
    Missing(&'static str),
    /// It ran for longer than this, by the time of processors, or waited for the disk.
    Late(Duration),
    /// It had so long by the clock, and ran for less than its time: others had the machine.
    Starved(Duration),
    /// It trapped, or the function has another type.
    Trapped(String),
    /// There is no thread on which it could go on.
    NoThread,
}

/// Behind the name of what was called.
impl fmt::Display for Crash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(name) => write!(f, "has no function {name}"),
            Self::Late(limit) => write!(f, "took longer than {} ms", limit.as_millis()),
            Self::Starved(time) => write!(
                f,
                "did not end in {} s, of which it ran for less than its time: the machine is too busy",
                time.as_secs()
            ),
            Self::Trapped(cause) => write!(f, "failed: {cause}"),
            Self::NoThread => f.write_str("found no thread to go on with"),
        }
    }
}
