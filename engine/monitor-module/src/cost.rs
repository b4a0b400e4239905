//! What it costs to compile a module, found before it is compiled.
//!
//! The compiler's time and memory do not follow from the size of a module: the results of one call, the variables at a jump
//! and the values on the operand stack count each time, and two bytes can stand for a thousand of them. Some instructions
//! become hundreds of the processor's. So each thing has a price, and a module whose prices come to more than a bound
//! is refused, as soon as they do: what is valid beyond that is never looked at.
//!
//! ```text
//! function, type, entry of a section   a price each
//! instruction                          a price by what the compiler makes of it
//! value taken or given by a call or jump   a price each
//! call                                 a part of what is alive across it
//! jump                                 variables and operands that are there, for each of its targets; variables again for
//!                                      the jumps before
//! loop                                 the same again, and of all in a function the square
//! ```
//!
//! Prices are in microseconds of a processor, from above, and are those of a release build; where memory is what grows
//! faster they are higher, so that the bounds hold for both (performance.md "What compiling a monitor costs").
//!
//! Not here: what of WebAssembly is run, beyond that all that is newer than its release 2.0 is refused.
//!
//! Invariant: no more is spent on a module here than its prices, and what passes is compiled within [`COST_MAX`].

use wasmparser::types::Types;
use wasmparser::{
    BinaryReaderError, ElementItems, FuncToValidate, FunctionBody, Operator, Parser, Payload,
    TableSectionReader, ValidPayload, Validator, ValidatorResources, WasmFeatures,
};

use crate::bounds::{COST_MAX, FUNCTION_COST_MAX, FUNCTION_LEN_MAX};
use crate::unfit::Unfit;

/// WebAssembly 2.0, and what compilers of it took for granted before the next release. The proposals of that one (garbage
/// collection, exceptions, tail calls, memories of 64 bits) have a cost that nobody has measured here.
const FEATURES: WasmFeatures = WasmFeatures::WASM2.union(WasmFeatures::LIME1);

/// An empty function, and what lets the host call it.
const FUNCTION: u64 = 150;
/// A type: the compiler makes a function for each, by which the module calls the host.
const TYPE: u64 = 250;
/// A parameter or result of a type.
const TYPE_VALUE: u64 = 15;
/// What a section has of anything else: a function of an element segment is the dearest.
const ENTRY: u64 = 300;
/// So many entries of a table that are there at first, for one.
const TABLE_ENTRIES_FOR_ONE: u64 = 3;

/// Arithmetic with integers.
const INTEGER: u64 = 4;
/// Arithmetic with floats.
const FLOAT: u64 = 8;
/// Instructions with vectors: what the processor has no single instruction for takes dozens.
const VECTOR: u64 = 60;
/// Division, which is checked before.
const DIVISION: u64 = 10;
/// A float made an integer, which is checked before or saturates, and takes memory.
const TRUNCATION: u64 = 30;
/// An access to memory, whose address is checked before.
const ACCESS: u64 = 20;
/// A call, or what becomes one of the host.
const CALL: u64 = 15;
/// What becomes a call of the host with checks around it, for a range of a memory or a table.
const RANGE: u64 = 150;
/// A call or an access through a table, whose entry may have to be made.
const TABLE: u64 = 180;
/// A jump or its target.
const JUMP: u64 = 5;

/// A value given by a call.
const RESULT: u64 = 6;
/// A value taken by one.
const PARAMETER: u64 = 2;
/// So many variables and operands that are alive across a call, for one.
const ALIVE_FOR_ONE: u64 = 16;
/// A value that goes with a jump.
const JUMP_VALUE: u64 = 4;
/// So many operands that are below at a jump, for one; each variable counts one.
const OPERANDS_FOR_ONE: u64 = 4;
/// So many variables at a jump, each as often as there were jumps before in its function, for one.
const VARIABLES_OF_JUMPS_FOR_ONE: u64 = 500;
/// A variable or operand at a loop.
const AT_LOOP: u64 = 3;
/// A loop, in these.
const LOOP: u64 = 3;
/// So many of the square of the variables and operands at all loops of a function, for one.
const AT_LOOPS_SQUARED_FOR_ONE: u64 = 100;

