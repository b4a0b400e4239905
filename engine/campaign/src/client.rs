//! A member of a campaign: a thread with two connections, one for beats and one for batches, and the machine between
//! them and whoever asks. It decides nothing itself. Whoever asks never waits for the database; what he is told comes on
//! this thread.

use std::future::pending;
use std::iter;
use std::sync::mpsc as blocking;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc::{
    Receiver, Sender, UnboundedReceiver, UnboundedSender, channel, unbounded_channel,
};
use tokio::time::{Instant, timeout};

use crate::access::Access;
use crate::asks::{Ask, ClientNews, Fence, State};
use crate::database::{Connection, Database};
use crate::database_error::DatabaseError;
use crate::gathering::Gathering;
use crate::join_error::JoinError;
use crate::machine::{Answer, Batch, Beat, BeatTold, Machine, ManagerId, Start, Which};
use crate::plan::Plan;
use crate::runtime::Runtime;
use crate::statements::{self, Entered, Entry};

/// So long a database that is not there yet is waited for when a manager joins.
const JOIN_MAX: Duration = Duration::from_secs(10);

/// The server ends a statement after so long, or after a quarter of the lease.
const STATEMENT_MAX: Duration = Duration::from_secs(5);
const STATEMENT_MIN: Duration = Duration::from_millis(500);

/// Pauses before a connection is made again, the longest or a twentieth of the lease: a database that is back before a manager
/// has to be fenced must be found by then.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// So many asks are taken before anything else is looked at.
const ASKS_AT_ONCE: usize = 1024;

/// Who joins, and with what.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The database and the campaign.
    pub access: Access,
    /// What this manager would measure with.
    pub plan: Plan,
    /// The name of this machine, for those who look.
    pub host: String,
    /// The version of this program, for those who look.
    pub version: String,
    /// So many sessions it can have at once.
    pub places: u32,
    /// What becomes of its sessions when the database is away for too long.
    pub fence: Fence,
}

/// A member of a campaign. If it is dropped it is lost after one lease; see [`Client::leave`].
#[derive(Debug)]
pub struct Client {
    orders: UnboundedSender<Order>,
    thread: JoinHandle<()>,
    joined: Joined,
}

/// What the campaign was created with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Joined {
    plan: Plan,
    waves: Vec<String>,
    n: Option<u64>,
    lease: Duration,
    created: String,
}

#[derive(Debug)]
enum Order {
    Ask(Ask),
    Leave,
}

/// Enters a campaign; waits until that is done or refused, ten seconds for a database that is not there. What happens
/// from then on is told to `hear`, on a thread of the client's own, which must not be held up.
pub fn join(
    settings: Settings,
    hear: impl Fn(ClientNews) + Send + 'static,
) -> Result<Client, JoinError> {
    let application = format!("pktxpmgr {}", settings.access.address.campaign());
    let database = Database::new(&settings.access, &application)?;
    let mut drawn = [0; 16];
    aws_lc_rs::rand::fill(&mut drawn)
        .map_err(|_| JoinError::Thread("there is no randomness for its id".to_owned()))?;
    // The one clock: the machine is given what it shows.
    let (began, first_id) = (Instant::now(), ManagerId(drawn));
    let member = ClientThread { settings, database, began, first_id, identity: None };
    // Bounded by the sessions: each asks once, is forgotten or finished once, and there are as many as there are places.
    let (orders, received) = unbounded_channel();
    let (tell, joined) = blocking::sync_channel(1);
    let failed = |error: std::io::Error| JoinError::Thread(error.to_string());
    let runtime = Runtime::new().map_err(failed)?;
    let thread = std::thread::Builder::new()
        .name("campaign".to_owned())
        .spawn(move || runtime.block_on(member.live(&tell, received, hear)))
        .map_err(failed)?;
    let ended = || Err(JoinError::Thread("it has ended".to_owned()));
    let joined = joined.recv().unwrap_or_else(|_| ended())?;
    Ok(Client { orders, thread, joined })
}

impl Client {
    /// Asks the campaign. It never waits; what comes of it is heard as news. After the thread has ended nothing does.
    pub fn ask(&self, ask: Ask) {
        let _ = self.orders.send(Order::Ask(ask));
    }

    /// What the campaign was created with, its text for endpoints in any case.
    pub fn plan(&self) -> &Plan {
        &self.joined.plan
    }

