//! What an operator does: new campaigns, versions of tables, rights of roles, results, journals put back, an end.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::thread;
use std::time::Duration;

use campaign::administration::{
    Accepted, Administration, AdministrationError, CampaignResult, Imported, JournalResult,
    LEASE_MAX, LEASE_MIN, NewCampaign,
};
use campaign::{Ask, ClientNews, DatabaseError, JoinError, RECORD_MAX_BYTES, State, join};

use crate::postgres::Postgres;
use crate::support::{Member, access, create, endpoint, new_campaign, settings};

fn open(address: &str) -> Administration {
    Administration::open(&access(address)).expect("a connection")
}

fn results(owner: &mut Administration, follow: bool) -> Vec<CampaignResult> {
    let mut all = Vec::new();
    let each = |result| {
        all.push(result);
        ControlFlow::Continue(())
    };
    owner.results(follow, each).expect("results");
    all
}

/// A manager of this host is there, which has been silent for less than a minute of this lease.
fn assert_there(refused: &AdministrationError, host: &str, lease: Duration) {
    let AdministrationError::ManagersThere { hosts, lease_left } = refused else {
        panic!("{refused}");
    };
    assert_eq!(*hosts, [host]);
    let minute = Duration::from_secs(60);
    assert!(*lease_left <= lease && *lease_left + minute > lease, "{refused}");
}

#[test]
#[ignore = "needs postgresql"]
fn tables_go_forward_from_the_first_version_with_all_they_hold_when_no_manager_is_there() {
    let postgres = Postgres::new();
    let first = include_str!("../../sql/0001_tables.sql");
    postgres.sql(&format!(
        "CREATE SCHEMA pktlab; SET search_path = pktlab; \
         CREATE TABLE schema_version(version int PRIMARY KEY, made_at timestamptz DEFAULT now()); \
         INSERT INTO schema_version VALUES (1); {first} \
         INSERT INTO campaign(id, tries_max, lease, lost_again, mlet_digest, argv, descriptor, snikeys, waves) \
         VALUES ('old', 3, '60 s', true, decode(repeat('07', 32), 'hex'), '{{-c,3}}', 'snikey=abc;pub_end=9;', \
         '{{abc}}', '{{}}'); \
         INSERT INTO claim(campaign, endpoint, epoch, manager, session, state) \
         VALUES ('old', decode(repeat('01', 32), 'hex'), 2, gen_random_uuid(), 9, 3); \
         INSERT INTO manager(campaign, id, host, version, lease_until) VALUES ('old', gen_random_uuid(), 'h', 'v', \
         clock_timestamp() + interval '1 hour')"
    ));
    let early = open(&postgres.address("old")).status().expect_err("no functions yet");
    assert!(matches!(early, AdministrationError::OlderSchema { found: 1, .. }), "{early}");
    let there = open(&postgres.address("new")).create(&new_campaign()).expect_err("one is there");
    assert_there(&there, "h", Duration::from_secs(3600));
    postgres.sql("UPDATE pktlab.manager SET lease_until = clock_timestamp()");
    // Two at once: one waits for the other.
    let creating = ["one", "two"].map(|name| {
        let address = postgres.address(name);
        thread::spawn(move || open(&address).create(&new_campaign()))
    });
    for created in creating {
        created.join().expect("no panic").expect("a new campaign");
    }
    let versions =
        "SELECT string_agg(version::text, ' ' ORDER BY version) FROM pktlab.schema_version";
    assert_eq!(postgres.sql(versions), "1 2 3");
    let member = Member::join(&postgres, "old");
    assert_eq!(member.taken(1, [1; 32]), Ok(3), "the third claim of what was lost twice");
    member.client.leave();
    postgres.sql("INSERT INTO pktlab.schema_version VALUES (99)");
    let newer = open(&postgres.address("three")).create(&new_campaign()).expect_err("too new");
    assert_eq!(newer, AdministrationError::NewerSchema { found: 99, known: 3 });
    assert_eq!(open(&postgres.address("one")).stop(), Err(newer));
}

