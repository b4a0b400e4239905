//! Programs (monitors and filters): their two file formats, the encoded form that is sent and
//! hashed, and the set a controller has loaded (spec/protocol.md 6).
//!
//! Not here: reading the program directory (`cli`), running programs. Invariant: the digest of a
//! [`Program`] is the SHA-256 of its encoded form, and the encoded form fits into one CDATA
//! message.

#[cfg(feature = "credentials")]
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// Largest encoded form: what a CDATA message holds beside the hint `monitor` (spec/protocol.md 6.4).
pub const ENCODED_LEN_MAX: usize = 0xFF_FFFF - 8;

const EBPF_TYPE: u8 = 0;
const WASM_TYPE: u8 = 1;
const INSTRUCTION_LEN: usize = 8;

/// SHA-256 of a program's encoded form, as certificates name it (spec/protocol.md 6.3).
#[cfg(feature = "credentials")]
pub type ProgramDigest = [u8; 32];

/// The two languages of programs, with their type byte (spec/protocol.md 6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProgramLanguage {
    /// Type byte 0.
    Ebpf,
    /// Type byte 1.
    Wasm,
}

impl ProgramLanguage {
    /// The language of a file, from its name: none or `.ebpf` behind the last dot is eBPF text,
    /// `.wasm` is WebAssembly (spec/protocol.md 6.1).
    ///
    /// # Errors
    /// Any other suffix is no program; it is given back with its dot.
    pub fn from_file_name(name: &[u8]) -> Result<Self, &[u8]> {
        let suffix = name.iter().rposition(|byte| *byte == b'.').and_then(|dot| name.get(dot..));
        match suffix {
            None | Some(b".ebpf") => Ok(Self::Ebpf),
            Some(b".wasm") => Ok(Self::Wasm),
            Some(other) => Err(other),
        }
    }
}

/// One program in its encoded form. Cloning shares the bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Program {
    encoded: Arc<[u8]>,
    #[cfg(feature = "credentials")]
    digest: ProgramDigest,
}

impl Program {
    /// Reads a file of this language.
    ///
    /// # Errors
    /// As [`Program::from_ebpf_text`] and [`Program::from_wasm`].
    pub fn from_file(language: ProgramLanguage, contents: &[u8]) -> Result<Self, ProgramError> {
        match language {
            ProgramLanguage::Ebpf => Self::from_ebpf_text(contents),
            ProgramLanguage::Wasm => Self::from_wasm(contents),
        }
    }

    /// Reads eBPF text: per line five unsigned numbers `opcode dst src offset imm` in C notation
    /// (spec/protocol.md 6.1). Blank lines and lines that start with `#` are skipped; so is what follows
    /// the fifth number.
    ///
    /// # Errors
    /// The first bad line, by number, or a program too large to send.
    pub fn from_ebpf_text(text: &[u8]) -> Result<Self, ProgramError> {
        let mut encoded = vec![EBPF_TYPE];
        for (index, line) in text.split(|&byte| byte == b'\n').enumerate() {
            if line.starts_with(b"#") || line.trim_ascii().is_empty() || line.starts_with(b"\r") {
                continue;
            }
            let bad = |problem| ProgramError::BadLine { line: index + 1, problem };
            encoded.extend_from_slice(&instruction(line).map_err(bad)?);
        }
        Self::from_encoded(encoded)
    }

    /// Takes a WebAssembly file as it is (spec/protocol.md 6.2).
    ///
    /// # Errors
    /// The file is too large to send.
    pub fn from_wasm(file: &[u8]) -> Result<Self, ProgramError> {
        Self::from_encoded([&[WASM_TYPE], file].concat())
    }

    /// Checks a received encoded form: a known type byte and, for eBPF, whole instructions
    /// (spec/protocol.md 6.2).
    ///
    /// # Errors
    /// It is empty, of unknown type, cut short, or larger than can be sent.
    pub fn decode(encoded: &[u8]) -> Result<Self, ProgramError> {
        let (&type_byte, body) = encoded.split_first().ok_or(ProgramError::Empty)?;
        match type_byte {
            EBPF_TYPE if body.len() % INSTRUCTION_LEN != 0 => {
                Err(ProgramError::CutInstruction { len_bytes: body.len() })
            }
            EBPF_TYPE | WASM_TYPE => Self::from_encoded(encoded.to_vec()),
            _ => Err(ProgramError::UnknownType(type_byte)),
        }
    }

