//! Where endpoints reach us: what `-a` means, without opening anything.

use std::ffi::OsString;

use super::address::ApproachAddresses;
use super::*;

fn approach(addr: Option<&str>, proxy: bool) -> Result<ApproachAddresses, Failure> {
    let mut words = vec!["pktxpmgr"];
    words.extend(addr.iter().flat_map(|addr| ["-a", addr]));
    words.push("./m");
    let args = Args::parse_words(words.into_iter().map(OsString::from)).unwrap();
    let source = Source { path: "x.conf".into(), text: Vec::new() };
    let mut findings = Findings::default();
    let mut loader = Loader {
        args: &args,
        source: &source,
        now: Ticks(0),
        publication_end: None,
        purpose: Purpose::Run,
        listening: &[],
        kept: &mut Kept::default(),
        findings: &mut findings,
        drawn_snikeys: Vec::new(),
    };
    loader.approach(proxy).ok_or_else(|| findings.into_failure())
}

fn listen(addr: Option<&str>) -> Vec<String> {
    match approach(addr, false).unwrap_or_else(|failure| panic!("{addr:?}: {failure}")) {
        ApproachAddresses::Passive { listen } => listen.iter().map(ToString::to_string).collect(),
        ApproachAddresses::Proxies(_) => panic!("passive was asked for"),
    }
}

fn proxy(addr: &str) -> Vec<String> {
    match approach(Some(addr), true).unwrap_or_else(|failure| panic!("{addr}: {failure}")) {
        ApproachAddresses::Proxies(proxies) => {
            let all = proxies.iter().flat_map(|(_, addresses)| addresses);
            all.map(ToString::to_string).collect()
        }
        ApproachAddresses::Passive { .. } => panic!("a proxy was asked for"),
    }
}

/// Item 21.
#[test]
fn without_an_address_we_listen_on_every_ipv4_address() {
    assert_eq!(listen(None), ["0.0.0.0:20556"]);
}

/// Items 22, 23, 24.
#[test]
fn the_default_port_depends_on_what_is_at_the_other_end() {
    assert_eq!(listen(Some("127.0.0.1")), ["127.0.0.1:20556"]);
    assert_eq!(listen(Some("127.0.0.1:4000")), ["127.0.0.1:4000"]);
    assert_eq!(listen(Some("127.0.0.1:")), ["127.0.0.1:0"]);
    assert_eq!(proxy("127.0.0.1"), ["127.0.0.1:20557"]);
    assert_eq!(proxy("127.0.0.1:4000"), ["127.0.0.1:4000"]);
    for (text, expected) in [
        ("::1", "[::1]:20557"),
        ("[::1]", "[::1]:20557"),
        ("[::1]:4000", "[::1]:4000"),
        ("2001:db8:0:0:0:0:0:1", "[2001:db8::1]:20557"),
    ] {
        assert_eq!(proxy(text), [expected]);
    }
}

#[test]
fn all_addresses_of_a_name_are_kept() {
    let addresses = proxy("localhost:4000");
    assert!(addresses.contains(&"127.0.0.1:4000".to_owned()), "{addresses:?}");
    let mut distinct = addresses.clone();
    distinct.dedup();
    assert_eq!(addresses, distinct);
}

#[test]
fn a_star_listens_on_both_families_where_there_are_both() {
    let addresses = listen(Some("*:4000"));
    assert_eq!(addresses[0], "0.0.0.0:4000");
    assert!(addresses[1..].iter().all(|address| address == "[::]:4000"), "{addresses:?}");
}

#[test]
fn a_proxy_needs_an_address() {
    let Err(failure) = approach(None, true) else { panic!("it must fail") };
    assert_eq!(failure.exit, Exit::Usage);
}

#[test]
fn addresses_without_connections_are_refused_and_a_zone_makes_link_local_ones_usable() {
    let refused = |addr| match approach(Some(addr), true) {
        Err(failure) => (failure.exit, failure.message),
        Ok(_) => panic!("{addr} must be refused"),
    };
    for (addr, exit, expected) in [
        ("fe80::1", Exit::Listen, "add the zone"),
        ("[fe80::1]:7", Exit::Listen, "add the zone"),
        ("224.0.0.1", Exit::Listen, "multicast"),
        ("ff02::1", Exit::Listen, "multicast"),
        ("255.255.255.255", Exit::Listen, "broadcast"),
        ("h:65536", Exit::Usage, "from 0 to 65535"),
        ("h:x", Exit::Usage, "from 0 to 65535"),
    ] {
        let (found, message) = refused(addr);
        assert_eq!(found, exit, "{message}");
        assert!(message.contains(expected), "{message}");
    }
    assert_eq!(proxy("[fe80::1%lo]:7"), ["[fe80::1%1]:7"]);
}
