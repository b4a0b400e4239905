//! What becomes of claims and results when the server is killed or stops, or a member does.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::net::UnixListener;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use campaign::administration::NewCampaign;
use campaign::{Ask, Client, ClientNews, Fence, Refusal, Settings, join};
use nix::sys::signal::Signal;

use crate::busy::{Busy, Heard};
use crate::postgres::Postgres;
use crate::support::{Member, PATIENCE, create, endpoint, new_campaign, now, settings};

fn short_lease() -> NewCampaign {
    NewCampaign { lease: Duration::from_secs(2), ..new_campaign() }
}

#[test]
#[ignore = "needs postgresql"]
fn nothing_that_was_acknowledged_is_lost_when_the_server_is_killed_under_load() {
    let mut postgres = Postgres::new();
    create(&postgres, "killed", &new_campaign());
    let mut members = ["a", "b"].map(|host| Busy::begin(&postgres, "killed", host, 3000));
    // It is killed in the middle of a batch of somebody, twice, and each time both notice.
    for (kills, kill_at) in (0..).zip([300, 900]) {
        let end = now() + PATIENCE;
        while members[0].accepted().len() + members[1].accepted().len() < kill_at
            || members.iter().any(|member| member.recoveries() < kills)
        {
            assert!(now() < end, "not in time after {kills} kills");
            members.iter_mut().for_each(Busy::hear);
        }
        assert!(members.iter().all(|member| !member.is_through()), "it is not idle");
        postgres.kill();
        postgres.start();
    }
    for member in &mut members {
        let end = now() + PATIENCE;
        while !member.is_through() || member.recoveries() < 2 {
            assert!(now() < end, "not in time after both kills");
            member.hear();
        }
        let unanswered = Heard::Refused(Refusal::Unanswered);
        let all = member.sessions.values();
        assert!(all.filter(|heard| **heard == unanswered).count() <= 256, "what was waiting");
    }
    for (member, host) in members.iter().zip(["a", "b"]) {
        let kept =
            postgres.sql(&format!("SELECT session FROM pktlab.result WHERE host = '{host}'"));
        let kept =
            kept.lines().map(|line| line.parse().expect("a number")).collect::<BTreeSet<u64>>();
        assert_eq!(kept, member.accepted());
    }
    let claims = "SELECT count(*) FILTER (WHERE state = 1), count(DISTINCT endpoint) = count(*) FROM pktlab.claim";
    let done = members[0].accepted().len() + members[1].accepted().len();
    assert_eq!(postgres.sql(claims), format!("{done}|t"));
}

/// A member whose thread stands still while `go_on` is not heard from, as if the process were stopped.
fn stoppable(
    postgres: &Postgres,
    name: &str,
    fence: Fence,
) -> (Client, Receiver<ClientNews>, Sender<()>) {
    let (tell, news) = channel();
    let (go_on, stopped) = channel();
    let hear = move |told: ClientNews| {
        let stops = matches!(told, ClientNews::Won { .. });
        tell.send(told).expect("somebody hears");
        if stops {
            stopped.recv().expect("it goes on");
        }
    };
    let settings = Settings { fence, ..settings(&postgres.address(name)) };
    (join(settings, hear).expect("a member"), news, go_on)
}

#[test]
#[ignore = "needs postgresql"]
fn a_member_that_stands_still_loses_its_claims_and_enters_anew() {
    let postgres = Postgres::new();
    create(&postgres, "stopped", &short_lease());
    let (client, news, go_on) = stoppable(&postgres, "stopped", Fence::Kill);
    client.ask(Ask::Take { session: 1, endpoint: endpoint(1) });
    let wait = |wanted: &ClientNews| {
        while news.recv_timeout(PATIENCE).expect("news in time") != *wanted {}
    };
    wait(&ClientNews::Won { session: 1, epoch: 1 });
    let other = Member::join(&postgres, "stopped");
    assert_eq!(other.taken(1, endpoint(1)), Err(Refusal::Busy));
    let seen = other.standing(|standing| standing.lost == 1);
    assert_eq!((seen.managers, seen.taken), (1, 0));
    assert_eq!(other.taken(2, endpoint(1)), Ok(2));
    go_on.send(()).expect("it hears");
    wait(&ClientNews::Fenced);
    let record = "{}".to_owned();
    client.ask(Ask::Finish { session: 1, outcome: "ok".to_owned(), record });
    // In whichever order: the finish is refused by the client itself, as it knows that it has no claims.
    let mut awaited = vec![ClientNews::Duplicate { session: 1 }, ClientNews::Entered];
    while !awaited.is_empty() {
        let told = news.recv_timeout(PATIENCE).expect("news in time");
        awaited.retain(|expected| *expected != told);
    }
    other.finish(2, "ok");
    assert!(other.is_accepted(2));
    assert_eq!(postgres.sql("SELECT epoch, session FROM pktlab.result"), "2|2");
    client.leave();
    assert_eq!(postgres.sql("SELECT state FROM pktlab.manager ORDER BY 1"), "left\nlive\nlost");
}

