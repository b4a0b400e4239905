//! What an operator does: new campaigns, versions of tables, rights of roles, results, journals put back, an end.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::thread;
use std::time::Duration;

use campaign::administration::{
    Administration, AdministrationError, CampaignResult, Imported, JournalResult, NewCampaign,
};
use campaign::{DatabaseError, JoinError, News, RECORD_MAX_BYTES, State, join};

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

#[test]
#[ignore = "needs postgresql"]
fn tables_go_forward_from_the_first_version_with_all_they_hold() {
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
         VALUES ('old', decode(repeat('01', 32), 'hex'), 2, gen_random_uuid(), 9, 3)"
    ));
    let early = open(&postgres.address("old")).status().expect_err("no functions yet");
    assert!(matches!(early, AdministrationError::OlderSchema { found: 1, .. }), "{early}");
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
            NewCampaign { lease: Duration::from_millis(900), ..new_campaign() },
            AdministrationError::Lease,
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
    assert_eq!(reader.status().expect("a status").standing.done, 1);
    assert_eq!(results(&mut reader, false).len(), 1);
    let refused = |error: &AdministrationError| {
        matches!(error, AdministrationError::Database(DatabaseError::Refused(_)))
    };
    assert!(reader.stop().is_err_and(|error| refused(&error)));
    assert!(
        open(&postgres.address_as("host1", "roles")).status().is_err_and(|error| refused(&error))
    );
    for user in ["looker", "stranger"] {
        let joined = join(settings(&postgres.address_as(user, "roles")), |_| {});
        let error = joined.expect_err("no manager");
        assert!(matches!(error, JoinError::Database(DatabaseError::Refused(_))), "{error}");
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
    let new = NewCampaign { n: Some(N.into()), lease: Duration::from_secs(2), ..new_campaign() };
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
    assert_eq!(there, AdministrationError::ManagersThere(vec!["host1".to_owned()]));
    assert_eq!(owner.forget(), Err(there));
    member.client.leave();
    let rows = [
        journal(1, 1, "same claim as what is there"),
        journal(2, 1, "lost, but it was measured"),
        journal(4, 2, "later"),
        journal(4, 1, "earlier"),
        journal(5, 1, "new"),
    ];
    let many = (100..2600).map(|number| journal(number, 1, "many"));
    let imported = owner.import(rows.into_iter().chain(many).map(Ok)).expect("imported");
    assert_eq!(imported, Imported { accepted: 2503, known: 2 });
    let again = [journal(4, 1, "earlier"), journal(5, 1, "again")].map(Ok);
    let again = owner.import(again).expect("imported");
    assert_eq!(again, Imported { accepted: 0, known: 2 });
    let outcomes = "SELECT string_agg(outcome, ', ' ORDER BY endpoint) FROM pktlab.result WHERE outcome <> 'many'";
    assert_eq!(postgres.sql(outcomes), "own, lost, but it was measured, later, new");
    let status = owner.status().expect("a status");
    assert_eq!(
        (status.standing.done, status.standing.lost, status.standing.taken),
        (2504, 1, 2504)
    );
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

#[test]
#[ignore = "needs postgresql"]
fn a_member_of_a_campaign_that_is_removed_is_halted() {
    let postgres = Postgres::new();
    let new = NewCampaign { lease: Duration::from_secs(2), ..new_campaign() };
    create(&postgres, "gone", &new);
    let member = Member::join(&postgres, "gone");
    member.standing(|_| true);
    postgres.sql("DELETE FROM pktlab.campaign");
    member.wait(|told| (*told == News::Fenced).then_some(()));
    member.standing(|standing| standing.state == State::Halted);
}
