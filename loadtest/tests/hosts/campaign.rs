//! Promise P30 with all that a campaign is made of: a broker, a fleet that is killed and started again with the same
//! identities, a manager that is killed three times and goes on, and a judge that reads nothing but files.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::os::unix::process::ExitStatusExt;

use serde_json::Value;

use super::identities::keys_in;
use super::*;

/// How long the last of the endpoints may take.
const CAMPAIGN_PATIENCE: Duration = Duration::from_secs(600);
/// Nobody has come for so long: who is left has failed before START, and waits to be told of the experiment again.
const STALLED: Duration = Duration::from_secs(10);
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// A mlet says whom it measures, and is at work for long enough to be hit by a kill; they do not end in waves.
const MLET: &[u8] = b"#!/bin/sh
echo \"$PKTLAB_ENDPOINT_KEY\"
exec sleep 0.$((PKTLAB_SESSION % 8 + 1))
";

/// What befalls a campaign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    Fleet,
    Manager,
}

/// Draws moments; its seed is told if the test fails, and can be given again as `CAMPAIGN_SEED`.
struct Moments {
    seed: u64,
    state: u64,
}

impl Moments {
    fn new() -> Self {
        let given = std::env::var("CAMPAIGN_SEED").ok().map(|text| text.parse().unwrap());
        let seed = given.unwrap_or_else(|| RandomState::new().hash_one("campaign"));
        Self { seed, state: seed | 1 }
    }

    /// A number of endpoints that are done: so many of a hundred of all.
    fn draw(&mut self, percent: std::ops::Range<usize>, count: usize) -> usize {
        // xorshift64 (Marsaglia 2003).
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        let (low, high) = (count * percent.start / 100, count * percent.end / 100);
        low + usize::try_from(self.state % (high - low) as u64).unwrap()
    }

    /// The fleet is killed half-way, the manager three times.
    fn of_faults(&mut self, count: usize) -> Vec<(usize, Fault)> {
        let mut faults: Vec<_> =
            (0..3).map(|_| (self.draw(3..90, count), Fault::Manager)).collect();
        faults.push((self.draw(25..70, count), Fault::Fleet));
        faults.sort_unstable();
        faults
    }
}

impl Drop for Moments {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the moments were drawn with CAMPAIGN_SEED={}", self.seed);
        }
    }
}

/// A campaign under way.
struct Campaign {
    scene: Scene,
    count: usize,
    subscribe: SocketAddr,
    fleet: Running,
    manager: Running,
    _broker: Running,
}

impl Campaign {
    fn begin(name: &str, count: usize) -> Self {
        let scene = Scene::new(name);
        scene.write("measure", MLET, 0o755);
        let mut broker = scene.broker();
        let (publish, subscribe) = (broker.address("publishers"), broker.address("subscribers"));
        scene.config("campaign", publish, false);
        let mut fleet = Self::fleet(&scene, count, subscribe);
        let all = format!("{count} of {count} endpoints are subscribed");
        fleet.wait_for_within(&all, PATIENCE + Duration::from_millis(20) * count as u32);
        let manager = Self::manager(&scene, count, "--out");
        Self { scene, count, subscribe, fleet, manager, _broker: broker }
    }

    fn fleet(scene: &Scene, count: usize, broker: SocketAddr) -> Running {
        let (count, broker) = (count.to_string(), broker.to_string());
        let words = ["fleet", "--endpoints", &count, "--subscribe", &broker, "--key", "@eop"];
        let kept = ["--identities", "@kept", "--address", "127.2.0.1"];
        Running::start(scene.pktfleet(&[&words[..], &kept].concat()))
    }

    /// A manager that begins the results (`--out`) or goes on with them (`--resume`).
    fn manager(scene: &Scene, count: usize, begin: &str) -> Running {
        let program = Path::new(PKTFLEET).with_file_name("pktxpmgr");
        assert!(program.exists(), "{} is missing: run `cargo build` first", program.display());
        let (count, at_once) = (count.to_string(), (count / 10).max(20).to_string());
        let mut command = Command::new(program);
        command.current_dir(&scene.folder).args(["-c", "campaign.conf", "-a", &free_address()]);
        command.args(["-n", &count, "--sessions-max", &at_once, begin, "results"]);
        command.arg("--once-per-endpoint");
        command.args(["--handshake-timeout", "60s", "--setup-timeout", "60s", "./measure"]);
        Running::start(command)
    }

    fn results(&self) -> PathBuf {
        self.scene.folder.join("results")
    }

    fn identities(&self) -> PathBuf {
        self.scene.folder.join("kept")
    }

    fn events(&self) -> String {
        let events = fs::read(self.results().join("events.jsonl")).unwrap_or_default();
        String::from_utf8_lossy(&events).into_owned()
    }

