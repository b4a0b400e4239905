//! What a campaign over several machines is made of: its mlet, and the command line and the credentials of each program.
//!
//! Not here: what is done with them (`shared.rs`).

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;

use nix::fcntl::{Flock, FlockArg};

use super::network::{Machine, MletProcess};
use super::postgres::ServerCertificate;
use super::*;

pub(super) const PROXY_ROLE: [&str; 2] = ["controllers", "endpoints"];
/// A mlet says whom it measures, takes its time, and speaks to its endpoint only when it is done: it reads the clock. Three of
/// ten take as long as `held` is locked, so that they are met by whatever ends a manager. Each locks the file of its endpoint
/// in `one`, which the kernel unlocks when all processes of the mlet have ended, however they end; who finds it locked tells
/// so in `met`: when, whom, and on which machines the two run.
const MLET: &[u8] = b"#!/bin/sh
echo \"$PKTLAB_ENDPOINT_KEY\"
read -r host </proc/sys/kernel/hostname
exec 9>>one/$PKTLAB_ENDPOINT_KEY
if flock --nonblock 9; then
    echo $host >one/$PKTLAB_ENDPOINT_KEY
else
    read -r other <one/$PKTLAB_ENDPOINT_KEY
    echo $(date --utc +%FT%T.%6NZ) $PKTLAB_ENDPOINT_KEY $host $other >>met
fi
case $PKTLAB_SESSION in
*[147]) flock --shared held true ;;
*) sleep 0.$((PKTLAB_SESSION % 8 + 2)) ;;
esac
printf '\\050\\000\\000\\006\\020\\001\\000\\000\\000\\010' >&0
exec head -c 16 >/dev/null
";

/// Whether a mlet goes on as long as `held` is locked.
pub(super) fn is_long(mlet: &MletProcess) -> bool {
    matches!(mlet.session % 10, 1 | 4 | 7)
}

/// Puts down the mlet and what it needs: the lock at which long ones wait.
pub(super) fn mlet(scene: &Scene) -> Flock<File> {
    scene.write("measure", MLET, 0o755);
    fs::create_dir(scene.path("one")).unwrap();
    Flock::lock(File::create(scene.path("held")).unwrap(), FlockArg::LockExclusive).unwrap()
}

pub(super) fn pktxpmgr(scene: &Scene) -> Command {
    let program = Path::new(PKTFLEET).with_file_name("pktxpmgr");
    assert!(program.exists(), "{} is missing: run `cargo build` first", program.display());
    let mut command = Command::new(program);
    command.current_dir(&scene.folder);
    command
}

/// A key that signs the agent certificates of managers, in the files `group` and `group.pub`.
pub(super) fn group(scene: &Scene) {
    scene.write("group.pub", scene.new_key("group").to_pem().as_bytes(), 0o600);
}

/// The credentials of a manager, and what it is configured with, in NAME.conf: how its key begins.
pub(super) fn manager(scene: &Scene, name: &str, config: &str) -> String {
    let [private, agent, pubcmd] = ["key", "agent", "pubcmd"].map(|kind| format!("{name}.{kind}"));
    let key = scene.new_key(&private);
    scene.certify(&agent, CertificateType::Agent, (&key, "group"), Ticks::MAX);
    scene.certify(&pubcmd, CertificateType::Pubcmd, (&key, "exper"), Ticks::MAX);
    let config = config.replace("/agent_xc.cert", &format!("/{agent}"));
    let config = config.replace("/pubcmd_exper_xc.cert", &format!("/{pubcmd}"));
    let config = config.replace("/xc\n", &format!("/{private}\n"));
    scene.write(&format!("{name}.conf"), config.as_bytes(), 0o600);
    key.key_id().short()
}

/// At which nobody registers but who has a certificate of the group's.
pub(super) fn proxy(scene: &Scene, site: &Machine, at: [SocketAddr; 2]) -> Running {
    let [controllers, endpoints] = at.map(|address| address.to_string());
    let words = ["proxy", "--key", "@prx", "--agent", "@agent_prx.cert"];
    let at = ["--controllers", &controllers, "--endpoints", &endpoints];
    let whose = ["--client-root", "@group.pub", "--require-client-certificate"];
    let words = [&words[..], &at, &whose, &["--per-source-percent", "100"]].concat();
    let command = scene.pktfleet(&words);
    site.within(|| Running::start(command))
}

pub(super) fn fleet(scene: &Scene, site: &Machine, count: usize, broker: SocketAddr) -> Running {
    let (count, broker) = (count.to_string(), broker.to_string());
    let words = ["fleet", "-v", "--endpoints", &count, "--subscribe", &broker, "--key", "@eop"];
    let own = ["--identities", "@kept", "--address", "127.2.0.1", "--attributes", "hostid=EP{};"];
    let command = scene.pktfleet(&[&words[..], &own].concat());
    site.within(|| Running::start(command))
}

/// One for a database at this address, in `database.pem` too.
pub(super) fn certificate(scene: &Scene, address: std::net::Ipv4Addr) -> ServerCertificate {
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=database"]);
    openssl.args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    openssl.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
    openssl.args(["-addext", &format!("subjectAltName=IP:{address}")]);
    openssl.args(["-keyout", "database.key", "-out", "database.pem"]);
    let made = openssl.current_dir(&scene.folder).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let read = |name: &str| fs::read(scene.path(name)).unwrap();
    ServerCertificate { certificate: read("database.pem"), key: read("database.key") }
}

#[test]
fn a_mlet_tells_of_another_of_its_endpoint_that_has_not_ended() {
    let scene = Scene::new("met");
    let _held = mlet(&scene);
    let begin = |key: &str, session: &str| {
        let (own, endpoint) = UnixStream::pair().unwrap();
        let mut command = Command::new("./measure");
        command.current_dir(&scene.folder).process_group(0);
        command.env("PKTLAB_ENDPOINT_KEY", key).env("PKTLAB_SESSION", session);
        command.stdin(OwnedFd::from(own)).stdout(Stdio::null());
        (command.spawn().unwrap(), endpoint)
    };
    let measure = |key: &str| {
        let (mut short, mut endpoint) = begin(key, "2");
        endpoint.read_exact(&mut [0; 10]).unwrap();
        drop(endpoint);
        assert!(short.wait().unwrap().success());
        fs::read_to_string(scene.path("met")).unwrap_or_default()
    };
    let (mut long, _endpoint) = begin("ab", "1");
    let is_there = || fs::metadata(scene.path("one/ab")).is_ok_and(|file| file.len() > 0);
    await_that("the long one has begun", is_there);
    assert_eq!(measure("cd"), "", "another endpoint's");
    let met = measure("ab");
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let host = host.trim_end();
    assert!(met.ends_with(&format!("Z ab {host} {host}\n")) && met.lines().count() == 1, "{met:?}");
    kill(Pid::from_raw(-i32::try_from(long.id()).unwrap()), Signal::SIGKILL).unwrap();
    long.wait().unwrap();
    let lock =
        || Flock::lock(File::open(scene.path("one/ab")).unwrap(), FlockArg::LockSharedNonblock);
    await_that("none of its processes is left", || lock().is_ok());
    assert_eq!(measure("ab"), met, "the other has ended");
}
