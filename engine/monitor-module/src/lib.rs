//! What a program must be to be a monitor of an endpoint (spec/monitors.md 2, 3), found without running it: by the endpoint
//! that is handed it, by whoever demands it in a certificate, and by the manager that will hand it over.
//!
//! ```text
//! bounds how much of everything it may have
//! cost   what compiling it costs, and whether it is a module at all
//! form   its imports and exports, and their types
//! unfit  why a program cannot be a monitor
//! ```
//!
//! Not here: compiling and running one (the crate `monitors`, with wasmtime, which who signs certificates need not have).
//!
//! Invariant: no more is spent on a program than the prices in `cost`, whatever it is. What passes links at an endpoint; what it
//! does when it is run nobody knows before.

#![forbid(unsafe_code)]

mod bounds;
mod cost;
mod form;
mod unfit;

use packetlab::program::{Program, ProgramLanguage};

pub use bounds::{MODULE_LEN_MAX, PAGES, TABLE_ELEMENTS_MAX, TABLES_MAX, TEXT_LEN_MAX};
pub use form::{ENV_FUNCTIONS, Kind, Number, WASI, WASI_FUNCTIONS};
pub use unfit::{Unfit, one_line};

/// Looks whether a program can be a monitor. Those messages come back that it cannot judge, for want of a function of the
/// right type: endpoints refuse each of these.
///
/// # Errors
/// No endpoint of ours runs it.
pub fn check(program: &Program) -> Result<Vec<Kind>, Unfit> {
    if program.language() == ProgramLanguage::Ebpf {
        return Err(Unfit::Ebpf);
    }
    let file = program.encoded().get(1..).unwrap_or_default();
    if file.len() > MODULE_LEN_MAX {
        return Err(Unfit::TooLarge { len_bytes: file.len() });
    }
    form::check(&cost::of(file)?.0)
}

#[cfg(test)]
mod tests;
