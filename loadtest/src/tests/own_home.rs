//! A home that the real `pktcred init` made, served by the real `pktxpmgr`, with nothing edited.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use packetlab::certificate::Certificate;
use packetlab::key::{PrivateKey, PublicKey};
use packetlab::tls::{self, Identity, PeerRule};
use packetlab::trust::TrustMode;

use super::{LOOPBACK, OWN};
use crate::page::{Expected, Pages};
use crate::pktxpmgr::Pktxpmgr;
use crate::web::Web;
use hosts::endpoint::{Endpoint, MonitorRule};

/// A program of the same build: tests lie in a directory below the programs.
fn program(name: &str) -> PathBuf {
    let itself = std::env::current_exe().unwrap();
    let path = itself.parent().unwrap().with_file_name(name);
    assert!(path.exists(), "{} is missing: run `cargo build` first", path.display());
    path
}

/// The endpoint whose key and certificate lie in the home. It has no snikey: the config's experiment
/// is the default one and its snikey random.
fn endpoint(home: &Path, controller: std::net::SocketAddr) -> (Endpoint, String) {
    let read = |name: &str| fs::read(home.join(name)).unwrap();
    let operator = PublicKey::from_pem(&read("keys/k_eop.pub")).unwrap();
    let key = PrivateKey::from_pem(&read("keys/k_ep"), None).unwrap();
    let chain = [Certificate::from_pem(&read("certs/subcmd_eop_ep.cert")).unwrap()];
    let rule = PeerRule {
        mode: TrustMode::EndpointAuthenticatesController,
        anchors: vec![operator],
        mandatory: true,
    };
    let endpoint = Endpoint {
        address: OWN,
        host_id: String::new(),
        controllers: vec![controller],
        server_name: tls::server_name(None).unwrap(),
        tls: tls::client_config(Some(&Identity { chain: &chain, key: &key }), rule).unwrap(),
        operators: vec![operator],
        priority: None,
        monitors: MonitorRule::Refuse,
        own_monitors: std::sync::Arc::default(),
        ledger: std::sync::Arc::default(),
        ran: std::time::Duration::ZERO,
        leave_at: None,
    };
    (endpoint, key.public_key().key_id().to_string())
}

#[tokio::test]
async fn a_home_of_pktcred_runs_an_experiment_with_nothing_edited() {
    let scratch = scratch();
    let home = scratch.0.join("home");
    let made = Command::new(program("pktcred"))
        .args(["init", "--no-passphrase", "--no-broker", "--home"])
        .arg(&home)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));

    let web = Web::start(LOOPBACK).await.unwrap();
    let words = [
        "-c".into(),
        home.join("xpmgr.conf").into_os_string(),
        "-a".into(),
        "127.0.0.1:0".into(),
        "-n".into(),
        "1".into(),
        program("mlet-http-get").into_os_string(),
        web.address().to_string().into(),
    ];
    let (mut pktxpmgr, controller) =
        Pktxpmgr::listening(&program("pktxpmgr"), words).await.unwrap();
    let (endpoint, key) = endpoint(&home, controller);
    let session = endpoint.run().await;
    assert!(session.started, "{session:?}");
    let ended = pktxpmgr.finish().await.unwrap();
    assert!(ended.status.success(), "{ended:?}");
    let expected = Expected { key, address: OWN, page: web.page(OWN) };
    Pages::parse(&ended.output).take(&expected).unwrap();
}

/// A directory of its own, gone with the value.
struct Scratch(PathBuf);

fn scratch() -> Scratch {
    let name = format!("pktfleet-own-home-{}", std::process::id());
    let path = std::env::temp_dir().join(name);
    let _ = fs::remove_dir_all(&path);
    fs::create_dir(&path).unwrap();
    Scratch(path)
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
