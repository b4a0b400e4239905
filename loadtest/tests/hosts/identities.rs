//! `pktfleet fleet --identities`: the same endpoints again, however the fleet has ended.

use std::collections::BTreeSet;

use super::*;

/// The fleet of `eop` with so many endpoints, which are kept in `kept`.
fn words(count: &str, broker: SocketAddr) -> Vec<String> {
    let broker = broker.to_string();
    let words = ["fleet", "--endpoints", count, "--subscribe", &broker, "--key", "@eop"];
    words.iter().chain(&["--identities", "@kept"]).map(|word| (*word).to_owned()).collect()
}

impl Scene {
    fn kept_fleet(&self, count: &str, broker: SocketAddr) -> Running {
        let words = words(count, broker);
        Running::start(self.pktfleet(&words.iter().map(String::as_str).collect::<Vec<_>>()))
    }

    /// The code with which a fleet of two that cannot begin ends, and what it says.
    fn refused_fleet(&self) -> (Option<i32>, String) {
        let words = words("2", SocketAddr::from(([127, 0, 0, 1], 1)));
        let words = words.iter().map(String::as_str).collect::<Vec<_>>();
        let Output { status, stderr, .. } = self.pktfleet(&words).output().unwrap();
        let log = String::from_utf8(stderr).unwrap();
        debug_forms::assert_no_debug_form(&log);
        (status.code(), log)
    }

    fn mode(&self, name: &str) -> u32 {
        fs::metadata(self.path(name)).unwrap().permissions().mode() & 0o777
    }
}

/// The keys of all endpoints that are kept there, in their order.
pub(super) fn keys_in(identities: &Path) -> Vec<String> {
    let pem = fs::read(identities.join("identities.pem")).unwrap();
    let certificates = Certificate::list_from_pem(&pem).unwrap();
    let is_agent = |one: &&Certificate| one.certificate_type == CertificateType::Agent;
    let agents = certificates.iter().filter(is_agent);
    agents.map(|agent| agent.subject_key_id.to_string()).collect()
}

#[test]
fn a_fleet_that_was_killed_has_the_same_endpoints_again_and_new_ones_beside_them() {
    let scene = Scene::new("kept");
    let mut broker = scene.broker_with(&["-v"]);
    let subscribe = broker.address("subscribers");
    let mut all = Vec::new();
    let kept = scene.folder.join("kept");
    for (count, told) in [
        ("3", "identities: 0 were kept, 3 are new"),
        ("5", "identities: 3 were kept, 2 are new"),
        ("2", "identities: 2 were kept, 0 are new"),
    ] {
        // As a kill in the middle of a write leaves it.
        fs::create_dir_all(&kept).unwrap();
        fs::write(kept.join("identities.new"), "-----BEGIN PRIVATE KEY-----\nMC4CAQ").unwrap();
        let mut fleet = scene.kept_fleet(count, subscribe);
        fleet.wait_for(told);
        fleet.wait_for(&format!("{count} of {count} endpoints are subscribed"));
        fleet.child.kill().unwrap();
        let keys = keys_in(&kept);
        assert!(keys.starts_with(&all), "those of before stay as they are: {keys:?}");
        all = keys;
    }
    assert_eq!(all.len(), 5);
    assert_eq!(scene.mode("kept/identities.pem"), 0o600);
    // What the broker saw of them.
    let seen = broker.end(Signal::SIGINT);
    let seen = seen.iter().filter_map(|line| Some(line.split_once(" has the key ")?.1));
    let mut times: Vec<_> =
        seen.map(|key| all.iter().position(|one| one.starts_with(key)).unwrap()).collect();
    times.sort_unstable();
    assert_eq!(times, [0, 0, 0, 1, 1, 1, 2, 2, 3, 4], "endpoints, by their numbers");
}

