//! Publishes the experiments at one broker, and keeps them published (spec/pktxpmgr.md 4.3 to 4.5).
//!
//! One task holds the conversation with the broker: it publishes, keeps the connection open until the
//! latest `pub_end`, and ends it with close_notify. If the broker refuses or is lost before, it comes back with a
//! wait between tries and publishes what is left, with the same ends. Where a reload changes what is published,
//! the task publishes that, and then ends the conversation before with close_notify: what is published lives as
//! long as its connection (spec/protocol.md 5.4), and so no experiment is off the broker meanwhile, nor where the broker
//! refuses the new. If it may lack room for both, the one before goes first.
//!
//! Not here: what a failure means for the run, which may have other brokers (`brokers.rs`).

mod live;
pub(super) mod news;
mod shared;
mod trouble;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, sleep_until};
use tracing::{debug, info, warn};

use self::live::{LivePublication, end_of, stands_no_more, withdraw};
use self::news::{FailedTry, PublicationId, PublicationNews};
use self::trouble::Trouble;
use super::clock::{now, random, until_wall, wall};
use super::peer::{Peer, PeerError, Stop};
use super::tasks::{TaskLink, TaskNews};
use crate::config::{self, Config, ControllerAddr, Experiment};
use crate::driver::Backend;
use crate::log_limit::LogLimit;
use crate::proto::backoff::{Backoff, WAIT_MAX};
use crate::proto::publisher::{BrokerRequest, PublishedExperiment, Publisher, PublisherEvent};
use packetlab::address::HostPort;
use packetlab::message::EncodeError;
use packetlab::time::Ticks;
use packetlab::tls::{self, ClientConfig, Identity, PeerRule, SetupError};
use packetlab::trust::TrustMode;
use packetlab::words::{counted, duration};

/// So many channels are named in a line, which has no room for more.
const LISTED_CHANNELS_MAX: usize = 3;

/// What is to be published, and the task that does it.
pub(super) struct PublicationTask {
    /// The task ends when this is dropped.
    plan: watch::Sender<NumberedPlan>,
    tasks: TaskLink,
    task: Option<JoinHandle<()>>,
    /// From which the ends are counted.
    began: Ticks,
}

/// A plan, and whose news are of it: of one broker all plans have the same number.
type NumberedPlan = (PublicationId, Rc<Plan>);

/// How the task tells the loop.
struct PublicationLink {
    id: PublicationId,
    tasks: TaskLink,
}

impl PublicationLink {
    fn tell(&self, news: PublicationNews) {
        self.tasks.tell(TaskNews::Publication(self.id, news));
    }
}

/// What conversations with the broker wait with, and the port at which endpoints reach us; 0 in proxy mode.
pub(super) type PublishedFrom = (Backend, u16);

/// All that publishing needs.
#[derive(Clone)]
pub(super) struct Plan {
    publication: config::Publication,
    /// The one that was bound.
    port: u16,
    experiments: Vec<Experiment>,
    tls: Arc<ClientConfig>,
    /// Limit of connecting to one address, of the handshake and of each answer.
    timeout: Duration,
    backend: Backend,
    /// What stands behind descriptors that are there; `None` while they are for others to publish.
    addition: Option<String>,
}

impl PublicationTask {
    /// Nothing is published yet.
    pub(super) fn new(id: PublicationId, plan: Plan, tasks: TaskLink) -> Self {
        let (plan, _) = watch::channel((id, Rc::new(plan)));
        Self { plan, tasks, task: None, began: Ticks(0) }
    }

    /// Whose news are of this one.
    pub(super) fn id(&self) -> PublicationId {
        self.plan.borrow().0
    }

    /// The broker's name.
    pub(super) fn broker(&self) -> String {
        self.plan.borrow().1.broker().to_owned()
    }

    /// How long endpoints are taken behind the end of the publication.
    pub(super) fn greet_after(&self) -> Duration {
        self.plan.borrow().1.publication.greet_after
    }

    /// Begins to publish, unless it has begun or is for others to do; ends are counted from `began`. `first` is everything
    /// published, even if its end has passed.
    pub(super) fn begin(&mut self, began: Ticks, first: bool) {
        let (is_wanted, is_shared) = (self.plan.borrow().1.is_wanted(), self.is_shared());
        if self.task.is_none() && is_wanted {
            self.began = began;
            self.start(first && !is_shared);
        }
    }

