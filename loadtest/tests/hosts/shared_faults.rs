//! What befalls a campaign over three machines. Each fault hits a manager that has mlets, and returns when it has been noticed
//! and is over.
//!
//! Not here: what becomes of the campaign (`shared.rs`), and whether it should (`shared_judge.rs`).

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;

use super::shared::{MANAGERS, Manager, SharedCampaign};
use super::shared_judge::{Fault, What};
use super::shared_parts::{PROXY_ROLE, proxy};
use super::*;

/// Three fifths more than the lease, which is 5 s.
const CUT_MIN: Duration = Duration::from_secs(8);
const STOP: Duration = Duration::from_secs(12);
/// Less than a lease without the fifth before whose end a manager is fenced, and the fifth between two beats.
const AWAY_MIN: Duration = Duration::from_millis(1700);
const ALL: [usize; MANAGERS] = [0, 1, 2];
/// What a manager says when it is fenced, and when it has entered again.
const FENCED: &str = "the lease of the campaign was lost: ";
const BACK: &str = "a member of the campaign again";

impl SharedCampaign {
    /// Ends managers as faults of their machines would, and starts them again after what happens `meanwhile`.
    fn kill(&mut self, numbers: &[usize], meanwhile: impl FnOnce(&mut Self)) {
        let before: Vec<_> = numbers.iter().map(|number| self.lost(*number)).collect();
        let fault = Fault::begins(What::Killed, numbers);
        for number in numbers {
            strike(&mut self.managers[*number].running);
        }
        meanwhile(self);
        for number in numbers {
            let machine = &self.managers[*number].machine;
            await_that("its mlets have ended with it", || machine.mlets().is_empty());
        }
        self.faults.push(fault.ends());
        for number in numbers {
            let Manager { name, machine, .. } = &self.managers[*number];
            let running = self.start(name, machine);
            self.managers[*number].running = running;
        }
        for (number, before) in numbers.iter().zip(before) {
            self.managers[*number].running.wait_for("member of the campaign");
            self.await_lost(*number, before);
        }
    }

    fn await_lost(&self, number: usize, before: usize) {
        await_that("it is found to be lost", || self.lost(number) == before + 1);
    }

    /// One of the managers does not reach the database for longer than its lease.
    pub(super) fn cut_one_off(&mut self) {
        let (number, _) = self.await_busy(&ALL);
        let before = self.lost(number);
        let Manager { machine, running, .. } = &mut self.managers[number];
        let [fenced, back] = [FENCED, BACK].map(|text| running.times(text));
        let (fault, cut) = (Fault::begins(What::CutOff, &[number]), Instant::now());
        self.network.cut(machine, &self.database);
        running.wait_for_times(FENCED, fenced + 1);
        await_that("no mlet is left", || machine.mlets().is_empty());
        assert!(cut.elapsed() < CUT_MIN, "mlets were left for {:?}", cut.elapsed());
        self.faults.push(fault.ends());
        await_that("it was long enough", || {
            assert_eq!(machine.mlets(), BTreeSet::new(), "none begins on a fenced manager");
            cut.elapsed() > CUT_MIN
        });
        self.await_lost(number, before);
        let Manager { machine, running, .. } = &mut self.managers[number];
        self.network.mend(machine, &self.database);
        running.wait_for_times(BACK, back + 1);
    }

    /// One of the managers stands still for longer than its lease, and its mlets do not.
    pub(super) fn stop_one(&mut self) {
        let (number, mlet) = self.await_busy(&ALL);
        let before = self.lost(number);
        let Manager { machine, running, .. } = &mut self.managers[number];
        let [fenced, back] = [FENCED, BACK].map(|text| running.times(text));
        let pid = Pid::from_raw(running.child.id().try_into().unwrap());
        let (fault, stopped) = (Fault::begins(What::Stopped, &[number]), Instant::now());
        kill(pid, Signal::SIGSTOP).unwrap();
        await_that("it was long enough", || stopped.elapsed() > STOP);
        assert!(machine.mlets().contains(&mlet), "its mlet has gone on");
        kill(pid, Signal::SIGCONT).unwrap();
        running.wait_for_times(FENCED, fenced + 1);
        // By itself it would go on.
        await_that("its mlet is not left", || !machine.mlets().contains(&mlet));
        self.faults.push(fault.ends());
        running.wait_for_times(BACK, back + 1);
        self.await_lost(number, before);
    }

