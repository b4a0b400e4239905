//! Homes on a real file system.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

use super::*;
use packetlab::address::HostPort;
use packetlab::key::{KeyError, PublicKey};
use packetlab::program::Program;
use packetlab::snikey::SniKey;
use packetlab::time::Ticks;
use packetlab::trust::{TrustMode, verify_chain};

const NOW: Ticks = Ticks(1_700_000_000_000_000_000);
const YEAR_2038: Ticks = Ticks(2_147_483_647_000_000_000);

/// A directory of its own for each test, gone with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let path = file::beside(&std::env::temp_dir().join("engine-home-test"));
        fs::create_dir(&path).unwrap();
        Self(fs::canonicalize(path).unwrap())
    }

    fn settings(&self) -> Settings {
        Settings {
            directory: self.0.join("home"),
            not_before: Ticks(0),
            not_after: YEAR_2038,
            snikey: None,
            program: None,
            broker: None,
            proxy_root: None,
        }
    }

    fn names(&self) -> Vec<String> {
        names(&self.0)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn open(_: &str) -> Option<Zeroizing<Vec<u8>>> {
    None
}

/// Every path of a tree with its mode.
fn modes(directory: &Path, found: &mut BTreeMap<PathBuf, u32>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
        if path.is_dir() {
            modes(&path, found);
        }
        found.insert(path, mode);
    }
}

#[test]
fn a_home_holds_the_files_of_the_example_configs() {
    let scratch = Scratch::new();
    let home = Home::draw(scratch.settings()).unwrap();
    home.write(open).unwrap();
    let directory = home.directory();
    assert_eq!(
        names(directory),
        ["certs", "csrs", "keys", "progs", "xpmgr.conf", "xpmgr.proxy.conf"]
    );
    assert_eq!(
        names(&directory.join("keys")),
        [
            "caida_k_bop.pub",
            "caida_k_eop.pub",
            "k_eop",
            "k_eop.pub",
            "k_ep",
            "k_ep.pub",
            "k_exper",
            "k_exper.pub",
            "k_xc",
            "k_xc.pub"
        ]
    );
    assert_eq!(
        names(&directory.join("certs")),
        [
            "agent_ep_ep.cert",
            "agent_xc_xc.cert",
            "exppriv_eop_exper.cert",
            "pubcmd_exper_xc.cert",
            "subcmd_eop_ep.cert"
        ]
    );
    assert_eq!(
        names(&directory.join("csrs")),
        ["delpriv_exp_exper.csr", "delpriv_rep_eop.csr", "exppriv_exper.csr"]
    );
    assert!(names(&directory.join("progs")).is_empty());
    assert_eq!(scratch.names(), ["home"]);
}

#[test]
fn only_the_owner_may_read_a_home() {
    let scratch = Scratch::new();
    let home = Home::draw(scratch.settings()).unwrap();
    home.write(open).unwrap();
    let mut found = BTreeMap::new();
    modes(&scratch.0, &mut found);
    assert_eq!(found.len(), 25);
    for (path, mode) in found {
        assert_eq!(mode, if path.is_dir() { 0o700 } else { 0o600 }, "{}", path.display());
    }
}

#[test]
fn the_chains_of_a_home_verify() {
    let scratch = Scratch::new();
    let home = Home::draw(scratch.settings()).unwrap();
    home.write(open).unwrap();
    let certificate = |name: &str| {
        let pem = fs::read(home.directory().join("certs").join(name)).unwrap();
        Certificate::from_pem(&pem).unwrap()
    };
    let operator = [home.operator.public_key()];
    for (mode, names, anchors, subject) in [
        (
            TrustMode::EndpointAuthenticatesController,
            &["pubcmd_exper_xc.cert", "exppriv_eop_exper.cert"][..],
            &operator[..],
            &home.controller,
        ),
        (
            TrustMode::ControllerAuthenticatesEndpoint,
            &["subcmd_eop_ep.cert"],
            &operator,
            &home.endpoint,
        ),
        (
            TrustMode::Agent,
            &["agent_xc_xc.cert"],
            &[home.controller.public_key()],
            &home.controller,
        ),
        (TrustMode::Agent, &["agent_ep_ep.cert"], &[home.endpoint.public_key()], &home.endpoint),
    ] {
        let chain: Vec<_> = names.iter().map(|name| certificate(name)).collect();
        let verified = verify_chain(&chain, anchors, mode, NOW).unwrap();
        assert_eq!(verified.leaf().unwrap().subject_key, subject.public_key());
        assert_eq!((verified.not_before, verified.not_after), (Ticks(0), YEAR_2038));
    }
}

