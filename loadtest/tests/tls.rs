//! `mlet-tls` at a real endpoint, with a server that is OpenSSL's.

#![expect(clippy::unwrap_used, reason = "a helper of tests may panic like a test")]

mod measuring;

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};

use measuring::{Home, program};
use packetlab::key::PublicKey;

/// A server that ends with its test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs OpenSSL with these words; what it prints.
fn openssl(home: &Home, words: &str) -> String {
    let mut command = Command::new("openssl");
    let ended = command.args(words.split(' ')).current_dir(home.path("")).output().unwrap();
    assert!(ended.status.success(), "{words}: {}", String::from_utf8_lossy(&ended.stderr));
    String::from_utf8(ended.stdout).unwrap()
}

/// A certificate for this name, and its SHA-256.
fn certificate(home: &Home, name: &str) -> String {
    let names = format!("subjectAltName=DNS:{name},IP:127.0.0.1");
    openssl(
        home,
        &format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN={name} \
             -addext {names} -keyout {name}.key -out {name}.pem"
        ),
    );
    let told = openssl(home, &format!("x509 -in {name}.pem -noout -fingerprint -sha256"));
    let (_, digest) = told.trim().split_once('=').unwrap();
    digest.replace(':', "").to_lowercase()
}

/// A server with the certificate of this name and that of another behind it; where it is.
fn serve(home: &Home, name: &str, other: &str) -> (Server, String) {
    let words = format!(
        "s_server -accept 127.0.0.1:0 -naccept 1 -cert {name}.pem -key {name}.key -cert_chain {other}.pem"
    );
    let mut command = Command::new("openssl");
    command.args(words.split(' ')).current_dir(home.path("")).stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let address = lines.find_map(|line| Some(line.unwrap().strip_prefix("ACCEPT ")?.to_owned()));
    // It goes on to write there.
    std::thread::spawn(move || lines.count());
    (Server(child), address.expect("it should listen"))
}

#[test]
#[ignore = "needs openssl"]
fn a_server_shows_its_certificates_and_that_it_has_the_key_of_the_first() {
    let home = Home::new("tls");
    let digests = ["server.example", "other.example"].map(|name| certificate(&home, name));
    let (_server, address) = serve(&home, "server.example", "other.example");
    let loopback = Ipv4Addr::LOCALHOST.into();
    let mlet = program("mlet-tls");
    let text = home.measure(loopback, loopback, &[&mlet, &address, "server.example"]);
    let key = PublicKey::from_pem(&fs::read(home.path("keys/k_ep.pub")).unwrap()).unwrap().key_id();
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(lines.len(), 3, "{text}");
    for line in &lines {
        assert_eq!(line[..3], [&key.to_string(), "127.0.0.1", &address]);
    }
    assert_eq!(lines[0][3], "handshake");
    assert!(lines[0][4].parse::<f64>().unwrap() > 0.0, "{text}");
    assert!(lines[0][5].starts_with("TLS13_"), "{text}");
    assert_eq!(lines[0][6..], ["proven"]);
    for (number, (name, digest)) in
        (1..).zip(["server.example", "other.example"].into_iter().zip(digests))
    {
        let line = &lines[number];
        assert_eq!(line[3..6], ["certificate", &number.to_string(), &digest]);
        let [from, until] = [6, 7].map(|at| line[at].parse::<u64>().unwrap());
        assert_eq!(until - from, 30 * 86_400);
        let named = format!("CN={name}");
        assert_eq!(line[8..], [&named, &named, &format!("{name} 127.0.0.1")]);
    }
}
