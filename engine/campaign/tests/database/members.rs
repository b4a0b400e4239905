//! Members of a campaign: what they get, what they are refused, and what they learn from one another.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use campaign::administration::{Administration, Lost, NewCampaign};
use campaign::{Ask, ClientNews, JoinError, Plan, Refusal, State, join};

use crate::postgres::Postgres;
use crate::support::{Member, create, endpoint, new_campaign, plan, settings};

#[test]
#[ignore = "needs postgresql"]
fn an_endpoint_is_measured_once_by_whoever_took_it_first() {
    let postgres = Postgres::new();
    let mut owner = create(&postgres, "one", &new_campaign());
    let (first, second) = (Member::join(&postgres, "one"), Member::join(&postgres, "one"));
    assert_eq!(first.client.plan(), &plan());
    assert_eq!(first.taken(1, endpoint(1)), Ok(1));
    assert_eq!(second.taken(1, endpoint(1)), Err(Refusal::Busy));
    first.finish(1, "ok");
    assert!(first.is_accepted(1));
    assert_eq!(second.taken(2, endpoint(1)), Err(Refusal::Done));
    // What is given back anybody may have, as a claim of its own.
    assert_eq!(first.taken(2, endpoint(2)), Ok(1));
    first.client.ask(Ask::Forget { session: 2 });
    let released = |standing: &campaign::Standing| standing.released == 1;
    first.standing(released);
    assert_eq!(second.taken(3, endpoint(2)), Ok(2));
    second.finish(3, "mlet_failed");
    assert!(second.is_accepted(3));
    second.client.leave();
    first.client.leave();
    let status = owner.status().expect("a status");
    assert_eq!((status.standing.done, status.standing.taken, status.claims), (2, 2, 3));
    let states = status.members.iter().map(|member| (member.state.as_str(), member.done));
    assert_eq!(states.collect::<Vec<_>>(), [("left", 1), ("left", 1)]);
    let kept = postgres.sql("SELECT outcome, record FROM pktlab.result ORDER BY endpoint");
    assert_eq!(kept, "ok|{\"session\":1}\nmlet_failed|{\"session\":3}");
}

#[test]
#[ignore = "needs postgresql"]
fn who_brings_another_mlet_or_snikey_or_comes_too_late_is_told_why() {
    let postgres = Postgres::new();
    let mut owner = create(&postgres, "plan", &new_campaign());
    let address = postgres.address("plan");
    let mut other = settings(&address);
    other.plan.mlet_digest = [8; 32];
    other.plan.snikeys = vec!["xyz".to_owned()];
    let refused = join(other, |_| {}).expect_err("another mlet");
    let JoinError::Different(differences) = refused else { panic!("{refused}") };
    assert_eq!(differences.len(), 2, "{differences:?}");
    assert!(differences[0].contains(&"07".repeat(32)) && differences[0].contains(&"08".repeat(32)));
    assert!(differences[1].contains("\"abc\"") && differences[1].contains("\"xyz\""));
    let one_other: [fn(&mut Plan); 4] = [
        |plan| plan.mlet_digest = [8; 32],
        |plan| plan.argv.clear(),
        |plan| plan.descriptor = Some("snikey=abc;pub_end=8;".to_owned()),
        |plan| plan.snikeys.push("xyz".to_owned()),
    ];
    for change in one_other {
        let mut other = settings(&address);
        change(&mut other.plan);
        let refused = join(other, |_| {}).expect_err("another plan");
        assert!(
            matches!(&refused, JoinError::Different(differences) if differences.len() == 1),
            "{refused}"
        );
    }
    let unknown = join(settings(&postgres.address("nobody")), |_| {});
    assert_eq!(unknown.expect_err("no such"), JoinError::Unknown("nobody".to_owned()));
    let mut without_text = settings(&address);
    without_text.plan.descriptor = None;
    let member = Member::with(without_text);
    assert_eq!(member.client.plan(), &plan());
    owner.stop().expect("stopped");
    let late = join(settings(&address), |_| {}).expect_err("too late");
    assert_eq!(late, JoinError::Ended("draining".to_owned()));
    member.client.leave();
}

