//! A session behind START: messages both ways, whose bytes arrive in any pieces and leave in any pieces. The first byte says who
//! ends it; then come operations, see `World::play`.
//!
//! What a mlet hears is what the endpoint has said without LINFOs, what the endpoint hears is what the mlet has said, a message
//! to a record at most, and of whoever ends the session nothing is lost. Each LINFO is logged or counted as lost, what has
//! passed is counted, and blocks come back.

#![no_main]

mod endpoint;
mod script;

use std::collections::VecDeque;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use bench::credentials::NOW;
use bench::streams::controller_config;
use endpoint::{Endpoint, for_mlet};
use engine::config::Limits;
use engine::proto::linfo::LinfoBudget;
use engine::proto::outbox::{BULK_RECEIVE_LEN, BlockPool, Outbox, Transmission};
use engine::proto::relay::{Buffers, Relay, Step};
use libfuzzer_sys::fuzz_target;
use packetlab::tls::{self, Hello, ServerConfig, ServerStream};
use script::Script;

static CONFIG: LazyLock<Arc<ServerConfig>> = LazyLock::new(controller_config);

/// One each way, and the mlet's bytes that wait for records.
const BLOCKS_MAX: usize = 3;

/// More steps than there can be bytes to deliver.
const LAST_STEPS_MAX: usize = 100_000;

fuzz_target!(
    // What TLS does once, before any input's time is taken.
    init: tls::warm_up().unwrap(),
    |input: &[u8]| {
        let mut script = Script(input);
        let Some(choice) = script.next() else { return };
        let mut world = World::new();
        while let Some(operation) = script.next() {
            world.play(operation, &mut script);
        }
        if choice & 1 == 0 {
            world.end_by_mlet()
        } else {
            world.end_by_endpoint()
        }
        world.check_all();
    }
);

struct World {
    relay: Relay,
    tls: ServerStream,
    buffers: Buffers,
    pool: BlockPool,
    budget: LinfoBudget,
    now: Instant,
    endpoint: Endpoint,
    /// Sealed, on its way here.
    from_endpoint: VecDeque<u8>,
    from_mlet: VecDeque<u8>,
    mlet_said: Vec<u8>,
    mlet_heard: Vec<u8>,
    linfos: u64,
    last: Step,
    /// The mlet was told that nothing more comes.
    is_mlet_told: bool,
}

impl World {
    fn new() -> Self {
        let (mut endpoint, tls) = connected();
        endpoint.heard.clear();
        Self {
            relay: Relay::default(),
            tls,
            buffers: Buffers::default(),
            pool: BlockPool::default(),
            budget: LinfoBudget::new(&Limits::default()),
            now: Instant::now(),
            endpoint,
            from_endpoint: VecDeque::new(),
            from_mlet: VecDeque::new(),
            mlet_said: Vec::new(),
            mlet_heard: Vec::new(),
            linfos: 0,
            last: Step::Continue,
            is_mlet_told: false,
        }
    }

    fn play(&mut self, operation: u8, script: &mut Script<'_>) {
        match operation % 10 {
            0 => self.endpoint.say(&script.message()),
            1 => self.endpoint.say(script.bytes()),
            2 => {
                let message = script.message();
                self.mlet_says(&message);
            }
            3 => self.mlet_says(script.bytes()),
            4 => self.receive_from_endpoint(script.long_number()),
            5 => self.receive_from_mlet(script.long_number()),
            6 => self.send_to_endpoint(script.long_number()),
            7 => self.send_to_mlet(script.long_number()),
            8 => self.pass(Duration::from_millis(script.long_number() as u64)),
            // Many small ones, as a LINFO each in a record of its own.
            _ => (0..script.number()).for_each(|_| self.endpoint.say(&[0x65, 0, 0, 0])),
        }
    }

    fn mlet_says(&mut self, bytes: &[u8]) {
        self.from_mlet.extend(bytes);
        self.mlet_said.extend_from_slice(bytes);
    }

    fn receive_from_endpoint(&mut self, len: usize) {
        self.from_endpoint.extend(self.endpoint.sealed());
        if !self.relay.wants_endpoint_input(&self.buffers) {
            return;
        }
        let len = len.min(self.from_endpoint.len()).min(BULK_RECEIVE_LEN);
        let bytes: Vec<u8> = self.from_endpoint.drain(..len).collect();
        let mut input = &bytes[..];
        while !input.is_empty() {
            let linfos = &mut self.linfos;
            let closed = self
                .relay
                .take_endpoint_bytes(
                    (&mut self.tls, &mut input, len),
                    &mut self.buffers,
                    &mut self.pool,
                    self.now,
                    &self.budget,
                    |_| *linfos += 1,
                )
                .unwrap();
            if closed {
                self.relay.handle_endpoint_end(&mut self.buffers, &mut self.pool, self.now);
                break;
            }
        }
        self.advance();
    }

    fn receive_from_mlet(&mut self, len: usize) {
        if !self.relay.wants_mlet_input(&self.buffers) {
            return;
        }
        let len = len.min(self.from_mlet.len()).min(BULK_RECEIVE_LEN);
        let bytes: Vec<u8> = self.from_mlet.drain(..len).collect();
        if !bytes.is_empty() {
            let at = (&bytes[..], self.now);
            self.relay.handle_mlet_bytes(at, &mut self.tls, &mut self.buffers, &mut self.pool);
        }
        self.advance();
    }