    /// It is away for a time in which no lease ends. Should it need more, managers whose leases end are hit by it, too.
    pub(super) fn kill_database(&mut self) {
        const NOTICED: &str = "the database answers again";
        self.await_busy(&ALL);
        let lost = ALL.map(|number| self.lost(number));
        let before = ALL.map(|number| self.managers[number].running.times(NOTICED));
        let (fault, killed) = (Fault::begins(What::DatabaseKilled, &[]), Instant::now());
        self.postgres.kill();
        await_that("it was long enough", || killed.elapsed() > AWAY_MIN);
        self.database.within(|| self.postgres.start());
        let mut fault = fault.ends();
        println!("the database was away for {:.1} s", killed.elapsed().as_secs_f64());
        for (manager, before) in self.managers.iter_mut().zip(before) {
            manager.running.wait_for_times(NOTICED, before + 1);
        }
        let since = self.postgres.sql("SELECT clock_timestamp()");
        let members = "SELECT count(*) FROM pktlab.manager WHERE state = 'live'";
        let old = format!("{members} AND lease_until - interval '5 s' <= '{since}'");
        await_that("each lease is a new one, or lost", || self.postgres.sql(&old) == "0");
        fault.hits = ALL.into_iter().filter(|number| self.lost(*number) > lost[*number]).collect();
        self.faults.push(fault);
    }

    pub(super) fn kill_publisher(&mut self) -> usize {
        let (number, before) = self.publisher();
        self.await_busy(&[number]);
        assert_eq!(self.publisher().1, before, "it has published until now");
        let (text, texts) = self.published();
        self.kill(&[number], |_| ());
        await_that("another is elected", || self.publisher().1 != before);
        await_that("it publishes", || self.published().1 > texts);
        assert_eq!(self.published().0, text, "the same text");
        number
    }

    pub(super) fn kill_other(&mut self, number: usize) {
        self.await_busy(&[number]);
        self.kill(&[number], |_| ());
    }

    pub(super) fn restart_proxy(&mut self) {
        const NOTICED: [&str; 2] = ["a registered connection is lost", "is full again"];
        self.await_busy(&ALL);
        let before =
            ALL.map(|number| NOTICED.map(|text| self.managers[number].running.times(text)));
        let (fault, killed) = (Fault::begins(What::ProxyKilled, &ALL), Instant::now());
        strike(&mut self.proxy);
        self.proxy = proxy(&self.scene, &self.site, self.proxy_addresses);
        for whom in PROXY_ROLE {
            self.proxy.address(whom);
        }
        self.faults.push(fault.ends());
        for (manager, before) in self.managers.iter_mut().zip(before) {
            for (text, before) in NOTICED.into_iter().zip(before) {
                manager.running.wait_for_times(text, before + 1);
            }
        }
        println!("all were at the proxy again after {:.1} s", killed.elapsed().as_secs_f64());
    }

    /// All managers, and the database with them.
    pub(super) fn kill_all(&mut self) {
        self.await_busy(&ALL);
        self.kill(&ALL, |all| {
            all.postgres.kill();
            all.database.within(|| all.postgres.start());
        });
    }
}

/// Kills a program that runs.
fn strike(running: &mut Running) {
    assert_eq!(running.child.try_wait().unwrap(), None, "it runs");
    running.child.kill().unwrap();
    assert_eq!(running.child.wait().unwrap().signal(), Some(9), "it was killed by us");
}
