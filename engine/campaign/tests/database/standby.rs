//! Two servers in one address: a primary, and a standby that takes its place.

use std::collections::BTreeMap;

use campaign::administration::Administration;
use campaign::{ClientNews, Refusal};
use nix::sys::signal::Signal;

use crate::postgres::Postgres;
use crate::support::{Member, access, create, endpoint, new_campaign, settings, until};

const ENDPOINTS: u16 = 3000;

#[test]
#[ignore = "needs postgresql"]
fn what_was_acknowledged_is_there_when_the_standby_takes_the_place_of_the_primary() {
    let mut primary = Postgres::new();
    let standby = Postgres::standby_of(&primary);
    primary.sql("ALTER SYSTEM SET synchronous_standby_names = standby");
    primary.sql("SELECT pg_reload_conf()");
    let states = "SELECT string_agg(sync_state, ' ') FROM pg_stat_replication";
    until("the standby confirms", || primary.sql(states) == "sync");
    let address = primary.address_with(&standby, "two");
    let mut owner = Administration::open(&access(&address)).expect("the primary");
    owner.create(&new_campaign()).expect("a new campaign");
    let member = Member::with(settings(&address));
    for number in 0..ENDPOINTS {
        member.take(number.into(), endpoint(number));
    }
    let mut won = BTreeMap::new();
    let mut verdicts = 0;
    let mut hear = |won: &mut BTreeMap<u64, u32>| {
        member.wait(|told| match told {
            ClientNews::Won { session, epoch } => Some(won.insert(*session, *epoch)),
            ClientNews::Refused { why: Refusal::Unanswered, .. } => Some(None),
            ClientNews::Refused { .. } => panic!("{told:?}"),
            _ => None,
        });
        verdicts += 1;
        verdicts
    };
    while hear(&mut won) < 300 {}
    let before = won.len();
    primary.kill(); // others are under way
    assert_eq!(standby.sql("SELECT pg_is_in_recovery()"), "t");
    assert_eq!(standby.sql("SELECT pg_promote()"), "t");
    while hear(&mut won) < ENDPOINTS.into() {}
    println!("{before} of {ENDPOINTS} were won before, {} in all", won.len());
    assert!(before >= 300 && won.len() > before, "on either side of the kill");
    assert_eq!(member.taken(u64::from(ENDPOINTS), endpoint(ENDPOINTS)), Ok(1), "it goes on");
    let claims = "SELECT session, epoch FROM pktlab.claim WHERE state = 0";
    let claims = standby.sql(claims);
    let claims: BTreeMap<u64, u32> = claims
        .lines()
        .filter_map(|line| line.split_once('|'))
        .map(|(session, epoch)| (session.parse().expect("a number"), epoch.parse().expect("one")))
        .collect();
    for (session, epoch) in &won {
        assert_eq!(claims.get(session), Some(epoch), "session {session} was acknowledged");
    }
    let (session, _) = won.pop_first().expect("one before the kill");
    member.finish(session, "ok");
    assert!(member.is_accepted(session));
    member.client.leave();
}

/// The default of this database confirms what a standby has not.
#[test]
#[ignore = "needs postgresql"]
fn a_claim_waits_for_the_standby_whatever_the_default_of_the_database_is() {
    let postgres = Postgres::within(&std::env::temp_dir(), "synchronous_commit=local");
    create(&postgres, "local", &new_campaign());
    let member = Member::join(&postgres, "local");
    postgres.sql("ALTER SYSTEM SET synchronous_standby_names = nobody");
    postgres.sql("SELECT pg_reload_conf()");
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query LIKE '%pktlab.take%'";
    let mut number = 0;
    until("a claim waits for a standby", || {
        number += 1;
        member.take(number.into(), endpoint(number));
        postgres.sql(waits) == "1"
    });
    postgres.sql("ALTER SYSTEM RESET synchronous_standby_names");
    postgres.sql("SELECT pg_reload_conf()");
    assert_eq!(member.verdict(number.into()), Ok(1), "nobody is waited for any more");
    member.client.leave();
}

/// As one does that has stood still: the kernel takes connections for it, and nobody answers.
#[test]
#[ignore = "needs postgresql"]
fn a_host_that_says_nothing_leaves_time_for_the_next() {
    let postgres = Postgres::new();
    create(&postgres, "behind", &new_campaign());
    let silent = Postgres::new();
    silent.signal_all(Signal::SIGSTOP);
    let member = Member::with(settings(&silent.address_with(&postgres, "behind")));
    assert_eq!(member.taken(1, endpoint(1)), Ok(1));
    member.client.leave();
}
