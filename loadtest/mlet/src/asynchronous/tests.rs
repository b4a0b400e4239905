//! Many things at once, at endpoints that are scripted; the session's bytes moved by a thread, and by one who blocks.

use std::pin::Pin;
use std::sync::mpsc;

use packetlab::message::{Family, MessageType, Outcome, StateChange};

use super::*;
use crate::client_error::ConnectionEnd;
use crate::scripted_endpoint::{self, original};

const LONG: Duration = Duration::from_secs(30);
const REMOTES: [&str; 3] = ["192.0.2.7:8001", "192.0.2.7:8002", "192.0.2.7:8003"];

fn remote(at: usize) -> SocketAddr {
    REMOTES[at].parse().unwrap()
}

/// Connections stand in the order opposite to that in which they were asked for, once all have been.
fn backwards() -> UnixStream {
    let mut waiting = Vec::new();
    scripted_endpoint::start(move |request, answers| {
        original(request, answers);
        if let Message::Nopen { sktid, open: Open::TcpConnect { remote, .. }, .. } = *request {
            waiting.push((sktid, remote));
            if waiting.len() == REMOTES.len() {
                for (sktid, remote) in waiting.drain(..).rev() {
                    let change = StateChange::TcpEstablished { remote };
                    let time = scripted_endpoint::CLOCK.saturating_add(Duration::from_millis(5));
                    Message::Nstat { sktid, time, change }.encode(answers).unwrap();
                }
            }
        }
    })
}

async fn connect_all(client: &AsyncClient) -> Vec<Connection> {
    let connecting =
        (1..=3_u8).map(|sktid| client.connect(LONG, sktid, remote(usize::from(sktid) - 1), 4096));
    join_all(connecting).await.into_iter().map(Result::unwrap).collect()
}

fn check(connections: &[Connection]) {
    for (at, connection) in connections.iter().enumerate() {
        assert_eq!(connection.remote, remote(at));
        assert_eq!(connection.took(), Duration::from_millis(5));
        assert_eq!(connection.uncertainty(), Duration::ZERO);
    }
    assert_eq!(connections.len(), 3);
}

/// An executor of one future, which is woken by another thread.
fn elsewhere<T>(doing: impl Future<Output = T>) -> T {
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut doing = pin!(doing);
    loop {
        match doing.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(done) => return done,
            Poll::Pending => thread::park(),
        }
    }
}

#[test]
fn connections_are_made_at_once_by_a_thread_and_by_one_who_blocks() {
    let client = AsyncClient::new(backwards(), LONG).unwrap();
    check(&elsewhere(connect_all(&client)));
    let mut client = Client::new(backwards(), LONG).unwrap();
    let handle = client.handle();
    check(&client.block_on(connect_all(&handle)).unwrap());
}

#[test]
fn a_future_that_is_dropped_shifts_no_answer_and_leaves_no_connection() {
    let (closed, closings) = mpsc::channel();
    let session = scripted_endpoint::start(move |request, answers| {
        if let Message::Nclose { sktid } = *request {
            closed.send(sktid).unwrap();
        }
        original(request, answers);
    });
    let client = AsyncClient::new(session, LONG).unwrap();
    elsewhere(async {
        {
            let mut clock = pin!(client.clock());
            let mut connecting = pin!(client.connect(LONG, 7, remote(0), 4096));
            std::future::poll_fn(|context| {
                assert!(clock.as_mut().poll(context).is_pending());
                assert!(connecting.as_mut().poll(context).is_pending());
                Poll::Ready(())
            })
            .await;
        }
        client.write_memory(1, b"x").await.unwrap();
        assert_eq!(client.clock().await.unwrap(), scripted_endpoint::CLOCK);
    });
    // Nothing of either was sent, or both were; the socket is closed in any case.
    assert_eq!(closings.recv_timeout(LONG), Ok(7));
}

#[test]
fn a_future_that_waits_for_something_else_is_woken_by_it() {
    let (session, _endpoint) = UnixStream::pair().unwrap();
    let mut client = Client::new(session, LONG).unwrap();
    let (asked, is_asked) = mpsc::channel::<Waker>();
    let waking = thread::spawn(move || is_asked.recv().unwrap().wake());
    let mut is_woken = false;
    let other = std::future::poll_fn(|context| {
        if std::mem::replace(&mut is_woken, true) {
            return Poll::Ready(7);
        }
        asked.send(context.waker().clone()).unwrap();
        Poll::Pending
    });
    assert_eq!(client.block_on(other).unwrap(), 7);
    waking.join().unwrap();
}

