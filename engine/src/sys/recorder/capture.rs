//! One mlet's output: its two pipes, how much came of each, and what is done with the bytes.
//!
//! Not here: when a pipe is read (`process.rs`). Invariant: every byte that is read is counted, and kept as far as the limit
//! goes and nothing before it was lost; of bytes no more are held than the beginning of a line.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::libc;

use super::keeping::{self, StreamFile, What};
use super::line_cutter::LineCutter;
use super::message::{RecordedOutput, RecordedStream};
use crate::guards::{Guard, holds};
use crate::sys::mlet_owner::MletOwner;

/// Which of a mlet's two pipes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    Stdout,
    Stderr,
}

impl Which {
    /// What a frame of it holds.
    fn what(self) -> What {
        match self {
            Self::Stdout => What::Stdout,
            Self::Stderr => What::Stderr,
        }
    }
}

/// Where bytes of a stream go to be kept.
#[derive(Debug)]
pub(super) enum Sink {
    /// Nowhere, or nowhere any more.
    Nothing,
    /// A file of its own.
    File(File),
    /// The file of all mlets.
    Stream,
}

/// A pipe.
#[derive(Debug)]
pub(super) struct Pipe {
    /// `None` once it is closed.
    pub(super) read_end: Option<OwnedFd>,
    /// Once only so many bytes more are read from it.
    pub(super) left: Option<usize>,
    /// What stands in no line yet.
    pub(super) lines: LineCutter,
    told: RecordedStream,
    sink: Sink,
}

impl Pipe {
    fn new(read_end: OwnedFd, sink: Sink) -> Self {
        let (told, lines) = (RecordedStream::default(), LineCutter::default());
        Self { read_end: Some(read_end), left: None, lines, told, sink }
    }
}

/// A mlet's output.
#[derive(Debug)]
pub(super) struct Captured {
    pub(super) owner: MletOwner,
    /// What stands before its lines.
    pub(super) tag: String,
    stdout: Pipe,
    stderr: Pipe,
    errno: i32,
    /// Its process has ended, and when it is read no longer is settled.
    pub(super) has_ended: bool,
}

impl Captured {
    pub(super) fn new(
        owner: MletOwner,
        tag: String,
        [stdout, stderr]: [OwnedFd; 2],
        sinks: [Sink; 2],
    ) -> Self {
        let [to_stdout, to_stderr] = sinks;
        let (stdout, stderr) = (Pipe::new(stdout, to_stdout), Pipe::new(stderr, to_stderr));
        Self { owner, tag, stdout, stderr, errno: 0, has_ended: false }
    }

    pub(super) fn pipe(&mut self, which: Which) -> &mut Pipe {
        match which {
            Which::Stdout => &mut self.stdout,
            Which::Stderr => &mut self.stderr,
        }
    }

    /// Nothing is read from it any more.
    pub(super) fn is_closed(&self) -> bool {
        self.stdout.read_end.is_none() && self.stderr.read_end.is_none()
    }

    /// Some of it is lost.
    pub(super) fn lose(&mut self, error: &io::Error) {
        if self.errno == 0 {
            self.errno = error.raw_os_error().unwrap_or(libc::EIO);
        }
    }

    /// Counts bytes that were read, and keeps those within the limit.
    pub(super) fn keep(
        &mut self,
        which: Which,
        bytes: &[u8],
        output_max: Option<u64>,
        stream_file: Option<&mut StreamFile>,
    ) {
        let owner = self.owner;
        let pipe = self.pipe(which);
        pipe.told.written += bytes.len() as u64;
        let output_max = output_max.filter(|_| holds(Guard::BoundsOutput));
        let room = output_max.map_or(u64::MAX, |max| max.saturating_sub(pipe.told.kept));
        let room = usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len());
        let bytes = bytes.get(..room).unwrap_or_default();
        if bytes.is_empty() {
            return;
        }
        let kept = match (&mut pipe.sink, stream_file) {
            (Sink::Nothing, _) => return,
            (Sink::File(file), _) => {
                let (len, kept) = keeping::append(file, bytes);
                pipe.told.kept += len;
                kept
            }
            (Sink::Stream, Some(file)) => {
                let frame = (owner.number(), which.what());
                file.append(frame, pipe.told.place, bytes).map(|place| {
                    pipe.told.place = place;
                    pipe.told.kept += bytes.len() as u64;
                })
            }
            (Sink::Stream, None) => Err(Errno::EIO.into()),
        };
        if let Err(error) = kept {
            // What is kept has no gap.
            pipe.sink = Sink::Nothing;
            self.lose(&error);
        }
    }

    /// What there is to tell of it, where the file of all mlets has this number.
    pub(super) fn told(&self, stream: u32) -> RecordedOutput {
        let (stdout, stderr) = (self.stdout.told, self.stderr.told);
        RecordedOutput { errno: self.errno, stream, stdout, stderr }
    }
}
