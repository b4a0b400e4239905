//! A session on a connection that waits at a proxy, until its endpoint has come.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use super::credentials::{Login, NOW, TRUSTING, endpoint_tls, plain_experiments};
use crate::proto::outbox::BlockPool;
use crate::proto::outcome::{End, Outcome};
use crate::proto::session::{Context, Request, Session};

struct Waiting {
    session: Session,
    pool: BlockPool,
    now: Instant,
}

impl Waiting {
    fn new() -> Self {
        #[expect(clippy::disallowed_methods, reason = "an Instant comes from nowhere else")]
        let now = Instant::now();
        let proxy = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let session = Session::in_backlog(proxy, plain_experiments(), now);
        Self { session, pool: BlockPool::default(), now }
    }

    fn step(&mut self, step: impl FnOnce(&mut Session, &mut Context<'_>)) -> Vec<Request> {
        let mut cx = Context { now: self.now, wall: NOW, pool: &mut self.pool };
        step(&mut self.session, &mut cx);
        self.session.take_requests()
    }

    fn receive(&mut self, bytes: &[u8]) -> Vec<Request> {
        self.step(|session, cx| session.handle_endpoint_bytes(bytes, cx))
    }
}

/// The bytes with which an endpoint begins.
fn hello() -> Vec<u8> {
    let mut bytes = Vec::new();
    endpoint_tls(Login::Operator, Some(TRUSTING)).write_tls(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_connection_waits_without_limit_and_its_first_byte_starts_the_handshake_deadline() {
    let mut waiting = Waiting::new();
    assert_eq!(waiting.session.deadline(), None);
    assert!(waiting.session.wants_endpoint_input());
    waiting.now += Duration::from_secs(24 * 3600);
    assert!(waiting.receive(&hello()[..1]).is_empty(), "no endpoint yet");
    let handshake_timeout = plain_experiments().limits.handshake_timeout;
    assert_eq!(waiting.session.deadline(), Some(waiting.now + handshake_timeout));
    waiting.now += handshake_timeout;
    let requests = waiting.step(Session::handle_timeout);
    assert!(matches!(requests[..], [Request::Over(Outcome::HandshakeTimeout)]), "{requests:?}");
}

#[test]
fn a_whole_clienthello_takes_the_connection_out_of_the_backlog_once() {
    let mut waiting = Waiting::new();
    let hello = hello();
    let (last, before) = hello.split_last().unwrap();
    for byte in before {
        assert!(waiting.receive(&[*byte]).is_empty());
    }
    let requests = waiting.receive(&[*last]);
    assert!(matches!(requests[..], [Request::LeaveBacklog]), "{requests:?}");
    let requests = waiting.step(|session, cx| session.handle_endpoint_end(End::Closed, cx));
    let [Request::Over(Outcome::LeftInSetUp(End::Closed))] = requests[..] else {
        panic!("{requests:?}")
    };
}

#[test]
fn an_endpoint_that_asks_for_nothing_we_have_was_an_endpoint_all_the_same() {
    let mut waiting = Waiting::new();
    let mut hello = Vec::new();
    endpoint_tls(Login::Operator, Some("unknown")).write_tls(&mut hello).unwrap();
    let requests = waiting.receive(&hello);
    let [Request::LeaveBacklog, Request::Over(Outcome::NoExperiment(Some(_)))] = &requests[..]
    else {
        panic!("{requests:?}")
    };
}

#[test]
fn a_proxy_that_closes_or_breaks_off_has_lost_the_connection() {
    for end in [End::Closed, End::Broken(ErrorKind::ConnectionReset)] {
        let requests = Waiting::new().step(|session, cx| session.handle_endpoint_end(end, cx));
        let [Request::Over(Outcome::BacklogLost(found))] = requests[..] else {
            panic!("{requests:?}")
        };
        assert_eq!(found, end);
    }
}

#[test]
fn garbage_is_no_endpoint() {
    let mut waiting = Waiting::new();
    assert!(waiting.receive(b"GET / HTTP/1.1\r\n").is_empty());
    let requests = waiting.step(|session, cx| {
        session.handle_endpoint_end(End::Broken(ErrorKind::ConnectionReset), cx);
    });
    assert!(matches!(requests[..], [Request::Over(Outcome::Tls(_))]), "{requests:?}");
}

/// Item 113.
#[test]
fn the_end_of_the_run_closes_a_waiting_connection_at_once() {
    let requests = Waiting::new().step(Session::handle_stop);
    assert!(matches!(requests[..], [Request::Over(Outcome::Cancelled)]), "{requests:?}");
}
