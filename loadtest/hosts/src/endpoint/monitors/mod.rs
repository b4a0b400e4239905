//! The monitor programs of one session: what becomes of what they say (spec/monitors.md).
//!
//! ```text
//! session      what becomes of what they say
//! rule         whether they are run, and with what limits
//! supply       from CDATA to START: which are demanded, and which have come
//! view         what one sees of the endpoint, and where it keeps its memory
//! ```
//!
//! Not here: running them (the crate `monitors`); when a message is one to ask about (`requests`).
//!
//! Invariant: no experiment that demands monitors is served without all of them where they are run.

mod rule;
mod session;
mod supply;
mod view;

pub use rule::{MonitorOptions, MonitorRule, MonitorSettings};
pub(super) use session::{Asked, SessionMonitors};
#[cfg(feature = "fuzz")]
pub(super) use supply::Demand;
pub(super) use supply::{Supply, demands};
