//! Reload: the config file and all it names are read again, and what new sessions get is exchanged.
//!
//! All or nothing: whatever cannot be used, everything stays as it is. Reading has a thread of its own, since files may be
//! slow. Sessions keep what they began with; who comes later gets the new. A reload asked for while one is under way
//! begins when that is over, for it may have read what has changed since.
//!
//! Not here: how it is read (`new_config.rs`), and what becomes of connections at the proxy and of the
//! publications (`proxies.rs`, `brokers.rs`).

use std::collections::BTreeSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use tracing::{info, warn};

use super::clock::{now, wall};
use super::new_config::{Asking, NewConfig, read};
use super::steering::Answer;
use super::tasks::TaskNews;
use super::{Control, RunPhase};
use crate::config::Approach;
use crate::mailbox::ToShard;
use crate::proto::experiments::Experiments;
use crate::sys::secrecy;
use crate::view::RunState;
use packetlab::words::counted;

/// Why there is no reload at the end of a run.
const TOO_LATE: &str = "no new endpoints are served any more";

/// What came of a reload.
struct Reloaded {
    experiments: usize,
    programs: usize,
    publishes: Publishes,
    /// What is only odd, a line each; the log has told them already.
    warnings: Vec<String>,
}

/// What is published now, compared with before.
enum Publishes {
    TheSame,
    /// Something else, at the same brokers.
    Anew,
    /// At other brokers, of which there are so many now; and whether those that stay get something else.
    At(usize, bool),
    /// Nothing, and something was before.
    NothingMore,
}

impl fmt::Display for Reloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let experiments = counted(self.experiments as u64, "experiment");
        write!(f, "{experiments}, {}", counted(self.programs as u64, "program"))?;
        match &self.publishes {
            Publishes::TheSame => Ok(()),
            Publishes::Anew => f.write_str("; publishing anew"),
            Publishes::At(count, anew) => {
                let anew = if *anew { " anew" } else { "" };
                write!(f, "; publishing{anew} at {}", counted(*count as u64, "broker"))
            }
            Publishes::NothingMore => f.write_str("; publishes nothing any more"),
        }
    }
}

impl Control {
    /// Somebody asks for a reload: it begins, or follows the one that is under way.
    pub(super) fn ask_for_reload(&mut self, asking: Asking) {
        if let Some((_, since)) = &self.reloads.reading {
            let seconds = now().saturating_duration_since(*since).as_secs_f64();
            warn!("files are being read for a reload for {seconds:.1} s; another follows it");
            return self.reloads.next.push(asking);
        }
        self.begin_reload(vec![asking]);
    }

    /// Begins a reload, which [`Self::end_reload`] ends.
    fn begin_reload(&mut self, asking: Vec<Asking>) {
        if self.phase != RunPhase::Running {
            return self.answer_reload(asking, Err(TOO_LATE.into()));
        }
        let (reader, before) = (Arc::clone(&self.reloads.reader), Arc::clone(&self.experiments));
        let link = self.tasks.link();
        self.tell_reloading();
        let read = move || {
            // Without an answer no other reload could begin.
            let read = catch_unwind(AssertUnwindSafe(|| read(&reader, &before)));
            let read = read.unwrap_or_else(|_| Err("reading it panicked".into()));
            link.tell(TaskNews::ConfigRead(read.map(Box::new)));
        };
        match thread::Builder::new().name("reload".into()).spawn(read) {
            Ok(_) => {
                let since = now();
                self.reloads.reading = Some((asking, since));
                self.view.change(|state| state.reading_since = Some(since));
            }
            Err(error) => {
                let reason = format!("no thread can be had to read files: {error}");
                self.answer_reload(asking, Err(reason));
            }
        }
    }

    /// Puts into effect what was read, or nothing of it.
    pub(super) fn end_reload(&mut self, read: Result<Box<NewConfig>, String>) {
        let asking = self.reloads.reading.take().map(|(asking, _)| asking).unwrap_or_default();
        self.view.change(|state| state.reading_since = None);
        let done = read.and_then(|read| self.put_into_effect(*read));
        self.answer_reload(asking, done);
        let next = std::mem::take(&mut self.reloads.next);
        if !next.is_empty() {
            self.begin_reload(next);
        }
    }

