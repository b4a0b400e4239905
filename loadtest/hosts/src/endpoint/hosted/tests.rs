//! An endpoint that subscribes, with brokers that say exactly what a test wants, and controllers that
//! run one session after the other.

use std::net::SocketAddr;

use packetlab::certificate::Certificate;
use packetlab::key::{PrivateKey, PublicKey};
use packetlab::message::{Message, MessageType, Outcome, Status};
use packetlab::time::Ticks;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::super::now;
use super::super::sessions::{SETUPS_MAX, Sessions, WAITING_MAX, WaitingExperiment};
use super::super::tests::rights::{self, Group};
use super::*;
use crate::golden::{certificate, private_key, public_key};
use crate::home::{Home, Surroundings};
use crate::link::Link;

/// Far longer than anything here takes; a test that runs into it has failed.
const LONG: Duration = Duration::from_secs(30);
const ANYWHERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(LONG, future).await.expect("nothing here takes so long")
}

async fn listen() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap()
}

fn host_port(address: SocketAddr) -> HostPort {
    HostPort { host: address.ip().to_string(), port: Some(address.port()) }
}

/// A broker of which a test plays the part.
struct Broker {
    listener: TcpListener,
    tls: TlsAcceptor,
}

impl Broker {
    async fn new() -> Self {
        let chain = [certificate("agent_bop_rv")];
        let identity = Identity { chain: &chain, key: &private_key("rv") };
        let rule = PeerRule { mode: TrustMode::Agent, anchors: Vec::new(), mandatory: true };
        let tls = tls::server_config(&identity, rule).unwrap();
        Self { listener: listen().await, tls: TlsAcceptor::from(tls) }
    }

    /// The endpoint `ep` of `eop`, which subscribes here.
    fn subscriber(&self) -> Subscriber {
        let chain = [certificate("agent_ep")];
        let anchors = vec![public_key("bop")];
        let rule = PeerRule { mode: TrustMode::Agent, anchors, mandatory: true };
        let identity = Identity { chain: &chain, key: &private_key("ep") };
        let tls = tls::client_config(Some(&identity), rule).unwrap();
        let interest = Interest {
            certificates: &[certificate("subcmd_eop_ep")],
            operators: &[public_key("eop")],
            channels: &[None],
            attributes: "",
        };
        let address = host_port(self.listener.local_addr().unwrap());
        Subscriber::new(address, ANYWHERE, tls, &interest).unwrap()
    }

    async fn accept(&self) -> Link<TlsStream<TcpStream>> {
        let (stream, _) = within(self.listener.accept()).await.unwrap();
        Link::new(within(self.tls.accept(stream)).await.unwrap())
    }

    /// Takes XCERT and XSUB, and answers them with these.
    async fn answer(&self, statuses: [Status; 2]) -> Link<TlsStream<TcpStream>> {
        let mut link = self.accept().await;
        for _ in 0..2 {
            within(link.receive()).await.unwrap().unwrap();
        }
        for status in statuses {
            link.send(&Message::Result(Outcome::Status(status))).await.unwrap();
        }
        link
    }
}

async fn notify(link: &mut Link<TlsStream<TcpStream>>, xdescr: &str) {
    let channel = ChannelId::new(&public_key("eop").key_id().0).unwrap();
    link.send(&Message::Xnotify { channel, xdescr }).await.unwrap();
}

/// An endpoint that keeps subscribing; what it is told of.
fn keep(subscriber: Subscriber) -> (JoinSet<()>, mpsc::Receiver<Experiment>) {
    let (sender, experiments) = mpsc::channel(1);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { keep_subscribed(subscriber, sender, &AtomicUsize::new(0)).await });
    (tasks, experiments)
}

