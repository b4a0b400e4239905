//! What a call costs the database, counted by the database. Not how long it takes.

use campaign::Ask;

use crate::postgres::Postgres;
use crate::support::{Member, PATIENCE, create, endpoint, new_campaign, now};

const ENDPOINTS: u16 = 600;

/// In a new database, which knows nothing of how its tables are filled.
#[test]
#[ignore = "needs postgresql"]
fn a_result_is_found_without_a_look_at_other_claims_that_are_open() {
    let postgres = Postgres::new();
    create(&postgres, "open", &new_campaign());
    let member = Member::join(&postgres, "open");
    for number in 0..ENDPOINTS {
        member.take(number.into(), endpoint(number));
    }
    for number in 0..ENDPOINTS {
        assert_eq!(member.verdict(number.into()), Ok(1));
    }
    for number in 0..ENDPOINTS {
        let (outcome, record) = ("ok".to_owned(), "{}".to_owned());
        member.client.ask(Ask::Finish { session: number.into(), outcome, record });
    }
    (0..ENDPOINTS).for_each(|number| assert!(member.is_accepted(number.into())));
    // The database counts what a connection has done when it ends.
    member.client.leave();
    let until = now() + PATIENCE;
    let counted = "SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = 'claim'";
    while postgres.sql(counted) != ENDPOINTS.to_string() {
        assert!(now() < until, "{} results are counted", postgres.sql(counted));
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let read =
        postgres.sql("SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname = 'claim'");
    let read: u64 = read.parse().expect("a number");
    assert!(read < u64::from(ENDPOINTS) * 8, "{read} rows of indexes for {ENDPOINTS} results");
}
