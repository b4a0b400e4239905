//! The five functions in random order, against a model of what they promise. Time has no part in it: a lease runs out
//! when a step says so, and the pauses between rounds and waves are nil.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::runtime::Runtime;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, NoTls};

use crate::postgres::Postgres;
use crate::support::{create, endpoint, new_campaign};

const MANAGERS: u8 = 3;
const ENDPOINTS: u16 = 6;
const SESSIONS: i64 = 5;
const TRIES: i32 = 3;
const WAVES: i32 = 2;

#[derive(Clone, Debug)]
enum Step {
    Enter {
        manager: u8,
    },
    /// By a newer or an older connection.
    Take {
        manager: u8,
        line: i64,
        asks: Vec<(u16, i64)>,
    },
    Finish {
        manager: u8,
        results: BTreeMap<u16, i32>,
    },
    GiveBack {
        manager: u8,
        line: i64,
        /// And whether it has begun.
        sessions: BTreeMap<u16, (i64, bool)>,
    },
    Beat {
        manager: u8,
        places: i32,
        leaving: bool,
        has_missed: bool,
    },
    LeaseRunsOut {
        manager: u8,
    },
    /// It is stopped, or halted if it was stopped.
    End {
        halted: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let manager = || 0..MANAGERS;
    let line = || 0..3_i64;
    let sessions = prop::collection::btree_map(0..ENDPOINTS, (0..SESSIONS, any::<bool>()), 1..4);
    let asks = prop::collection::vec((0..ENDPOINTS, 0..SESSIONS), 1..6);
    let results = prop::collection::btree_map(0..ENDPOINTS, 1..=TRIES, 1..6);
    prop_oneof![
        3 => manager().prop_map(|manager| Step::Enter { manager }),
        8 => (manager(), line(), asks)
            .prop_map(|(manager, line, asks)| Step::Take { manager, line, asks }),
        5 => (manager(), results).prop_map(|(manager, results)| Step::Finish { manager, results }),
        4 => (manager(), line(), sessions)
            .prop_map(|(manager, line, sessions)| Step::GiveBack { manager, line, sessions }),
        5 => (manager(), 0..8, prop::bool::weighted(0.1), prop::bool::weighted(0.2)).prop_map(
            |(manager, places, leaving, has_missed)| Step::Beat { manager, places, leaving, has_missed }
        ),
        2 => manager().prop_map(|manager| Step::LeaseRunsOut { manager }),
        1 => prop::bool::weighted(0.3).prop_map(|halted| Step::End { halted }),
    ]
}

#[derive(Clone, Copy, PartialEq)]
enum ClaimState {
    Claimed,
    Done,
    Released,
    Lost,
}

struct Claim {
    epoch: i32,
    manager: u8,
    session: i64,
    state: ClaimState,
}

struct Manager {
    state: &'static str,
    has_lease: bool,
    line: i64,
    places: i32,
}

/// What the database must know after the same steps.
struct Model {
    n: Option<i64>,
    lost_again: bool,
    state: &'static str,
    round: i32,
    wave: i32,
    missed: bool,
    publisher: Option<u8>,
    managers: BTreeMap<u8, Manager>,
    claims: BTreeMap<u16, Claim>,
}

impl Model {
    fn count(&self, states: &[ClaimState]) -> i64 {
        let found = self.claims.values().filter(|claim| states.contains(&claim.state));
        i64::try_from(found.count()).expect("few")
    }

    fn taken(&self) -> i64 {
        self.count(&[ClaimState::Claimed, ClaimState::Done])
    }

    fn can_be_taken_again(&self, claim: &Claim) -> bool {
        let is_open = match claim.state {
            ClaimState::Released => true,
            ClaimState::Lost => self.lost_again,
            ClaimState::Claimed | ClaimState::Done => false,
        };
        is_open && claim.epoch < TRIES
    }

    fn is_alive(&self, manager: u8) -> bool {
        self.managers.get(&manager).is_some_and(|own| own.state == "live" && own.has_lease)
    }

