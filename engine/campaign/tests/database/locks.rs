//! What waits for what: calls that meet a transaction which somebody has begun go on when it is over, and neither is
//! refused because they wait for each other.

use std::thread;
use std::time::Instant;

use campaign::administration::{Administration, Imported};
use tokio::runtime::Runtime;
use tokio_postgres::{Client, NoTls};

use crate::administration::journal;
use crate::postgres::Postgres;
use crate::support::{PATIENCE, access, create, endpoint, new_campaign, now};

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
         '{{abc}}'); SELECT pktlab.take('locks', {manager}, 1, ARRAY[{key}], ARRAY[{number}]::bigint[])"
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
    let manager = id(1);
    let locked = format!("SELECT 1 FROM pktlab.manager WHERE id = {manager} FOR NO KEY UPDATE");
    session.run(&format!("BEGIN; {locked}"));
    let address = postgres.address("locks");
    let importing = thread::spawn(move || {
        let mut owner = Administration::open(&access(&address)).expect("the owner");
        let imported = owner.import([Ok(journal(1, 1, "journal")), Ok(journal(2, 1, "journal"))]);
        (imported, owner.status().map(|status| status.standing))
    });
    wait_for_a_lock(&postgres);
    let key = key(1);
    session.run(&format!(
        "SELECT pktlab.finish('locks', {manager}, ARRAY[{key}], ARRAY[1], ARRAY['reported'], ARRAY['{{}}']); COMMIT"
    ));
    let (imported, standing) = importing.join().expect("no panic");
    assert_eq!(imported, Ok(Imported { accepted: 1, known: 1 }));
    assert_eq!(standing.map(|standing| standing.done), Ok(2));
    let counts = "SELECT host, claimed, done FROM pktlab.manager ORDER BY id";
    assert_eq!(postgres.sql(counts), "imported|0|1\nh|0|1");
    let outcomes = "SELECT string_agg(outcome, ' ' ORDER BY endpoint) FROM pktlab.result";
    assert_eq!(postgres.sql(outcomes), "reported journal");
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
    let leaves = format!("SELECT alive FROM pktlab.beat('locks', {}, 1, true)", id(1));
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