#[test]
#[ignore = "needs postgresql"]
fn one_publishes_and_another_takes_over_when_it_has_no_places_or_leaves() {
    let postgres = Postgres::new();
    let new = NewCampaign { lease: Duration::from_secs(2), ..new_campaign() };
    create(&postgres, "publisher", &new);
    let first = Member::join(&postgres, "publisher");
    first.standing(|standing| standing.publish);
    let second = Member::join(&postgres, "publisher");
    let seen = second.standing(|standing| standing.managers == 2);
    assert!(!seen.publish);
    assert_eq!(seen.places, 200);
    first.client.ask(Ask::Places(0));
    assert_eq!(second.standing(|standing| standing.publish).places, 100);
    assert!(!first.standing(|standing| standing.places == 100).publish, "it takes nobody");
    second.client.ask(Ask::Places(0));
    assert!(!second.standing(|standing| standing.places == 0).publish);
    first.client.ask(Ask::Places(1));
    first.standing(|standing| standing.publish);
    second.client.ask(Ask::Places(1));
    second.standing(|standing| standing.places == 2);
    first.client.leave();
    let alone = second.standing(|standing| standing.publish);
    assert_eq!(alone.managers, 1);
    second.client.leave();
}

#[test]
#[ignore = "needs postgresql"]
fn stop_lets_sessions_end_and_halt_is_told_to_all() {
    let postgres = Postgres::new();
    let new = NewCampaign { lease: Duration::from_secs(2), ..new_campaign() };
    let mut owner = create(&postgres, "stop", &new);
    let member = Member::join(&postgres, "stop");
    assert_eq!(member.taken(1, endpoint(1)), Ok(1));
    assert_eq!(owner.stop().expect("stopped"), State::Draining);
    member.standing(|standing| standing.state == State::Draining);
    assert_eq!(member.taken(2, endpoint(2)), Err(Refusal::Stop));
    member.finish(1, "ok");
    assert!(member.is_accepted(1));
    assert_eq!(owner.halt().expect("halted"), State::Halted);
    member.standing(|standing| standing.state == State::Halted);
    assert_eq!(owner.stop().expect("heard"), State::Halted);
    member.client.leave();
    assert_eq!(owner.status().expect("a status").standing.state, State::Over);
}

#[test]
#[ignore = "needs postgresql"]
fn a_campaign_that_was_stopped_is_over_when_its_managers_are_gone_however_they_went() {
    let postgres = Postgres::new();
    let new = NewCampaign { lease: Duration::from_secs(1), ..new_campaign() };
    let state = |owner: &mut Administration| owner.status().expect("a status").standing.state;
    let mut owner = create(&postgres, "left", &new);
    let member = Member::join(&postgres, "left");
    assert_eq!(owner.stop().expect("stopped"), State::Draining);
    assert_eq!(state(&mut owner), State::Draining, "one is there");
    member.client.leave();
    assert_eq!(state(&mut owner), State::Over);
    assert_eq!(owner.halt().expect("heard"), State::Over);
    assert_eq!(owner.status().expect("a status").decided, State::Draining, "it was not halted");
    let mut owner = create(&postgres, "lost", &new);
    let member = Member::join(&postgres, "lost");
    assert_eq!(owner.halt().expect("halted"), State::Halted);
    drop(member);
    // Nobody marks it; whoever follows hears of the end all the same.
    owner.results(true, |_| ControlFlow::Continue(())).expect("no results");
    let status = owner.status().expect("a status");
    assert_eq!((status.standing.state, &*status.members[0].state), (State::Over, "silent"));
    assert_eq!(status.decided, State::Halted);
    let mut owner = create(&postgres, "nobody", &new);
    assert_eq!(state(&mut owner), State::Open, "somebody may come");
    assert_eq!(owner.stop().expect("stopped"), State::Over);
}

/// Three members race for the same endpoints, each twice in one batch, and one in the opposite order.
#[test]
#[ignore = "needs postgresql"]
fn of_several_who_race_for_an_endpoint_one_wins() {
    const ENDPOINTS: u16 = 2000;
    let postgres = Postgres::new();
    create(&postgres, "race", &new_campaign());
    let members = [(); 3].map(|()| Member::join(&postgres, "race"));
    let mut winners = BTreeMap::<u16, u32>::new();
    for number in 0..ENDPOINTS {
        for (index, member) in members.iter().enumerate() {
            // The same hundred in the opposite order, so that both have them in one batch.
            let number = if index == 1 { number / 100 * 100 + 99 - number % 100 } else { number };
            let session = u64::from(number) * 2;
            member.take(session, endpoint(number));
            member.take(session + 1, endpoint(number));
        }
    }
    for member in &members {
        let mut left = u32::from(ENDPOINTS) * 2;
        while left > 0 {
            member.wait(|told| match told {
                ClientNews::Won { session, epoch: 1 } => {
                    *winners.entry(u16::try_from(*session / 2).expect("a number")).or_default() +=
                        1;
                    Some(())
                }
                ClientNews::Refused { why: Refusal::Busy, .. } => Some(()),
                ClientNews::Standing(_) => None,
                other => panic!("{other:?}"),
            });
            left -= 1;
        }
    }
    assert_eq!(winners.len(), usize::from(ENDPOINTS));
    assert!(winners.values().all(|wins| *wins == 1), "two winners of one endpoint");
    let deadlocks =
        postgres.sql("SELECT deadlocks FROM pg_stat_database WHERE datname = 'postgres'");
    assert_eq!(deadlocks, "0");
    let claimed = postgres.sql("SELECT sum(claimed), count(*) FROM pktlab.manager");
    assert_eq!(claimed, format!("{ENDPOINTS}|3"));
}