    fn send_to_endpoint(&mut self, len: usize) {
        let sent = send(&mut self.buffers.to_endpoint, &mut self.pool, len);
        self.endpoint.receive(&sent);
        self.advance();
    }

    fn send_to_mlet(&mut self, len: usize) {
        let sent = send(&mut self.buffers.to_mlet, &mut self.pool, len);
        self.mlet_heard.extend(sent);
        self.advance();
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        let due = self.relay.handle_linfo_due(self.now, &self.budget);
        self.linfos += u64::from(due.is_some());
        self.advance();
    }

    fn advance(&mut self) {
        self.last = self.relay.advance(&mut self.tls, &mut self.buffers, &mut self.pool);
        self.is_mlet_told |= self.last == Step::EndMletInput;
        // What TLS itself has to send follows what was sealed.
        if self.buffers.to_endpoint.is_empty() && self.tls.has_output() {
            let (tls, len) = (&mut self.tls, engine::proto::outbox::block_len(0));
            self.buffers.to_endpoint.append(&mut self.pool, len, |room| tls.write_output(room));
        }
        assert!(self.pool.lent() <= BLOCKS_MAX, "{} blocks", self.pool.lent());
        assert!(!self.endpoint.has_failed, "TLS was broken");
    }

    fn move_all(&mut self) {
        self.receive_from_endpoint(usize::MAX);
        self.receive_from_mlet(usize::MAX);
        self.send_to_endpoint(usize::MAX);
        self.send_to_mlet(usize::MAX);
        // An endpoint that had much skipped is read later.
        self.pass(Duration::from_secs(10));
    }

    /// The mlet has said all and closes: the endpoint hears all of it.
    fn end_by_mlet(&mut self) {
        for _ in 0..LAST_STEPS_MAX {
            self.move_all();
            if self.from_mlet.is_empty() && self.relay.wants_mlet_input(&self.buffers) {
                break;
            }
        }
        self.relay.handle_mlet_end(self.now);
        self.advance();
        for _ in 0..LAST_STEPS_MAX {
            if self.last == Step::CloseEndpoint {
                break;
            }
            self.move_all();
        }
        assert_eq!(self.last, Step::CloseEndpoint);
        assert!(self.endpoint.is_closed_by_peer, "it is told that this is the end");
        assert_eq!(self.endpoint.heard.len(), self.mlet_said.len(), "all arrives");
        self.buffers.discard(&mut self.pool);
    }

    /// The endpoint has said all and closes: the mlet hears all of it, and then closes.
    fn end_by_endpoint(&mut self) {
        self.endpoint.close();
        for _ in 0..LAST_STEPS_MAX {
            if self.is_mlet_told {
                break;
            }
            self.move_all();
        }
        assert!(self.is_mlet_told, "the mlet is told that this is the end");
        assert_eq!(self.mlet_heard.len(), for_mlet(&self.endpoint.said).0.len(), "all arrives");
        self.relay.handle_mlet_end(self.now);
        self.advance();
        for _ in 0..LAST_STEPS_MAX {
            if self.last == Step::Over {
                break;
            }
            self.move_all();
        }
        assert_eq!(self.last, Step::Over);
        // One that never came whole is logged as far as it has come.
        self.pass(Duration::from_secs(10));
        let (_, linfos) = for_mlet(&self.endpoint.said);
        let relayed = self.relay.relayed();
        assert_eq!(self.linfos + relayed.linfos_lost, linfos, "each LINFO is logged or lost");
        assert_eq!(relayed.from_endpoint.bytes, self.endpoint.said.len() as u64);
    }

    fn check_all(&self) {
        assert!(self.mlet_said.starts_with(&self.endpoint.heard), "to the endpoint");
        assert!(for_mlet(&self.endpoint.said).0.starts_with(&self.mlet_heard), "to the mlet");
        assert_eq!(self.pool.lent(), 0, "blocks are missing");
        assert!(self.relay.relayed().to_endpoint.bytes >= self.endpoint.heard.len() as u64);
    }
}

/// Up to so many bytes leave, and are given.
fn send(outbox: &mut Outbox, pool: &mut BlockPool, len: usize) -> Vec<u8> {
    let Some(Transmission { block, start, end }) = outbox.transmit() else { return Vec::new() };
    let sent = block[start..end.min(start.saturating_add(len))].to_vec();
    outbox.sent(block, sent.len(), pool);
    sent
}

/// Both sides of TLS, handshake done.
fn connected() -> (Endpoint, ServerStream) {
    let mut endpoint = Endpoint::new();
    let client_hello = Hello::default().receive(&mut &endpoint.sealed()[..]).unwrap().unwrap();
    let mut tls = client_hello.accept(Arc::clone(&CONFIG)).unwrap();
    let mut room = vec![0; 1 << 16];
    while tls.is_handshaking() {
        let len = tls.write_output(&mut room);
        endpoint.receive(&room[..len]);
        let sealed = endpoint.sealed();
        let mut input = &sealed[..];
        while !input.is_empty() {
            tls.receive(&mut input, NOW).unwrap();
        }
    }
    (endpoint, tls)
}
