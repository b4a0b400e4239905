//! What befalls a campaign over three machines. Each fault hits a manager that has mlets, and returns when it has been noticed
//! and is over.
//!
//! Not here: what becomes of the campaign (`shared.rs`), and whether it should (`shared_judge.rs`).

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;

use super::shared::{MANAGERS, Manager, PROXY_ROLE, SharedCampaign, await_that, is_long, proxy};
use super::*;

/// Three fifths more than the lease, which is 5 s.
const CUT_MIN: Duration = Duration::from_secs(8);
const STOP: Duration = Duration::from_secs(12);

impl SharedCampaign {
    /// Ends a manager as a fault of its machine would, and starts it again.
    fn kill(&mut self, number: usize) {
        let lost = self.lost();
        strike(&mut self.managers[number].running);
        self.start_again(number);
        self.await_lost(lost);
    }

    fn start_again(&mut self, number: usize) {
        let Manager { name, machine, .. } = &self.managers[number];
        await_that("its mlets have ended with it", || machine.mlets().is_empty());
        let running = self.start(name, machine);
        self.managers[number].running = running;
        self.managers[number].running.wait_for("member of the campaign");
    }

    /// One of the managers does not reach the database for longer than its lease.
    pub(super) fn cut_one_off(&mut self) {
        let (number, mlet) = self.await_mlet(&[0, 1, 2], is_long);
        self.befalls("cut off from the database", |all| {
            let lost = all.lost();
            let cut = Instant::now();
            let Manager { machine, running, .. } = &mut all.managers[number];
            all.network.cut(machine, &all.database);
            running.wait_for("the lease of the campaign was lost");
            await_that("no mlet is left", || machine.mlets().is_empty());
            assert!(cut.elapsed() < Duration::from_secs(14), "{mlet:?} did not end by itself");
            await_that("it was long enough", || {
                assert_eq!(machine.mlets(), BTreeSet::new(), "none begins on a fenced manager");
                cut.elapsed() > CUT_MIN
            });
            all.await_lost(lost);
            all.network.mend(&all.managers[number].machine, &all.database);
            all.managers[number].running.wait_for("a member of the campaign again");
        });
    }

    /// One of the managers stands still for longer than its lease, and its mlets do not.
    pub(super) fn stop_one(&mut self) {
        let (number, mlet) = self.await_mlet(&[0, 1, 2], is_long);
        self.befalls("stopped", |all| {
            let lost = all.lost();
            let Manager { machine, running, .. } = &mut all.managers[number];
            let pid = Pid::from_raw(running.child.id().try_into().unwrap());
            let stopped = Instant::now();
            kill(pid, Signal::SIGSTOP).unwrap();
            await_that("it was long enough", || stopped.elapsed() > STOP);
            assert!(machine.mlets().contains(&mlet), "its mlet has gone on");
            running.seen.retain(|line| !line.contains("the campaign"));
            kill(pid, Signal::SIGCONT).unwrap();
            running.wait_for("the lease of the campaign was lost");
            await_that("its mlet is not left", || !machine.mlets().contains(&mlet));
            running.wait_for("a member of the campaign again");
            assert!(stopped.elapsed() < Duration::from_secs(60));
            all.await_lost(lost);
        });
    }

    pub(super) fn kill_database(&mut self) {
        self.await_mlet(&[0, 1, 2], |_| true);
        self.befalls("database killed", |all| {
            for manager in &mut all.managers {
                manager.running.seen.extend(manager.running.lines.try_iter());
                manager.running.seen.retain(|line| !line.contains("the database answers again"));
            }
            all.postgres.kill();
            all.database.within(|| all.postgres.start());
            for manager in &mut all.managers {
                manager.running.wait_for("the database answers again");
            }
        });
    }

    pub(super) fn kill_publisher(&mut self) -> usize {
        self.await_mlet(&[0, 1, 2], |_| true);
        let (number, before) = self.publisher();
        let (text, texts) = self.published();
        self.befalls("publisher killed", |all| {
            all.kill(number);
            await_that("another is elected", || all.publisher().1 != before);
            await_that("it publishes", || all.published().1 > texts);
            assert_eq!(all.published().0, text, "the same text");
        });
        number
    }

    pub(super) fn kill_other(&mut self, number: usize) {
        self.await_mlet(&[number], |_| true);
        self.befalls("manager killed", |all| all.kill(number));
    }

    pub(super) fn restart_proxy(&mut self) {
        self.await_mlet(&[0, 1, 2], |_| true);
        self.befalls("proxy killed", |all| {
            strike(&mut all.proxy);
            all.proxy = proxy(&all.scene, &all.site, all.proxy_addresses);
            for whom in PROXY_ROLE {
                all.proxy.address(whom);
            }
        });
    }

    pub(super) fn kill_all(&mut self) {
        self.await_mlet(&[0, 1, 2], |_| true);
        self.befalls("all killed", |all| {
            let lost = all.lost();
            for manager in &mut all.managers {
                strike(&mut manager.running);
            }
            all.postgres.kill();
            all.database.within(|| all.postgres.start());
            for number in 0..MANAGERS {
                all.start_again(number);
            }
            all.await_lost(lost + MANAGERS - 1);
        });
    }
}

/// Kills a program that runs.
fn strike(running: &mut Running) {
    assert_eq!(running.child.try_wait().unwrap(), None, "it runs");
    running.child.kill().unwrap();
    assert_eq!(running.child.wait().unwrap().signal(), Some(9), "it was killed by us");
}
