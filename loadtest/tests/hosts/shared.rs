//! One campaign over three machines, with all that it is made of: managers that each have a network of their own, a broker, a
//! proxy, a fleet and a PostgreSQL. Each of them is killed, one manager is cut off and one is stopped.
//!
//! Not here: what befalls it (`shared_faults.rs`), and what is judged afterwards (`shared_judge.rs`). What the campaign waits
//! for by the clock is shortened in its row: rounds, and the next wave, which a test calls when it is ready for it.

use std::collections::BTreeSet;

use serde_json::Value;

use super::identities::keys_in;
use super::network::{Machine, MletProcess, Network};
use super::postgres::{Postgres, ServerCertificate};
use super::shared_judge::{Fault, Told, a_judge_sees_what_is_not_so, faults_in};
use super::*;

/// Longest that anything here may take that waits for endpoints.
const CAMPAIGN_PATIENCE: Duration = Duration::from_secs(300);
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// A wave of endpoints is through after so long without a mlet.
const WAVE_QUIET: Duration = Duration::from_secs(3);
pub(super) const MANAGERS: usize = 3;
pub(super) const PROXY_ROLE: [&str; 2] = ["controllers", "endpoints"];
/// A mlet says whom it measures, takes its time, and speaks to its endpoint only when it is done: it reads the clock. Every
/// tenth takes so long that it is met by whatever ends a manager.
const MLET: &[u8] = b"#!/bin/sh
echo \"$PKTLAB_ENDPOINT_KEY\"
case $PKTLAB_SESSION in
*7) sleep 15 ;;
*) sleep 0.$((PKTLAB_SESSION % 8 + 2)) ;;
esac
printf '\\050\\000\\000\\006\\020\\001\\000\\000\\000\\010' >&0
exec head -c 16 >/dev/null
";

pub(super) fn is_long(mlet: &MletProcess) -> bool {
    mlet.session % 10 == 7
}

/// A manager that is started again when it was killed.
pub(super) struct Manager {
    pub(super) name: String,
    pub(super) machine: Machine,
    pub(super) running: Running,
}

pub(super) struct SharedCampaign {
    pub(super) managers: Vec<Manager>,
    fleet: Running,
    pub(super) proxy: Running,
    /// Where controllers register, and where endpoints come.
    pub(super) proxy_addresses: [SocketAddr; 2],
    broker: Running,
    pub(super) postgres: Postgres,
    pub(super) network: Network,
    /// Where broker, proxy and fleet are.
    pub(super) site: Machine,
    pub(super) database: Machine,
    pub(super) scene: Scene,
    count: usize,
    faults: Vec<Fault>,
}

impl SharedCampaign {
    /// A campaign of so many endpoints that is for `n` of them, and whose first wave is called.
    fn begin(name: &str, count: usize, n: Option<usize>) -> Self {
        let scene = Scene::new(name);
        scene.write("measure", MLET, 0o755);
        let mut network = Network::new();
        let site = network.machine("site");
        let database = network.machine("database");
        let certificate = certificate(&scene, database.address());
        let postgres = database.within(|| Postgres::over_network(database.address(), &certificate));
        let publish = format!("{}:0", site.address());
        let words = ["broker", "--key", "@rv", "--agent", "@agent_bop_rv.cert"];
        let at = ["--publish", &publish, "--subscribe", "127.0.0.1:0"];
        let broker = scene.pktfleet(&[&words[..], &at].concat());
        let mut broker = site.within(|| Running::start(broker));
        let (publish, subscribe) = (broker.address("publishers"), broker.address("subscribers"));
        let mut proxy = proxy(&scene, &site, [SocketAddr::from((site.address(), 0)); 2]);
        let proxy_addresses = PROXY_ROLE.map(|whom| proxy.address(whom));
        let config = fs::read_to_string(scene.config("shared", publish, true)).unwrap();
        let backlog = (count / 10).max(20);
        let config = format!("{config}TargetBacklogConn {backlog}\nPubPeriod 2h\n");
        scene.write("shared.conf", config.as_bytes(), 0o600);
        let mut fleet = fleet(&scene, &site, count, subscribe);
        let all = format!("{count} of {count} endpoints are subscribed");
        fleet.wait_for_within(&all, PATIENCE + Duration::from_millis(20) * count as u32);
        let mut campaign = Self {
            managers: Vec::new(),
            fleet,
            proxy,
            proxy_addresses,
            broker,
            postgres,
            network,
            site,
            database,
            scene,
            count,
            faults: Vec::new(),
        };
        campaign.create(n);
        for number in 0..MANAGERS {
            let name = format!("m{number}");
            let machine = campaign.network.machine(&name);
            let running = campaign.start(&name, &machine);
            campaign.managers.push(Manager { name, machine, running });
        }
        for manager in &mut campaign.managers {
            manager.running.wait_for("member of the campaign");
        }
        campaign
    }

