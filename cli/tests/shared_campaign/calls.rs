//! Who is called to a campaign: by its waves, and again by its rounds.

use common::broker::Xpub;
use common::manager::Manager;
use common::proxy::Proxy;
use packetlab::key::PrivateKey;
use packetlab::name_value::descriptor_matches;

use super::*;

/// Waves and rounds come as soon as they may.
fn hurry(rig: &Rig) {
    rig.postgres
        .sql("UPDATE pktlab.campaign SET wave_gap = '0', round_gap = '0', round_quiet = '0'");
}

/// Whether an endpoint of this country is called.
fn calls(xpubs: &[Xpub], country: &str) -> bool {
    let attributes = format!("endpoint_country={country};");
    xpubs.iter().any(|xpub| descriptor_matches(xpub.text.as_bytes(), attributes.as_bytes()))
}

#[test]
#[ignore = "needs postgresql"]
fn waves_of_countries_call_the_endpoints_of_one_after_the_other() {
    let rig = Rig::new(&["--waves", "country:AUT,DEU"]);
    let manager = rig.manager(&["--out", "one"]);
    let (_first, xpubs) = rig.broker.take_publication(2);
    assert!(calls(&xpubs, "AUT") && !calls(&xpubs, "DEU"), "{xpubs:?}");
    is_measured(&Dial::to(manager.address).with(&rig.identity()));
    hurry(&rig);
    wait_until("the next wave begins", || rig.status()["wave"] == 2);
    let (_second, xpubs) = rig.broker.take_publication(2);
    assert!(calls(&xpubs, "DEU") && !calls(&xpubs, "AUT"), "{xpubs:?}");
    assert_eq!(manager.interrupted().code, Some(0));
}

/// What stands twice calls whoever matches either, so such a wave would call everybody.
#[test]
#[ignore = "needs postgresql"]
fn waves_of_what_the_text_parts_endpoints_by_already_are_refused() {
    let rig = Rig::new(&[]);
    let config = std::fs::read_to_string(rig.home.path("xpmgr.conf")).unwrap();
    let entry = "exppriv.cert,pubcmd.cert:eop.pub::";
    let by_host_id = config.replace(entry, &format!("{entry}hostid=EP*;"));
    let by_country = format!("{config}PubCountry DEU\n");
    for (config, options, told) in [
        (&by_host_id, &["--waves", "hostid:1hex"][..], "hostid=EP* already"),
        (&by_country, &["--waves", "country:AUT"], "endpoint_country=DEU already"),
        (&config, &["--waves", "hostid:2hex", "-i", "EP*"], "hostid=EP* already"),
    ] {
        rig.home.write("xpmgr.conf", config.as_bytes());
        let refused = rig.create(options);
        assert_eq!(refused.code, Some(2), "{}", refused.stderr);
        assert_says(&refused.stderr, &["--waves: the text that calls endpoints has ", told]);
    }
}

#[test]
#[ignore = "needs postgresql"]
fn endpoints_that_may_have_found_the_backlog_used_up_are_called_again() {
    let rig = Rig::new(&[]);
    let proxy = Proxy::start(&PrivateKey::generate().unwrap(), true);
    let config = std::fs::read_to_string(rig.home.path("xpmgr.conf")).unwrap();
    let behind = "EnableProxyMode 1\nBacklogConnAgentCertPath agent.cert\nTargetBacklogConn 1\n";
    rig.home.write("xpmgr.conf", (config + behind).as_bytes());
    let mut command = rig.home.bare_command();
    command.args(["-c", "xpmgr.conf", "-a", &proxy.address.to_string(), "--out", "one"]);
    command.args(["--campaign", &rig.address]).arg(zoo()).arg("obey");
    let manager = Manager::spawn(&rig.home, command);
    let (_first, xpubs) = rig.broker.take_publication(2);
    assert!(xpubs.iter().all(|xpub| xpub.value("round") == "1"));
    hurry(&rig);
    let mut session = proxy.session(&Dial::to(proxy.address).with(&rig.identity()));
    wait_until("the next round begins", || rig.status()["round"] == 2);
    let (_second, xpubs) = rig.broker.take_publication(2);
    assert!(xpubs.iter().all(|xpub| xpub.value("round") == "2"));
    session.send(&message(NDATA, b"exit 0"));
    assert_eq!(session.read_to_end().1, End::CloseNotify);
    session.close();
    assert_eq!(manager.interrupted().code, Some(0));
    assert_eq!(rig.status()["done"], 1);
}