    fn start(&mut self, first: bool) {
        let published = Published { plan: self.plan.subscribe(), began: self.began, first };
        let link = PublicationLink { id: self.id(), tasks: self.tasks.clone() };
        let task = keep_published(published, link);
        self.task = Some(tokio::task::spawn_local(task));
    }

    /// Publishes this from now on, under another number at another broker. True if it is something else than before.
    pub(super) fn replace(&mut self, id: PublicationId, mut plan: Plan) -> bool {
        plan.keep_addresses_of(&self.plan.borrow().1);
        let changes = !plan.publishes_the_same_as(&self.plan.borrow().1, self.began);
        if changes {
            self.plan.send_replace((id, Rc::new(plan)));
            if self.task.as_ref().is_some_and(JoinHandle::is_finished) {
                // What was published before had come to its end.
                self.start(false);
            }
        }
        changes
    }

    /// Ends it. Its task, which ends the conversation with the broker.
    pub(super) fn end(self) -> Option<JoinHandle<()>> {
        self.task
    }
}

/// What a task publishes.
struct Published {
    /// Another one is published instead.
    plan: watch::Receiver<NumberedPlan>,
    began: Ticks,
    /// Nothing has been published here in this run, which began with it.
    first: bool,
}

impl Published {
    /// Another one is to be published instead by now.
    fn has_another(&self) -> bool {
        self.plan.has_changed().unwrap_or(false)
    }

    /// Nothing is to be published any more.
    fn is_given_up(&self) -> bool {
        self.plan.has_changed().is_err()
    }
}

/// A conversation with the broker in which everything is published.
struct Conversation {
    peer: Peer,
    publisher: Publisher,
}

/// Publishes one plan after the other.
async fn keep_published(mut published: Published, mut link: PublicationLink) {
    let mut standing = None;
    loop {
        let (id, plan) = published.plan.borrow_and_update().clone();
        // The run did not begin with another broker's.
        published.first &= id == link.id;
        link.id = id;
        let goes_on = plan.keep_published(&mut published, &mut link, &mut standing).await;
        if !goes_on || !published.has_another() {
            withdraw(&mut standing).await;
            // Another may have come while leave was taken.
            if !goes_on || !published.has_another() {
                return link.tell(PublicationNews::Over);
            }
        }
    }
}

impl Plan {
    /// What `publication` asks for, at a broker that is reached by `backend`. `port` is the one that was bound.
    ///
    /// # Errors
    /// The agent certificate cannot be used.
    pub(super) fn new(
        config: &Config,
        publication: &config::Publication,
        (backend, port): PublishedFrom,
    ) -> Result<Self, SetupError> {
        let identity = Identity {
            chain: std::slice::from_ref(&publication.certificate),
            key: &config.controller_key,
        };
        let rule = PeerRule {
            mode: TrustMode::Agent,
            anchors: publication.broker_roots.clone(),
            mandatory: true,
        };
        Ok(Self {
            publication: publication.clone(),
            port,
            experiments: config.experiments.clone(),
            tls: tls::client_config(Some(&identity), rule)?,
            timeout: config.limits.broker_timeout,
            backend,
            addition: None,
        })
    }

    /// The broker's name.
    pub(super) fn broker(&self) -> &str {
        &self.publication.broker_name
    }

    fn publishes_the_same_as(&self, other: &Self, began: Ticks) -> bool {
        let requests = |plan: &Self| -> Vec<_> {
            let pub_end = plan.pub_end(began);
            let places = 0..plan.experiments.len();
            places.map(|place| plan.published(place, "", pub_end)).collect()
        };
        self.publication == other.publication && requests(self) == requests(other)
    }

    /// A broker whose name cannot be found now is where it was found before.
    fn keep_addresses_of(&mut self, before: &Self) {
        let (own, before) = (&mut self.publication, &before.publication);
        if own.broker.is_empty() && own.broker_name == before.broker_name {
            own.broker.clone_from(&before.broker);
        }
    }

    /// The experiment in this place as it is published.
    fn published(
        &self,
        place: usize,
        controller_addr: &str,
        pub_end: Option<Ticks>,
    ) -> Result<PublishedExperiment, EncodeError> {
        let experiment = &self.experiments[place];
        match self.text(place) {
            Some(text) => {
                PublishedExperiment::of_descriptor(experiment, text, self.end_of(place, pub_end))
            }
            None => {
                PublishedExperiment::new(&self.publication, experiment, controller_addr, pub_end)
            }
        }
    }

