//! Keeps connections registered at the proxy (spec/pktxpmgr.md 6), for the shards to take over.
//!
//! Every set-up is a task of its own, which tells the control thread how it ended. No fault of one, nor
//! the loss of the whole proxy, ends anything but itself: it is tried again, at the pace of the pool.
//! Only a proxy of which nothing is to be had within the bootstrap time ends the run.
//!
//! Not here: one set-up (`set_up.rs`), and how many there are to be at once (`proto/backlog`).

use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use super::clock::{now, random};
use super::set_up::{ProxySide, SetUpEnd, SetUpFailure};
use super::tasks::{News, TaskLink};
use crate::config::{Config, Proxy};
use crate::driver::Backend;
use crate::log_limit::LogLimit;
use crate::mailbox::Counts;
use crate::proto::backlog::Pool;
use crate::proto::session_end::Outcome;
use crate::records::Ended;
use crate::run_error::RunError;
use packetlab::snikey::SniKey;
use packetlab::tls::{self, Identity, PeerRule, SetupError};
use packetlab::trust::TrustMode;
use packetlab::words::counted;

/// The backlog of a run in proxy mode.
pub(super) struct Backlog {
    proxy: Rc<ProxySide>,
    pool: Pool,
    /// While the backlog is filled for the first time: until when that may take.
    bootstrap_until: Option<Instant>,
    /// Something was registered once.
    worked: bool,
    last_failure: Option<SetUpFailure>,
    failure_log: LogLimit,
    /// Something was complained of since the backlog was full.
    complained: bool,
    /// The shard that gets the next connection of a snikey; the first one where nothing is noted.
    next_shard: HashMap<SniKey, usize>,
    link: TaskLink,
}

/// What a reload makes of a backlog.
pub(super) struct Reloaded {
    proxy: Rc<ProxySide>,
    snikeys: Vec<SniKey>,
    target: usize,
}

fn snikeys(config: &Config) -> impl Iterator<Item = SniKey> {
    config.experiments.iter().map(|one| one.snikey.clone())
}

fn proxy_side(config: &Config, proxy: &Proxy, backend: Backend) -> Result<ProxySide, SetupError> {
    let identity = proxy.certificate.as_ref().map(|certificate| Identity {
        chain: std::slice::from_ref(certificate),
        key: &config.controller_key,
    });
    let rule =
        PeerRule { mode: TrustMode::Agent, anchors: proxy.proxy_roots.clone(), mandatory: true };
    Ok(ProxySide {
        addresses: proxy.addresses.clone(),
        name: proxy.name.clone(),
        tls: tls::client_config(identity.as_ref(), rule)?,
        step_timeout: proxy.step_timeout,
        backend,
    })
}

impl Backlog {
    /// An empty backlog, to be filled from now on.
    ///
    /// # Errors
    /// The agent certificate cannot be used.
    pub(super) fn new(
        config: &Config,
        proxy: &Proxy,
        backend: Backend,
        link: TaskLink,
    ) -> Result<Self, SetupError> {
        info!(
            "registering {} for each snikey at the proxy {}",
            counted(proxy.backlog_target as u64, "connection"),
            proxy.name
        );
        Ok(Self {
            proxy: Rc::new(proxy_side(config, proxy, backend)?),
            pool: Pool::new(snikeys(config), proxy.backlog_target),
            bootstrap_until: Some(now() + proxy.bootstrap_timeout),
            worked: false,
            last_failure: None,
            failure_log: LogLimit::new("failures at the proxy"),
            complained: false,
            next_shard: HashMap::new(),
            link,
        })
    }

    /// What a reload makes of it; [`Self::serve`] puts it into effect.
    ///
    /// # Errors
    /// The agent certificate cannot be used.
    pub(super) fn reloaded(&self, config: &Config, proxy: &Proxy) -> Result<Reloaded, SetupError> {
        Ok(Reloaded {
            proxy: Rc::new(proxy_side(config, proxy, self.proxy.backend)?),
            snikeys: snikeys(config).collect(),
            target: proxy.backlog_target,
        })
    }

