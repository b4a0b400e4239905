//! Conversations as state machines: trust, TLS, greeting and relay.
//!
//! Pure: a machine owns no socket, thread or file, and time is an argument.

#![forbid(unsafe_code)]

pub mod trust;
