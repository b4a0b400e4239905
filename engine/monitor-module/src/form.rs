//! What a monitor imports and exports, and of which types (spec/monitors.md 3, 6, 7, 9).
//!
//! Not here: whether it is a module at all (`cost`).
//!
//! Invariant: what passes links with what an endpoint has, and has the functions without which nothing can be asked of it.

use wasmparser::types::{EntityType, Types};
use wasmparser::{FuncType, MemoryType, ValType};

use crate::bounds::{PAGES, TABLE_ELEMENTS_MAX, TABLES_MAX};
use crate::unfit::{Unfit, one_line};

/// The module name of the functions that are there so that modules of wasi-libc link.
pub const WASI: &str = "wasi_snapshot_preview1";

/// The type of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    /// 32 bits.
    I32,
    /// 64 bits.
    I64,
}

use Number::{I32, I64};

/// The functions of WASI that a module may name, and may not call: their parameters, and whether they give an i32.
pub const WASI_FUNCTIONS: [(&str, &[Number], bool); 12] = [
    ("args_get", &[I32; 2], true),
    ("args_sizes_get", &[I32; 2], true),
    ("fd_close", &[I32], true),
    ("fd_fdstat_get", &[I32; 2], true),
    ("fd_fdstat_set_flags", &[I32; 2], true),
    ("fd_prestat_dir_name", &[I32; 3], true),
    ("fd_prestat_get", &[I32; 2], true),
    ("fd_read", &[I32; 4], true),
    ("fd_seek", &[I32, I64, I32, I32], true),
    ("fd_write", &[I32; 4], true),
    ("path_open", &[I32, I32, I32, I32, I32, I64, I64, I32, I32], true),
    ("proc_exit", &[I32], false),
];

/// Those of the endpoint, in the module `env`, as above.
pub const ENV_FUNCTIONS: [(&str, &[Number], bool); 4] = [
    ("read_vmem_region", &[I32; 3], true),
    ("persistent_memory_flush", &[], true),
    ("endpoint_debug_enabled", &[], true),
    ("monitor_debug", &[I32], false),
];

/// The messages that monitors are asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A socket is opened.
    Nopen,
    /// It is closed.
    Nclose,
    /// Data is sent.
    Nsend,
    /// Packets are captured.
    Ncap,
    /// Data was received.
    Ndata,
}

impl Kind {
    /// In the order of their numbers.
    pub const ALL: [Self; 5] = [Self::Nopen, Self::Nclose, Self::Nsend, Self::Ncap, Self::Ndata];

    fn name(self) -> &'static str {
        match self {
            Self::Nopen => "NOPEN",
            Self::Nclose => "NCLOSE",
            Self::Nsend => "NSEND",
            Self::Ncap => "NCAP",
            Self::Ndata => "NDATA",
        }
    }

    /// The function that judges it.
    #[must_use]
    pub fn check_name(self) -> &'static str {
        match self {
            Self::Nopen => "check_pktlab_message_nopen",
            Self::Nclose => "check_pktlab_message_nclose",
            Self::Nsend => "check_pktlab_message_nsend",
            Self::Ncap => "check_pktlab_message_ncap",
            Self::Ndata => "check_pktlab_message_ndata",
        }
    }

    /// The function that is told what became of it.
    #[must_use]
    pub fn result_name(self) -> Option<&'static str> {
        match self {
            Self::Nopen => Some("pktlab_message_nopen_result"),
            Self::Nclose => Some("pktlab_message_nclose_result"),
            Self::Nsend => Some("pktlab_message_nsend_result"),
            Self::Ncap => Some("pktlab_message_ncap_result"),
            Self::Ndata => None,
        }
    }

    /// What becomes of such messages if a monitor has no function that judges them, behind the monitor's name.
    #[must_use]
    pub fn unjudged(self) -> String {
        let (check, message) = (self.check_name(), self.name());
        format!("it has no function {check} of the right type, and so lets no {message} pass")
    }

    /// What the function that judges it takes.
    fn parameters(self) -> &'static [Number] {
        match self {
            Self::Nopen => &[I32; 14],
            Self::Nclose => &[I32; 3],
            Self::Nsend => &[I32, I32, I32, I64, I32, I32, I32, I32, I32, I32, I32, I32],
            Self::Ncap => &[I32, I32, I32, I64, I32, I32],
            Self::Ndata => &[I32, I32, I32, I64, I32, I32, I32, I32, I32, I32, I32],
        }
    }
}