/// Others have marked it lost, and its session has gone on.
#[test]
#[ignore = "needs postgresql"]
fn a_result_that_waited_past_the_lease_is_accepted_where_nobody_has_taken_its_endpoint() {
    let postgres = Postgres::new();
    create(&postgres, "late", &short_lease());
    let (client, news, go_on) = stoppable(&postgres, "late", Fence::Finish);
    client.ask(Ask::Take { session: 1, endpoint: endpoint(1) });
    let wait = |wanted: &ClientNews| {
        while news.recv_timeout(PATIENCE).expect("news in time") != *wanted {}
    };
    wait(&ClientNews::Won { session: 1, epoch: 1 });
    let other = Member::join(&postgres, "late");
    assert_eq!(other.standing(|standing| standing.lost == 1).taken, 0);
    go_on.send(()).expect("it hears");
    wait(&ClientNews::Fenced);
    client.ask(Ask::Finish { session: 1, outcome: "ok".to_owned(), record: "{}".to_owned() });
    let is_settled = |told: &ClientNews| {
        matches!(told, ClientNews::Accepted { .. } | ClientNews::Duplicate { .. })
    };
    let settled = std::iter::repeat_with(|| news.recv_timeout(PATIENCE).expect("news in time"));
    let settled = settled.into_iter().find(is_settled);
    assert_eq!(settled, Some(ClientNews::Accepted { session: 1 }));
    let done = other.standing(|standing| standing.done == 1);
    assert_eq!((done.taken, done.lost, done.spent), (1, 0, 0));
    assert_eq!(other.taken(2, endpoint(1)), Err(Refusal::Done));
    assert_eq!(postgres.sql("SELECT epoch, session FROM pktlab.result"), "1|1");
    let counts = "SELECT claimed, done FROM pktlab.manager WHERE state = 'lost'";
    assert_eq!(postgres.sql(counts), "0|1");
    client.leave();
}

#[test]
#[ignore = "needs postgresql"]
fn a_database_that_is_away_for_too_long_fences_and_is_found_again() {
    let postgres = Postgres::new();
    create(&postgres, "away", &short_lease());
    let member = Member::join(&postgres, "away");
    assert_eq!(member.taken(1, endpoint(1)), Ok(1));
    postgres.signal_all(Signal::SIGSTOP);
    member.wait(|told| (*told == ClientNews::Fenced).then_some(()));
    postgres.signal_all(Signal::SIGCONT);
    member.wait(|told| (*told == ClientNews::Entered).then_some(()));
    member.standing(|standing| standing.lost == 1 && standing.managers == 1);
    assert_eq!(member.taken(2, endpoint(1)), Ok(2));
    member.client.leave();
}

#[test]
#[ignore = "needs postgresql"]
fn who_joins_waits_for_a_database_that_is_just_starting() {
    let mut postgres = Postgres::new();
    create(&postgres, "late", &new_campaign());
    postgres.kill();
    // In its place there is something that is asked and says nothing.
    let _ = fs::remove_file(postgres.socket());
    let dead = UnixListener::bind(postgres.socket()).expect("its place is free");
    let settings = settings(&postgres.address("late"));
    let joining = thread::spawn(move || join(settings, |_| {}));
    drop(dead.accept().expect("it is asked"));
    fs::remove_file(postgres.socket()).expect("it is there");
    postgres.start();
    let client = joining.join().expect("no panic").expect("a member");
    postgres.kill();
    let (tell, left) = channel();
    thread::spawn(move || {
        client.leave();
        tell.send(())
    });
    left.recv_timeout(PATIENCE).expect("it comes back although nobody answers");
}
