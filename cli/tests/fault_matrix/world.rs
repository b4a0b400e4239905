//! A manager in which cells are walked, with bystanders, and what must hold of it at the end.

use std::fs;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::bystanders::Bystanders;
use crate::common::Home;
use crate::common::churn::Holdings;
use crate::common::endpoint::{Dial, End, Endpoint, NDATA, message};
use crate::common::events::{EVENTS, Events};
use crate::common::manager::{Manager, children_of, processes_in, set_limit, wait_until};

/// The limits of all managers here, in seconds: those that the column `wait` names.
pub(crate) const HANDSHAKE: u64 = 5;
pub(crate) const SETUP: u64 = 6;
pub(crate) const DRAIN: u64 = 4;
pub(crate) const LINGER: u64 = 2;

/// A manager that writes records.
pub(crate) struct World {
    pub(crate) home: Home,
    pub(crate) manager: Manager,
    pub(crate) dial: Dial,
    pub(crate) events: Events,
    bystanders: Bystanders,
    before: Holdings,
}

impl World {
    /// One with these options and so many bystanders. What it holds before they come is what it must hold at the end.
    pub(crate) fn new((home, more): (Home, &[&str]), bystanders: usize) -> Self {
        let mut options: Vec<String> = EVENTS.map(ToOwned::to_owned).into();
        for (name, seconds) in
            [("handshake", HANDSHAKE), ("setup", SETUP), ("drain", DRAIN), ("linger", LINGER)]
        {
            options.extend([format!("--{name}-timeout"), format!("{seconds}s")]);
        }
        options.extend(more.iter().map(|&word| word.to_owned()));
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let manager = home.start(&options, &["obey"]);
        let dial = home.dial(&manager);
        let events = Events::of(&home);
        let has_count = more.contains(&"-n");
        if !has_count {
            // Some descriptors are of its start, and gone once a session has run.
            end(dial.session());
            events.await_sessions(1);
        }
        let before = at_rest(&manager);
        let sessions = (0..bystanders).map(|_| dial.session()).collect();
        Self { home, manager, dial, events, bystanders: Bystanders::of(sessions), before }
    }

    /// The mlet of the session of the endpoint that came from `127.0.0.x`, once it runs.
    #[track_caller]
    pub(crate) fn await_mlet_of(&self, last: u8) -> i32 {
        let mut mlet = None;
        wait_until("the mlet runs", || {
            mlet = self.mlet_of(last);
            mlet.is_some()
        });
        mlet.unwrap()
    }

    /// The same, if it runs.
    pub(crate) fn mlet_of(&self, last: u8) -> Option<i32> {
        let wanted = format!("EPADDR=127.0.0.{last}");
        children_of(self.manager.supervisor()).into_iter().find(|pid| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|one| one == wanted.as_bytes())
        })
    }

    /// Waits until each shard has ended the turn it was in, as it has once it sleeps: what has come before has become of a
    /// session by then.
    #[track_caller]
    pub(crate) fn await_turn(&self) {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.manager.pid())).unwrap().flatten();
        let named = |path: &PathBuf| fs::read_to_string(path.join("comm")).unwrap_or_default();
        let all = tasks.map(|task| task.path());
        let shards: Vec<PathBuf> = all.filter(|path| named(path).starts_with("shard-")).collect();
        assert!(!shards.is_empty());
        for shard in shards {
            wait_until("a shard sleeps", || {
                let stat = fs::read_to_string(shard.join("stat")).unwrap_or_default();
                stat.rsplit(") ").next().unwrap_or_default().starts_with('S')
            });
        }
    }

    /// The record of the session of the endpoint that came from `127.0.0.x`, once it is written; asserts that there is no
    /// other of it.
    #[track_caller]
    pub(crate) fn await_record_of(&self, last: u8) -> Value {
        let peer = format!("127.0.0.{last}:");
        let mut found = Vec::new();
        wait_until(&format!("the record of {peer}"), || {
            found = self.records_of(&peer);
            !found.is_empty()
        });
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    }

    fn records_of(&self, peer: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.home.path(EVENTS[1])).unwrap_or_default();
        let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let records = lines.map(|line| serde_json::from_str::<Value>(line).unwrap());
        let is_of_peer = |record: &Value| {
            let of = record["ep"]["peer"].as_str().unwrap_or_default();
            record["ev"] == "session.end" && of.starts_with(peer)
        };
        records.filter(is_of_peer).collect()
    }

    /// Asserts that the manager cannot open anything: a connection that comes is not accepted, and it says why.
    #[track_caller]
    pub(crate) fn lacks_descriptors(&self) -> Endpoint {
        let probe = self.dial.connect();
        let said = self.manager.says("accepting pauses: ");
        assert!(said.contains("Too many open files"), "{said}");
        probe
    }

    /// Ends the bystanders and, with SIGINT, the run; asserts that they are clean, that there is one record of each of so
    /// many other sessions, and that nothing is left. Returns how many messages the bystanders have exchanged.
    #[track_caller]
    pub(crate) fn ends_clean(self, others: usize) -> usize {
        let bystanders = self.bystanders.len();
        let exchanged = self.bystanders.are_clean();
        self.before.are_back(&self.manager);
        assert_eq!(self.manager.interrupted().code, Some(0));
        let sessions = bystanders + others + 1;
        check_left(&self.home, &self.events, sessions..=sessions);
        exchanged
    }

    /// The same of a run that has been told to end, or ends by itself, with this exit code.
    #[track_caller]
    pub(crate) fn has_ended(self, others: usize, code: i32) -> usize {
        self.has_ended_with(others..=others, code)
    }

    /// The same, where the number of other sessions is within these.
    #[track_caller]
    pub(crate) fn has_ended_with(self, others: RangeInclusive<usize>, code: i32) -> usize {
        let bystanders = self.bystanders.len();
        let exchanged = self.bystanders.are_clean();
        assert_eq!(self.manager.ends().code, Some(code));
        check_left(
            &self.home,
            &self.events,
            bystanders + others.start()..=bystanders + others.end(),
        );
        exchanged
    }

    /// How many bystanders there are.
    pub(crate) fn bystanders(&self) -> usize {
        self.bystanders.len()
    }
}

/// What the manager holds when nothing moves.
pub(crate) fn at_rest(manager: &Manager) -> Holdings {
    Holdings::at_rest(manager, Duration::from_millis(200))
}

/// Tells the mlet to end.
pub(crate) fn order_exit(endpoint: &mut Endpoint) {
    endpoint.send(&message(NDATA, b"exit 0"));
}

/// Ends a session by its mlet.
pub(crate) fn end(mut endpoint: Endpoint) {
    order_exit(&mut endpoint);
    assert_eq!(endpoint.receive(), Err(End::CloseNotify));
    endpoint.close();
}

#[track_caller]
fn check_left(home: &Home, events: &Events, sessions: RangeInclusive<usize>) {
    let found = events.sessions().len();
    assert!(sessions.contains(&found), "{found} records of {sessions:?} sessions");
    wait_until("no process is left", || processes_in(&home.path("")).is_empty());
}

/// Allows a process, of a manager or its supervisor, no descriptor more; what it has it keeps.
pub(crate) fn starve(pid: i32) {
    set_limit(pid, "nofile", "0:");
}

/// Takes that back.
pub(crate) fn feed(pid: i32) {
    set_limit(pid, "nofile", "1024:");
}
