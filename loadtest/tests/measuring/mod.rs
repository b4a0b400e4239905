//! One run of a mlet at one endpoint, over loopback, by the real programs: `pktcred init`, `pktxpmgr`, `pktfleet endpoint`.
//!
//! Not here: what the endpoint measures.

#[path = "../../../engine/tests/common/debug_forms.rs"]
mod debug_forms;

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);
const PKTFLEET: &str = env!("CARGO_BIN_EXE_pktfleet");

/// A home of `pktcred init`, which goes with its test.
pub(crate) struct Home {
    folder: PathBuf,
    /// Further options of its endpoint.
    pub(crate) endpoint_options: Vec<String>,
}

impl Home {
    pub(crate) fn new(name: &str) -> Self {
        let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("measuring-{name}"));
        let _ = fs::remove_dir_all(&home);
        let mut init = Command::new(program("pktcred"));
        init.args(["init", "--no-passphrase", "--no-broker", "--home"]).arg(&home);
        let Output { status, stderr, .. } = init.output().unwrap();
        assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
        Self { folder: home, endpoint_options: Vec::new() }
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.folder.join(name).to_str().unwrap().to_owned()
    }

    /// What a mlet prints at one endpoint; all three programs have ended as they should. `manager_at` is the loopback
    /// address of the manager, and the endpoint is at `endpoint_at`.
    pub(crate) fn measure(&self, manager_at: IpAddr, endpoint_at: IpAddr, mlet: &[&str]) -> String {
        self.measure_and_log(manager_at, endpoint_at, mlet).0
    }

    /// The same, and what the manager and the mlet log.
    pub(crate) fn measure_and_log(
        &self,
        manager_at: IpAddr,
        endpoint_at: IpAddr,
        mlet: &[&str],
    ) -> (String, String) {
        let listening = SocketAddr::new(manager_at, 0).to_string();
        let mut manager = Command::new(program("pktxpmgr"));
        manager.args(["-c", &self.path("xpmgr.conf"), "-a", &listening, "-n", "1", "--cores", "1"]);
        let mut manager = started(manager.args(mlet));
        let (sender, log) = mpsc::channel();
        let lines = BufReader::new(manager.stderr.take().unwrap()).lines();
        thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let address = loop {
            let line = log.recv_timeout(PATIENCE).expect("pktxpmgr should listen");
            if let Some((_, after)) = line.split_once("listening on ") {
                break after.split(' ').next().unwrap().parse::<SocketAddr>().unwrap();
            }
        };
        assert_eq!(address.ip(), manager_at);
        let endpoint_at = endpoint_at.to_string();
        let mut endpoint = Command::new(PKTFLEET);
        endpoint.args([
            "endpoint",
            "--address",
            &endpoint_at,
            "--controller",
            &address.to_string(),
        ]);
        endpoint.args(["--key", &self.path("keys/k_ep")]);
        endpoint.args(["--subcmd", &self.path("certs/subcmd_eop_ep.cert")]);
        endpoint.args(["--operator", &self.path("keys/k_eop.pub")]);
        let endpoint = ended(started(endpoint.args(&self.endpoint_options)));
        let said = String::from_utf8_lossy(&endpoint.stderr).into_owned();
        let manager = ended(manager);
        let log = log.try_iter().collect::<Vec<_>>().join("\n");
        assert!(endpoint.status.success() && manager.status.success(), "{log}\n{said}");
        debug_forms::assert_no_debug_form(&log);
        debug_forms::assert_no_debug_form(&said);
        (String::from_utf8(manager.stdout).unwrap(), log)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A program of the same build.
pub(crate) fn program(name: &str) -> String {
    let path = Path::new(PKTFLEET).with_file_name(name);
    assert!(path.exists(), "{} is missing: run `cargo build` first", path.display());
    path.to_str().unwrap().to_owned()
}

fn started(command: &mut Command) -> Child {
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Waits for it, not for ever.
fn ended(child: Child) -> Output {
    let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
    let (sender, output) = mpsc::channel();
    thread::spawn(move || sender.send(child.wait_with_output()));
    let output = output.recv_timeout(PATIENCE).inspect_err(|_| {
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
    });
    output.expect("it should end in time").unwrap()
}