    fn from_encoded(encoded: Vec<u8>) -> Result<Self, ProgramError> {
        if encoded.len() > ENCODED_LEN_MAX {
            return Err(ProgramError::TooLarge { len_bytes: encoded.len() });
        }
        Ok(Self {
            #[cfg(feature = "credentials")]
            digest: super::key::sha256(&encoded),
            encoded: encoded.into(),
        })
    }

    /// The bytes that are sent as CDATA data or NCAP filter: type byte and body (spec/protocol.md 6.2).
    #[must_use]
    pub fn encoded(&self) -> &Arc<[u8]> {
        &self.encoded
    }

    /// SHA-256 of the encoded form including the type byte (spec/protocol.md 6.3).
    #[cfg(feature = "credentials")]
    #[must_use]
    pub fn digest(&self) -> &ProgramDigest {
        &self.digest
    }

    /// The language, from the type byte.
    #[must_use]
    pub fn language(&self) -> ProgramLanguage {
        match self.encoded.first() {
            Some(&WASM_TYPE) => ProgramLanguage::Wasm,
            _ => ProgramLanguage::Ebpf,
        }
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let len_bytes = self.encoded.len();
        write!(f, "Program({:?}, {len_bytes} bytes)", self.language())
    }
}

/// The programs a controller has at hand, by digest.
#[cfg(feature = "credentials")]
#[derive(Debug, Clone, Default)]
pub struct Programs(HashMap<ProgramDigest, Program>);

#[cfg(feature = "credentials")]
impl Programs {
    /// Adds a program; the same program twice is kept once.
    pub fn insert(&mut self, program: Program) {
        self.0.insert(program.digest, program);
    }

    /// The program that a certificate demands by `digest`, if it was loaded.
    #[must_use]
    pub fn find(&self, digest: &ProgramDigest) -> Option<&Program> {
        self.0.get(digest)
    }

    /// How many programs there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(feature = "credentials")]
impl FromIterator<Program> for Programs {
    fn from_iter<I: IntoIterator<Item = Program>>(programs: I) -> Self {
        Self(programs.into_iter().map(|program| (program.digest, program)).collect())
    }
}

/// One line of eBPF text: opcode, dst << 4 | src, offset and imm, big-endian (spec/protocol.md 6.2).
fn instruction(line: &[u8]) -> Result<[u8; INSTRUCTION_LEN], LineProblem> {
    const FIELDS: [(&str, u64); 5] =
        [("opcode", 0xff), ("dst", 0xf), ("src", 0xf), ("offset", 0xffff), ("imm", 0xffff_ffff)];
    let mut fields = [0; FIELDS.len()];
    let mut rest = line;
    for (slot, (name, max)) in fields.iter_mut().zip(FIELDS) {
        rest = rest.trim_ascii_start();
        let end = rest.iter().position(|b| !b.is_ascii_alphanumeric()).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        // Only the last number may be followed directly by something else than a blank.
        if name != "imm" && after.first().is_some_and(|b| !b.is_ascii_whitespace()) {
            return Err(LineProblem::NotANumber(name));
        }
        *slot = number(word).ok_or(LineProblem::NotANumber(name))?;
        if *slot > max {
            return Err(LineProblem::TooBig { field: name, max });
        }
        rest = after;
    }
    let [opcode, dst, src, offset, imm] = fields;
    // Each field was checked to fit, so the lowest bytes are all there is.
    let word = opcode << 56 | dst << 52 | src << 48 | offset << 32 | imm;
    Ok(word.to_be_bytes())
}

/// A number in C notation: `0x` hexadecimal, leading `0` octal, else decimal.
fn number(word: &[u8]) -> Option<u64> {
    let word = std::str::from_utf8(word).ok()?;
    let (digits, radix) = match word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if word.starts_with('0') => (word, 8),
        None => (word, 10),
    };
    u64::from_str_radix(digits, radix).ok()
}

