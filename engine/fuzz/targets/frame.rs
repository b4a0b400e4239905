//! A byte stream of messages: the first byte chooses how it is cut into reads. Assembling and cutting
//! through see the same messages, lose no byte, and no piece holds bytes of two messages.

#![no_main]

use libfuzzer_sys::fuzz_target;
use packetlab::cut::{Boundaries, Cutter};
use packetlab::frame::Framer;

fuzz_target!(|input: &[u8]| {
    let Some((&read_len, stream)) = input.split_first() else { return };
    let read_len = usize::from(read_len).max(1);
    let (mut framer, mut cutter) = (Framer::default(), Cutter::default());
    let (mut assembled, mut passed) = (Vec::new(), Vec::new());
    let mut across = Boundaries::default();
    let mut messages = 0;
    for read in stream.chunks(read_len) {
        framer.push(read);
        while let Some((message_type, payload)) = framer.next().unwrap() {
            assembled.push(message_type.0);
            assembled.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
            assembled.extend_from_slice(payload);
            messages += 1;
        }
        let mut rest = read;
        while !rest.is_empty() {
            let Some(piece) = cutter.next_piece(&mut rest) else { continue };
            // One run from front to back: the piece belongs to one message.
            assert_eq!(across.next_run(piece).unwrap().len, piece.len());
            passed.extend_from_slice(piece);
        }
    }
    passed.extend_from_slice(cutter.kept_back());
    assert_eq!(passed, stream);
    assert!(stream.starts_with(&assembled));
    assert_eq!(framer.is_empty(), cutter.between_messages());
    assert_eq!(framer.is_empty(), assembled.len() == stream.len());
    assert!(messages <= stream.len() / 4);
});
