//! What a manager may bring and change, and what a role of the database may do.

use std::process::Command;

use common::PKTXPMGR;
use common::manager::example;
use packetlab::key::PrivateKey;

use super::*;

#[test]
#[ignore = "needs postgresql"]
fn a_manager_that_would_measure_something_else_is_refused_with_the_differences() {
    let rig = Rig::new(&[]);
    for (mlet, word, difference) in [
        (zoo(), "exit", "the mlet's arguments: the campaign has \"obey\", this manager \"exit\""),
        (example("barred"), "obey", "the mlet's SHA-256: the campaign has "),
    ] {
        let mut command = rig.home.command();
        command.args(["--campaign", &rig.address, "--out", "one"]).arg(mlet).arg(word);
        let ended = run(&mut command);
        assert_eq!(ended.code, Some(3), "{}", ended.stderr);
        let told = "--campaign: the campaign was created with something else: ";
        assert_says(&ended.stderr, &[&[told, difference].concat()]);
        assert!(!rig.home.path("one").exists(), "nothing is left of a run that could not begin");
    }
    let config = std::fs::read_to_string(rig.home.path("xpmgr.conf")).unwrap();
    rig.home.write("xpmgr.conf", config.replace("1:hello:", "1:other:").as_bytes());
    let ended = run(&mut rig.command(&["--campaign", &rig.address, "--out", "one"]));
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    let told = "something else: snikeys: the campaign has \"hello\" \"open\", this manager \"open\" \"other\"";
    assert_says(&ended.stderr, &[told]);
}

/// What is published belongs to the campaign; whom to trust is each manager's own matter.
#[test]
#[ignore = "needs postgresql"]
fn a_reload_that_changes_the_text_is_refused_and_one_of_trust_is_put_into_effect() {
    let rig = Rig::new(&[]);
    let manager = rig.manager(&["--out", "one"]);
    let (publication, xpubs) = rig.broker.take_publication(2);
    let config = std::fs::read_to_string(rig.home.path("xpmgr.conf")).unwrap();
    let entry = "exppriv.cert,pubcmd.cert:eop.pub::";
    let other = config.replace(entry, &format!("{entry}note=other;"));
    rig.home.write("xpmgr.conf", other.as_bytes());
    manager.signal(Signal::SIGHUP);
    manager.says("reload refused, the run goes on with what it has");
    manager.says("a descriptor would change, which takes another campaign");
    let operator = PrivateKey::generate().unwrap();
    let other = Dial::to(manager.address).with(&Identity::of(&operator));
    assert_eq!(other.refusal(), End::Alert(46), "nobody trusts its operator yet");
    rig.home.write("other.pub", operator.public_key().to_pem().as_bytes());
    let trusting = config.replace(":eop.pub:", ":eop.pub,other.pub:");
    rig.home.write("xpmgr.conf", trusting.as_bytes());
    manager.signal(Signal::SIGHUP);
    manager.says("reloaded for new sessions: 2 experiments");
    is_measured(&other);
    publication.assert_silent();
    assert!(xpubs.iter().all(|xpub| xpub.value("round") == "1"));
    assert_eq!(manager.interrupted().code, Some(0));
    assert_eq!(rig.status()["done"], 1);
}