#[tokio::test]
async fn a_subscription_that_has_ended_is_made_again_at_once() {
    let broker = Broker::new().await;
    let (_tasks, mut experiments) = keep(broker.subscriber());
    for number in 0..3 {
        let mut link = broker.answer([Status::SUCCESS; 2]).await;
        let xdescr = format!("controller_addr=192.0.2.1:{number};");
        notify(&mut link, &xdescr).await;
        assert_eq!(within(experiments.recv()).await.unwrap().xdescr, xdescr);
        match number {
            // Whatever a broker may not say ends it as well.
            0 => link.send(&Message::Result(Outcome::SUCCESS)).await.unwrap(),
            1 => link.send(&Message::Start).await.unwrap(),
            _ => {}
        }
    }
}

#[tokio::test]
async fn descriptors_that_cannot_be_followed_are_passed_over() {
    let broker = Broker::new().await;
    let (_tasks, mut experiments) = keep(broker.subscriber());
    let mut link = broker.answer([Status::SUCCESS; 2]).await;
    for xdescr in ["", "sni_key=a;", "controller_addr=h;sni_key=42;", "controller_addr=h:1;"] {
        notify(&mut link, xdescr).await;
    }
    assert_eq!(within(experiments.recv()).await.unwrap().xdescr, "controller_addr=h:1;");
}

#[tokio::test]
async fn a_broker_that_refuses_is_not_asked_again_for_a_while() {
    for statuses in [[Status::ECRTBADFRM, Status::SUCCESS], [Status::SUCCESS, Status::ESUBBADCHN]] {
        let broker = Broker::new().await;
        let (_tasks, _experiments) = keep(broker.subscriber());
        let mut link = broker.answer(statuses).await;
        assert_eq!(within(link.receive()).await.unwrap(), None, "it leaves");
        let again = timeout(Duration::from_secs(1), broker.listener.accept()).await;
        assert!(again.is_err(), "it came back at once");
    }
}

/// Controllers of one home, each with a port of its own.
struct Controllers {
    home: Home,
    chain: Vec<Certificate>,
    key: PrivateKey,
    operator: PublicKey,
}

impl Controllers {
    fn new() -> Self {
        let home = Home::create(1, false, Surroundings::default()).unwrap();
        let (chain, key, operator) = home.controller();
        Self { home, chain, key, operator }
    }

    /// Answers one connection with a session; how far the endpoint came then is awaited with the link.
    async fn start_session(&self, listener: &TcpListener) -> Link<TlsStream<TcpStream>> {
        let mode = TrustMode::ControllerAuthenticatesEndpoint;
        let rule = PeerRule { mode, anchors: vec![self.operator], mandatory: true };
        let identity = Identity { chain: &self.chain, key: &self.key };
        let acceptor = TlsAcceptor::from(tls::server_config(&identity, rule).unwrap());
        let (stream, _) = within(listener.accept()).await.unwrap();
        let mut link = Link::new(within(acceptor.accept(stream)).await.unwrap());
        let program = Home::program();
        let cdata = Message::Cdata { hint: b"monitor", data: program.encoded() };
        for request in [cdata, Message::Start] {
            assert_eq!(ask(&mut link, &request).await, Status::SUCCESS);
        }
        // What the monitor program has to say.
        assert_eq!(within(link.receive()).await.unwrap().unwrap().0, MessageType::LINFO);
        link
    }

    /// The endpoint, which serves what is sent to it.
    fn serve(&self, running_max: usize) -> (JoinSet<()>, mpsc::Sender<Experiment>) {
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let endpoint = self.home.endpoints(nowhere).unwrap().remove(0);
        let (sender, experiments) = mpsc::channel(1);
        let mut tasks = JoinSet::new();
        tasks.spawn(Sessions::new(endpoint, running_max).serve(experiments));
        (tasks, sender)
    }
}

async fn ask(link: &mut Link<TlsStream<TcpStream>>, request: &Message<'_>) -> Status {
    link.send(request).await.unwrap();
    let (message_type, payload) = within(link.receive()).await.unwrap().unwrap();
    match Message::decode(message_type, &payload) {
        Message::Result(outcome) => outcome.status(),
        other => panic!("{other:?}"),
    }
}

