//! What a campaign costs: all endpoints of a fleet come at once, by turns to a manager alone and to one that is a member of a
//! campaign, directly and through a proxy, and there to three members. It prints figures (docs/performance.md "Sessions of a
//! campaign over several machines"). It fails when a session does not end, a result is not accepted, or the database commits
//! or writes more for an endpoint than it may on a machine of any speed.
//!
//! Not here: claims with no session behind them (`engine/campaign/examples/claims.rs`). Invariant: all runs have the same broker,
//! fleet and network, and each campaign a new database.
//!
//! Environment: `FIGURES_ENDPOINTS` (200), `FIGURES_ROUNDS` (1), and `FIGURES_PROGRAMS`, the folder with the programs that are
//! measured, in place of those of this build.

use std::fs::File;

use serde_json::Value;

use super::figures_usage::{Usage, database_us};
use super::network::{Machine, Network};
use super::postgres::Postgres;
use super::shared_judge::time_of;
use super::*;

#[path = "../../src/load/exit_mlet.rs"]
mod exit_mlet;

const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// A way to have sessions: so many managers, of a campaign or not, behind the proxy or not.
#[derive(Debug, Clone, Copy)]
struct Way {
    name: &'static str,
    managers: usize,
    is_member: bool,
    is_proxied: bool,
}

const fn way(name: &'static str, managers: usize, is_member: bool, is_proxied: bool) -> Way {
    Way { name, managers, is_member, is_proxied }
}

/// In the order of a round. What is alone comes twice, so that it can be compared with itself.
const WAYS: [Way; 7] = [
    way("alone", 1, false, false),
    way("member", 1, true, false),
    way("alone again", 1, false, false),
    way("proxied alone", 1, false, true),
    way("proxied member", 1, true, true),
    way("three members", 3, true, true),
    way("proxied again", 1, false, true),
];

/// Whom a ratio compares: each to the one behind it.
const RATIOS: [(&str, &str); 5] = [
    ("member", "alone"),
    ("alone again", "alone"),
    ("proxied member", "proxied alone"),
    ("three members", "proxied member"),
    ("proxied again", "proxied alone"),
];

/// What all runs share.
struct Stage {
    count: usize,
    fleet: Running,
    proxy: Running,
    _broker: Running,
    /// Where connections are registered, and where endpoints come.
    at_proxy: [String; 2],
    here: Machine,
    _network: Network,
    scene: Scene,
}

/// What one run came to; times and bytes are those of a session.
struct Figures {
    way: Way,
    sessions_per_s: f64,
    /// Processor time by who used it.
    usage: Usage,
    /// p50 and p99 of the phase in which a session waits for its claim, ms.
    waits_ms: [f64; 2],
    database: Option<DatabaseFigures>,
}

struct DatabaseFigures {
    transactions: f64,
    log_syncs: f64,
    log_bytes: f64,
    table_bytes: f64,
}

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

fn measured(name: &str) -> Command {
    let folder = std::env::var_os("FIGURES_PROGRAMS").map(PathBuf::from);
    // A run changes its folder.
    let folder = folder.map(|folder| fs::canonicalize(folder).expect("FIGURES_PROGRAMS"));
    let program =
        folder.map_or_else(|| Path::new(PKTFLEET).with_file_name(name), |folder| folder.join(name));
    assert!(program.exists(), "{} is missing: run `cargo build` first", program.display());
    Command::new(program)
}