#[test]
#[ignore = "needs postgresql"]
fn exactly_n_are_done_under_a_race_and_then_the_campaign_is_over() {
    const N: u64 = 500;
    let postgres = Postgres::new();
    let new = NewCampaign { n: Some(N), lease: Duration::from_secs(2), ..new_campaign() };
    create(&postgres, "count", &new);
    let members = [(); 3].map(|()| Member::join(&postgres, "count"));
    for number in 0..600 {
        for (index, member) in members.iter().enumerate() {
            member.take(number.into(), endpoint(number + 600 * u16::try_from(index).expect("few")));
        }
    }
    let mut won = 0;
    for member in &members {
        let mut given = Vec::new();
        for session in 0..600 {
            match member.verdict(session) {
                Ok(_) => given.push(session),
                Err(why) => assert_eq!(why, Refusal::Full),
            }
        }
        won += given.len() as u64;
        for session in given {
            member.finish(session, "ok");
            assert!(member.is_accepted(session));
        }
    }
    assert_eq!(won, N);
    for member in &members {
        let over = member.standing(|standing| standing.state == State::Over);
        assert_eq!((over.done, over.taken, over.n), (N, N, Some(N)));
    }
}

#[test]
#[ignore = "needs postgresql"]
fn a_place_that_is_given_back_is_free_and_an_endpoint_that_was_tried_enough_is_spent() {
    let postgres = Postgres::new();
    let new = NewCampaign { n: Some(1), tries: 2, ..new_campaign() };
    create(&postgres, "tries", &new);
    let member = Member::join(&postgres, "tries");
    for (session, epoch) in [(1, 1), (2, 2)] {
        assert_eq!(member.taken(session, endpoint(1)), Ok(epoch));
        assert_eq!(member.taken(session + 10, endpoint(2)), Err(Refusal::Full));
        member.client.ask(Ask::Forget { session });
    }
    assert_eq!(member.taken(3, endpoint(1)), Err(Refusal::Spent));
    assert_eq!(member.taken(4, endpoint(2)), Ok(1));
    assert_eq!(member.standing(|standing| standing.spent == 1).taken, 1);
}

#[test]
#[ignore = "needs postgresql"]
fn rounds_begin_when_it_is_quiet_and_waves_when_places_are_free() {
    let postgres = Postgres::new();
    let waves = vec!["hostid=*0;".to_owned(), "hostid=*1;".to_owned()];
    let new = NewCampaign { lease: Duration::from_secs(1), waves: waves.clone(), ..new_campaign() };
    create(&postgres, "waves", &new);
    postgres
        .sql("UPDATE pktlab.campaign SET wave_gap = '0 s', round_quiet = '1 s', round_gap = '1 s'");
    let mut crowded = settings(&postgres.address("waves"));
    crowded.places = 0;
    let member = Member::with(crowded);
    assert_eq!(member.client.waves(), waves);
    // The only place is taken: the second wave must wait until others are there.
    assert_eq!(member.taken(1, endpoint(1)), Ok(1));
    member.client.ask(Ask::Places(1));
    for _ in 0..2 {
        assert_eq!(member.standing(|standing| standing.places == 1).wave, 1);
    }
    member.client.ask(Ask::Places(10));
    assert_eq!(member.standing(|standing| standing.wave == 2).round, 1);
    // All waves are through, but there is nobody to be called again.
    member.finish(1, "ok");
    assert!(member.is_accepted(1));
    assert_eq!(member.taken(2, endpoint(2)), Ok(1));
    member.client.ask(Ask::Forget { session: 2 });
    let again = member.standing(|standing| standing.round == 2);
    assert_eq!((again.wave, again.released), (1, 1));
    member.client.leave();
}

