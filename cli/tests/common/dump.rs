//! What a mlet found when it was started.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::Home;
use super::endpoint::{Dial, Endpoint};

/// What the zoo's `dump` reports: values by name, several of them for some.
pub struct Dump(BTreeMap<String, Vec<String>>);

impl Dump {
    pub fn of(dial: &Dial) -> Self {
        Self::read(dial.session())
    }

    pub fn read(mut endpoint: Endpoint) -> Self {
        let text = endpoint.text();
        endpoint.close();
        let mut dump = BTreeMap::<String, Vec<String>>::new();
        for line in text.lines() {
            let (name, value) = line.split_once(' ').unwrap();
            dump.entry(name.into()).or_default().push(value.into());
        }
        Self(dump)
    }

    pub fn all(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], |values| values)
    }

    pub fn one(&self, name: &str) -> &str {
        let [value] = self.all(name) else { panic!("{name}: {:?}", self.all(name)) };
        value
    }

    /// Descriptor numbers, in order.
    pub fn fds(&self) -> Vec<&str> {
        let mut fds: Vec<&str> =
            self.all("fd").iter().map(|fd| fd.split_once(' ').unwrap().0).collect();
        fds.sort_unstable();
        fds
    }
}

/// What every mlet must find, whoever its endpoint is (operating.md "What a mlet can count on").
pub struct Contract {
    folder: PathBuf,
    /// As /proc tells them.
    pub limits: String,
    pub cpus: String,
}

impl Contract {
    /// For a manager in this home that a shell starts behind this script.
    pub fn behind(script: &str, home: &Home) -> Self {
        let script = format!("{script} exec cat /proc/self/limits /proc/self/status");
        let output = Command::new("/bin/sh").args(["-c", &script]).output().unwrap();
        let told = String::from_utf8(output.stdout).unwrap();
        let (limits, status) = told.split_once("\nName:").unwrap();
        let cpus = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        Self {
            folder: home.path("").canonicalize().unwrap(),
            limits: limits.to_owned(),
            cpus: cpus.unwrap().trim().to_owned(),
        }
    }

    /// Asserts that this mlet found just that; returns its variable with the number of its session.
    #[track_caller]
    pub fn is_kept(&self, dump: &Dump) -> String {
        assert_eq!(dump.fds(), ["0", "1", "2"]);
        let fds = dump.all("fd");
        assert!(fds.iter().any(|fd| fd.starts_with("0 socket:")), "{fds:?}");
        assert_eq!((dump.one("blocking"), dump.one("unix")), ("true", "stream true"));
        assert_eq!(dump.one("pgid"), dump.one("pid"));
        assert_eq!(fs::canonicalize(dump.one("cwd")).unwrap(), self.folder);
        assert_eq!(dump.all("limit").join("\n"), self.limits);
        assert_eq!(dump.one("Cpus_allowed_list"), self.cpus, "not the one core of its shard");
        assert_eq!(signals(dump.one("SigBlk")), 0);
        // Rust's start ignores it in any case, so that is asked of another program.
        assert_eq!(signals(dump.one("SigIgn")), SIGPIPE_ALONE);
        let mut variables: Vec<&str> = dump.all("env").iter().map(String::as_str).collect();
        variables.sort_unstable();
        let names = [
            "EPADDR=127.0.0.1",
            "PKTLAB_ENDPOINT_KEY=",
            "PKTLAB_RESULTS=",
            "PKTLAB_RUN=",
            "PKTLAB_SESSION=",
            "PKTLAB_SNIKEY=hello",
        ];
        assert_eq!(variables.len(), names.len(), "{variables:?}");
        for (variable, name) in variables.iter().zip(names) {
            assert!(variable.starts_with(name), "{variable}");
        }
        variables[4].to_owned()
    }
}

/// SIGPIPE in a set of signals.
pub const SIGPIPE_ALONE: u64 = 1 << (13 - 1);

/// A set of signals as /proc tells it, without 32 and 33, which are the C library's own.
pub fn signals(hex: &str) -> u64 {
    u64::from_str_radix(hex, 16).unwrap() & !(0b11 << 31)
}
