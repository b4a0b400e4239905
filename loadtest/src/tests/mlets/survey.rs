//! The mlets of docs/mlets.md: names looked up and servers connected through every endpoint.

use serde_json::Value;

use super::*;

const NAMES: [&str; 3] = ["one.example", "two.example", "missing.example"];

/// A DNS server for names that end in a certain way: 192.0.2.1, 192.0.2.2, and none.
async fn dns_server() -> String {
    let server = UdpSocket::bind(TARGET).await.unwrap();
    let address = server.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let mut data = [0; 512];
        loop {
            let (len, peer) = server.recv_from(&mut data).await.unwrap();
            let mut reply = data[..len].to_vec();
            let last = match reply[13] {
                b'o' => Some(1),
                b't' => Some(2),
                _ => None,
            };
            reply[2] = 0x81;
            match last {
                None => reply[3] = 3,
                Some(last) => {
                    reply[7] = 1;
                    reply.extend(b"\xc0\x0c\0\x01\0\x01\0\0\0\0\0\x04\xc0\0\x02");
                    reply.push(last);
                }
            }
            server.send_to(&reply, peer).await.unwrap();
        }
    });
    address
}

/// Two servers, and a port where there is none.
async fn servers() -> (Vec<TcpListener>, [String; 3]) {
    let one = TcpListener::bind(TARGET).await.unwrap();
    let two = TcpListener::bind(TARGET).await.unwrap();
    let free = TcpListener::bind(TARGET).await.unwrap();
    let addresses = [&one, &two, &free].map(|one| one.local_addr().unwrap().to_string());
    drop(free);
    (vec![one, two], addresses)
}

async fn surveys(mlet: &Path) {
    let before = now_ms();
    let (listening, servers) = servers().await;
    let dns = dns_server().await;
    let mut arguments = vec![dns.as_str()];
    arguments.extend(NAMES);
    arguments.extend(servers.iter().map(String::as_str));
    let (home, output) = run(2, &[], mlet, &arguments).await;
    drop(listening);
    let lines: Vec<Value> = output.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 12, "{output:?}");
    for identity in home.identities() {
        let key = identity.key_id().to_string();
        let own = lines.iter().filter(|line| line["key"] == key.as_str());
        let find = |member: &str, value: &str| {
            let mut found = own.clone().filter(|line| line[member] == value);
            let one = found.next().unwrap_or_else(|| panic!("{value} is missing: {output:?}"));
            assert!(found.next().is_none(), "{value} is there twice: {output:?}");
            assert!(one["session"].is_u64() && one["time"].is_string(), "{one}");
            one
        };
        for (name, address) in [(NAMES[0], "192.0.2.1"), (NAMES[1], "192.0.2.2")] {
            let line = find("name", name);
            assert_eq!(line["addresses"][0], address, "{line}");
            assert!(line["ms"].as_f64().unwrap() > 0.0, "{line}");
        }
        assert_eq!(find("name", NAMES[2])["error"], "look_up_failed");
        for server in &servers[..2] {
            let line = find("server", server);
            let began_ms = line["began_ns"].as_u64().unwrap() / 1_000_000;
            assert!((before..=now_ms()).contains(&began_ms), "{line}");
            assert!(line["ms"].as_f64().unwrap() > 0.0, "{line}");
            assert!(line["uncertainty_ms"].as_f64().unwrap() >= 0.0, "{line}");
        }
        assert_eq!(find("server", &servers[2])["error"], "refused");
    }
}

/// More servers than an endpoint has sockets, and what is none.
async fn surveys_all(mlet: &Path) {
    let server = TcpListener::bind(TARGET).await.unwrap();
    let address = server.local_addr().unwrap().to_string();
    tokio::spawn(async move { while server.accept().await.is_ok() {} });
    let bad = ["127.77.0.3:http", "127.77.0.3:0"];
    let mut arguments = vec![address.as_str()];
    arguments.extend(bad);
    arguments.extend([address.as_str(); 260]);
    let (_home, output) = run(1, &[], mlet, &arguments).await;
    let lines: Vec<Value> = output.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |server| lines.iter().filter(move |line| line["server"] == server);
    for server in bad {
        assert!(of(server).all(|line| line["error"].is_string()), "{output:?}");
    }
    let counts = [&address, bad[0], bad[1]].map(|server| of(server).count());
    assert_eq!((counts, lines.len()), ([260, 1, 1], 262), "{output:?}");
    // On a machine that is busy for 10 s some are given up, and none for want of a socket.
    let (stand, failed): (Vec<_>, Vec<_>) = of(&address).partition(|line| line["ms"].is_f64());
    assert!(
        !stand.is_empty() && failed.iter().all(|line| line["error"] == "silence"),
        "{failed:?}"
    );
}

/// Without an endpoint.
fn judges(mlet: &Path) {
    for (words, is_right) in [(&["192.0.2.53", "a:b"][..], true), (&[], false), (&["a:b"], false)] {
        let mut command = std::process::Command::new(mlet);
        let ended = command.arg("--check-args").args(words).output().unwrap();
        assert_eq!(ended.status.code(), Some(if is_right { 0 } else { 2 }), "{ended:?}");
        assert_eq!(ended.stdout == b"arguments ok\n", is_right, "{ended:?}");
    }
}

/// At an endpoint that has left before.
fn fails_without_a_session(mlet: &Path) {
    let (session, endpoint) = UnixStream::pair().unwrap();
    drop(endpoint);
    let mut command = std::process::Command::new(mlet);
    command.args(["192.0.2.53", "a.example", "192.0.2.7:80"]).env("EPADDR", "192.0.2.9");
    let ended = command.stdin(OwnedFd::from(session)).output().unwrap();
    let printed = String::from_utf8(ended.stdout).unwrap();
    let lines: Vec<Value> =
        printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().all(|line| line["error"] == "left"), "{printed}");
    assert_eq!((lines.len(), ended.status.code()), (2, Some(1)), "{printed}");
}

#[tokio::test]
async fn the_rust_mlet_of_the_documentation_takes_any_number_of_servers_and_says_what_it_cannot_do()
{
    let mlet = program("examples/survey");
    surveys_all(&mlet).await;
    judges(&mlet);
    fails_without_a_session(&mlet);
}

#[tokio::test]
#[ignore = "needs python3"]
async fn the_python_mlet_of_the_documentation_takes_any_number_of_servers_and_says_what_it_cannot_do()
 {
    let mlet = script("survey.py");
    surveys_all(Path::new(&mlet)).await;
    judges(Path::new(&mlet));
    fails_without_a_session(Path::new(&mlet));
}

#[tokio::test]
async fn the_rust_mlet_of_the_documentation_surveys_through_every_endpoint() {
    surveys(&program("examples/survey")).await;
}

#[tokio::test]
#[ignore = "needs python3"]
async fn the_python_mlet_of_the_documentation_surveys_through_every_endpoint() {
    surveys(Path::new(&script("survey.py"))).await;
}
