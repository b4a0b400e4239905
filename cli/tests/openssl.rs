//! `openssl s_client` as the endpoint: another TLS, at the level of bytes; and `openssl` as the
//! converter that our messages name.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;

use common::endpoint::{CDATA, Identity, NDATA, SUCCESS, message};
use common::manager::{Manager, PATIENCE};
use common::{Home, PKTCRED, assert_says};

/// START as it stands on the wire.
const START: [u8; 4] = [0x21, 0, 0, 0];

/// A running `openssl s_client` whose standard streams are the plaintext.
struct Client {
    child: Child,
    received: mpsc::Receiver<Vec<u8>>,
    complaints: mpsc::Receiver<Vec<u8>>,
}

impl Client {
    /// Connects with the certificate of an endpoint of this home's operator.
    fn connect(home: &Home, manager: &Manager, options: &[&str]) -> Self {
        let identity = Identity::of(&home.keys.operator);
        home.write("ep.cert", identity.chain[0].to_pem().as_bytes());
        home.write("ep", identity.key.to_pem().as_bytes());
        let mut child = Command::new("openssl")
            .args(["s_client", "-quiet", "-connect", &manager.address.to_string()])
            .args(["-cert", "ep.cert", "-key", "ep"])
            .args(options)
            .current_dir(home.path(""))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("openssl is installed");
        let received = read_in_background(child.stdout.take().unwrap());
        let complaints = read_in_background(child.stderr.take().unwrap());
        Self { child, received, complaints }
    }

    /// Exactly these bytes come next.
    #[track_caller]
    fn receives(&self, expected: &[u8]) {
        let mut bytes = Vec::new();
        while bytes.len() < expected.len() {
            match self.received.recv_timeout(PATIENCE) {
                Ok(more) => bytes.extend(more),
                Err(error) => panic!("{error} after {bytes:?}"),
            }
        }
        assert_eq!(bytes, expected);
    }

    fn sends(&mut self, bytes: &[u8]) {
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(bytes).unwrap();
        stdin.flush().unwrap();
    }

    /// Gives it a command, and waits until it says that it heeds it.
    #[track_caller]
    fn heeds(&mut self, command: &str, says: &str) {
        self.sends(command.as_bytes());
        let mut said = String::new();
        while !said.contains(says) {
            let more = self.complaints.recv_timeout(PATIENCE).expect("it says so");
            said.push_str(&String::from_utf8(more).unwrap());
        }
    }

    /// Waits for its end and returns everything it still received and its complaints.
    fn ends(mut self) -> (Vec<u8>, String) {
        let rest = self.received.iter().flatten().collect();
        drop(self.child.stdin.take());
        let stderr = self.complaints.iter().flatten().collect();
        self.child.wait().unwrap();
        (rest, String::from_utf8(stderr).unwrap())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_in_background(mut output: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (send, received) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(len @ 1..) = output.read(&mut bytes) {
            let _ = send.send(bytes[..len].to_vec());
        }
    });
    received
}

/// Items 72, 79, 82.
#[test]
#[ignore = "needs openssl"]
fn openssl_goes_through_set_up_and_gets_its_echo() {
    let home = Home::new();
    let manager = home.start(&["-n", "1"], &["echo"]);
    let mut client = Client::connect(&home, &manager, &["-servername", "hello"]);
    client.receives(&START);
    client.sends(&SUCCESS);
    for len in [0, 1, 100, 3000] {
        let bytes = message(NDATA, &vec![b'Q'; len]);
        client.sends(&bytes);
        client.receives(&bytes);
    }
    // Its end without close_notify: `-quiet` keeps the connection when stdin ends, so it is killed.
    drop(client);
    let ended = manager.ends();
    assert_eq!(ended.code, Some(0));
    assert_says(&ended.stderr, &["over: the endpoint closed; mlet exit code 0"]);
}

/// Item 87: the mlet ends first, and openssl takes the close_notify for what it is.
#[test]
#[ignore = "needs openssl"]
fn openssl_sees_a_clean_end_with_everything_before_it() {
    let home = Home::new();
    let manager = home.start(&["-n", "1"], &["flood", "50", "1000"]);
    let mut client = Client::connect(&home, &manager, &["-servername", "hello"]);
    client.receives(&START);
    client.sends(&SUCCESS);
    let (rest, stderr) = client.ends();
    assert_eq!(rest.len(), 50 * 1004);
    assert!(!stderr.contains("unexpected eof"), "{stderr}");
    assert_eq!(manager.ends().code, Some(0));
}

