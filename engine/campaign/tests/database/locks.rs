//! What waits for what: calls that meet a transaction which somebody has begun go on when it is over, and neither is
//! refused because they wait for each other.

use std::ops::ControlFlow;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Instant;

use campaign::State;
use campaign::administration::{Administration, CampaignResult, Imported, NewCampaign};
use tokio::runtime::Runtime;
use tokio_postgres::{Client, NoTls};

use crate::administration::journal;
use crate::postgres::Postgres;
use crate::support::{PATIENCE, access, create, endpoint, new_campaign, now, until};

/// A session of the database that calls functions by itself.
struct Session {
    runtime: Runtime,
    client: Client,
}

impl Session {
    fn new(postgres: &Postgres) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let address = postgres.address("none");
        let (address, _) = address.split_once('#').expect("an address with a name");
        let (client, connection) =
            runtime.block_on(tokio_postgres::connect(address, NoTls)).expect("a connection");
        runtime.spawn(connection);
        Self { runtime, client }
    }

    fn run(&self, statements: &str) {
        self.runtime.block_on(self.client.batch_execute(statements)).expect(statements);
    }
}

fn key(number: u16) -> String {
    let hex = endpoint(number).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("decode('{hex}', 'hex')")
}

fn id(manager: u8) -> String {
    format!("'{manager:032x}'::uuid")
}

/// Enters a manager, and gives it one endpoint.
fn enter(session: &Session, manager: u8, number: u16) {
    let (manager, key) = (id(manager), key(number));
    session.run(&format!(
        "SELECT pktlab.enter('locks', {manager}, 'h', 'v', 1, decode(repeat('07', 32), 'hex'), '{{-c,3}}', NULL, \
         '{{abc}}', NULL); SELECT pktlab.take('locks', {manager}, 1, ARRAY[{key}], ARRAY[{number}]::bigint[])"
    ));
}

fn silence(session: &Session, manager: u8) {
    let lease = "UPDATE pktlab.manager SET lease_until = '-infinity' WHERE id =";
    session.run(&format!("{lease} {}", id(manager)));
}

/// Until somebody waits for a lock.
fn wait_for_a_lock(postgres: &Postgres) {
    let until: Instant = now() + PATIENCE;
    while postgres.sql("SELECT count(*) FROM pg_locks WHERE NOT granted") == "0" {
        assert!(now() < until, "nobody waits");
    }
}

/// A manager was silent for longer than its lease, and reports while somebody puts its journal back.
#[test]
#[ignore = "needs postgresql"]
fn an_import_waits_for_a_result_that_is_being_reported_and_counts_it() {
    let postgres = Postgres::new();
    create(&postgres, "locks", &new_campaign());
    let session = Session::new(&postgres);
    enter(&session, 1, 1);
    silence(&session, 1);
    let (manager, key) = (id(1), key(1));
    session.run(&format!(
        "BEGIN; SELECT pktlab.finish('locks', {manager}, ARRAY[{key}], ARRAY[1], ARRAY['reported'], ARRAY['{{}}'])"
    ));
    let address = postgres.address("locks");
    let importing = thread::spawn(move || {
        let mut owner = Administration::open(&access(&address)).expect("the owner");
        let imported = owner.import([Ok(journal(1, 1, "journal")), Ok(journal(2, 1, "journal"))]);
        (imported, owner.status().map(|status| status.standing))
    });
    wait_for_a_lock(&postgres);
    session.run("COMMIT");
    let (imported, standing) = importing.join().expect("no panic");
    assert_eq!(imported, Ok(Imported { accepted: 1, known: 1 }));
    assert_eq!(standing.map(|standing| standing.done), Ok(2));
    let counts = "SELECT host, claimed, done FROM pktlab.manager ORDER BY host";
    assert_eq!(postgres.sql(counts), "h|0|1\nlab0|0|1");
    let outcomes = "SELECT string_agg(outcome, ' ' ORDER BY endpoint) FROM pktlab.result";
    assert_eq!(postgres.sql(outcomes), "reported journal");
}

