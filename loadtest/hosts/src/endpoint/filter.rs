//! Capture filters: eBPF programs that say how many bytes of a packet are wanted (spec/protocol.md 1.4, 6.2).
//!
//! They run on `rbpf`, after translation. PacketLab writes registers and numbers the other way round,
//! and filters read the packet with the loads of classic BPF, which the kernel offers to socket filters:
//! big-endian, counted from the packet's first byte, a load past the end rejects the packet. rbpf's own
//! version of these loads has neither property, so that each becomes plain instructions here.
//!
//! ```text
//! verify   the kernel's rules, which the original's endpoints hold filters to
//! ```
//!
//! Not here: where packets come from; WebAssembly, which endpoints do not run as filters.
//!
//! Invariant: a translated filter ends, whatever the packet: it may jump back, and before it does it counts how
//! far, up to [`BUDGET`]. It sees nothing but a copy of the packet, its length and its own stack, without the
//! two cells below that which the count needs.

mod verify;

use packetlab::program::{Program, ProgramLanguage};
use rbpf::EbpfVmMbuff;

/// Largest packet, and largest encoded filter (spec/protocol.md 7).
const LEN_MAX: usize = 0x1_0000;
/// Most instructions after translation: rbpf computes jumps with 16-bit numbers.
const INSTRUCTIONS_MAX: usize = 0x7FFF;
const INSTRUCTION_LEN: usize = 8;
/// Instructions after translation that one packet may cost beyond going through the filter once. The kernel allows as many as it
/// looks at, a million; here they take longer.
pub(super) const BUDGET: i32 = 1 << 18;
/// Bytes of stack that a filter has: the kernel's 512 without the two cells.
const STACK_LEN: i32 = 512 - 16;
/// What the count saves from a register, and the count itself, from the end of the stack.
const SAVED: i16 = -512;
const COUNT: i16 = -504;
/// Which of the instructions before a jump back adds to the count.
const COUNTED_AT: usize = 2;

/// Opcodes that mean more than themselves here.
mod opcode {
    pub(super) const LOAD_WIDE: u8 = 0x18;
    pub(super) const LOAD: u8 = 0x79;
    pub(super) const STORE: u8 = 0x7B;
    pub(super) const MOVE_CONSTANT: u8 = 0xB7;
    pub(super) const MOVE_32: u8 = 0xBC;
    pub(super) const ADD: u8 = 0x0F;
    pub(super) const ADD_CONSTANT: u8 = 0x07;
    pub(super) const XOR_CONSTANT: u8 = 0xA7;
    pub(super) const NEGATE: u8 = 0x87;
    pub(super) const BIG_ENDIAN: u8 = 0xDC;
    pub(super) const CALL: u8 = 0x85;
    pub(super) const EXIT: u8 = 0x95;
    pub(super) const JUMP: u8 = 0x05;
    pub(super) const JUMP_UNLESS_ABOVE_CONSTANT: u8 = 0xB5;
    /// The second operand of a calculation or jump is a register and not a constant.
    pub(super) const BY_REGISTER: u8 = 0x08;
    /// Jumps that compare 64 bits with a constant, without regard to a sign: if equal, above, not below, unequal,
    /// below, not above.
    pub(super) const JUMPS_BY_CONSTANT: [u8; 6] = [0x15, 0x25, 0x35, 0x55, 0xA5, 0xB5];
    /// Classes of jumps, comparing 64 and 32 bits.
    pub(super) const JUMP_CLASSES: [u8; 2] = [0x05, 0x06];
}

/// Loads of packet bytes as classic BPF has them: opcode, whether a register is added to the offset,
/// bits, and the opcode of the plain load of that width.
const PACKET_LOADS: [(u8, bool, i32, u8); 8] = [
    (0x30, false, 8, 0x71),
    (0x28, false, 16, 0x69),
    (0x20, false, 32, 0x61),
    (0x38, false, 64, 0x79),
    (0x50, true, 8, 0x71),
    (0x48, true, 16, 0x69),
    (0x40, true, 32, 0x61),
    (0x58, true, 64, 0x79),
];
/// A register that packet loads may change: by their definition all of r1 to r5 are lost.
const SCRATCH: u8 = 5;
/// The end of the stack.
const STACK_END: u8 = 10;

/// A filter that can run.
#[derive(Debug)]
pub(super) struct Filter {
    /// For rbpf.
    program: Vec<u8>,
    /// Where packets are copied to; `program` knows the address.
    packet: Box<[u8]>,
}

/// The program is no capture filter.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadFilter;

/// A packet cost a filter more than [`BUDGET`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OverBudget;

