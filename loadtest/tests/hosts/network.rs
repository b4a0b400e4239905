//! A network of a test's own: machines that are network namespaces with host names of their own, and one between them that
//! forwards. Nothing of it has a name in the system: it goes with the test and the programs that the test has started,
//! however the test ends.
//!
//! Not here: what runs on the machines. Invariant: only a thread that ends with its work enters a machine.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;

use nix::sched::{CloneFlags, setns, unshare};

use super::*;

/// What forwards between all machines.
pub(super) struct Network {
    between: Machine,
    machines: u8,
}

/// One machine, with an address if it is on the network.
pub(super) struct Machine {
    network: File,
    host_name: File,
    address: Ipv4Addr,
}

/// A process of a mlet, or one that it has started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct MletProcess {
    pub(super) session: u64,
    pub(super) pid: u32,
}

impl Network {
    pub(super) fn new() -> Self {
        let between = Machine::alone("between", Ipv4Addr::LOCALHOST);
        between.within(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap());
        Self { between, machines: 0 }
    }

    /// A machine that all others reach.
    pub(super) fn machine(&mut self, name: &str) -> Machine {
        self.machines += 1;
        let number = self.machines;
        let machine = Machine::alone(name, Ipv4Addr::new(10, 77, number, 2));
        let other_end = format!("/proc/{}/fd/{}", std::process::id(), machine.network.as_raw_fd());
        self.between.within(|| {
            ip(&format!("link add to{number} type veth peer name eth0 netns {other_end}"));
            ip(&format!("addr add 10.77.{number}.1/24 dev to{number}"));
            ip(&format!("link set to{number} up"));
        });
        machine.within(|| {
            ip(&format!("addr add {}/24 dev eth0", machine.address));
            ip("link set eth0 up");
            ip(&format!("route add default via 10.77.{number}.1"));
        });
        machine
    }

    /// Gives a machine an address of IPv6 too, at which all others with one reach it.
    #[allow(dead_code, reason = "not all who have machines want it")]
    pub(super) fn with_ipv6(&self, machine: &Machine) -> Ipv6Addr {
        let [_, _, number, _] = machine.address.octets();
        let [router, own] =
            [1, 2].map(|last| Ipv6Addr::new(0xfd77, 0, 0, number.into(), 0, 0, 0, last));
        self.between.within(|| {
            fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
            ip(&format!("addr add {router}/64 dev to{number} nodad"));
        });
        machine.within(|| {
            ip(&format!("addr add {own}/64 dev eth0 nodad"));
            ip(&format!("route add default via {router}"));
        });
        own
    }

    /// From now on nothing of one machine reaches the other: its packets are dropped on their way.
    pub(super) fn cut(&self, from: &Machine, to: &Machine) {
        self.rule("add", from, to);
    }

    pub(super) fn mend(&self, from: &Machine, to: &Machine) {
        self.rule("del", from, to);
    }

    fn rule(&self, verb: &str, from: &Machine, to: &Machine) {
        let (from, to) = (from.address, to.address);
        self.between.within(|| ip(&format!("rule {verb} from {from} to {to} blackhole")));
    }
}

impl Machine {
    fn alone(name: &str, address: Ipv4Addr) -> Self {
        let new = || {
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS)
                .expect("a network of its own takes CAP_NET_ADMIN and CAP_SYS_ADMIN");
            fs::write("/proc/sys/kernel/hostname", name).unwrap();
            // What a test asks for is not refused for asking fast.
            for limit in ["ipv4/icmp_ratelimit", "ipv6/icmp/ratelimit"] {
                let _ = fs::write(format!("/proc/sys/net/{limit}"), "0");
            }
            ip("link set lo up");
            let own = |kind: &str| File::open(format!("/proc/thread-self/ns/{kind}")).unwrap();
            Self { network: own("net"), host_name: own("uts"), address }
        };
        thread::scope(|scope| scope.spawn(new).join().unwrap())
    }

    pub(super) fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Does something there; programs that it starts stay there.
    pub(super) fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let enter = || {
            setns(&self.network, CloneFlags::CLONE_NEWNET).unwrap();
            setns(&self.host_name, CloneFlags::CLONE_NEWUTS).unwrap();
            work()
        };
        thread::scope(|scope| scope.spawn(enter).join().unwrap())
    }

    /// All mlets that run there, whosever they are.
    pub(super) fn mlets(&self) -> BTreeSet<MletProcess> {
        let own = self.network.metadata().unwrap().ino();
        let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| {
            let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            // One that has just ended has neither.
            if fs::metadata(format!("/proc/{pid}/ns/net")).ok()?.ino() != own {
                return None;
            }
            let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
            let mut variables = environment.split(|byte| *byte == 0);
            let session =
                variables.find_map(|variable| variable.strip_prefix(b"PKTLAB_SESSION="))?;
            Some(MletProcess { session: std::str::from_utf8(session).ok()?.parse().ok()?, pid })
        });
        processes.collect()
    }
}

fn ip(words: &str) {
    let ended = Command::new("ip").args(words.split(' ')).output().expect("ip (iproute2)");
    assert!(ended.status.success(), "ip {words}: {}", String::from_utf8_lossy(&ended.stderr));
}
