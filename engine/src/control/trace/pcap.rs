//! Messages of sessions in one file for Wireshark (`--pcap`), which `docs/packetlab.lua` takes apart there: pcapng with the
//! first link type that is free for everybody's use. What its packets hold is in operating.md "Messages in files".
//!
//! Not here: what is shown (`proto/tee.rs`). Invariant: the file holds whole blocks.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Instant;

use super::place::{Place, found_by_mlet};
use crate::config::RunId;
use crate::control::clock::{now, wall};
use crate::proto::tee::{Sender, Shown, TeeNews};
use crate::sys::record_files;
use packetlab::time::Ticks;

/// LINKTYPE_USER0.
const LINK_TYPE: u16 = 147;

/// Types of blocks (draft-ietf-opsawg-pcapng 4).
const SECTION: u32 = 0x0A0D_0D0A;
const INTERFACE: u32 = 1;
const PACKET: u32 = 6;

/// The layout of what stands before each message.
const VERSION: u8 = 1;

/// The file.
pub(super) struct Pcap {
    file: File,
    /// The blocks before all packets are in it. A run that could not begin leaves an empty file to the next one.
    is_begun: bool,
    run: Option<RunId>,
    /// Two clocks at the same time, so that the times of all packets are by one that is never set.
    started: (Instant, Ticks),
}

impl Pcap {
    /// Begins a file that is empty or not there yet, or a pipe.
    ///
    /// # Errors
    /// It cannot be written, or holds something.
    pub(super) fn open(path: &Path, run: Option<RunId>) -> io::Result<Self> {
        let file = record_files::open_to_append(path)?;
        if file.metadata()?.len() > 0 {
            return Err(io::Error::other("it holds something already"));
        }
        Ok(Self { file, is_begun: false, run, started: (now(), wall()) })
    }
}

impl Place for Pcap {
    fn take(&mut self, shown: &Shown) -> io::Result<()> {
        let (instant, time) = self.started;
        let time = time.saturating_add(shown.at.saturating_duration_since(instant));
        let begun = std::mem::replace(&mut self.is_begun, true);
        let mut blocks = if begun { Vec::new() } else { [section(), interface()].concat() };
        let mut add = |what, flags, body: &[u8], len: usize| {
            blocks.extend(packet(time, (shown, what, flags), (body, len)));
        };
        if shown.missing_before > 0 {
            add(What::Missing, 0, &shown.missing_before.to_be_bytes(), 8);
        }
        match &shown.news {
            TeeNews::Begun(facts) => {
                let found = found_by_mlet(self.run, shown.session, facts, ["", "=", "\n"]);
                let found = found.unwrap_or_default().concat();
                add(What::Begun, 0, found.as_bytes(), found.len());
            }
            TeeNews::Message(passed) => {
                add(What::Message, u8::from(!passed.is_whole), passed.bytes(), passed.len);
            }
            TeeNews::Ended => add(What::Ended, 0, &[], 0),
            TeeNews::Over => {}
        }
        record_files::append_whole(&mut self.file, &blocks)
    }
}

/// What a packet holds.
#[derive(Debug, Clone, Copy)]
enum What {
    Message = 0,
    Begun = 1,
    Ended = 2,
    Missing = 3,
}

fn section() -> Vec<u8> {
    let byte_order = 0x1A2B_3C4D_u32.to_le_bytes();
    let version = [1, 0, 0, 0];
    let unknown_len = u64::MAX.to_le_bytes();
    block(SECTION, &[&byte_order[..], &version, &unknown_len].concat())
}

fn interface() -> Vec<u8> {
    let link_type = u32::from(LINK_TYPE).to_le_bytes();
    // Packets are cut by the tee, not here. Then options: the name, times in nanoseconds, no more.
    let (snap_len, name, nanoseconds) =
        ([0; 4], *b"\x02\0\x08\0pktxpmgr", *b"\x09\0\x01\0\x09\0\0\0");
    let options = [&name[..], &nanoseconds, &[0; 4]].concat();
    block(INTERFACE, &[&link_type[..], &snap_len, &options].concat())
}

/// A packet of `len` bytes, of which `body` is kept.
fn packet(
    time: Ticks,
    (shown, what, flags): (&Shown, What, u8),
    (body, len): (&[u8], usize),
) -> Vec<u8> {
    let from = match shown.from {
        Sender::Endpoint => 0,
        Sender::Mlet => 1,
    };
    let head = [&[VERSION, what as u8, from, flags][..], &shown.session.to_be_bytes()].concat();
    let lens = [head.len() + body.len(), head.len() + len];
    let lens = lens.map(|len| u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes()).concat();
    let (high, low) = ((time.0 >> 32) as u32, time.0 as u32);
    let interface_and_time = [0, high, low].map(u32::to_le_bytes).concat();
    block(PACKET, &[&interface_and_time[..], &lens, &head, body].concat())
}

/// A block of this type, filled up to whole words.
fn block(block_type: u32, body: &[u8]) -> Vec<u8> {
    let padding = vec![0; body.len().next_multiple_of(4) - body.len()];
    let len = u32::try_from(12 + body.len() + padding.len()).unwrap_or(u32::MAX).to_le_bytes();
    [&block_type.to_le_bytes()[..], &len, body, &padding, &len].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::tee::Passed;

    #[test]
    fn a_message_is_a_packet_of_whole_words_with_the_time_in_nanoseconds() {
        let news = TeeNews::Message(Passed::of(&[0x2b, 0, 0, 1, 5], (5, true)));
        let (session, from, at) = (7, Sender::Mlet, now());
        let shown = Shown { session, from, at, after: Default::default(), missing_before: 0, news };
        let told =
            packet(Ticks(0x1_0000_0002), (&shown, What::Message, 0), (&[0x2b, 0, 0, 1, 5], 9));
        let expected = [
            &b"\x06\0\0\0\x34\0\0\0\0\0\0\0\x01\0\0\0\x02\0\0\0\x11\0\0\0\x15\0\0\0"[..],
            b"\x01\0\x01\0\0\0\0\0\0\0\0\x07\x2b\0\0\x01\x05\0\0\0\x34\0\0\0",
        ];
        assert_eq!(told, expected.concat());
        assert_eq!((section().len(), interface().len()), (28, 44));
    }

    #[test]
    fn how_many_messages_are_missing_stands_before_the_next_one() {
        let path = std::env::temp_dir().join(format!("pktxpmgr-pcap-{}", std::process::id()));
        let mut pcap = Pcap::open(&path, None).unwrap();
        let news = TeeNews::Message(Passed::of(&[0x2b, 0, 0, 1, 5], (5, true)));
        let (from, at) = (Sender::Mlet, now());
        let shown =
            Shown { session: 7, from, at, after: Default::default(), missing_before: 3, news };
        pcap.take(&shown).unwrap();
        let file = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let head = |what: What| [VERSION, what as u8, 1, 0, 0, 0, 0, 0, 0, 0, 0, 7];
        let missing = [&head(What::Missing)[..], &3_u64.to_be_bytes()].concat();
        let message = [&head(What::Message)[..], &[0x2b, 0, 0, 1, 5]].concat();
        let place = |bytes: &[u8]| file.windows(bytes.len()).position(|window| window == bytes);
        assert!(place(&missing).unwrap() < place(&message).unwrap());
    }
}
