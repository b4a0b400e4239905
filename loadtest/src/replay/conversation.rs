//! Who speaks next in a recorded conversation, and which of its messages one of the mlet is.
//!
//! A mlet that does several things at once may ask for them in another order than when it was recorded, since what it then
//! read at once it may now read by and by. So its requests are held to their order by what they are about: one socket, one
//! address of memory, or the endpoint. A socket is the one that was opened in the same way, whichever number it has now, and
//! the endpoint calls it by that. Answers go to the requests that they were given to, in the order in which requests come
//! now, as an endpoint's do (spec/protocol.md 1.2), and once that is another than recorded, before more is awaited. All else
//! the endpoint says in the recorded order.
//!
//! Not here: streams and waits. Invariant: what comes next depends on the order of what was heard and on nothing else, and
//! before the mlet is waited for it has been told all that the recording had told it by then.

mod socket_number;

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use packetlab::message::MessageType;

use self::socket_number::{About, about, renumbered};
use super::difference::{Difference, Heard, are_alike};
use super::recording::{Step, What};

/// What a request of a mlet is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Subject {
    /// The socket that the request of this step opens.
    Opened(usize),
    Other(About),
}

/// Which numbers sockets have, by the requests that opened them.
#[derive(Debug, Default)]
struct Sockets(HashMap<u8, usize>);

