//! Several brokers and several proxies at once, with endpoints at each, which are killed and come back: what one of them
//! loses the others carry, and nobody is measured twice.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;

use serde_json::Value;

use super::*;

/// Endpoints at each.
const COUNT: usize = 10;

/// A broker or proxy that can be killed and started again where it was.
pub(super) struct Host {
    running: Option<Running>,
    /// How it is started again.
    words: Vec<String>,
}

impl Host {
    /// `words` with the addresses it has got, of each option and whom it listens for.
    fn start(scene: &Scene, words: &[&str], listens: &[(&str, &str)]) -> (Self, Vec<SocketAddr>) {
        let anywhere = listens.iter().flat_map(|(option, _)| [*option, "127.0.0.1:0"]);
        let all: Vec<_> = words.iter().copied().chain(anywhere).collect();
        let mut running = Running::start(scene.pktfleet(&all));
        let addresses: Vec<_> = listens.iter().map(|(_, whom)| running.address(whom)).collect();
        let mut again: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
        for ((option, _), address) in listens.iter().zip(&addresses) {
            again.extend([(*option).to_owned(), address.to_string()]);
        }
        (Self { running: Some(running), words: again }, addresses)
    }

    pub(super) fn broker(scene: &Scene) -> (Self, [SocketAddr; 2]) {
        let words = ["broker", "--key", "@rv", "--agent", "@agent_bop_rv.cert"];
        let listens = [("--publish", "publishers"), ("--subscribe", "subscribers")];
        let (host, addresses) = Self::start(scene, &words, &listens);
        (host, addresses.try_into().unwrap())
    }

    /// Where controllers and where endpoints come to.
    pub(super) fn proxy(scene: &Scene) -> (Self, [SocketAddr; 2]) {
        let words = ["proxy", "--key", "@prx", "--agent", "@agent_prx.cert"];
        let listens = [("--controllers", "controllers"), ("--endpoints", "endpoints")];
        let (host, addresses) = Self::start(scene, &words, &listens);
        (host, addresses.try_into().unwrap())
    }

    /// As a machine that loses its power, as far as others can see.
    pub(super) fn kill(&mut self) {
        let mut running = self.running.take().unwrap();
        running.child.kill().unwrap();
        assert_eq!(running.child.wait().unwrap().signal(), Some(9), "it was killed by us");
    }

    pub(super) fn come_back(&mut self, scene: &Scene) {
        let words: Vec<_> = self.words.iter().map(String::as_str).collect();
        self.running = Some(Running::start(scene.pktfleet(&words)));
    }
}

/// A `pktxpmgr` whose mlet prints whom it measures, into the file `measured`, and then does this.
fn manager(scene: &Scene, config: &str, words: &[&str], then: &str) -> Running {
    let program = Path::new(PKTFLEET).with_file_name("pktxpmgr");
    assert!(program.exists(), "{} is missing: run `cargo build` first", program.display());
    let script = format!("#!/bin/sh\necho \"$PKTLAB_ENDPOINT_KEY\"\n{then}\n");
    let mlet = scene.write("mlet", script.as_bytes(), 0o755);
    let mut command = Command::new(program);
    command.args(["-c", config, "--cores", "1"]).args(words).arg(mlet).current_dir(&scene.folder);
    command.stdout(File::create(scene.path("measured")).unwrap());
    Running::start(command)
}

/// A config file that names these brokers instead of one.
fn naming(scene: &Scene, brokers: &[SocketAddr]) -> String {
    let config = scene.config("several", brokers[0], false);
    let text = fs::read_to_string(&config).unwrap();
    let all: Vec<_> = brokers.iter().map(ToString::to_string).collect();
    let one = format!("BrokerAddr {}\n", brokers[0]);
    let text = text.replace(&one, &format!("BrokerAddr {}\nPubPeriod 1h\n", all.join(",")));
    scene.write("several.conf", text.as_bytes(), 0o600)
}

/// The keys that were measured, each as often as it was.
fn measured(scene: &Scene) -> Vec<String> {
    let text = fs::read_to_string(scene.path("measured")).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// An endpoint made by [`Scene::endpoint`] that knows where it is served, once.
fn directed(scene: &Scene, name: &str, controller: &str, snikey: &str) -> Running {
    let [key, agent, subcmd] = ["", ".agent", ".subcmd"].map(|suffix| format!("@{name}{suffix}"));
    let words = ["endpoint", "--controller", controller, "--snikey", snikey, "--key", &key];
    let more = ["--agent", &agent, "--subcmd", &subcmd, "--operator", "@eop.pub"];
    Running::start(scene.pktfleet(&[&words[..], &more].concat()))
}

#[test]
fn of_two_brokers_one_may_be_dead_at_the_start_and_both_later_and_each_endpoint_is_served_once() {
    const SERVED: &str = " is ready, key ";
    let scene = Scene::new("brokers");
    let (mut first, [publish_first, subscribe_first]) = Host::broker(&scene);
    let (mut second, [publish_second, subscribe_second]) = Host::broker(&scene);
    let mut fleets = [subscribe_first, subscribe_second].map(|at| scene.fleet(COUNT, at));
    first.kill();
    let config = naming(&scene, &[publish_first, publish_second]);
    let mut manager = manager(&scene, &config, &["-a", &free_address()], "");
    // The second has it alone.
    manager.wait_for(&format!("broker {publish_first}: cannot connect"));
    manager.wait_for(&format!("published at the broker {publish_second}"));
    manager.wait_for_times(SERVED, COUNT);
    // The first comes back, and its endpoints with it.
    first.come_back(&scene);
    manager.wait_for(&format!("published at the broker {publish_first}"));
    manager.wait_for_times(SERVED, 2 * COUNT);
    // Without either, whoever knows the way is served.
    first.kill();
    second.kill();
    manager.wait_for(&format!("broker {publish_second}: it closed the connection"));
    let key = scene.endpoint("ep1");
    let address = manager.wait_for("listening on ");
    let mut direct = directed(&scene, "ep1", address.rsplit(' ').next().unwrap(), "several");
    assert!(direct.child.wait().unwrap().success());
    // Both come back: everybody hears the text they know.
    first.come_back(&scene);
    second.come_back(&scene);
    for fleet in &mut fleets {
        fleet.wait_for_times(&format!("{COUNT} of {COUNT} endpoints are subscribed"), 2);
    }
    manager.wait_for_times("published at the broker", 4);
    let log = manager.end(Signal::SIGINT);
    let mut measured = measured(&scene);
    assert_eq!(measured.len(), 2 * COUNT + 1, "{}", log.join("\n"));
    assert!(measured.contains(&key));
    measured.sort();
    measured.dedup();
    assert_eq!(measured.len(), 2 * COUNT + 1, "nobody is measured twice");
    for fleet in fleets {
        fleet.end(Signal::SIGINT);
    }
}

/// The outcomes of sessions under this snikey, by the records of a run.
fn outcomes(scene: &Scene, snikey: &str) -> BTreeMap<String, usize> {
    let mut outcomes = BTreeMap::new();
    for line in fs::read_to_string(scene.path("events")).unwrap().lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        if record["ev"] == "session.end" && record["ep"]["snikey"] == snikey {
            let outcome = record["outcome"].as_str().unwrap().to_owned();
            *outcomes.entry(outcome).or_default() += 1;
        }
    }
    outcomes
}

