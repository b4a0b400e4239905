//! Credentials in a folder of a test's own, and the programs of a group that run with them.

use std::io::{BufRead, BufReader};

use super::*;

/// A folder with the credentials of the original's tools (spec/protocol.md 8), which goes with its test.
pub(super) struct Scene {
    pub(super) folder: PathBuf,
}

impl Scene {
    pub(super) fn new(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("hosts-{name}"));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let scene = Self { folder };
        let credentials =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/testdata/credentials");
        for directory in [credentials.join("keys"), credentials] {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_file() {
                    let name = path.file_name().unwrap().to_str().unwrap();
                    scene.write(name, &fs::read(&path).unwrap(), 0o600);
                }
            }
        }
        scene
    }

    pub(super) fn path(&self, name: &str) -> String {
        self.folder.join(name).to_str().unwrap().to_owned()
    }

    pub(super) fn write(&self, name: &str, contents: &[u8], mode: u32) -> String {
        fs::write(self.path(name), contents).unwrap();
        fs::set_permissions(self.path(name), Permissions::from_mode(mode)).unwrap();
        self.path(name)
    }

    /// A new endpoint of the operator eop: NAME, NAME.agent and NAME.subcmd.
    pub(super) fn endpoint(&self, name: &str) -> String {
        self.endpoint_until(name, Ticks::MAX)
    }

    /// The same, whose certificates expire then.
    pub(super) fn endpoint_until(&self, name: &str, not_after: Ticks) -> String {
        let key = self.new_key(name);
        self.certify(&format!("{name}.agent"), CertificateType::Agent, (&key, name), not_after);
        self.certify(&format!("{name}.subcmd"), CertificateType::Subcmd, (&key, "eop"), not_after);
        key.key_id().to_string()
    }

    /// A new key in the file of this name: its public half.
    pub(super) fn new_key(&self, name: &str) -> PublicKey {
        let key = PrivateKey::generate().unwrap();
        self.write(name, key.to_pem().as_bytes(), 0o600);
        key.public_key()
    }

    /// Makes a certificate of a key, in a file of this name, with the signer's key, which is in another.
    pub(super) fn certify(
        &self,
        name: &str,
        certificate_type: CertificateType,
        (subject, signer): (&PublicKey, &str),
        not_after: Ticks,
    ) {
        let signer = PrivateKey::from_pem(&fs::read(self.path(signer)).unwrap(), None).unwrap();
        let fields = CertificateFields {
            certificate_type,
            delegation: Delegation::default(),
            path_len: None,
            not_before: Ticks(0),
            not_after,
            description: None,
            auxiliary: Vec::new(),
            limits: CertificateLimits::default(),
        };
        let der = issue(&fields, subject, &signer).unwrap();
        let certificate = Certificate::from_der(&der).unwrap();
        self.write(name, certificate.to_pem().as_bytes(), 0o600);
    }

    pub(super) fn pktfleet(&self, words: &[&str]) -> Command {
        let mut command = Command::new(PKTFLEET);
        // A word that names a file of this scene is its path.
        let words = words.iter().map(|word| match word.strip_prefix('@') {
            Some(name) => self.path(name),
            None => (*word).to_owned(),
        });
        command.args(words).current_dir(&self.folder);
        command
    }

    pub(super) fn broker(&self) -> Running {
        self.broker_with(&[])
    }

    pub(super) fn broker_with(&self, more: &[&str]) -> Running {
        let words = [
            "broker",
            "--key",
            "@rv",
            "--agent",
            "@agent_bop_rv.cert",
            "--publish",
            "127.0.0.1:0",
            "--subscribe",
            "127.0.0.1:0",
        ];
        Running::start(self.pktfleet(&[&words[..], more].concat()))
    }

    pub(super) fn proxy(&self, more: &[&str]) -> Running {
        let words = [
            "proxy",
            "--key",
            "@prx",
            "--agent",
            "@agent_prx.cert",
            "--controllers",
            "127.0.0.1:0",
            "--endpoints",
            "127.0.0.1:0",
        ];
        Running::start(self.pktfleet(&[&words[..], more].concat()))
    }

    /// An endpoint made by [`Self::endpoint`] that subscribes.
    pub(super) fn subscribed(&self, name: &str, broker: SocketAddr) -> Running {
        let (key, agent) = (format!("@{name}"), format!("@{name}.agent"));
        let (subcmd, broker) = (format!("@{name}.subcmd"), broker.to_string());
        let words = [
            "endpoint",
            "--subscribe",
            &broker,
            "--key",
            &key,
            "--agent",
            &agent,
            "--subcmd",
            &subcmd,
            "--operator",
            "@eop.pub",
            "--broker-root",
            "@bop.pub",
        ];
        let mut endpoint = Running::start(self.pktfleet(&words));
        endpoint.wait_for("subscribed at the broker");
        endpoint
    }

    /// So many endpoints of the operator eop in one process, once all of them are subscribed.
    pub(super) fn fleet(&self, count: usize, broker: SocketAddr) -> Running {
        // Each has a key to be made and a handshake to do.
        let patience = PATIENCE + Duration::from_millis(20) * count as u32;
        let (count, broker) = (count.to_string(), broker.to_string());
        let words = [
            "fleet",
            "--endpoints",
            &count,
            "--subscribe",
            &broker,
            "--key",
            "@eop",
            "--broker-root",
            "@bop.pub",
            "--address",
            "127.2.0.1",
            "--attributes",
            "hostid=EP{};",
        ];
        let mut fleet = Running::start(self.pktfleet(&words));
        let subscribed = format!("{count} of {count} endpoints are subscribed");
        fleet.wait_for_within(&subscribed, patience);
        fleet
    }

    /// The config of a `pktxpmgr` that publishes; with `proxy`, through it.
    pub(super) fn config(&self, snikey: &str, broker: SocketAddr, proxy: bool) -> String {
        let chain = [self.path("exppriv_eop_exper.cert"), self.path("pubcmd_exper_xc.cert")];
        let mut config = format!(
            "EnableExpPublication 1\nBrokerAddr {broker}\nPubAgentCertPath {}\n\
             BrokerCertRootPath {}\nControllerPrivkeyPath {}\nExpExec 0:{snikey}:{}:{}::\n",
            self.path("agent_xc.cert"),
            self.path("bop.pub"),
            self.path("xc"),
            chain.join(","),
            self.path("eop.pub"),
        );
        if proxy {
            let (agent, root) = (self.path("agent_xc.cert"), self.path("prx.pub"));
            config.push_str(&format!(
                "EnableProxyMode 1\nBacklogConnAgentCertPath {agent}\nProxyCertRootPath {root}\n"
            ));
        }
        self.write(&format!("{snikey}.conf"), config.as_bytes(), 0o600)
    }

    /// A `pktxpmgr` whose mlet prints what it was told of its session.
    pub(super) fn pktxpmgr(&self, config: &str, words: &[&str]) -> Child {
        let program = Path::new(PKTFLEET).with_file_name("pktxpmgr");
        assert!(program.exists(), "{} is missing: run `cargo build` first", program.display());
        let script = b"#!/bin/sh\necho \"$PKTLAB_SNIKEY $PKTLAB_ENDPOINT_KEY\"\n";
        let mlet = self.write("mlet", script, 0o755);
        Command::new(program)
            .args(["-c", config, "--cores", "1"])
            .args(words)
            .arg(mlet)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A `pktfleet` that serves, and its log.
pub(super) struct Running {
    pub(super) child: Child,
    pub(super) lines: mpsc::Receiver<String>,
    pub(super) seen: Vec<String>,
}

impl Running {
    pub(super) fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = mpsc::channel();
        let log = BufReader::new(child.stderr.take().unwrap());
        thread::spawn(move || log.lines().map_while(Result::ok).try_for_each(|l| sender.send(l)));
        Self { child, lines, seen: Vec::new() }
    }

    /// The first log line that holds `text`.
    pub(super) fn wait_for(&mut self, text: &str) -> String {
        self.wait_for_within(text, PATIENCE)
    }

    pub(super) fn wait_for_within(&mut self, text: &str, patience: Duration) -> String {
        self.wait_for_line(text, 1, patience)
    }

    /// Waits until so many log lines hold `text`.
    pub(super) fn wait_for_times(&mut self, text: &str, times: usize) {
        self.wait_for_line(text, times, PATIENCE);
    }

    /// The line of this number, from 1, among those that hold `text`.
    fn wait_for_line(&mut self, text: &str, number: usize, patience: Duration) -> String {
        let deadline = Instant::now() + patience;
        loop {
            let mut lines = self.seen.iter().filter(|line| line.contains(text));
            if let Some(line) = lines.nth(number - 1) {
                return line.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => self.seen.push(line),
                Err(_) => {
                    panic!("not {number} times {text:?} in the log:\n{}", self.seen.join("\n"))
                }
            }
        }
    }

    /// How many lines hold `text` so far.
    pub(super) fn times(&mut self, text: &str) -> usize {
        self.seen.extend(self.lines.try_iter());
        self.seen.iter().filter(|line| line.contains(text)).count()
    }

    /// Where it listens for `whom`.
    pub(super) fn address(&mut self, whom: &str) -> SocketAddr {
        let line = self.wait_for(&format!(" for {whom}"));
        let (_, after) = line.split_once("listening on ").unwrap();
        after.split(' ').next().unwrap().parse().unwrap()
    }

    /// Asks it to end: it does so with exit code 0. All of its log.
    pub(super) fn end(mut self, signal: Signal) -> Vec<String> {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
        let status = self.child.wait().unwrap();
        self.seen.extend(self.lines.iter());
        assert_eq!(status.code(), Some(0), "{:?}", self.seen);
        debug_forms::assert_no_debug_form(&self.seen.join("\n"));
        std::mem::take(&mut self.seen)
    }

    pub(super) fn proc(&self, entry: &str) -> PathBuf {
        Path::new("/proc").join(self.child.id().to_string()).join(entry)
    }

    pub(super) fn open_files(&self) -> usize {
        fs::read_dir(self.proc("fd")).unwrap().count()
    }

    pub(super) fn resident_kib(&self) -> usize {
        let status = fs::read_to_string(self.proc("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !thread::panicking() {
            self.seen.extend(self.lines.try_iter());
            debug_forms::assert_no_debug_form(&self.seen.join("\n"));
        }
    }
}

/// The lines that the mlets of this `pktxpmgr` printed, sorted; it has ended as it should.
pub(super) fn printed(pktxpmgr: Child) -> Vec<String> {
    let output = pktxpmgr.wait_with_output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{log}");
    debug_forms::assert_no_debug_form(&log);
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

pub(super) fn expected(snikey: &str, keys: &[&str]) -> Vec<String> {
    let mut lines: Vec<_> = keys.iter().map(|key| format!("{snikey} {key}")).collect();
    lines.sort();
    lines
}
