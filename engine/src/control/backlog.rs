//! Keeps connections registered at one proxy (spec/pktxpmgr.md 6), for the shards to take over.
//!
//! Every set-up is a task of its own, which tells the control thread how it ended. No fault of one, nor
//! the loss of the whole proxy, ends anything but itself: it is tried again, at the pace of the pool.
//!
//! Not here: what the backlogs of all proxies come to (`proxies.rs`), one set-up (`set_up.rs`), and how many there are to be
//! at once (`proto/backlog`).

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use tracing::{debug, info, warn};

use super::clock::{now, random};
use super::set_up::{ProxySide, SetUpEnd, SetUpFailure};
use super::tasks::{TaskLink, TaskNews};
use crate::config::{Config, Proxy};
use crate::driver::Backend;
use crate::log_limit::LogLimit;
use crate::mailbox::Registration;
use crate::proto::backlog::{Gap, Pool};
use crate::proto::session_end::Outcome;
use crate::records::Ended;
use crate::view::ProxyState;
use packetlab::snikey::SniKey;
use packetlab::tls::{self, Identity, PeerRule, SetupError};
use packetlab::trust::TrustMode;
use packetlab::words::counted;

/// The backlog of a run at one proxy.
pub(super) struct Backlog {
    /// Which proxy, as `-a` numbers them.
    number: usize,
    proxy: Rc<ProxySide>,
    pool: Pool,
    /// Something was registered once.
    worked: bool,
    /// How the last set-up ended, if any has.
    last_set_up: Option<Result<(), SetUpFailure>>,
    failure_log: LogLimit,
    /// It was full once.
    was_full: bool,
    /// The run has gone on before it was full for the first time.
    is_late: bool,
    /// Something was complained of since it was full.
    complained: bool,
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
    /// An empty backlog at the proxy of this number, to be filled from now on with so many set-ups at once.
    ///
    /// # Errors
    /// The agent certificate cannot be used.
    pub(super) fn new(
        (config, proxy): (&Config, &Proxy),
        (number, set_ups_max): (usize, usize),
        backend: Backend,
        link: TaskLink,
    ) -> Result<Self, SetupError> {
        info!(
            "registering {} for each snikey at the proxy {}",
            counted(proxy.backlog_target as u64, "connection"),
            proxy.name
        );
        Ok(Self {
            number,
            proxy: Rc::new(proxy_side(config, proxy, backend)?),
            pool: Pool::new(snikeys(config), proxy.backlog_target, set_ups_max),
            worked: false,
            last_set_up: None,
            failure_log: LogLimit::new(format!("failures at the proxy {}", proxy.name)),
            was_full: false,
            is_late: false,
            complained: false,
            link,
        })
    }

    /// What a reload makes of it; [`Self::serve`] puts it into effect.
    ///
    /// # Errors
    /// The agent certificate cannot be used.
    pub(super) fn reloaded(&self, config: &Config, proxy: &Proxy) -> Result<Reloaded, SetupError> {
        Ok(Reloaded {
            proxy: Rc::new(self.where_it_was(proxy_side(config, proxy, self.proxy.backend)?)),
            snikeys: snikeys(config).collect(),
            target: proxy.backlog_target,
        })
    }

    /// A proxy whose name cannot be found now is where it was found before.
    fn where_it_was(&self, mut proxy: ProxySide) -> ProxySide {
        if proxy.addresses.is_empty() {
            proxy.addresses.clone_from(&self.proxy.addresses);
        }
        proxy
    }

    /// From now on connections are registered for these snikeys. What is under way goes on as it began.
    pub(super) fn serve(&mut self, Reloaded { proxy, snikeys, target }: Reloaded) {
        self.proxy = proxy;
        self.pool.serve(snikeys, target);
    }

    /// The proxy's name.
    pub(super) fn name(&self) -> &str {
        &self.proxy.name
    }

    /// Its connections.
    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Something was registered once.
    pub(super) fn has_worked(&self) -> bool {
        self.worked
    }

    /// Why the last set-up that ended has failed, if it has.
    pub(super) fn last_failure(&self) -> Option<&SetUpFailure> {
        self.last_set_up.as_ref()?.as_ref().err()
    }

    /// The last set-up that ended did so well.
    fn registers(&self) -> bool {
        matches!(self.last_set_up, Some(Ok(())))
    }

    /// How it stands with the proxy.
    pub(super) fn state(&self) -> ProxyState {
        ProxyState {
            name: self.proxy.name.clone(),
            registers: self.registers(),
            registered: self.pool.ready(),
            wanted: self.pool.wanted(),
        }
    }

    /// The same, in the place of an earlier one.
    pub(super) fn show(&self, state: &mut ProxyState) {
        (state.registered, state.wanted) = (self.pool.ready(), self.pool.wanted());
        state.registers = self.registers();
    }

    /// The warnings that may be left out.
    pub(super) fn log_limit(&mut self) -> &mut LogLimit {
        &mut self.failure_log
    }

    /// Begins a set-up, if one is due.
    pub(super) fn begin(&mut self) -> bool {
        let Some(snikey) = self.pool.begin(now()) else { return false };
        let registration = Registration { proxy: self.number, snikey };
        let (proxy, link) = (Rc::clone(&self.proxy), self.link.clone());
        tokio::task::spawn_local(async move {
            let result = proxy.set_up(&registration, &link.stop).await;
            link.tell(TaskNews::SetUp(SetUpEnd { registration, result }));
        });
        true
    }

    /// Tells that it is full for the first time, or again after complaints.
    pub(super) fn tell_when_full(&mut self) {
        if !self.pool.is_full() {
            return;
        }
        let name = &self.proxy.name;
        if !std::mem::replace(&mut self.was_full, true) && !self.is_late {
            let ready = self.pool.ready();
            info!("backlog filled: {ready} connections are registered at {name}");
        } else if self.complained {
            info!("the backlog at {name} is full again");
        }
        self.complained = false;
    }

    /// It is not waited for any more, though it is not full: tells so.
    pub(super) fn tell_that_it_is_late(&mut self, why: &str) {
        self.is_late = true;
        warn!(
            "only {} of {} connections are registered at {}{why}; going on",
            self.pool.ready(),
            self.pool.wanted(),
            self.proxy.name
        );
    }

    /// A connection is registered. The gap that is over with it ([`Pool::handle_ready`]).
    pub(super) fn handle_ready(&mut self, snikey: &SniKey) -> Option<Gap> {
        (self.worked, self.last_set_up) = (true, Some(Ok(())));
        self.pool.handle_ready(snikey)
    }

    /// A set-up has failed.
    pub(super) fn handle_failed(&mut self, snikey: &SniKey, failure: SetUpFailure) {
        let wait = self.pool.handle_failed(snikey, failure.kind(), now(), random());
        self.complain(snikey, &failure, wait);
        self.last_set_up = Some(Err(failure));
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

    fn complain(&mut self, snikey: &SniKey, what: &dyn fmt::Display, wait: Option<Duration>) {
        self.complained = true;
        let (name, snikey) = (&self.proxy.name, snikey.short());
        let wait = wait.map_or_else(String::new, |wait| {
            format!("; the next try is in {:.1} s", wait.as_secs_f64())
        });
        match self.failure_log.admit(now()) {
            Some(left_out) => warn!("proxy {name}, snikey {snikey}: {what}{wait}{left_out}"),
            None => debug!("proxy {name}, snikey {snikey}: {what}{wait}"),
        }
    }
}