/// What a module consists of, and what it costs to compile it.
///
/// # Errors
/// It costs too much, or is none.
pub(crate) fn of(file: &[u8]) -> Result<(Types, u64), Unfit> {
    let mut validator = Validator::new_with_features(FEATURES);
    let mut cost = 0_u64;
    let mut types = None;
    for payload in Parser::new(0).parse_all(file) {
        let payload = payload?;
        cost = cost.saturating_add(of_section(&payload)?);
        // Before it is looked at more closely.
        bounded(cost)?;
        match validator.payload(&payload)? {
            ValidPayload::Func(function, body) => {
                cost += of_function(file, function, &body)?;
                bounded(cost)?;
            }
            ValidPayload::End(found) => types = Some(found),
            ValidPayload::Ok | ValidPayload::Parser(_) => {}
        }
    }
    // Whoever reads it says before that its end is missing.
    let types = types.ok_or_else(|| Unfit::Invalid("it has no end".to_owned()))?;
    Ok((types, cost))
}

fn bounded(cost: u64) -> Result<(), Unfit> {
    if cost > COST_MAX { Err(Unfit::TooCostly { cost }) } else { Ok(()) }
}

/// What is said of it outside of functions.
fn of_section(payload: &Payload<'_>) -> Result<u64, BinaryReaderError> {
    let entries = |count: u32| u64::from(count) * ENTRY;
    Ok(match payload {
        Payload::TypeSection(types) => {
            let mut cost = 0;
            for function in types.clone().into_iter_err_on_gc_types() {
                let function = function?;
                let values = function.params().len() + function.results().len();
                cost += TYPE + values as u64 * TYPE_VALUE;
            }
            cost
        }
        Payload::FunctionSection(functions) => u64::from(functions.count()) * FUNCTION,
        Payload::ImportSection(imports) => entries(imports.count()),
        Payload::TableSection(tables) => entries(tables.count()).saturating_add(at_first(tables)?),
        Payload::GlobalSection(globals) => entries(globals.count()),
        Payload::ExportSection(exports) => entries(exports.count()),
        Payload::ElementSection(elements) => {
            let mut cost = entries(elements.count());
            for element in elements.clone() {
                cost += match element?.items {
                    ElementItems::Functions(items) => entries(items.count()),
                    ElementItems::Expressions(_, items) => entries(items.count()),
                };
            }
            cost
        }
        Payload::DataSection(segments) => entries(segments.count()),
        _ => 0,
    })
}

/// What tables have at first, which is written down one by one.
fn at_first(tables: &TableSectionReader<'_>) -> Result<u64, BinaryReaderError> {
    let mut cost = 0_u64;
    for table in tables.clone() {
        cost = cost.saturating_add(table?.ty.initial / TABLE_ENTRIES_FOR_ONE);
    }
    Ok(cost)
}

