//! `pktfleet broker`: carries published experiments to the endpoints that subscribe
//! (spec/protocol.md 5.4, 5.5, broker side).
//!
//! ```text
//! rules    what one client may do        board    who has to hear of what      (pure)
//! role     what a client is there for    refusal  why not, and which status    (pure)
//! limits   every size, count and deadline
//! server   the sockets                   conversation  one of them, after its handshake
//! failure  why one ends early            shared   what all connections share
//! key_use  what the connections of one key may do together
//! ```
//!
//! No client makes another wait: what all share is held for look-ups only. Texts are compared by the
//! subscriber's own task, so much a second for one key; a client that asks too often is read later; one
//! that reads too slowly, or writes half a message, is disconnected.
//!
//! The original ships no broker; where its clients leave the rules open, ours are these. Certificates
//! count for the one XPUB or XSUB that follows. Publications add up, a subscription replaces the one
//! before. A subscriber hears of a publication once, by the first channel they share.

mod board;
mod conversation;
mod failure;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod key_use;
mod limits;
mod published;
mod refusal;
mod role;
mod rules;
mod server;
mod shared;
#[cfg(test)]
mod tests;

use std::process::ExitCode;

use clap::Args;
use packetlab::address::HostPort;

use crate::hosting::{self, HostError, Listening, LogOptions, ServerOptions};
pub use limits::BrokerLimits;
pub use server::Broker;

/// Where publishers come (spec/protocol.md 7).
pub(crate) const PUBLISH_PORT: u16 = 20556;
/// Where subscribers come (spec/protocol.md 7).
pub(crate) const SUBSCRIBE_PORT: u16 = 20557;

const EXAMPLES: &str = "\
Examples:
  pktfleet broker --agent broker.cert --key broker --client-root group.pub";

/// What `pktfleet broker` can be told.
#[derive(Debug, Args)]
#[command(before_help = EXAMPLES)]
pub struct Options {
    /// Where publishers (pktxpmgr) come; `*` is every address [default port: 20556]
    #[arg(long, value_name = "HOST[:PORT]", default_value = "*")]
    publish: HostPort,
    /// Where subscribers (endpoints) come; `*` is every address [default port: 20557]
    #[arg(long, value_name = "HOST[:PORT]", default_value = "*")]
    subscribe: HostPort,
    #[command(flatten)]
    server: ServerOptions,
    #[command(flatten)]
    log: LogOptions,
    #[command(flatten)]
    limits: BrokerLimits,
}

/// Serves until a signal.
pub fn run(options: &Options) -> ExitCode {
    hosting::run(&options.log, async || start(options).await, Broker::end)
}

async fn start(options: &Options) -> Result<Broker, HostError> {
    let limits = options.limits.clone();
    hosting::allow_connections(limits.publishers_max + limits.subscribers_max)?;
    let (tls, client_roots) = options.server.tls(true)?;
    if client_roots.is_empty() {
        tracing::warn!(
            "any client may connect; --client-root allows only those of known operators"
        );
    }
    let publish = Listening::open(&options.publish, PUBLISH_PORT).await?;
    let subscribe = Listening::open(&options.subscribe, SUBSCRIBE_PORT).await?;
    Ok(Broker::start(publish, subscribe, tls, limits))
}
