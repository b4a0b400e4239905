//! One campaign over three machines, with all that it is made of: managers that each have a network of their own, a broker, a
//! proxy, a fleet and a PostgreSQL. Each of them is killed, one manager is cut off and one is stopped.
//!
//! Not here: its parts (`shared_parts.rs`), what befalls it (`shared_faults.rs`), and what is judged afterwards
//! (`shared_judge.rs`). What the campaign waits for by the clock is shortened in its row: rounds, and the next wave, which a
//! test calls when it is ready for it.

use std::collections::BTreeSet;
use std::fs::File;

use nix::fcntl::Flock;
use serde_json::Value;

use super::attacks::stranger;
use super::identities::keys_in;
use super::network::{Machine, MletProcess, Network};
use super::postgres::Postgres;
use super::shared_judge::{Fault, Told, a_judge_sees_what_is_not_so, assert_judged_right};
use super::shared_parts::{
    PROXY_ROLE, certificate, fleet, group, is_long, manager, mlet, pktxpmgr, proxy,
};
use super::*;

/// Longest that anything here may take that waits for endpoints.
const CAMPAIGN_PATIENCE: Duration = Duration::from_secs(300);
/// A wave of endpoints is through after so long without a mlet.
const WAVE_QUIET: Duration = Duration::from_secs(2);
pub(super) const MANAGERS: usize = 3;

/// A manager that is started again when it was killed.
pub(super) struct Manager {
    pub(super) name: String,
    /// How its key begins.
    key: String,
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
    /// As long as this is there, long mlets do not end by themselves.
    held: Option<Flock<File>>,
    pub(super) faults: Vec<Fault>,
}

impl SharedCampaign {
    /// A campaign of so many endpoints that is for `n` of them, and whose first wave is called.
    fn begin(name: &str, count: usize, n: Option<usize>) -> Self {
        let scene = Scene::new(name);
        let held = mlet(&scene);
        group(&scene);
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
        let stranger = stranger(&scene, "stranger");
        let registered = site.within(|| try_register(proxy_addresses[0], &stranger, "shared"));
        assert!(registered.is_none(), "the group's key has not signed the stranger's certificate");
        let config = fs::read_to_string(scene.config("shared", publish, true)).unwrap();
        let config = format!("{config}TargetBacklogConn 8\nPubPeriod 2h\n");
        manager(&scene, "lab", &config);
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
            held: Some(held),
            faults: Vec::new(),
        };
        campaign.create(n);
        for number in 0..MANAGERS {
            let name = format!("m{number}");
            let machine = campaign.network.machine(&name);
            let key = manager(&campaign.scene, &name, &config);
            let running = campaign.start(&name, &machine);
            campaign.managers.push(Manager { name, key, machine, running });
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
        words.extend(["-c", "lab.conf", "-a", &register, "-p", &through, "./measure"]);
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
        command.args(["-c", &format!("{name}.conf"), "-a", &register, "-p", &through]);
        command.args(["--cores", "1", "--sessions-max", &(self.count / 2).to_string()]);
        command.args(["--handshake-timeout", "30s", "--setup-timeout", "30s", "./measure"]);
        machine.within(|| Running::start(command))
    }

    fn call_next_wave(&self) {
        self.postgres.sql("UPDATE pktlab.campaign SET wave_at = wave_at - interval '1 day'");
    }

    /// Waits for a manager, one of these, that has just begun with an endpoint and has a long mlet too, which is returned.
    /// Calls wave after wave.
    pub(super) fn await_busy(&self, whose: &[usize]) -> (usize, MletProcess) {
        let mlets = |number: usize| self.managers[number].machine.mlets();
        let before: BTreeSet<_> =
            whose.iter().flat_map(|number| mlets(*number).into_iter().map(|one| one.pid)).collect();
        let is_new = |one: &MletProcess| !is_long(one) && !before.contains(&one.pid);
        let (mut found, mut quiet_since) = (None, Instant::now());
        self.call_next_wave();
        let is_found = comes_true(CAMPAIGN_PATIENCE, || {
            let all: Vec<_> = (0..MANAGERS).map(mlets).collect();
            found = whose.iter().find_map(|number| {
                all[*number].iter().any(is_new).then_some(())?;
                Some((*number, *all[*number].iter().find(|one| is_long(one))?))
            });
            if !all.iter().flatten().all(is_long) {
                quiet_since = Instant::now();
            }
            if quiet_since.elapsed() > WAVE_QUIET {
                self.call_next_wave();
                quiet_since = Instant::now();
            }
            found.is_some()
        });
        assert!(is_found, "no manager has the mlets: {}", self.status());
        found.unwrap()
    }

    /// Memberships of this manager that were found to be lost.
    pub(super) fn lost(&self, number: usize) -> usize {
        let name = &self.managers[number].name;
        let query = "SELECT count(*) FROM pktlab.manager WHERE state = 'lost' AND host =";
        self.postgres.sql(&format!("{query} '{name}'")).parse().unwrap()
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

    /// All waves and rounds come by themselves from now on, and all mlets end by themselves.
    fn hurry(&mut self) {
        self.held = None;
        self.postgres.sql("UPDATE pktlab.campaign SET wave_gap = '0.5 s'");
    }

    /// What the fleet, the mlets and the database tell; the campaign is over.
    fn told(&mut self) -> Told {
        self.fleet.seen.extend(self.fleet.lines.try_iter());
        let lost = self.postgres.sql(
            "SELECT host, to_char(lease_until AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') \
             FROM pktlab.manager WHERE state = 'lost'",
        );
        let results = self.ask("results", &[]);
        let lines = |text: String| text.lines().map(str::to_owned).collect();
        let known = |one: &Manager| [&one.name, &one.key].map(Clone::clone);
        Told {
            keys: keys_in(&self.scene.folder.join("kept")),
            managers: self.managers.iter().map(known).collect(),
            log: self.fleet.seen.clone(),
            results: results.lines().map(|line| serde_json::from_str(line).unwrap()).collect(),
            met: lines(fs::read_to_string(self.scene.path("met")).unwrap_or_default()),
            lost: lines(lost),
            faults: self.faults.clone(),
        }
    }

    /// Each manager ends by itself.
    fn managers_end(&mut self) {
        for Manager { name, machine, running, .. } in &mut self.managers {
            await_that("it ends", || running.child.try_wait().unwrap().is_some());
            let status = running.child.wait().unwrap();
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
    let are_done =
        comes_true(CAMPAIGN_PATIENCE, || campaign.status()["done"].as_u64() >= Some(count as u64));
    assert!(are_done, "not all are done: {}", campaign.status());
    campaign.ask("stop", &[]);
    campaign.managers_end();
    let told = campaign.told();
    assert_judged_right(&told, count);
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
    assert_judged_right(&campaign.told(), n);
}