#[test]
#[ignore = "needs postgresql"]
fn who_may_not_look_or_change_is_told_which_role_it_takes() {
    let rig = Rig::new(&[]);
    rig.postgres.sql(
        "CREATE USER host1 IN ROLE pktlab_manager; CREATE USER looker IN ROLE pktlab_reader; \
              CREATE USER stranger",
    );
    let ask = |user: &str, name: &str| {
        let mut command = Command::new(PKTXPMGR);
        run(command.args(["campaign", name, &rig.postgres.address_as(user, "c")]))
    };
    assert_eq!(ask("looker", "status").code, Some(0));
    for (user, name, role) in [
        ("host1", "status", "which is a member of pktlab_reader, or the owner's"),
        ("stranger", "status", "GRANT pktlab_reader TO"),
        ("host1", "stop", "the role that created them and owns their tables"),
        ("host1", "forget", "the role that created them and owns their tables"),
        ("looker", "stop", "the role that created them and owns their tables"),
        ("looker", "forget", "the role that created them and owns their tables"),
    ] {
        let ended = ask(user, name);
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        assert_says(&ended.stderr, &[role]);
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    }
    let mut command = Command::new(PKTXPMGR);
    command.current_dir(rig.home.path("")).args(["campaign", "create"]);
    command.args([&rig.postgres.address_as("host1", "d"), "-c", "xpmgr.conf", "-p", "192.0.2.1"]);
    let ended = run(command.arg(zoo()).arg("obey"));
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert_says(&ended.stderr, &["the role that created them and owns their tables"]);
    for user in ["stranger", "looker"] {
        let address = rig.postgres.address_as(user, "c");
        let ended = run(&mut rig.command(&["--campaign", &address, "--out", user]));
        assert_eq!(ended.code, Some(3), "{}", ended.stderr);
        assert_says(
            &ended.stderr,
            &["gives this role no right to it: ", "GRANT pktlab_manager TO"],
        );
    }
    assert_eq!(rig.status()["state"], "open");
}

#[test]
#[ignore = "needs postgresql"]
fn who_creates_a_campaign_needs_no_file_that_the_config_file_names() {
    let rig = Rig::new(&[]);
    rig.home.make_directory("lab");
    let mut command = Command::new(PKTXPMGR);
    command.current_dir(rig.home.path("lab")).args(["campaign", "create"]);
    command.args([&rig.postgres.address("d"), "-c", "../xpmgr.conf", "-p", "192.0.2.1"]);
    let ended = run(command.arg(zoo()).arg("obey"));
    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""));
    let texts = "SELECT count(*), count(DISTINCT descriptor) FROM pktlab.campaign";
    assert_eq!(rig.postgres.sql(texts), "2|1", "as with the files");
}

#[test]
#[ignore = "needs postgresql"]
fn a_manager_that_names_another_address_is_told_that_endpoints_are_not_called_there() {
    let rig = Rig::new(&[]);
    let manager = rig.manager(&["--out", "one", "-p", "192.0.2.9"]);
    let (_publication, xpubs) = rig.broker.take_publication(2);
    assert!(xpubs.iter().all(|xpub| xpub.value("controller_addr") == "192.0.2.1"));
    let told = manager.interrupted().stderr;
    let warning =
        "endpoints are called to 192.0.2.1, with which it was created, and not to 192.0.2.9";
    assert_says(&told, &[warning, " as the campaign says"]);
    let same = rig.manager(&["--out", "other", "-p", "192.0.2.1"]);
    let told = same.interrupted().stderr;
    assert!(!told.contains("endpoints are called to"), "{told}");
}

#[test]
fn what_a_database_is_reached_with_is_named_by_its_option() {
    let home = Home::new();
    home.write("empty.pem", b"no PEM");
    home.write("open", b"password");
    home.write("blank", b"\npassword\n");
    let closed = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(home.path("blank"), closed).unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(home.path("open"), open).unwrap();
    for (words, code, told) in [
        (&[][..], 2, "give --campaign-root FILE, with the certificate that has signed"),
        (
            &["--campaign-root", "empty.pem"],
            3,
            "pktxpmgr: --campaign-root empty.pem: it holds no certificate in PEM\n",
        ),
        (
            &["--campaign-password-file", "open"],
            3,
            "pktxpmgr: --campaign-password-file open: everybody may read or write it",
        ),
        (
            &["--campaign-password-file", "blank"],
            3,
            "pktxpmgr: --campaign-password-file blank: its first line is empty\n",
        ),
    ] {
        let mut command = home.bare_command();
        command.args(["campaign", "status", "postgres://p@127.0.0.1:1/d#c"]).args(words);
        let ended = run(&mut command);
        assert_eq!(ended.code, Some(code), "{}", ended.stderr);
        assert_says(&ended.stderr, &[told]);
    }
}