/// An experiment of the controller that listens here.
fn experiment(listener: &TcpListener, pub_end: Option<Ticks>) -> Experiment {
    let address = host_port(listener.local_addr().unwrap());
    let xdescr = format!("controller_addr={address};pub_end={pub_end:?};");
    Experiment { xdescr, controller: Controller { address, snikey: None }, pub_end, priority: 0 }
}

/// The same, of this priority.
fn important(listener: &TcpListener, priority: u64) -> Experiment {
    Experiment { priority, ..experiment(listener, None) }
}

/// A second in which the endpoint does not connect.
async fn assert_left_alone(listener: &TcpListener) {
    assert!(timeout(Duration::from_secs(1), listener.accept()).await.is_err());
}

#[tokio::test]
async fn several_experiments_are_served_at_once_up_to_the_limit() {
    let controllers = Controllers::new();
    let listeners = [listen().await, listen().await, listen().await];
    let (_tasks, experiments) = controllers.serve(2);
    for listener in &listeners {
        experiments.send(experiment(listener, None)).await.unwrap();
    }
    let first = controllers.start_session(&listeners[0]).await;
    let _second = controllers.start_session(&listeners[1]).await;
    assert_left_alone(&listeners[2]).await;
    first.close().await;
    let _third = controllers.start_session(&listeners[2]).await;
}

#[tokio::test]
async fn a_more_important_experiment_takes_the_place_of_the_least_important_one() {
    let controllers = Controllers::new();
    let listeners = [listen().await, listen().await, listen().await, listen().await];
    let (_tasks, experiments) = controllers.serve(2);
    for (listener, priority) in listeners.iter().zip([5, 3]) {
        experiments.send(important(listener, priority)).await.unwrap();
    }
    let first = controllers.start_session(&listeners[0]).await;
    let mut second = controllers.start_session(&listeners[1]).await;
    // One that is not more important than any waits.
    experiments.send(important(&listeners[2], 3)).await.unwrap();
    assert_left_alone(&listeners[2]).await;

    experiments.send(important(&listeners[3], 4)).await.unwrap();
    let second_leaves = async {
        let (message_type, _) = within(second.receive()).await.unwrap().unwrap();
        assert_eq!(message_type, MessageType::SUSPD);
        assert!(within(second.receive()).await.unwrap().is_none());
        second.close().await;
    };
    let (fourth, ()) = tokio::join!(controllers.start_session(&listeners[3]), second_leaves);
    // Those that wait have their turn as the others end, also the one that had to leave.
    first.close().await;
    let third = controllers.start_session(&listeners[2]).await;
    fourth.close().await;
    let _second = controllers.start_session(&listeners[1]).await;
    drop(third);
}

#[tokio::test]
async fn two_more_important_experiments_need_not_wait_for_each_others_places() {
    let controllers = Controllers::new();
    let listeners = [listen().await, listen().await, listen().await, listen().await];
    let (_tasks, experiments) = controllers.serve(2);
    for (listener, priority) in listeners.iter().zip([1, 2]) {
        experiments.send(important(listener, priority)).await.unwrap();
    }
    let mut less_important = [
        controllers.start_session(&listeners[0]).await,
        controllers.start_session(&listeners[1]).await,
    ];
    for listener in &listeners[2..] {
        experiments.send(important(listener, 3)).await.unwrap();
    }
    // Neither leaves its place before this controller has closed, or for 5 s.
    let suspended = async {
        for link in &mut less_important {
            assert_eq!(link.receive().await.unwrap().unwrap().0, MessageType::SUSPD);
        }
        less_important
    };
    let suspended = async {
        let suspended = timeout(Duration::from_secs(4), suspended).await;
        drop(suspended.expect("both should be asked to leave"));
    };
    tokio::join!(
        controllers.start_session(&listeners[2]),
        controllers.start_session(&listeners[3]),
        suspended
    );
}

