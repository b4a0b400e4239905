//! tlslite-ng as the endpoint: records that no other library sends. What is tried stands in `python/tls_records.py`.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::path::Path;
use std::process::Command;

use common::endpoint::Identity;
use common::{Home, assert_says};

/// spec/reliability.md 9: what tlsfuzzer tries behind a handshake.
#[test]
#[ignore = "needs tlslite-ng"]
fn each_record_behind_the_handshake_is_taken_or_answered_with_its_alert() {
    let home = Home::new();
    let identity = Identity::of(&home.keys.operator);
    home.write("ep.cert", identity.chain[0].to_pem().as_bytes());
    home.write("ep", identity.key.to_pem().as_bytes());
    let manager = home.start(&["-v"], &["echo"]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/tls_records.py");
    let interpreter = std::env::var_os("PKTLAB_PYTHON").unwrap_or_else(|| "python3".into());
    let output = Command::new(interpreter)
        .arg(script)
        .args([&manager.address.port().to_string(), "ep.cert", "ep"])
        .current_dir(home.path(""))
        .output()
        .expect("Python is installed");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let tried = String::from_utf8(output.stdout).unwrap();
    assert_eq!(tried.lines().count(), 3 + 25, "{tried}");
    let ended = manager.interrupted();
    assert_eq!(ended.code, Some(0));
    assert_says(&ended.stderr, &["TLS broke off: ", "the endpoint closed; mlet exit code 0"]);
}