/// Endpoints that were about to be claimed by it are known to nobody.
#[test]
#[ignore = "needs postgresql"]
fn a_round_begins_when_a_manager_without_claims_was_lost() {
    let postgres = Postgres::new();
    let new = NewCampaign { lease: Duration::from_secs(1), ..new_campaign() };
    create(&postgres, "unclaimed", &new);
    let publisher = Member::join(&postgres, "unclaimed");
    publisher.standing(|standing| standing.publish);
    let other = Member::join(&postgres, "unclaimed");
    publisher.standing(|standing| standing.managers == 2);
    postgres.sql("UPDATE pktlab.campaign SET round_quiet = '1 s', round_gap = '1 s'");
    drop(other);
    publisher.standing(|standing| standing.managers == 1);
    let mut told = (0..50).map(|_| publisher.standing(|_| true));
    let again = told.find(|standing| standing.round == 2).expect("a second round");
    assert_eq!((again.lost, again.released, again.taken), (0, 0, 0));
    // It is called once.
    for _ in 0..20 {
        assert_eq!(publisher.standing(|_| true).round, 2);
    }
    publisher.client.leave();
}

/// It may have turned them away while it was full, or could not be reached. Nothing is lost and nobody has gone.
#[test]
#[ignore = "needs postgresql"]
fn a_round_begins_when_endpoints_came_in_vain_and_there_is_room_for_them() {
    let postgres = Postgres::new();
    let new = NewCampaign { lease: Duration::from_secs(1), ..new_campaign() };
    create(&postgres, "missed", &new);
    let mut settings = settings(&postgres.address("missed"));
    settings.places = 2;
    let member = Member::with(settings);
    member.standing(|standing| standing.publish);
    assert_eq!(member.taken(1, endpoint(1)), Ok(1));
    postgres.sql("UPDATE pktlab.campaign SET round_quiet = '0', round_gap = '0'");
    member.client.ask(Ask::Missed);
    for _ in 0..10 {
        assert_eq!(member.standing(|_| true).round, 1, "half of the places are free, not more");
    }
    member.finish(1, "ok");
    assert!(member.is_accepted(1));
    let again = member.standing(|standing| standing.round == 2);
    assert_eq!((again.lost, again.released, again.managers), (0, 0, 1));
    for _ in 0..10 {
        assert_eq!(member.standing(|_| true).round, 2, "they are called once");
    }
    member.client.leave();
}

#[test]
#[ignore = "needs postgresql"]
fn what_was_lost_is_measured_at_most_once_where_that_is_wanted() {
    let postgres = Postgres::new();
    let new = NewCampaign { lost: Lost::Skip, ..new_campaign() };
    create(&postgres, "skip", &new);
    let first = Member::join(&postgres, "skip");
    assert_eq!(first.taken(1, endpoint(1)), Ok(1));
    first.client.leave();
    let second = Member::join(&postgres, "skip");
    assert_eq!(second.taken(1, endpoint(1)), Err(Refusal::Spent));
    assert_eq!(second.taken(2, endpoint(2)), Ok(1));
    second.client.ask(Ask::Forget { session: 2 });
    assert_eq!(second.taken(3, endpoint(2)), Ok(2), "it had not begun");
}

#[test]
#[ignore = "needs postgresql"]
fn a_record_that_the_database_would_not_take_is_left_out() {
    let postgres = Postgres::new();
    create(&postgres, "records", &new_campaign());
    let member = Member::join(&postgres, "records");
    let long = format!("\"{}\"", "x".repeat(campaign::RECORD_MAX_BYTES));
    let records = ["{\"nul\":\"\\u0000\"}", "not JSON", &long];
    for (session, record) in (1..).zip(records) {
        assert_eq!(member.taken(session.into(), endpoint(session)), Ok(1));
        let record = record.to_owned();
        member.client.ask(Ask::Finish {
            session: session.into(),
            outcome: "ok".to_owned(),
            record: record.clone(),
        });
        let left_out = member.wait(|told| match told {
            ClientNews::RecordLeftOut { session: of, len_bytes } => Some(Some((*of, *len_bytes))),
            ClientNews::Accepted { .. } => Some(None),
            _ => None,
        });
        let is_left_out = session > 1;
        assert_eq!(left_out, is_left_out.then_some((session.into(), record.len())));
        assert!(!is_left_out || member.is_accepted(session.into()));
    }
    let kept = postgres.sql("SELECT record FROM pktlab.result ORDER BY endpoint");
    assert_eq!(kept, "{\"nul\":\"\\ufffd\"}\nnull\nnull");
}