    /// What is added to the text for each wave, one after the other; none if all endpoints are called at once.
    pub fn waves(&self) -> &[String] {
        &self.joined.waves
    }

    /// For how many endpoints the campaign is.
    pub fn n(&self) -> Option<u64> {
        self.joined.n
    }

    /// So long the campaign waits for a member before it takes it for lost.
    pub fn lease(&self) -> Duration {
        self.joined.lease
    }

    /// When the campaign was created: UTC, as `2026-11-30T00:12:00.123456Z`. It tells it from others of its name.
    pub fn created(&self) -> &str {
        &self.joined.created
    }

    /// Leaves the campaign: what waits is refused, what has ended is reported, what runs is lost to others. Waits for
    /// that, ten seconds at most.
    pub fn leave(self) {
        let _ = self.orders.send(Order::Leave);
        // A thread that has panicked has said so.
        let _ = self.thread.join();
    }
}

/// What the thread has.
struct ClientThread {
    settings: Settings,
    database: Database,
    began: Instant,
    first_id: ManagerId,
    /// Of the campaign that it has entered.
    identity: Option<String>,
}

/// How long the server and the client wait for each other.
#[derive(Clone, Copy)]
struct Patience {
    statement_max: Duration,
    answer_max: Duration,
    pause_max: Duration,
}

/// What is asked on a connection.
enum Request {
    Batch(Batch),
    Beat(Beat),
}

/// What a connection tells.
enum Event {
    Up,
    Down(DatabaseError),
    Batch(Answer),
    Beat(Beat, BeatTold),
}

impl Patience {
    fn of(lease: Duration) -> Self {
        let statement_max = (lease / 4).clamp(STATEMENT_MIN, STATEMENT_MAX);
        let pause_max = (lease / 20).clamp(PAUSE_MIN, PAUSE_MAX);
        Self { statement_max, answer_max: statement_max * 2, pause_max }
    }
}

impl ClientThread {
    async fn live(
        mut self,
        tell: &blocking::SyncSender<Result<Joined, JoinError>>,
        orders: UnboundedReceiver<Order>,
        hear: impl Fn(ClientNews),
    ) {
        let (asked, entered) = match self.first_entry().await {
            Ok(entered) => entered,
            Err(error) => {
                let _ = tell.send(Err(error));
                return;
            }
        };
        let lease = entered.lease;
        self.identity = Some(entered.identity);
        let machine = Machine::new(Start {
            id: self.first_id,
            entered: asked,
            lease,
            n: entered.n,
            places: self.settings.places,
            fence: self.settings.fence,
            new_id: ids_after(self.first_id),
        });
        let plan = entered.plan.unwrap_or_else(|| self.settings.plan.clone());
        let (waves, created) = (entered.waves, entered.created);
        let joined = Joined { plan, waves, n: entered.n, lease, created };
        if tell.send(Ok(joined)).is_err() {
            return;
        }
        // One is under way at a time, and what was asked of a connection that has gone is taken out before the next is told of.
        let (send_batch, batches) = channel(1);
        let (send_beat, beats) = channel(1);
        // Answers, each to one request, and ends of connections, between which there is a pause.
        let (tell_event, events) = unbounded_channel();
        let patience = Patience::of(lease);
        let (began, gathering) = (self.began, Gathering::default());
        let conversation =
            Conversation { machine, gathering, events, send_batch, send_beat, began };
        tokio::select! {
            () = conversation.go_on(orders, hear) => {}
            () = self.serve(patience, Which::Batches, batches, &tell_event) => {}
            () = self.serve(patience, Which::Beats, beats, &tell_event) => {}
        }
    }

