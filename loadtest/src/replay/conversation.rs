//! Who speaks next in a recorded conversation, and which of its messages one of the mlet is.
//!
//! A mlet that does several things at once may ask for them in another order than when it was recorded, since what it then
//! read at once it may now read by and by. So its requests are held to their order by what they are about: one socket, one
//! address of memory, or the endpoint. Answers go to the requests that they were given to, in the order in which
//! requests come now, as an endpoint's do (spec/protocol.md 1.2). All else the endpoint says in the recorded order.
//!
//! Not here: streams and waits. Invariant: what comes next depends on the order of what was heard and on nothing else, and
//! before the mlet is waited for it has been told all that the recording had told it by then.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use packetlab::message::{Message, MessageType};

use super::difference::{Difference, Heard, decoded};
use super::recording::{Step, What};

/// What a request of a mlet is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Subject {
    Socket(u8),
    Memory(u32),
    Endpoint,
}

impl Subject {
    fn of(request: &[u8]) -> Self {
        match decoded(request) {
            Message::Nopen { sktid, .. }
            | Message::Nclose { sktid }
            | Message::Nsend { sktid, .. }
            | Message::Nctl { sktid, .. } => Self::Socket(sktid),
            Message::Ncap { socket, .. } => Self::Socket(socket.sktid),
            Message::Mread { address, .. } | Message::Mwrite { address, .. } => {
                Self::Memory(address)
            }
            _ => Self::Endpoint,
        }
    }
}

/// How far it is.
#[derive(Debug)]
pub(super) struct Conversation<'a> {
    steps: &'a [Step],
    /// Steps before it are done.
    at: usize,
    is_done: Vec<bool>,
    /// Requests that are to come, by what they are about.
    awaited: HashMap<Subject, VecDeque<usize>>,
    /// Of a request its answer, of an answer its request.
    other: HashMap<usize, usize>,
    /// Requests that have come and are to be answered.
    owed: VecDeque<usize>,
}

impl<'a> Conversation<'a> {
    pub(super) fn new(steps: &'a [Step]) -> Self {
        let mut awaited = HashMap::<_, VecDeque<_>>::new();
        let (mut requests, mut other) = (VecDeque::new(), HashMap::new());
        for (index, step) in steps.iter().enumerate() {
            match &step.what {
                What::MletSays(request) => {
                    awaited.entry(Subject::of(request)).or_default().push_back(index);
                    requests.push_back(index);
                }
                What::EndpointSays(message) if is_answer(message) => {
                    if let Some(request) = requests.pop_front() {
                        other.extend([(request, index), (index, request)]);
                    }
                }
                _ => {}
            }
        }
        let is_done = vec![false; steps.len()];
        Self { steps, at: 0, is_done, awaited, other, owed: VecDeque::new() }
    }

    /// What the endpoint says next, or what is awaited of the mlet; `None` behind the last step.
    pub(super) fn next(&mut self) -> Option<&'a Step> {
        while self.is_done.get(self.at).is_some_and(|is_done| *is_done) {
            self.at += 1;
        }
        let step = self.steps.get(self.at)?;
        if matches!(step.what, What::MletSays(_) | What::MletEnds) {
            return Some(step);
        }
        let mut next = self.at;
        if self.other.contains_key(&next) {
            // Its request has come, and waits for it or behind others.
            let mut owed = std::iter::from_fn(|| self.owed.pop_front());
            let answer = owed.find_map(|request| self.other.get(&request));
            next = answer.copied().unwrap_or(next);
        }
        self.set_done(next);
        self.steps.get(next)
    }

    /// The mlet has said this, or has ended, or has said nothing for so long.
    ///
    /// # Errors
    /// It is not what comes next of what it is about.
    pub(super) fn hear(&mut self, heard: Heard, waited: Duration) -> Result<(), Box<Difference>> {
        let subject = match &heard {
            Heard::Message(message) => Some(Subject::of(message)),
            Heard::End | Heard::Nothing => None,
        };
        let awaited = subject.and_then(|subject| self.awaited.get_mut(&subject));
        let index = awaited.and_then(VecDeque::pop_front).unwrap_or(self.at);
        let Some(step) = self.steps.get(index) else { return Ok(()) };
        if let Some(difference) = Difference::between(step, heard, waited) {
            return Err(Box::new(difference.behind(self.said_early())));
        }
        self.set_done(index);
        self.owed.push_back(index);
        Ok(())
    }

    /// The first that the mlet has said before its turn.
    fn said_early(&self) -> Option<&'a Step> {
        let early = self.is_done.iter().skip(self.at).position(|is_done| *is_done)?;
        self.steps.get(self.at + early)
    }

    fn set_done(&mut self, index: usize) {
        if let Some(is_done) = self.is_done.get_mut(index) {
            *is_done = true;
        }
    }
}