/// `k` changes openssl's keys, `K` asks for ours as well. Its log shows both.
#[test]
#[ignore = "needs openssl"]
fn openssl_changes_its_keys_and_has_ours_changed_in_the_midst_of_an_echo() {
    let home = Home::new();
    let manager = home.start(&["-n", "1"], &["echo"]);
    let options = ["-servername", "hello", "-no_ign_eof", "-msg", "-msgfile", "messages"];
    let mut client = Client::connect(&home, &manager, &options);
    client.receives(&START);
    client.sends(&SUCCESS);
    for (index, command) in ["k\n", "K\n", "K\n", "k\n"].into_iter().enumerate() {
        let bytes = message(NDATA, &vec![b'x'; 1000 * index]);
        client.sends(&bytes);
        client.receives(&bytes);
        client.heeds(command, "KEYUPDATE");
        client.sends(&bytes);
        client.receives(&bytes);
    }
    client.heeds("Q\n", "DONE");
    client.ends();
    let messages = String::from_utf8(std::fs::read(home.path("messages")).unwrap()).unwrap();
    let count = |direction: &str| {
        let is_it = |line: &&str| line.starts_with(direction) && line.contains("KeyUpdate");
        messages.lines().filter(is_it).count()
    };
    assert_eq!((count(">>>"), count("<<<")), (4, 2), "{messages}");
    assert_eq!(manager.ends().code, Some(0));
}

/// Item 75.
#[test]
#[ignore = "needs openssl"]
fn openssl_with_tls_1_2_is_told_the_version_is_wrong() {
    let home = Home::new();
    let manager = home.start(&[], &["echo"]);
    let client = Client::connect(&home, &manager, &["-servername", "hello", "-tls1_2"]);
    let (rest, stderr) = client.ends();
    assert!(rest.is_empty());
    assert_says(&stderr, &["alert protocol version"]);
    manager.says("TLS failed");
    home.dial(&manager).is_served();
}

/// Items 72, 73.
#[test]
#[ignore = "needs openssl"]
fn openssl_is_refused_as_any_other_endpoint() {
    let home = Home::new();
    let manager = home.start(&[], &["echo"]);
    let unknown = Client::connect(&home, &manager, &["-servername", "nobody"]).ends();
    assert_says(&unknown.1, &["unexpected eof"]);
    manager.says("no ExpExec has the snikey \"nobody\"");
    // The default entry is for those who send no name.
    let mut client = Client::connect(&home, &manager, &["-noservername"]);
    client.receives(&START);
    client.sends(&SUCCESS);
    client.sends(&message(CDATA, b"anything"));
    client.receives(&message(CDATA, b"anything"));
}

/// How a form is made from `key.pem`, `cert.pem` and `csr.pem`; what `pktcred show` calls it; and what
/// it says of what the command in its message made of it.
const FORMS: [(&str, &str, &str); 11] = [
    ("x509 -in cert.pem -outform DER", "a certificate in DER", "kind: certificate"),
    (
        "x509 -in cert.pem -trustout -addtrust clientAuth",
        "TRUSTED CERTIFICATE",
        "kind: certificate",
    ),
    ("crl2pkcs7 -nocrl -certfile cert.pem", "a PKCS#7 bundle", "kind: certificate"),
    ("crl2pkcs7 -nocrl -certfile cert.pem -outform DER", "PKCS#7", "kind: certificate"),
    ("req -in csr.pem -outform DER", "a signing request in DER", "kind: signing request"),
    ("pkey -in key.pem -outform DER", "a private key in DER", "kind: private key"),
    (
        "pkcs8 -topk8 -in key.pem -outform DER -passout pass:hunter2",
        "an encrypted private key in DER",
        "kind: private key\nencrypted: PBES2",
    ),
    ("pkey -in key.pem -pubout -outform DER", "a public key in DER", "kind: public key"),
    (
        "pkcs12 -export -inkey key.pem -in cert.pem -passout pass:hunter2",
        "a PKCS#12 file",
        "kind: private key\nencrypted: PBES2",
    ),
    ("genrsa -traditional 2048", "a traditional RSA key", "kind: private key\nencrypted: PBES2"),
    (
        "ecparam -genkey -noout -name prime256v1",
        "EC PRIVATE KEY",
        "kind: private key\nencrypted: PBES2",
    ),
];

#[test]
#[ignore = "needs openssl"]
fn openssl_converts_each_form_as_the_message_says() {
    let home = Home::new();
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../engine/testdata/credentials");
    for (name, file) in
        [("key.pem", "keys/xc"), ("cert.pem", "agent_xc.cert"), ("csr.pem", "exppriv.csr")]
    {
        home.write(name, &std::fs::read(format!("{golden}/{file}")).unwrap());
    }
    let shell = |command: &str| {
        let output =
            Command::new("sh").args(["-c", command]).current_dir(home.path("")).output().unwrap();
        assert!(output.status.success(), "{command}: {output:?}");
        output.stdout
    };
    let show = |file: &str| {
        let mut command = Command::new(PKTCRED);
        let output = command.args(["show", file]).current_dir(home.path("")).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    for (make, what, becomes) in FORMS {
        home.write("form", &shell(&format!("openssl {make}")));
        let said = show("form");
        assert_says(&said, &["error: it is ", what]);
        let command = said.split('`').nth(1).unwrap();
        let mut command = command.replace("FILE", "form").replace("NEW", "converted");
        if command.starts_with("openssl pkcs") && !command.contains("pkcs7") {
            command += " -passout pass:hunter2 -passin pass:hunter2";
        }
        shell(&command);
        assert_says(&show("converted"), &[becomes]);
    }
}