    /// Endpoints that are done so far.
    fn done(&self) -> usize {
        self.events().matches(r#""outcome":"ok""#).count()
    }

    /// Sessions that the manager has begun and that have no record.
    fn under_way(&mut self) -> usize {
        self.manager.seen.extend(self.manager.lines.try_iter());
        let ready = self.manager.seen.iter().filter(|line| line.contains(" is ready, key "));
        let numbers = ready.map(|line| line.rsplit_once("session=").unwrap().1.parse().unwrap());
        let events = self.events();
        let numbers_of =
            |line: &str| line.split_once(r#""sid":"#)?.1.split(',').next()?.parse().ok();
        let recorded: BTreeSet<u64> = events.lines().filter_map(numbers_of).collect();
        numbers.filter(|number| !recorded.contains(number)).count()
    }

    /// Goes on, with one manager after another if need be, until so many endpoints are done and, before the end, others are
    /// being measured.
    fn go_on_until(&mut self, done: usize) {
        let deadline = Instant::now() + CAMPAIGN_PATIENCE;
        let (mut last, mut since) = (0, Instant::now());
        loop {
            let now = self.done();
            if now >= done && (done == self.count || self.under_way() > 0) {
                return;
            }
            assert!(Instant::now() < deadline, "{now} of {} are done", self.count);
            if now > last {
                (last, since) = (now, Instant::now());
            }
            let ended = self.manager.child.try_wait().unwrap();
            if ended.is_none() && since.elapsed() > STALLED {
                let pid = self.manager.child.id().try_into().unwrap();
                kill(Pid::from_raw(pid), Signal::SIGINT).unwrap();
                since = Instant::now();
            }
            if let Some(status) = ended {
                // Sessions that failed have used up a part of its -n.
                self.manager.seen.extend(self.manager.lines.iter());
                let log = self.manager.seen.join("\n");
                assert!([Some(0), Some(130)].contains(&status.code()), "{status}:\n{log}");
                self.resume();
                since = Instant::now();
            }
            thread::sleep(LOOK_INTERVAL);
        }
    }

    fn resume(&mut self) {
        self.manager = Self::manager(&self.scene, self.count, "--resume");
    }

    /// Kills what is running, and starts it again.
    fn strike(&mut self, fault: Fault) {
        let struck = match fault {
            Fault::Fleet => &mut self.fleet,
            Fault::Manager => &mut self.manager,
        };
        assert!(struck.child.try_wait().unwrap().is_none(), "it runs");
        struck.child.kill().unwrap();
        assert_eq!(struck.child.wait().unwrap().signal(), Some(9), "it was killed by us");
        match fault {
            Fault::Fleet => {
                let done = self.done() * 100 / self.count;
                assert!((20..=80).contains(&done), "killed when {done} % were done");
                self.fleet = Self::fleet(&self.scene, self.count, self.subscribe);
            }
            Fault::Manager => {
                assert!(self.under_way() > 0, "it had no sessions under way");
                let mut faults = faults_in(&self.results(), &self.identities());
                faults.retain(|fault| !fault.ends_with("is ok 0 times"));
                assert_eq!(faults, Vec::<String>::new(), "what a kill leaves");
                self.resume();
            }
        }
    }
}

/// What a file of records says, torn lines passed over.
struct Records {
    /// Of each session, by its number.
    of_sessions: BTreeMap<u64, Value>,
    /// Numbers that two sessions have.
    twice: Vec<u64>,
    /// Lines that are none.
    torn: usize,
}

impl Records {
    fn read(results: &Path) -> Self {
        let text = fs::read(results.join("events.jsonl")).unwrap_or_default();
        let mut records = Self { of_sessions: BTreeMap::new(), twice: Vec::new(), torn: 0 };
        for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let Ok(record) = serde_json::from_slice::<Value>(line) else {
                records.torn += 1;
                continue;
            };
            if record["ev"] == "session.end" {
                let number = record["sid"].as_u64().unwrap();
                if records.of_sessions.insert(number, record).is_some() {
                    records.twice.push(number);
                }
            }
        }
        records
    }
}

/// The numbers of sessions that have folders, with these.
fn session_folders(results: &Path) -> Vec<(u64, PathBuf)> {
    let entries = fs::read_dir(results.join("sessions")).into_iter().flatten();
    let folders = entries.map(|entry| entry.unwrap().path());
    let numbered = folders.map(|folder| {
        let name = folder.file_name().unwrap().to_str().unwrap();
        (name.split_once('-').unwrap().0.parse().unwrap(), folder)
    });
    numbered.collect()
}

/// The copy of a session's record, if it is whole.
fn copy_in(folder: &Path) -> Option<Value> {
    serde_json::from_slice(&fs::read(folder.join("session.json")).ok()?).ok()
}

/// Whether every endpoint was measured exactly once, by what lies in the folders alone: the reasons why not.
fn faults_in(results: &Path, identities: &Path) -> Vec<String> {
    let Records { of_sessions, twice, torn } = Records::read(results);
    let mut faults: Vec<_> =
        twice.iter().map(|number| format!("{number} is there twice")).collect();
    if torn > 3 {
        faults.push(format!("{torn} lines are torn, and three kills leave three at most"));
    }
    let keys: BTreeSet<_> = keys_in(identities).into_iter().collect();
    let mut uncopied = 0;
    let mut oks: BTreeMap<_, usize> = keys.iter().map(|key| (&**key, 0)).collect();
    for (number, record) in of_sessions.iter().filter(|(_, record)| record["outcome"] == "ok") {
        let key = record["ep"]["key"].as_str().unwrap();
        match oks.get_mut(key) {
            Some(count) => *count += 1,
            None => faults.push(format!("{number} is of a stranger: {key}")),
        }
        let folder = results.join(record["output"]["dir"].as_str().unwrap());
        if fs::read_to_string(folder.join("stdout")).ok() != Some(format!("{key}\n")) {
            faults.push(format!("{number} has another output"));
        }
        uncopied += usize::from(copy_in(&folder).is_none());
    }
    if uncopied > 3 {
        faults
            .push(format!("{uncopied} records have no copy, and three kills leave three at most"));
    }
    let not_once = oks.iter().filter(|(_, count)| **count != 1);
    faults.extend(not_once.map(|(key, count)| format!("{key} is ok {count} times")));
    for (number, folder) in session_folders(results) {
        if copy_in(&folder).is_some_and(|copy| of_sessions.get(&number) != Some(&copy)) {
            faults.push(format!("{number} has a copy of a record that is not there"));
        }
    }
    faults
}

/// A campaign of so many endpoints that everything befalls.
fn every_endpoint_is_measured_once(name: &str, count: usize) {
    let mut moments = Moments::new();
    let mut campaign = Campaign::begin(name, count);
    for (done, fault) in moments.of_faults(count) {
        campaign.go_on_until(done);
        campaign.strike(fault);
    }
    campaign.go_on_until(count);
    assert_eq!(
        campaign.manager.child.wait().unwrap().code(),
        Some(0),
        "there is nothing left to do"
    );
    let (results, identities) = (campaign.results(), campaign.identities());
    assert_eq!(faults_in(&results, &identities), Vec::<String>::new());
    println!("{count} endpoints are ok once: {}", told_of(&results));
    a_judge_sees_what_is_not_so(&results, &identities);
}

/// How many sessions it took.
fn told_of(results: &Path) -> String {
    let Records { of_sessions, torn, .. } = Records::read(results);
    let mut outcomes: BTreeMap<&str, usize> = BTreeMap::new();
    for record in of_sessions.values() {
        *outcomes.entry(record["outcome"].as_str().unwrap()).or_default() += 1;
    }
    let outcomes: Vec<_> = outcomes.iter().map(|(name, count)| format!("{count} {name}")).collect();
    let unrecorded = session_folders(results).len();
    format!("{}; {unrecorded} folders of sessions, {torn} torn lines", outcomes.join(", "))
}

/// An endpoint that is `ok` twice, and one that is not, would have been found.
fn a_judge_sees_what_is_not_so(results: &Path, identities: &Path) {
    let events = results.join("events.jsonl");
    let text = fs::read_to_string(&events).unwrap();
    let ok = text.lines().find(|line| line.contains(r#""outcome":"ok""#)).unwrap();
    let (sid, rest) = ok.split_once(r#""sid":"#).unwrap();
    let again = format!(r#"{sid}"sid":9{rest}"#);
    for (changed, seen) in [
        (format!("{text}{again}\n"), "is ok 2 times"),
        (text.replace(ok, ""), "is ok 0 times"),
        (format!("{text}{ok}\n"), "is there twice"),
    ] {
        fs::write(&events, changed).unwrap();
        let faults = faults_in(results, identities);
        assert!(faults.iter().any(|fault| fault.ends_with(seen)), "{seen}: {faults:?}");
    }
}

/// Promise P30.
#[test]
#[ignore = "takes a minute and more"]
fn two_thousand_endpoints_are_each_measured_once_whatever_is_killed() {
    every_endpoint_is_measured_once("campaign", 2_000);
}

/// The same, in small.
#[test]
fn a_hundred_endpoints_are_each_measured_once_whatever_is_killed() {
    every_endpoint_is_measured_once("campaign-small", 100);
}
