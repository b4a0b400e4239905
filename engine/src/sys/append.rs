//! Files that are only ever appended to, which may be pipes that others read or write as well.
//!
//! Not here: what is written there. Invariant: opening one never waits for long.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;

/// What a pipe takes whole, if it takes it in one write: nothing of others gets in between (pipe(7)).
pub(crate) const WHOLE_LEN_MAX: usize = libc::PIPE_BUF;

/// Whoever paid for a campaign's results may read them, and nobody else.
const FILE_MODE: u32 = 0o600;

/// How long a named pipe is tried that nobody reads yet: its reader may be started beside us.
const READER_PATIENCE: Duration = Duration::from_secs(2);
/// Pause between two tries.
const READER_RETRY: Duration = Duration::from_millis(20);

/// Opens a file, which is made if it is not there, for its owner alone.
///
/// # Errors
/// As the kernel says; of a named pipe also that no program reads it.
pub(crate) fn open(path: &Path) -> io::Result<File> {
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

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    #[test]
    fn a_named_pipe_is_opened_for_a_reader_that_comes_late_and_no_other() {
        let path = std::env::temp_dir().join(format!("pktxpmgr-append-{}", std::process::id()));
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        let error = open(&path).unwrap_err().to_string();
        assert_eq!(error, "no program has opened this pipe to read it");
        let reader = thread::spawn({
            let path = path.clone();
            move || {
                let mut text = String::new();
                File::open(path).unwrap().read_to_string(&mut text).unwrap();
                text
            }
        });
        let mut file = open(&path).unwrap();
        // It waits, as it does for whoever writes to a file.
        let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL).unwrap());
        assert!(!flags.contains(OFlag::O_NONBLOCK) && flags.contains(OFlag::O_APPEND));
        file.write_all(b"line\n").unwrap();
        drop(file);
        assert_eq!(reader.join().unwrap(), "line\n");
        std::fs::remove_file(&path).unwrap();
    }
}
