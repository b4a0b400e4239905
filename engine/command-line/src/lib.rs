//! What the command lines of `pktxpmgr`, `pktcred` and `pktfleet` have in common: quantities and cores as typed, help,
//! completions and manual pages, a log that holds up nobody, how far something is, and from what they were built.
//!
//! Not here: options of one program, and anything that it does. Files and secrets are read with `packetlab_home::file`.

pub mod cores;
pub mod log;
pub mod pages;
mod paper;
pub mod provenance;
pub mod status_beside_log;
pub mod status_line;
pub mod units;
pub mod usage;
