//! The experiments of one endpoint that subscribes: which are set up, which run, which wait.
//!
//! ```text
//! waiting     until there may be a place for it, and there is one in set-up
//! SettingUp   from connecting to START. It holds no place of an experiment
//! Asking      its controller's chain bears out its priority, and it has sent START: until there is a place
//! Running     holds a place, until it ends, or is over after it was asked to make room
//! Gone        has no place, and is about to end: it took too long, or there is none
//! ```
//!
//! What a descriptor claims to be worth is not known before the chain has been seen. It says who is set up first,
//! but takes no place from anybody. A set-up that is not over after [`PATIENCE`] makes room for another one, has its
//! turn again with twice the time, but after all that had fewer, and is given up in the end. While any is so slow,
//! others are set up beyond the places there are, every second of them by age alone: claims cannot keep others out.
//!
//! Not here: the session itself ([`Endpoint`]).
//!
//! Invariant: a controller is served by one session at a time, and an experiment that was served is not
//! served again before its publication has ended: brokers tell of it again whenever somebody has to
//! reconnect. No experiment that has shown its priority waits while one of lower priority runs, but for the time
//! that this one takes to end.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

use packetlab::address::HostPort;
use packetlab::time::Ticks;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::instrument::WithSubscriber;

use super::subscribe::{Controller, Experiment};
use super::{End, Endpoint, EndpointError, PREEMPTION_TIMEOUT, Session};
use crate::clock::now;

/// Experiments that may wait for their turn; beyond, the address with most loses its latest.
pub(super) const WAITING_MAX: usize = 1000;
/// Experiments in set-up at once. Each costs an open file.
pub(super) const SETUPS_MAX: usize = 16;
/// The same with one controller address, so that one that is slow holds up its own.
const SETUPS_PER_ADDRESS_MAX: usize = 8;
/// Nobody in set-up makes room earlier: a controller far away takes some 300 ms for a round trip, and four of them.
const PATIENCE: Duration = Duration::from_secs(2);
/// So often is an experiment set up again, with twice the time each, before it is given up.
const RETRIES_MAX: u32 = 3;
/// From START until others have made room, which takes them [`PREEMPTION_TIMEOUT`] at most.
const PLACE_TIMEOUT: Duration = PREEMPTION_TIMEOUT.saturating_add(Duration::from_secs(2));

/// The experiments that are served, wait, or were served.
pub(super) struct Sessions {
    endpoint: Endpoint,
    running_max: usize,
    tasks: JoinSet<(Experiment, Served)>,
    /// Those that are set up or run.
    active: HashMap<Controller, Active>,
    /// The descriptors of those that are active or wait.
    pub(super) known: HashSet<String>,
    /// In the order in which they came.
    pub(super) waiting: Vec<WaitingExperiment>,
    /// Descriptors that were served and whose publication has not ended.
    served: HashMap<String, Ticks>,
    /// To those in set-up, who ask here at START.
    start: mpsc::Sender<Start>,
    starts: mpsc::Receiver<Start>,
    /// Number of the next to ask.
    next_number: u64,
    /// Whose turn it is while set-ups are slow: the one that has waited longest.
    by_age: bool,
}

/// An experiment that waits for its turn.
pub(super) struct WaitingExperiment {
    pub(super) experiment: Experiment,
    /// It wants none before: its mlet has yielded until then.
    not_before: Ticks,
    /// How long it has run already.
    ran: Duration,
    /// How often its set-up took too long.
    retries: u32,
}

/// An experiment that is set up or runs.
struct Active {
    priority: u64,
    retries: u32,
    stage: Stage,
    /// True once it has to end.
    preempted: watch::Sender<bool>,
}

/// How far it has come.
enum Stage {
    SettingUp { since: Instant },
    Asking { number: u64, answer: oneshot::Sender<()> },
    Running,
    Gone,
}

/// START came to the session with this controller.
struct Start {
    controller: Controller,
    /// Whether there is a place; none if this is dropped.
    answer: oneshot::Sender<()>,
}

/// What became of an experiment.
enum Served {
    No(String),
    Yes,
    /// It made room for another one, or its mlet has yielded, or there was no place for it; it may come again then.
    InPart {
        not_before: Ticks,
        ran: Duration,
    },
    /// Its set-up took too long.
    Slow {
        ran: Duration,
    },
}

impl WaitingExperiment {
    fn at_once(experiment: Experiment) -> Self {
        Self { experiment, not_before: Ticks(0), ran: Duration::ZERO, retries: 0 }
    }

    fn address(&self) -> &HostPort {
        &self.experiment.controller.address
    }
}

impl Active {
    fn is_running(&self) -> bool {
        matches!(self.stage, Stage::Running)
    }

