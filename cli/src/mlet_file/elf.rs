//! The headers of an ELF file, as far as they decide whether this machine can execute it (elf(5)).
//!
//! Not here: what a program's segments hold. The invariant: a flaw is only what makes execve fail, or the loader.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::flaw::Flaw;

/// `e_ident[EI_CLASS]` of 32 and 64 bits.
const CLASSES: [u8; 2] = [1, 2];
/// `e_ident[EI_DATA]` of this machine's byte order.
pub(super) const OUR_DATA: u8 = if cfg!(target_endian = "little") { 1 } else { 2 };
/// Classes and machines (`e_machine`) that this machine may execute. Whether the kernel was built to execute 32-bit
/// programs too is left to it. Empty: nothing is judged.
const OURS: &[(u8, u64)] = if cfg!(target_arch = "x86_64") {
    &[(2, 62), (1, 62), (1, 3)]
} else if cfg!(target_arch = "aarch64") {
    &[(2, 183), (1, 40)]
} else {
    &[]
};
/// Names of machines that a mlet may have been built for.
const MACHINES: [(u64, &str); 10] = [
    (3, "x86"),
    (8, "MIPS"),
    (20, "PowerPC"),
    (21, "PowerPC64"),
    (22, "S/390"),
    (40, "ARM"),
    (62, "x86-64"),
    (183, "AArch64"),
    (243, "RISC-V"),
    (258, "LoongArch"),
];

/// `ET_EXEC` and `ET_DYN`, the latter of programs that may be anywhere in memory.
const PROGRAM_TYPES: [u64; 2] = [2, 3];
/// `PT_INTERP`: the segment that names the loader.
const LOADER_SEGMENT: u64 = 3;
/// The longest table of segments that the kernel reads.
const SEGMENTS_LEN_MAX: usize = 65_536;
/// The longest name of a loader, its NUL included (PATH_MAX).
const LOADER_LEN_MAX: usize = 4096;

/// A file that begins as an ELF file.
pub(super) struct Elf<'a> {
    header: &'a [u8],
    form: Form,
}

/// How numbers are written.
#[derive(Clone, Copy)]
struct Form {
    class: u8,
    data: u8,
}

/// Where something stands, in 32-bit and in 64-bit files, and its length in bytes.
struct Field([(usize, usize); 2]);

const TYPE: Field = Field([(16, 2), (16, 2)]);
const MACHINE: Field = Field([(18, 2), (18, 2)]);
const SEGMENTS_OFFSET: Field = Field([(28, 4), (32, 8)]);
const SEGMENT_LEN: Field = Field([(42, 2), (54, 2)]);
const SEGMENT_COUNT: Field = Field([(44, 2), (56, 2)]);
/// Of one segment: its type, where it stands in the file, how much of it does.
const SEGMENT_TYPE: Field = Field([(0, 4), (0, 4)]);
const SEGMENT_OFFSET: Field = Field([(4, 4), (8, 8)]);
const SEGMENT_FILE_LEN: Field = Field([(16, 4), (32, 8)]);
/// Lengths of a segment's entry.
const SEGMENT_LENS: [usize; 2] = [32, 56];

impl Form {
    fn is_64(self) -> usize {
        usize::from(self.class == CLASSES[1])
    }

    /// `None` where the bytes end before.
    fn number(self, bytes: &[u8], field: &Field) -> Option<u64> {
        let (start, len) = field.0[self.is_64()];
        let bytes = bytes.get(start..start + len)?;
        let append = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        Some(match self.data {
            1 => bytes.iter().rev().fold(0, append),
            _ => bytes.iter().fold(0, append),
        })
    }
}

impl<'a> Elf<'a> {
    /// `None` if the file is of another kind.
    pub(super) fn read(start: &'a [u8]) -> Option<Self> {
        let [0x7f, b'E', b'L', b'F', rest @ ..] = start else { return None };
        let (class, data) = (rest.first().copied(), rest.get(1).copied());
        let form = Form { class: class.unwrap_or(0), data: data.unwrap_or(0) };
        Some(Self { header: start, form })
    }

    /// The loader that the program names; `None` if it needs none.
    ///
    /// # Errors
    /// Why this machine cannot execute it.
    pub(super) fn loader(&self, file: &File) -> Result<Option<PathBuf>, Flaw> {
        let number = |field| self.form.number(self.header, field).ok_or(Flaw::Damaged);
        if !CLASSES.contains(&self.form.class) || !CLASSES.contains(&self.form.data) {
            return Err(Flaw::Damaged);
        }
        let (machine, class) = (number(&MACHINE)?, self.form.class);
        let is_ours = self.form.data == OUR_DATA && OURS.contains(&(class, machine));
        if !OURS.is_empty() && !is_ours {
            return Err(Flaw::Foreign { machine: self.form.words(machine) });
        }
        if !PROGRAM_TYPES.contains(&number(&TYPE)?) {
            return Err(Flaw::NoProgram);
        }
        let segment_len = SEGMENT_LENS[self.form.is_64()];
        let count = usize::try_from(number(&SEGMENT_COUNT)?).unwrap_or(usize::MAX);
        let table_len = count.saturating_mul(segment_len);
        let is_table = (1..=SEGMENTS_LEN_MAX).contains(&table_len);
        if number(&SEGMENT_LEN)? != segment_len as u64 || !is_table {
            return Err(Flaw::Damaged);
        }
        let table = stretch(file, number(&SEGMENTS_OFFSET)?, table_len)?;
        let of = |segment: &[u8], field| self.form.number(segment, field);
        let mut segments = table.chunks_exact(segment_len);
        let is_loader = |segment: &&[u8]| of(segment, &SEGMENT_TYPE) == Some(LOADER_SEGMENT);
        let Some(segment) = segments.find(is_loader) else { return Ok(None) };
        let place = of(segment, &SEGMENT_OFFSET).zip(of(segment, &SEGMENT_FILE_LEN));
        let (offset, len) = place.ok_or(Flaw::Damaged)?;
        let len = usize::try_from(len).ok().filter(|len| (2..=LOADER_LEN_MAX).contains(len));
        let name = stretch(file, offset, len.ok_or(Flaw::Damaged)?)?;
        let Some((0, _)) = name.split_last() else { return Err(Flaw::Damaged) };
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        Ok(Some(PathBuf::from(OsStr::from_bytes(name))))
    }
}

impl Form {
    fn words(self, machine: u64) -> String {
        let known = MACHINES.iter().find(|(number, _)| *number == machine);
        let name = known
            .map_or_else(|| format!("the machine of number {machine}"), |(_, name)| (*name).into());
        let bits = if self.is_64() == 1 { 64 } else { 32 };
        let order = if self.data == 1 { "little" } else { "big" };
        format!("{name} ({bits}-bit, {order}-endian)")
    }
}

fn stretch(file: &File, offset: u64, len: usize) -> Result<Vec<u8>, Flaw> {
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, offset).map_err(|_| Flaw::Damaged)?;
    Ok(bytes)
}
