//! `pktfleet proxy` of the same build, which can be killed and comes back at its addresses.

use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use packetlab::certificate::CertificateType;
use packetlab::key::PrivateKey;

use crate::common::manager::{cpu_time_of, wait_until};
use crate::common::{Home, PKTXPMGR, pid};

/// No connection of loopback has this address unless it asks for it, so that nobody takes its ports while it is down.
const ANY_PORT: &str = "127.0.0.2:0";

pub(super) struct Proxy {
    child: Child,
    pub(super) controllers: SocketAddr,
    pub(super) endpoints: SocketAddr,
    /// Processor time of those that were killed.
    spent: Duration,
}

impl Proxy {
    pub(super) fn start(home: &Home) -> Self {
        let key = PrivateKey::generate().unwrap();
        home.write("proxy", key.to_pem().as_bytes());
        home.issue("proxy.cert", CertificateType::Agent, &key.public_key(), &key);
        let any = ANY_PORT.parse().unwrap();
        let (child, controllers, endpoints) = Self::process(home, any, any);
        Self { child, controllers, endpoints, spent: Duration::ZERO }
    }

    fn process(
        home: &Home,
        controllers: SocketAddr,
        endpoints: SocketAddr,
    ) -> (Child, SocketAddr, SocketAddr) {
        let program = Path::new(PKTXPMGR).with_file_name("pktfleet");
        assert!(
            program.exists(),
            "{} is missing; `cargo build --bins` makes it",
            program.display()
        );
        let log = File::create(home.path("proxy.log")).unwrap();
        let mut command = Command::new(program);
        command.args(["proxy", "--key", "proxy", "--agent", "proxy.cert"]);
        command.args(["--controllers", &controllers.to_string()]);
        command.args(["--endpoints", &endpoints.to_string()]);
        command.current_dir(home.path("")).stdin(Stdio::null()).stderr(log);
        let child = command.spawn().unwrap();
        let listening = |whom: &str| {
            let log = std::fs::read_to_string(home.path("proxy.log")).unwrap();
            let line = log.lines().find(|line| line.contains(&format!(" for {whom}")))?;
            line.split_once("listening on ")?.1.split(' ').next()?.parse().ok()
        };
        let mut addresses = [None; 2];
        wait_until("the proxy listens", || {
            addresses = ["controllers", "endpoints"].map(listening);
            addresses.iter().all(Option::is_some)
        });
        let [controllers, endpoints] = addresses.map(Option::unwrap);
        (child, controllers, endpoints)
    }

    pub(super) fn is_killed_and_comes_back(&mut self, home: &Home) {
        self.spent = self.cpu_time();
        self.child.kill().unwrap();
        assert_eq!(self.child.wait().unwrap().signal(), Some(9), "it ran until now");
        (self.child, ..) = Self::process(home, self.controllers, self.endpoints);
    }

    /// Of all its processes.
    pub(super) fn cpu_time(&self) -> Duration {
        self.spent + cpu_time_of(pid(&self.child).as_raw())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
