//! What a proxy allows, each an option of the command line.
//!
//! Not here: who watches over them.

use std::time::Duration;

use clap::Args;

use command_line::units::{count, size_above_zero, time_limit};

use crate::hosting::{ServerLimits, defaults};

const HANDSHAKES_HELP: &str = "Set-ups of controllers, and endpoints that are saying their ClientHello, at once of each; \
    for further ones the slowest give way";
const PER_SOURCE_HELP: &str = "What one address may take of the connections of a kind; 100: all";

/// Every size, count and deadline of a proxy.
#[derive(Debug, Clone, Args)]
#[command(
    next_help_heading = "Limits (durations 500ms, 10s, 5m, 2h; sizes 4096, 64k)",
    mut_arg("handshakes_max", |arg| arg.help(HANDSHAKES_HELP)),
    mut_arg("per_source_percent", |arg| arg.help(PER_SOURCE_HELP)),
)]
pub struct ProxyLimits {
    /// Controller connections in set-up or waiting for an endpoint; for further ones the source
    /// with most gives way
    #[arg(long, value_name = "N", default_value = "20000", value_parser = count)]
    pub controllers_max: usize,
    /// Controller connections that wait under one snikey; further ones are refused
    #[arg(long, value_name = "N", default_value = "10000", value_parser = count)]
    pub backlog_max: usize,
    /// Of them, those of one owner under all its snikeys; further ones are refused; 0: no limit. An owner
    /// is the signer of agent certificates, a key, or, without a certificate, an address
    #[arg(long, value_name = "N", default_value = "10000")]
    pub backlog_per_key_max: usize,
    /// For so long after its last connection a snikey still belongs to its owner
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time_limit)]
    pub owner_grace: Duration,
    /// Those that a broker and a proxy have alike.
    #[command(flatten)]
    pub server: ServerLimits,
    /// Endpoint connections, those in a session included; for further ones the source with most gives way
    #[arg(long, value_name = "N", default_value = "10000", value_parser = count)]
    pub endpoints_max: usize,
    /// From accepting a controller to its `PKTLAB`
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time_limit)]
    pub setup_timeout: Duration,
    /// Bytes of a controller that are skipped before its `PKTLAB`
    #[arg(long, value_name = "SIZE", default_value = "4k", value_parser = size_above_zero)]
    pub preamble_max: usize,
    /// From accepting an endpoint to the end of its ClientHello
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time_limit)]
    pub hello_timeout: Duration,
    /// Size of a ClientHello
    #[arg(long, value_name = "SIZE", default_value = "16k", value_parser = size_above_zero)]
    pub hello_max: usize,
    /// How long an endpoint waits when no controller connection waits under its snikey
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = time_limit)]
    pub wait_timeout: Duration,
    /// Without progress once one side of a session has closed
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = time_limit)]
    pub half_closed_timeout: Duration,
}

impl Default for ProxyLimits {
    fn default() -> Self {
        defaults()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hosting::share;

    #[test]
    fn one_manager_at_one_address_can_use_the_whole_backlog_and_leaves_room_for_others() {
        let limits = ProxyLimits::default();
        let of_address = share(limits.controllers_max, limits.server.per_source_percent);
        assert!(limits.backlog_max <= limits.backlog_per_key_max);
        assert!(limits.backlog_max <= of_address);
        assert!(2 * limits.backlog_per_key_max <= limits.controllers_max);
    }
}
