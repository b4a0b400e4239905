//! `pktxpmgr results cat`: what mlets printed, one session after another.
//!
//! What the one mlet of `-s` printed is of no single session, and comes first where all are wanted. Invariant: without `--tag`
//! bytes go out as they are, and nothing beside them; what cannot be read is told, and the rest comes. In memory there are
//! a buffer, and of the file of all sessions the places of one output (16 bytes for each of its frames).

use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};

use clap::Args;

use super::chosen::{Chosen, Sort, Wanted};
use super::failure::{Failure, warn};
use super::folder::{Folder, Stream};
use super::record::Session;
use super::words;

const EXAMPLES: &str = "\
Examples:
  pktxpmgr results cat DIR --outcome ok
  pktxpmgr results cat DIR --key ab12,cd34 --stderr
  pktxpmgr results cat DIR --tag >lines.tsv";

#[derive(Debug, Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct Options {
    #[command(flatten)]
    wanted: Wanted,

    /// What mlets wrote to standard error instead
    #[arg(long)]
    stderr: bool,

    /// Before each line, between tabs: session, fronts of key and snikey
    #[arg(long)]
    tag: bool,
}

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let folder = options.wanted.open()?;
    let chosen = Chosen::find(&folder, &options.wanted.filter, Sort::Session)?;
    let stream = if options.stderr { Stream::Stderr } else { Stream::Stdout };
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let mut with_output = 0;
    if options.wanted.filter.takes_all()
        && let Some(of_all) = folder.output_of_all(stream)
    {
        with_output += 1;
        let tag = options.tag.then_some("-\t-\t-\t");
        let unreadable = |error| unreadable(&folder, "the mlet of -s", stream, &error);
        show(of_all, &mut out, tag, unreadable)?;
    }
    for session in chosen.sessions(&folder) {
        let session = session?;
        let Some(output) = folder.output(&session, stream) else { continue };
        with_output += 1;
        let tag = options.tag.then(|| tag(&session));
        let of = format!("session {}", session.number);
        let unreadable = |error| unreadable(&folder, &of, stream, &error);
        show(output, &mut out, tag.as_deref(), unreadable)?;
    }
    out.flush()?;
    if with_output == 0 && chosen.len() > 0 {
        let sessions = words::counted(chosen.len() as u64, "session");
        warn(format!("{sessions} chosen, none with output"));
    }
    Ok(())
}

/// What stands before each line of a session.
fn tag(session: &Session) -> String {
    let key = words::front(session.ep.key.as_deref());
    let snikey = words::front(session.ep.snikey.as_deref());
    format!("{}\t{key}\t{snikey}\t", session.number)
}

fn unreadable(folder: &Folder, of: &str, stream: Stream, error: &io::Error) -> Failure {
    Failure::of_path(folder.path(), format!("the {} of {of}: {error}", stream.name()))
}

/// Copies an output, as far as it can be read. Of the others there is more to say than of one that cannot.
///
/// # Errors
/// It cannot be written.
fn show(
    output: Result<impl Read, Failure>,
    out: &mut impl Write,
    tag: Option<&str>,
    unreadable: impl Fn(io::Error) -> Failure,
) -> Result<(), Failure> {
    let fault = match output {
        Err(failure) => failure,
        Ok(output) => match copy(output, out, tag) {
            Ok(()) => return Ok(()),
            Err(Fault::Written(error)) => return Err(error.into()),
            Err(Fault::Read(error)) => unreadable(error),
        },
    };
    warn(fault);
    Ok(())
}

/// Which side of a copy failed.
#[derive(Debug)]
enum Fault {
    Read(io::Error),
    Written(io::Error),
}

/// Copies all of it, or what comes before a fault, with the tag before each line if there is one; a last line without an end
/// gets one then.
fn copy(from: impl Read, out: &mut impl Write, tag: Option<&str>) -> Result<(), Fault> {
    let mut from = BufReader::with_capacity(1 << 16, from);
    let mut is_line_begun = false;
    let read = loop {
        let chunk = match from.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => break Err(Fault::Read(error)),
            Ok(chunk) => chunk,
        };
        if chunk.is_empty() {
            break Ok(());
        }
        let len = match tag {
            None => chunk.len(),
            Some(tag) => {
                if !is_line_begun {
                    out.write_all(tag.as_bytes()).map_err(Fault::Written)?;
                }
                let end = chunk.iter().position(|byte| *byte == b'\n');
                is_line_begun = end.is_none();
                end.map_or(chunk.len(), |end| end + 1)
            }
        };
        out.write_all(&chunk[..len]).map_err(Fault::Written)?;
        from.consume(len);
    };
    if is_line_begun {
        out.write_all(b"\n").map_err(Fault::Written)?;
    }
    read
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copied(from: &[u8], tag: Option<&str>) -> Vec<u8> {
        let mut out = Vec::new();
        copy(from, &mut out, tag).unwrap();
        out
    }

    #[test]
    fn bytes_are_copied_as_they_are_and_lines_tagged_whole() {
        assert_eq!(copied(b"\xff\0one\n\ntwo", None), b"\xff\0one\n\ntwo");
        assert_eq!(copied(b"\xff\0one\n\ntwo", Some("7\t")), b"7\t\xff\0one\n7\t\n7\ttwo\n");
        assert_eq!(copied(b"", Some("7\t")), b"");
    }

    /// A disk that fails after some bytes.
    struct Failing<'a>(&'a [u8]);

    impl Read for Failing<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self.0.read(buffer)? {
                0 => Err(io::Error::other("the disk failed")),
                len => Ok(len),
            }
        }
    }

    #[test]
    fn what_comes_before_a_fault_is_copied_and_its_last_line_ended_if_lines_are_tagged() {
        for (tag, expected) in [(None, "one\ntw"), (Some("7\t"), "7\tone\n7\ttw\n")] {
            let mut out = Vec::new();
            let fault = copy(Failing(b"one\ntw"), &mut out, tag).unwrap_err();
            assert!(matches!(fault, Fault::Read(_)));
            assert_eq!(out, expected.as_bytes());
        }
    }

    #[test]
    fn a_line_longer_than_the_buffer_has_one_tag() {
        let line = [vec![b'x'; 200_000], b"\n".to_vec()].concat();
        assert_eq!(copied(&line, Some("t")), [b"t", &*line].concat());
    }
}
