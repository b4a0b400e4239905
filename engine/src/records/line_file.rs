//! A file of lines that is only ever appended to.
//!
//! Not here: what the lines are, and who waits for them (`journal.rs`). Invariant: what cannot be written is lost, counted
//! and told, and nothing else is; a line that got half into the file ends there, and the next begins a line of its own.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use tracing::error;

use crate::config::Destination;

/// Who pays for a campaign's results may read them, and nobody else.
const FILE_MODE: u32 = 0o600;

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
                let mut options = OpenOptions::new();
                let file = options.append(true).create(true).mode(FILE_MODE).open(path)?;
                let is_torn = file.metadata()?.is_file() && !ends_with_newline(path)?;
                (file, is_torn)
            }
        };
        Ok(Self { file, shown, unwritten: 0, is_torn, is_dirty: false })
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
        Self { file, shown: String::new(), unwritten: 0, is_torn: false, is_dirty: false }
    }

    /// Its name, for messages.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    /// Lines that could not be written.
    pub(super) fn unwritten(&self) -> u64 {
        self.unwritten
    }

    /// Writes a line, which has its newline, with one write where the file takes it whole.
    pub(super) fn write(&mut self, line: &[u8]) {
        let Err(error) = self.write_line(line) else { return };
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
            error!("the last records may not survive in {}: {error}", self.shown);
            self.unwritten += 1;
        }
    }

    fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        if self.is_torn {
            self.write_all(b"\n")?;
        }
        self.write_all(line)
    }

    fn write_all(&mut self, mut line: &[u8]) -> io::Result<()> {
        while !line.is_empty() {
            match self.file.write(line) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => {
                    line = &line[len..];
                    self.is_torn = !line.is_empty();
                    self.is_dirty = true;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
