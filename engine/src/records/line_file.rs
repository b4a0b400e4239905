//! A file of lines that is only ever appended to.
//!
//! Not here: what the lines are, who waits for them, and when they are written (`journal.rs`). Invariant: what cannot be written is lost, counted
//! and told, and nothing else is; a line that got half into the file ends there, and the next begins a line of its own.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::path::Path;

use tracing::error;

use crate::config::Destination;
use crate::guards::{Guard, holds};
use crate::sys::record_files;

/// Something that can be made to lie on the disk.
pub(super) trait Durable {
    /// What was written survives a loss of power afterwards.
    ///
    /// # Errors
    /// As the kernel says.
    fn sync(&mut self) -> io::Result<()>;
}

impl Durable for File {
    fn sync(&mut self) -> io::Result<()> {
        if record_files::is_removed(self) {
            return Err(record_files::removed());
        }
        match self.sync_data() {
            // Pipes and terminals have nothing to sync.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
            synced => synced,
        }
    }
}

/// The file, and what became of its lines.
pub(super) struct LineFile<F> {
    file: F,
    shown: String,
    /// Lines that are to be written together.
    gathered: Vec<u8>,
    /// Lines that are not in it.
    unwritten: u64,
    /// The file ends within a line.
    is_torn: bool,
    /// Something was written since the last sync.
    is_dirty: bool,
}

impl LineFile<File> {
    /// Opens it. A line that an earlier run has left torn is ended.
    ///
    /// # Errors
    /// It cannot be opened for writing.
    pub(super) fn open(destination: &Destination) -> io::Result<Self> {
        let shown = destination.to_string();
        let (file, is_torn) = match destination {
            Destination::Stdout => (File::from(io::stdout().as_fd().try_clone_to_owned()?), false),
            Destination::File(path) => {
                let file = record_files::open_to_append(path)?;
                let is_torn = file.metadata()?.is_file() && !ends_with_newline(path)?;
                (file, is_torn)
            }
        };
        Ok(Self { file, shown, gathered: Vec::new(), unwritten: 0, is_torn, is_dirty: false })
    }

    /// Nothing has been written to it.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub(super) fn is_empty(&self) -> io::Result<bool> {
        Ok(self.file.metadata()?.len() == 0)
    }
}

fn ends_with_newline(path: &Path) -> io::Result<bool> {
    let mut file = File::open(path)?;
    if file.seek(SeekFrom::End(0))? == 0 {
        return Ok(true);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

impl<F: Write + Durable> LineFile<F> {
    #[cfg(test)]
    pub(super) fn new(file: F) -> Self {
        let (shown, gathered) = (String::new(), Vec::new());
        Self { file, shown, gathered, unwritten: 0, is_torn: false, is_dirty: false }
    }

    /// Its name, for messages.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    /// Lines that could not be written.
    pub(super) fn unwritten(&self) -> u64 {
        self.unwritten
    }

    /// Takes a line, which has its newline, and writes it with others at the next [`LineFile::flush`], or before: no more
    /// are written together than what a pipe takes whole.
    pub(super) fn push(&mut self, line: &[u8]) {
        if self.gathered.len() + line.len() > record_files::WHOLE_LEN_MAX {
            self.flush();
        }
        self.gathered.extend_from_slice(line);
    }

    /// Writes the lines that it has taken, with one write where the file takes them whole. Whether all of them are in it.
    pub(super) fn flush(&mut self) -> bool {
        let unwritten = self.unwritten;
        let mut lines = std::mem::take(&mut self.gathered);
        let mut begin = 0;
        while let Some(rest) = lines.get(begin..).filter(|rest| !rest.is_empty()) {
            let (written, error) = self.write_lines(rest);
            begin += written;
            if let Err(error) = error {
                self.lose_line(&error);
                let rest = lines.get(begin..).unwrap_or_default();
                begin +=
                    rest.iter().position(|&byte| byte == b'\n').map_or(rest.len(), |end| end + 1);
            }
        }
        lines.clear();
        self.gathered = lines;
        self.unwritten == unwritten
    }

    fn lose_line(&mut self, error: &io::Error) {
        if self.unwritten == 0 {
            error!(
                "a record cannot be written to {}: {error}; it is lost, and so is each that cannot",
                self.shown
            );
        }
        self.unwritten += 1;
    }

    /// Puts what was written on the disk, if anything was.
    pub(super) fn sync(&mut self) {
        if !std::mem::take(&mut self.is_dirty) {
            return;
        }
        if let Err(error) = self.file.sync() {
            if self.unwritten == 0 {
                error!("the last records may not survive in {}: {error}", self.shown);
            }
            self.unwritten += 1;
        }
    }

    /// How many bytes of the lines are in the file, and why the others are not.
    fn write_lines(&mut self, lines: &[u8]) -> (usize, io::Result<()>) {
        if self.is_torn
            && holds(Guard::EndsTornLines)
            && let (_, Err(error)) = self.write_all(b"\n")
        {
            return (0, Err(error));
        }
        self.write_all(lines)
    }

    fn write_all(&mut self, bytes: &[u8]) -> (usize, io::Result<()>) {
        let mut written = 0;
        while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
            match self.file.write(rest) {
                Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
                Ok(len) => {
                    written += len;
                    self.is_torn = bytes.get(written - 1) != Some(&b'\n');
                    self.is_dirty = true;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (written, Err(error)),
            }
        }
        (written, Ok(()))
    }
}

#[cfg(test)]
mod tests;
