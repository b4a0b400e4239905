//! Keeping secrets in memory from other processes, from core dumps and from swap.
//!
//! [`hide_memory`] covers all that a process holds, copies inside libraries included, against every process without
//! CAP_SYS_PTRACE. [`hold`] covers one value against whoever may look nevertheless: a core dump taken by root, and the
//! swap device. Not covered by it are the copies that rustls and aws-lc make of a key on their own heap.

use std::io;
use std::ptr::NonNull;

use nix::libc::c_void;
use nix::sys::mman::{MmapAdvise, madvise, mlock};
use nix::sys::prctl;
use nix::unistd::{SysconfVar, sysconf};

use crate::guards::{Guard, holds};

/// Makes this process, and those it forks, one that only CAP_SYS_PTRACE may look into, whoever's it is, and that leaves
/// no core dump. A program that is started from it is an ordinary one again.
///
/// # Errors
/// As the kernel says.
pub fn hide_memory() -> io::Result<()> {
    Ok(prctl::set_dumpable(!holds(Guard::HidesMemory))?)
}

/// Keeps the pages on which `secret` itself lies, not what it points to, in memory and out of core dumps, from now on:
/// other things that come to lie there are held as well, and nothing else changes for them.
///
/// # Errors
/// As the kernel says; ENOMEM at the limit on locked memory.
#[allow(unsafe_code)]
pub fn hold<T>(secret: &T) -> io::Result<()> {
    if !holds(Guard::HoldsKey) {
        return Ok(());
    }
    let page_len = sysconf(SysconfVar::PAGE_SIZE)?.and_then(|len| usize::try_from(len).ok());
    let page_len = page_len.ok_or(io::ErrorKind::Unsupported)?;
    let before_len = std::ptr::from_ref(secret).addr() % page_len;
    let first_page = std::ptr::from_ref(secret).cast::<c_void>().wrapping_byte_sub(before_len);
    let first_page = NonNull::new(first_page.cast_mut()).ok_or(io::ErrorKind::InvalidInput)?;
    let len = (before_len + size_of::<T>()).next_multiple_of(page_len);
    // SAFETY: it changes neither contents nor rights of the pages, and their owner may free and use them as ever.
    unsafe { madvise(first_page, len, MmapAdvise::MADV_DONTDUMP) }?;
    // SAFETY: as above.
    unsafe { mlock(first_page, len) }?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Promise P16. What core(5) and mlock(2) ask for, as the kernel tells it of the mapping that holds the secret.
    #[test]
    fn a_secret_that_is_held_is_neither_dumped_nor_swapped() {
        let secret = Box::new([7_u8; 32]);
        let address = std::ptr::from_ref(&*secret).addr();
        assert!(!is_held(address));
        hold(&*secret).unwrap();
        assert!(is_held(address));
    }

    fn is_held(address: usize) -> bool {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut holds = false;
        for line in maps.lines() {
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            let bounds = range.and_then(|(start, end)| {
                let bound = |digits| usize::from_str_radix(digits, 16).ok();
                Some(bound(start)?..bound(end)?)
            });
            if let Some(bounds) = bounds {
                holds = bounds.contains(&address);
            }
            if let Some(flags) = line.strip_prefix("VmFlags: ").filter(|_| holds) {
                let has = |flag| flags.split(' ').any(|word| word == flag);
                return has("dd") && has("lo");
            }
        }
        panic!("{address:#x} lies in no mapping");
    }
}