#[test]
fn a_directory_that_is_made_for_identities_is_its_owners_alone() {
    let scene = Scene::new("kept-mode");
    let mut broker = scene.broker();
    let mut fleet = scene.kept_fleet("1", broker.address("subscribers"));
    fleet.wait_for("1 of 1 endpoints are subscribed");
    assert_eq!((scene.mode("kept"), scene.mode("kept/identities.pem")), (0o700, 0o600));
    let (code, said) = scene.refused_fleet();
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("another fleet runs with these"), "{said}");
    fleet.end(Signal::SIGINT);
}

#[test]
fn identities_of_others_are_refused_with_one_error_and_left_as_they_are() {
    let scene = Scene::new("kept-foreign");
    fs::create_dir(scene.folder.join("kept")).unwrap();
    let read = |name| fs::read_to_string(scene.path(name)).unwrap();
    scene.endpoint("one");
    let own = read("one") + &read("one.agent") + &read("one.subcmd");
    let of_other_operator = read("ep") + &read("agent_ep.cert") + &read("subcmd_del_ep.cert");
    for (contents, mode, problem) in [
        (String::new(), 0o600, "does not hold a key and two certificates for each endpoint"),
        ("hello\n".to_owned(), 0o600, "does not hold a key and two certificates"),
        (own[..own.len() / 2].to_owned(), 0o600, "does not hold a key and two certificates"),
        (own.clone() + &own.replace("BEGIN PRIVATE", "BEGIN PUBLIC"), 0o600, "endpoint 2: "),
        (of_other_operator, 0o600, "endpoint 1: certificate 0 was signed by "),
        (own.clone(), 0o644, "everybody may read or write it (mode 0644)"),
    ] {
        scene.write("kept/identities.pem", contents.as_bytes(), mode);
        let (code, said) = scene.refused_fleet();
        assert_eq!(code, Some(3), "{said}");
        assert!(said.contains("kept/identities.pem: ") && said.contains(problem), "{said}");
        let errors: BTreeSet<_> = said.lines().filter(|line| line.contains("ERROR")).collect();
        assert_eq!(errors.len(), 1, "{said}");
        assert_eq!(read("kept/identities.pem"), contents);
    }
    scene.write("file", b"", 0o600);
    fs::remove_dir_all(scene.folder.join("kept")).unwrap();
    fs::rename(scene.path("file"), scene.path("kept")).unwrap();
    let (code, said) = scene.refused_fleet();
    assert_eq!(code, Some(6), "{said}");
    assert!(said.contains("kept: "), "{said}");
}

#[test]
fn a_terminal_shows_how_many_of_a_fleet_are_subscribed_below_its_log() {
    let scene = Scene::new("fleet-terminal");
    let mut broker = scene.broker();
    let subscribe = broker.address("subscribers").to_string();
    let words = ["fleet", "--endpoints", "2", "--subscribe", &subscribe, "--key", "@eop"];
    let words = [&words[..], &["--broker-root", "@bop.pub", "--address", "127.2.0.1"]].concat();
    let pty = nix::pty::openpty(None, None).unwrap();
    let mut command = scene.pktfleet(&words);
    let mut child = command.env("TERM", "xterm").stderr(pty.slave).spawn().unwrap();
    drop(command);
    let mut screen = fs::File::from(pty.master);
    let (mut shown, mut bytes, mut is_ended) = (String::new(), [0; 4096], false);
    // The kernel reports the end of the other side as an error.
    while let Ok(len @ 1..) = screen.read(&mut bytes) {
        shown.push_str(str::from_utf8(&bytes[..len]).unwrap());
        if !is_ended && shown.contains("\r\x1b[K2 of 2 endpoints are subscribed, after ") {
            is_ended = true;
            kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
        }
    }
    assert_eq!(child.wait().unwrap().code(), Some(0), "{shown}");
    assert!(is_ended && shown.trim_end().ends_with("ending, as asked by a signal"), "{shown:?}");
    broker.end(Signal::SIGINT);
}
