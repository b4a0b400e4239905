//! Example mlets where everything is IPv6: `pktxpmgr`, `pktfleet endpoint` and the servers that the endpoint
//! measures are reached over `[::1]`.

#![expect(clippy::unwrap_used, reason = "a helper of tests may panic like a test")]

#[path = "../../engine/tests/common/debug_forms.rs"]
mod debug_forms;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use packetlab::key::PublicKey;

/// Longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);
const PKTFLEET: &str = env!("CARGO_BIN_EXE_pktfleet");
const LOOPBACK: (Ipv6Addr, u16) = (Ipv6Addr::LOCALHOST, 0);

/// A home of `pktcred init`, which goes with its test.
struct Home(PathBuf);

impl Home {
    fn new(name: &str) -> Self {
        let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("ipv6-{name}"));
        let _ = fs::remove_dir_all(&home);
        let mut init = Command::new(program("pktcred"));
        init.args(["init", "--no-passphrase", "--no-broker", "--home"]).arg(&home);
        let Output { status, stderr, .. } = init.output().unwrap();
        assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
        Self(home)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    /// The line that a mlet prints at one endpoint; all three programs have ended as they should.
    fn measure(&self, mlet: &[&str]) -> String {
        let mut manager = Command::new(program("pktxpmgr"));
        manager.args(["-c", &self.path("xpmgr.conf"), "-a", "[::1]:0", "-n", "1", "--cores", "1"]);
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
        assert_eq!(address.ip(), Ipv6Addr::LOCALHOST);
        let mut endpoint = Command::new(PKTFLEET);
        endpoint.args(["endpoint", "--address", "::1", "--controller", &address.to_string()]);
        endpoint.args(["--key", &self.path("keys/k_ep")]);
        endpoint.args(["--subcmd", &self.path("certs/subcmd_eop_ep.cert")]);
        endpoint.args(["--operator", &self.path("keys/k_eop.pub")]);
        let endpoint = ended(started(&mut endpoint));
        let said = String::from_utf8_lossy(&endpoint.stderr).into_owned();
        let manager = ended(manager);
        let log = log.try_iter().collect::<Vec<_>>().join("\n");
        assert!(endpoint.status.success() && manager.status.success(), "{log}\n{said}");
        debug_forms::assert_no_debug_form(&log);
        debug_forms::assert_no_debug_form(&said);
        String::from_utf8(manager.stdout).unwrap()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A program of the same build.
fn program(name: &str) -> String {
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

#[test]
#[ignore = "needs IPv6 on loopback"]
fn a_page_is_fetched_from_an_ipv6_server() {
    let home = Home::new("page");
    let listener = TcpListener::bind(LOOPBACK).unwrap();
    let server = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        let (mut visitor, address) = listener.accept().unwrap();
        let mut request = [0; 1000];
        let len = visitor.read(&mut request).unwrap();
        let request = request[..len].escape_ascii();
        write!(visitor, "HTTP/1.0 200 OK\r\n\r\n{} {request}", address.ip()).unwrap();
    });
    let line = home.measure(&[&program("mlet-http-get"), &server, "/path"]);
    let key = PublicKey::from_pem(&fs::read(home.path("keys/k_ep.pub")).unwrap()).unwrap().key_id();
    let request = format!(r"GET /path HTTP/1.0\\r\\nHost: {server}\\r\\n\\r\\n");
    assert_eq!(line, format!("{key}\t::1\tHTTP/1.0 200 OK\t::1 {request}\n"));
}

#[test]
#[ignore = "needs IPv6 on loopback"]
fn a_name_is_asked_of_an_ipv6_server() {
    let home = Home::new("name");
    let socket = UdpSocket::bind(LOOPBACK).unwrap();
    let server = socket.local_addr().unwrap().to_string();
    thread::spawn(move || {
        let mut message = [0; 512];
        let (len, asker) = socket.recv_from(&mut message).unwrap();
        // The question again, marked as an answer, and one A record for its name.
        message[2] |= 0x80;
        message[7] = 1;
        let record = b"\xc0\x0c\0\x01\0\x01\0\0\0\0\0\x04\xc0\0\x02\x07";
        socket.send_to(&[&message[..len], record].concat(), asker).unwrap();
    });
    let line = home.measure(&[&program("mlet-dns"), "www.example.com", &server]);
    let columns: Vec<&str> = line.trim_end().split('\t').collect();
    assert_eq!(columns[1..4], ["::1", "www.example.com", &server]);
    assert!(columns[4].parse::<f64>().unwrap() > 0.0, "{line}");
    assert_eq!(columns[5..], ["192.0.2.7"]);
}