/// Why some bytes are not a usable program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProgramError {
    /// A line of eBPF text is wrong.
    BadLine {
        /// Its number, from 1.
        line: usize,
        /// What is wrong with it.
        problem: LineProblem,
    },
    /// The encoded form would not fit into a message.
    TooLarge {
        /// Its length.
        len_bytes: usize,
    },
    /// An encoded form without even a type byte.
    Empty,
    /// An encoded form of a type that is neither eBPF nor WebAssembly.
    UnknownType(u8),
    /// An encoded eBPF body that is not a multiple of eight bytes.
    CutInstruction {
        /// Length of the body.
        len_bytes: usize,
    },
}

/// What is wrong with a line of eBPF text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineProblem {
    /// The named field is missing or not an unsigned number.
    NotANumber(&'static str),
    /// The named field exceeds its largest value.
    TooBig {
        /// The field.
        field: &'static str,
        /// Its largest value.
        max: u64,
    },
}

impl fmt::Display for ProgramError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadLine { line, problem: LineProblem::NotANumber(field) } => write!(
                f,
                "line {line}: {field} is missing or not an unsigned number; \
                 a line is `opcode dst src offset imm`"
            ),
            Self::BadLine { line, problem: LineProblem::TooBig { field, max } } => {
                write!(f, "line {line}: {field} is larger than {max}")
            }
            Self::TooLarge { len_bytes } => {
                write!(
                    f,
                    "{len_bytes} bytes encoded, but a message carries at most {ENCODED_LEN_MAX}"
                )
            }
            Self::Empty => f.write_str("an encoded program needs at least its type byte"),
            Self::UnknownType(type_byte) => {
                write!(f, "unknown program type {type_byte}; 0 is eBPF, 1 is WebAssembly")
            }
            Self::CutInstruction { len_bytes } => {
                write!(f, "{len_bytes} bytes of eBPF are not whole instructions of 8 bytes")
            }
        }
    }
}

