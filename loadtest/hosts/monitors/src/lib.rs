//! Runs the monitor programs that a controller's certificates demand of an endpoint (spec/monitors.md).
//!
//! ```text
//! call_time how long a call has run
//! check     what monitors are asked: a message, as the arguments of their functions
//! compiled  modules, compiled once for all sessions of the process
//! count     how many the process has
//! host      the engine below, what modules may import, the clock of deadlines
//! monitor   one instance: its memory, its functions, its calls
//! monitors  those of a session, and what they say together
//! served    what it asks of its endpoint, where others take precedence over it
//! state     what its store holds for the functions that it may call
//! terms     what is agreed with the endpoint
//! work      calls that take long go on beside the runtime, and then behind all others
//! ```
//!
//! Not here: what a program must be (the crate `monitor-module`), which are demanded, what becomes of a verdict, where persistent bytes are kept, the endpoint's
//! memory, the log. All of that is the endpoint's; it is asked through [`Surroundings`].
//!
//! Invariant: whatever a monitor does, a call of it ends when it has run for as long as its [`Limits`] say, and ten seconds after it began or that
//! time if it is longer, holds up no thread of the runtime for
//! more than a few milliseconds, and no other thread of the machine that has something to do for much longer, and changes
//! nothing but its own memory. Nothing is started before the first module is
//! compiled.

#![forbid(unsafe_code)]

mod call_time;
mod check;
mod compiled;
mod count;
mod host;
mod monitor;
mod monitors;
mod served;
mod state;
mod terms;
mod work;

pub use check::Check;
pub use compiled::Compiled;
pub use monitor_module::{MODULE_LEN_MAX, Unfit};
pub use monitors::{Monitors, Objection, Verdict};
pub use terms::{Crash, Limits, PERSISTENT_LEN, Persistent, Scheduling, Surroundings, Unusable};

#[cfg(test)]
mod tests;
