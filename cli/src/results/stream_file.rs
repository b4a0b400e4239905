//! The file that holds the output of all sessions of a run (`--stream`), read.
//!
//! ```text
//! file    "pktxpmgr stream 1\n" | frames
//! frame   "PXF" | what 1 | session 8 | before 8 | length 4 | bytes
//! what    'b' a session begins, 'o' standard output, 'e' standard error
//! ```
//! Numbers are big-endian. A session's record tells where the last frame of each of its outputs begins, and `before` where
//! the one before that does, 0 for the first. A last frame that is not whole is of a run that still writes or was killed,
//! and no record leads to it.
//!
//! Not here: who writes it (the engine). Invariant: whatever the file holds, nothing is read twice and nothing of another
//! session.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

/// What the file begins with.
pub(crate) const HEAD: &[u8] = b"pktxpmgr stream 1\n";
/// What each frame begins with.
const FRAME: &[u8] = b"PXF";
/// Before the bytes of a frame.
const FRAME_HEAD_LEN: usize = 24;

/// Which of a mlet's two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }

    /// What a frame of it is.
    pub(crate) fn what(self) -> u8 {
        match self {
            Self::Stdout => b'o',
            Self::Stderr => b'e',
        }
    }
}

/// What stands before the bytes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHead {
    pub(crate) what: u8,
    pub(crate) session: u64,
    pub(crate) before: u64,
    pub(crate) len: u32,
}

impl FrameHead {
    /// Its bytes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let Self { what, session, before, len } = self;
        let numbers = [&session.to_be_bytes()[..], &before.to_be_bytes(), &len.to_be_bytes()];
        [FRAME, &[*what], &numbers.concat()].concat()
    }

    fn read(file: &File, place: u64) -> io::Result<Option<Self>> {
        let mut bytes = [0; FRAME_HEAD_LEN];
        match file.read_exact_at(&mut bytes, place) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        let [p, x, f, what, numbers @ ..] = bytes;
        let number = |from: usize, len: usize| {
            let bytes = numbers.iter().skip(from).take(len);
            bytes.fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
        };
        let len = u32::try_from(number(16, 4)).unwrap_or(u32::MAX);
        let head = Self { what, session: number(0, 8), before: number(8, 8), len };
        Ok(Some(head).filter(|_| [p, x, f] == FRAME))
    }
}

/// One output of one session.
#[derive(Debug)]
pub(crate) struct StreamOutput {
    file: File,
    /// Where its bytes are that have not been read, and how many, in order: one of each write of the mlet at most.
    pieces: VecDeque<(u64, u32)>,
}

impl StreamOutput {
    /// Finds an output of so many bytes by its last frame.
    ///
    /// # Errors
    /// The file does not hold it, or cannot be read.
    pub(crate) fn find(
        file: File,
        (session, stream): (u64, Stream),
        last: u64,
        len: u64,
    ) -> io::Result<Self> {
        let refuse =
            || io::Error::new(io::ErrorKind::InvalidData, "the file does not hold it whole");
        let what = stream.what();
        let (mut pieces, mut found) = (VecDeque::new(), 0_u64);
        let (mut place, mut behind) = (last, u64::MAX);
        while place != 0 {
            let head = FrameHead::read(&file, place)?.ok_or_else(refuse)?;
            let bytes_at = place + FRAME_HEAD_LEN as u64;
            // One that reaches into the frame behind it would have bytes of that read twice.
            let is_apart = bytes_at.saturating_add(head.len.into()) <= behind;
            if (head.what, head.session) != (what, session) || head.before >= place || !is_apart {
                return Err(refuse());
            }
            pieces.push_front((bytes_at, head.len));
            found += u64::from(head.len);
            (place, behind) = (head.before, place);
        }
        if found == len { Ok(Self { file, pieces }) } else { Err(refuse()) }
    }

    /// Where its bytes are that have not been read, and how many, in order.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = (u64, u32)> {
        self.pieces.iter().copied()
    }

    /// The file holds them all: of a file that was cut, the last frame's head may be there without its bytes.
    ///
    /// # Errors
    /// It does not, or cannot be asked.
    pub(crate) fn check(&self) -> io::Result<()> {
        let end = self.pieces.back().map_or(0, |(place, len)| place.saturating_add((*len).into()));
        match self.file.metadata()?.len() < end {
            true => Err(io::ErrorKind::UnexpectedEof.into()),
            false => Ok(()),
        }
    }
}