impl std::error::Error for ProgramError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{Hex, sha256};

    const EXAMPLE: &[u8] = b"0xb7 0 0 0 1\n0x95 0 0 0 0\n";

    fn encoded(text: &str) -> Vec<u8> {
        Program::from_ebpf_text(text.as_bytes()).unwrap().encoded().to_vec()
    }

    fn error(text: &str) -> ProgramError {
        Program::from_ebpf_text(text.as_bytes()).unwrap_err()
    }

    /// Item 76.
    #[test]
    fn the_example_of_the_specification_has_its_encoding_and_digest() {
        let program = Program::from_ebpf_text(EXAMPLE).unwrap();
        assert_eq!(Hex(program.encoded()).to_string(), "00b7000000000000019500000000000000");
        assert_eq!(
            Hex(program.digest()).to_string(),
            "d026e605f222124d3b57c11225b88597b74b7613384dccd92f1fd633b62e02cd"
        );
        assert_eq!(program.language(), ProgramLanguage::Ebpf);
    }

    #[test]
    fn the_digest_of_wasm_covers_the_type_byte() {
        let program = Program::from_wasm(b"\0asm\x01\0\0\0").unwrap();
        assert_eq!(&program.encoded()[..], b"\x01\0asm\x01\0\0\0");
        assert_eq!(*program.digest(), sha256(b"\x01\0asm\x01\0\0\0"));
        assert_ne!(*program.digest(), sha256(b"\0asm\x01\0\0\0"));
        assert_eq!(program.language(), ProgramLanguage::Wasm);
    }

    #[test]
    fn numbers_are_decimal_hexadecimal_or_octal() {
        assert_eq!(
            encoded("255 15 0xF 0177777 0XFFFFFFFF"),
            [0, 255, 255, 255, 255, 255, 255, 255, 255]
        );
        assert_eq!(encoded("010 1 2 03 4"), [0, 8, 0x12, 0, 3, 0, 0, 0, 4]);
    }

    #[test]
    fn comments_blank_lines_carriage_returns_and_trailing_text_are_ignored() {
        let text =
            "# program\n\n\r\n \t\n1 2 3 4 5 ; return\r\n\t1\t2  3 4 5\r\n1 2 3 4 5;x\n1 2 3 4 5";
        let line = [1, 0x23, 0, 4, 0, 0, 0, 5];
        assert_eq!(encoded(text), [&[0][..], &line, &line, &line, &line].concat());
    }

    #[test]
    fn an_empty_file_is_a_program_of_one_byte() {
        assert_eq!(encoded(""), [0]);
        assert_eq!(encoded("# nothing"), [0]);
    }

    #[test]
    fn a_bad_line_is_named_with_its_number_and_field() {
        let bad = |line, problem| ProgramError::BadLine { line, problem };
        for (text, field) in [
            ("1 2 3 4", "imm"),
            ("1", "dst"),
            ("x 2 3 4 5", "opcode"),
            ("1 2 3 -4 5", "offset"),
            ("1,2 3 4 5 6", "opcode"),
            ("1 2 3 4 0x", "imm"),
            ("1 2 3 4 09", "imm"),
            ("1 2 3 4 1G", "imm"),
            ("1 2 3 4 99999999999999999999", "imm"),
            ("1 2 +3 4 5", "src"),
        ] {
            let error = error(&format!("# comment\n{text}\n"));
            assert_eq!(error, bad(2, LineProblem::NotANumber(field)), "{text}");
        }
        assert!(error("1 2 3 4").to_string().starts_with("line 1: imm is missing"));
    }

    #[test]
    fn each_field_has_its_limit() {
        for (text, field, max) in [
            ("256 0 0 0 0", "opcode", 255),
            ("0 16 0 0 0", "dst", 15),
            ("0 0 16 0 0", "src", 15),
            ("0 0 0 65536 0", "offset", 65_535),
            ("0 0 0 0 4294967296", "imm", 4_294_967_295),
        ] {
            let problem = LineProblem::TooBig { field, max };
            assert_eq!(error(text), ProgramError::BadLine { line: 1, problem });
        }
    }

    #[test]
    fn what_was_encoded_decodes_to_the_same_program() {
        for program in
            [Program::from_ebpf_text(EXAMPLE).unwrap(), Program::from_wasm(b"abc").unwrap()]
        {
            assert_eq!(Program::decode(program.encoded()).unwrap(), program);
        }
    }

    #[test]
    fn an_encoded_form_that_is_no_program_is_refused() {
        assert_eq!(Program::decode(b""), Err(ProgramError::Empty));
        assert_eq!(Program::decode(&[2, 0]), Err(ProgramError::UnknownType(2)));
        assert_eq!(Program::decode(&[0; 8]), Err(ProgramError::CutInstruction { len_bytes: 7 }));
    }

    #[test]
    fn a_program_larger_than_a_message_is_refused_at_load() {
        let largest = vec![0; ENCODED_LEN_MAX - 1];
        assert_eq!(Program::from_wasm(&largest).unwrap().encoded().len(), ENCODED_LEN_MAX);
        let len_bytes = ENCODED_LEN_MAX + 1;
        let error = Program::from_wasm(&vec![0; ENCODED_LEN_MAX]).unwrap_err();
        assert_eq!(error, ProgramError::TooLarge { len_bytes });
    }

    #[test]
    fn the_suffix_of_a_file_tells_its_language() {
        for (name, expected) in [
            ("monitor", Ok(ProgramLanguage::Ebpf)),
            ("monitor.ebpf", Ok(ProgramLanguage::Ebpf)),
            ("a.txt.wasm", Ok(ProgramLanguage::Wasm)),
            ("a.wasm.txt", Err(&b".txt"[..])),
            ("monitor.", Err(b".")),
        ] {
            assert_eq!(ProgramLanguage::from_file_name(name.as_bytes()), expected, "{name}");
        }
        let file = |language| Program::from_file(language, EXAMPLE).unwrap().language();
        assert_eq!(file(ProgramLanguage::Ebpf), ProgramLanguage::Ebpf);
        assert_eq!(file(ProgramLanguage::Wasm), ProgramLanguage::Wasm);
    }

    #[test]
    fn programs_are_found_by_their_digest() {
        let (one, two) = (Program::from_wasm(b"1").unwrap(), Program::from_wasm(b"2").unwrap());
        let programs: Programs = [one.clone(), one.clone()].into_iter().collect();
        assert_eq!(programs.len(), 1);
        assert_eq!(programs.find(one.digest()), Some(&one));
        assert_eq!(programs.find(two.digest()), None);
    }
}
