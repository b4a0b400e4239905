//! Whether a results folder, or a file, can be had at a place, as far as that shows without making one.
//!
//! Not here: what a folder holds of runs. Invariant: nothing is made or changed. A disk that is full shows only when something
//! is written.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::statfs::{PROC_SUPER_MAGIC, SYSFS_MAGIC, statfs};
use nix::unistd::{AccessFlags, access};
use packetlab::escape::Escaped;

/// Nothing is there, or a folder.
///
/// # Errors
/// Something else is, in words.
pub(crate) fn is_folder(path: &Path) -> Result<(), String> {
    match path.metadata() {
        Ok(found) if !found.is_dir() => Err("it is not a folder; name a new one".into()),
        _ => Ok(()),
    }
}

/// Nothing is there, or a folder with nothing in it: what is somebody else's is not mixed with results.
///
/// # Errors
/// It is neither, or cannot be looked into; in words.
pub(crate) fn is_empty(path: &Path) -> Result<(), String> {
    let mut entries = match fs::read_dir(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(|error| error.to_string())?,
    };
    let problem = "it is not empty, and no results folder; name a new folder, or an empty one";
    entries.next().map_or(Ok(()), |_| Err(problem.into()))
}

/// The folder is there and can be written to, or could be made.
///
/// # Errors
/// It could not, in words.
pub(crate) fn check(path: &Path) -> Result<(), String> {
    for place in path.ancestors() {
        match place.metadata() {
            Ok(found) if found.is_dir() => {
                // What is above need not be read.
                let read = if place == path { AccessFlags::R_OK } else { AccessFlags::empty() };
                let taken = takes_files(place, read);
                return taken.map_err(|error| at(path, place, error));
            }
            Ok(_) => return Err(at(path, place, "it is not a folder")),
            // A link that leads nowhere is there, and no folder can be made in its place.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if place.symlink_metadata().is_ok() {
                    return Err(at(path, place, "it is a link that leads nowhere"));
                }
            }
            Err(error) if error.kind() == ErrorKind::NotADirectory => {}
            Err(error) => return Err(at(path, place, error)),
        }
    }
    Ok(())
}

/// A file is there and can be written to, or could be made; a pipe or a device counts as a file.
///
/// # Errors
/// It could not, in words.
pub(crate) fn check_file(path: &Path) -> Result<(), String> {
    let in_words = |error: io::Error| error.to_string();
    match path.metadata() {
        Ok(found) if found.is_dir() => Err(in_words(Errno::EISDIR.into())),
        Ok(_) => access(path, AccessFlags::W_OK).map_err(|errno| in_words(errno.into())),
        // A link that leads nowhere: a file would be made where it leads.
        Err(_) if path.is_symlink() => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            let folder = folder.unwrap_or_else(|| Path::new("."));
            takes_files(folder, AccessFlags::empty()).map_err(in_words)
        }
        Err(error) => Err(in_words(error)),
    }
}

/// Files and folders can be made in it.
fn takes_files(folder: &Path, read: AccessFlags) -> Result<(), io::Error> {
    // As of the real user, who is the effective one here.
    access(folder, read | AccessFlags::W_OK | AccessFlags::X_OK)?;
    // Permission is no question there, to root at least, and yet nothing can be made.
    let kind = statfs(folder)?.filesystem_type();
    if kind == PROC_SUPER_MAGIC || kind == SYSFS_MAGIC {
        return Err(io::Error::other("nothing can be made there"));
    }
    Ok(())
}

/// What is wrong with this place on the way to the path.
fn at(path: &Path, place: &Path, problem: impl std::fmt::Display) -> String {
    match place == path {
        true => problem.to_string(),
        false => format!("{}: {problem}", Escaped(place.as_os_str().as_bytes())),
    }
}
