//! How endpoints come to a run, as far as its loop has to do with it: the publications, and the backlogs at proxies.
//!
//! Not here: what the publications come to and the backlogs (`brokers.rs`, `proxies.rs`).

use std::time::Instant;

use tracing::info;

use super::clock::now;
use super::proxies::Proxies;
use super::publication::Plan;
use super::publication::news::{PublicationId, PublicationNews};
use super::set_up::SetUpEnd;
use super::tasks::TaskNews;
use super::{Control, RunPhase};
use crate::config::{Approach, Config};
use crate::mailbox::{Registration, ToShard};
use crate::records::Ended;
use crate::view::RunStage;
use packetlab::tls::SetupError;
use packetlab::words::counted;

impl Control {
    /// Begins to greet endpoints, whom the shards can serve: publishes, in proxy mode once the backlog
    /// is filled. `port` is the one they listen on; nobody asks for it in proxy mode.
    ///
    /// # Errors
    /// An agent certificate cannot be used.
    pub(crate) fn greet(&mut self, config: &Config, port: u16) -> Result<(), SetupError> {
        let (backend, _) = self.published_from;
        self.published_from = (backend, port);
        let plans = self.plans(config)?;
        self.brokers.prepare(plans, &self.tasks.link());
        self.show_brokers();
        match &config.approach {
            Approach::Passive { .. } => self.publish(),
            Approach::Proxies(proxies) => {
                let proxies = Proxies::new(config, proxies, (backend, &self.tasks.link()))?;
                self.proxies = Some(proxies);
            }
        }
        Ok(())
    }

    /// What is to be published, at each broker.
    ///
    /// # Errors
    /// An agent certificate cannot be used.
    pub(super) fn plans(&self, config: &Config) -> Result<Vec<Plan>, SetupError> {
        let plan = |publication| Plan::new(config, publication, self.published_from);
        config.publications.iter().map(plan).collect()
    }

    /// Begins to publish; endpoints can be served.
    fn publish(&mut self) {
        self.view.change(|state| state.stage = RunStage::Serving);
        self.tell_ready();
        self.brokers.begin();
    }

    /// When something about backlog or publication is due by itself.
    pub(super) fn greeting_due(&self) -> Option<Instant> {
        if self.phase != RunPhase::Running {
            return None;
        }
        let backlogs = self.proxies.as_ref().and_then(Proxies::next_due);
        [backlogs, self.brokers.next_due()].into_iter().flatten().min()
    }

    pub(super) fn take_news(&mut self) {
        while let Some(news) = self.tasks.next() {
            match news {
                TaskNews::SetUp(end) => self.take_set_up(end),
                TaskNews::Publication(id, news) => self.take_publication(id, news),
                TaskNews::ConfigRead(read) => self.end_reload(read),
            }
        }
    }

    /// Takes what became of a publication.
    fn take_publication(&mut self, id: PublicationId, news: PublicationNews) {
        if let Err(error) = self.brokers.handle(id, news) {
            self.fail(error);
        }
        self.show_brokers();
    }

    /// Lets those who look at the run see how it stands with each broker.
    pub(super) fn show_brokers(&self) {
        let (brokers, end) = (self.brokers.states(), self.brokers.publication_end());
        self.view.change(|state| (state.brokers, state.publication_end) = (brokers, end));
    }

    /// Takes the end of a set-up: a connection goes to its shard, a failure to the backlog.
    fn take_set_up(&mut self, SetUpEnd { registration, result }: SetUpEnd) {
        let Some(proxies) = self.proxies.as_mut().filter(|_| self.phase == RunPhase::Running)
        else {
            self.counts.close_session();
            return;
        };
        match result {
            Ok(connection) => {
                let shard = proxies.handle_ready(&registration, self.shards.len());
                self.shards[shard].push(ToShard::Adopt(connection));
                if proxies.are_paused() {
                    self.shards[shard].push(ToShard::LeaveProxies);
                }
            }
            Err(failure) => {
                self.counts.close_session();
                proxies.handle_failed(&registration, failure);
            }
        }
    }

    /// An endpoint came through a connection of the backlog.
    pub(super) fn take_backlog_taken(&mut self, registration: &Registration) {
        if let Some(proxies) = &mut self.proxies {
            proxies.handle_taken(registration);
        }
    }

    /// A connection of the backlog ended without an endpoint.
    pub(super) fn take_backlog_lost(&mut self, registration: &Registration, ended: Box<Ended>) {
        if let Some(proxies) = self.proxies.as_mut().filter(|_| self.phase == RunPhase::Running) {
            proxies.handle_lost(registration, &ended);
        }
        self.sessions.backlog_lost(ended, now());
    }

    /// Lets go of the connections at proxies, so that others get the endpoints that come, or registers new ones.
    pub(super) fn take_part(&mut self, takes_part: bool) {
        let Some(proxies) = self.proxies.as_mut().filter(|_| self.phase == RunPhase::Running)
        else {
            return;
        };
        proxies.pause(!takes_part, now());
        if !takes_part {
            let connections = counted(proxies.ready() as u64, "connection");
            info!("no endpoints are taken in meanwhile: {connections} at proxies let go");
            for shard in &mut self.shards {
                shard.push(ToShard::LeaveProxies);
            }
        }
    }

    /// Begins the set-ups that are due, and what follows when the backlogs are filled for the first time.
    pub(super) fn tend_backlogs(&mut self) {
        let Some(proxies) = self.proxies.as_mut().filter(|_| self.phase == RunPhase::Running)
        else {
            return;
        };
        match proxies.tend(&self.counts) {
            None => {}
            Some(Ok(())) => self.publish(),
            Some(Err(error)) => self.fail(error),
        }
    }

    /// Ends the greeting when its time is over.
    pub(super) fn tend_greeting(&mut self) {
        if self.phase == RunPhase::Running && self.brokers.ends_greeting() {
            info!("the publication has ended, and so does greeting: no new endpoints");
            self.drain();
        }
    }
}
