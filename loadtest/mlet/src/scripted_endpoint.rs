//! An endpoint for the tests of mlets: the other end of a session, served by a thread as its test says.
//!
//! Not here: sockets and packets; what happens at them is the test's invention.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;

use packetlab::frame::Framer;
use packetlab::message::{Message, Outcome, Status};
use packetlab::time::Ticks;

/// What the endpoint's clock says, always.
pub(crate) const CLOCK: Ticks = Ticks(1_700_000_000_000_000_000);

/// What a filter begins with to load bytes of packets: the encoding's type, then r6 = context.
const FILTER_START: &[u8] = &[0x00, 0xbf, 0x61, 0, 0, 0, 0, 0, 0];

/// Starts an endpoint that lets `serve` answer every request, by messages appended to the bytes; the mlet's end. The
/// thread ends with the session.
pub(crate) fn start(
    mut serve: impl FnMut(&Message<'_>, &mut Vec<u8>) + Send + 'static,
) -> UnixStream {
    let (near, mut far) = UnixStream::pair().unwrap();
    thread::spawn(move || {
        let (mut framer, mut bytes) = (Framer::default(), vec![0; 64 * 1024]);
        while let Ok(len @ 1..) = far.read(&mut bytes) {
            framer.push(&bytes[..len]);
            let mut answers = Vec::new();
            while let Some((message_type, payload)) = framer.next().unwrap() {
                serve(&Message::decode(message_type, payload), &mut answers);
            }
            if far.write_all(&answers).is_err() {
                return;
            }
        }
    });
    near
}

/// Answers as the original's endpoint: memory holds the clock and zeros, filters without r6 = context are refused,
/// everything leaves at once and NTAG tells of it unless the tag is 0.
pub(crate) fn original(request: &Message<'_>, answers: &mut Vec<u8>) {
    let mut answer = |message: Message<'_>| message.encode(answers).unwrap();
    match *request {
        Message::Mread { address, len } => {
            let mut data = vec![0; len.into()];
            if address == 0x1001_0000 {
                data.splice(..8, CLOCK.0.to_be_bytes());
            }
            answer(Message::Mdata { address, data: &data });
        }
        Message::Ncap { filter, .. } if !filter.starts_with(FILTER_START) => {
            answer(Message::Result(Outcome::Status(Status::ESKTBADFILT)));
        }
        Message::Nsend { sktid, tag, .. } => {
            answer(Message::Result(Outcome::SUCCESS));
            if tag != 0 {
                answer(Message::Ntag { sktid, tag, time: CLOCK, status: Status::SUCCESS });
            }
        }
        _ => answer(Message::Result(Outcome::SUCCESS)),
    }
}
