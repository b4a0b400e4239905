//! What an attacker does, ready to be carried to its thread.

use std::sync::Arc;

use packetlab::snikey::SniKey;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::task::JoinSet;

use super::at_hosts::{self, BrokerClient};
use super::sessions;
use super::tally::Count;
use crate::load::error::LoadError;
use crate::load::host_process::Doors;
use hosts::endpoint::Endpoint;
use hosts::home::SNIKEY;

/// An attack, of so many connections at once.
pub(super) enum Plan {
    Linfo {
        endpoints: Vec<Endpoint>,
        per_second: Option<u32>,
    },
    LongChain {
        tls: Arc<ClientConfig>,
        name: ServerName<'static>,
        count: usize,
        per_second: Option<u32>,
    },
    Silent {
        count: usize,
    },
    OneKey {
        endpoint: Endpoint,
        count: usize,
    },
    Broker {
        clients: Vec<BrokerClient>,
    },
    Proxy {
        stranger: Arc<ClientConfig>,
        nameless: Arc<ClientConfig>,
        snikey: SniKey,
        count: usize,
    },
}

impl Plan {
    /// `count` of these endpoints send LINFOs.
    pub(super) fn linfo(
        mut endpoints: Vec<Endpoint>,
        count: usize,
        per_second: Option<u32>,
    ) -> Self {
        endpoints.truncate(count);
        Self::Linfo { endpoints, per_second }
    }

    /// Somebody who knows the snikey presents a chain of `chain_len` certificates.
    pub(super) fn long_chain(
        endpoints: Vec<Endpoint>,
        count: usize,
        per_second: Option<u32>,
        chain_len: u32,
    ) -> Result<Self, LoadError> {
        let Endpoint { tls, server_name: name, .. } = first(endpoints)?;
        let tls = sessions::with_long_chain(&tls, chain_len)?;
        Ok(Self::LongChain { tls, name, count, per_second })
    }

    /// The first of these endpoints opens `count` sessions.
    pub(super) fn one_key(endpoints: Vec<Endpoint>, count: usize) -> Result<Self, LoadError> {
        Ok(Self::OneKey { endpoint: first(endpoints)?, count })
    }

    /// Publishers and subscribers with a key each.
    pub(super) fn broker(count: usize) -> Result<Self, LoadError> {
        // Where they connect is told when they are started.
        let nowhere = [([127, 0, 0, 1], 0).into(); 2];
        let clients = (0..count).map(|_| BrokerClient::new(nowhere)).collect::<Result<_, _>>()?;
        Ok(Self::Broker { clients })
    }

    /// Controllers with a certificate of their own making and without any, by turns.
    pub(super) fn proxy(count: usize) -> Result<Self, LoadError> {
        let snikey = SniKey::parse(SNIKEY).map_err(|cause| LoadError::Home(cause.into()))?;
        let (stranger, nameless) = at_hosts::strangers()?;
        Ok(Self::Proxy { stranger, nameless, snikey, count })
    }

    /// Spawns all that the attack consists of.
    pub(super) fn start(self, doors: Doors, count: &Count, tasks: &mut JoinSet<()>) {
        let [door, _] = doors;
        match self {
            Self::Linfo { endpoints, per_second } => {
                for mut endpoint in endpoints {
                    endpoint.controllers = vec![door];
                    tasks.spawn(sessions::send_linfos(endpoint, per_second, count.clone()));
                }
            }
            Self::LongChain { tls, name, count: connections, per_second } => {
                for number in 0..connections {
                    let pace = sessions::Pace::of(per_second, number, connections);
                    let client = (Arc::clone(&tls), name.clone(), door);
                    tasks.spawn(sessions::present_chains(client, pace, count.clone()));
                }
            }
            Self::Silent { count: connections } => {
                for _ in 0..connections {
                    tasks.spawn(sessions::say_nothing(door, count.clone()));
                }
            }
            Self::OneKey { mut endpoint, count: connections } => {
                endpoint.controllers = vec![door];
                for _ in 0..connections {
                    tasks.spawn(sessions::hold_sessions(endpoint.clone(), count.clone()));
                }
            }
            Self::Broker { clients } => {
                for (number, client) in clients.into_iter().enumerate() {
                    tasks.spawn(at_hosts::harm_broker(number, client.at(doors), count.clone()));
                }
            }
            Self::Proxy { stranger, nameless, snikey, count: connections } => {
                for number in 0..connections {
                    let tls = if number % 2 == 0 { &stranger } else { &nameless };
                    let (tls, snikey) = (Arc::clone(tls), snikey.clone());
                    tasks.spawn(at_hosts::register(tls, snikey, door, count.clone()));
                }
            }
        }
    }
}

fn first(endpoints: Vec<Endpoint>) -> Result<Endpoint, LoadError> {
    endpoints.into_iter().next().ok_or(LoadError::NoAttack)
}
