//! What can be seen of a mlet's file before one is started: why the kernel would not execute it (execve(2)).
//!
//! Not here: starting it (the engine). The invariant: a file that is refused here could not be started, as long as
//! nothing is changed. What cannot be judged is left to the kernel: a file that may be executed and not read, and what
//! a handler of binfmt_misc takes.

mod elf;
mod flaw;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};
use packetlab::escape::Escaped;
use packetlab_home::file;

use self::elf::Elf;
pub(crate) use self::flaw::Flaw;
use self::flaw::SCRIPT_START_LEN;

/// Bytes of a file that are read to see what it is.
const START_LEN: usize = 4096;

/// How many programs may stand behind one another, each the interpreter of the one before; the kernel follows no more.
const INTERPRETERS_MAX: usize = 5;

/// Where env(1) looks for a program while there is no PATH, as mlets have none; which of them depends on the C library.
const SEARCHED_WITHOUT_PATH: [&str; 3] = ["/usr/local/bin", "/usr/bin", "/bin"];

/// Looks whether this file could be executed now.
///
/// # Errors
/// Why not, as far as can be seen.
pub(crate) fn check(path: &Path) -> Result<(), Flaw> {
    executable(path, INTERPRETERS_MAX)
}

fn executable(path: &Path, interpreters_max: usize) -> Result<(), Flaw> {
    if !path.metadata().map_err(Flaw::Unreachable)?.is_file() {
        return Err(Flaw::NotRegular);
    }
    // It asks for the real user, who is the effective one here; faccessat2, which asks for the latter, is barred in old
    // sandboxes. Where even this is barred, the first start of a mlet tells.
    if access(path, AccessFlags::X_OK) == Err(Errno::EACCES) {
        return Err(Flaw::NotExecutable);
    }
    let Ok(file) = file::open(path) else { return Ok(()) };
    let Ok(start) = start_of(&file) else { return Ok(()) };
    if start.is_empty() {
        return Err(Flaw::Empty);
    }
    if is_taken_by_binfmt_misc(path, &start) {
        return Ok(());
    }
    let next = |path: PathBuf| {
        let shown = Escaped(path.as_os_str().as_bytes()).to_string();
        let found = match interpreters_max.checked_sub(1) {
            Some(max) => executable(&path, max),
            None => Ok(()),
        };
        (shown, found)
    };
    if start.starts_with(b"\xef\xbb\xbf#!") {
        return Err(Flaw::ByteOrderMark);
    }
    if start.starts_with(b"#!") {
        let (interpreter, argument) = interpreter(&start)?;
        if interpreter.file_name() == Some(OsStr::new("env")) {
            found_by_env(argument)?;
        }
        let (path, found) = next(interpreter);
        return found.map_err(|flaw| Flaw::Interpreter { path, flaw: Box::new(flaw) });
    }
    let Some(elf) = Elf::read(&start) else { return Err(Flaw::UnknownFormat) };
    let Some(loader) = elf.loader(&file)? else { return Ok(()) };
    let (path, found) = next(loader);
    found.map_err(|flaw| Flaw::Loader { path, flaw: Box::new(flaw) })
}

fn start_of(file: &File) -> io::Result<Vec<u8>> {
    let mut start = Vec::new();
    file.take(START_LEN as u64).read_to_end(&mut start)?;
    Ok(start)
}

/// The interpreter that the first line of a script names, and the one argument that it is given, found as the kernel finds
/// them (binfmt_script).
fn interpreter(start: &[u8]) -> Result<(PathBuf, &[u8]), Flaw> {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let known = start.get(..SCRIPT_START_LEN).unwrap_or(start);
    let line = known.split(|byte| matches!(byte, b'\n' | 0)).next().unwrap_or_default();
    let is_cut = line.len() == SCRIPT_START_LEN;
    if line.ends_with(b"\r") {
        return Err(Flaw::CarriageReturn);
    }
    let mut rest = line.get(2..).unwrap_or_default();
    while let Some((_, behind)) = rest.split_first().filter(|(first, _)| is_blank(first)) {
        rest = behind;
    }
    let end = rest.iter().position(is_blank);
    let (name, argument) = rest.split_at(end.unwrap_or(rest.len()));
    match (name, end) {
        (b"", _) => Err(Flaw::NoInterpreter),
        (_, None) if is_cut => Err(Flaw::LineTooLong),
        (name, _) => Ok((PathBuf::from(OsStr::from_bytes(name)), argument.trim_ascii())),
    }
}

/// Whether env(1), given this one argument, finds the program of that name. What it does with options and assignments is
/// left to it.
fn found_by_env(argument: &[u8]) -> Result<(), Flaw> {
    let name = Path::new(OsStr::from_bytes(argument));
    let is_left_to_it =
        argument.is_empty() || argument.starts_with(b"-") || argument.contains(&b'=');
    let is_found =
        || SEARCHED_WITHOUT_PATH.iter().any(|folder| Path::new(folder).join(name).exists());
    if is_left_to_it || argument.contains(&b'/') || is_found() {
        return Ok(());
    }
    Err(Flaw::NotFoundByEnv { name: Escaped(argument).to_string() })
}

/// Whether a handler for files of this kind is registered with the kernel, which asks those first: an emulator of
/// another processor, a language's virtual machine.
fn is_taken_by_binfmt_misc(path: &Path, start: &[u8]) -> bool {
    let Ok(entries) = fs::read_dir("/proc/sys/fs/binfmt_misc") else { return false };
    let handlers = entries.flatten().filter_map(|entry| fs::read_to_string(entry.path()).ok());
    handlers.into_iter().any(|handler| takes(&handler, path, start))
}

/// Whether the handler that the kernel describes in this way takes a file that starts so.
fn takes(handler: &str, path: &Path, start: &[u8]) -> bool {
    let field =
        |name: &str| handler.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    if handler.lines().next() != Some("enabled") {
        return false;
    }
    if let Some(extension) = field("extension") {
        return path.extension() == Some(OsStr::new(extension.trim_start_matches('.')));
    }
    let offset = field("offset").and_then(|offset| offset.parse::<usize>().ok()).unwrap_or(0);
    let Some(magic) = field("magic").and_then(bytes) else { return false };
    let mask = field("mask").and_then(bytes).unwrap_or_else(|| vec![0xff; magic.len()]);
    let Some(found) = start.get(offset..).and_then(|rest| rest.get(..magic.len())) else {
        return false;
    };
    let mut pairs = found.iter().zip(&magic).zip(&mask);
    pairs.all(|((found, magic), mask)| (found ^ magic) & mask == 0)
}

/// The bytes of pairs of hexadecimal digits.
fn bytes(hex: &str) -> Option<Vec<u8>> {
    let pairs = hex.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests;
