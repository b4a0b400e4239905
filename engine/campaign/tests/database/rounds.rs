//! When waves and rounds begin, and above all when not. What time it is, the database is told, so that nobody waits.

use std::time::Duration;

use campaign::administration::NewCampaign;
use campaign::{Ask, Refusal};

use crate::postgres::Postgres;
use crate::support::{Member, create, endpoint, new_campaign};

/// A campaign with one manager, which publishes and has given back the one endpoint that it had.
struct Idle(Postgres);

/// How many seconds ago that was.
#[derive(Clone, Copy)]
struct Ago {
    won: u32,
    round: u32,
    /// The last call of endpoints: by a round, a wave or a new publisher.
    call: u32,
}

impl Idle {
    fn new(waves: &[&str]) -> Self {
        let postgres = Postgres::new();
        let waves = waves.iter().map(|wave| (*wave).to_owned()).collect();
        create(&postgres, "idle", &NewCampaign { waves, ..new_campaign() });
        let manager = "repeat('7', 32)::uuid";
        postgres.sql(&format!(
            "SELECT pktlab.enter('idle', {manager}, 'h', 'v', 1, decode(repeat('07', 32), 'hex'), '{{-c,3}}', NULL, \
             '{{abc}}', NULL); \
             SELECT pktlab.take('idle', {manager}, 1, ARRAY[decode(repeat('01', 32), 'hex')], ARRAY[1::bigint]); \
             SELECT pktlab.give_back('idle', {manager}, 1, ARRAY[decode(repeat('01', 32), 'hex')], ARRAY[1::bigint], \
             '{{false}}')"
        ));
        let idle = Self(postgres);
        assert_eq!(idle.beat(), (1, 1));
        idle
    }

    /// Round and wave after a beat.
    fn beat(&self) -> (u32, u32) {
        let beat =
            "SELECT round, wave FROM pktlab.beat('idle', repeat('7', 32)::uuid, 1, false, false)";
        let told = self.0.sql(beat);
        let (round, wave) = told.split_once('|').expect("two columns");
        (round.parse().expect("a number"), wave.parse().expect("a number"))
    }

    /// Whether a beat begins a round or a wave, when all else was so long ago.
    fn calls(&self, ago: Ago) -> bool {
        let Ago { won, round, call } = ago;
        let set = |column: &str, seconds: u32| {
            format!("{column} = clock_timestamp() - interval '{seconds} s'")
        };
        let before = self.0.sql("SELECT round, wave FROM pktlab.standing");
        let (won, round, call) = (set("won_at", won), set("round_at", round), set("wave_at", call));
        self.0.sql(&format!(
            "UPDATE pktlab.manager SET {won}; UPDATE pktlab.campaign SET {round}, {call}"
        ));
        let (round, wave) = self.beat();
        format!("{round}|{wave}") != before
    }
}

#[test]
#[ignore = "needs postgresql"]
fn a_round_waits_until_nothing_was_won_for_half_a_minute_and_the_last_call_is_a_minute_ago() {
    let idle = Idle::new(&[]);
    let long_ago = Ago { won: 80, round: 90, call: 90 };
    assert!(!idle.calls(Ago { won: 20, ..long_ago }), "endpoints are still won");
    assert!(!idle.calls(Ago { won: 40, round: 50, call: 50 }), "the last round has just begun");
    assert!(!idle.calls(Ago { call: 50, ..long_ago }), "a new publisher has just called all");
    assert!(idle.calls(Ago { won: 40, ..long_ago }), "both were long enough ago");
}

#[test]
#[ignore = "needs postgresql"]
fn a_wave_waits_until_the_one_before_is_ten_seconds_ago() {
    let idle = Idle::new(&["hostid=*0;", "hostid=*1;"]);
    assert!(!idle.calls(Ago { won: 100, round: 5, call: 5 }));
    assert!(idle.calls(Ago { won: 100, round: 15, call: 15 }));
    assert_eq!(idle.0.sql("SELECT round, wave FROM pktlab.standing"), "1|2");
}

/// An endpoint that is gone for good stays lost, and everybody else is called for it.
#[test]
#[ignore = "needs postgresql"]
fn rounds_in_which_nothing_is_won_come_at_ever_longer_intervals_up_to_an_hour() {
    let idle = Idle::new(&[]);
    let in_vain = |ago| idle.calls(Ago { won: 1_000_000, round: ago, call: ago });
    for gap in [120, 240, 480, 960, 1920, 3600, 3600] {
        assert!(!in_vain(gap - 10), "{gap} s");
        assert!(in_vain(gap + 10), "{gap} s");
    }
    let won = |ago| idle.calls(Ago { won: ago - 5, round: ago, call: ago });
    assert!(!won(50));
    assert!(won(70), "somebody was won, so others may be there too");
    assert!(!in_vain(110));
    assert!(in_vain(130), "and it begins anew");
    let missed = || idle.0.sql("UPDATE pktlab.campaign SET missed = true");
    missed();
    assert!(!in_vain(50));
    missed();
    assert!(in_vain(70), "somebody has come, and could not be won");
    assert!(!in_vain(110));
}

/// Nobody but the manager knows of an endpoint that was told so, and the claim that has ended is none to be taken again.
#[test]
#[ignore = "needs postgresql"]
fn who_found_the_campaign_full_is_called_again_when_a_place_has_become_free() {
    let postgres = Postgres::new();
    let new = NewCampaign { n: Some(1), tries: 1, lease: Duration::from_secs(1), ..new_campaign() };
    create(&postgres, "full", &new);
    let member = Member::join(&postgres, "full");
    member.standing(|standing| standing.publish);
    assert_eq!(member.taken(1, endpoint(1)), Ok(1));
    assert_eq!(member.taken(2, endpoint(2)), Err(Refusal::Full));
    postgres.sql("UPDATE pktlab.campaign SET round_quiet = '0', round_gap = '0'");
    member.client.ask(Ask::Forget { session: 1 });
    let again = member.standing(|standing| standing.round == 2);
    assert_eq!((again.spent, again.lost, again.released, again.taken), (1, 0, 0, 0));
    assert_eq!(member.taken(3, endpoint(2)), Ok(1));
    member.client.leave();
}
