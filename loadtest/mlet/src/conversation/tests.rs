//! Endpoints that answer late, or stop reading.

use std::io::Read as _;
use std::os::unix::net::UnixStream;

use packetlab::message::{Outcome, Status};
use packetlab::time::Ticks;
use proptest::prelude::*;

use super::*;

/// Passes where nothing more comes.
const SHORT: Duration = Duration::from_millis(1);

/// What happens between one request and the next.
#[derive(Debug, Clone)]
struct Step {
    /// The request is MREAD, and else MWRITE.
    reads: bool,
    /// What the endpoint tells before it answers.
    notifications: usize,
    /// Of all that the endpoint has to say by now so many 255ths have come when the client waits for its answer;
    /// it may end within a message.
    come: usize,
    /// The client asks for all notifications then, when so many 255ths of the rest have come as well.
    listens: Option<usize>,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Often all of it, so that answers come in time as well.
    let come = prop_oneof![Just(255), 0..=255_usize];
    let step = (any::<bool>(), 0..3_usize, come, prop::option::of(0..=255_usize));
    let step = step.prop_map(|(reads, notifications, come, listens)| Step {
        reads,
        notifications,
        come,
        listens,
    });
    prop::collection::vec(step, 1..16)
}

/// All that an endpoint says, how much of it has come, and where its messages end.
#[derive(Default)]
struct Speech {
    bytes: Vec<u8>,
    come: usize,
    notification_ends: Vec<usize>,
}

impl Speech {
    fn say(&mut self, message: &Message<'_>) {
        message.encode(&mut self.bytes).unwrap();
    }

    fn notify(&mut self) {
        let tag = u16::try_from(self.notification_ends.len()).unwrap();
        self.say(&Message::Ntag { sktid: 1, tag, time: Ticks(0), status: Status::SUCCESS });
        self.notification_ends.push(self.bytes.len());
    }

    /// Lets so many 255ths of the rest come.
    fn come(&mut self, endpoint: &mut UnixStream, part: usize) {
        let to = self.come + (self.bytes.len() - self.come) * part / 255;
        endpoint.write_all(&self.bytes[self.come..to]).unwrap();
        self.come = to;
    }

    fn notifications_come(&self) -> usize {
        self.notification_ends.iter().filter(|end| **end <= self.come).count()
    }
}

fn tag(notification: &Notification) -> usize {
    match notification.message() {
        Message::Ntag { tag, .. } => tag.into(),
        other => panic!("a notification that nobody sent: {other:?}"),
    }
}

