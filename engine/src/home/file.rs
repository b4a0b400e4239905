//! Files for their owner alone, written whole or not at all.
//!
//! Not here: what is in them. Invariant: under the final name there is never a part of a file, also
//! after a crash, and [`create`] never overwrites one.

use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

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