    fn enter(&mut self, manager: u8) -> String {
        if self.state == "open" {
            let new = Manager { state: "live", has_lease: true, line: 0, places: 0 };
            self.managers.entry(manager).or_insert(new);
            return "entered".to_owned();
        }
        self.state.to_owned()
    }

    /// None if the connection is an older one.
    fn take(&mut self, manager: u8, line: i64, asks: &[(u16, i64)]) -> Option<Vec<String>> {
        if self.managers.get(&manager).is_some_and(|own| own.line > line) {
            return None;
        }
        let mut asks = asks.to_vec();
        if !self.is_alive(manager) {
            return Some(asks.iter().map(|(_, session)| format!("{session} fenced 0")).collect());
        }
        self.managers.get_mut(&manager).expect("alive").line = line;
        asks.sort_unstable();
        Some(asks.iter().map(|(key, session)| self.take_one(manager, *key, *session)).collect())
    }

    fn take_one(&mut self, manager: u8, key: u16, session: i64) -> String {
        let is_room = self.n.is_none_or(|n| self.taken() < n);
        let epoch = match self.claims.get(&key) {
            Some(held) if !self.can_be_taken_again(held) => {
                let is_own = (held.manager, held.session) == (manager, session);
                let verdict = match held.state {
                    ClaimState::Claimed if is_own => "won",
                    _ if self.state != "open" => "stop",
                    ClaimState::Done => "done",
                    ClaimState::Claimed => "busy",
                    ClaimState::Released | ClaimState::Lost => "spent",
                };
                return format!("{session} {verdict} {}", held.epoch);
            }
            held => held.map_or(0, |held| held.epoch),
        };
        if self.state != "open" || !is_room {
            let verdict = if self.state == "open" { "full" } else { "stop" };
            return format!("{session} {verdict} {epoch}");
        }
        let state = ClaimState::Claimed;
        self.claims.insert(key, Claim { epoch: epoch + 1, manager, session, state });
        format!("{session} won {}", epoch + 1)
    }

    fn finish(&mut self, manager: u8, results: &BTreeMap<u16, i32>) -> Vec<(u16, i32)> {
        let mut accepted = Vec::new();
        let is_late = !self.is_alive(manager);
        for (key, epoch) in results {
            let is_room = self.n.is_none_or(|n| self.taken() < n);
            let Some(claim) = self.claims.get_mut(key) else { continue };
            let is_taken = match claim.state {
                ClaimState::Done => true,
                ClaimState::Claimed => !is_late || self.state == "open",
                ClaimState::Lost => is_late && self.state == "open" && is_room,
                ClaimState::Released => false,
            };
            if (claim.manager, claim.epoch) == (manager, *epoch) && is_taken {
                claim.state = ClaimState::Done;
                accepted.push((*key, *epoch));
            }
        }
        accepted
    }

    fn give_back(&mut self, manager: u8, line: i64, sessions: &BTreeMap<u16, (i64, bool)>) -> i64 {
        let mut given = 0;
        for (key, (session, has_begun)) in sessions {
            let Some(claim) = self.claims.get_mut(key) else { continue };
            let is_own = (claim.manager, claim.session) == (manager, *session);
            if is_own && claim.state == ClaimState::Claimed {
                claim.state = if *has_begun { ClaimState::Lost } else { ClaimState::Released };
                given += 1;
            }
        }
        if let Some(own) = self.managers.get_mut(&manager) {
            own.line = own.line.max(line);
        }
        given
    }

    /// Whether it is alive, and publishes.
    fn beat(
        &mut self,
        manager: u8,
        places: i32,
        (leaving, has_missed): (bool, bool),
    ) -> (bool, bool) {
        self.missed |= has_missed;
        let is_alive = self.is_alive(manager);
        if is_alive {
            self.managers.get_mut(&manager).expect("alive").places = places;
        }
        if is_alive && leaving {
            self.end_manager(manager, "left");
        }
        for other in 0..MANAGERS {
            let silent = |own: &Manager| own.state == "live" && !own.has_lease;
            if self.managers.get(&other).is_some_and(silent) {
                self.end_manager(other, "lost");
            }
        }
        let is_live = |other: u8| self.managers.get(&other).is_some_and(|own| own.state == "live");
        if is_alive && places == 0 && self.publisher == Some(manager) {
            self.publisher = None;
        }
        if is_alive && !leaving && places > 0 && !self.publisher.is_some_and(is_live) {
            self.publisher = Some(manager);
        }
        self.advance();
        (is_alive, is_alive && !leaving && self.publisher == Some(manager))
    }

