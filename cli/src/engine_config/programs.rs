//! `ProgramDirPath`: the monitor programs that certificates may demand (spec/protocol.md 6.1).

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use packetlab::escape::Escaped;
use packetlab::program::{Program, ProgramLanguage, Programs};
use packetlab_home::file;

/// Largest program file. The largest program of about two million eBPF instructions, as text with
/// some comment, stays below it.
const FILE_LEN_MAX: u64 = 128 << 20;

/// Loads every program of a directory, not of those below it. What is no program or a bad one is
/// skipped with a warning.
///
/// # Errors
/// The directory cannot be read.
pub(super) fn load(directory: &Path) -> io::Result<Programs> {
    let mut programs = Programs::default();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.as_bytes();
        if name.starts_with(b".") {
            continue;
        }
        let path = entry.path();
        match program(&path, name) {
            Ok(program) => programs.insert(program),
            Err(problem) => {
                let path = Escaped(path.as_os_str().as_bytes());
                tracing::warn!("program {path} is skipped: {problem}");
            }
        }
    }
    Ok(programs)
}

fn program(path: &Path, name: &[u8]) -> Result<Program, String> {
    let language = ProgramLanguage::from_file_name(name).map_err(|suffix| {
        format!("unknown suffix {}; known are .ebpf and .wasm", Escaped(suffix))
    })?;
    let file = file::read(path, FILE_LEN_MAX).map_err(|error| error.to_string())?;
    Program::from_file(language, &file).map_err(|error| error.to_string())
}
