//! What others see of a run over HTTP (`--metrics`): a page for people at `/`, and for programs `/metrics`, `/ready` and
//! `/healthz`.
//!
//! ```text
//! address.rs     what was typed, and the socket that listens there
//! server.rs      the thread that answers, and who may keep it busy
//! answer.rs      which path is answered how
//! exposition.rs  a snapshot of the run as Prometheus reads it
//! live/          the page of the run, and what keeps it up to date
//! ```
//!
//! Not here: what is counted (`engine::RunView`). Invariant: whoever asks costs the run's own threads nothing but a look at
//! its counts, and for the page's table a question once a second; and who asks slowly costs only a connection of those that are set aside.

mod address;
mod answer;
mod exposition;
mod live;
mod server;

pub(crate) use self::address::MetricsAddress;
pub(crate) use self::server::{Answering, CONNECTIONS_MAX, Monitoring};