fn of_function(
    file: &[u8],
    function: FuncToValidate<ValidatorResources>,
    body: &FunctionBody<'_>,
) -> Result<u64, Unfit> {
    if body.range().len() > FUNCTION_LEN_MAX {
        return Err(Unfit::FunctionTooLarge { len_bytes: body.range().len() });
    }
    let mut validator = function.into_validator(Default::default());
    validator.read_locals(&mut body.get_binary_reader())?;
    let mut cost = u64::from(validator.len_locals());
    let (mut jumps, mut at_loops) = (0_u64, 0_u64);
    let mut operators = body.get_operators_reader()?;
    while !operators.eof() {
        let (operator, offset) = operators.read_with_offset()?;
        let (taken, given) = match validator.control_stack_height() {
            // Behind the end, where it is not valid.
            0 => None,
            _ => operator.operator_arity(&validator),
        }
        .unwrap_or_default();
        let (taken, given) = (u64::from(taken), u64::from(given));
        let variables = u64::from(validator.len_locals());
        let operands = u64::from(validator.operand_stack_height());
        let alive = variables + operands;
        let jump = JUMP
            + variables
            + variables * jumps / VARIABLES_OF_JUMPS_FOR_ONE
            + operands / OPERANDS_FOR_ONE
            + (taken + given) * JUMP_VALUE;
        let opcode = file.get(offset).copied().unwrap_or_default();
        cost = cost.saturating_add(match class(&operator, opcode) {
            Class::Plain(price) => price,
            Class::Call(price) => {
                price + taken * PARAMETER + given * RESULT + alive / ALIVE_FOR_ONE
            }
            Class::Jump { targets } => {
                jumps += u64::from(targets);
                jump.saturating_mul(u64::from(targets))
            }
            Class::Table => TABLE + taken * PARAMETER + given * RESULT + jump,
            Class::Loop => {
                jumps += 1;
                let before = at_loops * at_loops;
                let at_loop = alive + taken + given + LOOP;
                at_loops += at_loop;
                let squared = at_loops * at_loops - before;
                jump + at_loop * AT_LOOP + squared / AT_LOOPS_SQUARED_FOR_ONE
            }
        });
        if cost > FUNCTION_COST_MAX {
            return Err(Unfit::FunctionTooCostly { cost });
        }
        validator.op(offset, &operator)?;
    }
    operators.finish()?;
    Ok(cost)
}

/// What counts of an instruction.
enum Class {
    /// Nothing but itself.
    Plain(u64),
    /// What it takes and gives, and what is alive across it.
    Call(u64),
    /// The same as a call, and what is there as at a jump, since it may have to make the entry.
    Table,
    /// What is there, for each place it may go to.
    Jump { targets: u32 },
    /// What is there, and what was at those before.
    Loop,
}

/// By its first byte where that says enough (WebAssembly 2.0, 5.4).
fn class(operator: &Operator<'_>, opcode: u8) -> Class {
    match operator {
        Operator::Loop { .. } => Class::Loop,
        Operator::Block { .. }
        | Operator::If { .. }
        | Operator::Else
        | Operator::End
        | Operator::Br { .. }
        | Operator::BrIf { .. }
        | Operator::Return => Class::Jump { targets: 1 },
        Operator::BrTable { targets } => Class::Jump { targets: targets.len().saturating_add(1) },
        Operator::Call { .. } => Class::Call(CALL),
        Operator::MemoryGrow { .. }
        | Operator::MemoryInit { .. }
        | Operator::MemoryCopy { .. }
        | Operator::MemoryFill { .. }
        | Operator::DataDrop { .. }
        | Operator::TableInit { .. }
        | Operator::TableCopy { .. }
        | Operator::TableFill { .. }
        | Operator::TableGrow { .. }
        | Operator::ElemDrop { .. }
        | Operator::RefFunc { .. } => Class::Call(RANGE),
        Operator::CallIndirect { .. } | Operator::TableGet { .. } | Operator::TableSet { .. } => {
            Class::Table
        }
        // They name what is there: what becomes of it counts.
        Operator::Nop
        | Operator::Drop
        | Operator::LocalGet { .. }
        | Operator::LocalSet { .. }
        | Operator::LocalTee { .. } => Class::Plain(0),
        _ => Class::Plain(match opcode {
            0x28..=0x3e => ACCESS,
            0x6d..=0x70 | 0x7f..=0x82 => DIVISION,
            0xa8..=0xab | 0xae..=0xb1 | 0xfc => TRUNCATION,
            0x8b..=0xbf => FLOAT,
            0xfd => VECTOR,
            _ => INTEGER,
        }),
    }
}

#[cfg(test)]
mod tests;