#[test]
fn the_requests_ask_for_what_others_may_give() {
    let scratch = Scratch::new();
    let home = Home::draw(scratch.settings()).unwrap();
    home.write(open).unwrap();
    for (name, kind, delegation, key) in [
        ("exppriv_exper.csr", CertificateType::Exppriv, (false, false), &home.experimenter),
        ("delpriv_exp_exper.csr", CertificateType::Delpriv, (true, false), &home.experimenter),
        ("delpriv_rep_eop.csr", CertificateType::Delpriv, (false, true), &home.operator),
    ] {
        let pem = fs::read(home.directory().join("csrs").join(name)).unwrap();
        let request = SigningRequest::from_pem(&pem).unwrap();
        let delegates = (request.delegation.exppriv, request.delegation.reppriv);
        assert_eq!((request.certificate_type, delegates), (kind, delegation), "{name}");
        assert_eq!(request.subject_key, key.public_key(), "{name}");
    }
}

#[test]
fn each_key_is_encrypted_with_its_own_passphrase_or_not_at_all() {
    let scratch = Scratch::new();
    let home = Home::draw(scratch.settings()).unwrap();
    home.write(|name| (name == "k_xc").then(|| Zeroizing::new(b"hunter2".to_vec()))).unwrap();
    let read = |name: &str, passphrase| {
        let pem = fs::read(home.directory().join("keys").join(name)).unwrap();
        PrivateKey::from_pem(&pem, passphrase).map(|key| key.public_key())
    };
    assert_eq!(read("k_xc", None), Err(KeyError::PassphraseNeeded));
    assert_eq!(read("k_xc", Some(b"hunter2")), Ok(home.controller.public_key()));
    assert_eq!(read("k_eop", None), Ok(home.operator.public_key()));
    let public = fs::read(home.directory().join("keys/k_xc.pub")).unwrap();
    assert_eq!(PublicKey::from_pem(&public), Ok(home.controller.public_key()));
}

#[test]
fn the_configs_name_everything_by_absolute_paths() {
    let scratch = Scratch::new();
    let root = PrivateKey::generate().unwrap().public_key();
    let program = b"0xb7 0 0 0 1\n0x95 0 0 0 0\n".to_vec();
    let settings = Settings {
        snikey: Some(SniKey::parse("demo").unwrap()),
        broker: Some(Broker {
            addresses: ["[::1]:4000", "b.example"].map(|one| HostPort::parse(one).unwrap()).into(),
            root: Some(root),
        }),
        proxy_root: Some(root),
        program: Some(ProgramFile {
            name: "pass.ebpf".to_owned(),
            program: Program::from_ebpf_text(&program).unwrap(),
            contents: program,
        }),
        ..scratch.settings()
    };
    let digest = *settings.program.as_ref().unwrap().program.digest();
    let home = Home::draw(settings).unwrap();
    home.write(open).unwrap();
    let read = |name: &str| fs::read_to_string(home.directory().join(name)).unwrap();
    let at = home.directory().display();
    let passive = format!(
        "EnableExpPublication 1\n\
         BrokerAddr [::1]:4000,b.example\n\
         PubAgentCertPath {at}/certs/agent_xc_xc.cert\n\
         BrokerCertRootPath {at}/keys/broker_root.pub\n\
         PubPeriod 31536000000000000\n\
         ControllerPrivkeyPath {at}/keys/k_xc\n\
         ProgramDirPath {at}/progs\n\
         # IS_DEFAULT:SNIKEY:EXPPRIVCHAIN_PATH:TRUSTEDEOP_PATH:PUB_CHANNEL:OVERRIDE_XDESCRNVP\n\
         ExpExec 1:demo:{at}/certs/exppriv_eop_exper.cert,{at}/certs/pubcmd_exper_xc.cert:\
         {at}/keys/k_eop.pub::\n"
    );
    assert_eq!(read(CONFIG), passive);
    assert_eq!(
        read(PROXY_CONFIG),
        format!(
            "{passive}\
             EnableProxyMode 1\n\
             BacklogConnAgentCertPath {at}/certs/agent_xc_xc.cert\n\
             ProxyCertRootPath {at}/keys/proxy_root.pub\n\
             TargetBacklogConn 2\n\
             BacklogConnTimeout 2000000000\n\
             BootstrapBacklogTimeout 5000000000\n"
        )
    );
    for name in ["broker_root.pub", "proxy_root.pub"] {
        assert_eq!(PublicKey::from_pem(read(&format!("keys/{name}")).as_bytes()), Ok(root));
    }
    let exppriv = Certificate::from_pem(read("certs/exppriv_eop_exper.cert").as_bytes()).unwrap();
    assert_eq!(exppriv.limits().monitor, [digest]);
    assert!(home.directory().join("progs/pass.ebpf").exists());
}