/// Looks at what a module imports and exports; the messages that it cannot judge.
pub(crate) fn check(types: &Types) -> Result<Vec<Kind>, Unfit> {
    check_imports(types)?;
    check_tables(types)?;
    for (name, result) in [("malloc", &[ValType::I32][..]), ("free", &[])] {
        let is_it = |found: &FuncType| takes(found, &[I32]) && found.results() == result;
        if !exported(types, name).is_some_and(|found| function(types, found).is_some_and(is_it)) {
            return Err(Unfit::NoExport(name));
        }
    }
    let gives_number = |found: &FuncType| matches!(found.results(), [ValType::I32 | ValType::I64]);
    // What has its name and is no function is not called.
    let initialize = exported(types, "initialize").and_then(|found| function(types, found));
    if initialize.is_some_and(|found| !takes(found, &[I32; 3]) || !gives_number(found)) {
        return Err(Unfit::Initialize);
    }
    let judges = |kind: &Kind| {
        let found = exported(types, kind.check_name()).and_then(|found| function(types, found));
        found.is_some_and(|found| takes(found, kind.parameters()) && gives_number(found))
    };
    Ok(Kind::ALL.into_iter().filter(|kind| !judges(kind)).collect())
}

fn check_imports(types: &Types) -> Result<(), Unfit> {
    let types_ref = types.as_ref();
    let mut memory = None;
    for (module, name, imported) in types_ref.core_imports().into_iter().flatten() {
        let is_there = match imported {
            EntityType::Memory(wanted) if (module, name) == ("monitor", "memory") => {
                memory = Some(wanted);
                true
            }
            _ => function(types, imported).is_some_and(|wanted| is_offered(module, name, wanted)),
        };
        // A memory of another name, and none of its own, is a mistake of the linker's options.
        let is_memory = matches!(imported, EntityType::Memory(_));
        if !is_there && !is_memory {
            return Err(Unfit::Import(one_line(&format!("{module}.{name}"))));
        }
    }
    match memory {
        None => Err(Unfit::NoMemory),
        Some(MemoryType {
            memory64: false,
            shared: false,
            initial,
            maximum: None,
            page_size_log2: None,
        }) if initial <= PAGES.into() => Ok(()),
        Some(_) => Err(Unfit::Memory),
    }
}

fn is_offered(module: &str, name: &str, wanted: &FuncType) -> bool {
    let functions = match module {
        "env" => &ENV_FUNCTIONS[..],
        WASI => &WASI_FUNCTIONS,
        _ => &[],
    };
    functions.iter().any(|(offered, parameters, has_result)| {
        let result = [ValType::I32];
        let results = if *has_result { &result[..] } else { &[] };
        *offered == name && takes(wanted, parameters) && wanted.results() == results
    })
}

fn check_tables(types: &Types) -> Result<(), Unfit> {
    let types = types.as_ref();
    let mut tables = (0..types.table_count()).map(|index| types.table_at(index));
    let fits = types.table_count() as usize <= TABLES_MAX
        && tables.all(|table| table.initial <= TABLE_ELEMENTS_MAX as u64);
    if fits { Ok(()) } else { Err(Unfit::Tables) }
}

fn exported(types: &Types, name: &str) -> Option<EntityType> {
    let mut exports = types.as_ref().core_exports()?;
    exports.find_map(|(exported, of)| (exported == name).then_some(of))
}

fn function(types: &Types, of: EntityType) -> Option<&FuncType> {
    match of {
        EntityType::Func(id) => Some(types[id].unwrap_func()),
        _ => None,
    }
}

fn takes(function: &FuncType, parameters: &[Number]) -> bool {
    let number = |parameter: &Number| match parameter {
        I32 => ValType::I32,
        I64 => ValType::I64,
    };
    parameters.iter().map(number).eq(function.params().iter().copied())
}
