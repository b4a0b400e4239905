//! Sessions on a simulated shard, between endpoints and mlets in memory: what counts and the benchmark of a turn are of.
//!
//! A file for those to include and no part of the library: the shard comes with the feature `bench` of the engine, which no
//! program of this package may be built with. Not here: what is counted. Whoever counts says how a turn is taken, and
//! what runs apart from it. Invariant: only the shard's turns run within the turns.

use std::sync::Arc;

use bench::credentials::{NOW, endpoint_config, experiments};
use bench::endpoint::Endpoint;
use bench::{encoded, ndata};
use engine::bench::{Apart, Peer, SimulatedShard};
use packetlab::tls::{self, ClientConfig};

/// More turns than any step needs.
const TURNS_MAX: usize = 10_000;

/// Bytes that are streamed at once.
pub(crate) const STREAM_LEN: usize = 1 << 20;

/// A message of the stream: 60 KB, as in `pktfleet load`.
const STREAMED_LEN: usize = 60_000;

/// A shard and the peers of its sessions.
pub(crate) struct Sessions {
    pub(crate) shard: SimulatedShard,
    pairs: Vec<Pair>,
    config: Arc<ClientConfig>,
    message: Vec<u8>,
    stream: Vec<u8>,
    /// Bytes on their way.
    passing: Vec<u8>,
}

struct Pair {
    endpoint: Endpoint,
    connection: Peer,
    mlet: Peer,
}

impl Sessions {
    /// A shard without sessions.
    pub(crate) fn new(apart: Apart) -> Self {
        tls::warm_up().expect("randomness");
        let streamed = encoded(&ndata(&[7; STREAMED_LEN])).repeat(STREAM_LEN / STREAMED_LEN);
        let rest_len = STREAM_LEN - streamed.len() - encoded(&ndata(&[])).len();
        Self {
            shard: SimulatedShard::new(experiments(), NOW, apart).expect("descriptors"),
            pairs: Vec::new(),
            config: endpoint_config(),
            message: encoded(&ndata(&[7; 49])),
            stream: [streamed, encoded(&ndata(&vec![7; rest_len]))].concat(),
            passing: Vec::new(),
        }
    }

    /// Another endpoint comes and its mlet is started.
    pub(crate) fn set_up(&mut self, mut turn: impl FnMut(&mut SimulatedShard)) {
        let connection = self.shard.connect();
        let mut endpoint = Endpoint::new(Arc::clone(&self.config));
        for _ in 0..TURNS_MAX {
            exchange(&mut endpoint, &connection, &mut self.passing);
            turn(&mut self.shard);
            if let Some(mlet) = self.shard.take_told().0.pop() {
                self.pairs.push(Pair { endpoint, connection, mlet });
                return;
            }
        }
        panic!("no mlet is started");
    }

    /// The mlet of each session sends 64 bytes, and its endpoint answers with as many.
    pub(crate) fn round_trip(&mut self, mut turn: impl FnMut(&mut SimulatedShard)) {
        let len = self.message.len();
        assert_eq!(len, 64);
        self.pairs.iter().for_each(|pair| pair.mlet.send(&self.message));
        self.await_at_endpoints(len, &mut turn);
        self.pairs.iter_mut().for_each(|pair| pair.endpoint.write(&self.message));
        self.await_at_mlets(len, &mut turn);
    }

    /// Each mlet sends 1 MiB.
    pub(crate) fn stream_to_endpoints(&mut self, mut turn: impl FnMut(&mut SimulatedShard)) {
        self.pairs.iter().for_each(|pair| pair.mlet.send(&self.stream));
        self.await_at_endpoints(self.stream.len(), &mut turn);
    }

    /// Each endpoint sends 1 MiB.
    pub(crate) fn stream_to_mlets(&mut self, mut turn: impl FnMut(&mut SimulatedShard)) {
        self.pairs.iter_mut().for_each(|pair| pair.endpoint.write(&self.stream));
        self.await_at_mlets(self.stream.len(), &mut turn);
    }

    /// The mlets end, and with them all sessions.
    pub(crate) fn end(&mut self, mut turn: impl FnMut(&mut SimulatedShard)) {
        self.pairs.iter().for_each(|pair| pair.mlet.end());
        let mut over = 0;
        for _ in 0..TURNS_MAX {
            turn(&mut self.shard);
            self.pairs.iter_mut().for_each(|pair| {
                exchange(&mut pair.endpoint, &pair.connection, &mut self.passing);
                if pair.connection.is_at_end() {
                    pair.connection.end();
                }
            });
            over += self.shard.take_told().1;
            if over == self.pairs.len() {
                return self.pairs.clear();
            }
        }
        panic!("{over} of {} sessions are over", self.pairs.len());
    }

    fn await_at_endpoints(&mut self, len: usize, turn: &mut impl FnMut(&mut SimulatedShard)) {
        let mut left = self.pairs.len() * len;
        for _ in 0..TURNS_MAX {
            turn(&mut self.shard);
            for pair in &mut self.pairs {
                exchange(&mut pair.endpoint, &pair.connection, &mut self.passing);
                left -= pair.endpoint.take_received();
            }
            if left == 0 {
                return;
            }
        }
        panic!("{left} bytes have not come to the endpoints");
    }

    fn await_at_mlets(&mut self, len: usize, turn: &mut impl FnMut(&mut SimulatedShard)) {
        let mut left = self.pairs.len() * len;
        for pair in &mut self.pairs {
            exchange(&mut pair.endpoint, &pair.connection, &mut self.passing);
        }
        for _ in 0..TURNS_MAX {
            turn(&mut self.shard);
            for pair in &self.pairs {
                left -= pair.mlet.received_len();
                self.passing.clear();
                pair.mlet.take(&mut self.passing);
            }
            if left == 0 {
                return;
            }
        }
        panic!("{left} bytes have not come to the mlets");
    }
}

/// The endpoint takes what has come, and sends what it has to send.
fn exchange(endpoint: &mut Endpoint, connection: &Peer, passing: &mut Vec<u8>) {
    passing.clear();
    connection.take(passing);
    endpoint.receive(passing);
    passing.clear();
    endpoint.send(passing);
    connection.send(passing);
}