/// As a migration to come would have it, which older programs do not know.
#[test]
#[ignore = "needs postgresql"]
fn a_manager_is_told_when_the_database_has_functions_of_another_version() {
    let postgres = Postgres::new();
    create(&postgres, "protocol", &new_campaign());
    let functions = include_str!("../../sql/0002_functions.sql")
        .replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION")
        .replace("protocol <> 1", "protocol <> 2");
    postgres.sql(&format!("SET search_path = pktlab; {functions}"));
    let older = join(settings(&postgres.address("protocol")), |_| {}).expect_err("too old");
    assert_eq!(older, JoinError::Protocol);
}

#[test]
#[ignore = "needs postgresql"]
fn a_campaign_is_created_once_and_only_whole() {
    let postgres = Postgres::new();
    let mut owner = create(&postgres, "once", &new_campaign());
    let again = owner.create(&new_campaign());
    assert_eq!(again, Err(AdministrationError::Exists("once".to_owned())));
    for (wrong, why) in [
        (NewCampaign { tries: 0, ..new_campaign() }, AdministrationError::Count),
        (NewCampaign { n: Some(0), ..new_campaign() }, AdministrationError::Count),
        (
            NewCampaign { lease: LEASE_MIN - Duration::from_millis(1), ..new_campaign() },
            AdministrationError::Lease,
        ),
        (
            NewCampaign { lease: LEASE_MAX + Duration::from_millis(1), ..new_campaign() },
            AdministrationError::Lease,
        ),
        (
            NewCampaign { created: Some("2100-01-01T00:00:00Z".to_owned()), ..new_campaign() },
            AdministrationError::Created,
        ),
    ] {
        assert_eq!(open(&postgres.address("wrong")).create(&wrong), Err(why));
    }
    let unknown = AdministrationError::Unknown("wrong".to_owned());
    assert_eq!(open(&postgres.address("wrong")).status().expect_err("none"), unknown);
    let status = owner.status().expect("a status");
    assert_eq!(
        (status.plan, status.tries_max, status.lease),
        (new_campaign().plan, 3, new_campaign().lease)
    );
    let without =
        join(settings(&postgres.address("once").replace("/postgres?", "/template1?")), |_| {});
    let without = without.expect_err("no tables there");
    assert!(matches!(without, JoinError::Database(DatabaseError::NoSchema(_))), "{without}");
}

/// The owner is no superuser here, and managers and readers have logins of their own.
#[test]
#[ignore = "needs postgresql"]
fn each_role_may_do_its_part_and_no_more() {
    let postgres = Postgres::new();
    postgres.sql("CREATE USER pktlab; GRANT CREATE ON DATABASE postgres TO pktlab");
    let mut owner = open(&postgres.address_as("pktlab", "roles"));
    let missing = owner.create(&new_campaign()).expect_err("no roles");
    assert_eq!(missing, AdministrationError::Roles);
    let statement = missing.to_string();
    let statement = statement.split('`').nth(1).expect("a statement to run").to_owned();
    postgres.sql(&statement);
    owner.create(&new_campaign()).expect("a campaign");
    postgres.sql(
        "CREATE USER host1 IN ROLE pktlab_manager; CREATE USER looker IN ROLE pktlab_reader; CREATE USER stranger",
    );
    let member = Member::with(settings(&postgres.address_as("host1", "roles")));
    assert_eq!(member.taken(1, endpoint(1)), Ok(1));
    member.finish(1, "ok");
    assert!(member.is_accepted(1));
    let mut reader = open(&postgres.address_as("looker", "roles"));
    let status = reader.status().expect("a status");
    assert_eq!((status.standing.done, status.outcomes), (1, vec![("ok".to_owned(), 1)]));
    assert_eq!(results(&mut reader, false).len(), 1);
    assert_eq!(accepted(&mut reader).len(), 1);
    assert_eq!(reader.origin().expect("it may look").mlet_digest, new_campaign().plan.mlet_digest);
    assert_eq!(reader.stop(), Err(AdministrationError::NoOwner));
    let mut manager = open(&postgres.address_as("host1", "roles"));
    assert_eq!(manager.status().expect_err("no reader"), AdministrationError::NoReader);
    assert_eq!(manager.halt(), Err(AdministrationError::NoOwner));
    for user in ["looker", "stranger"] {
        let joined = join(settings(&postgres.address_as(user, "roles")), |_| {});
        let error = joined.expect_err("no manager");
        assert!(matches!(error, JoinError::Database(DatabaseError::NoRights(_))), "{error}");
        assert!(error.to_string().contains("GRANT pktlab_manager TO"), "{error}");
    }
    let may = "SELECT string_agg(p.proname, ' ' ORDER BY p.proname) FROM pg_proc p \
               WHERE p.pronamespace = 'pktlab'::regnamespace AND has_function_privilege('host1', p.oid, 'execute')";
    assert_eq!(postgres.sql(may), "beat enter finish give_back take");
    let may = "SELECT count(*) FROM pg_class c WHERE c.relnamespace = 'pktlab'::regnamespace \
               AND c.relkind IN ('r', 'v') AND has_table_privilege('host1', c.oid, 'select,insert,update,delete')";
    assert_eq!(postgres.sql(may), "0");
    member.client.leave();
}

