//! What a group hosts for its experiments: a broker, a proxy and endpoints. The command line over it is `pktfleet`.
//!
//! ```text
//! broker    publications to subscribers     proxy   controllers and endpoints together
//! endpoint  what a mlet asks for
//! hosting   what programs that are hosted have in common: log, places, memory, the end by signal
//! link      messages over a stream          credentials  keys and certificates from files
//! home      throw-away credentials          interrupts   signals to wait for
//! alarm     wakes a task on time            watched      descriptors that the runtime watches
//! ```
//!
//! Public is what `pktfleet` takes: each program's `Options` and `run`, the [`broker::Broker`], the [`proxy::Proxy`] and
//! the [`endpoint::Endpoint`] to have within a process, and credentials for these.
//!
//! Not here: runs of many endpoints, and anything that measures them.

pub mod alarm;
pub mod broker;
mod clock;
pub mod credentials;
pub mod endpoint;
#[cfg(test)]
mod golden;
pub mod home;
pub mod hosting;
pub mod interrupts;
pub mod link;
pub mod proxy;
pub mod tls_reason;
mod watched;