/// All notifications that have come.
fn listen(conversation: &mut Conversation, heard: &mut Vec<usize>) {
    while let Ok(notification) = conversation.notification(|_| true, Some(Instant::now())) {
        heard.push(tag(&notification));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_answer_is_that_of_its_request_however_late_the_others_come(steps in steps()) {
        let (near, mut endpoint) = UnixStream::pair().unwrap();
        let mut conversation = Conversation::new(near, SHORT).unwrap();
        let (mut speech, mut heard) = (Speech::default(), Vec::new());
        for (number, step) in (0..).zip(&steps) {
            for _ in 0..step.notifications {
                speech.notify();
            }
            let data = u32::to_be_bytes(number);
            let (request, answer) = if step.reads {
                let address = number;
                (Message::Mread { address, len: 4 }, Message::Mdata { address, data: &data })
            } else {
                let status = Status(0x7000 + u16::try_from(number).unwrap());
                let refusal = Message::Result(Outcome::Status(status));
                (Message::Mwrite { address: number, data: &data }, refusal)
            };
            speech.say(&answer);
            speech.come(&mut endpoint, step.come);
            match conversation.exchange(&request, None) {
                Ok(given) => prop_assert_eq!(given.message(), answer),
                Err(ClientError::Silence(_)) => prop_assert!(speech.come < speech.bytes.len()),
                Err(error) => prop_assert!(false, "{}", error),
            }
            if let Some(part) = step.listens {
                speech.come(&mut endpoint, part);
                listen(&mut conversation, &mut heard);
                prop_assert_eq!(heard.len(), speech.notifications_come());
            }
        }
        speech.notify();
        speech.say(&Message::Result(Outcome::SUCCESS));
        speech.come(&mut endpoint, 255);
        let last = conversation.exchange(&Message::Nclose { sktid: 1 }, None).unwrap();
        prop_assert_eq!(last.message(), Message::Result(Outcome::SUCCESS));
        listen(&mut conversation, &mut heard);
        prop_assert_eq!(heard, (0..speech.notification_ends.len()).collect::<Vec<_>>());
    }
}

#[test]
fn a_late_answer_is_dropped_malformed_or_not() {
    let (near, mut endpoint) = UnixStream::pair().unwrap();
    let mut conversation = Conversation::new(near, SHORT).unwrap();
    let close = Message::Nclose { sktid: 1 };
    let mut given_up = || {
        let silence = conversation.exchange(&close, None);
        assert!(matches!(silence, Err(ClientError::Silence(_))), "{silence:?}");
    };
    given_up();
    given_up();
    // Malformed; a refusal; success.
    endpoint.write_all(&[0x40, 0, 0, 1, 0, 0x40, 0, 0, 2, 0, 0x33, 0x40, 0, 0, 0]).unwrap();
    let answer = conversation.exchange(&close, None).unwrap();
    assert_eq!(answer.message(), Message::Result(Outcome::SUCCESS));
}

#[test]
fn a_session_with_half_a_request_says_so_at_every_further_call() {
    let (near, mut endpoint) = UnixStream::pair().unwrap();
    let mut conversation = Conversation::new(near, SHORT).unwrap();
    // More than any socket buffer holds.
    let data = vec![0; 15_000_000];
    let cut = conversation.exchange(&Message::Mwrite { address: 0, data: &data }, None);
    assert!(matches!(cut, Err(ClientError::Unread(SHORT))), "{cut:?}");
    assert!(endpoint.read(&mut [0; 100]).unwrap() > 0, "a part of it was sent");
    endpoint.write_all(&[0x69, 0, 0, 0, 0x40, 0, 0, 0]).unwrap();
    for _ in 0..2 {
        let asked = conversation.exchange(&Message::Nclose { sktid: 1 }, None);
        assert!(matches!(asked, Err(ClientError::CutRequest)), "{asked:?}");
        let heard = conversation.notification(|_| true, None);
        assert!(matches!(heard, Err(ClientError::CutRequest)), "{heard:?}");
    }
}

#[test]
fn a_session_of_whose_request_nothing_was_taken_goes_on() {
    let (near, mut endpoint) = UnixStream::pair().unwrap();
    let mut filling = near.try_clone().unwrap();
    let mut conversation = Conversation::new(near, SHORT).unwrap();
    // The socket has the conversation's limit.
    let mut waiting = 0;
    while let Ok(len) = filling.write(&[0; 4096]) {
        waiting += len;
    }
    let close = Message::Nclose { sktid: 1 };
    let untaken = conversation.exchange(&close, None);
    assert!(matches!(untaken, Err(ClientError::Unread(SHORT))), "{untaken:?}");
    endpoint.read_exact(&mut vec![0; waiting]).unwrap();
    endpoint.write_all(&[0x40, 0, 0, 0]).unwrap();
    let answer = conversation.exchange(&close, None).unwrap();
    assert_eq!(answer.message(), Message::Result(Outcome::SUCCESS));
}

/// An endpoint that sends this message until nobody reads any more.
fn flood(message: &Message<'_>) -> (UnixStream, std::thread::JoinHandle<()>) {
    let (near, mut endpoint) = UnixStream::pair().unwrap();
    let mut bytes = Vec::new();
    message.encode(&mut bytes).unwrap();
    let bytes = bytes.repeat(1 + READ_LEN / bytes.len());
    (near, std::thread::spawn(move || while endpoint.write_all(&bytes).is_ok() {}))
}

#[test]
fn a_deadline_holds_while_other_messages_come_without_end() {
    let (near, flooding) = flood(&Message::Resumd);
    let mut conversation = Conversation::new(near, Duration::from_secs(60)).unwrap();
    let deadline = Instant::now() + Duration::from_millis(20);
    let heard = conversation.notification(|_| false, Some(deadline));
    assert!(matches!(heard, Err(ClientError::Silence(_))), "{heard:?}");
    assert!(Instant::now() >= deadline && !conversation.kept.is_empty());
    let asked = conversation.exchange(&Message::Nclose { sktid: 1 }, Some(deadline));
    assert!(matches!(asked, Err(ClientError::Silence(_))), "{asked:?}");
    drop(conversation);
    flooding.join().unwrap();
}

#[test]
fn only_so_much_is_kept_and_what_is_kept_can_be_had() {
    let info = vec![7; READ_LEN];
    let linfo = Message::Linfo { name: b"", auxiliary: b"", info: &info };
    let (near, flooding) = flood(&linfo);
    let mut conversation = Conversation::new(near, Duration::from_secs(60)).unwrap();
    let asked = conversation.exchange(&Message::Nclose { sktid: 1 }, None);
    assert!(matches!(asked, Err(ClientError::TooMuchKept)), "{asked:?}");
    let kept: usize = conversation.kept.iter().map(|kept| kept.payload.len()).sum();
    assert!(kept <= KEPT_LEN_MAX + 2 * READ_LEN, "{kept}");
    while !conversation.kept.is_empty() {
        let heard = conversation.notification(|_| true, None).unwrap();
        assert_eq!(heard.message(), linfo);
    }
    assert_eq!(conversation.kept_len, 0);
    assert_eq!(conversation.notification(|_| true, None).unwrap().message(), linfo);
    drop(conversation);
    flooding.join().unwrap();
}
