//! Conversations as state machines: greeting, relay, publication, backlog.
//!
//! Pure: a machine owns no socket, thread or file, and time is an argument.

#![forbid(unsafe_code)]

pub mod account;
pub mod backlog;
pub mod backoff;
pub mod descriptor;
pub mod endpoint_choice;
pub mod experiments;
pub mod greeting;
pub mod keys;
pub mod linfo;
pub mod mlet_facts;
pub mod outbox;
pub mod publisher;
pub mod relay;
pub mod rhythm;
pub mod session;
pub mod session_end;
pub mod tee;

#[cfg(test)]
pub(crate) mod tests;
