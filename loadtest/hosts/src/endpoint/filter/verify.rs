//! Whether a capture filter keeps the rules that Linux has for socket filters: the original loads its filters
//! into the kernel, so that a mlet's filter has to keep them anyway, and is told here what it would be there.
//!
//! Every instruction can be reached. Nothing is read that was not set, and what a packet load leaves of r1 to r5
//! is not set. A packet load wants the context in r6. Memory is the stack, at places that are known before the
//! filter runs, and of the context its first field, the packet's length, to be read. Nobody divides by a
//! constant zero, shifts by more than there are bits, calculates with an address or gives one away.
//!
//! Not here: opcodes, register numbers and jump distances, which rbpf checks; how long loops take (`filter`
//! counts while they run). The kernel follows each path by its values; this follows all of them at once, and
//! so refuses what sets a register on one path only and reads it on that one only.
//!
//! Invariant: an instruction is looked at again only when less is known of what it finds than before, which can
//! happen once for each register.

use super::instruction::{BadFilter, Instruction, PACKET_LOADS, STACK_LEN, opcode};

/// Registers of a filter; the last one is the end of its stack and never changes.
const REGISTERS: usize = 11;
const STACK_END: u8 = 10;
/// Where packet loads want the context.
const CONTEXT: u8 = 6;
/// Registers whose content is lost in a packet load.
const LOST: std::ops::RangeInclusive<u8> = 1..=5;

/// Classes of instructions, the low three bits of an opcode.
mod class {
    pub(super) const LOAD: u8 = 1;
    pub(super) const STORE: u8 = 2;
    pub(super) const STORE_REGISTER: u8 = 3;
    pub(super) const ALU_32: u8 = 4;
    pub(super) const JUMP: u8 = 5;
    pub(super) const JUMP_32: u8 = 6;
    pub(super) const ALU_64: u8 = 7;
}

/// Operations of the ALU classes, the high four bits of an opcode.
mod alu {
    pub(super) const ADD: u8 = 0x00;
    pub(super) const DIVIDE: u8 = 0x30;
    pub(super) const SHIFT_LEFT: u8 = 0x60;
    pub(super) const SHIFT_RIGHT: u8 = 0x70;
    pub(super) const NEGATE: u8 = 0x80;
    pub(super) const MODULO: u8 = 0x90;
    pub(super) const MOVE: u8 = 0xB0;
    pub(super) const SHIFT_RIGHT_SIGNED: u8 = 0xC0;
    pub(super) const BYTE_ORDER: u8 = 0xD0;
}

/// What a register holds, as far as that is known before the filter runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    /// Nothing, on one path at least; or an address, and on another path a number or another address.
    Unset,
    /// Any number.
    Number,
    /// The address of the context.
    Context,
    /// An address so many bytes from the end of the stack.
    Stack(i16),
}

impl Content {
    /// What is known if it may be either.
    fn or(self, other: Self) -> Self {
        match (self, other) {
            (one, same) if one == same => one,
            // As a number an address could be given away.
            _ => Self::Unset,
        }
    }
}

/// The registers before an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Registers([Content; REGISTERS]);

impl Registers {
    fn at_start() -> Self {
        let mut registers = Self([Content::Unset; REGISTERS]);
        registers.set(1, Content::Context);
        registers.set(STACK_END, Content::Stack(0));
        registers
    }

    fn of(&self, register: u8) -> Result<Content, BadFilter> {
        match self.0.get(usize::from(register)) {
            None | Some(Content::Unset) => Err(BadFilter),
            Some(content) => Ok(*content),
        }
    }

    fn number(&self, register: u8) -> Result<(), BadFilter> {
        if self.of(register)? == Content::Number { Ok(()) } else { Err(BadFilter) }
    }

    fn set(&mut self, register: u8, content: Content) {
        if let Some(known) = self.0.get_mut(usize::from(register)) {
            *known = content;
        }
    }

    fn or(&self, other: &Self) -> Self {
        let mut either = *self;
        for (known, other) in either.0.iter_mut().zip(other.0) {
            *known = known.or(other);
        }
        either
    }

    /// Carries out one instruction that is no jump.
    fn carry_out(&mut self, instruction: Instruction) -> Result<(), BadFilter> {
        let Instruction { opcode, destination, source, offset, .. } = instruction;
        if PACKET_LOADS.iter().any(|(load, ..)| *load == opcode) {
            return self.load_packet(instruction);
        }
        match opcode & 0x07 {
            class::LOAD => {
                let base = self.of(source)?;
                if (base, offset, width(opcode)) != (Content::Context, 0, 4) {
                    check_stack(base, offset, width(opcode))?;
                }
                self.set(destination, Content::Number);
            }
            class::STORE => check_stack(self.of(destination)?, offset, width(opcode))?,
            class::STORE_REGISTER => {
                self.number(source)?;
                check_stack(self.of(destination)?, offset, width(opcode))?;
            }
            class::ALU_32 | class::ALU_64 => self.calculate(instruction)?,
            // A number of 64 bits; any other source names something in the kernel.
            _ if opcode == opcode::LOAD_WIDE && source == 0 => {
                self.set(destination, Content::Number);
            }
            _ => return Err(BadFilter),
        }
        Ok(())
    }