#[test]
#[ignore = "needs postgresql"]
fn who_follows_gets_each_result_once_and_stops_when_the_campaign_is_over() {
    const N: u16 = 1500;
    let postgres = Postgres::new();
    let new = NewCampaign { n: Some(N.into()), lease: Duration::from_secs(10), ..new_campaign() };
    create(&postgres, "follow", &new);
    let address = postgres.address("follow");
    let following = thread::spawn(move || results(&mut open(&address), true));
    let members = [(); 2].map(|()| Member::join(&postgres, "follow"));
    for number in 0..N {
        let member = &members[usize::from(number % 2)];
        assert_eq!(member.taken(number.into(), endpoint(number)), Ok(1));
        member.finish(number.into(), "ok");
    }
    for member in members {
        member.standing(|standing| standing.state == State::Over);
        member.client.leave();
    }
    let followed = following.join().expect("no panic");
    let endpoints = followed.iter().map(|result| result.endpoint).collect::<BTreeSet<_>>();
    assert_eq!((followed.len(), endpoints.len()), (N.into(), N.into()));
    let first = &followed[0];
    assert_eq!(first.record, format!("{{\"session\":{}}}", first.session));
    assert_eq!(
        (first.outcome.as_str(), first.epoch, first.host.as_deref()),
        ("ok", 1, Some("host1"))
    );
    assert!(first.at.ends_with('Z') && first.at.contains('T'), "{}", first.at);
    // Who does not follow, and has enough after two.
    let mut seen = 0;
    let enough = |_| {
        seen += 1;
        if seen == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    open(&postgres.address("follow")).results(false, enough).expect("results");
    assert_eq!(seen, 2);
}

pub(crate) fn journal(number: u16, epoch: u32, outcome: &str) -> JournalResult {
    JournalResult {
        endpoint: endpoint(number),
        epoch,
        session: 7,
        host: (number < 1000).then(|| format!("lab{}\0", number % 2)),
        at: Some("2026-11-30T00:12:00.123456Z".to_owned()),
        outcome: outcome.to_owned(),
        record: "{}".to_owned(),
    }
}

#[test]
#[ignore = "needs postgresql"]
fn journals_are_put_back_and_the_latest_claim_counts() {
    let postgres = Postgres::new();
    let mut owner = create(&postgres, "import", &new_campaign());
    let member = Member::join(&postgres, "import");
    for number in 1..=3 {
        assert_eq!(member.taken(number.into(), endpoint(number)), Ok(1));
    }
    member.finish(1, "own");
    assert!(member.is_accepted(1));
    let there = owner.import([Ok(journal(9, 1, "no"))]).expect_err("a manager is there");
    assert_there(&there, "host1", new_campaign().lease);
    let there = owner.forget().expect_err("a manager is there");
    assert_there(&there, "host1", new_campaign().lease);
    member.client.leave();
    let rows = [
        journal(1, 1, "same claim as what is there"),
        journal(2, 1, "lost, but it was measured"),
        journal(4, 2, "later"),
        journal(4, 1, "earlier"),
        journal(5, 1, "new"),
    ];
    let many = (100..2600).map(|number| journal(number, 1, "many"));
    // Of some endpoints there are several results, also far from one another.
    let copies = (1..=5).flat_map(|number| (1..=2).map(move |_| journal(number, 1, "copy")));
    let copies = copies.filter(|copy| copy.endpoint != endpoint(3));
    let imported = owner.import(rows.into_iter().chain(many).chain(copies).map(Ok));
    assert_eq!(imported.expect("imported"), Imported { accepted: 2503, known: 1 });
    let again = [journal(4, 1, "earlier"), journal(5, 1, "again")].map(Ok);
    let again = owner.import(again).expect("imported");
    assert_eq!(again, Imported { accepted: 0, known: 2 });
    let outcomes = "SELECT string_agg(outcome, ', ' ORDER BY endpoint) FROM pktlab.result WHERE outcome <> 'many'";
    assert_eq!(postgres.sql(outcomes), "own, lost, but it was measured, later, new");
    let whose = "SELECT string_agg(DISTINCT host || ' ' || pktlab.utc(at), ', ') FROM pktlab.result WHERE outcome = 'many'";
    let at = "2026-11-30T00:12:00.123456Z";
    assert_eq!(postgres.sql(whose), format!("lab0 {at}, lab1 {at}, unknown {at}"));
    let status = owner.status().expect("a status");
    assert_eq!(
        (status.standing.done, status.standing.lost, status.standing.taken),
        (2504, 1, 2504)
    );
    let next_round = status.next_round.expect("one is lost, and all places are free");
    let (quiet, gap) = (Duration::from_secs(30), Duration::from_secs(60));
    assert!(quiet < next_round && next_round <= gap, "{next_round:?}");
    let mut members = status.members.iter().map(|one| (&*one.host, &*one.version, one.done));
    assert!(members.any(|one| one == ("unknown", "imported", 1600)), "{:?}", status.members);
    let read = (3000..4500).map(|number| Ok(journal(number, 1, "read")));
    let torn = owner.import(read.chain([Err("host1: it cannot be read".to_owned())]));
    let told = AdministrationError::Journal("host1: it cannot be read".to_owned());
    assert_eq!(torn.expect_err("a journal that ends early"), told);
    assert_eq!(owner.status().expect("a status").standing.done, 2504, "all or nothing");
    // What would have been reported without its record is put back without it.
    let long = format!("\"{}\"", "x".repeat(RECORD_MAX_BYTES));
    let unfit = [(6, long), (7, "{".to_owned())];
    let unfit =
        unfit.map(|(number, record)| Ok(JournalResult { record, ..journal(number, 1, "unfit") }));
    let imported = owner.import(unfit).expect("imported");
    assert_eq!(imported, Imported { accepted: 2, known: 0 });
    let unfit = "SELECT record FROM pktlab.result WHERE outcome = 'unfit'";
    assert_eq!(postgres.sql(unfit), "null\nnull");
    owner.forget().expect("nobody is there");
    assert_eq!(owner.forget(), Err(AdministrationError::Unknown("import".to_owned())));
    assert_eq!(postgres.sql("SELECT count(*) FROM pktlab.claim"), "0");
}

/// Who looks and who imports takes a campaign that is over for one that does not change any more.
#[test]
#[ignore = "needs postgresql"]
fn a_manager_that_comes_back_changes_nothing_of_a_campaign_that_is_over() {
    let postgres = Postgres::new();
    let mut owner = create(&postgres, "over", &new_campaign());
    let manager = "repeat('7', 32)::uuid";
    let keys = "SELECT decode(repeat('0' || number, 32), 'hex') FROM generate_series(1, 4) number";
    postgres.sql(&format!(
        "SELECT pktlab.enter('over', {manager}, 'h', 'v', 1, decode(repeat('07', 32), 'hex'), '{{-c,3}}', NULL, \
         '{{abc}}', NULL); SELECT pktlab.take('over', {manager}, 1, ARRAY({keys}), '{{1,2,3,4}}')"
    ));
    let finish = |number: u8| {
        postgres.sql(&format!(
            "SELECT epoch FROM pktlab.finish('over', {manager}, \
             ARRAY[decode(repeat('0{number}', 32), 'hex')], '{{1}}', '{{own}}', '{{null}}')"
        ))
    };
    assert_eq!(finish(1), "1");
    postgres.sql("UPDATE pktlab.manager SET lease_until = clock_timestamp()");
    assert_eq!(finish(2), "1", "it is open, and nobody has missed the manager");
    assert_eq!(owner.stop().expect("stopped"), State::Over);
    assert_eq!(finish(3), "", "it is over");
    assert_eq!((finish(1), finish(2)), ("1".to_owned(), "1".to_owned()), "as it was told before");
    assert_eq!(owner.status().expect("a status").standing.done, 2);
    // Where it is not over, who puts journals back has ended those that are silent, and what nobody has taken is still theirs.
    postgres.sql("UPDATE pktlab.campaign SET state = 'open'");
    assert_eq!(owner.import([]).expect("nobody is there"), Imported::default());
    assert_eq!(finish(3), "1", "nobody has taken it since");
    let status = owner.status().expect("a status");
    assert_eq!((status.members[0].state.as_str(), status.standing.taken), ("lost", 3));
    assert_eq!((status.standing.lost, status.standing.managers), (1, 0));
}

fn accepted(owner: &mut Administration) -> Vec<Accepted> {
    let mut all = Vec::new();
    owner.accepted(|result| all.push(result)).expect("what was accepted");
    all
}

#[test]
#[ignore = "needs postgresql"]
fn what_was_accepted_is_known_by_a_digest_and_can_be_looked_into() {
    let postgres = Postgres::new();
    let mut owner = create(&postgres, "digests", &new_campaign());
    let member = Member::join(&postgres, "digests");
    let long = format!("\"{}\"", "x".repeat(RECORD_MAX_BYTES));
    let records = [r#"{"reason":"a\u0000b"}"#, r#"{"reason":"\\u0000"}"#, &long];
    let reported = |number: u16, epoch| {
        let record = records[usize::from(number)].to_owned();
        JournalResult { record, ..journal(number, epoch, "ok") }
    };
    for number in 0..3 {
        assert_eq!(member.taken(number.into(), endpoint(number)), Ok(1));
        let JournalResult { outcome, record, .. } = reported(number, 1);
        member.client.ask(Ask::Finish { session: number.into(), outcome, record });
        assert!(member.is_accepted(number.into()));
    }
    assert_eq!(owner.origin().expect("it is there").created, member.client.created());
    member.client.leave();
    let imported = owner.import([Ok(reported(0, 2))]).expect("imported");
    assert_eq!(imported.accepted, 1);
    let told = accepted(&mut owner);
    assert_eq!(told.len(), 3);
    for (number, told) in (0..3).zip(&told) {
        let expected = reported(number, if number == 0 { 2 } else { 1 });
        assert_eq!((told.endpoint, told.epoch), (expected.endpoint, expected.epoch));
        assert_eq!(told.digest, expected.clone().digest(), "{number}");
        let other = JournalResult { outcome: "killed".to_owned(), ..expected };
        assert_ne!(told.digest, other.digest());
    }
    let reasons = "SELECT string_agg(record->>'reason', ' ' ORDER BY endpoint) FROM pktlab.result";
    assert_eq!(postgres.sql(reasons), "a\u{fffd}b \\u0000");
}

#[test]
#[ignore = "needs postgresql"]
fn a_campaign_that_was_lost_is_created_as_the_one_that_it_was() {
    let postgres = Postgres::new();
    let mut owner = create(&postgres, "lost", &new_campaign());
    let first = owner.origin().expect("it is there");
    owner.forget().expect("nobody is there");
    assert!(owner.origin().is_err());
    owner.create(&new_campaign()).expect("another");
    assert_ne!(owner.origin().expect("it is there"), first);
    owner.forget().expect("nobody is there");
    let created = Some(first.created.clone());
    owner.create(&NewCampaign { created, ..new_campaign() }).expect("the same");
    assert_eq!(owner.origin().expect("it is there"), first);
}

/// Puts another campaign in the place of the one that is there, as `forget` and `create` do after one another.
fn replace_campaign(postgres: &Postgres, change: &str) {
    postgres.sql(&format!(
        "CREATE TEMP TABLE other AS SELECT * FROM pktlab.campaign; UPDATE other SET publisher = NULL, {change}; \
         DELETE FROM pktlab.campaign; INSERT INTO pktlab.campaign SELECT * FROM other"
    ));
}

#[test]
#[ignore = "needs postgresql"]
fn a_manager_that_was_shut_out_enters_no_other_campaign_of_the_name() {
    let postgres = Postgres::new();
    let new = NewCampaign { lease: Duration::from_secs(2), ..new_campaign() };
    create(&postgres, "name", &new);
    for change in ["created_at = clock_timestamp()", "lease = '3 s'", "n = 7", "waves = '{a}'"] {
        let member = Member::join(&postgres, "name");
        member.standing(|_| true);
        replace_campaign(&postgres, change);
        let why = member.wait(|told| match told {
            ClientNews::ShutOut(why) => Some(why.clone()),
            ClientNews::Entered => panic!("it has entered another: {change}"),
            _ => None,
        });
        assert_eq!(why, JoinError::Another("name".to_owned()), "{change}");
        assert_eq!(postgres.sql("SELECT count(*) FROM pktlab.manager"), "0");
        member.client.leave();
    }
    // With the same plan in all, it is the same.
    let member = Member::join(&postgres, "name");
    member.standing(|_| true);
    replace_campaign(&postgres, "round = 3");
    member.wait(|told| (*told == ClientNews::Entered).then_some(()));
    member.client.leave();
}

#[test]
#[ignore = "needs postgresql"]
fn a_member_of_a_campaign_that_is_removed_is_told_so() {
    let postgres = Postgres::new();
    let new = NewCampaign { lease: Duration::from_secs(2), ..new_campaign() };
    create(&postgres, "gone", &new);
    let member = Member::join(&postgres, "gone");
    member.standing(|_| true);
    postgres.sql("DELETE FROM pktlab.campaign");
    member.wait(|told| (*told == ClientNews::Fenced).then_some(()));
    let why = member.wait(|told| match told {
        ClientNews::ShutOut(why) => Some(why.clone()),
        ClientNews::Standing(standing) => panic!("there is none to stand: {standing:?}"),
        _ => None,
    });
    assert_eq!(why, JoinError::Unknown("gone".to_owned()));
    member.client.leave();
}

/// It has let in as many as it may.
#[test]
#[ignore = "needs postgresql"]
fn a_database_that_is_there_and_cannot_is_not_called_unreachable() {
    let postgres = Postgres::new();
    postgres.sql("CREATE USER crowd CONNECTION LIMIT 0");
    let busy = Administration::open(&access(&postgres.address_as("crowd", "any")));
    let busy = busy.err().expect("nobody is let in");
    assert!(matches!(&busy, AdministrationError::Database(DatabaseError::Busy(_))), "{busy}");
    assert!(busy.to_string().contains("too many connections"), "{busy}");
}
