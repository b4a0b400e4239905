//! What a manager tells while its database is away.

use super::*;

#[test]
#[ignore = "needs postgresql"]
fn while_the_database_is_away_its_absence_and_what_waits_for_it_are_told() {
    let mut rig = Rig::new(&[]);
    // Far longer than the test, so that the lease is not what ends anything.
    rig.postgres.sql("UPDATE pktlab.campaign SET lease = '10 min'");
    let manager = rig.manager(&["--out", "one", "--metrics", "0", "--ctl", "ctl.sock"]);
    let at = http::metrics_address(&manager);
    let told = |name: &str| http::metrics(at).get(&format!("pktxpmgr_campaign_{name}")).copied();
    let rows = || {
        let mut command = rig.home.bare_command();
        run(command.args(["ctl", "ctl.sock", "show", "stat"])).stdout
    };
    wait_until("the database answers", || told("database_up") == Some(1.0));
    wait_until("it is ready", || http::get(at, "/ready") == (200, "running\n".into()));
    assert!(!rows().contains("campaign database silent"), "{}", rows());
    let identity = rig.identity();
    let dial = Dial::to(manager.address).with(&identity);
    let mut session = dial.session();
    rig.postgres.kill();
    wait_until("it is away", || told("database_up") == Some(0.0));
    let why = "the database of the campaign does not answer\n";
    assert_eq!(http::get(at, "/ready"), (503, why.into()));
    session.send(&message(NDATA, b"exit 0"));
    assert_eq!(session.read_to_end().1, End::CloseNotify);
    session.close();
    wait_until("its result waits", || told("results_waiting") == Some(1.0));
    let rows_told = rows();
    assert_says(&rows_told, &["campaign results waiting", "campaign database silent for_s"]);
    manager.signal(Signal::SIGUSR1);
    manager.says("status: results that wait for the campaign: 1");
    rig.postgres.start();
    wait_until("nothing waits any more", || told("results_waiting") == Some(0.0));
    wait_until("the database answers again", || told("database_up") == Some(1.0));
    assert_eq!(http::get(at, "/ready").0, 200);
    assert_eq!(outcomes(&rig.events("one").await_sessions(1)), ["ok"]);
    assert_eq!(manager.interrupted().code, Some(0));
    assert_eq!(rig.status()["done"], 1);
}
