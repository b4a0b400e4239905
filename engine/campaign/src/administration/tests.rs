//! Every call against a server that lets us in and says nothing more. Time is that of a runtime whose clock jumps when
//! nothing else is to be done.

use std::io::{Read as _, Write as _};
use std::ops::ControlFlow;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use super::owner::while_it_answers;
use super::*;
use crate::access::Access;
use crate::asks::State;
use crate::plan::Plan;

struct SilentServer {
    folder: PathBuf,
}

impl SilentServer {
    fn new() -> Self {
        let name = format!("campaign-silent-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir(&folder).expect("a new folder");
        let listener = UnixListener::bind(folder.join(".s.PGSQL.5432")).expect("a socket");
        std::thread::spawn(move || {
            let (mut client, _) = listener.accept().expect("a client");
            let startup = message(&mut client, 0);
            assert!(startup.starts_with(&[0, 3, 0, 0]), "version 3.0");
            // Authentication is done; ready for statements.
            client.write_all(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I").expect("it listens");
            let settings = message(&mut client, 1);
            assert!(settings.starts_with(b"QSET statement_timeout"));
            client.write_all(b"C\0\0\0\x08SET\0Z\0\0\0\x05I").expect("it listens");
            // From now on it only listens, to the end of the connection.
            std::io::copy(&mut client, &mut std::io::sink())
        });
        Self { folder }
    }

    fn access(&self) -> Access {
        let address = format!("postgres://p@/d?host={}#silent", self.folder.display());
        let address = address.parse().expect("a good address");
        Access { address, password: None, roots: None, certificate: None }
    }
}

impl Drop for SilentServer {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Its type, in so many bytes, and what it says.
fn message(client: &mut UnixStream, type_len_bytes: usize) -> Vec<u8> {
    let mut head = vec![0; type_len_bytes + 4];
    client.read_exact(&mut head).expect("a head");
    let len_bytes = u32::from_be_bytes(head.split_off(type_len_bytes).try_into().expect("four"));
    let mut body = vec![0; usize::try_from(len_bytes - 4).expect("small")];
    client.read_exact(&mut body).expect("a body");
    [head, body].concat()
}

fn new_campaign() -> NewCampaign {
    let descriptor = Some(String::new());
    let plan =
        Plan { mlet_digest: [0; 32], argv: Vec::new(), descriptor, snikeys: vec!["a".to_owned()] };
    let lease = Duration::from_secs(60);
    NewCampaign {
        plan,
        n: None,
        tries: 1,
        lease,
        lost: Lost::Again,
        waves: Vec::new(),
        created: None,
    }
}

#[test]
fn no_call_waits_for_ever_for_a_server_that_says_nothing() {
    type Call = fn(&mut Administration) -> Result<(), AdministrationError>;
    let calls: [(&str, Call); 10] = [
        ("create", |owner| owner.create(&new_campaign())),
        ("status", |owner| owner.status().map(drop)),
        ("stop", |owner| owner.stop().map(|_: State| ())),
        ("halt", |owner| owner.halt().map(|_: State| ())),
        ("forget", Administration::forget),
        ("import", |owner| owner.import([]).map(drop)),
        ("origin", |owner| owner.origin().map(drop)),
        ("accepted", |owner| owner.accepted(drop)),
        ("results", |owner| owner.results(false, |_| ControlFlow::Continue(()))),
        ("follow", |owner| owner.results(true, |_| ControlFlow::Continue(()))),
    ];
    let (tell, told) = channel();
    let (tell_wait, waits) = channel();
    let server = SilentServer::new();
    let access = server.access();
    std::thread::spawn(move || {
        let mut owner = Administration::open(&access).expect("it is let in");
        owner.jump_in_time();
        owner.tell_waits(move |text| drop(tell_wait.send(text.to_owned())));
        for (name, call) in calls {
            tell.send((name, call(&mut owner))).expect("the test goes on");
        }
    });
    for (name, _) in calls {
        let (of, ended) = told.recv_timeout(Duration::from_secs(60)).expect(name);
        let error = ended.expect_err(name);
        let is_silence = matches!(error, AdministrationError::Silent(_));
        assert!(of == name && is_silence, "{name}: {error}");
    }
    let waits = waits.iter().collect::<Vec<_>>();
    assert_eq!(waits.len(), calls.len(), "each is told once: {waits:?}");
    let is_told = |wait: &String| wait.starts_with("the database has not answered for 5 s; ");
    assert!(waits.iter().all(is_told), "{waits:?}");
}

#[test]
fn what_goes_on_is_waited_for_however_long_it_takes() {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().expect("a runtime");
    let second = Duration::from_secs(1);
    let going_on = async {
        for _ in 0..100 {
            tokio::time::sleep(second).await;
        }
        Ok("done")
    };
    let done = runtime.block_on(while_it_answers(second * 4, &Arc::default(), going_on));
    assert_eq!(done, Ok("done"));
}