    fn end_manager(&mut self, manager: u8, state: &'static str) {
        let own = self.managers.get_mut(&manager).expect("it is there");
        (own.state, own.places) = (state, 0);
        self.missed = true;
        for claim in self.claims.values_mut() {
            if claim.manager == manager && claim.state == ClaimState::Claimed {
                claim.state = ClaimState::Lost;
            }
        }
    }

    fn advance(&mut self) {
        let is_reached = |count: i64| self.n.is_some_and(|n| count >= n);
        if ["open", "draining"].contains(&self.state) && is_reached(self.count(&[ClaimState::Done]))
        {
            self.state = "over";
        } else if self.state == "open" && !is_reached(self.taken()) {
            let has_room = self.count(&[ClaimState::Claimed]) * 2 < self.places();
            if self.wave < WAVES {
                self.wave += i32::from(has_room);
            } else if self.missed && has_room
                || self.claims.values().any(|claim| self.can_be_taken_again(claim))
            {
                (self.round, self.wave, self.missed) = (self.round + 1, 1, false);
            }
        }
    }

    fn places(&self) -> i64 {
        self.managers.values().map(|own| i64::from(own.places)).sum()
    }

    fn is_over(&self) -> bool {
        let is_left = !(0..MANAGERS).any(|manager| self.is_alive(manager));
        self.state == "over" || self.state != "open" && is_left
    }

    /// As the view `standing` has it.
    fn standing(&self) -> String {
        let live = self.managers.values().filter(|own| own.state == "live").count();
        let waiting = |state: ClaimState| {
            let all = self.claims.values().filter(move |claim| claim.state == state);
            all.filter(|claim| self.can_be_taken_again(claim)).count()
        };
        let open = self.count(&[ClaimState::Lost, ClaimState::Released]);
        let (lost, released) = (waiting(ClaimState::Lost), waiting(ClaimState::Released));
        let spent = open - i64::try_from(lost + released).expect("few");
        format!(
            "{} {} {} {live} {} {} {} {lost} {released} {spent}",
            if self.is_over() { "over" } else { self.state },
            self.round,
            self.wave,
            self.places(),
            self.taken(),
            self.count(&[ClaimState::Done])
        )
    }
}

/// The same steps in the database.
struct Database<'a> {
    runtime: &'a Runtime,
    client: &'a Client,
    campaign: String,
}