    fn create(&self, n: Option<usize>) {
        let n = n.map(|n| n.to_string());
        let mut words = vec!["--lease", "5s", "--tries", "20", "--waves", "hostid:1hex"];
        words.extend(n.iter().flat_map(|n| ["-n", n]));
        let [register, through] = self.proxy_addresses.map(|address| address.to_string());
        words.extend(["-c", "shared.conf", "-a", &register, "-p", &through, "./measure"]);
        self.ask("create", &words);
        self.postgres.sql(
            "CREATE ROLE lab LOGIN IN ROLE pktlab_manager; \
             UPDATE pktlab.campaign SET round_quiet = '2 s', round_gap = '3 s', wave_gap = '1 day'",
        );
    }

    /// What a command of the campaign prints.
    fn ask(&self, command: &str, words: &[&str]) -> String {
        let address = self.postgres.address("shared");
        let mut pktxpmgr = pktxpmgr(&self.scene);
        let output = pktxpmgr.args(["campaign", command, &address]).args(words).output().unwrap();
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}: {log}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.ask("status", &["--json"])).unwrap()
    }

    /// One manager's command is always the same.
    pub(super) fn start(&self, name: &str, machine: &Machine) -> Running {
        let [register, through] = self.proxy_addresses.map(|address| address.to_string());
        let database = self.database.address();
        let campaign = format!("postgres://lab@{database}/postgres#shared");
        let mut command = pktxpmgr(&self.scene);
        command.args(["--campaign", &campaign, "--campaign-root", "database.pem", "--out", name]);
        command.args(["-c", "shared.conf", "-a", &register, "-p", &through, "--cores", "1"]);
        command.args(["--sessions-max", &(self.count / 2).to_string()]);
        command.args(["--handshake-timeout", "30s", "--setup-timeout", "30s", "./measure"]);
        machine.within(|| Running::start(command))
    }

    fn call_next_wave(&self) {
        self.postgres.sql("UPDATE pktlab.campaign SET wave_at = wave_at - interval '1 day'");
    }

    /// Waits for a manager that has a mlet of this kind which has just begun: one of these managers. Calls wave after wave.
    pub(super) fn await_mlet(
        &self,
        whose: &[usize],
        is_wanted: fn(&MletProcess) -> bool,
    ) -> (usize, MletProcess) {
        let mlets = |number: usize| self.managers[number].machine.mlets();
        let before: BTreeSet<_> =
            whose.iter().flat_map(|number| mlets(*number).into_iter().map(|one| one.pid)).collect();
        let deadline = Instant::now() + CAMPAIGN_PATIENCE;
        self.call_next_wave();
        let mut quiet_since = Instant::now();
        loop {
            for number in whose.iter().copied() {
                let new = |one: &MletProcess| !before.contains(&one.pid) && is_wanted(one);
                if let Some(mlet) = mlets(number).into_iter().find(new) {
                    return (number, mlet);
                }
            }
            if (0..MANAGERS).any(|number| !mlets(number).iter().all(is_long)) {
                quiet_since = Instant::now();
            }
            if quiet_since.elapsed() > WAVE_QUIET {
                self.call_next_wave();
                quiet_since = Instant::now();
            }
            assert!(Instant::now() < deadline, "no mlet to strike at: {}", self.status());
            thread::sleep(LOOK_INTERVAL);
        }
    }

    /// Something befalls the campaign and is over when `strike` returns: what it breaks and loses is excused.
    pub(super) fn befalls(&mut self, what: &'static str, strike: impl FnOnce(&mut Self)) {
        let from = now();
        let lost = self.lost();
        strike(self);
        println!("{what}: {} more of the managers were lost", self.lost() - lost);
        self.faults.push(Fault { from, until: now() });
    }

    /// Memberships that others have found to be lost.
    pub(super) fn lost(&self) -> usize {
        let lost = self.postgres.sql("SELECT count(*) FROM pktlab.manager WHERE state = 'lost'");
        lost.parse().unwrap()
    }

    pub(super) fn await_lost(&self, more_than: usize) {
        await_that("a manager is lost", || self.lost() > more_than);
    }

    /// Where the publisher is, and its membership.
    pub(super) fn publisher(&self) -> (usize, String) {
        let told = self.postgres.sql(
            "SELECT m.host, m.id FROM pktlab.manager m JOIN pktlab.campaign c ON c.id = m.campaign \
             WHERE m.id = c.publisher AND m.state = 'live'",
        );
        let (host, id) = told.split_once('|').expect("one is elected");
        (self.managers.iter().position(|one| one.name == host).unwrap(), id.to_owned())
    }

    /// The newest text that the broker has, and how many it has had.
    pub(super) fn published(&mut self) -> (Option<String>, usize) {
        let broker = &mut self.broker;
        broker.seen.extend(broker.lines.try_iter());
        let texts = broker.seen.iter().filter_map(|line| line.split_once(" publishes "));
        let texts: Vec<_> = texts.map(|(_, text)| text.to_owned()).collect();
        (texts.last().cloned(), texts.len())
    }

    /// All waves and rounds come by themselves from now on.
    fn hurry(&self) {
        self.postgres.sql("UPDATE pktlab.campaign SET wave_gap = '0.5 s'");
    }

    /// What the fleet and the database tell; the campaign is over.
    fn told(&mut self) -> Told {
        self.fleet.seen.extend(self.fleet.lines.try_iter());
        let results = self.ask("results", &[]);
        let begins = |line: &&String| line.ends_with(": a session begins");
        println!("{} sessions began", self.fleet.seen.iter().filter(begins).count());
        Told {
            keys: keys_in(&self.scene.folder.join("kept")),
            log: self.fleet.seen.clone(),
            results: results.lines().map(|line| serde_json::from_str(line).unwrap()).collect(),
            faults: self.faults.clone(),
        }
    }

    /// Each manager ends by itself.
    fn managers_end(&mut self) {
        for Manager { name, machine, running } in &mut self.managers {
            let deadline = Instant::now() + PATIENCE;
            let status = loop {
                if let Some(status) = running.child.try_wait().unwrap() {
                    break status;
                }
                assert!(Instant::now() < deadline, "{name} does not end");
                thread::sleep(LOOK_INTERVAL);
            };
            running.seen.extend(running.lines.iter());
            assert_eq!(status.code(), Some(0), "{name}: {}", running.seen.join("\n"));
            assert_eq!(machine.mlets(), BTreeSet::new(), "{name} has left nothing");
        }
    }
}