#[test]
fn a_silent_endpoint_and_one_that_left_are_errors_to_all_who_wait() {
    let (session, endpoint) = UnixStream::pair().unwrap();
    let client = AsyncClient::new(session, LONG).unwrap();
    let short = Duration::from_millis(20);
    let silent = elsewhere(client.receive(3, short)).unwrap_err();
    assert!(matches!(silent, ClientError::Silence { .. }), "{silent}");
    let connected = elsewhere(client.connect(short, 3, remote(0), 4096)).unwrap_err();
    assert!(matches!(connected, ClientError::Silence { .. }), "{connected}");
    let both = join_all([client.clock(), client.clock()]);
    drop(endpoint);
    for left in elsewhere(both) {
        assert!(matches!(left, Err(ClientError::EndpointLeft(_))));
    }
}

#[test]
fn what_waits_to_be_sent_is_sent_when_the_client_ends() {
    let (session, mut endpoint) = UnixStream::pair().unwrap();
    let client = AsyncClient::new(session, LONG).unwrap();
    let asked = elsewhere(client.ask(&Message::Nclose { sktid: 9 })).unwrap();
    asked.disown();
    drop(client);
    let mut sent = Vec::new();
    endpoint.read_to_end(&mut sent).unwrap();
    assert_eq!(sent, [0x2B, 0, 0, 1, 9]);
}

#[test]
fn a_connection_that_breaks_and_one_that_is_denied_are_told_apart() {
    let session = scripted_endpoint::start(|request, answers| {
        if let Message::Nopen { sktid: 2, .. } = request {
            let denied = Outcome::Status(packetlab::message::Status::ESKTOPNDENY);
            return Message::Result(denied).encode(answers).unwrap();
        }
        original(request, answers);
        if let Message::Nopen { sktid, open: Open::TcpConnect { remote, .. }, .. } = *request {
            let time = scripted_endpoint::CLOCK;
            let stands = StateChange::TcpEstablished { remote };
            Message::Nstat { sktid, time, change: stands }.encode(answers).unwrap();
            let Socket { family, protocol, .. } =
                Packet::Tcp { family: Family::Ipv4, data: b"" }.socket(sktid);
            let change = StateChange::Code { family, protocol, code: StateChange::RESET };
            Message::Nstat { sktid, time, change }.encode(answers).unwrap();
        }
    });
    let client = AsyncClient::new(session, LONG).unwrap();
    let denied = elsewhere(client.connect(LONG, 2, remote(0), 4096)).unwrap_err();
    assert_eq!(denied.word(), "denied");
    assert!(denied.to_string().contains("NOPEN (socket 2, TCP to 192.0.2.7:8001)"), "{denied}");
    elsewhere(client.connect(LONG, 1, remote(0), 4096)).unwrap();
    let broken = elsewhere(client.receive(1, LONG)).unwrap_err();
    assert!(matches!(broken, ClientError::Broken { end: ConnectionEnd::Reset, .. }), "{broken}");
}

/// How often each of these was polled, when all are done.
fn polls_of(doing: Vec<Pin<Box<dyn Future<Output = ()> + Send>>>) -> Vec<usize> {
    let polls = |mut doing: Pin<Box<dyn Future<Output = ()> + Send>>| {
        let mut polls = 0;
        elsewhere(std::future::poll_fn(|context| {
            polls += 1;
            doing.as_mut().poll(context)
        }));
        polls
    };
    let waiting: Vec<_> = doing.into_iter().map(|one| thread::spawn(move || polls(one))).collect();
    waiting.into_iter().map(|one| one.join().unwrap()).collect()
}

#[test]
fn who_waits_is_woken_by_his_own_deadline_alone_while_nothing_comes() {
    const WAITS: u32 = 10;
    let (session, _endpoint) = UnixStream::pair().unwrap();
    let client = AsyncClient::new(session, LONG).unwrap();
    let waiting = (1..=WAITS).rev().map(|place| {
        let client = client.clone();
        let timeout = Duration::from_millis(50) * place;
        let doing: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move {
            let silent = client.receive(3, timeout).await.unwrap_err();
            assert!(matches!(silent, ClientError::Silence { .. }), "{silent}");
        });
        doing
    });
    // At its beginning and at its end; one more each is for threads that are woken by nobody.
    for polls in polls_of(waiting.collect()) {
        assert!(polls <= 3, "{polls} polls");
    }
    // One look at the end of each wait, and one where it ends before all others.
    let looks = client.talk.lock().looks;
    assert!(looks <= u64::from(3 * WAITS), "{looks} looks");
}