impl Filter {
    /// Translates the encoded form that NCAP carries.
    ///
    /// # Errors
    /// It is no eBPF program, too long, calls somebody, breaks the kernel's rules, or already goes in circles on a
    /// packet of zeros.
    pub(super) fn decode(encoded: &[u8]) -> Result<Self, BadFilter> {
        let program = Program::decode(encoded).map_err(|_| BadFilter)?;
        if encoded.len() > LEN_MAX || program.language() != ProgramLanguage::Ebpf {
            return Err(BadFilter);
        }
        let (instructions, _) = encoded.get(1..).unwrap_or_default().as_chunks();
        let instructions: Vec<_> = instructions.iter().copied().map(Instruction::decode).collect();
        let packet = vec![0; LEN_MAX].into_boxed_slice();
        let program = translate(&instructions, packet.as_ptr() as u64)?;
        // rbpf checks opcodes, registers and where jumps lead.
        EbpfVmMbuff::new(Some(&program)).map_err(|_| BadFilter)?;
        verify::verify(&instructions)?;
        let mut filter = Self { program, packet };
        match filter.result(&[0; LEN_MAX]) {
            Some(result) if u32::try_from(result).is_err() => Err(BadFilter),
            _ => Ok(filter),
        }
    }

    /// How many bytes of `packet` are wanted; 0 if it is not.
    ///
    /// # Errors
    /// The budget was used up. The next packet may cost as much.
    pub(super) fn wanted_len(&mut self, packet: &[u8]) -> Result<usize, OverBudget> {
        let wanted = u32::try_from(self.result(packet).unwrap_or(0)).map_err(|_| OverBudget)?;
        Ok(usize::try_from(wanted).unwrap_or(usize::MAX).min(packet.len()))
    }

    /// What the filter returns: a number of 32 bits, or a larger one if its budget was used up. `None` is a load
    /// from outside the packet, which is not of the kind looked for then.
    fn result(&mut self, packet: &[u8]) -> Option<u64> {
        let copy = self.packet.get_mut(..packet.len())?;
        copy.copy_from_slice(packet);
        #[expect(
            clippy::host_endian_bytes,
            reason = "a filter reads it as a number, as in the kernel"
        )]
        let context = u32::try_from(packet.len()).ok()?.to_ne_bytes();
        // The machine borrows the program, and so cannot be kept beside it.
        EbpfVmMbuff::new(Some(&self.program))
            .and_then(|machine| machine.execute_program(copy, &context))
            .ok()
    }
}

/// The whole program for rbpf.
fn translate(instructions: &[Instruction], packet: u64) -> Result<Vec<u8>, BadFilter> {
    let ends = |last: &Instruction| matches!(last.opcode, opcode::EXIT | opcode::JUMP);
    if !instructions.last().is_some_and(ends) {
        return Err(BadFilter);
    }
    // Where each instruction starts after translation.
    let mut starts = Vec::with_capacity(instructions.len());
    let mut translated = Vec::with_capacity(instructions.len());
    for (index, instruction) in instructions.iter().enumerate() {
        let follows_wide =
            index > 0 && instructions.get(index - 1).is_some_and(|i| i.opcode == opcode::LOAD_WIDE);
        // The second half of a wide load is no instruction, whatever it looks like.
        if follows_wide && instruction.opcode != 0 || instruction.opcode == opcode::CALL {
            return Err(BadFilter);
        }
        starts.push(translated.len());
        translated.extend(instruction.translated(packet));
    }
    if translated.len() > INSTRUCTIONS_MAX {
        return Err(BadFilter);
    }
    // Where each ends.
    let ends = starts.iter().copied().skip(1).chain([translated.len()]);
    for (((index, instruction), start), end) in
        instructions.iter().enumerate().zip(&starts).zip(ends)
    {
        if !instruction.jumps() {
            continue;
        }
        let target = (index + 1).checked_add_signed(instruction.offset.into()).ok_or(BadFilter)?;
        let target = starts.get(target).copied().ok_or(BadFilter)?;
        // The jump itself is the last of what it was translated to.
        let jump = translated.get_mut(end - 1).ok_or(BadFilter)?;
        let distance = i64::try_from(target).ok().zip(i64::try_from(end).ok());
        let distance = distance.map(|(target, end)| target - end).ok_or(BadFilter)?;
        jump.offset = i16::try_from(distance).map_err(|_| BadFilter)?;
        if instruction.offset < 0 {
            let count = translated.get_mut(start + COUNTED_AT).ok_or(BadFilter)?;
            count.constant = i32::try_from(-distance).map_err(|_| BadFilter)?;
        }
    }
    Ok(translated.into_iter().flat_map(Instruction::encode).collect())
}

/// One eBPF instruction.
#[derive(Debug, Clone, Copy, Default)]
struct Instruction {
    opcode: u8,
    destination: u8,
    source: u8,
    offset: i16,
    constant: i32,
}

impl Instruction {
    /// From PacketLab's encoding (spec/protocol.md 6.2).
    fn decode(bytes: [u8; INSTRUCTION_LEN]) -> Self {
        let [opcode, registers, o1, o2, c1, c2, c3, c4] = bytes;
        Self {
            opcode,
            destination: registers >> 4,
            source: registers & 0x0F,
            offset: i16::from_be_bytes([o1, o2]),
            constant: i32::from_be_bytes([c1, c2, c3, c4]),
        }
    }

