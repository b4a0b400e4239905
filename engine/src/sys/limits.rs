//! The limit on open files, which bounds the number of sessions.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// How many files this process may have open now (the soft limit).
///
/// # Errors
/// As the kernel says.
pub fn open_files() -> io::Result<u64> {
    Ok(getrlimit(Resource::RLIMIT_NOFILE)?.0)
}

/// Raises the soft limit on open files to the hard one and returns it. Mlets must not inherit that (they may use
/// `select`), so the supervisor is forked first.
///
/// # Errors
/// As the kernel says; the old limit stays then.
pub fn raise_open_files() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

/// Makes sure that so many files may be opened now.
///
/// # Errors
/// As the kernel says at the first one too many.
pub fn prove_free_files(count: usize) -> io::Result<()> {
    let null = std::fs::File::open("/dev/null")?;
    // All at once, and closed again.
    (1..count).map(|_| null.try_clone()).collect::<io::Result<Vec<_>>>().map(drop)
}

/// Makes sure that so many bytes of memory may be had now. They are given back at once, and never touched.
///
/// # Errors
/// ENOMEM.
pub fn prove_free_memory(len: usize) -> io::Result<()> {
    let mut memory = Vec::<u8>::new();
    let had = memory.try_reserve_exact(len);
    // Lest it is left out because nobody uses it.
    std::hint::black_box(&mut memory);
    had.map_err(|_| io::Error::from_raw_os_error(nix::libc::ENOMEM))
}

/// How many files this process has open.
///
/// # Errors
/// /proc is not mounted, or, before Linux 6.2, no descriptor is free to read it with.
pub fn files_open() -> io::Result<usize> {
    // Since 6.2 the kernel tells how many there are. Before, the folder itself is among those that are listed.
    let told = std::fs::metadata("/proc/self/fd")?.len();
    if let Ok(open @ 1..) = usize::try_from(told) {
        return Ok(open);
    }
    Ok(std::fs::read_dir("/proc/self/fd")?.count().saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One test, as each would see the files that the other has open.
    #[test]
    fn open_files_are_counted_and_as_many_as_are_asked_for_are_tried() {
        let before = files_open().unwrap();
        let files = (0..200).map(|_| std::fs::File::open("/dev/null").unwrap()).collect::<Vec<_>>();
        // Other tests open and close a few meanwhile.
        assert!(files_open().unwrap() > before + 150, "{before}");
        drop(files);
        prove_free_files(3).unwrap();
        let limit = usize::try_from(open_files().unwrap()).unwrap();
        let refused = prove_free_files(limit).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(nix::libc::EMFILE), "some are open already");
    }

    #[test]
    fn memory_that_cannot_be_had_is_refused() {
        prove_free_memory(1 << 20).unwrap();
        let refused = prove_free_memory(1 << 62).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(nix::libc::ENOMEM));
    }

    #[test]
    fn the_soft_limit_is_the_hard_one_after_raising() {
        let raised = raise_open_files().unwrap();
        assert_eq!(open_files().unwrap(), raised);
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (raised, raised));
    }
}