#[test]
fn whatever_is_waited_for_is_told_to_who_waits() {
    let client = AsyncClient::new(scripted_endpoint::start(original), LONG).unwrap();
    // There is room for a second request as soon as the first has been taken.
    let data = vec![0; 8 << 20];
    elsewhere(async {
        let first = client.ask(&Message::Mwrite { address: 1, data: &data }).await.unwrap();
        let second = client.ask(&Message::Mwrite { address: 1, data: &data }).await.unwrap();
        first.check(&client.answer(&first, None).await.unwrap()).unwrap();
        second.check(&client.answer(&second, None).await.unwrap()).unwrap();
    });
    // A deadline that is set later holds for who waits already.
    let (polled, is_polled) = mpsc::channel();
    let setting = client.clone();
    let deadline = thread::spawn(move || {
        is_polled.recv().unwrap();
        setting.set_session_deadline(Instant::now());
    });
    let mut receiving = pin!(client.receive(3, LONG * 100));
    let over = elsewhere(std::future::poll_fn(|context| {
        let polled_once = receiving.as_mut().poll(context);
        // It is told once, and heard once.
        let _ = polled.send(());
        polled_once
    }));
    assert!(matches!(over, Err(ClientError::SessionOver { .. })), "{over:?}");
    deadline.join().unwrap();
}

#[test]
fn more_than_is_kept_comes_as_soon_as_there_is_room_for_it() {
    const MESSAGES: u64 = 6;
    let (session, mut endpoint) = UnixStream::pair().unwrap();
    let sending = thread::spawn(move || {
        let data = vec![0; 0xFF_FF00];
        for number in 0..MESSAGES {
            let packet = Packet::Tcp { family: Family::Ipv4, data: &data };
            let mut bytes = Vec::new();
            Message::Ndata { sktid: 1, time: Ticks(number), packet }.encode(&mut bytes).unwrap();
            endpoint.write_all(&bytes).unwrap();
        }
        endpoint
    });
    let client = AsyncClient::new(session, LONG).unwrap();
    let full = elsewhere(client.clock()).unwrap_err();
    assert!(matches!(full, ClientError::TooMuchKept(_)), "{full}");
    for number in 0..MESSAGES {
        let received = elsewhere(client.receive(1, LONG)).unwrap().unwrap();
        assert_eq!(received.time, Ticks(number));
    }
    drop(sending.join().unwrap());
}

#[test]
fn a_look_up_that_is_dropped_or_late_leaves_no_socket() {
    let (heard, requests) = mpsc::channel();
    let session = scripted_endpoint::start(move |request, answers| {
        match request {
            // Its answer comes too late for anybody.
            Message::Nopen { sktid: 2, .. } => {}
            request => original(request, answers),
        }
        if let Message::Nopen { sktid, .. } | Message::Nclose { sktid } = *request {
            heard.send((request.message_type(), sktid)).unwrap();
        }
    });
    let client = AsyncClient::new(session, LONG).unwrap();
    let server = "192.0.2.53:53".parse().unwrap();
    {
        let mut looking_up = pin!(client.look_up(1, "a.example", server, LONG));
        elsewhere(std::future::poll_fn(|context| {
            assert!(looking_up.as_mut().poll(context).is_pending());
            Poll::Ready(())
        }));
        // What is dropped has been asked for.
        let opened = requests.recv_timeout(LONG).unwrap();
        assert_eq!(opened, (MessageType::NOPEN, 1));
    }
    let closed = requests.recv_timeout(LONG);
    assert_eq!(closed, Ok((MessageType::NCLOSE, 1)));
    let short = Duration::from_millis(100);
    let late = elsewhere(client.look_up(2, "a.example", server, short)).unwrap_err();
    let ClientError::Silence { awaited, waited } = late else { panic!("{late}") };
    assert_eq!(awaited, "the answer to NOPEN (socket 2, UDP on 0.0.0.0:0)");
    assert!(waited >= short && waited < LONG, "{waited:?}");
    let both = [requests.recv_timeout(LONG), requests.recv_timeout(LONG)];
    let of_2 = |message_type| Ok((message_type, 2));
    assert_eq!(both, [of_2(MessageType::NOPEN), of_2(MessageType::NCLOSE)]);
}