impl Database<'_> {
    /// All columns of all rows as text, joined by spaces; none if the database refused.
    fn rows(
        &self,
        statement: &str,
        others: &[(&(dyn tokio_postgres::types::ToSql + Sync), Type)],
    ) -> Option<Vec<String>> {
        let campaign: (&(dyn tokio_postgres::types::ToSql + Sync), Type) =
            (&self.campaign, Type::TEXT);
        let all = [&[campaign], others].concat();
        let statement = format!("SELECT concat_ws(' ', VARIADIC ARRAY[{statement}");
        let rows = self.runtime.block_on(self.client.query_typed(&statement, &all)).ok()?;
        Some(rows.iter().map(|row| row.get(0)).collect())
    }

    fn id(manager: u8) -> String {
        format!("{manager:032x}")
    }

    fn keys(numbers: impl Iterator<Item = u16>) -> Vec<Vec<u8>> {
        numbers.map(|number| endpoint(number).to_vec()).collect()
    }

    fn enter(&self, manager: u8) -> Option<Vec<String>> {
        let statement = "verdict]) FROM pktlab.enter($1, $2::uuid, 'h', 'v', 1, decode(repeat('07', 32), 'hex'), \
                         '{-c,3}', NULL, '{abc}', NULL)";
        self.rows(statement, &[(&Self::id(manager), Type::TEXT)])
    }

    fn take(&self, manager: u8, line: i64, asks: &[(u16, i64)]) -> Option<Vec<String>> {
        let keys = Self::keys(asks.iter().map(|(key, _)| *key));
        let sessions = asks.iter().map(|(_, session)| *session).collect::<Vec<_>>();
        let statement =
            "session::text, verdict, epoch::text]) FROM pktlab.take($1, $2::uuid, $3, $4, $5)";
        self.rows(
            statement,
            &[
                (&Self::id(manager), Type::TEXT),
                (&line, Type::INT8),
                (&keys, Type::BYTEA_ARRAY),
                (&sessions, Type::INT8_ARRAY),
            ],
        )
    }

    fn finish(&self, manager: u8, results: &BTreeMap<u16, i32>) -> Option<Vec<String>> {
        let keys = Self::keys(results.keys().copied());
        let epochs = results.values().copied().collect::<Vec<_>>();
        let (outcomes, records) = (vec!["ok"; keys.len()], vec!["{}"; keys.len()]);
        let statement = "get_byte(endpoint, 1)::text, epoch::text]) \
                         FROM pktlab.finish($1, $2::uuid, $3, $4, $5, $6) ORDER BY endpoint";
        self.rows(
            statement,
            &[
                (&Self::id(manager), Type::TEXT),
                (&keys, Type::BYTEA_ARRAY),
                (&epochs, Type::INT4_ARRAY),
                (&outcomes, Type::TEXT_ARRAY),
                (&records, Type::TEXT_ARRAY),
            ],
        )
    }

    fn give_back(
        &self,
        manager: u8,
        line: i64,
        sessions: &BTreeMap<u16, (i64, bool)>,
    ) -> Option<Vec<String>> {
        let keys = Self::keys(sessions.keys().copied());
        let (sessions, begun) = sessions.values().copied().collect::<(Vec<_>, Vec<_>)>();
        let statement = "pktlab.give_back($1, $2::uuid, $3, $4, $5, $6)::text])";
        self.rows(
            statement,
            &[
                (&Self::id(manager), Type::TEXT),
                (&line, Type::INT8),
                (&keys, Type::BYTEA_ARRAY),
                (&sessions, Type::INT8_ARRAY),
                (&begun, Type::BOOL_ARRAY),
            ],
        )
    }

    fn beat(
        &self,
        manager: u8,
        places: i32,
        (leaving, has_missed): (bool, bool),
    ) -> Option<Vec<String>> {
        let statement =
            "alive::text, publish::text, state]) FROM pktlab.beat($1, $2::uuid, $3, $4, $5)";
        self.rows(
            statement,
            &[
                (&Self::id(manager), Type::TEXT),
                (&places, Type::INT4),
                (&leaving, Type::BOOL),
                (&has_missed, Type::BOOL),
            ],
        )
    }

    fn change(&self, statement: &str, manager: u8) {
        let statement = statement.replace("$2", &format!("'{}'", Self::id(manager)));
        let statement = statement.replace("$1", &format!("'{}'", self.campaign));
        let done = self.runtime.block_on(self.client.batch_execute(&statement));
        done.expect("a change from outside");
    }

    fn standing(&self) -> Option<Vec<String>> {
        let statement = "state, round::text, wave::text, managers::text, places::text, taken::text, done::text, \
                         lost::text, released::text, spent::text]) FROM pktlab.standing WHERE campaign = $1";
        self.rows(statement, &[])
    }
}