impl Stage {
    fn new(count: usize) -> Self {
        limits::raise_open_files().unwrap();
        let scene = Scene::new("figures");
        assert!(exit_mlet::write(Path::new(&scene.path("mlet-exit"))).unwrap(), "this processor");
        let mut network = Network::new();
        let here = network.machine("here");
        // As on a machine that nobody has set up, where this one allows it (net.ipv4.tcp_allowed_congestion_control).
        let congestion_control = here.within(|| {
            let of_here = "/proc/sys/net/ipv4/tcp_congestion_control";
            let _ = fs::write(of_here, "cubic");
            fs::read_to_string(of_here).unwrap()
        });
        println!("{count} endpoints, congestion control {}", congestion_control.trim_end());
        let host = |words: &str| {
            let mut command = measured("pktfleet");
            command.args(words.split(' ')).current_dir(&scene.folder);
            here.within(|| Running::start(command))
        };
        let mut broker = host(
            "broker --key rv --agent agent_bop_rv.cert --publish 127.0.0.1:0 --subscribe 127.0.0.1:0",
        );
        // All endpoints at once are no attack here, and none of them is sent away.
        let mut proxy = host(
            "proxy --key prx --agent agent_prx.cert --controllers 127.0.0.1:0 --endpoints 127.0.0.1:0 \
             --per-source-percent 100 --handshakes-max 10000 --wait-timeout 60s",
        );
        let publish = broker.address("publishers");
        for (snikey, is_proxied) in [("direct", false), ("proxied", true)] {
            let config = fs::read_to_string(scene.config(snikey, publish, is_proxied)).unwrap();
            let config = format!("{config}TargetBacklogConn {}\nPubPeriod 1h\n", count / 10 + 20);
            scene.write(&format!("{snikey}.conf"), config.as_bytes(), 0o600);
        }
        let at_proxy = ["controllers", "endpoints"].map(|whom| proxy.address(whom).to_string());
        let subscribe = broker.address("subscribers");
        let [_, last] = cores();
        let mut fleet = Command::new("taskset");
        fleet
            .args(["-c", &last])
            .arg(measured("pktfleet").get_program())
            .current_dir(&scene.folder);
        fleet.args(["fleet", "--key", "eop", "--address", "127.2.0.1"]);
        fleet.args(["--endpoints", &count.to_string(), "--subscribe", &subscribe.to_string()]);
        let mut fleet = here.within(|| Running::start(fleet));
        let all = format!("{count} of {count} endpoints are subscribed");
        fleet.wait_for_within(&all, PATIENCE + Duration::from_millis(20) * count as u32);
        Self { count, fleet, proxy, _broker: broker, at_proxy, here, _network: network, scene }
    }

