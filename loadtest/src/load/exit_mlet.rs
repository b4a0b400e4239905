//! A mlet without libc that exits at once: a session with it costs what the manager and the kernel cost,
//! not what starting a C program costs (some 300 us).

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Where the one segment is loaded.
const BASE: u64 = 0x40_0000;
const HEADERS_LEN: u64 = 64 + 56;

/// `exit(0)` as machine code, with the machine's number in ELF; `None` for machines not foreseen.
const fn program() -> Option<(u16, &'static [u8])> {
    if cfg!(target_arch = "x86_64") {
        // xor edi, edi; mov eax, 60; syscall
        Some((62, &[0x31, 0xff, 0xb8, 60, 0, 0, 0, 0x0f, 0x05]))
    } else if cfg!(target_arch = "aarch64") {
        // mov x0, 0; mov x8, 93; svc 0
        Some((183, &[0, 0, 0x80, 0xd2, 0xa8, 0x0b, 0x80, 0xd2, 1, 0, 0, 0xd4]))
    } else {
        None
    }
}

/// Writes the mlet to `path`. False when it is not known how, on this machine.
pub(super) fn write(path: &Path) -> io::Result<bool> {
    let Some((machine, code)) = program() else { return Ok(false) };
    let file_len = HEADERS_LEN + code.len() as u64;
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let halves = |values: &[u16]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>();
    let words = |values: &[u32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>();
    let longs = |values: &[u64]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>();
    // An executable, version 1; entry, program headers behind this header, no section headers.
    elf.extend(halves(&[2, machine]));
    elf.extend(words(&[1]));
    elf.extend(longs(&[BASE + HEADERS_LEN, 64, 0]));
    elf.extend(words(&[0]));
    elf.extend(halves(&[64, 56, 1, 64, 0, 0]));
    // One segment to load, readable and executable: the whole file.
    elf.extend(words(&[1, 5]));
    elf.extend(longs(&[0, BASE, BASE, file_len, file_len, 0x1000]));
    elf.extend_from_slice(code);
    fs::write(path, &elf)?;
    fs::set_permissions(path, Permissions::from_mode(0o700))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    #[test]
    fn it_runs_and_exits_with_success() {
        let path = std::env::temp_dir().join(format!("exit-mlet-{}", std::process::id()));
        if super::write(&path).unwrap() {
            let status = Command::new(&path).status().unwrap();
            std::fs::remove_file(&path).unwrap();
            assert!(status.success(), "{status}");
        } else {
            assert!(!path.exists());
        }
    }
}