fn is_answer(message: &[u8]) -> bool {
    let message_type = message.first().copied().map(MessageType);
    matches!(message_type, Some(MessageType::RESULT | MessageType::MDATA))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// NCLOSE of a socket.
    fn asks(sktid: u8) -> What {
        What::MletSays(vec![0x2b, 0, 0, 1, sktid])
    }

    /// A RESULT by which it is told apart.
    fn answers(mark: u8) -> What {
        What::EndpointSays(vec![0x40, 0, 0, 2, 0, mark])
    }

    /// An NDATA.
    fn tells(mark: u8) -> What {
        What::EndpointSays(vec![0x62, 0, 0, 1, mark])
    }

    /// What the endpoint says, by the last byte, until the mlet is waited for.
    fn said(conversation: &mut Conversation<'_>) -> Vec<u8> {
        let mut said = Vec::new();
        while let Some(Step { what: What::EndpointSays(message), .. }) = conversation.next() {
            said.extend(message.last());
        }
        said
    }

    fn says(conversation: &mut Conversation<'_>, what: &What) -> Result<(), String> {
        let What::MletSays(message) = what else { panic!("the endpoint's") };
        let heard = Heard::Message(message.clone());
        conversation.hear(heard, Duration::ZERO).map_err(|difference| difference.to_string())
    }

    fn steps(all: impl IntoIterator<Item = What>) -> Vec<Step> {
        let step = |(index, what)| Step { line: index + 1, took: Duration::ZERO, what };
        all.into_iter().enumerate().map(step).collect()
    }

    #[test]
    fn answers_go_to_their_requests_whichever_socket_comes_first() {
        let all = [asks(1), asks(2), answers(11), asks(3), tells(21), answers(12), answers(13)];
        let steps = steps(all);
        let mut recorded = Conversation::new(&steps);
        for (socket, told) in [(1, &[][..]), (2, &[11]), (3, &[21, 12, 13])] {
            says(&mut recorded, &asks(socket)).unwrap();
            assert_eq!(said(&mut recorded), told);
        }
        // The third is asked when the first is answered, which the endpoint does behind the second.
        let mut other = Conversation::new(&steps);
        for (socket, told) in [(2, &[][..]), (1, &[12, 11]), (3, &[21, 13])] {
            says(&mut other, &asks(socket)).unwrap();
            assert_eq!(said(&mut other), told);
        }
        assert!(other.next().is_none() && recorded.next().is_none());
    }

    #[test]
    fn requests_about_one_socket_come_in_their_order() {
        let sends = What::MletSays(b"\x2c\0\0\x0e\x01\x04\x06\0\0\0\0\0\0\0\0\0\x01d".to_vec());
        let steps = steps([asks(2), sends, asks(1), What::MletEnds]);
        let mut conversation = Conversation::new(&steps);
        let told = says(&mut conversation, &asks(1)).unwrap_err();
        assert!(told.starts_with("line 2: ") && told.contains("NSEND socket 1"), "{told}");
    }

    #[test]
    fn what_was_not_recorded_or_does_not_come_is_told_with_what_came_too_early() {
        let steps = steps([asks(1), asks(2), answers(11), answers(12), What::MletEnds]);
        let mut conversation = Conversation::new(&steps);
        says(&mut conversation, &asks(2)).unwrap();
        let nothing = conversation.hear(Heard::Nothing, Duration::from_secs(3)).unwrap_err();
        let expected = "line 1: the mlet does not do what is recorded\n  \
            recorded: 5 bytes, NCLOSE socket 1\n  came:     nothing within 3.000 s\n  \
            before: what is recorded in line 2: 5 bytes, NCLOSE socket 2";
        assert_eq!(nothing.to_string(), expected);
        let again = says(&mut conversation, &asks(2)).unwrap_err();
        assert!(
            again.starts_with("line 1: ") && again.contains("came:     5 bytes, NCLOSE socket 2")
        );
    }
}