    /// When `enter` was asked, and what it told.
    async fn first_entry(&self) -> Result<(Duration, Entered), JoinError> {
        let mut pause = PAUSE_MIN;
        loop {
            let asked = self.began.elapsed();
            // One that comes late in the ten seconds has less time.
            let tried = timeout(JOIN_MAX.saturating_sub(asked), self.try_to_enter()).await;
            let tried = tried.unwrap_or_else(|_| Err(DatabaseError::no_answer(JOIN_MAX)));
            let error = match tried {
                Ok(entered) if entered.verdict == "entered" => return Ok((asked, entered)),
                Ok(refused) => {
                    let address = &self.settings.access.address;
                    return Err(refused.refusal(&self.settings.plan, address));
                }
                Err(error) => error,
            };
            let is_over = self.began.elapsed() + pause > JOIN_MAX;
            if is_over || !matches!(error, DatabaseError::Unreachable(_) | DatabaseError::Busy(_)) {
                return Err(error.into());
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn try_to_enter(&self) -> Result<Entered, DatabaseError> {
        let connection = self.database.connect(STATEMENT_MAX, STATEMENT_MAX).await?;
        let entering = self.enter(&connection, self.first_id);
        timeout(STATEMENT_MAX, entering)
            .await
            .unwrap_or_else(|_| Err(DatabaseError::no_answer(STATEMENT_MAX)))
    }

    async fn enter(
        &self,
        connection: &Connection,
        manager: ManagerId,
    ) -> Result<Entered, DatabaseError> {
        let Settings { access, plan, host, version, .. } = &self.settings;
        let campaign = access.address.campaign();
        let identity = self.identity.as_deref();
        statements::enter(connection, &Entry { campaign, manager, host, version, plan, identity })
            .await
    }

    /// What an answer to an entry after the first says.
    fn told_by(&self, entered: &Entered) -> BeatTold {
        let Settings { access, plan, .. } = &self.settings;
        match entered.verdict.as_str() {
            "entered" => BeatTold::Entered,
            other => State::named(other).map_or_else(
                || BeatTold::ShutOut(entered.refusal(plan, &access.address)),
                BeatTold::Ended,
            ),
        }
    }

    /// Keeps one connection, makes it again when it is gone, and passes what is asked and answered.
    async fn serve(
        &self,
        patience: Patience,
        which: Which,
        mut requests: Receiver<Request>,
        events: &UnboundedSender<(Which, Event)>,
    ) {
        let tell = |event| {
            let _ = events.send((which, event));
        };
        let (mut pause, mut line) = (PAUSE_MIN, 0);
        loop {
            match self.database.connect(patience.statement_max, patience.answer_max).await {
                Ok(mut connection) => {
                    line += 1;
                    // What was asked when the last one had just gone: it is asked again.
                    while requests.try_recv().is_ok() {}
                    tell(Event::Up);
                    let error = loop {
                        let request = tokio::select! {
                            request = requests.recv() => request,
                            () = connection.closed() => break closed(),
                        };
                        let Some(request) = request else { return };
                        let answered =
                            timeout(patience.answer_max, self.call(&connection, line, request));
                        match answered.await {
                            Ok(Ok(told)) => tell(told),
                            Ok(Err(error)) => break error,
                            Err(_) => break DatabaseError::no_answer(patience.answer_max),
                        }
                        pause = PAUSE_MIN;
                    };
                    drop(connection);
                    tell(Event::Down(error));
                }
                Err(error) => tell(Event::Down(error)),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(patience.pause_max);
        }
    }

    async fn call(
        &self,
        connection: &Connection,
        line: i64,
        request: Request,
    ) -> Result<Event, DatabaseError> {
        let campaign = self.settings.access.address.campaign();
        Ok(match request {
            Request::Batch(batch) => {
                Event::Batch(statements::send(connection, campaign, line, &batch).await?)
            }
            Request::Beat(beat @ Beat::Enter { id }) => {
                let entered = self.enter(connection, id).await?;
                Event::Beat(beat, self.told_by(&entered))
            }
            Request::Beat(beat @ Beat::Renew { id, places, is_leaving, has_missed }) => {
                let told = (places, is_leaving, has_missed);
                let told = statements::beat(connection, campaign, id, told).await?;
                Event::Beat(beat, BeatTold::Renewed(told))
            }
        })
    }
}

/// The machine with its clock and its queues.
struct Conversation {
    machine: Machine,
    gathering: Gathering,
    events: UnboundedReceiver<(Which, Event)>,
    send_batch: Sender<Request>,
    send_beat: Sender<Request>,
    began: Instant,
}

impl Conversation {
    /// Goes on until the member has left, or nobody can ask any more.
    async fn go_on(mut self, mut orders: UnboundedReceiver<Order>, hear: impl Fn(ClientNews)) {
        loop {
            self.send_and_tell(&hear);
            if self.machine.has_left() {
                return;
            }
            let gathered_at = self.gathering.until();
            let is_gathering = self.began.elapsed() < gathered_at;
            let wakes =
                self.machine.next_wake().into_iter().chain(is_gathering.then_some(gathered_at));
            let wake = wakes.min().map(|wake| self.began + wake);
            tokio::select! {
                biased;
                event = self.events.recv() => {
                    let Some(event) = event else { return };
                    self.heard(event);
                    while let Ok(event) = self.events.try_recv() {
                        self.heard(event);
                    }
                }
                // While it is not looked at, nobody who asks wakes this thread.
                order = orders.recv(), if !is_gathering => {
                    let Some(order) = order else { return };
                    self.ordered(order);
                    let others = iter::from_fn(|| orders.try_recv().ok()).take(ASKS_AT_ONCE);
                    let asks = 1 + others.map(|order| self.ordered(order)).count();
                    self.gathering.heard(self.began.elapsed(), asks);
                }
                () = sleep_until(wake) => {}
            }
        }
    }

    fn send_and_tell(&mut self, hear: &impl Fn(ClientNews)) {
        let now = self.began.elapsed();
        self.machine.tick(now);
        if let Some(batch) = self.machine.next_batch(now) {
            let sent = self.send_batch.try_send(Request::Batch(batch));
            debug_assert!(sent.is_ok(), "a batch is under way");
        }
        if let Some(beat) = self.machine.next_beat(now) {
            let sent = self.send_beat.try_send(Request::Beat(beat));
            debug_assert!(sent.is_ok(), "a beat is under way");
        }
        while let Some(news) = self.machine.next_news() {
            hear(news);
        }
    }

    fn heard(&mut self, (which, event): (Which, Event)) {
        let now = self.began.elapsed();
        match event {
            Event::Up => self.machine.connected(which),
            Event::Down(error) => self.machine.disconnected(which, &error.to_string()),
            Event::Batch(answer) => self.machine.batch_answered(now, &answer),
            Event::Beat(beat, told) => self.machine.beat_answered(now, beat, told),
        }
    }

    fn ordered(&mut self, order: Order) {
        let now = self.began.elapsed();
        match order {
            Order::Ask(ask) => self.machine.ask(now, ask),
            Order::Leave => self.machine.leave(now),
        }
    }
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake).await,
        None => pending().await,
    }
}

/// Ids of the same member after fences: the first was drawn, the others are counted on from there.
fn ids_after(first: ManagerId) -> Box<dyn FnMut() -> ManagerId + Send> {
    let mut next = u128::from_be_bytes(first.0);
    Box::new(move || {
        next = next.wrapping_add(1);
        ManagerId(next.to_be_bytes())
    })
}

fn closed() -> DatabaseError {
    DatabaseError::Unreachable("it has closed the connection".to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    /// Time is that of a runtime whose clock jumps when nothing else is to be done.
    #[test]
    fn who_joins_waits_ten_seconds_for_a_server_that_says_nothing_and_no_longer() {
        let folder = std::env::temp_dir().join(format!("campaign-join-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir(&folder).expect("a new folder");
        let _silent = UnixListener::bind(folder.join(".s.PGSQL.5432")).expect("a socket");
        let address = format!("postgres://p@/d?host={}#silent", folder.display());
        let address = address.parse().expect("a good address");
        let access = Access { address, password: None, roots: None, certificate: None };
        let descriptor = Some(String::new());
        let (argv, snikeys) = (Vec::new(), Vec::new());
        let plan = Plan { mlet_digest: [0; 32], argv, descriptor, snikeys };
        let (host, version) = (String::new(), String::new());
        let settings = Settings { access, plan, host, version, places: 1, fence: Fence::Kill };
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        let (waited, error) = runtime.expect("a runtime").block_on(async {
            let database = Database::new(&settings.access, "test").expect("a database");
            let (began, first_id) = (Instant::now(), ManagerId([0; 16]));
            let member = ClientThread { settings, database, began, first_id, identity: None };
            let error = member.first_entry().await.expect_err("nobody answers");
            (began.elapsed(), error)
        });
        let _ = std::fs::remove_dir_all(&folder);
        assert_eq!(waited, JOIN_MAX);
        assert_eq!(error, JoinError::Database(DatabaseError::no_answer(JOIN_MAX)));
    }
}
