//! Connections to any number of servers, with no more sockets than there are numbers for; and whose news is whose.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use super::*;

const LONG: Duration = Duration::from_secs(60);
/// Of a server that is never heard of.
const SILENT: u16 = 9003;

/// Which sockets are open, and how many ever were at once.
#[derive(Debug, Default)]
struct Sockets {
    open: BTreeSet<u8>,
    most: usize,
    /// Those that take their time to close, and for how many requests to open them they do.
    closing: BTreeMap<u8, usize>,
    /// How often one was to be opened that was in use.
    refused: usize,
    /// In the order in which they were opened.
    opened: Vec<u8>,
}

/// A client of an endpoint whose connections stand at once, but for those to [`SILENT`].
fn connecting() -> (Client, Arc<Mutex<Sockets>>) {
    let sockets = Arc::new(Mutex::new(Sockets::default()));
    let watched = sockets.clone();
    let session = scripted_endpoint::start(move |request, answers| {
        let mut sockets = watched.lock().unwrap();
        match *request {
            Message::Nopen { sktid, .. } if sockets.closing.contains_key(&sktid) => {
                let left = sockets.closing[&sktid] - 1;
                sockets.closing.insert(sktid, left);
                sockets.closing.retain(|_, left| *left > 0);
                sockets.refused += 1;
                Message::Result(Outcome::Status(Status::ESKTINUSE)).encode(answers).unwrap();
            }
            Message::Nopen { sktid, open: Open::TcpConnect { remote, .. }, .. } => {
                assert!(sockets.open.insert(sktid), "{sktid} is open already");
                sockets.opened.push(sktid);
                sockets.most = sockets.most.max(sockets.open.len());
                OK.encode(answers).unwrap();
                if remote.port() != SILENT {
                    nstat(sktid, StateChange::TcpEstablished { remote }).encode(answers).unwrap();
                }
            }
            Message::Nclose { sktid } => {
                assert!(sockets.open.remove(&sktid), "{sktid} is not open");
                OK.encode(answers).unwrap();
            }
            _ => original(request, answers),
        }
    });
    (Client::new(session, LONG).unwrap(), sockets)
}

#[test]
fn any_number_of_servers_is_connected_to_and_what_is_none_is_told() {
    let (mut client, sockets) = connecting();
    let bad = [("127.0.0.1:http", "unresolved"), ("127.0.0.1:0", "bad_request")];
    let mut servers: Vec<String> = (0..600).map(|port| format!("127.0.0.1:{}", 1 + port)).collect();
    servers.extend(bad.map(|(server, _)| server.to_owned()));
    servers.push("127.0.0.1".to_owned());
    let mut told = Vec::new();
    let each = client.connect_each(LONG, 1..=255, (&servers, 80), |server, made| {
        let remote = made.as_ref().map(|made| made.remote.to_string());
        told.push((server.clone(), remote.map_err(ClientError::word)));
        Ok::<(), ()>(())
    });
    each.unwrap();
    let expected = servers.iter().map(|server| {
        let word = bad.iter().find(|(bad, _)| bad == server).map(|(_, word)| *word);
        let stands = if server.contains(':') { server.clone() } else { format!("{server}:80") };
        (server.clone(), word.map_or(Ok(stands), Err))
    });
    told.sort();
    let mut expected: Vec<_> = expected.collect();
    expected.sort();
    assert_eq!(told, expected);
    client.clock().unwrap();
    let sockets = sockets.lock().unwrap();
    assert!(sockets.open.is_empty() && sockets.most == 255, "{sockets:?}");
}

#[test]
fn who_is_told_can_end_it_and_what_was_begun_before_goes_on() {
    let (mut client, sockets) = connecting();
    client.begin_connect(LONG, 9, REMOTE, 4096);
    let silent = format!("127.0.0.1:{SILENT}");
    let servers = [&silent, "127.0.0.1:1", &silent];
    let ended = client.connect_each(LONG, 1..=3, (&servers, 80), |server, _| Err(*server));
    assert_eq!(ended, Err("127.0.0.1:1"));
    client.clock().unwrap();
    assert_eq!(sockets.lock().unwrap().open, BTreeSet::from([9]));
    assert_eq!(client.next_connection().unwrap().1.unwrap().remote, REMOTE);
}