/// Descriptors of one controller address.
fn many(listener: &TcpListener, priority: u64, count: usize) -> Vec<Experiment> {
    let of = |number: usize| {
        let mut experiment = important(listener, priority);
        experiment.xdescr = format!("{}x={number};", experiment.xdescr);
        experiment.controller.snikey = Some(SniKey::parse(&format!("s{number}")).unwrap());
        experiment
    };
    (0..count).map(of).collect()
}

#[tokio::test]
async fn controllers_that_never_speak_keep_no_other_waiting_whatever_they_claim() {
    let controllers = Controllers::new();
    let (silent, honest) = (listen().await, listen().await);
    let (_tasks, experiments) = controllers.serve(1);
    for experiment in many(&silent, u64::MAX, 60) {
        experiments.send(experiment).await.unwrap();
    }
    within(silent.accept()).await.unwrap();
    experiments.send(important(&honest, 0)).await.unwrap();
    let served = controllers.start_session(&honest);
    let served = timeout(Duration::from_secs(10), served).await;
    served.expect("it waits for those that never speak").close().await;
}

/// Of as many addresses as descriptors, so that no address has more than others.
#[tokio::test]
async fn silent_controllers_at_many_addresses_make_room_for_others() {
    let controllers = Controllers::new();
    let honest = listen().await;
    let (_tasks, experiments) = controllers.serve(1);
    let mut silent = Vec::new();
    for _ in 0..2 * SETUPS_MAX {
        silent.push(listen().await);
        let experiment = important(silent.last().unwrap(), u64::MAX);
        experiments.send(experiment).await.unwrap();
    }
    experiments.send(important(&honest, 0)).await.unwrap();
    controllers.start_session(&honest).await.close().await;
}

#[tokio::test]
async fn a_claimed_priority_takes_no_place_before_the_chain_has_shown_it() {
    let controllers = Controllers::new();
    let (running, silent) = (listen().await, listen().await);
    let (_tasks, experiments) = controllers.serve(1);
    experiments.send(important(&running, 1)).await.unwrap();
    let mut link = controllers.start_session(&running).await;
    experiments.send(important(&silent, u64::MAX)).await.unwrap();
    let (stream, _) = within(silent.accept()).await.unwrap();
    let told = timeout(Duration::from_secs(1), link.receive()).await;
    assert!(told.is_err(), "it had to make room: {told:?}");
    drop(stream);
}

#[tokio::test]
async fn one_address_cannot_fill_the_list_of_those_that_wait() {
    let controllers = Controllers::new();
    let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
    let mut sessions = Sessions::new(controllers.home.endpoints(nowhere).unwrap().remove(0), 1);
    let (many_from, other) = (listen().await, listen().await);
    for experiment in many(&many_from, u64::MAX, WAITING_MAX) {
        sessions.admit(experiment);
    }
    sessions.admit(experiment(&other, None));
    let of_other = |waiting: &&WaitingExperiment| waiting.experiment == experiment(&other, None);
    assert_eq!(sessions.waiting.iter().filter(of_other).count(), 1);
    assert_eq!((sessions.waiting.len(), sessions.known.len()), (WAITING_MAX, WAITING_MAX));
}

#[tokio::test]
async fn an_experiment_is_served_once_until_its_publication_ends() {
    let controllers = Controllers::new();
    let (lasting, endless, marker) = (listen().await, listen().await, listen().await);
    let (_tasks, experiments) = controllers.serve(9);
    let later = now().saturating_add(LONG);
    let told = [experiment(&lasting, Some(later)), experiment(&endless, None)];
    // Told twice while it runs, it is served once.
    for experiment in told.iter().chain(&told) {
        experiments.send(experiment.clone()).await.unwrap();
    }
    for listener in [&lasting, &endless] {
        controllers.start_session(listener).await.close().await;
    }
    // A session is over for the endpoint when it is for us; this one comes after both.
    experiments.send(experiment(&marker, None)).await.unwrap();
    controllers.start_session(&marker).await.close().await;
    // Told again afterwards, only what has no end that would tell it apart is served again.
    for experiment in told {
        experiments.send(experiment).await.unwrap();
    }
    controllers.start_session(&endless).await.close().await;
    assert_left_alone(&lasting).await;
}

