//! Messages of sessions as lines of the log (`--trace`): decoded in words.
//!
//! Not here: the words themselves (`packetlab`).

use std::io;

use tracing::{info, warn};

use super::place::{Place, TRACE_TARGET};
use crate::proto::tee::{Passed, Sender, Shown, TeeNews};
use packetlab::message::{HEADER_LEN, Message};
use packetlab::words::counted;

/// The log of the process.
pub(super) struct Log;

impl Place for Log {
    fn take(&mut self, shown: &Shown) -> io::Result<()> {
        let id = shown.session;
        let way = match shown.from {
            Sender::Endpoint => "endpoint > mlet",
            Sender::Mlet => "mlet > endpoint",
        };
        if shown.missing_before > 0 {
            let missing = counted(shown.missing_before, "message");
            warn!(target: TRACE_TARGET, session = id, "{way}: {missing} missing here");
        }
        if let TeeNews::Message(passed) = &shown.news {
            let after = shown.after.as_secs_f64();
            info!(target: TRACE_TARGET, session = id, "{after:.6} s {way}: {}", told(passed));
        }
        Ok(())
    }
}

/// Its size and its words.
fn told(passed: &Passed) -> String {
    let (size, message_type) = (counted(passed.len as u64, "byte"), passed.message_type());
    if !passed.is_whole {
        return format!("{size}, {message_type}, whose rest never came");
    }
    let payload = passed.payload();
    let message = Message::decode(message_type, payload);
    match (HEADER_LEN + payload.len() < passed.len, &message) {
        (false, _) => format!("{size}, {message}"),
        // The front of a message may break rules that the whole one keeps.
        (true, Message::Raw { .. }) => format!("{size}, {message_type}, too long to be decoded"),
        (true, _) => format!("{size}, of which the front is decoded: {message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::tee::KEPT_OF_PAYLOAD_MAX;

    #[test]
    fn a_message_is_told_with_its_size_whether_or_not_all_of_it_was_kept() {
        let whole = Passed::of(&[0x2b, 0, 0, 1, 5], (5, true));
        assert_eq!(told(&whole), "5 bytes, NCLOSE socket 5");
        let cut_off = Passed::of(&[0x2b, 0, 0, 1], (4, false));
        assert_eq!(told(&cut_off), "4 bytes, NCLOSE (0x2b), whose rest never came");
        // Of MDATA, and of a type without a name.
        let front = |kind| [&[kind, 1, 0x11, 0x70][..], &[0; KEPT_OF_PAYLOAD_MAX]].concat();
        let long = Passed::of(&front(0x41), (70_004, true));
        let words = "70004 bytes, of which the front is decoded: MDATA 65532 bytes at 0x00000000";
        assert_eq!(told(&long), words);
        let long = Passed::of(&front(0x99), (70_004, true));
        assert_eq!(told(&long), "70004 bytes, type 0x99, too long to be decoded");
    }
}
