//! One campaign over several machines: each endpoint is measured by one of several managers, and its result is accepted
//! exactly once. A PostgreSQL database keeps who has what; this crate has its protocol in SQL (`sql/`), the client that a
//! manager runs beside its sessions, and what creates, reads and ends campaigns.
//!
//! It knows nothing of the engine or of command lines: a session is a number, an endpoint 32 bytes, a record a text.
//!
//! ```text
//! asks, news, plan, address     what a caller says and is told
//! client     a thread: two connections, a clock, and the machine between them
//! machine/   what is asked when, and what an answer means           pure: no socket, clock or thread
//! administration/   create, status, stop, halt, results, accepted, import, forget, migrations
//! database, statements, tls, runtime     a connection, and the calls of the five functions
//! ```
//!
//! The invariant: a session is told that it has won only after the database has made that durable, and a result is
//! accepted or refused, never both, however often it is asked. The design and its reasons: docs/spec/campaign.md.

#![forbid(unsafe_code)]

mod access;
mod address;
pub mod administration;
mod asks;
mod client;
mod database;
mod database_error;
mod gathering;
mod join_error;
mod machine;
mod plan;
mod runtime;
mod statements;
mod tls;

pub use access::{Access, ClientCertificate, ClientCertificateError, Roots, RootsError};
pub use address::{Address, AddressError};
pub use asks::{Ask, ClientNews, Fence, RECORD_MAX_BYTES, Refusal, Standing, State};
pub use client::{Client, Settings, join};
pub use database_error::DatabaseError;
pub use join_error::JoinError;
pub use plan::Plan;
