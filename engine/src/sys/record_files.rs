//! Files that records are written to: some are pipes that others read, some stand beside what mlets may write.
//!
//! Not here: what is written there. Invariant: opening one never waits for long, and never leads out of a results folder.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;

/// What a pipe takes whole, if it takes it in one write: nothing of others gets in between (pipe(7)).
pub(crate) const WHOLE_LEN_MAX: usize = libc::PIPE_BUF;

/// Whoever paid for a campaign's results may read them, and nobody else.
const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

/// How long a named pipe is tried that nobody reads yet: its reader may be started beside us.
const READER_PATIENCE: Duration = Duration::from_secs(2);
/// Pause between two tries.
const READER_RETRY: Duration = Duration::from_millis(20);

/// Opens a file, which is made if it is not there, for its owner alone.
///
/// # Errors
/// As the kernel says; of a named pipe also that no program reads it.
pub(crate) fn open_to_append(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(FILE_MODE).custom_flags(libc::O_NONBLOCK);
    #[expect(clippy::disallowed_methods, reason = "this is the start, before any machine runs")]
    let started = Instant::now();
    let file = loop {
        match options.open(path) {
            // The kernel would wait for a reader, and no signal would end that.
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => {
                if started.elapsed() >= READER_PATIENCE {
                    return Err(io::Error::other("no program has opened this pipe to read it"));
                }
                thread::sleep(READER_RETRY);
            }
            opened => break opened?,
        }
    };
    fcntl(&file, FcntlArg::F_SETFL(OFlag::O_APPEND))?;
    Ok(file)
}

/// Writes a file anew, for its owner alone. What a mlet may have put in its place is neither followed nor waited for.
///
/// # Errors
/// As the kernel says.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(FILE_MODE);
    options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?.write_all(bytes)
}

/// Makes a folder for its owner alone, unless it is there with nothing in it.
///
/// # Errors
/// As the kernel says; also if something is in it.
pub(crate) fn empty_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(path)?;
    match path.read_dir()?.next() {
        None => Ok(()),
        Some(_) => Err(io::Error::other("it is not empty")),
    }
}

/// Appends to a file that was opened for that. What of it was written when the rest finds no room is taken back, where it
/// is in a file, so that nothing is there by half.
///
/// # Errors
/// As the kernel says.
pub(crate) fn append_whole(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let problem = match file.write(rest) {
            Ok(len) if len > 0 => {
                rest = rest.get(len..).unwrap_or_default();
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Ok(_) => io::ErrorKind::WriteZero.into(),
            Err(error) => error,
        };
        let written = (bytes.len() - rest.len()) as u64;
        let found = file.metadata().ok().filter(|found| found.is_file());
        if let Some(before) = found.and_then(|found| found.len().checked_sub(written)) {
            // Where not even that goes, half of it is there.
            let _ = file.set_len(before);
        }
        return Err(problem);
    }
    Ok(())
}

/// Nobody finds the file any more: it was removed while it is written to.
pub(crate) fn is_removed(file: &File) -> bool {
    file.metadata().is_ok_and(|file| file.is_file() && file.nlink() == 0)
}

/// What is said of such a file.
pub(crate) fn removed() -> io::Error {
    io::Error::other("the file was removed")
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    #[test]
    fn what_stands_in_the_place_of_a_new_file_is_neither_followed_nor_waited_for() {
        let folder = std::env::temp_dir().join(format!("pktxpmgr-new-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let (path, target) = (folder.join("file"), folder.join("target"));
        for _ in 0..2 {
            write_new(&path, b"text").unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), b"text");
        }
        let file = File::open(&path).unwrap();
        assert!(!is_removed(&file));
        std::fs::remove_file(&path).unwrap();
        assert!(is_removed(&file));
        std::fs::write(&target, "before").unwrap();
        std::os::unix::fs::symlink(&target, &path).unwrap();
        write_new(&path, b"text").unwrap_err();
        assert_eq!(std::fs::read(&target).unwrap(), b"before");
        std::fs::remove_file(&path).unwrap();
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        write_new(&path, b"text").unwrap_err();
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_named_pipe_is_opened_for_a_reader_that_comes_late_and_no_other() {
        let path = std::env::temp_dir().join(format!("pktxpmgr-append-{}", std::process::id()));
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        let error = open_to_append(&path).unwrap_err().to_string();
        assert_eq!(error, "no program has opened this pipe to read it");
        let reader = thread::spawn({
            let path = path.clone();
            move || {
                let mut text = String::new();
                File::open(path).unwrap().read_to_string(&mut text).unwrap();
                text
            }
        });
        let mut file = open_to_append(&path).unwrap();
        // It waits, as it does for whoever writes to a file.
        let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL).unwrap());
        assert!(!flags.contains(OFlag::O_NONBLOCK) && flags.contains(OFlag::O_APPEND));
        file.write_all(b"line\n").unwrap();
        drop(file);
        assert_eq!(reader.join().unwrap(), "line\n");
        std::fs::remove_file(&path).unwrap();
    }
}
