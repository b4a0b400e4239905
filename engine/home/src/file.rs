//! Files read without waiting, and files for their owner alone, written whole or not at all.
//!
//! Not here: what is in them. Invariant: under the final name there is never a part of a file, also
//! after a crash, and [`create`] never overwrites one. No FIFO or device holds up a reader.

use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use zeroize::Zeroizing;

/// Reads a whole regular file, which may be secret.
///
/// # Errors
/// It cannot be read, is no regular file, or is longer than this.
pub fn read(path: &Path, len_bytes_max: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    let file = open(path)?;
    let expected = usize::try_from(file.metadata()?.len().min(len_bytes_max)).unwrap_or(0);
    // Room for all at once: growing would leave copies behind that nobody wipes.
    let mut bytes = Zeroizing::new(Vec::with_capacity(expected + 64));
    file.take(len_bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > len_bytes_max {
        return Err(io::Error::other(format!("it is longer than {len_bytes_max} bytes")));
    }
    Ok(bytes)
}

/// Opens a regular file to read it. Nothing else is opened, and a FIFO without a writer is not waited
/// for.
///
/// # Errors
/// It cannot be opened, or is no regular file.
pub fn open(path: &Path) -> io::Result<File> {
    let file = open_at_once(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_file() {
        return Ok(file);
    }
    let what = match kind {
        _ if kind.is_dir() => "a directory",
        _ if kind.is_fifo() => "a FIFO",
        _ => "a device",
    };
    Err(io::Error::other(format!("it is not a regular file but {what}")))
}

fn open_at_once(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits()).open(path)
}

/// A file, or a pipe into which somebody is about to write.
#[derive(Debug)]
pub struct Patient {
    file: File,
    patience: PollTimeout,
}

impl Patient {
    /// Opens it. In a pipe each read waits for so long at most; a terminal waits for its user.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(path: &Path, patience: Duration) -> io::Result<Self> {
        let file = open_at_once(path)?;
        let patience = match file.metadata()?.file_type().is_char_device() {
            true => PollTimeout::NONE,
            false => PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX),
        };
        Ok(Self { file, patience })
    }

    /// The opened file, to ask who may use it.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }
}

/// A regular file never waits.
impl From<File> for Patient {
    fn from(file: File) -> Self {
        Self { file, patience: PollTimeout::ZERO }
    }
}

impl Read for Patient {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        // Also before the first read, which would find the end of a pipe that nobody has opened yet.
        let mut waits = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
        match poll(&mut waits, self.patience)? {
            0 => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "nothing came out of this pipe in time",
            )),
            _ => self.file.read(room),
        }
    }
}

/// Reads a secret to its end, of a file or pipe that not everybody may use.
///
/// # Errors
/// It cannot be read, everybody may read or write it, or it is longer than this.
pub fn read_secret(mut opened: Patient, len_bytes_max: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    check_closed_to_others(&opened.file)?;
    // Full length from the start: growing would leave copies behind that nobody wipes.
    let mut bytes = Zeroizing::new(vec![0; len_bytes_max]);
    let mut len = 0;
    loop {
        let Some(room) = bytes.get_mut(len..).filter(|room| !room.is_empty()) else {
            return Err(io::Error::other(format!("it is longer than {len_bytes_max} bytes")));
        };
        match opened.read(room) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(len);
    Ok(bytes)
}

/// Refuses a file that everybody may read or write. Asks the opened file, because a path could be exchanged in between.
///
/// # Errors
/// It is one.
pub fn check_closed_to_others(file: &File) -> io::Result<()> {
    let mode = file.metadata()?.mode() & 0o7777;
    if mode & 0o006 != 0 {
        let problem = format!("everybody may read or write it (mode {mode:04o}); chmod 600 it");
        return Err(io::Error::other(problem));
    }
    Ok(())
}

/// The first line without its end, which is what counts of a file with a passphrase.
#[must_use]
pub fn first_line(mut text: Zeroizing<Vec<u8>>) -> Zeroizing<Vec<u8>> {
    let end = text.iter().position(|byte| *byte == b'\n').unwrap_or(text.len());
    text.truncate(end);
    if text.ends_with(b"\r") {
        text.truncate(end - 1);
    }
    text
}

/// Makes a file of mode 0600.
///
/// # Errors
/// It exists, or cannot be written; nothing is left behind then.
pub fn create(path: &Path, contents: &[u8]) -> io::Result<()> {
    let unfinished = Unfinished::write(path, contents, 0o600)?;
    // Unlike a rename, a link never takes the place of something.
    fs::hard_link(&unfinished.path, path)?;
    drop(unfinished);
    sync_parent(path)
}

/// Exchanges the contents of a file, and keeps its mode.
///
/// # Errors
/// It does not exist or cannot be written; it is as before then.
pub fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    // A link stays a link: what it points to is exchanged.
    let path = fs::canonicalize(path)?;
    let mode = fs::metadata(&path)?.mode() & 0o777;
    let unfinished = Unfinished::write(&path, contents, mode)?;
    fs::rename(&unfinished.path, &path)?;
    sync_parent(&path)
}

/// Makes a file of mode 0600, or exchanges the one that is there. Until it has its name it is beside it, with the ending
/// `new`; nobody else may write there meanwhile. What a crash leaves under that name, the next call takes away.
///
/// # Errors
/// It cannot be written; what was there is as before.
pub fn put(path: &Path, contents: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        removed => removed?,
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(contents)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    sync_parent(path)
}

