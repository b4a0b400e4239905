//! `pktfleet proxy`: the meeting point for controllers and endpoints that cannot reach one another
//! (spec/protocol.md 5.2, proxy side).
//!
//! ```text
//! registration a controller registers a connection     records, preamble   its parts
//! hello        the snikey in an endpoint's ClientHello
//! switchboard  who waits for whom              owner  whose a snikey is
//! splice       bytes between the two
//! server       the sockets
//! ```
//!
//! The original ships no proxy; where its clients leave the rules open, ours are these. A snikey belongs
//! to whoever uses it first, as long as it has connections; they are used in the order they were
//! registered. An endpoint for
//! which none waits is kept for a while before it is sent away. A snikey that TLS refuses as a server
//! name, such as a number, is refused at registration, because no endpoint could ask for it here.

mod hello;
mod limits;
mod owner;
mod preamble;
mod records;
mod refusal;
mod registration;
mod server;
mod splice;
mod switchboard;
#[cfg(test)]
mod tests;

use std::process::ExitCode;

use clap::Args;
use packetlab::address::HostPort;

use crate::hosting::{self, HostError, Listening, LogOptions, ServerOptions};
pub use limits::ProxyLimits;
pub use owner::Signers;
pub use preamble::PREAMBLE;
pub use server::Proxy;

/// Where controllers register (spec/protocol.md 7).
pub(crate) const CONTROLLER_PORT: u16 = 20557;
/// Where endpoints come (spec/protocol.md 7).
pub(crate) const ENDPOINT_PORT: u16 = 20556;

const CLIENT_ROOT_HELP: &str = "Public key that may have signed the agent certificates of controllers; repeatable \
    [default: any]";

const EXAMPLES: &str = "\
Examples:
  pktfleet proxy --agent proxy.cert --key proxy --client-root group.pub";

/// What `pktfleet proxy` can be told.
#[derive(Debug, Args)]
#[command(before_help = EXAMPLES, mut_arg("client_root", |arg| arg.help(CLIENT_ROOT_HELP)))]
pub struct Options {
    /// Where controllers (pktxpmgr) register; `*` is every address [default port: 20557]
    #[arg(long, value_name = "HOST[:PORT]", default_value = "*")]
    controllers: HostPort,
    /// Where endpoints come; `*` is every address [default port: 20556]
    #[arg(long, value_name = "HOST[:PORT]", default_value = "*")]
    endpoints: HostPort,
    #[command(flatten)]
    server: ServerOptions,
    /// Refuse controllers that show no agent certificate
    #[arg(long)]
    require_client_certificate: bool,
    #[command(flatten)]
    log: LogOptions,
    #[command(flatten)]
    limits: ProxyLimits,
}

/// Serves until a signal.
pub fn run(options: &Options) -> ExitCode {
    hosting::run(&options.log, async || start(options).await, Proxy::end)
}

async fn start(options: &Options) -> Result<Proxy, HostError> {
    let limits = options.limits.clone();
    // A session holds both an endpoint's and a controller's connection.
    hosting::allow_connections(limits.controllers_max + 2 * limits.endpoints_max)?;
    let mandatory = options.require_client_certificate;
    let (tls, client_roots) = options.server.tls(mandatory)?;
    let signers = match client_roots[..] {
        [] => Signers::Unknown,
        _ => Signers::Verified,
    };
    if client_roots.is_empty() || !mandatory {
        tracing::warn!(
            "any controller may register; --client-root with --require-client-certificate allows \
             only those of known operators"
        );
    }
    if client_roots.is_empty() {
        tracing::warn!(
            "each controller key owns its snikeys alone; --client-root lets all agents share that \
             the named key has signed, also with a renewed key"
        );
    }
    let controllers = Listening::open(&options.controllers, CONTROLLER_PORT).await?;
    let endpoints = Listening::open(&options.endpoints, ENDPOINT_PORT).await?;
    Ok(Proxy::start(controllers, endpoints, tls, signers, limits))
}