    /// The end of experiments that do not override it. It stays the same however often they are published.
    fn pub_end(&self, began: Ticks) -> Option<Ticks> {
        self.publication.period.map(|period| began.saturating_add(period))
    }

    /// Publishes until the latest end, again and again if need be; what was `standing` before stays until that is done.
    /// False when nothing more is to be published.
    async fn keep_published(
        self: &Rc<Self>,
        published: &mut Published,
        link: &mut PublicationLink,
        standing: &mut Option<LivePublication>,
    ) -> bool {
        let broker = &self.publication.broker_name;
        let pub_end = self.pub_end(published.began);
        let ends = (0..self.experiments.len()).map(|place| self.end_of(place, pub_end));
        // No end is later than any.
        let end = ends.map(|end| end.unwrap_or(Ticks::MAX)).max().unwrap_or(Ticks::MAX);
        let mut backoff = Backoff::default();
        while published.first || wall() < end {
            let ended = match self.publish_once((pub_end, end), &link.tasks.stop).await {
                Ok(conversation) => {
                    published.first = false;
                    link.tell(PublicationNews::Published {
                        end: Some(end).filter(|end| *end != Ticks::MAX),
                        is_outdated: published.has_another(),
                    });
                    withdraw(standing).await;
                    *standing = Some(self.stand(conversation, end));
                    stands_no_more(standing, &mut published.plan).await
                }
                Err(trouble) => Err(trouble),
            };
            let trouble = match ended {
                Ok(()) => return true,
                Err(Trouble::Peer(PeerError::Stopped)) => return false,
                // What nobody wants published any more fails no run.
                Err(_) if published.is_given_up() => return false,
                Err(_) if published.has_another() => return true,
                Err(trouble) => trouble,
            };
            if trouble.may_be_for_want_of_room() && withdraw(standing).await {
                warn!("broker {broker}: {trouble}; publishing again without what was there before");
                continue;
            }
            let wait = backoff.fail(now(), WAIT_MAX, random());
            let stays = standing.as_ref().is_some_and(|before| !before.task.is_finished());
            let failed = FailedTry { reason: trouble.to_string(), wait, stays };
            link.tell(PublicationNews::Failed(failed));
            tokio::select! {
                () = sleep_until((now() + wait).into()) => {}
                changed = published.plan.changed() => {
                    if changed.is_ok() {
                        published.plan.mark_changed();
                    }
                    return true;
                }
                ended = end_of(standing) => {
                    *standing = None;
                    if let Err(trouble) = ended {
                        warn!("broker {broker}: {trouble}; what was published before is lost as well");
                        link.tell(PublicationNews::LostBefore);
                    }
                }
                () = link.tasks.stop.given() => return false,
            }
        }
        true
    }

    /// Begins a conversation with the broker, and publishes everything.
    async fn publish_once(
        &self,
        (pub_end, end): (Option<Ticks>, Ticks),
        stop: &Stop,
    ) -> Result<Conversation, Trouble> {
        let mut peer =
            Peer::connect(&self.publication.broker, self.timeout, self.backend, stop).await?;
        let controller_addr = match &self.publication.controller_addr {
            ControllerAddr::Text(text) => text.clone(),
            ControllerAddr::BoundPort(host) => {
                HostPort { host: host.clone(), port: Some(self.port) }.to_string()
            }
            ControllerAddr::BrokerSide => peer.local_ip()?.to_string(),
        };
        let requests = self.requests(&controller_addr, pub_end, end)?;
        let mut publisher =
            Publisher::new(Arc::clone(&self.tls), requests).map_err(Trouble::Tls)?;

        if let Err(trouble) = self.converse(&mut peer, &mut publisher).await {
            peer.close(publisher.take_output()).await;
            return Err(trouble);
        }
        let broker = &self.publication.broker_name;
        if end == Ticks::MAX {
            info!("published at the broker {broker}, without end");
        } else {
            let left = end.saturating_duration_since(wall()).as_secs_f64() * 1e3;
            info!("published at the broker {broker}, for {}", duration(left));
        }
        Ok(Conversation { peer, publisher })
    }