#[tokio::test]
async fn the_next_experiment_of_a_controller_waits_for_the_end_of_its_last_one() {
    let controllers = Controllers::new();
    let listener = listen().await;
    let (_tasks, experiments) = controllers.serve(9);
    let ends = [1, 2].map(|minutes| now().saturating_add(Duration::from_secs(60 * minutes)));
    experiments.send(experiment(&listener, Some(ends[0]))).await.unwrap();
    let link = controllers.start_session(&listener).await;
    experiments.send(experiment(&listener, Some(ends[1]))).await.unwrap();
    assert_left_alone(&listener).await;
    link.close().await;
    controllers.start_session(&listener).await.close().await;
}

#[tokio::test]
async fn a_controller_that_yields_gets_the_endpoint_back_at_its_time() {
    let controllers = Controllers::new();
    let listener = listen().await;
    let (_tasks, experiments) = controllers.serve(1);
    experiments.send(experiment(&listener, None)).await.unwrap();
    let mut link = controllers.start_session(&listener).await;
    let resume = now().saturating_add(Duration::from_millis(500));
    assert_eq!(ask(&mut link, &Message::Yield { resume }).await, Status::SUCCESS);
    link.close().await;
    controllers.start_session(&listener).await.close().await;
    assert!(now() >= resume);
}

#[tokio::test]
async fn a_controller_that_has_yielded_takes_no_place_meanwhile() {
    let controllers = Controllers::new();
    let (yielding, other) = (listen().await, listen().await);
    let (_tasks, experiments) = controllers.serve(1);
    experiments.send(experiment(&yielding, None)).await.unwrap();
    let mut link = controllers.start_session(&yielding).await;
    let resume = now().saturating_add(Duration::from_secs(3600));
    assert_eq!(ask(&mut link, &Message::Yield { resume }).await, Status::SUCCESS);
    link.close().await;
    experiments.send(experiment(&other, None)).await.unwrap();
    controllers.start_session(&other).await.close().await;
}

#[tokio::test]
async fn an_experiment_that_could_not_be_served_may_be_told_again() {
    let controllers = Controllers::new();
    let listener = listen().await;
    let (_tasks, experiments) = controllers.serve(1);
    let later = Some(now().saturating_add(LONG));
    experiments.send(experiment(&listener, later)).await.unwrap();
    // No session: the controller closes before START.
    drop(within(listener.accept()).await.unwrap());
    let other = listen().await;
    experiments.send(experiment(&other, None)).await.unwrap();
    controllers.start_session(&other).await.close().await;
    experiments.send(experiment(&listener, later)).await.unwrap();
    controllers.start_session(&listener).await.close().await;
}

#[tokio::test]
async fn the_parts_of_an_experiment_together_take_no_longer_than_its_chain_allows() {
    let period = Duration::from_secs(2);
    let group = Group::new("max_exp_period=2000000000;", LONG);
    let listener = listen().await;
    let endpoint = group.endpoint(listener.local_addr().unwrap(), &Arc::default());
    let (sender, experiments) = mpsc::channel(1);
    let mut tasks = JoinSet::new();
    tasks.spawn(Sessions::new(endpoint, 1).serve(experiments));
    sender.send(experiment(&listener, None)).await.unwrap();
    let mut link = within(group.accept(&listener)).await;
    sleep(period * 3 / 4).await;
    let yielding = Message::Yield { resume: Ticks(0) };
    assert_eq!(rights::ask(&mut link, &yielding).await, Status::SUCCESS);
    link.close().await;
    // The second part has what is left, and not all of it again.
    let mut link = within(group.accept(&listener)).await;
    let started = Instant::now();
    let (message_type, _) = within(link.receive()).await.unwrap().unwrap();
    assert_eq!(message_type, MessageType::LINFO);
    assert!(started.elapsed() < period * 3 / 4, "{:?}", started.elapsed());
}
