//! What an attacker does, ready to be carried to its thread.

use std::sync::Arc;

use packetlab::snikey::SniKey;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::task::JoinSet;

use super::at_hosts::{self, BrokerClient};
use super::hellos::{self, Words};
use super::sessions::{self, Flood};
use super::tally::Count;
use crate::load::error::LoadError;
use crate::load::host_process::Doors;
use crate::load::sessions::message;
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
    Stall {
        words: Words,
        count: usize,
        sources: u32,
    },
    Hello {
        hello: Arc<[u8]>,
        count: usize,
        per_second: Option<u32>,
        sources: u32,
    },
    Flood {
        endpoints: Vec<Endpoint>,
        flood: (Flood, Vec<u8>),
        per_second: Option<u32>,
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

    /// Connections that say as much of a ClientHello at once, or nothing if there is none.
    pub(super) fn stall(hello: Arc<[u8]>, part_len: usize, count: usize, sources: u32) -> Self {
        Self::Stall { words: Words { hello, part_len }, count, sources }
    }

    /// `count` of these endpoints send this before messages of `size` bytes.
    pub(super) fn flood(
        mut endpoints: Vec<Endpoint>,
        count: usize,
        per_second: Option<u32>,
        (flood, size): (Flood, usize),
    ) -> Self {
        endpoints.truncate(count);
        Self::Flood { endpoints, flood: (flood, message(size)), per_second }
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
            Self::Stall { words, count: connections, sources } => {
                for number in 0..connections as u64 {
                    let source = (number, sources);
                    tasks.spawn(hellos::stall(door, source, words.clone(), count.clone()));
                }
            }
            Self::Hello { hello, count: connections, per_second, sources } => {
                let what = (hello, connections, sources);
                tasks.spawn(hellos::flood(door, what, per_second, count.clone()));
            }
            Self::Flood { endpoints, flood, per_second } => {
                for mut endpoint in endpoints {
                    endpoint.controllers = vec![door];
                    let flood = flood.clone();
                    tasks.spawn(sessions::send_flood(endpoint, flood, per_second, count.clone()));
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

/// The first of these endpoints.
pub(super) fn first(endpoints: Vec<Endpoint>) -> Result<Endpoint, LoadError> {
    endpoints.into_iter().next().ok_or(LoadError::NoAttack)
}