/// It was allowed to, as its manager's lease ran out a moment later.
#[test]
#[ignore = "needs postgresql"]
fn who_follows_waits_for_a_result_that_is_being_reported_when_the_campaign_is_over() {
    let postgres = Postgres::new();
    let mut owner = create(&postgres, "locks", &new_campaign());
    let session = Session::new(&postgres);
    enter(&session, 1, 1);
    let (manager, key) = (id(1), key(1));
    session.run(&format!(
        "BEGIN; SELECT pktlab.finish('locks', {manager}, ARRAY[{key}], ARRAY[1], ARRAY['reported'], ARRAY['{{}}'])"
    ));
    // The row of the manager is locked, so that its lease cannot be ended otherwise.
    let over = "UPDATE pktlab.campaign SET state = 'over'";
    postgres.sql(over);
    let address = postgres.address("locks");
    let (tell, told) = channel();
    let following = thread::spawn(move || {
        let mut owner = Administration::open(&access(&address)).expect("the owner");
        let each = |result: CampaignResult| {
            tell.send(result.outcome).expect("the test goes on");
            ControlFlow::Continue(())
        };
        owner.results(true, each)
    });
    assert_eq!(owner.status().expect("a status").standing.state, State::Over);
    let looks = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pktxpmgr campaign' \
                 AND query LIKE '%pktlab.result%'";
    until("it has seen that, and goes on", || postgres.sql(looks) == "1");
    session.run("COMMIT");
    following.join().expect("no panic").expect("results");
    assert_eq!(told.try_iter().collect::<Vec<_>>(), ["reported"]);
}

/// The claims of who leaves and of who is lost are locked as one list, so that nobody who goes by endpoints holds one of them
/// and waits for another.
#[test]
#[ignore = "needs postgresql"]
fn the_claims_of_all_managers_that_end_at_once_are_locked_in_one_order() {
    let postgres = Postgres::new();
    create(&postgres, "locks", &new_campaign());
    let session = Session::new(&postgres);
    // Who leaves has the second of four endpoints, and who was silent the others.
    for (manager, number) in [(2, 1), (1, 2), (3, 3), (2, 4)] {
        enter(&session, manager, number);
    }
    silence(&session, 2);
    silence(&session, 3);
    let lock = |number| {
        let key = key(number);
        session.run(&format!("SELECT 1 FROM pktlab.claim WHERE endpoint = {key} FOR UPDATE"));
    };
    session.run("BEGIN");
    lock(1);
    let leaves = format!("SELECT alive FROM pktlab.beat('locks', {}, 1, true, false)", id(1));
    thread::scope(|scope| {
        let leaving = scope.spawn(|| postgres.sql(&leaves));
        wait_for_a_lock(&postgres);
        (2..=4).for_each(lock);
        session.run("COMMIT");
        assert_eq!(leaving.join().expect("no panic"), "t");
    });
    let ended = "SELECT string_agg(state, ' ' ORDER BY id) FROM pktlab.manager";
    assert_eq!(postgres.sql(ended), "left lost lost");
    assert_eq!(postgres.sql("SELECT count(*) FROM pktlab.claim WHERE state = 3"), "4");
}

/// The answer to the first may have been lost, and the manager counts from the second.
#[test]
#[ignore = "needs postgresql"]
fn who_enters_again_under_the_same_id_has_a_lease_from_then_on_unless_it_is_lost() {
    let postgres = Postgres::new();
    create(&postgres, "locks", &new_campaign());
    let session = Session::new(&postgres);
    let lease =
        "SELECT lease_until > clock_timestamp() + interval '59 s', state FROM pktlab.manager";
    enter(&session, 1, 1);
    session.run("UPDATE pktlab.manager SET lease_until = clock_timestamp() + interval '30 s'");
    assert_eq!(postgres.sql(lease), "f|live");
    enter(&session, 1, 1);
    assert_eq!(postgres.sql(lease), "t|live");
    silence(&session, 1);
    enter(&session, 1, 1);
    assert_eq!(postgres.sql(lease), "f|live", "others may have noticed");
    session.run("UPDATE pktlab.manager SET state = 'lost', lease_until = clock_timestamp()");
    enter(&session, 1, 1);
    assert_eq!(postgres.sql(lease), "f|lost");
}

/// A manager was lost with the first endpoint. What takes another one for a second manager.
fn lost(postgres: &Postgres, n: Option<u64>) -> (Session, impl Fn(u16) -> String) {
    create(postgres, "locks", &NewCampaign { n, ..new_campaign() });
    let session = Session::new(postgres);
    enter(&session, 1, 1);
    silence(&session, 1);
    enter(&session, 2, 2);
    let (manager, second) = (id(2), key(2));
    session.run(&format!(
        "SELECT pktlab.beat('locks', {manager}, 1, false, false); \
         SELECT pktlab.give_back('locks', {manager}, 1, ARRAY[{second}], ARRAY[2::bigint], ARRAY[false])"
    ));
    assert_eq!(postgres.sql("SELECT lost, taken FROM pktlab.standing"), "1|0");
    let take = move |number| {
        let key = key(number);
        format!("SELECT pktlab.take('locks', {manager}, 1, ARRAY[{key}], ARRAY[9::bigint])")
    };
    (session, take)
}

