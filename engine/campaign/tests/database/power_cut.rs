//! What is left of claims when the power of the database's machine is cut.
//!
//! The disk is a file in a file system of its own (`cache/disk`), so that what was written to it and not flushed is nowhere but
//! in memory, as in the cache of a drive. The cut is a shutdown of that file system without a word to its journal: nothing
//! reaches it any more, and what is in memory is gone. The database's file system above it then meets a dead disk.
//!
//! Not here: the death of the server's processes (`faults.rs`), of which the system's memory survives.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::busy::{Busy, Heard};
use crate::postgres::Postgres;
use crate::support::{PATIENCE, create, new_campaign, now};

const DISK_BYTES: u64 = 500 << 20;
/// That of the file system around it, which has a journal of its own.
const CACHE_BYTES: u64 = 640 << 20;
/// More than any member comes to until the cut.
const ENDPOINTS: u16 = u16::MAX;
/// A cut in the middle of each of these.
const CAMPAIGNS: [(&str, usize); 3] = [("first", 300), ("second", 1500), ("third", 4000)];

/// `EXT4_IOC_SHUTDOWN` with `EXT4_GOING_FLAGS_NOLOGFLUSH` (fs/ext4/ext4.h).
const CUT: &str = "import fcntl, os, struct, sys
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))";

/// A disk that can lose its power.
struct Disk {
    folder: PathBuf,
}

impl Disk {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("campaign-disk-{}", std::process::id()));
        let disk = Self { folder };
        for place in [disk.cache(), disk.files()] {
            fs::create_dir_all(place).expect("a new folder");
        }
        make_file_system(&disk.folder.join("machine"), CACHE_BYTES);
        mount(&disk.folder.join("machine"), &disk.cache());
        make_file_system(&disk.cache().join("disk"), DISK_BYTES);
        mount(&disk.cache().join("disk"), &disk.files());
        fs::set_permissions(disk.files(), fs::Permissions::from_mode(0o777)).expect("its mode");
        disk
    }

    fn cache(&self) -> PathBuf {
        self.folder.join("cache")
    }

    /// Where the disk's own file system is.
    fn files(&self) -> PathBuf {
        self.folder.join("files")
    }

    /// All that there is reaches the disk.
    fn flush(&self) {
        run(Command::new("sync").arg("-f").arg(self.files()));
    }

    fn cut_power(&self) {
        run(Command::new("python3").args(["-c", CUT]).arg(self.cache()));
    }

    /// Nobody may use it any more. What the disk has is found again.
    fn restore_power(&self) {
        for place in [self.files(), self.cache()] {
            let until = now() + PATIENCE;
            // Processes that were killed may be there for a moment.
            while !unmount(&place) {
                assert!(now() < until, "{} is in use", place.display());
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        mount(&self.folder.join("machine"), &self.cache());
        mount(&self.cache().join("disk"), &self.files());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        for place in [self.files(), self.cache()] {
            let _ = Command::new("umount").arg("--lazy").arg(place).output();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn make_file_system(file: &Path, bytes: u64) {
    File::create_new(file).and_then(|file| file.set_len(bytes)).expect("a new file");
    run(Command::new("mkfs.ext4").arg("-q").arg(file));
}

/// The loop device goes with the mount.
fn mount(file: &Path, place: &Path) {
    run(Command::new("mount").args(["-o", "loop"]).args([file, place]));
}

fn unmount(place: &Path) -> bool {
    Command::new("umount").arg(place).output().expect("umount runs").status.success()
}

fn run(command: &mut Command) {
    let ended = command.output().expect("it runs");
    let errors = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{command:?}: {errors}");
}

/// Of each session of this member that the database has: its epoch, and whether it is done.
fn kept(postgres: &Postgres, campaign: &str, host: &str) -> BTreeMap<u64, (u32, bool)> {
    let told = postgres.sql(&format!(
        "SELECT k.session, k.epoch, k.state = 1 FROM pktlab.claim k \
         JOIN pktlab.manager m ON m.campaign = k.campaign AND m.id = k.manager \
         WHERE k.campaign = '{campaign}' AND m.host = '{host}'"
    ));
    let row = |line: &str| {
        let mut columns = line.split('|');
        let mut number = || columns.next().and_then(|number| number.parse::<u64>().ok());
        let (session, epoch) = (number().expect("a session"), number().expect("an epoch"));
        (session, (u32::try_from(epoch).expect("small"), line.ends_with('t')))
    };
    told.lines().map(row).collect()
}

/// Sessions of which a member has heard something that the database does not know: a claim, or that it is done.
fn lost(heard: &BTreeMap<u64, Heard>, kept: &BTreeMap<u64, (u32, bool)>) -> Vec<u64> {
    let is_kept = |(session, heard): &(&u64, &Heard)| match (heard, kept.get(session)) {
        (Heard::Won(epoch), Some((of, _))) => of == epoch,
        (Heard::Accepted(epoch), Some((of, is_done))) => of == epoch && *is_done,
        (Heard::Won(_) | Heard::Accepted(_), None) => false,
        (Heard::Asked | Heard::Refused(_), _) => true,
    };
    heard.iter().filter(|one| !is_kept(one)).map(|(session, _)| *session).collect()
}

/// Whatever the database's own setting is.
#[test]
#[ignore = "long; needs postgresql, python3, root, loop devices"]
fn no_claim_and_no_result_that_was_acknowledged_is_lost_at_a_power_cut() {
    let disk = Disk::new();
    let mut postgres = Postgres::within(&disk.files(), "synchronous_commit=off");
    disk.flush();
    for (campaign, cut_at) in CAMPAIGNS {
        create(&postgres, campaign, &new_campaign());
        let hosts = ["a", "b"];
        let mut members = hosts.map(|host| Busy::begin(&postgres, campaign, host, ENDPOINTS));
        while members.iter().map(|member| member.sessions.len()).sum::<usize>() < cut_at {
            members.iter_mut().for_each(Busy::hear);
        }
        // Not the names of the cut before, for what is overwritten is flushed by ext4.
        let names = ["flushed", "unflushed"].map(|name| format!("{campaign}.{name}"));
        let [flushed, unflushed] = names.each_ref().map(|name| disk.files().join(name));
        fs::write(unflushed, campaign).expect("a file");
        let mut flushed = File::create(flushed).expect("a file");
        flushed.write_all(campaign.as_bytes()).and_then(|()| flushed.sync_all()).expect("a file");
        drop(flushed);
        disk.cut_power();
        // What was answered before is heard before the trouble is.
        for member in &mut members {
            while member.in_trouble.is_empty() {
                member.hear();
            }
            assert!(!member.is_through(), "it was busy to the end");
        }
        let heard = members.map(|member| member.sessions);
        postgres.kill();
        disk.restore_power();
        let found = names.map(|name| fs::read_to_string(disk.files().join(name)));
        assert_eq!(found.map(Result::unwrap_or_default), [campaign, ""], "it was a cut");
        postgres.start();
        for (heard, host) in heard.iter().zip(hosts) {
            let kept = kept(&postgres, campaign, host);
            let lost = lost(heard, &kept);
            let told =
                heard.values().filter(|heard| matches!(heard, Heard::Won(_) | Heard::Accepted(_)));
            println!(
                "{campaign}, {host}: {} acknowledged, {} kept, {} lost",
                told.count(),
                kept.len(),
                lost.len()
            );
            assert_eq!(lost, Vec::<u64>::new(), "{campaign}, {host}");
        }
    }
}