    fn is_leaving(&self) -> bool {
        *self.preempted.borrow()
    }

    /// Until when it makes no room for others in set-up.
    fn undisturbed_until(&self) -> Option<Instant> {
        match self.stage {
            Stage::SettingUp { since } => Some(since + PATIENCE * 2_u32.pow(self.retries)),
            _ => None,
        }
    }

    fn is_slow(&self, now: Instant) -> bool {
        matches!(self.stage, Stage::SettingUp { since } if since + PATIENCE <= now)
    }
}

impl Sessions {
    pub(super) fn new(endpoint: Endpoint, running_max: usize) -> Self {
        let (start, starts) = mpsc::channel(SETUPS_MAX);
        Self {
            endpoint,
            running_max,
            tasks: JoinSet::new(),
            active: HashMap::new(),
            known: HashSet::new(),
            waiting: Vec::new(),
            served: HashMap::new(),
            start,
            starts,
            next_number: 0,
            by_age: false,
        }
    }

    /// Serves what is sent, until no more can be.
    pub(super) async fn serve(mut self, mut experiments: mpsc::Receiver<Experiment>) {
        loop {
            let (later, slow) = (self.next_time(), self.next_slow(Instant::now()));
            tokio::select! {
                experiment = experiments.recv() => match experiment {
                    Some(experiment) => self.admit(experiment),
                    None => return,
                },
                Some(ended) = self.tasks.join_next() => {
                    if let Ok((experiment, served)) = ended {
                        self.finish(experiment, served);
                    }
                }
                Some(start) = self.starts.recv() => self.ask(start),
                () = wait_until(later) => {}
                () = sleep_until(slow.unwrap_or_else(Instant::now)), if slow.is_some() => {}
            }
            self.give_places();
            self.set_up(Instant::now());
        }
    }

    /// When the next of those that have yielded wants a place.
    fn next_time(&self) -> Option<Ticks> {
        let now = now();
        self.waiting.iter().map(|waiting| waiting.not_before).filter(|time| *time > now).min()
    }

    /// When the next set-up is slow, or makes room, for those that wait.
    fn next_slow(&self, now: Instant) -> Option<Instant> {
        let slow = self.active.values().filter_map(|active| match active.stage {
            Stage::SettingUp { since } if since + PATIENCE > now => Some(since + PATIENCE),
            _ => active.undisturbed_until().filter(|until| *until > now),
        });
        slow.min().filter(|_| !self.waiting.is_empty())
    }

    /// Sets up those that wait, as long as there may be places for them.
    fn set_up(&mut self, now: Instant) {
        while let Some(next) = self.next(now) {
            let address = self.waiting[next].address();
            if let Some(places) = self.full_setups(address) {
                if let Some(slowest) = self.slowest(places, now) {
                    slowest.stage = Stage::Gone;
                    slowest.preempted.send_replace(true);
                }
                return;
            }
            let waiting = self.waiting.remove(next);
            self.by_age = !self.by_age;
            self.start(waiting, now);
        }
    }

    /// Which of those that wait is set up next: of those whose set-ups were slow least often, the first of the highest
    /// priority; of an address that has its share only if there is no other.
    fn next(&self, now: Instant) -> Option<usize> {
        let is_slow = self.active.values().any(|active| active.is_slow(now));
        let claimants = self.active.values().filter(|active| match active.stage {
            Stage::SettingUp { .. } => !is_slow,
            Stage::Asking { .. } => true,
            Stage::Running | Stage::Gone => false,
        });
        let claimants = claimants.count();
        let by_turn = |(index, waiting): &(usize, &WaitingExperiment)| {
            let is_full = self.setups(Some(waiting.address())) >= SETUPS_PER_ADDRESS_MAX;
            let claim = if is_slow && self.by_age { 0 } else { waiting.experiment.priority };
            (is_full, waiting.retries, Reverse(claim), *index)
        };
        let clock = crate::clock::now();
        let wanting = self.waiting.iter().enumerate().filter(|(_, waiting)| {
            // The next experiment of a controller may be told while we are still leaving its last one.
            waiting.not_before <= clock
                && !self.active.contains_key(&waiting.experiment.controller)
                && claimants < self.obtainable(waiting.experiment.priority)
        });
        wanting.min_by_key(by_turn).map(|(index, _)| index)
    }

    /// Places that are free or that one of this priority can have made free.
    fn obtainable(&self, priority: u64) -> usize {
        let stays = |active: &&Active| {
            active.is_running() && !active.is_leaving() && active.priority >= priority
        };
        self.running_max - self.active.values().filter(stays).count()
    }