/// The result of the first endpoint, and how many are accepted.
fn late() -> String {
    let (manager, key) = (id(1), key(1));
    format!(
        "SELECT count(*) FROM pktlab.finish('locks', {manager}, ARRAY[{key}], ARRAY[1], ARRAY['late'], ARRAY['{{}}'])"
    )
}

/// Another manager has just begun to take the endpoint, or the last place of `n`.
#[test]
#[ignore = "needs postgresql"]
fn a_late_result_waits_for_who_takes_its_endpoint_or_the_last_place_and_is_refused() {
    for (n, number) in [(None, 1), (Some(1), 1), (Some(1), 2)] {
        let postgres = Postgres::new();
        let (session, take) = lost(&postgres, n);
        session.run(&format!("BEGIN; {}", take(number)));
        thread::scope(|scope| {
            let late = scope.spawn(|| postgres.sql(&late()));
            wait_for_a_lock(&postgres);
            session.run("COMMIT");
            assert_eq!(late.join().expect("no panic"), "0", "{n:?}, endpoint {number}");
        });
        let counts = "SELECT state, claimed, done FROM pktlab.manager ORDER BY id";
        assert_eq!(postgres.sql(counts), "lost|0|0\nlive|1|0");
        assert_eq!(postgres.sql("SELECT taken, done FROM pktlab.standing"), "1|0");
    }
}

#[test]
#[ignore = "needs postgresql"]
fn who_takes_an_endpoint_or_a_place_waits_for_a_late_result_that_has_it() {
    for (n, number, told) in
        [(None, 1, "(9,done,1)"), (Some(1), 1, "(9,done,1)"), (Some(1), 2, "(9,full,0)")]
    {
        let postgres = Postgres::new();
        let (session, take) = lost(&postgres, n);
        session.run(&format!("BEGIN; {}", late()));
        thread::scope(|scope| {
            let taking = scope.spawn(|| postgres.sql(&take(number)));
            wait_for_a_lock(&postgres);
            session.run("COMMIT");
            assert_eq!(taking.join().expect("no panic"), told);
        });
        let counts = "SELECT state, claimed, done FROM pktlab.manager ORDER BY id";
        assert_eq!(postgres.sql(counts), "lost|0|1\nlive|0|0");
        assert_eq!(postgres.sql("SELECT taken, done, lost FROM pktlab.standing"), "1|1|0");
        assert_eq!(postgres.sql(&late()), "1", "it may be told again");
    }
}

#[test]
#[ignore = "needs postgresql"]
fn who_waits_for_a_lock_is_told_who_holds_it_and_goes_on_when_it_is_free() {
    let postgres = Postgres::new();
    let mut owner = create(&postgres, "locks", &new_campaign());
    let session = Session::new(&postgres);
    session.run("SET application_name = 'holder'; BEGIN; LOCK TABLE pktlab.campaign");
    let (tell, told) = channel();
    owner.tell_waits(move |text| tell.send(text.to_owned()).expect("the test goes on"));
    let waiting = thread::spawn(move || (owner.stop(), owner));
    let pid = postgres.sql("SELECT pid FROM pg_stat_activity WHERE application_name = 'holder'");
    let text = told.recv_timeout(PATIENCE).expect("it is told");
    let expected = format!(
        "the database has waited for 5 s for a lock that its process {pid} holds (role postgres, program \"holder\"; \
         more is in pg_stat_activity); after 30 s it gives up"
    );
    assert_eq!(text, expected);
    session.run("COMMIT");
    let (stopped, mut owner) = waiting.join().expect("no panic");
    assert_eq!(stopped, Ok(State::Over));
    owner.forget().expect("nobody is there");
    assert_eq!(told.try_recv().ok(), None, "what is quick is not told");
}

/// As long as it is away nothing is confirmed.
#[test]
#[ignore = "needs postgresql"]
fn who_waits_for_a_standby_that_is_away_is_told_so() {
    let mut postgres = Postgres::new();
    create(&postgres, "locks", &new_campaign());
    postgres.sql("ALTER SYSTEM SET synchronous_standby_names = away");
    postgres.kill();
    postgres.start();
    let mut owner = Administration::open(&access(&postgres.address("locks"))).expect("the owner");
    let (tell, told) = channel();
    owner.tell_waits(move |text| tell.send(text.to_owned()).expect("the test goes on"));
    let waiting = thread::spawn(move || owner.stop());
    let text = told.recv_timeout(PATIENCE).expect("it is told");
    assert!(
        text.ends_with("for a standby that has to confirm (synchronous_standby_names)"),
        "{text}"
    );
    postgres.sql("ALTER SYSTEM RESET synchronous_standby_names");
    postgres.sql("SELECT pg_reload_conf()");
    assert_eq!(waiting.join().expect("no panic"), Ok(State::Over));
}
