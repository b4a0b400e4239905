//! `pktxpmgr results cat`: what mlets printed, one session after another.
//!
//! What the one mlet of `-s` printed is of no single session, and comes first where all are wanted. Invariant: without `--tag` bytes go out as they are, and nothing beside them. Of a file only a buffer is in memory.

use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};

use clap::Args;

use super::chosen::{Chosen, Sort, Wanted};
use super::failure::{Failure, warn};
use super::folder::{Folder, Stream};
use super::record::Session;
use super::words;

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    wanted: Wanted,

    /// What mlets wrote to standard error instead
    #[arg(long)]
    stderr: bool,

    /// Before each line, between tabs: session, front of the key, snikey
    #[arg(long)]
    tag: bool,
}

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let folder = Folder::open(&options.wanted.dir)?;
    let chosen = Chosen::find(&folder, &options.wanted.filter, Sort::Session)?;
    let stream = if options.stderr { Stream::Stderr } else { Stream::Stdout };
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let mut with_output = 0;
    if options.wanted.filter.takes_all()
        && let Some(of_all) = folder.output_of_all(stream)
    {
        with_output += 1;
        let tag = options.tag.then_some("-\t-\t-\t");
        copy(of_all?, &mut out, tag).map_err(|error| match error {
            Fault::Read(error) => {
                let stream = stream.name();
                Failure::of_path(folder.path(), format!("the {stream} of the mlet of -s: {error}"))
            }
            Fault::Written(error) => error.into(),
        })?;
    }
    for session in chosen.sessions(&folder) {
        let session = session?;
        with_output += usize::from(session.output.is_some());
        match folder.output(&session, stream) {
            None => {}
            // Of the others there is more to say than of this one.
            Some(Err(failure)) => warn(failure),
            Some(Ok(file)) => {
                let tag = options.tag.then(|| tag(&session));
                copy(file, &mut out, tag.as_deref()).map_err(|error| match error {
                    Fault::Read(error) => unreadable(&folder, &session, stream, &error),
                    Fault::Written(error) => error.into(),
                })?;
            }
        }
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
    let key = words::key(session.ep.key.as_deref());
    let snikey = session.ep.snikey.as_deref().map_or_else(|| "-".into(), words::shown);
    format!("{}\t{key}\t{snikey}\t", session.number)
}

fn unreadable(folder: &Folder, session: &Session, stream: Stream, error: &io::Error) -> Failure {
    let (number, stream) = (session.number, stream.name());
    Failure::of_path(folder.path(), format!("the {stream} of session {number}: {error}"))
}

/// Which side of a copy failed.
#[derive(Debug)]
enum Fault {
    Read(io::Error),
    Written(io::Error),
}

/// Copies all of it, with the tag before each line if there is one; a last line without an end gets one then.
fn copy(from: impl Read, out: &mut impl Write, tag: Option<&str>) -> Result<(), Fault> {
    let mut from = BufReader::with_capacity(1 << 16, from);
    let mut is_line_begun = false;
    loop {
        let chunk = match from.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            chunk => chunk.map_err(Fault::Read)?,
        };
        if chunk.is_empty() {
            break;
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
    }
    if is_line_begun { out.write_all(b"\n").map_err(Fault::Written) } else { Ok(()) }
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

    #[test]
    fn a_line_longer_than_the_buffer_has_one_tag() {
        let line = [vec![b'x'; 200_000], b"\n".to_vec()].concat();
        assert_eq!(copied(&line, Some("t")), [b"t", &*line].concat());
    }
}
