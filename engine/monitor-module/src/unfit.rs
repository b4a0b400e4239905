//! Why a program cannot be a monitor, in words.
//!
//! Not here: finding it. Invariant: what a program says of itself is escaped and cut.

use std::fmt;

use packetlab::escape::Escaped;
use wasmparser::BinaryReaderError;

use crate::bounds::{
    COST_MAX, FUNCTION_COST_MAX, FUNCTION_LEN_MAX, MODULE_LEN_MAX, TABLE_ELEMENTS_MAX, TABLES_MAX,
    TEXT_LEN_MAX,
};

/// Of what costs the compiler time and memory, what a module has too much of most likely.
const WHAT_COUNTS: &str = "functions, types and entries of tables count, and instructions, calls with their values, and jumps \
     and loops with the variables and operands that are there; a compiler that optimises for size makes less of each";

/// Why a program cannot be a monitor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfit {
    /// It is no WebAssembly. Original endpoints take it all the same, and never ask it (spec/monitors.md 12).
    Ebpf,
    /// It has more bytes than are compiled.
    TooLarge {
        /// How many.
        len_bytes: usize,
    },
    /// Compiling all of it would take long and much memory.
    TooCostly {
        /// What it costs, counted as far as the first thing beyond what it may.
        cost: u64,
    },
    /// Compiling one of its functions would.
    FunctionTooCostly {
        /// What it costs, counted as far as the first thing beyond what it may.
        cost: u64,
    },
    /// It has a function of more bytes than are compiled.
    FunctionTooLarge {
        /// How many.
        len_bytes: usize,
    },
    /// It is no module, or uses what is newer than is compiled: the reader's words.
    Invalid(String),
    /// It does not import the memory that a monitor has.
    NoMemory,
    /// It wants more or less of that memory than there is.
    Memory,
    /// It imports this, which there is not, or of another type.
    Import(String),
    /// Its tables have more than there is room for.
    Tables,
    /// It does not export this function, with the right type.
    NoExport(&'static str),
    /// Its `initialize` is no function of the right type.
    Initialize,
}

impl From<BinaryReaderError> for Unfit {
    fn from(error: BinaryReaderError) -> Self {
        Self::Invalid(one_line(&error.to_string()))
    }
}

/// Behind the name of the program.
impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ebpf => f.write_str(
                "it is in eBPF, which no endpoint runs: pktfleet's refuse the experiment, original ones take the program \
                 and never ask it; monitors are written in WebAssembly",
            ),
            Self::TooLarge { len_bytes } => write!(
                f,
                "it has {len_bytes} bytes, more than {MODULE_LEN_MAX}, which are compiled at most"
            ),
            Self::TooCostly { cost } => {
                write!(
                    f,
                    "compiling it costs {cost} or more of at most {COST_MAX}: {WHAT_COUNTS}"
                )
            }
            Self::FunctionTooCostly { cost } => write!(
                f,
                "compiling a function of it costs {cost} or more of at most {FUNCTION_COST_MAX}: {WHAT_COUNTS}"
            ),
            Self::FunctionTooLarge { len_bytes } => write!(
                f,
                "it has a function of {len_bytes} bytes, more than {FUNCTION_LEN_MAX}, which are compiled at most"
            ),
            Self::Invalid(cause) => write!(f, "it cannot be compiled: {cause}"),
            Self::NoMemory => f.write_str(
                "it does not import its memory as monitor.memory (an option of the linker, --import-memory=monitor,memory)",
            ),
            Self::Memory => f.write_str(
                "it wants another memory than there is, which has two pages of 64 KiB at first and no maximum (options of \
                 the linker, --initial-memory=131072, no --max-memory, and a small stack, -zstack-size=16384)",
            ),
            Self::Import(name) => {
                write!(f, "it imports {name}, which endpoints do not have, or not of this type")
            }
            Self::Tables => write!(
                f,
                "it has more than {TABLES_MAX} tables or more than {TABLE_ELEMENTS_MAX} entries in one"
            ),
            Self::NoExport(name) => {
                write!(f, "it has no function {name} of the right type among its exports")
            }
            Self::Initialize => {
                f.write_str("its initialize does not take three i32, or gives no number")
            }
        }
    }
}

impl std::error::Error for Unfit {}

/// A text that may show what a module says, in one line.
#[must_use]
pub fn one_line(text: &str) -> String {
    let cut = text.chars().take(TEXT_LEN_MAX).collect::<String>();
    Escaped(cut.as_bytes()).to_string()
}
