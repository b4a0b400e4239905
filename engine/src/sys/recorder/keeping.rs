//! The files that output is kept in: two of each mlet, or one of all mlets of a run.
//!
//! ```text
//! file of all mlets   "pktxpmgr stream 1\n" | frames
//! frame               "PXF" | what 1 | session 8 | before 8 | length 4 | bytes
//! what                'b' a session begins, 'o' standard output, 'e' standard error
//! ```
//! Numbers are big-endian. `before` is where the frame before this one of the same stream begins, 0 for its first, so that
//! the last one, which a session's record tells, leads to all. A run that is killed leaves a last frame that is not whole.
//!
//! Not here: who reads them (the program). Invariant: what a file holds of a stream is how the stream began, without a gap,
//! and a file of all mlets has whole frames, but for the last.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc;

use crate::sys::record_files;

/// The folder of the files of all mlets, below the results folder.
const STREAMS: &str = "streams";
/// What they begin with.
const HEAD: &[u8] = b"pktxpmgr stream 1\n";
/// What each frame begins with.
const FRAME: &[u8] = b"PXF";
/// Before the bytes of a frame.
const FRAME_HEAD_LEN: usize = 24;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// Nothing: a session begins.
    Begin,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// The file of all mlets of a run.
#[derive(Debug)]
pub(super) struct StreamFile {
    file: File,
    number: u32,
    /// Where the next frame begins.
    len: u64,
    /// What is behind that could not be taken away.
    is_torn: bool,
}

impl StreamFile {
    /// Begins the file behind those that are in the results folder.
    ///
    /// # Errors
    /// It cannot be made.
    pub(super) fn begin(results: &Path) -> io::Result<Self> {
        let folder = results.join(STREAMS);
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let mut number = 1 + last_number(&folder)?;
        let file = loop {
            match make(&path_of(&folder, number)) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                made => break made?,
            }
        };
        let mut stream = Self { file, number, len: 0, is_torn: false };
        if let Err(error) = stream.write(&mut [IoSlice::new(HEAD)]) {
            // Or each session would leave one more, as long as the disk is full.
            let _ = std::fs::remove_file(path_of(&folder, number));
            return Err(error);
        }
        Ok(stream)
    }

    /// Its number.
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// Writes a frame of a session behind the one of the same stream that begins at `before`; where it begins.
    ///
    /// # Errors
    /// It is not in the file.
    pub(super) fn append(
        &mut self,
        (session, what): (u64, What),
        before: u64,
        bytes: &[u8],
    ) -> io::Result<u64> {
        let len = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        if what == What::Begin && record_files::is_removed(&self.file) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let what = match what {
            What::Begin => b'b',
            What::Stdout => b'o',
            What::Stderr => b'e',
        };
        let mut head = Vec::with_capacity(FRAME_HEAD_LEN);
        head.extend(FRAME);
        head.push(what);
        head.extend(session.to_be_bytes());
        head.extend(before.to_be_bytes());
        head.extend(len.to_be_bytes());
        let place = self.len;
        self.write(&mut [IoSlice::new(&head), IoSlice::new(bytes)])?;
        Ok(place)
    }

    /// Writes all of it or nothing.
    fn write(&mut self, mut parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        if self.is_torn {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut end = self.len;
        IoSlice::advance_slices(&mut parts, 0);
        while !parts.is_empty() {
            match self.file.write_vectored(parts) {
                Ok(0) => return Err(self.cut(io::ErrorKind::WriteZero.into())),
                Ok(len) => {
                    end += len as u64;
                    IoSlice::advance_slices(&mut parts, len);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.cut(error)),
            }
        }
        self.len = end;
        Ok(())
    }

    /// Takes away what was written of a frame.
    fn cut(&mut self, error: io::Error) -> io::Error {
        self.is_torn = self.file.set_len(self.len).is_err();
        error
    }
}

fn path_of(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("{number:04}.stream"))
}

fn last_number(folder: &Path) -> io::Result<u32> {
    let mut last = 0;
    for entry in folder.read_dir()? {
        let name = PathBuf::from(entry?.file_name());
        let is_stream = name.extension().is_some_and(|ending| ending == "stream");
        let number = name.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        last = last.max(number.filter(|_| is_stream).unwrap_or(0));
    }
    Ok(last)
}

fn make(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    options.open(path)
}

/// The files of one mlet, which are made if they are not there; what they hold stays.
pub(crate) fn open_files(folder: &Path) -> io::Result<[File; 2]> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let open = |name| {
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        options.open(folder.join(name))
    };
    Ok([open("stdout")?, open("stderr")?])
}

/// Appends to a file of one mlet; how much is in it, and why not all, if so.
pub(super) fn append(file: &mut File, mut bytes: &[u8]) -> (u64, io::Result<()>) {
    let mut written = 0;
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(len) => {
                written += len as u64;
                bytes = bytes.get(len..).unwrap_or_default();
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_has_these_bytes_and_leads_to_the_one_before() {
        let folder = std::env::temp_dir().join(format!("keeping-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let mut stream = StreamFile::begin(&folder).unwrap();
        assert_eq!(stream.append((7, What::Begin), 0, b"").unwrap(), 18);
        let first = stream.append((7, What::Stdout), 0, b"ab").unwrap();
        let second = stream.append((7, What::Stderr), first, b"\n").unwrap();
        assert_eq!((first, second), (42, 68));
        let bytes = std::fs::read(folder.join("streams/0001.stream")).unwrap();
        let expected = b"pktxpmgr stream 1\n\
            PXFb\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\0\0\0\0\0\
            PXFo\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\0\0\0\0\x02ab\
            PXFe\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\x2a\0\0\0\x01\n";
        assert_eq!(bytes, expected);
        assert_eq!(StreamFile::begin(&folder).unwrap().number(), 2, "of the next run");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