    /// How many are in set-up, in all or with one controller address.
    fn setups(&self, address: Option<&HostPort>) -> usize {
        let setups = self.active.iter().filter(|(controller, active)| {
            !active.is_running() && address.is_none_or(|address| controller.address == *address)
        });
        setups.count()
    }

    /// Whether there is no place in set-up: for this address alone, or for any.
    fn full_setups(&self, address: &HostPort) -> Option<Option<HostPort>> {
        if self.setups(Some(address)) >= SETUPS_PER_ADDRESS_MAX {
            return Some(Some(address.clone()));
        }
        (self.setups(None) >= SETUPS_MAX).then_some(None)
    }

    /// Who makes room in set-up, of this address or of any; nobody while one is on its way out.
    fn slowest(&mut self, address: Option<HostPort>, now: Instant) -> Option<&mut Active> {
        let is_meant = |controller: &Controller| {
            address.as_ref().is_none_or(|address| controller.address == *address)
        };
        let is_gone = |active: &Active| matches!(active.stage, Stage::Gone);
        if self.active.iter().any(|(controller, active)| is_meant(controller) && is_gone(active)) {
            return None;
        }
        let overdue = self.active.iter_mut().filter(|(controller, _)| is_meant(controller));
        let overdue = overdue.filter_map(|(_, active)| Some((active.undisturbed_until()?, active)));
        let (_, slowest) = overdue.filter(|(until, _)| *until <= now).min_by_key(|(at, _)| *at)?;
        Some(slowest)
    }

    fn start(
        &mut self,
        WaitingExperiment { experiment, ran, retries, .. }: WaitingExperiment,
        now: Instant,
    ) {
        let (preempted, asked) = watch::channel(false);
        let (priority, stage) = (experiment.priority, Stage::SettingUp { since: now });
        let active = Active { priority, retries, stage, preempted };
        self.active.insert(experiment.controller.clone(), active);
        let endpoint = Endpoint { priority: Some(priority), ran, ..self.endpoint.clone() };
        let start = self.start.clone();
        let serving = async move {
            let served = serve_experiment(endpoint, &experiment, asked, start).await;
            (experiment, served)
        };
        // A task of its own would log for every endpoint of a fleet.
        self.tasks.spawn(serving.with_current_subscriber());
    }

    fn ask(&mut self, Start { controller, answer }: Start) {
        if let Some(active) = self.active.get_mut(&controller)
            && matches!(active.stage, Stage::SettingUp { .. })
        {
            active.stage = Stage::Asking { number: self.next_number, answer };
            self.next_number += 1;
        }
    }

    /// Gives free places to those that ask, and asks the least important experiments to leave, one for each more
    /// important one that still asks. For whom nobody leaves there is no place.
    fn give_places(&mut self) {
        let mut asking: Vec<_> = self.active.iter().collect();
        asking.retain(|(_, active)| matches!(active.stage, Stage::Asking { .. }));
        asking.sort_by_key(|(_, active)| match active.stage {
            Stage::Asking { number, .. } => (Reverse(active.priority), number),
            _ => (Reverse(0), 0),
        });
        let asking: Vec<_> = asking
            .into_iter()
            .map(|(controller, active)| (controller.clone(), active.priority))
            .collect();
        let running = self.active.values().filter(|active| active.is_running());
        let (leaving, staying): (Vec<_>, Vec<_>) = running.partition(|active| active.is_leaving());
        let (mut free, mut leaving) =
            (self.running_max - leaving.len() - staying.len(), leaving.len());
        for (controller, priority) in asking {
            if free > 0 {
                free -= 1;
                self.answer(&controller, true);
            } else if leaving > 0 {
                leaving -= 1;
            } else if !self.make_room(&controller, priority) {
                self.answer(&controller, false);
            }
        }
    }

    fn answer(&mut self, controller: &Controller, has_place: bool) {
        let Some(active) = self.active.get_mut(controller) else { return };
        if let Stage::Asking { answer, .. } = std::mem::replace(&mut active.stage, Stage::Gone)
            && has_place
            && answer.send(()).is_ok()
        {
            active.stage = Stage::Running;
        }
    }

    /// Asks the least important experiment to leave, if it is less important.
    fn make_room(&self, newcomer: &Controller, priority: u64) -> bool {
        let staying = |(_, active): &(_, &Active)| active.is_running() && !active.is_leaving();
        let staying = self.active.iter().filter(staying);
        let least = staying.min_by_key(|(_, active)| active.priority);
        let Some((controller, least)) = least.filter(|(_, least)| least.priority < priority) else {
            return false;
        };
        tracing::info!("{controller} makes room for {newcomer}");
        least.preempted.send_replace(true);
        true
    }