/// What became of each of so many servers: `None` if its connection stood, or why it did not.
fn connect(
    client: &mut Client,
    timeout: Duration,
    sktids: RangeInclusive<u8>,
    servers: usize,
) -> Vec<Option<String>> {
    let servers: Vec<String> = (1..=servers).map(|port| format!("127.0.0.1:{port}")).collect();
    let mut told = BTreeMap::new();
    let each = client.connect_each(timeout, sktids, (&servers, 80), |server, made| {
        let why = made.as_ref().err().map(|error| format!("{}: {error}", error.word()));
        assert_eq!(told.insert(server.clone(), why), None, "{server} was told of before");
        Ok::<(), ()>(())
    });
    each.unwrap();
    assert_eq!(told.len(), servers.len());
    told.into_values().collect()
}

#[test]
fn a_server_for_which_there_is_no_number_is_told_so() {
    let (mut client, sockets) = connecting();
    let no_sktid = Some(format!("bad_request: {}", ClientError::NoSktid));
    let none = RangeInclusive::new(1, 0);
    assert_eq!(connect(&mut client, LONG, none, 3), vec![no_sktid.clone(); 3]);
    assert_eq!(sockets.lock().unwrap().refused, 0);
    // All that there are, for longer than a server is waited for.
    sockets.lock().unwrap().closing = (1..=3).map(|sktid| (sktid, usize::MAX)).collect();
    let short = Duration::from_millis(20);
    assert_eq!(connect(&mut client, short, 1..=3, 4), vec![no_sktid; 4]);
    let sockets = sockets.lock().unwrap();
    assert!(sockets.opened.is_empty() && sockets.refused >= 12, "{sockets:?}");
}

#[test]
fn a_number_that_is_open_costs_no_server_its_connection() {
    // One is another's for ever; then all are being closed when they are asked for.
    for closing in [vec![(2, usize::MAX)], vec![(1, 1), (2, 1), (3, 2)]] {
        let (mut client, sockets) = connecting();
        sockets.lock().unwrap().closing = closing.into_iter().collect();
        assert_eq!(connect(&mut client, LONG, 1..=3, 100), vec![None; 100]);
        assert!(sockets.lock().unwrap().refused > 0);
    }
    // One by which a connection is being made already is not asked for.
    let (mut client, sockets) = connecting();
    client.begin_connect(LONG, 2, REMOTE, 4096);
    assert_eq!(connect(&mut client, LONG, 1..=3, 10), vec![None; 10]);
    assert_eq!(client.next_connection().unwrap().1.unwrap().remote, REMOTE);
    let sockets = sockets.lock().unwrap();
    assert_eq!(
        (sockets.opened.iter().filter(|sktid| **sktid == 2).count(), sockets.refused),
        (1, 0)
    );
}

#[test]
fn news_of_a_connection_that_comes_before_the_answer_is_not_lost() {
    let (mut client, _endpoint) = client(&[LOOK, established(1), OK, LOOK], false);
    client.connect_within(LONG, 1, REMOTE, 4096).unwrap();
    // Nor that of one whose number was another's before.
    let (stale, late) = (ended(1, StateChange::RESET), established(1));
    let (mut client, _endpoint) =
        self::client(&[LOOK, OK, LOOK, established(1), stale, OK, LOOK, late, OK, LOOK], false);
    client.connect_within(LONG, 1, REMOTE, 4096).unwrap();
    client.close(1).unwrap();
    client.connect_within(LONG, 1, REMOTE, 4096).unwrap();
}

#[test]
fn a_connection_with_another_peer_is_not_the_one_that_was_asked_for() {
    let (mut client, _endpoint) = client(&[LOOK, OK, LOOK, established(1)], false);
    let asked = "192.0.2.7:80".parse().unwrap();
    let error = client.connect_within(LONG, 1, asked, 4096).unwrap_err();
    let expected =
        "no connection to 192.0.2.7:80: the endpoint says that it stands with 127.0.0.1:80 after ";
    assert!(error.to_string().starts_with(expected), "{error}");
    assert_eq!(error.word(), "unknown");
    // Where an unspecified address leads to is the endpoint's to say.
    let (mut client, _endpoint) = self::client(&[LOOK, OK, LOOK, established(1)], false);
    client.connect_within(LONG, 1, "0.0.0.0:80".parse().unwrap(), 4096).unwrap();
}