/// Takes a step on both sides and compares what is told.
fn compare(model: &mut Model, database: &Database<'_>, step: &Step) {
    let (was_over, done) = (model.is_over(), model.count(&[ClaimState::Done]));
    match step {
        Step::Enter { manager } => {
            assert_eq!(database.enter(*manager), Some(vec![model.enter(*manager)]));
        }
        Step::Take { manager, line, asks } => {
            assert_eq!(database.take(*manager, *line, asks), model.take(*manager, *line, asks));
        }
        Step::Finish { manager, results } => {
            let accepted = model.finish(*manager, results).into_iter();
            let accepted = accepted.map(|(key, epoch)| format!("{key} {epoch}")).collect();
            assert_eq!(database.finish(*manager, results), Some(accepted));
        }
        Step::GiveBack { manager, line, sessions } => {
            let given = model.give_back(*manager, *line, sessions).to_string();
            assert_eq!(database.give_back(*manager, *line, sessions), Some(vec![given]));
        }
        Step::Beat { manager, places, leaving, has_missed } => {
            let flags = (*leaving, *has_missed);
            let (is_alive, publishes) = model.beat(*manager, *places, flags);
            let told = format!("{is_alive} {publishes} {}", model.state);
            assert_eq!(database.beat(*manager, *places, flags), Some(vec![told]));
        }
        Step::LeaseRunsOut { manager } => {
            if let Some(own) = model.managers.get_mut(manager) {
                own.has_lease = false;
            }
            let statement = "UPDATE pktlab.manager SET lease_until = '-infinity' WHERE campaign = $1 AND id = $2";
            database.change(statement, *manager);
        }
        Step::End { halted } => {
            let (from, to) = if *halted { ("draining", "halted") } else { ("open", "draining") };
            model.state = if model.state == from { to } else { model.state };
            let statement = format!(
                "UPDATE pktlab.campaign SET state = '{to}' WHERE id = $1 AND state = '{from}'"
            );
            database.change(&statement, 0);
        }
    }
    assert_eq!(database.standing(), Some(vec![model.standing()]), "after {step:?}");
    assert!(model.n.is_none_or(|n| model.taken() <= n));
    let is_as_before = model.is_over() && model.count(&[ClaimState::Done]) == done;
    assert!(!was_over || is_as_before, "what is over has changed by {step:?}");
}

#[test]
#[ignore = "needs postgresql"]
fn the_five_functions_do_what_a_model_of_them_does() {
    let postgres = Postgres::new();
    create(&postgres, "first", &new_campaign());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let address = postgres.address("none");
    let (address, _) = address.split_once('#').expect("an address with a name");
    let (client, connection) =
        runtime.block_on(tokio_postgres::connect(address, NoTls)).expect("a connection");
    runtime.spawn(connection);
    let steps = prop::collection::vec(step(), 1..100);
    let worlds = (prop::option::of(1..6_i64), any::<bool>(), steps);
    let mut runner =
        TestRunner::new(Config { cases: 100, failure_persistence: None, ..Config::default() });
    let drawn = std::cell::Cell::new(0);
    let ran = runner.run(&worlds, |(n, lost_again, steps)| {
        drawn.set(drawn.get() + 1);
        let campaign = format!("drawn{}", drawn.get());
        let limit = n.map_or_else(|| "NULL".to_owned(), |n| n.to_string());
        let made = format!(
            "INSERT INTO pktlab.campaign(id, n, tries_max, lease, lost_again, mlet_digest, argv, descriptor, \
             snikeys, waves, round_quiet, round_gap, wave_gap) SELECT '{campaign}', {limit}, {TRIES}, '1 hour', \
             {lost_again}, mlet_digest, argv, descriptor, snikeys, '{{a,b}}', '0', '0', '0' \
             FROM pktlab.campaign WHERE id = 'first'"
        );
        runtime.block_on(client.batch_execute(&made)).expect("a campaign");
        let database = Database { runtime: &runtime, client: &client, campaign };
        let mut model = Model {
            n,
            lost_again,
            state: "open",
            round: 1,
            wave: 1,
            missed: false,
            publisher: None,
            managers: BTreeMap::new(),
            claims: BTreeMap::new(),
        };
        for step in &steps {
            compare(&mut model, &database, step);
        }
        Ok(())
    });
    if let Err(failed) = ran {
        panic!("{failed}");
    }
}