/// What the managers said last, if the test has failed.
impl Drop for SharedCampaign {
    fn drop(&mut self) {
        if thread::panicking() {
            for Manager { name, running, .. } in &mut self.managers {
                running.seen.extend(running.lines.try_iter());
                let last = &running.seen[running.seen.len().saturating_sub(100)..];
                eprintln!("{name}:\n{}", last.join("\n"));
            }
        }
    }
}

fn pktxpmgr(scene: &Scene) -> Command {
    let program = Path::new(PKTFLEET).with_file_name("pktxpmgr");
    assert!(program.exists(), "{} is missing: run `cargo build` first", program.display());
    let mut command = Command::new(program);
    command.current_dir(&scene.folder);
    command
}

pub(super) fn proxy(scene: &Scene, site: &Machine, at: [SocketAddr; 2]) -> Running {
    let [controllers, endpoints] = at.map(|address| address.to_string());
    let words = ["proxy", "--key", "@prx", "--agent", "@agent_prx.cert"];
    let at = ["--controllers", &controllers, "--endpoints", &endpoints];
    let words = [&words[..], &at, &["--per-source-percent", "100"]].concat();
    let command = scene.pktfleet(&words);
    site.within(|| Running::start(command))
}

fn fleet(scene: &Scene, site: &Machine, count: usize, broker: SocketAddr) -> Running {
    let (count, broker) = (count.to_string(), broker.to_string());
    let words = ["fleet", "-v", "--endpoints", &count, "--subscribe", &broker, "--key", "@eop"];
    let own = ["--identities", "@kept", "--address", "127.2.0.1", "--attributes", "hostid=EP{};"];
    let command = scene.pktfleet(&[&words[..], &own].concat());
    site.within(|| Running::start(command))
}

