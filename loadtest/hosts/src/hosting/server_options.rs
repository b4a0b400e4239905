//! What a broker and a proxy are told alike: who they are, whose clients may come, and how many at once.
//!
//! Not here: what only one of them allows (`broker::BrokerLimits`, `proxy::ProxyLimits`). The help of an option is a broker's; a
//! proxy words it anew where it means something else.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Parser};
use command_line::units::{count, percent};
use packetlab::key::PublicKey;
use packetlab::tls::{self, Identity, PeerRule, ServerConfig};
use packetlab::trust::TrustMode;

use super::error::HostError;
use crate::credentials::{self, CredentialError, KeyOptions};

/// Who a server is, and who may be its client.
#[derive(Debug, Args)]
pub struct ServerOptions {
    #[command(flatten)]
    key: KeyOptions,
    /// Agent certificate of the key
    #[arg(long, value_name = "FILE")]
    agent: PathBuf,
    /// Public key that may have signed the agent certificates of clients; repeatable [default: any]
    #[arg(long, value_name = "FILE")]
    client_root: Vec<PathBuf>,
}

impl ServerOptions {
    /// How it is found in TLS, and judges clients, who need a certificate if that is `mandatory`; and the keys that may
    /// have signed it, none for any.
    ///
    /// # Errors
    /// A file is missing or unusable.
    pub(crate) fn tls(
        &self,
        mandatory: bool,
    ) -> Result<(Arc<ServerConfig>, Vec<PublicKey>), HostError> {
        let key = self.key.read()?;
        let chain = [credentials::certificate(&self.agent)?];
        let anchors = credentials::public_keys(&self.client_root)?;
        let rule = PeerRule { mode: TrustMode::Agent, anchors: anchors.clone(), mandatory };
        let config = tls::server_config(&Identity { chain: &chain, key: &key }, rule)
            .map_err(|cause| CredentialError::unusable(&self.agent, cause))?;
        Ok((config, anchors))
    }
}

/// How many clients may come at once, whatever they want.
#[derive(Debug, Clone, Copy, Args)]
pub struct ServerLimits {
    /// TLS handshakes at once; for further ones the slowest give way
    #[arg(long, value_name = "N", default_value = "512", value_parser = count)]
    pub handshakes_max: usize,
    /// What one address may take of the connections of a kind, and of memory; 100: all
    #[arg(long, value_name = "PERCENT", default_value = "50", value_parser = percent)]
    pub per_source_percent: usize,
}

impl Default for ServerLimits {
    fn default() -> Self {
        defaults()
    }
}

/// The defaults of the command line, which are written there and nowhere else.
pub(crate) fn defaults<L: Args>() -> L {
    #[derive(Parser)]
    struct Alone<L: Args> {
        #[command(flatten)]
        limits: L,
    }
    Alone::parse_from(["defaults"]).limits
}