/// Of two proxies one is killed while sessions go through both, and with endpoints at each.
#[test]
fn a_proxy_that_is_killed_takes_its_own_sessions_along_and_is_filled_when_it_is_back() {
    const BACKLOG: usize = 4;
    let scene = Scene::new("proxies");
    let mut broker = scene.broker();
    let (publish, subscribe) = (broker.address("publishers"), broker.address("subscribers"));
    let (mut east, [register_east, come_east]) = Host::proxy(&scene);
    let (_west, [register_west, come_west]) = Host::proxy(&scene);
    // Whose endpoints hear on this channel are told of this proxy; the manager serves both snikeys at both.
    let config = scene.config("east", publish, true);
    let text = fs::read_to_string(&config).unwrap();
    let entry = text.lines().find(|line| line.starts_with("ExpExec")).unwrap();
    let of = |snikey: &str, channel: &str, come: SocketAddr| {
        let entry = entry.strip_suffix("::").unwrap().replace(":east:", &format!(":{snikey}:"));
        format!("{entry}:{channel}:controller_addr={come};")
    };
    let entries = [of("east", "01", come_east), of("west", "02", come_west)].join("\n");
    let text = format!("{}TargetBacklogConn {BACKLOG}\n", text.replace(entry, &entries));
    scene.write("east.conf", text.as_bytes(), 0o600);
    let mut fleets = ["01", "02"].map(|channel| {
        let (count, broker) = (COUNT.to_string(), subscribe.to_string());
        let words = ["fleet", "--endpoints", &count, "--subscribe", &broker, "--key", "@eop"];
        let fleet = scene.pktfleet(&[&words[..], &["--channel", channel]].concat());
        Running::start(fleet)
    });
    for fleet in &mut fleets {
        fleet.wait_for(&format!("{COUNT} of {COUNT} endpoints are subscribed"));
    }
    let both = format!("{register_east},{register_west}");
    let until_told = "while [ ! -e go ]; do sleep 0.05; done";
    let mut manager = manager(&scene, &config, &["-a", &both, "--events", "events"], until_told);
    manager.wait_for_times("backlog filled: 8 connections are registered at", 2);
    manager.wait_for_times(" is ready, key ", 2 * COUNT);
    east.kill();
    manager.wait_for_times("; its mlet still runs", COUNT);
    manager.wait_for(&format!("proxy {register_east}, snikey east: cannot connect"));
    // Through the other one goes whoever comes, under both snikeys.
    let mut more: Vec<_> = [("ep1", "east"), ("ep2", "west")]
        .map(|endpoint| one_more(&scene, &mut manager, endpoint, come_west))
        .into();
    east.come_back(&scene);
    manager.wait_for(&format!("the backlog at {register_east} is full again"));
    more.push(one_more(&scene, &mut manager, ("ep3", "west"), come_east));
    scene.write("go", b"", 0o600);
    manager.wait_for_times("mlet exit code 0", 2 * COUNT + 3);
    let log = manager.end(Signal::SIGINT);
    let told = log.join("\n");
    assert_eq!(outcomes(&scene, "west"), [("ok".to_owned(), COUNT + 2)].into(), "{told}");
    let of_east = outcomes(&scene, "east");
    assert_eq!(of_east.get("ok"), Some(&1), "{of_east:?}\n{told}");
    assert_eq!(of_east.values().sum::<usize>(), COUNT + 1, "{of_east:?}\n{told}");
}

/// A new endpoint whose session through this proxy lasts as long as those of the fleets.
fn one_more(
    scene: &Scene,
    manager: &mut Running,
    (name, snikey): (&str, &str),
    proxy: SocketAddr,
) -> Running {
    const SERVED: &str = " is ready, key ";
    let before = manager.seen.iter().filter(|line| line.contains(SERVED)).count();
    scene.endpoint(name);
    let endpoint = directed(scene, name, &proxy.to_string(), snikey);
    manager.wait_for_times(SERVED, before + 1);
    endpoint
}