    /// In Linux's encoding.
    fn encode(self) -> [u8; INSTRUCTION_LEN] {
        let registers = self.source << 4 | self.destination;
        let [o1, o2] = self.offset.to_le_bytes();
        let [c1, c2, c3, c4] = self.constant.to_le_bytes();
        [self.opcode, registers, o1, o2, c1, c2, c3, c4]
    }

    fn jumps(self) -> bool {
        opcode::JUMP_CLASSES.contains(&(self.opcode & 0x07)) && self.opcode != opcode::EXIT
    }

    /// What does the same on rbpf, with the packet at the address `packet`.
    fn translated(self, packet: u64) -> Vec<Self> {
        let constant = self.constant;
        if self.opcode == opcode::NEGATE {
            // rbpf's own overflows for the smallest number.
            return vec![
                Self { opcode: opcode::XOR_CONSTANT, constant: -1, ..self },
                Self { opcode: opcode::ADD_CONSTANT, constant: 1, ..self },
            ];
        }
        if self.opcode == opcode::EXIT {
            // A result has 32 bits; that leaves others for what is not one.
            return vec![Self { opcode: opcode::MOVE_32, ..Self::default() }, self];
        }
        if self.jumps() {
            let mut instructions = if self.offset < 0 { Self::counting() } else { Vec::new() };
            instructions.extend(self.comparing());
            return instructions;
        }
        let Some((_, indexed, bits, plain)) =
            PACKET_LOADS.into_iter().find(|(opcode, ..)| *opcode == self.opcode)
        else {
            return vec![self];
        };
        let r0 = |opcode, source, constant| Self { opcode, source, constant, ..Self::default() };
        let address = packet.wrapping_add_signed(constant.into());
        let mut instructions = Vec::with_capacity(6);
        if indexed {
            // An index is an unsigned number of 32 bits.
            instructions.push(r0(opcode::MOVE_32, self.source, 0));
            instructions.extend(Self::load_wide(SCRATCH, address));
            instructions.push(r0(opcode::ADD, SCRATCH, 0));
        } else {
            instructions.extend(Self::load_wide(0, address));
        }
        instructions.push(r0(plain, 0, 0));
        if bits > 8 {
            instructions.push(r0(opcode::BIG_ENDIAN, 0, bits));
        }
        instructions
    }

    /// Before a jump back: adds how far, which is known once all is translated, to the count, and ends the filter,
    /// with a result that is none, once that is more than the budget.
    fn counting() -> Vec<Self> {
        let r0 = |opcode, offset, constant| Self { opcode, offset, constant, ..Self::default() };
        vec![
            Self::store(SAVED, 0),
            Self::load(0, COUNT),
            r0(opcode::ADD_CONSTANT, 0, 0),
            Self::store(COUNT, 0),
            r0(opcode::JUMP_UNLESS_ABOVE_CONSTANT, 2, BUDGET),
            r0(opcode::MOVE_CONSTANT, 0, -1),
            r0(opcode::EXIT, 0, 0),
            Self::load(0, SAVED),
        ]
    }

    /// The jump itself, last. Linux compares 64 bits with the constant's, which are ones where it is negative; rbpf
    /// has zeros there, and so compares with a register then.
    fn comparing(self) -> Vec<Self> {
        let by_register = self.opcode | opcode::BY_REGISTER;
        if self.constant >= 0 || !opcode::JUMPS_BY_CONSTANT.contains(&self.opcode) {
            return vec![self];
        }
        let source = u8::from(self.destination == 0);
        let jump = |opcode, offset| Self { opcode, offset, ..Self::default() };
        vec![
            Self::store(SAVED, source),
            Self { opcode: opcode::MOVE_CONSTANT, destination: source, offset: 0, ..self },
            Self { opcode: by_register, source, offset: 2, constant: 0, ..self },
            Self::load(source, SAVED),
            jump(opcode::JUMP, 2),
            Self::load(source, SAVED),
            jump(opcode::JUMP, self.offset),
        ]
    }

    /// `register = stack[offset]`
    fn load(register: u8, offset: i16) -> Self {
        let (destination, source) = (register, STACK_END);
        Self { opcode: opcode::LOAD, destination, source, offset, constant: 0 }
    }

    /// `stack[offset] = register`
    fn store(offset: i16, register: u8) -> Self {
        let (destination, source) = (STACK_END, register);
        Self { opcode: opcode::STORE, destination, source, offset, constant: 0 }
    }

    /// `register = number`, which takes two instructions.
    fn load_wide(register: u8, number: u64) -> [Self; 2] {
        let [h1, h2, h3, h4, l1, l2, l3, l4] = number.to_be_bytes();
        let (high, low) =
            (i32::from_be_bytes([h1, h2, h3, h4]), i32::from_be_bytes([l1, l2, l3, l4]));
        let first = Self { opcode: opcode::LOAD_WIDE, destination: register, ..Self::default() };
        [Self { constant: low, ..first }, Self { constant: high, ..Self::default() }]
    }
}

#[cfg(test)]
mod tests;
