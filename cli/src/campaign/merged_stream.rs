//! The file of all sessions of a merged folder, written. Its form is that of `results/stream_file.rs`.
//!
//! Not here: whose output it is (`merged_folder.rs`). Invariant: frames of a session stand in the order in which its mlet
//! wrote them, and each as it was.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};

use crate::results::folder::Stream;
use crate::results::stream_file::{FrameHead, HEAD, StreamOutput};

pub(super) struct MergedStream {
    file: BufWriter<File>,
    len: u64,
}

impl MergedStream {
    /// Begins a file, which is empty.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn begin(file: File) -> io::Result<Self> {
        let mut file = BufWriter::with_capacity(1 << 16, file);
        file.write_all(HEAD)?;
        Ok(Self { file, len: HEAD.len() as u64 })
    }

    /// Appends what a session wrote. Where the last frames of standard output and standard error begin, 0 if there is none.
    ///
    /// # Errors
    /// It cannot be read or written.
    pub(super) fn append(
        &mut self,
        session: u64,
        mut outputs: Vec<(Stream, StreamOutput)>,
    ) -> io::Result<[u64; 2]> {
        let mut last = [0; 2];
        self.head(FrameHead { what: b'b', session, before: 0, len: 0 })?;
        let mut pieces = Vec::new();
        for (index, (_, output)) in outputs.iter().enumerate() {
            pieces.extend(output.pieces().map(|(place, len)| (place, index, len)));
        }
        pieces.sort_unstable();
        for (_, index, len) in pieces {
            let Some((stream, output)) = outputs.get_mut(index) else { continue };
            let [stdout, stderr] = &mut last;
            let last = if *stream == Stream::Stdout { stdout } else { stderr };
            let head = FrameHead { what: stream.what(), session, before: *last, len };
            *last = self.head(head)?;
            let copied = io::copy(&mut output.by_ref().take(len.into()), &mut self.file)?;
            if copied != u64::from(len) {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(last)
    }

    /// No more comes.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.file.flush()
    }

    /// Where it begins. The bytes behind it are counted as written.
    fn head(&mut self, head: FrameHead) -> io::Result<u64> {
        let bytes = head.bytes();
        self.file.write_all(&bytes)?;
        let begin = self.len;
        self.len += bytes.len() as u64 + u64::from(head.len);
        Ok(begin)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// What the frames of a file say, in order.
    fn told(path: &std::path::Path) -> Vec<(char, u64, String)> {
        let bytes = fs::read(path).unwrap();
        let mut rest = bytes.strip_prefix(HEAD).unwrap();
        let mut told = Vec::new();
        while let Some((head, behind)) = rest.split_first_chunk::<24>() {
            let len = u32::from_be_bytes(*head.last_chunk().unwrap()) as usize;
            let session = u64::from_be_bytes(head[4..12].try_into().unwrap());
            let (text, behind) = behind.split_at(len);
            told.push((char::from(head[3]), session, String::from_utf8_lossy(text).into_owned()));
            rest = behind;
        }
        told
    }

    #[test]
    fn frames_stay_as_they_were_under_another_number() {
        let folder = std::env::temp_dir().join(format!("merged-stream-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let (source, target) = (folder.join("source"), folder.join("target"));
        let mut bytes = HEAD.to_vec();
        let mut places = Vec::new();
        for (what, before, text) in [(b'o', 0, "one "), (b'e', 0, "error"), (b'o', 18, "two")] {
            places.push(bytes.len() as u64);
            bytes.extend(FrameHead { what, session: 9, before, len: text.len() as u32 }.bytes());
            bytes.extend(text.as_bytes());
        }
        fs::write(&source, bytes).unwrap();
        let find = |path, session, stream, last, len| {
            StreamOutput::find(File::open(path).unwrap(), (session, stream), last, len).unwrap()
        };
        let outputs = || {
            let stdout = find(&source, 9, Stream::Stdout, places[2], 7);
            let stderr = find(&source, 9, Stream::Stderr, places[1], 5);
            vec![(Stream::Stdout, stdout), (Stream::Stderr, stderr)]
        };
        let mut merged = MergedStream::begin(File::create_new(&target).unwrap()).unwrap();
        merged.append(1, outputs()).unwrap();
        let [stdout_at, stderr_at] = merged.append(2, outputs()).unwrap();
        assert_eq!(merged.append(3, Vec::new()).unwrap(), [0, 0], "it wrote nothing");
        merged.finish().unwrap();
        let of = |session: u64| {
            [('b', ""), ('o', "one "), ('e', "error"), ('o', "two")]
                .map(|(what, text)| (what, session, text.to_owned()))
        };
        let third = ('b', 3, String::new());
        assert_eq!(told(&target), [&of(1)[..], &of(2), &[third]].concat());
        let mut text = String::new();
        let mut stdout = find(&target, 2, Stream::Stdout, stdout_at, 7);
        stdout.read_to_string(&mut text).unwrap();
        find(&target, 2, Stream::Stderr, stderr_at, 5).read_to_string(&mut text).unwrap();
        assert_eq!(text, "one twoerror");
        let cut = File::options().write(true).open(&source).unwrap();
        let last = outputs();
        cut.set_len(places[2] + 25).unwrap();
        assert!(last[0].1.check().is_err() && last[1].1.check().is_ok());
        fs::remove_dir_all(folder).unwrap();
    }
}
