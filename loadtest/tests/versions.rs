//! Every part of pktfleet says what it is called and which version it has.

use std::process::Command;

#[test]
fn every_part_of_pktfleet_says_its_own_name_and_version() {
    for part in ["", "demo", "broker", "proxy", "endpoint", "fleet", "load"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pktfleet"));
        command.args(Some(part).filter(|part| !part.is_empty())).arg("--version");
        let ended = command.env_clear().output().unwrap();
        let told = String::from_utf8(ended.stderr).unwrap();
        assert!(ended.status.success() && told.is_empty(), "{part}: {told}");
        let name = if part.is_empty() { "pktfleet".into() } else { format!("pktfleet-{part}") };
        let expected = format!("{name} {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(String::from_utf8(ended.stdout).unwrap(), expected);
    }
}
