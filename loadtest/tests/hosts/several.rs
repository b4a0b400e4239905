//! Several brokers at once, with endpoints at each, which are killed and come back: what one of them loses the others carry,
//! and nobody is measured twice.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;

use super::*;

/// Endpoints at each.
const COUNT: usize = 10;

/// A broker or proxy that can be killed and started again where it was.
struct Host {
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

    fn broker(scene: &Scene) -> (Self, [SocketAddr; 2]) {
        let words = ["broker", "--key", "@rv", "--agent", "@agent_bop_rv.cert"];
        let listens = [("--publish", "publishers"), ("--subscribe", "subscribers")];
        let (host, addresses) = Self::start(scene, &words, &listens);
        (host, addresses.try_into().unwrap())
    }

    /// As a machine that loses its power, as far as others can see.
    fn kill(&mut self) {
        let mut running = self.running.take().unwrap();
        running.child.kill().unwrap();
        assert_eq!(running.child.wait().unwrap().signal(), Some(9), "it was killed by us");
    }

    fn come_back(&mut self, scene: &Scene) {
        let words: Vec<_> = self.words.iter().map(String::as_str).collect();
        self.running = Some(Running::start(scene.pktfleet(&words)));
    }
}

impl Running {
    /// Waits until so many log lines hold `text`.
    fn wait_for_times(&mut self, text: &str, times: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.seen.iter().filter(|line| line.contains(text)).count() < times {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => self.seen.push(line),
                Err(_) => {
                    panic!("not {times} times {text:?} in the log:\n{}", self.seen.join("\n"))
                }
            }
        }
    }
}

/// A `pktxpmgr` whose mlet prints whom it measures, into the file `measured`.
fn manager(scene: &Scene, config: &str, words: &[&str]) -> Running {
    let program = Path::new(PKTFLEET).with_file_name("pktxpmgr");
    assert!(program.exists(), "{} is missing: run `cargo build` first", program.display());
    let script = b"#!/bin/sh\necho \"$PKTLAB_ENDPOINT_KEY\"\n";
    let mlet = scene.write("mlet", script, 0o755);
    let mut command = Command::new(program);
    command.args(["-c", config, "--cores", "1"]).args(words).arg(mlet);
    command.stdout(File::create(scene.path("measured")).unwrap());
    Running::start(command)
}

/// A config file that names these brokers instead of one.
fn naming(scene: &Scene, brokers: &[SocketAddr], proxy: bool) -> String {
    let config = scene.config("several", brokers[0], proxy);
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

#[test]
fn of_two_brokers_one_may_be_dead_at_the_start_and_both_later_and_each_endpoint_is_served_once() {
    const SERVED: &str = " is ready, key ";
    let scene = Scene::new("brokers");
    let (mut first, [publish_first, subscribe_first]) = Host::broker(&scene);
    let (mut second, [publish_second, subscribe_second]) = Host::broker(&scene);
    let mut fleets = [subscribe_first, subscribe_second].map(|at| scene.fleet(COUNT, at));
    first.kill();
    let config = naming(&scene, &[publish_first, publish_second], false);
    let mut manager = manager(&scene, &config, &["-a", &free_address()]);
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
    let address = address.rsplit(' ').next().unwrap().to_owned();
    let words = ["endpoint", "--controller", &address, "--snikey", "several", "--key", "@ep1"];
    let more = ["--agent", "@ep1.agent", "--subcmd", "@ep1.subcmd", "--operator", "@eop.pub"];
    let direct = scene.pktfleet(&[&words[..], &more].concat()).output().unwrap();
    assert!(direct.status.success(), "{}", String::from_utf8_lossy(&direct.stderr));
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