impl Sockets {
    /// What a message is about, which is the one at `index` if it opens a socket.
    fn subject(&mut self, message: &[u8], index: usize) -> Subject {
        match about(message) {
            About::Socket(number) if opens(message) => {
                self.0.insert(number, index);
                Subject::Opened(index)
            }
            About::Socket(number) => match self.0.get(&number) {
                Some(opened) => Subject::Opened(*opened),
                None => Subject::Other(About::Socket(number)),
            },
            other => Subject::Other(other),
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
    /// What each step is about.
    subjects: Vec<Option<Subject>>,
    /// Requests that are to come, by what they are about.
    awaited: HashMap<Subject, VecDeque<usize>>,
    /// Of these, those that open a socket.
    openings: Vec<usize>,
    /// The mlet's sockets, and their numbers.
    sockets: Sockets,
    numbers: HashMap<usize, u8>,
    /// Of a request its answer, of an answer its request.
    other: HashMap<usize, usize>,
    /// Requests that have come and are to be answered.
    owed: VecDeque<usize>,
    /// One has come before its turn.
    is_reordered: bool,
}

/// What comes next.
#[derive(Debug)]
pub(super) enum Next<'a> {
    /// The endpoint says this.
    Says(&'a Step, Cow<'a, [u8]>),
    /// The endpoint ends.
    Ends(&'a Step),
    /// The mlet says something, or ends.
    Awaited(&'a Step),
}

impl<'a> Conversation<'a> {
    pub(super) fn new(steps: &'a [Step]) -> Self {
        let mut recorded = Sockets::default();
        let (mut subjects, mut openings) = (Vec::new(), Vec::new());
        let mut awaited = HashMap::<_, VecDeque<_>>::new();
        let (mut requests, mut other) = (VecDeque::new(), HashMap::new());
        for (index, step) in steps.iter().enumerate() {
            let (What::MletSays(message) | What::EndpointSays(message)) = &step.what else {
                subjects.push(None);
                continue;
            };
            let subject = recorded.subject(message, index);
            subjects.push(Some(subject));
            if matches!(step.what, What::MletSays(_)) {
                awaited.entry(subject).or_default().push_back(index);
                requests.push_back(index);
                if opens(message) {
                    openings.push(index);
                }
            } else if is_answer(message)
                && let Some(request) = requests.pop_front()
            {
                other.extend([(request, index), (index, request)]);
            }
        }
        Self {
            steps,
            at: 0,
            is_done: vec![false; steps.len()],
            subjects,
            awaited,
            openings,
            sockets: Sockets::default(),
            numbers: HashMap::new(),
            other,
            owed: VecDeque::new(),
            is_reordered: false,
        }
    }

    /// What comes next; `None` behind the last step.
    pub(super) fn next(&mut self) -> Option<Next<'a>> {
        while self.is_done.get(self.at).is_some_and(|is_done| *is_done) {
            self.at += 1;
        }
        let step = self.steps.get(self.at)?;
        let next = match step.what {
            // What it waits for may be recorded as the answer to a like request, which now came later.
            What::MletSays(_) | What::MletEnds => match self.is_reordered {
                true => self.next_answer(),
                false => None,
            },
            // Its request has come, and waits for it or behind others.
            What::EndpointSays(_) if self.other.contains_key(&self.at) => self.next_answer(),
            What::EndpointSays(_) | What::EndpointEnds => None,
        };
        let (index, step) = match next {
            Some(answer) => (answer, self.steps.get(answer)?),
            None => (self.at, step),
        };
        if matches!(step.what, What::MletSays(_) | What::MletEnds) {
            return Some(Next::Awaited(step));
        }
        self.set_done(index);
        Some(match &step.what {
            What::EndpointSays(message) => {
                Next::Says(step, self.as_the_mlet_calls_it(message, index))
            }
            _ => Next::Ends(step),
        })
    }

    /// That to the first request that has one.
    fn next_answer(&mut self) -> Option<usize> {
        let mut owed = std::iter::from_fn(|| self.owed.pop_front());
        owed.find_map(|request| self.other.get(&request)).copied()
    }

    /// A message of the endpoint, with the number of its socket now.
    fn as_the_mlet_calls_it(&self, message: &'a [u8], index: usize) -> Cow<'a, [u8]> {
        let number = match self.subjects.get(index) {
            Some(Some(Subject::Opened(opened))) => self.numbers.get(opened),
            _ => None,
        };
        match number {
            Some(number) => renumbered(message, *number),
            None => Cow::Borrowed(message),
        }
    }

    /// The mlet has said this, or has ended, or has said nothing for so long.
    ///
    /// # Errors
    /// It is not what comes next of what it is about.
    pub(super) fn hear(&mut self, heard: Heard, waited: Duration) -> Result<(), Box<Difference>> {
        let (index, heard) = match heard {
            Heard::Message(message) => self.recognised(message),
            other => (None, other),
        };
        let index = index.unwrap_or(self.at);
        let Some(step) = self.steps.get(index) else { return Ok(()) };
        if let Some(difference) = Difference::between(step, heard, waited) {
            return Err(Box::new(difference.behind(self.said_early())));
        }
        self.is_reordered |= index != self.at;
        self.set_done(index);
        self.owed.push_back(index);
        Ok(())
    }

    /// Which step a message of the mlet has to be, and what it is with the socket's number in that.
    fn recognised(&mut self, message: Vec<u8>) -> (Option<usize>, Heard) {
        let opening = opens(&message).then(|| self.opening(&message)).flatten();
        let subject = self.sockets.subject(&message, opening.unwrap_or(usize::MAX));
        if let (Some(opening), About::Socket(number)) = (opening, about(&message)) {
            self.openings.retain(|one| *one != opening);
            self.numbers.insert(opening, number);
        }
        let index = self.awaited.get_mut(&subject).and_then(VecDeque::pop_front);
        let recorded = index.and_then(|index| self.steps.get(index));
        let message = match recorded.map(|step| &step.what) {
            Some(What::MletSays(recorded)) => match about(recorded) {
                About::Socket(number) => renumbered(&message, number).into_owned(),
                _ => message,
            },
            _ => message,
        };
        (index, Heard::Message(message))
    }

    /// The step that opens a socket like this message: one of the same number, or else the first.
    fn opening(&self, message: &[u8]) -> Option<usize> {
        let recorded = |index: &usize| match self.steps.get(*index).map(|step| &step.what) {
            Some(What::MletSays(recorded)) => &recorded[..],
            _ => &[],
        };
        let is_alike = |index: &&usize| match about(recorded(index)) {
            About::Socket(number) => are_alike(recorded(index), &renumbered(message, number)),
            _ => false,
        };
        let mut alike = self.openings.iter().filter(is_alike).copied().peekable();
        let first = alike.peek().copied();
        alike.find(|index| about(recorded(index)) == about(message)).or(first)
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

fn message_type(message: &[u8]) -> Option<MessageType> {
    message.first().copied().map(MessageType)
}

fn opens(message: &[u8]) -> bool {
    message_type(message) == Some(MessageType::NOPEN)
}

fn is_answer(message: &[u8]) -> bool {
    matches!(message_type(message), Some(MessageType::RESULT | MessageType::MDATA))
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
        while let Some(Next::Says(_, message)) = conversation.next() {
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
        // From then on each request is answered before another is awaited.
        let mut other = Conversation::new(&steps);
        for (socket, told) in [(2, &[12][..]), (1, &[11]), (3, &[21, 13])] {
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

    /// TCP to a port of 192.0.2.7.
    fn opens(sktid: u8, port: u8) -> What {
        let mut message =
            b"\x2a\0\0\x13\0\x04\x06\0\0\x10\0\0\0\0\0\0\0\xc0\0\x02\x07\0\0".to_vec();
        (message[4], message[22]) = (sktid, port);
        What::MletSays(message)
    }

    /// Of the state of a socket, by its memory.
    fn looks(sktid: u8) -> What {
        What::MletSays(vec![0x28, 0, 0, 6, 0x20, 0, 4 * sktid, 2, 0, 1])
    }

    #[test]
    fn a_socket_is_known_by_how_it_is_opened_and_called_by_its_number_now() {
        let nstat = |sktid: u8| {
            What::EndpointSays(vec![0x61, 0, 0, 12, sktid, 4, 6, 0, 0, 0, 0, 0, 0, 0, 0, 1])
        };
        let state =
            |sktid: u8| What::EndpointSays(vec![0x41, 0, 0, 5, 0x20, 0, 4 * sktid, 2, 0xff]);
        let steps = steps([
            opens(1, 80),
            opens(2, 81),
            answers(0),
            answers(0),
            nstat(2),
            looks(2),
            state(2),
            asks(2),
            answers(12),
            asks(1),
        ]);
        let mut conversation = Conversation::new(&steps);
        // Of the endpoint the next, with its number for the socket.
        let mut next = |asked: &[What]| {
            asked.iter().for_each(|what| says(&mut conversation, what).unwrap());
            let mut said = Vec::new();
            while let Some(Next::Says(_, message)) = conversation.next() {
                said.push(message.into_owned());
            }
            said
        };
        let said = next(&[opens(1, 81), opens(2, 80)]);
        assert_eq!(said.iter().map(|message| message[4]).collect::<Vec<_>>(), [0, 0, 1]);
        assert_eq!(next(&[looks(1)]), [vec![0x41, 0, 0, 5, 0x20, 0, 4, 2, 0xff]]);
        assert_eq!(next(&[asks(1)]), [vec![0x40, 0, 0, 2, 0, 12]]);
        assert!(next(&[asks(2)]).is_empty() && conversation.next().is_none());
    }
}
