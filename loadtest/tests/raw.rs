//! The mlets that send whole packets, at a real endpoint with raw sockets, in a network of a test's own: behind a router
//! there is a target, in IPv4 and in IPv6.
//!
//! Not here: packets of others, which the mlets' own tests invent.

#![expect(clippy::unwrap_used, reason = "a helper of tests may panic like a test")]

mod measuring;
#[path = "hosts/network.rs"]
#[allow(dead_code, reason = "nothing is cut here, and no mlet is looked for")]
mod network;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::process::Command;
use std::thread;

use measuring::{Home, program};
use network::{Machine, Network};
use packetlab::key::PublicKey;

/// Manager and endpoint on one machine, a target on another, and a router between them.
struct Scene {
    home: Home,
    near: Machine,
    target: Machine,
    /// Of the target, and those of the router on the endpoint's side.
    targets: [IpAddr; 2],
    routers: [IpAddr; 2],
    _network: Network,
}

impl Scene {
    fn new(name: &str) -> Self {
        let mut network = Network::new();
        let (near, target) = (network.machine("near"), network.machine("target"));
        network.with_ipv6(&near);
        let targets = [target.address().into(), network.with_ipv6(&target).into()];
        let routers = ["10.77.1.1", "fd77:0:0:1::1"].map(|text| text.parse().unwrap());
        Self { home: Home::new(name), near, target, targets, routers, _network: network }
    }

    /// The lines that a mlet prints, without key and address of the endpoint, which come first.
    fn measured(&self, mlet: &str, words: &[&str]) -> Vec<Vec<String>> {
        let (mlet, unspecified) = (program(mlet), Ipv4Addr::UNSPECIFIED.into());
        let words = [&[&*mlet], words].concat();
        let measure = || self.home.measure(Ipv4Addr::LOCALHOST.into(), unspecified, &words);
        let text = self.near.within(measure);
        let key = fs::read(self.home.path("keys/k_ep.pub")).unwrap();
        let start = format!("{}\t127.0.0.1\t", PublicKey::from_pem(&key).unwrap().key_id());
        let rest =
            text.lines().map(|line| line.strip_prefix(&start).unwrap_or_else(|| panic!("{line}")));
        rest.map(|line| line.split('\t').map(str::to_owned).collect()).collect()
    }
}

/// A time that was measured.
#[track_caller]
fn assert_is_time(text: &str) {
    assert!(text.parse::<f64>().is_ok_and(|milliseconds| milliseconds > 0.0), "{text}");
}

#[test]
#[ignore = "needs CAP_NET_ADMIN, iproute2 and IPv6"]
fn ping_counts_what_its_target_replies_in_either_family() {
    let scene = Scene::new("ping");
    for target in scene.targets.map(|target| target.to_string()) {
        let replies = scene.measured("mlet-ping", &[&target, "2"]);
        assert_eq!(replies.len(), 2, "{replies:?}");
        for (sequence, reply) in replies.iter().enumerate() {
            assert_eq!(reply[..2], [target.clone(), sequence.to_string()]);
            assert_is_time(&reply[2]);
        }
    }
    // The network answers for nobody: there is no route, or no such host.
    for nobody in ["10.77.2.9", "fd77:0:0:2::9"] {
        assert_eq!(scene.measured("mlet-ping", &[nobody, "1"]), [[nobody, "0", "-"]]);
    }
}

/// What the endpoint's own machine answers over loopback.
#[test]
#[ignore = "needs CAP_NET_ADMIN, iproute2 and IPv6"]
fn loopback_is_a_target_like_others() {
    let scene = Scene::new("loopback");
    for (target, unreachable) in [("127.0.0.1", "unreachable 3"), ("::1", "unreachable 4")] {
        let replies = scene.measured("mlet-ping", &[target, "1"]);
        assert_eq!(replies[0][..2], [target, "0"]);
        assert_is_time(&replies[0][2]);
        let hops = scene.measured("mlet-traceroute", &[target]);
        assert_eq!((hops.len(), &hops[0][..3]), (1, &[target, "1", target].map(str::to_owned)[..]));
        for (protocol, said) in [("icmp", "reply"), ("udp", unreachable), ("tcp", "closed")] {
            let hops = scene.measured("mlet-path", &[target, protocol]);
            assert_eq!(hops.len(), 1, "{hops:?}");
            assert_eq!(hops[0][..5], [target, protocol, "1", "1", target]);
            assert_is_time(&hops[0][5]);
            assert_eq!(hops[0][6], said);
        }
    }
}

#[test]
#[ignore = "needs CAP_NET_ADMIN, iproute2 and IPv6"]
fn traceroute_finds_the_router_and_the_target_in_either_family() {
    let scene = Scene::new("traceroute");
    for (target, router) in scene.targets.iter().zip(scene.routers) {
        let target = target.to_string();
        let hops = scene.measured("mlet-traceroute", &[&target]);
        assert_eq!(hops.len(), 2, "{hops:?}");
        assert_eq!(hops[0][..3], [target.clone(), "1".into(), router.to_string()]);
        assert_eq!(hops[1][..3], [target.clone(), "2".into(), target]);
        hops.iter().for_each(|hop| assert_is_time(&hop[3]));
    }
}

#[test]
#[ignore = "needs CAP_NET_ADMIN, iproute2 and IPv6"]
fn a_path_is_found_by_each_protocol_in_either_family() {
    let scene = Scene::new("path");
    for (target, router) in scene.targets.iter().zip(scene.routers) {
        let listener = scene.target.within(|| TcpListener::bind((*target, 0)).unwrap());
        let open = listener.local_addr().unwrap().to_string();
        // Taken by nobody who listens.
        let bound = scene.target.within(|| TcpListener::bind((*target, 0)).unwrap());
        let closed = bound.local_addr().unwrap().to_string();
        drop(bound);
        let unreachable = if target.is_ipv4() { "unreachable 3" } else { "unreachable 4" };
        for (name, protocol, said) in [
            (target.to_string(), "icmp", "reply"),
            (target.to_string(), "udp", unreachable),
            (open, "tcp", "open"),
            (closed, "tcp", "closed"),
        ] {
            let hops = scene.measured("mlet-path", &[&name, protocol, "2"]);
            assert_eq!(hops.len(), 4, "{hops:?}");
            for (flow, hops) in [("1", &hops[..2]), ("2", &hops[2..])] {
                let router = router.to_string();
                assert_eq!(hops[0][..5], [&name, protocol, flow, "1", &router]);
                assert_eq!(hops[1][..5], [&name, protocol, flow, "2", &target.to_string()]);
                assert_eq!([&hops[0][6], &hops[1][6]], ["exceeded", said]);
                hops.iter().for_each(|hop| assert_is_time(&hop[5]));
            }
        }
        drop(listener);
    }
}