    /// Tells the log, the records and whoever asked what came of it.
    fn answer_reload(&mut self, asking: Vec<Asking>, done: Result<Reloaded, String>) {
        let (done, warnings) = match done {
            Ok(reloaded) => (Ok(reloaded.to_string()), reloaded.warnings),
            Err(reason) => (Err(reason), Vec::new()),
        };
        let warnings: String =
            warnings.iter().map(|warning| format!("\nwarning: {warning}")).collect();
        self.tell_reloaded();
        self.view.change(|RunState { reloads, .. }| match &done {
            Ok(_) => reloads.done += 1,
            Err(_) => reloads.refused += 1,
        });
        match &done {
            Ok(reloaded) => info!("reloaded for new sessions: {reloaded}"),
            Err(reason) => refuse(reason),
        }
        for asker in asking {
            let via = if asker.is_some() { "ctl" } else { "signal" };
            self.sessions.command("reload", via, &done);
            let answer = match done.clone() {
                Ok(reloaded) => {
                    Answer::Done(format!("reloaded for new sessions: {reloaded}{warnings}"))
                }
                Err(reason) => Answer::Refused(reason),
            };
            if let Some(asker) = asker {
                asker.answer(answer);
            }
        }
    }

    fn put_into_effect(&mut self, read: NewConfig) -> Result<Reloaded, String> {
        let NewConfig { config, experiments, warnings } = read;
        if self.phase != RunPhase::Running {
            return Err(TOO_LATE.into());
        }
        let unusable = |error| format!("an agent certificate cannot be used: {error}");
        let backlogs = match (&self.proxies, &config.approach) {
            (None, Approach::Passive { .. }) => None,
            (Some(before), Approach::Proxies(proxies)) => {
                Some(before.reloaded(&config, proxies).map_err(unusable)?)
            }
            _ => return Err("EnableProxyMode cannot change; it takes a new run".into()),
        };
        let mut plans = self.plans(&config).map_err(unusable)?;
        self.brokers.keep_texts(&mut plans)?;
        // From here on nothing fails.
        if let Err(error) = secrecy::hold(&*config.controller_key) {
            warn!("the controller key may get into swap: {error}; raise `ulimit -l`");
        }
        let brokers_before = self.broker_names();
        let anew = self.brokers.replace(plans, &self.tasks.link());
        let brokers = self.broker_names();
        let publishes = match (brokers == brokers_before, brokers.len()) {
            (true, _) if anew => Publishes::Anew,
            (true, _) => Publishes::TheSame,
            (false, 0) => Publishes::NothingMore,
            (false, count) => Publishes::At(count, anew),
        };
        self.show_brokers();
        if let Some((before, backlogs)) = self.proxies.as_mut().zip(backlogs) {
            before.serve(backlogs);
        }
        // Limits may have been set meanwhile.
        let experiments = experiments.within(self.experiments.limits.clone());
        self.serve(Arc::new(experiments));
        self.view.reloaded(&config, wall());
        let (experiments, programs) = (config.experiments.len(), config.programs.len());
        Ok(Reloaded { experiments, programs, publishes, warnings })
    }

    /// In no order that means anything.
    fn broker_names(&self) -> BTreeSet<String> {
        self.brokers.states().into_iter().map(|broker| broker.name).collect()
    }

    /// New sessions get these.
    pub(super) fn serve(&mut self, experiments: Arc<Experiments>) {
        self.experiments = experiments;
        for shard in &mut self.shards {
            shard.push(ToShard::Reload(Arc::clone(&self.experiments)));
        }
    }
}

/// Tells why everything stays as it is.
fn refuse(reason: &str) {
    warn!("reload refused, the run goes on with what it has:");
    for line in reason.lines() {
        warn!("  {line}");
    }
}
