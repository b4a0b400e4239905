//! The set-up of a session: from a whole ClientHello to the answer to START.
//!
//! Not here: what is said between the handshake and START (`proto/greeting.rs`).

use std::sync::Arc;

use super::request::{Context, Request};
use super::{Relaying, Session, Stage, State, Tls};
use crate::guards::{Guard, holds};
use crate::permits::Refusal;
use crate::proto::experiments::Experiments;
use crate::proto::greeting::{Greeting, Progress};
use crate::proto::mlet_facts::MletFacts;
use crate::proto::outbox::block_len;
use crate::proto::session_end::{End, Outcome};
use packetlab::tls::{ClientHello, HandshakeError};

/// How many set-up timeouts a session waits for a permit: as long as one may be held in vain, and again as long, so that
/// who asks just after it was given gets it in time.
const PERMIT_PATIENCE: u32 = 2;

impl Session {
    /// The permit that was asked for is granted. Nothing happens when the session needs it no more.
    pub fn handle_permit(&mut self, cx: &mut Context<'_>) {
        let State::Tls(Tls { stream, stage: Stage::Greeting(greeting, _) }) = &mut self.state
        else {
            return;
        };
        greeting.start(stream);
        self.account.get_or_insert_default().start_sent = Some(cx.now);
        self.deadline =
            holds(Guard::EndsLateStarts).then(|| cx.now + self.experiments.limits.setup_timeout);
        self.advance(cx);
    }

    /// The permit that was asked for is refused: the endpoint is told nothing but the end of TLS. Nothing happens when the
    /// session needs it no more.
    pub fn handle_refusal(&mut self, why: Refusal, cx: &mut Context<'_>) {
        if let State::Tls(Tls { stage: Stage::Greeting(greeting, _), .. }) = &self.state
            && greeting.awaits_permit()
        {
            self.close(Outcome::CampaignRefused(why), cx.now);
            self.advance(cx);
        }
    }

    /// A reload: an endpoint that has sent nothing yet will be served with these. Not for one that has.
    pub fn handle_reload(&mut self, experiments: Arc<Experiments>) {
        self.experiments = experiments;
    }

    /// START has been sent and may still be answered: the permit for it is in use.
    pub fn awaits_start(&self) -> bool {
        matches!(
            &self.state,
            State::Tls(Tls { stage: Stage::Greeting(greeting, _), .. }) if greeting.has_sent_start()
        )
    }

    /// The ClientHello is whole: the experiment it asks for answers it.
    pub(super) fn accept(&mut self, client_hello: ClientHello, cx: &mut Context<'_>) {
        self.requests.push(Request::LeaveBacklog);
        let name = client_hello.server_name();
        let Some(id) = self.experiments.choose(name.as_deref()) else {
            // As the original: the connection closes without an alert (spec/protocol.md 3.4).
            return self.finish(Outcome::NoExperiment(name), cx.pool);
        };
        let experiment = self.experiments.experiment(id);
        self.account.get_or_insert_default().snikey = Some(experiment.snikey.clone());
        match client_hello.accept(Arc::clone(&experiment.tls)) {
            Ok(stream) => {
                self.state = State::Tls(Tls { stream, stage: Stage::Handshake(id) });
            }
            Err(error) => self.fail_hello(error, cx),
        }
    }

    /// The ClientHello cannot be answered but by an alert.
    pub(super) fn fail_hello(&mut self, failed: HandshakeError, cx: &mut Context<'_>) {
        let alert = &failed.alert;
        self.buffers.to_endpoint.append(cx.pool, block_len(0), |room| {
            let len = alert.len().min(room.len());
            room[..len].copy_from_slice(&alert[..len]);
            len
        });
        self.close(Outcome::Tls(failed.error), cx.now);
    }

    /// Goes on with handshake and greeting as far as what TLS has received allows.
    pub(super) fn advance_set_up(&mut self, cx: &Context<'_>) {
        match &self.state {
            State::Tls(Tls { stage: Stage::Relay(_), .. }) => {}
            State::Tls(Tls { stream, stage: Stage::Handshake(_) }) if stream.is_handshaking() => {}
            State::Tls(Tls { stage: Stage::Handshake(_), .. }) => {
                self.begin_greeting(cx);
                self.advance_greeting(cx);
            }
            State::Tls(_) => self.advance_greeting(cx),
            State::Waiting | State::Silent | State::Hello(_) | State::Closing(_) | State::Over => {}
        }
    }

    fn begin_greeting(&mut self, cx: &Context<'_>) {
        let State::Tls(Tls { stream, stage }) = &mut self.state else { return };
        let Stage::Handshake(id) = *stage else { return };
        let account = self.account.get_or_insert_default();
        account.tls_done = Some(cx.now);
        if let Some(peer) = stream.take_peer() {
            (account.endpoint_key, account.operator_key) = (Some(peer.key_id), peer.anchor);
            account.shown_key = None;
        }
        match self.experiments.choice.take(account.endpoint_key) {
            Ok(hold) => {
                self.hold = hold.map(Box::new);
                account.hold.clone_from(&self.hold);
            }
            Err(refusal) => return self.close(refusal, cx.now),
        }
        let experiment = self.experiments.experiment(id);
        if let Err(error) = experiment.check_own_chain(cx.wall)
            && holds(Guard::ChecksOwnChain)
        {
            let snikey = experiment.snikey.clone();
            return self.close(Outcome::OwnChain(snikey, error), cx.now);
        }
        if let Some(key) = account.endpoint_key {
            self.place = self.experiments.keys.open(key);
            if self.place.is_none() && holds(Guard::BoundsSessionsOfKey) {
                return self.close(Outcome::TooManyOfKey(key), cx.now);
            }
        }
        *stage = Stage::Greeting(Greeting::new(Arc::clone(&experiment.programs)), id);
        self.deadline = Some(cx.now + self.experiments.limits.setup_timeout);
    }

    fn advance_greeting(&mut self, cx: &Context<'_>) {
        let State::Tls(Tls { stream, stage }) = &mut self.state else { return };
        let Stage::Greeting(greeting, id) = stage else { return };
        match greeting.advance(stream) {
            Ok(Progress::Waiting) => {}
            Ok(Progress::WantsPermit) => {
                self.requests.push(Request::Permit);
                self.deadline =
                    Some(cx.now + PERMIT_PATIENCE * self.experiments.limits.setup_timeout);
            }
            Ok(Progress::Started) => {
                let account = self.account.get_or_insert_default();
                account.start_answered = Some(cx.now);
                let facts = MletFacts {
                    peer: self.peer,
                    endpoint_key: account.endpoint_key,
                    snikey: self.experiments.experiment(*id).snikey.clone(),
                };
                let mut tee = self.tee.take();
                if let Some(tee) = &mut tee {
                    tee.begin(facts.clone(), cx.now);
                }
                self.requests.push(Request::Mlet(facts));
                *stage = Stage::Relay(Relaying::begin(cx.now, tee));
                self.deadline = None;
            }
            Ok(Progress::Left) => self.close(Outcome::LeftInSetUp(End::Closed), cx.now),
            Err(error) => self.close(Outcome::Greeting(error), cx.now),
        }
    }
}
