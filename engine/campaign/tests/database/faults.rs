//! What becomes of claims and results when the server is killed or stops, or a member does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use campaign::administration::NewCampaign;
use campaign::{Ask, Client, News, Refusal, join};
use nix::sys::signal::Signal;

use crate::postgres::Postgres;
use crate::support::{Member, PATIENCE, create, endpoint, new_campaign, settings};

fn short_lease() -> NewCampaign {
    NewCampaign { lease: Duration::from_secs(2), ..new_campaign() }
}

/// How one session has gone on, as far as its member has heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    Asked,
    Won(u32),
    Refused(Refusal),
    Accepted(u32),
}

/// A member that asks for one endpoint after the other, and finishes what it wins at once.
struct Busy {
    client: Client,
    news: Receiver<News>,
    sessions: BTreeMap<u64, Heard>,
    in_trouble: Vec<bool>,
}

const ENDPOINTS: u16 = 3000;
const IN_FLIGHT: u64 = 64;

impl Busy {
    fn join(postgres: &Postgres, name: &str, host: &str) -> Self {
        let (tell, news) = channel();
        let mut settings = settings(&postgres.address(name));
        settings.host = host.to_owned();
        let client = join(settings, move |told| drop(tell.send(told))).expect("a member");
        Self { client, news, sessions: BTreeMap::new(), in_trouble: Vec::new() }
    }

    /// Asks for the next endpoint, if there is one.
    fn ask_next(&mut self) {
        let session = self.sessions.len() as u64;
        if session < ENDPOINTS.into() {
            let endpoint = endpoint(u16::try_from(session).expect("few"));
            self.client.ask(Ask::Take { session, endpoint });
            self.sessions.insert(session, Heard::Asked);
        }
    }

    /// Hears one thing, and checks that it fits what was heard before.
    fn hear(&mut self) {
        let (session, now) = match self.news.recv_timeout(PATIENCE).expect("news in time") {
            News::Won { session, epoch } => {
                let record = format!("{{\"session\":{session}}}");
                self.client.ask(Ask::Finish { session, outcome: "ok".to_owned(), record });
                (session, Heard::Won(epoch))
            }
            News::Refused { session, why } => (session, Heard::Refused(why)),
            News::Accepted { session } => {
                let Heard::Won(epoch) = self.sessions[&session] else { panic!("never won") };
                (session, Heard::Accepted(epoch))
            }
            News::Trouble(_) => return self.in_trouble.push(true),
            News::Recovered => return self.in_trouble.push(false),
            News::Standing(_) => return,
            other => panic!("{other:?}"),
        };
        let before = self.sessions.insert(session, now);
        let fits = match now {
            Heard::Won(_) | Heard::Refused(_) => before == Some(Heard::Asked),
            Heard::Accepted(epoch) => before == Some(Heard::Won(epoch)),
            Heard::Asked => false,
        };
        assert!(fits, "session {session}: {before:?}, then {now:?}");
        if !matches!(now, Heard::Won(_)) {
            self.ask_next();
        }
    }

    fn accepted(&self) -> BTreeSet<u64> {
        let all = self.sessions.iter();
        all.filter(|(_, heard)| matches!(heard, Heard::Accepted(_)))
            .map(|(session, _)| *session)
            .collect()
    }

    fn is_through(&self) -> bool {
        self.sessions.len() == usize::from(ENDPOINTS)
            && !self.sessions.values().any(|heard| matches!(heard, Heard::Asked | Heard::Won(_)))
    }
}

#[test]
#[ignore = "needs postgresql"]
fn nothing_that_was_acknowledged_is_lost_when_the_server_is_killed_under_load() {
    let mut postgres = Postgres::new();
    create(&postgres, "killed", &new_campaign());
    let mut members = ["a", "b"].map(|host| Busy::join(&postgres, "killed", host));
    for member in &mut members {
        (0..IN_FLIGHT).for_each(|_| member.ask_next());
    }
    // Each is killed in the middle of a batch of somebody, twice.
    for kill_at in [300, 900] {
        while members[0].accepted().len() + members[1].accepted().len() < kill_at {
            members.iter_mut().for_each(Busy::hear);
        }
        postgres.kill();
        postgres.start();
    }
    for member in &mut members {
        while !member.is_through() {
            member.hear();
        }
        assert_eq!(member.in_trouble.first(), Some(&true), "it has noticed");
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
fn stoppable(postgres: &Postgres, name: &str) -> (Client, Receiver<News>, Sender<()>) {
    let (tell, news) = channel();
    let (go_on, stopped) = channel();
    let hear = move |told: News| {
        let stops = matches!(told, News::Won { .. });
        tell.send(told).expect("somebody hears");
        if stops {
            stopped.recv().expect("it goes on");
        }
    };
    let client = join(settings(&postgres.address(name)), hear).expect("a member");
    (client, news, go_on)
}

#[test]
#[ignore = "needs postgresql"]
fn a_member_that_stands_still_loses_its_claims_and_enters_anew() {
    let postgres = Postgres::new();
    create(&postgres, "stopped", &short_lease());
    let (client, news, go_on) = stoppable(&postgres, "stopped");
    client.ask(Ask::Take { session: 1, endpoint: endpoint(1) });
    let wait =
        |wanted: &News| while news.recv_timeout(PATIENCE).expect("news in time") != *wanted {};
    wait(&News::Won { session: 1, epoch: 1 });
    let other = Member::join(&postgres, "stopped");
    assert_eq!(other.taken(1, endpoint(1)), Err(Refusal::Busy));
    let seen = other.standing(|standing| standing.lost == 1);
    assert_eq!((seen.managers, seen.taken), (1, 0));
    assert_eq!(other.taken(2, endpoint(1)), Ok(2));
    go_on.send(()).expect("it hears");
    wait(&News::Fenced);
    let record = "{}".to_owned();
    client.ask(Ask::Finish { session: 1, outcome: "ok".to_owned(), record });
    // In whichever order: the finish is refused by the client itself, as it knows that it has no claims.
    let mut awaited = vec![News::Duplicate { session: 1 }, News::Entered];
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

#[test]
#[ignore = "needs postgresql"]
fn a_database_that_is_away_for_too_long_fences_and_is_found_again() {
    let postgres = Postgres::new();
    create(&postgres, "away", &short_lease());
    let member = Member::join(&postgres, "away");
    assert_eq!(member.taken(1, endpoint(1)), Ok(1));
    postgres.signal_all(Signal::SIGSTOP);
    member.wait(|told| (*told == News::Fenced).then_some(()));
    postgres.signal_all(Signal::SIGCONT);
    member.wait(|told| (*told == News::Entered).then_some(()));
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
    let settings = settings(&postgres.address("late"));
    let joining = std::thread::spawn(move || join(settings, |_| {}));
    postgres.start();
    let client = joining.join().expect("no panic").expect("a member");
    postgres.kill();
    client.leave(); // comes back although nobody answers
}
