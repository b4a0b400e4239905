//! A mlet in C without a library, which knows the original's contract, and how it is asked about its arguments.

use super::*;

/// Its source, and what is compiled from it.
fn compiled(directory: &Path) -> PathBuf {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/mlet/c/connect.c");
    let program = directory.join("connect");
    let mut command = std::process::Command::new("cc");
    command.args(["-std=c99", "-D_POSIX_C_SOURCE=200809L", "-Wall", "-Wextra", "-Werror", "-O2"]);
    let ended = command.arg("-o").arg(&program).arg(source).output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    program
}

/// A directory that is gone with the value.
struct Place(PathBuf);

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_mlet_in_c_does_not_wait_for_ever_for_an_endpoint_that_says_nothing() {
    let place = Place(std::env::temp_dir().join(format!("c-mlet-late-{}", std::process::id())));
    std::fs::create_dir(&place.0).unwrap();
    let (session, _silent) = UnixStream::pair().unwrap();
    let mut command = std::process::Command::new(compiled(&place.0));
    command.args(["192.0.2.7", "7", "1"]).env("EPADDR", "192.0.2.9").stdin(OwnedFd::from(session));
    let ended = command.output().unwrap();
    let told = String::from_utf8(ended.stderr).unwrap();
    assert_eq!((ended.status.code(), &*told), (Some(1), "connect: it took too long\n"));
}

#[test]
fn a_mlet_in_c_judges_its_arguments_before_a_run() {
    let place = Place(std::env::temp_dir().join(format!("c-mlet-check-{}", std::process::id())));
    std::fs::create_dir(&place.0).unwrap();
    let program = compiled(&place.0);
    for (port, code, answer) in [("1", 0, "arguments ok\n"), ("70000", 2, "")] {
        let mut command = std::process::Command::new(&program);
        command.args(["--check-args", "127.17.0.1", port]).stdin(std::process::Stdio::null());
        let ended = command.env_clear().output().unwrap();
        let printed = String::from_utf8(ended.stdout).unwrap();
        assert_eq!((ended.status.code(), &*printed), (Some(code), answer), "{port}");
        assert_eq!(ended.stderr.is_empty(), code == 0, "{port}");
    }
}

#[tokio::test]
async fn a_mlet_in_c_without_a_library_runs_with_pipes_and_without() {
    let place = Place(std::env::temp_dir().join(format!("c-mlet-{}", std::process::id())));
    std::fs::create_dir(&place.0).unwrap();
    let program = compiled(&place.0);
    let listener = TcpListener::bind(TARGET).await.unwrap();
    let server = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut client, peer) = listener.accept().await.unwrap();
            client.write_all(format!("hello {}\n", peer.ip()).as_bytes()).await.unwrap();
        }
    });
    let (address, port) = (server.ip().to_string(), server.port().to_string());
    // Pipes are offered to it as well, which it does not know of.
    for options in [&[][..], &PIPES] {
        let (home, output) = run(2, options, &program, &[&address, &port]).await;
        assert_eq!(output.len(), 2, "{output:?}");
        for identity in home.identities() {
            let own = identity.address.to_string();
            let mut words = output.iter().map(|line| line.split(' ').collect::<Vec<_>>());
            let words = words.find(|words| words[0] == own).unwrap();
            assert!(words[1].parse::<u64>().unwrap() < 60_000_000_000, "{output:?}");
            assert_eq!(words[2..], ["hello", &own], "{output:?}");
        }
    }
}