/// One for a database at this address, in `database.pem` too.
fn certificate(scene: &Scene, address: std::net::Ipv4Addr) -> ServerCertificate {
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=database"]);
    openssl.args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    openssl.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
    openssl.args(["-addext", &format!("subjectAltName=IP:{address}")]);
    openssl.args(["-keyout", "database.key", "-out", "database.pem"]);
    let made = openssl.current_dir(&scene.folder).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let read = |name: &str| fs::read(scene.path(name)).unwrap();
    ServerCertificate { certificate: read("database.pem"), key: read("database.key") }
}

fn now() -> Ticks {
    Ticks::from_system_time(std::time::SystemTime::now())
}

#[track_caller]
pub(super) fn await_that(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        thread::sleep(LOOK_INTERVAL);
    }
}

/// With as many endpoints as `SHARED_ENDPOINTS` says, 200 if it says nothing.
#[test]
#[ignore = "needs postgresql, openssl, iproute2, CAP_NET_ADMIN"]
fn each_endpoint_has_one_result_whatever_befalls_three_managers() {
    let count = std::env::var("SHARED_ENDPOINTS").map_or(200, |text| text.parse().unwrap());
    let mut campaign = SharedCampaign::begin("shared", count, None);
    campaign.cut_one_off();
    campaign.stop_one();
    let publisher = campaign.kill_publisher();
    campaign.kill_database();
    for number in (0..MANAGERS).filter(|number| *number != publisher) {
        campaign.kill_other(number);
    }
    campaign.restart_proxy();
    campaign.kill_all();
    campaign.hurry();
    let deadline = Instant::now() + CAMPAIGN_PATIENCE;
    while campaign.status()["done"].as_u64().unwrap() < count as u64 {
        assert!(Instant::now() < deadline, "not all are done: {}", campaign.status());
        thread::sleep(LOOK_INTERVAL);
    }
    campaign.ask("stop", &[]);
    campaign.managers_end();
    let told = campaign.told();
    assert_eq!(faults_in(&told, count), Vec::<String>::new());
    a_judge_sees_what_is_not_so(&told, count);
}

#[test]
#[ignore = "needs postgresql, openssl, iproute2, CAP_NET_ADMIN"]
fn a_campaign_for_so_many_has_exactly_so_many_results_whatever_befalls_it() {
    let (count, n) = (200, 150);
    let mut campaign = SharedCampaign::begin("shared-n", count, Some(n));
    campaign.kill_other(0);
    campaign.cut_one_off();
    campaign.kill_database();
    campaign.hurry();
    campaign.managers_end();
    let status = campaign.status();
    assert_eq!((&status["state"], &status["done"]), (&"over".into(), &n.into()), "{status}");
    let told = campaign.told();
    assert_eq!(faults_in(&told, n), Vec::<String>::new());
}