    /// One burst: every endpoint has one session.
    fn run(&self, way: Way) -> Figures {
        let database = way.is_member.then(Postgres::new);
        if let Some(database) = &database {
            let mut create = measured("pktxpmgr");
            create.args(["campaign", "create", &database.address("figures")]);
            let created = self.configured(&mut create, way).output().unwrap();
            assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));
        }
        let written_before = database.as_ref().map(written);
        let folders: Vec<_> = (0..way.managers).map(|number| format!("out{number}")).collect();
        // No endpoint hears of the experiment before all managers can have it.
        self.signal_fleet(Signal::SIGSTOP);
        let start = |folder: &String| self.manager(way, folder, database.as_ref());
        let mut managers: Vec<_> = folders.iter().map(start).collect();
        let used = |managers: &[Running]| {
            let mut usage = Usage::default();
            managers.iter().for_each(|manager| usage.add(&Usage::of(manager.child.id())));
            usage.add_as("fleet", Usage::of(self.fleet.child.id()).us());
            usage.add_as("proxy", Usage::of(self.proxy.child.id()).us());
            usage.add_as("database", database.as_ref().map_or(0.0, database_us));
            usage
        };
        let before = used(&managers);
        self.signal_fleet(Signal::SIGCONT);
        let records = self.records(&folders, &mut managers, way);
        let usage = used(&managers).since(&before);
        for manager in managers {
            manager.end(Signal::SIGINT);
        }
        for folder in &folders {
            fs::remove_dir_all(self.scene.path(folder)).unwrap();
        }
        let database = database.zip(written_before);
        let database = database.map(|(database, before)| self.judged(&database, before));
        Figures {
            way,
            sessions_per_s: rate_of(&records),
            usage: usage.over(self.count),
            waits_ms: waits_of(&records),
            database,
        }
    }

    fn configured<'a>(&self, command: &'a mut Command, way: Way) -> &'a mut Command {
        let [register, through] = &self.at_proxy;
        command.current_dir(&self.scene.folder);
        match way.is_proxied {
            true => command.args(["-c", "proxied.conf", "-a", register, "-p", through]),
            false => command.args(["-c", "direct.conf", "-a", "127.0.0.1:26000"]),
        };
        command.arg("./mlet-exit")
    }

    fn signal_fleet(&self, signal: Signal) {
        kill(Pid::from_raw(self.fleet.child.id().cast_signed()), signal).unwrap();
    }

    /// One that waits for endpoints.
    fn manager(&self, way: Way, folder: &str, database: Option<&Postgres>) -> Running {
        let [first, _] = cores();
        let mut command = measured("pktxpmgr");
        command.args(["--out", folder, "--stream", "--cores", &format!("{first}-{first}")]);
        command.args(["--handshake-timeout", "60s", "--setup-timeout", "60s"]);
        if let Some(database) = database {
            command.args(["--campaign", &database.address("figures")]);
        }
        self.configured(&mut command, way);
        let mut manager = self.here.within(|| Running::start(command));
        manager.wait_for(if way.is_proxied { "backlog filled" } else { "listening on" });
        manager
    }

    /// The records of all sessions, once there is one that is well for each endpoint. Looks at what is new only.
    fn records(&self, folders: &[String], managers: &mut [Running], way: Way) -> Vec<Value> {
        let deadline = Instant::now() + PATIENCE + Duration::from_millis(20) * self.count as u32;
        let mut files: Vec<_> = folders.iter().map(|_| (None::<File>, String::new())).collect();
        let mut records = Vec::new();
        loop {
            for ((file, text), folder) in files.iter_mut().zip(folders) {
                if file.is_none() {
                    *file = File::open(self.scene.path(&format!("{folder}/events.jsonl"))).ok();
                }
                if let Some(file) = file {
                    file.read_to_string(text).unwrap();
                }
                let whole = text.rfind('\n').map_or(0, |end| end + 1);
                let lines: String = text.drain(..whole).collect();
                let ends = lines.lines().filter(|line| line.contains(r#""ev":"session.end""#));
                records.extend(ends.map(|line| serde_json::from_str::<Value>(line).unwrap()));
            }
            let is_well = |record: &&Value| record["outcome"] == "ok";
            let well = records.iter().filter(is_well).count();
            if well == self.count {
                return records;
            }
            if Instant::now() > deadline {
                let other = records.iter().find(|record| !is_well(record));
                for manager in managers {
                    manager.seen.extend(manager.lines.try_iter());
                    eprintln!("{}", manager.seen.join("\n"));
                }
                panic!("{}: {well} of {} are over, and {other:?}", way.name, self.count);
            }
            thread::sleep(LOOK_INTERVAL);
        }
    }

    /// What the database has written for each endpoint; it has a result of each.
    fn judged(&self, database: &Postgres, before: [f64; 3]) -> DatabaseFigures {
        let accepted = database.sql("SELECT count(DISTINCT endpoint) FROM pktlab.result");
        assert_eq!(accepted, self.count.to_string(), "results are accepted");
        let table = database.sql("SELECT pg_total_relation_size('pktlab.claim')");
        let endpoints = self.count as f64;
        let [transactions, log_bytes, log_syncs] = written(database);
        let figures = DatabaseFigures {
            transactions: (transactions - before[0]) / endpoints,
            log_syncs: (log_syncs - before[2]) / endpoints,
            log_bytes: (log_bytes - before[1]) / endpoints,
            table_bytes: table.parse::<f64>().unwrap() / endpoints,
        };
        // A claim and a result, each by itself at worst, and beats. Who has less to do gathers less.
        assert!(figures.transactions < 2.5, "{} transactions each", figures.transactions);
        assert!(figures.log_bytes < 8192.0, "{} bytes of log each", figures.log_bytes);
        figures
    }
}

/// Transactions that have written, bytes of the log, and how often it was synced, since the database was made.
fn written(database: &Postgres) -> [f64; 3] {
    let told = database.sql(
        "SELECT pg_snapshot_xmax(pg_current_snapshot()), pg_current_wal_lsn() - '0/0', wal_sync FROM pg_stat_wal",
    );
    let told: Vec<_> = told.split('|').map(|number| number.parse().unwrap()).collect();
    told.try_into().unwrap()
}

/// The first core for managers, the last for the fleet.
fn cores() -> [String; 2] {
    let allowed = engine::sys::cpu::allowed_cores().unwrap();
    [allowed[0], allowed[allowed.len() - 1]].map(|core| core.to_string())
}

/// From the first accept to the last end.
fn rate_of(records: &[Value]) -> f64 {
    let accepted = |record: &Value| time_of(record["accepted"].as_str().unwrap()).0 as f64 / 1e9;
    let ended = |record: &Value| accepted(record) + record["ms"]["total"].as_f64().unwrap() / 1e3;
    let first = records.iter().map(accepted).fold(f64::INFINITY, f64::min);
    let last = records.iter().map(ended).fold(0.0, f64::max);
    records.len() as f64 / (last - first)
}

/// The phase in which a session waits for its claim, and which is nothing else here.
fn waits_of(records: &[Value]) -> [f64; 2] {
    let mut waits: Vec<_> =
        records.iter().filter_map(|record| record["ms"]["programs"].as_f64()).collect();
    waits.sort_unstable_by(f64::total_cmp);
    [50, 99].map(|percent| waits[(waits.len() - 1) * percent / 100])
}

impl Figures {
    /// The manager's processor time, that of all its threads.
    fn manager_us(&self) -> f64 {
        let others = ["children", "fleet", "proxy", "database"];
        self.usage.us() - others.map(|name| self.usage.of_name(name)).iter().sum::<f64>()
    }

    fn print(&self) {
        let [p50, p99] = self.waits_ms;
        println!(
            "{:15} {:5.0} sessions/s; claim waits p50 {p50:.1} ms, p99 {p99:.1} ms; manager {:.0} us: {}",
            self.way.name,
            self.sessions_per_s,
            self.manager_us(),
            self.usage
        );
        if let Some(DatabaseFigures { transactions, log_syncs, log_bytes, table_bytes }) =
            self.database
        {
            println!(
                "{:15} {transactions:.3} transactions, {log_syncs:.3} syncs, {log_bytes:.0} bytes of log, \
                 {table_bytes:.0} of table and indexes",
                ""
            );
        }
    }
}

/// Medians of the ratios of rounds, with the least and the greatest.
fn print_ratios(rounds: &[Vec<Figures>]) {
    for (this, other) in RATIOS {
        let find = |round: &[Figures], name| round.iter().position(|run| run.way.name == name);
        let ratios_of = |figure: fn(&Figures) -> f64| {
            let mut ratios: Vec<_> = rounds
                .iter()
                .filter_map(|round| {
                    Some(figure(&round[find(round, this)?]) / figure(&round[find(round, other)?]))
                })
                .collect();
            ratios.sort_unstable_by(f64::total_cmp);
            let (least, most) = (ratios[0], ratios[ratios.len() - 1]);
            format!("{:.2} ({least:.2}-{most:.2})", ratios[ratios.len() / 2])
        };
        println!(
            "{this} to {other}: rate {}, manager's processor time {}",
            ratios_of(|run| run.sessions_per_s),
            ratios_of(Figures::manager_us)
        );
    }
}

#[test]
#[ignore = "needs postgresql, iproute2, CAP_NET_ADMIN"]
fn every_session_of_a_burst_ends_and_has_a_result_for_two_transactions_at_most() {
    let stage = Stage::new(setting("FIGURES_ENDPOINTS", 200));
    // The fleet's first burst takes longer than others.
    stage.run(WAYS[0]);
    let rounds: Vec<Vec<_>> = (0..setting("FIGURES_ROUNDS", 1))
        .map(|_| {
            let run = |way: &Way| {
                let figures = stage.run(*way);
                figures.print();
                figures
            };
            WAYS.iter().map(run).collect()
        })
        .collect();
    print_ratios(&rounds);
}