    fn load_packet(&mut self, load: Instruction) -> Result<(), BadFilter> {
        if self.of(CONTEXT)? != Content::Context {
            return Err(BadFilter);
        }
        if PACKET_LOADS.iter().any(|(opcode, indexed, ..)| *opcode == load.opcode && *indexed) {
            self.number(load.source)?;
        }
        LOST.for_each(|register| self.set(register, Content::Unset));
        self.set(0, Content::Number);
        Ok(())
    }

    fn calculate(&mut self, instruction: Instruction) -> Result<(), BadFilter> {
        let Instruction { opcode, destination, source, offset, constant } = instruction;
        let is_64 = opcode & 0x07 == class::ALU_64;
        let operation = opcode & 0xF0;
        let by_register = opcode & opcode::BY_REGISTER != 0;
        // Other offsets are operations that Linux has got since, and rbpf has not.
        if offset != 0 {
            return Err(BadFilter);
        }
        let result = match operation {
            alu::MOVE if by_register && is_64 => self.of(source)?,
            alu::MOVE if by_register => self.number(source).map(|()| Content::Number)?,
            alu::MOVE => Content::Number,
            alu::NEGATE | alu::BYTE_ORDER => self.number(destination).map(|()| Content::Number)?,
            _ if by_register => {
                self.number(source)?;
                self.number(destination).map(|()| Content::Number)?
            }
            alu::ADD if is_64 && matches!(self.of(destination)?, Content::Stack(_)) => {
                self.of(destination)?.moved(constant)?
            }
            _ => {
                check_constant(operation, constant, is_64)?;
                self.number(destination).map(|()| Content::Number)?
            }
        };
        self.set(destination, result);
        Ok(())
    }

    /// Whether a jump that has a condition can be decided.
    fn compare(&self, jump: Instruction) -> Result<(), BadFilter> {
        self.number(jump.destination)?;
        if jump.opcode & opcode::BY_REGISTER == 0 { Ok(()) } else { self.number(jump.source) }
    }
}

impl Content {
    fn moved(self, by: i32) -> Result<Self, BadFilter> {
        let Self::Stack(offset) = self else { return Err(BadFilter) };
        let moved = i32::from(offset).checked_add(by).and_then(|offset| i16::try_from(offset).ok());
        moved.map(Self::Stack).ok_or(BadFilter)
    }
}

fn check_constant(operation: u8, constant: i32, is_64: bool) -> Result<(), BadFilter> {
    let bits = if is_64 { 64 } else { 32 };
    let allowed = match operation {
        alu::DIVIDE | alu::MODULO => constant != 0,
        alu::SHIFT_LEFT | alu::SHIFT_RIGHT | alu::SHIFT_RIGHT_SIGNED => {
            (0..bits).contains(&constant)
        }
        _ => true,
    };
    if allowed { Ok(()) } else { Err(BadFilter) }
}

/// Bytes that a load or store moves.
fn width(opcode: u8) -> i32 {
    match opcode & 0x18 {
        0x00 => 4,
        0x08 => 2,
        0x10 => 1,
        _ => 8,
    }
}

fn check_stack(base: Content, offset: i16, width: i32) -> Result<(), BadFilter> {
    let Content::Stack(from_end) = base else { return Err(BadFilter) };
    let start = i32::from(from_end) + i32::from(offset);
    if start >= -STACK_LEN && start + width <= 0 { Ok(()) } else { Err(BadFilter) }
}

/// Whether the filter keeps the rules.
///
/// # Errors
/// It does not.
pub(super) fn verify(instructions: &[Instruction]) -> Result<(), BadFilter> {
    let mut found: Vec<Option<Registers>> = vec![None; instructions.len()];
    let mut pending = vec![(0, Registers::at_start())];
    while let Some((index, registers)) = pending.pop() {
        let known = found.get_mut(index).ok_or(BadFilter)?;
        let now = known.map_or(registers, |known| known.or(&registers));
        if known.replace(now) == Some(now) {
            continue;
        }
        let instruction = *instructions.get(index).ok_or(BadFilter)?;
        pending.extend(follow(index, instruction, now)?.into_iter().flatten());
    }
    // The second half of a wide load is no instruction.
    let is_half = |index: usize| {
        let before = index.checked_sub(1).and_then(|before| instructions.get(before));
        before.is_some_and(|before| before.opcode == opcode::LOAD_WIDE)
    };
    let unreachable =
        |(index, found): (usize, &Option<Registers>)| found.is_none() && !is_half(index);
    if found.iter().enumerate().any(unreachable) { Err(BadFilter) } else { Ok(()) }
}

/// Where the filter goes on after an instruction, and with what.
type Next = [Option<(usize, Registers)>; 2];

fn follow(
    index: usize,
    instruction: Instruction,
    mut registers: Registers,
) -> Result<Next, BadFilter> {
    if instruction.opcode == opcode::EXIT {
        registers.number(0)?;
        return Ok([None, None]);
    }
    if !matches!(instruction.opcode & 0x07, class::JUMP | class::JUMP_32) {
        registers.carry_out(instruction)?;
        let len = if instruction.opcode == opcode::LOAD_WIDE { 2 } else { 1 };
        return Ok([Some((index + len, registers)), None]);
    }
    let target = index.checked_add_signed(1 + isize::from(instruction.offset)).ok_or(BadFilter)?;
    if instruction.opcode == opcode::JUMP {
        return Ok([Some((target, registers)), None]);
    }
    registers.compare(instruction)?;
    Ok([Some((target, registers)), Some((index + 1, registers))])
}