    /// Holds this conversation until `end`, or until it is to end.
    fn stand(self: &Rc<Self>, conversation: Conversation, end: Ticks) -> LivePublication {
        let (plan, (leave, left)) = (Rc::clone(self), oneshot::channel());
        let task = tokio::task::spawn_local(async move {
            let Conversation { mut peer, mut publisher } = conversation;
            let what = format!("messages of the broker {} that are not for us", plan.broker());
            let mut ignored = LogLimit::new(what);
            let held = plan.hold(&mut peer, &mut publisher, (end, left), &mut ignored).await;
            ignored.tell();
            if let Err(Trouble::Peer(PeerError::Stopped)) | Ok(()) = held {
                publisher.close();
            }
            peer.close(publisher.take_output()).await;
            held
        });
        LivePublication { leave, task }
    }

    /// What publishes the experiments, last in the file first. Those whose end has passed while others
    /// go on are left out.
    fn requests(
        &self,
        controller_addr: &str,
        pub_end: Option<Ticks>,
        last_end: Ticks,
    ) -> Result<Vec<BrokerRequest>, Trouble> {
        let mut requests = Vec::new();
        for (place, experiment) in self.experiments.iter().enumerate().rev() {
            let published =
                self.published(place, controller_addr, pub_end).map_err(Trouble::Encode)?;
            if published.end.is_some_and(|end| end != last_end && end <= wall()) {
                let snikey = experiment.snikey.short();
                info!("snikey {snikey} is not published: its pub_end has passed");
                continue;
            }
            let PublishedExperiment { channels, xdescr, requests: more, .. } = published;
            let channels: Vec<String> = channels.iter().map(|channel| channel.short()).collect();
            let on = match channels.len() {
                ..=LISTED_CHANNELS_MAX => channels.join(", "),
                count => counted(count as u64, "channel"),
            };
            info!("publishing snikey {} on {on}", experiment.snikey.short());
            debug!("its descriptor: {xdescr}");
            requests.extend(more);
        }
        Ok(requests)
    }

    /// Speaks with the broker until everything is published.
    async fn converse(&self, peer: &mut Peer, publisher: &mut Publisher) -> Result<(), Trouble> {
        let mut deadline = now() + self.timeout;
        let awaited = |error, publisher: &Publisher| match (error, publisher.awaits()) {
            (PeerError::TimedOut, Some(what)) => Trouble::Silent(what),
            (error, _) => Trouble::Peer(error),
        };
        loop {
            let output = publisher.take_output();
            if !output.is_empty() {
                // The broker's turn ends with its answer, however many pieces that comes in.
                deadline = now() + self.timeout;
                let written = peer.write(output, deadline).await;
                written.map_err(|error| awaited(error, publisher))?;
            }
            match publisher.poll_event() {
                Some(PublisherEvent::Published) => return Ok(()),
                Some(PublisherEvent::Ignored(_)) => {}
                None => {
                    match peer.read(deadline).await.map_err(|error| awaited(error, publisher))? {
                        [] => return Err(publisher.handle_end().into()),
                        bytes => publisher.handle_bytes(bytes, wall())?,
                    }
                }
            }
        }
    }

    /// Keeps the connection open until `end` or until it is to be `left`, and what is published with it.
    async fn hold(
        &self,
        peer: &mut Peer,
        publisher: &mut Publisher,
        (end, mut left): (Ticks, oneshot::Receiver<()>),
        ignored: &mut LogLimit,
    ) -> Result<(), Trouble> {
        loop {
            while let Some(event) = publisher.poll_event() {
                if let PublisherEvent::Ignored(message_type) = event
                    && let Some(left_out) = ignored.admit(now())
                {
                    let broker = self.broker();
                    warn!(
                        "broker {broker}: it sent {message_type}, which is not for us; ignored{left_out}"
                    );
                }
            }
            let output = publisher.take_output();
            if !output.is_empty() {
                peer.write(output, now() + self.timeout).await?;
            }
            let over = async {
                tokio::select! {
                    () = reached(end) => {}
                    _ = &mut left => {}
                    () = tell_when_quiet(ignored) => {}
                }
            };
            match peer.read_unless(over).await {
                Ok([]) => return Err(publisher.handle_end().into()),
                Ok(bytes) => publisher.handle_bytes(bytes, wall())?,
                Err(PeerError::TimedOut) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Tells what was left out once it is due, and never returns.
async fn tell_when_quiet(limit: &mut LogLimit) {
    if let Some(due) = limit.due() {
        sleep_until(due.into()).await;
        limit.tell();
    }
    std::future::pending().await
}

/// Waits until the wall clock shows `end`.
async fn reached(end: Ticks) {
    while wall() < end {
        sleep(until_wall(end)).await;
    }
}