impl Read for StreamOutput {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some((place, len)) = self.pieces.front_mut() {
            if *len == 0 {
                self.pieces.pop_front();
                continue;
            }
            let wanted = buffer.len().min(usize::try_from(*len).unwrap_or(usize::MAX));
            let Some(buffer) = buffer.get_mut(..wanted).filter(|buffer| !buffer.is_empty()) else {
                return Ok(0);
            };
            let read = self.file.read_at(buffer, *place)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            *place += read as u64;
            *len -= u32::try_from(read).unwrap_or(*len);
            return Ok(read);
        }
        Ok(0)
    }
}

/// The highest number of a session that a file holds, whether or not that has a record; 0 if it holds none.
///
/// # Errors
/// It cannot be read.
pub(crate) fn last_session(file: &File) -> io::Result<u64> {
    let mut place = HEAD.len() as u64;
    let mut last = 0;
    while let Some(head) = FrameHead::read(file, place)? {
        last = last.max(head.session);
        place += FRAME_HEAD_LEN as u64 + u64::from(head.len);
    }
    Ok(last)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// A file with the frames of two sessions by turns, which ends within a frame, and where each begins.
    fn written() -> (File, Vec<u64>) {
        let mut bytes = HEAD.to_vec();
        let mut places = Vec::new();
        let frames = [
            (b'b', 7, 0, &b""[..]),
            (b'o', 7, 0, b"one "),
            (b'o', 9, 0, b"of another"),
            (b'e', 7, 0, b"error"),
            (b'o', 7, 1, b"two"),
            (b'o', 8, 0, b"torn"),
        ];
        for (what, session, before, text) in frames {
            let before: u64 = if before == 0 { 0 } else { places[before] };
            places.push(bytes.len() as u64);
            bytes.extend(FRAME);
            bytes.push(what);
            bytes.extend(u64::to_be_bytes(session));
            bytes.extend(before.to_be_bytes());
            bytes.extend((text.len() as u32).to_be_bytes());
            bytes.extend(text);
        }
        let path = std::env::temp_dir().join(format!(
            "stream-file-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        let mut file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        file.write_all(&bytes[..bytes.len() - 20]).unwrap();
        (file, places)
    }

    fn output(session: u64, stream: Stream, last: usize, len: u64) -> io::Result<String> {
        let (file, places) = written();
        let mut text = String::new();
        let mut found = StreamOutput::find(file, (session, stream), places[last], len)?;
        found.read_to_string(&mut text)?;
        Ok(text)
    }

    #[test]
    fn an_output_is_found_by_its_last_frame() {
        assert_eq!(output(7, Stream::Stdout, 4, 7).unwrap(), "one two");
        assert_eq!(output(7, Stream::Stderr, 3, 5).unwrap(), "error");
        assert_eq!(output(9, Stream::Stdout, 2, 10).unwrap(), "of another");
        let (file, _) = written();
        let mut none = StreamOutput::find(file, (7, Stream::Stderr), 0, 0).unwrap();
        assert_eq!(none.read(&mut [0; 8]).unwrap(), 0, "it wrote nothing");
    }

    #[test]
    fn nothing_of_another_session_or_beyond_the_file_is_read() {
        for (session, stream, last, len) in [
            (9, Stream::Stdout, 4, 7),
            (7, Stream::Stderr, 4, 7),
            (7, Stream::Stdout, 4, 8),
            (8, Stream::Stdout, 5, 4),
        ] {
            let error = output(session, stream, last, len).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
        let (file, places) = written();
        let within = StreamOutput::find(file, (7, Stream::Stdout), places[4] + 1, 7);
        assert_eq!(within.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn frames_that_lie_within_one_another_are_not_read_twice() {
        let (file, places) = written();
        let frame =
            |before: u64, len: u32| FrameHead { what: b'o', session: 5, before, len }.bytes();
        // The first of two claims the bytes of the second.
        let first = places[5];
        file.set_len(first).unwrap();
        let second = first + FRAME_HEAD_LEN as u64;
        let frames = [frame(0, 28), frame(first, 4), b"text".to_vec()].concat();
        file.write_all_at(&frames, first).unwrap();
        let found = StreamOutput::find(file, (5, Stream::Stdout), second, 32);
        assert_eq!(found.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn the_highest_session_is_found_up_to_a_frame_that_is_torn() {
        let (file, places) = written();
        assert_eq!(last_session(&file).unwrap(), 9);
        file.set_len(places[2]).unwrap();
        assert_eq!(last_session(&file).unwrap(), 7);
        file.set_len(3).unwrap();
        assert_eq!(last_session(&file).unwrap(), 0);
    }
}
