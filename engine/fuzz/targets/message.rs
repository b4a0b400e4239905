//! One message: the first byte is its type, the rest its payload. Decoding never fails; what it gives
//! encodes and decodes to itself, raw payloads stay bit by bit, and its words are one line.

#![no_main]

use libfuzzer_sys::fuzz_target;
use packetlab::message::{HEADER_LEN, Message, MessageType};

fuzz_target!(|input: &[u8]| {
    let Some((&message_type, payload)) = input.split_first() else { return };
    let message = Message::decode(MessageType(message_type), payload);
    assert!(!message.to_string().contains(char::is_control), "it is told on one line");
    let mut frame = Vec::new();
    message.encode(&mut frame).unwrap();
    if matches!(message, Message::Raw { .. }) {
        assert_eq!((frame[0], &frame[HEADER_LEN..]), (message_type, payload));
    }
    assert_eq!(Message::decode(MessageType(frame[0]), &frame[HEADER_LEN..]), message);
});