    /// From now on connections are registered for these snikeys. What is under way goes on as it began.
    pub(super) fn serve(&mut self, Reloaded { proxy, snikeys, target }: Reloaded) {
        self.proxy = proxy;
        self.pool.serve(snikeys, target);
        self.next_shard.retain(|snikey, _| self.pool.serves(snikey));
    }

    /// When [`Self::tend`] is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        [self.pool.next_due(now()), self.bootstrap_until].into_iter().flatten().min()
    }

    /// The warnings that may be left out.
    pub(super) fn log_limit(&mut self) -> &mut LogLimit {
        &mut self.failure_log
    }

    /// Begins the set-ups that are due and for which there is room. Whether the first filling is over with this call,
    /// and how.
    pub(super) fn tend(&mut self, counts: &Counts) -> Option<Result<(), RunError>> {
        // Without room it goes on when a session has ended.
        while counts.open_session() {
            let Some(snikey) = self.pool.begin(now()) else {
                counts.close_session();
                break;
            };
            self.begin_set_up(snikey);
        }
        if self.complained && self.bootstrap_until.is_none() && self.pool.is_full() {
            self.complained = false;
            info!("the backlog at {} is full again", self.proxy.name);
        }
        self.end_bootstrap()
    }

    /// A connection is registered. Which of so many shards gets it.
    pub(super) fn handle_ready(&mut self, snikey: &SniKey, shards: usize) -> usize {
        self.worked = true;
        self.pool.handle_ready(snikey);
        let next = self.next_shard.entry(snikey.clone()).or_default();
        let shard = *next % shards;
        *next = shard + 1;
        shard
    }

    /// A set-up has failed.
    pub(super) fn handle_failed(&mut self, snikey: &SniKey, failure: SetUpFailure) {
        let wait = self.pool.handle_failed(snikey, failure.kind(), now(), random());
        self.complain(snikey, &failure, wait);
        self.last_failure = Some(failure);
    }

    /// An endpoint came through a connection.
    pub(super) fn handle_taken(&mut self, snikey: &SniKey) {
        self.pool.handle_taken(snikey);
    }

    /// A connection ended without an endpoint.
    pub(super) fn handle_lost(&mut self, snikey: &SniKey, ended: &Ended) {
        if matches!(ended.outcome, Outcome::Cancelled) {
            return self.pool.handle_let_go(snikey);
        }
        let wait = self.pool.handle_lost(snikey, ended.lasted(), now(), random());
        let lost = format!("a registered connection is lost: {}", ended.outcome);
        self.complain(snikey, &lost, wait);
    }

    fn begin_set_up(&self, snikey: SniKey) {
        let (proxy, link) = (Rc::clone(&self.proxy), self.link.clone());
        tokio::task::spawn_local(async move {
            let result = proxy.set_up(&snikey, &link.stop).await;
            link.tell(News::SetUp(SetUpEnd { snikey, result }));
        });
    }

    fn complain(&mut self, snikey: &SniKey, what: &dyn fmt::Display, wait: Option<Duration>) {
        self.complained = true;
        let snikey = snikey.short();
        let wait = wait.map_or_else(String::new, |wait| {
            format!("; the next try is in {:.1} s", wait.as_secs_f64())
        });
        match self.failure_log.admit(now()) {
            Some(left_out) => warn!("proxy, snikey {snikey}: {what}{wait}{left_out}"),
            None => debug!("proxy, snikey {snikey}: {what}{wait}"),
        }
    }

    /// Whether the first filling is over with this call, and how.
    fn end_bootstrap(&mut self) -> Option<Result<(), RunError>> {
        let until = self.bootstrap_until?;
        let (ready, wanted) = (self.pool.ready(), self.pool.wanted());
        if self.pool.is_full() {
            info!("backlog filled: {ready} connections are registered at {}", self.proxy.name);
        } else if now() < until {
            return None;
        } else if self.worked {
            warn!(
                "only {ready} of {wanted} connections are registered at {} within \
                 BootstrapBacklogTimeout; going on",
                self.proxy.name
            );
        } else {
            let reason = match &self.last_failure {
                Some(failure) => failure.to_string(),
                None => "no connection could be set up in time".into(),
            };
            return Some(Err(RunError::Proxy { name: self.proxy.name.clone(), reason }));
        }
        self.bootstrap_until = None;
        Some(Ok(()))
    }
}
