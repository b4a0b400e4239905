//! A campaign of several managers: their home, with a broker that hears of its experiment and a database.
//!
//! Included by the suites of such campaigns alone, beside `postgres`.

#![allow(dead_code, reason = "each suite that includes this file needs a part of it")]

use std::process::Command;

use packetlab::key::PrivateKey;
use serde_json::Value;

use crate::common::broker::Broker;
use crate::common::endpoint::Identity;
use crate::common::events::Events;
use crate::common::manager::{Manager, zoo};
use crate::common::{Ended, Home, PKTXPMGR, run};
use crate::postgres::Postgres;

/// Two managers' home.
pub(crate) struct Rig {
    // The managers end before it does.
    pub(crate) home: Home,
    pub(crate) broker: Broker,
    pub(crate) postgres: Postgres,
    pub(crate) address: String,
    /// Options with which the database is reached.
    pub(crate) access: Vec<&'static str>,
    mlet: Vec<String>,
}

impl Rig {
    /// With the campaign `c`, created with these options and a mlet that obeys.
    pub(crate) fn new(options: &[&str]) -> Self {
        Self::of(Home::new(), &[zoo().to_str().unwrap(), "obey"], options)
    }

    /// With this mlet and its arguments.
    pub(crate) fn of(home: Home, mlet: &[&str], options: &[&str]) -> Self {
        let postgres = Postgres::new();
        let address = postgres.address("c");
        let mlet = mlet.iter().map(|word| (*word).to_owned()).collect();
        let rig = Self::at(home, mlet, postgres, address);
        let created = rig.create(options);
        assert_eq!(created.code, Some(0), "{}", created.stderr);
        rig
    }

    /// Without a campaign, whose address this is.
    pub(crate) fn at(home: Home, mlet: Vec<String>, postgres: Postgres, address: String) -> Self {
        let broker = Broker::start(&PrivateKey::generate().unwrap());
        let experiments = "ExpExec 1:hello:exppriv.cert,pubcmd.cert:eop.pub::\n\
                           ExpExec 0:open:exppriv.cert,pubcmd.cert::0a:\n";
        home.write("xpmgr.conf", home.publishing(&broker, experiments).as_bytes());
        Self { home, broker, postgres, address, access: Vec::new(), mlet }
    }

    pub(crate) fn create(&self, options: &[&str]) -> Ended {
        let mut words = vec!["-c", "xpmgr.conf", "-p", "192.0.2.1", "--lease", "2s"];
        words.extend(options);
        words.extend(self.mlet.iter().map(String::as_str));
        self.campaign("create", &words)
    }

    /// Runs a command of the campaign.
    pub(crate) fn campaign(&self, name: &str, words: &[&str]) -> Ended {
        let mut command = Command::new(PKTXPMGR);
        command.current_dir(self.home.path("")).args(["campaign", name, &self.address]);
        run(command.args(&self.access).args(words))
    }

    pub(crate) fn manager(&self, options: &[&str]) -> Manager {
        Manager::start(
            &self.home,
            self.command(&[&["--campaign", &*self.address], &*self.access, options].concat()),
        )
    }

    /// `pktxpmgr` with these options and the campaign's mlet.
    pub(crate) fn command(&self, options: &[&str]) -> Command {
        let mut command = self.home.command();
        command.args(options).args(&self.mlet);
        command
    }

    pub(crate) fn status(&self) -> Value {
        let told = self.campaign("status", &["--json"]);
        serde_json::from_str(&told.stdout).unwrap_or_else(|_| panic!("{}", told.stderr))
    }

    pub(crate) fn identity(&self) -> Identity {
        Identity::of(&self.home.keys.operator)
    }

    pub(crate) fn events(&self, folder: &str) -> Events {
        Events::of_results(&self.home, folder)
    }
}