    pub(super) fn admit(&mut self, experiment: Experiment) {
        let now = now();
        self.served.retain(|_, pub_end| now < *pub_end);
        let controller = &experiment.controller;
        if self.served.contains_key(&experiment.xdescr) {
            return tracing::info!("already served: the experiment of {controller}");
        }
        if self.known.contains(&experiment.xdescr) {
            return tracing::debug!("already being served: the experiment of {controller}");
        }
        if self.waiting.len() >= WAITING_MAX && !self.forget_one_for(&controller.address) {
            return tracing::warn!("too many experiments wait; forgotten: {}", experiment.xdescr);
        }
        self.known.insert(experiment.xdescr.clone());
        self.waiting.push(WaitingExperiment::at_once(experiment));
    }

    /// Forgets the latest of the address with most, if that has two more than the newcomer's.
    fn forget_one_for(&mut self, newcomer: &HostPort) -> bool {
        let mut counts: HashMap<&HostPort, (usize, usize)> = HashMap::new();
        for (index, waiting) in self.waiting.iter().enumerate() {
            let (count, last) = counts.entry(waiting.address()).or_default();
            (*count, *last) = (*count + 1, index);
        }
        let own = counts.get(newcomer).map_or(0, |(count, _)| *count);
        let Some((count, last)) = counts.into_values().max() else { return false };
        if count < own + 2 {
            return false;
        }
        let WaitingExperiment { experiment, .. } = self.waiting.remove(last);
        tracing::warn!("too many experiments wait; forgotten: {}", experiment.xdescr);
        self.known.remove(&experiment.xdescr);
        true
    }

    fn finish(&mut self, experiment: Experiment, served: Served) {
        let (controller, xdescr) = (experiment.controller.clone(), experiment.xdescr.clone());
        let retries = self.active.remove(&controller).map_or(0, |active| active.retries);
        match served {
            Served::Yes => {
                tracing::info!("the experiment of {controller} has been served");
                if let Some(pub_end) = experiment.pub_end {
                    self.served.insert(experiment.xdescr, pub_end);
                }
            }
            Served::InPart { not_before, ran } => {
                tracing::info!("the experiment of {controller} waits for its turn again");
                return self.waiting.push(WaitingExperiment {
                    experiment,
                    not_before,
                    ran,
                    retries: 0,
                });
            }
            Served::Slow { ran } if retries < RETRIES_MAX => {
                tracing::info!("{controller} is slow, and others wait; it is tried again later");
                let (not_before, retries) = (Ticks(0), retries + 1);
                return self.waiting.push(WaitingExperiment {
                    experiment,
                    not_before,
                    ran,
                    retries,
                });
            }
            Served::Slow { .. } => tracing::warn!(
                "the experiment of {controller} was not served: its set-up is slow, and others wait"
            ),
            Served::No(reason) => {
                tracing::warn!("the experiment of {controller} was not served: {reason}");
            }
        }
        self.known.remove(&xdescr);
    }
}

/// One session, until `asked` to make room.
async fn serve_experiment(
    endpoint: Endpoint,
    experiment: &Experiment,
    mut asked: watch::Receiver<bool>,
    start: mpsc::Sender<Start>,
) -> Served {
    let controller = &experiment.controller;
    tracing::info!("connecting back to {controller}: {}", experiment.xdescr);
    let preempted = async {
        // Without anybody to ask everything ends.
        let _ = asked.wait_for(|asked| *asked).await;
    };
    let place = async {
        let (answer, place) = oneshot::channel();
        let asking = Start { controller: controller.clone(), answer };
        start.send(asking).await.is_ok()
            && matches!(timeout(PLACE_TIMEOUT, place).await, Ok(Ok(())))
    };
    let Session { started, ran, end, .. } = endpoint.run_for(controller, preempted, place).await;
    match end {
        Ok(End::Yielded { resume }) => {
            let pause = resume.saturating_duration_since(now());
            tracing::info!("{controller} wants us back in {:.3} s", pause.as_secs_f64());
            Served::InPart { not_before: resume, ran }
        }
        Ok(End::Preempted) if !started => Served::Slow { ran },
        Ok(End::Preempted) | Err(EndpointError::NoPlace) => {
            Served::InPart { not_before: Ticks(0), ran }
        }
        _ if !started => Served::No(reason(end)),
        // A session that broke is over for the controller, too.
        Ok(_) => Served::Yes,
        Err(error) => {
            tracing::info!("session with {controller}: {error}");
            Served::Yes
        }
    }
}

/// For ever without a time.
async fn wait_until(time: Option<Ticks>) {
    match time {
        Some(time) => sleep(time.saturating_duration_since(now())).await,
        None => std::future::pending().await,
    }
}

fn reason(end: Result<End, EndpointError>) -> String {
    end.map_or_else(|error| error.to_string(), |end| end.to_string())
}