#[test]
fn without_a_root_the_config_says_that_nothing_is_checked_and_why() {
    let scratch = Scratch::new();
    let address = HostPort::parse("pktbrokr.caida.org").unwrap();
    let settings = Settings {
        broker: Some(Broker { addresses: vec![address], root: None }),
        ..scratch.settings()
    };
    let home = Home::draw(settings).unwrap();
    home.write(open).unwrap();
    let config = fs::read_to_string(home.directory().join(PROXY_CONFIG)).unwrap();
    let set = |key: &str| config.lines().any(|line| line.starts_with(key));
    assert!(set("BrokerAddr pktbrokr.caida.org") && set("EnableExpPublication 1"));
    assert!(!set("BrokerCertRootPath") && set("# BrokerCertRootPath is left out"));
    assert!(!set("ProxyCertRootPath") && set("# ProxyCertRootPath is left out"));

    let home = Home::draw(Settings { directory: scratch.0.join("b"), ..scratch.settings() });
    let home = home.unwrap();
    home.write(open).unwrap();
    let config = fs::read_to_string(home.directory().join(CONFIG)).unwrap();
    assert!(config.starts_with("EnableExpPublication 0\nControllerPrivkeyPath "), "{config}");
}

#[test]
fn the_public_brokers_root_is_named_by_its_own_file() {
    let scratch = Scratch::new();
    let address = HostPort::parse(caida::BROKER).unwrap();
    let broker = Broker { addresses: vec![address], root: Some(caida::broker_operator()) };
    let home = Home::draw(Settings { broker: Some(broker), ..scratch.settings() }).unwrap();
    home.write(open).unwrap();
    let at = home.directory().join(KEYS);
    let config = fs::read_to_string(home.directory().join(CONFIG)).unwrap();
    let line = format!("\nBrokerCertRootPath {}/caida_k_bop.pub\n", at.display());
    assert!(config.contains(&line), "{config}");
    assert!(!at.join(BROKER_ROOT).exists());
    let key = PublicKey::from_pem(&fs::read(at.join("caida_k_bop.pub")).unwrap());
    assert_eq!(key, Ok(caida::broker_operator()));
}

#[test]
fn nothing_is_ever_overwritten() {
    let scratch = Scratch::new();
    let home = Home::draw(scratch.settings()).unwrap();
    let place = home.directory().to_owned();
    let occupied = |result| assert!(matches!(result, Err(HomeError::Occupied(_))), "{result:?}");

    fs::write(&place, b"a file").unwrap();
    occupied(home.write(open));
    occupied(vacant_place(&place).map(drop));
    fs::remove_file(&place).unwrap();
    std::os::unix::fs::symlink(scratch.0.join("nowhere"), &place).unwrap();
    occupied(home.write(open));
    fs::remove_file(&place).unwrap();

    fs::create_dir(&place).unwrap();
    assert_eq!(vacant_place(&place).unwrap(), place);
    fs::write(place.join("mine"), b"").unwrap();
    occupied(home.write(open));
    assert_eq!(
        (names(&place), scratch.names()),
        (vec!["mine".to_owned()], vec!["home".to_owned()])
    );
    fs::remove_file(place.join("mine")).unwrap();

    // An empty directory is no loss.
    home.write(open).unwrap();
    let before = fs::read(place.join("keys/k_xc")).unwrap();
    occupied(Home::draw(scratch.settings()).unwrap().write(open));
    assert_eq!(fs::read(place.join("keys/k_xc")).unwrap(), before);
    assert_eq!(scratch.names(), ["home"]);
}

#[test]
fn a_home_that_fails_half_way_leaves_nothing() {
    let scratch = Scratch::new();
    let program = Program::from_wasm(b"").unwrap();
    // A file in a folder that is not made: the programs come after the keys.
    let file = ProgramFile { name: "missing/x.wasm".to_owned(), contents: Vec::new(), program };
    let settings = Settings { program: Some(file), ..scratch.settings() };
    let error = Home::draw(settings).unwrap().write(open).unwrap_err();
    assert!(matches!(&error, HomeError::File { path, .. } if path.ends_with("x.wasm")), "{error}");
    assert!(scratch.names().is_empty(), "{:?}", scratch.names());
}

#[test]
fn places_that_a_config_cannot_name_are_refused() {
    let scratch = Scratch::new();
    for name in ["a,b", "a:b", "a\nb", "a ", "a\x1b"] {
        let refused = vacant_place(&scratch.0.join(name));
        assert!(matches!(refused, Err(HomeError::Inexpressible(_))), "{name:?}");
    }
    assert_eq!(vacant_place(&scratch.0.join("a b")).unwrap(), scratch.0.join("a b"));
    for path in ["..", "/", ""] {
        assert!(matches!(vacant_place(Path::new(path)), Err(HomeError::Nameless(_))), "{path:?}");
    }
    assert!(matches!(vacant_place(&scratch.0.join("x/y")), Err(HomeError::File { .. })));
}