/// A name beside `path` that nobody can foretell.
pub(super) fn beside(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{:016x}", RandomState::new().hash_one(path)));
    path.with_file_name(name)
}

/// Makes a new name in its directory survive a power failure.
pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if parent != Path::new("") => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

/// A whole file that has not got its name yet, removed when dropped.
struct Unfinished {
    path: PathBuf,
}

impl Unfinished {
    fn write(path: &Path, contents: &[u8], mode: u32) -> io::Result<Self> {
        let unfinished = Self { path: beside(path) };
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(mode);
        let mut file = options.open(&unfinished.path)?;
        file.write_all(contents)?;
        file.sync_all()?;
        Ok(unfinished)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A directory of its own for each test, gone with it.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new() -> Self {
            let path = beside(&std::env::temp_dir().join("engine-file-test"));
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.0).unwrap();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_new_file_is_whole_private_and_alone() {
        let scratch = Scratch::new();
        let path = scratch.0.join("a");
        create(&path, b"contents").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"contents");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(scratch.names(), ["a"]);
    }

    #[test]
    fn only_regular_files_are_read_and_no_fifo_is_waited_for() {
        let scratch = Scratch::new();
        let (path, fifo) = (scratch.0.join("a"), scratch.0.join("b"));
        create(&path, b"contents").unwrap();
        assert_eq!(**read(&path, 8).unwrap(), *b"contents");
        let problem = |path: &Path| read(path, 7).unwrap_err().to_string();
        assert_eq!(problem(&path), "it is longer than 7 bytes");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(problem(&fifo), "it is not a regular file but a FIFO");
        assert_eq!(problem(&scratch.0), "it is not a regular file but a directory");
        assert_eq!(problem(Path::new("/dev/zero")), "it is not a regular file but a device");
        let mut nobody = Patient::open(&fifo, Duration::from_millis(1)).unwrap();
        assert_eq!(nobody.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn what_is_written_into_a_pipe_is_waited_for() {
        let scratch = Scratch::new();
        let fifo = scratch.0.join("a");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut reader = Patient::open(&fifo, Duration::from_secs(60)).unwrap();
        let writer = std::thread::spawn(move || fs::write(fifo, b"contents").unwrap());
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        writer.join().unwrap();
        assert_eq!(bytes, b"contents");
    }

    #[test]
    fn a_secret_is_read_whole_if_it_is_closed_to_others_and_no_longer_than_allowed() {
        let scratch = Scratch::new();
        let path = scratch.0.join("secret");
        create(&path, b"hunter2\n").unwrap();
        let read = |len_max| {
            let secret = read_secret(open(&path).unwrap().into(), len_max);
            secret.map(|secret| secret.to_vec()).map_err(|error| error.to_string())
        };
        assert_eq!(read(9), Ok(b"hunter2\n".to_vec()));
        assert_eq!(read(7), Err("it is longer than 7 bytes".into()));
        for (mode, shown) in [(0o604, "0604"), (0o602, "0602")] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let told = format!("everybody may read or write it (mode {shown}); chmod 600 it");
            assert_eq!(read(9), Err(told));
        }
    }

    #[test]
    fn the_first_line_is_without_its_end() {
        for (text, expected) in [
            ("hunter2\n", "hunter2"),
            ("hunter2", "hunter2"),
            ("hunter2\r\nmore\n", "hunter2"),
            (" a b \n", " a b "),
            ("\n", ""),
            ("", ""),
        ] {
            let line = first_line(Zeroizing::new(text.as_bytes().to_vec()));
            assert_eq!(&**line, expected.as_bytes(), "{text:?}");
        }
    }

    #[test]
    fn an_existing_file_or_dangling_link_is_not_overwritten() {
        let scratch = Scratch::new();
        let (path, link) = (scratch.0.join("a"), scratch.0.join("b"));
        create(&path, b"first").unwrap();
        let error = create(&path, b"second").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"first");
        std::os::unix::fs::symlink(scratch.0.join("nowhere"), &link).unwrap();
        assert!(create(&link, b"third").is_err());
        assert_eq!(scratch.names().len(), 2);
    }

    #[test]
    fn a_file_that_is_put_is_private_and_takes_the_place_of_what_a_crash_has_left() {
        let scratch = Scratch::new();
        let path = scratch.0.join("a.json");
        fs::write(scratch.0.join("a.new"), b"more than the contents, but tor").unwrap();
        for contents in [&b"first"[..], b"2nd"] {
            put(&path, contents).unwrap();
            assert_eq!(fs::read(&path).unwrap(), contents);
            assert_eq!(scratch.names(), ["a.json"]);
        }
        fs::create_dir(scratch.0.join("a.new")).unwrap();
        assert!(put(&path, b"third").is_err());
        assert_eq!(fs::read(&path).unwrap(), b"2nd");
        fs::remove_file(&path).unwrap();
        fs::remove_dir(scratch.0.join("a.new")).unwrap();
        put(&path, b"anew").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    }

    #[test]
    fn a_replaced_file_keeps_its_mode_and_a_missing_one_is_not_made() {
        let scratch = Scratch::new();
        let (path, link) = (scratch.0.join("a"), scratch.0.join("b"));
        fs::write(&path, b"first").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        replace(&link, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
        assert!(link.is_symlink());
        assert!(replace(&scratch.0.join("c"), b"").is_err());
        assert_eq!(scratch.names().len(), 2);
    }
}
