//! How much of everything a monitor may have.
//!
//! Not here: what its parts cost (`cost`).

/// Largest module that is compiled, in bytes. The original's have 10 KB.
pub const MODULE_LEN_MAX: usize = 1 << 20;
/// Most that a module may cost.
pub(crate) const COST_MAX: u64 = 1_500_000;
/// Most that one function may cost: it is compiled as a whole, so that its memory adds up.
pub(crate) const FUNCTION_COST_MAX: u64 = 200_000;
/// Longest function, in bytes. What the compiler takes for an instruction grows in longer ones.
pub(crate) const FUNCTION_LEN_MAX: usize = 64 << 10;
/// Pages of the memory that every monitor has, at first.
pub const PAGES: u32 = 2;
/// Longest text that a module has a say in.
pub const TEXT_LEN_MAX: usize = 200;
/// Tables of a module.
pub const TABLES_MAX: usize = 16;
/// Entries of one.
pub const TABLE_ELEMENTS_MAX: usize = 10_000;
