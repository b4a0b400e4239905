//! What the owner of a campaign is told who has to wait, or is refused.

use std::thread;

use common::manager::kill_hard;

use super::*;

#[test]
fn what_cannot_be_typed_is_refused_in_one_sentence() {
    let home = Home::new();
    let url = "postgres://p@/d?host=/nowhere#c";
    let lease = "a lease is at least 1s and at most 24h";
    for (option, value, why) in [
        ("-n", "0", "write a whole number from 1 to 9223372036854775807"),
        ("-n", "9223372036854775808", "write a whole number from 1 to 9223372036854775807"),
        ("-n", "many", "write a whole number from 1 to 9223372036854775807"),
        ("--tries", "0", "write a whole number from 1 to 2147483647"),
        ("--lease", "1ms", lease),
        ("--lease", "1000h", lease),
        ("--lease", "60", "'60' lacks its unit"),
    ] {
        let mut command = home.bare_command();
        command.args(["campaign", "create", url, option, value, "./mlet"]);
        let refused = run(&mut command);
        assert_eq!(refused.code, Some(2), "{}", refused.stderr);
        assert_eq!(refused.stderr.matches(why).count(), 1, "{}", refused.stderr);
        assert!(!refused.stderr.contains("WARN"), "{}", refused.stderr);
    }
    for (name, why) in [
        ("a#b", "an address has one #, behind which the name of the campaign stands"),
        (".", "begins with neither '.' nor '-'"),
        ("..", "begins with neither '.' nor '-'"),
        ("-x", "begins with neither '.' nor '-'"),
    ] {
        let address = url.replace("#c", &format!("#{name}"));
        for words in [
            &["campaign", "status", &address][..],
            &["--campaign", &address, "--out", "one", "./mlet"],
        ] {
            let refused = run(home.bare_command().args(words));
            assert_eq!(refused.code, Some(2), "{}", refused.stderr);
            assert_says(&refused.stderr, &[why]);
        }
    }
}

/// Until the lease of a manager that was killed has run out nobody knows that.
#[test]
#[ignore = "needs postgresql"]
fn who_removes_a_campaign_whose_manager_was_killed_is_told_for_how_long_that_counts() {
    let rig = Rig::new(&[]);
    let manager = rig.manager(&["--out", "one"]);
    kill_hard(manager.pid());
    assert_eq!(manager.ends().code, None, "it was killed by us");
    let ends = |lease_until: &str| {
        let lease = "UPDATE pktlab.manager SET state = 'live', lease_until =";
        rig.postgres.sql(&format!("{lease} {lease_until}"));
        rig.campaign("forget", &[])
    };
    let refused = ends("clock_timestamp() + interval '1 hour'");
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    let told =
        "one that was killed is there until its lease has run out, which takes 3600 s at most";
    assert_says(&refused.stderr, &["managers are there (", told]);
    let removed = ends("clock_timestamp()");
    assert_eq!((removed.code, &*removed.stderr), (Some(0), ""));
}

/// For half a minute, and after five seconds each says for what.
#[test]
#[ignore = "needs postgresql"]
fn whoever_waits_for_a_table_that_somebody_has_locked_is_told_and_ends() {
    let rig = Rig::new(&[]);
    let manager = rig.manager(&["--out", "one"]);
    is_measured(&Dial::to(manager.address).with(&rig.identity()));
    wait_until("it is counted", || rig.status()["done"] == 1);
    assert_eq!(manager.interrupted().code, Some(0));
    rig.postgres.sql("CREATE TABLE let_go()");
    let commands = ["status", "stop", "halt", "results", "merge", "import", "forget", "create"];
    thread::scope(|scope| {
        let locked = "LOCK TABLE pktlab.campaign; DO $$ BEGIN WHILE EXISTS (SELECT FROM pg_class \
                      WHERE relname = 'let_go') LOOP PERFORM pg_sleep(0.1); END LOOP; END $$";
        let holder = scope.spawn(|| rig.postgres.sql(locked));
        let is_locked = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted \
                         AND relation = 'pktlab.campaign'::regclass";
        wait_until("it is locked", || rig.postgres.sql(is_locked) == "1");
        let waiting = commands.map(|name| {
            let rig = &rig;
            let ended = scope.spawn(move || match name {
                "create" => rig.create(&[]),
                "merge" => rig.campaign(name, &["--out", "merged", "one"]),
                "import" => rig.campaign(name, &["one"]),
                _ => rig.campaign(name, &[]),
            });
            (name, ended)
        });
        let ended = waiting.map(|(name, ended)| (name, ended.join().unwrap()));
        // Whoever fails below keeps nobody waiting.
        rig.postgres.sql("DROP TABLE let_go");
        holder.join().unwrap();
        for (name, ended) in ended {
            assert_eq!((ended.code, &*ended.stdout), (Some(4), ""), "{name}: {}", ended.stderr);
            // `create` warns of a short lease before.
            let mut lines = ended.stderr.lines().filter(|line| !line.contains("WARNING: --lease"));
            let (waits, error) = (lines.next().unwrap(), lines.next().unwrap());
            assert_eq!(lines.next(), None, "{name}: {}", ended.stderr);
            let waits_for =
                "pktxpmgr: the database has waited for 5 s for a lock that its process ";
            assert!(waits.starts_with(waits_for), "{name}: {waits}");
            assert_says(waits, &["(role postgres, program \"psql\"; more is in pg_stat_activity)"]);
            let why =
                "pktxpmgr: the database cannot do it now: somebody holds a lock that this needs";
            assert!(error.starts_with(why), "{name}: {error}");
        }
    });
    assert_eq!(rig.status()["done"], 1);
    assert!(!rig.home.path("merged").exists());
}
