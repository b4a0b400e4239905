//! The instructions of a filter: as PacketLab encodes them, as Linux does, and what does the same on rbpf.

const INSTRUCTION_LEN: usize = 8;
/// Instructions after translation that one packet may cost beyond going through the filter once. The kernel allows as many as it
/// looks at, a million; here they take longer.
pub(in super::super) const BUDGET: i32 = 1 << 18;
/// Bytes of stack that a filter has: the kernel's 512 without the two cells.
pub(super) const STACK_LEN: i32 = 512 - 16;
/// What the count saves from a register, and the count itself, from the end of the stack.
const SAVED: i16 = -512;
const COUNT: i16 = -504;

/// Opcodes that mean more than themselves here.
pub(super) mod opcode {
    pub(in super::super) const LOAD_WIDE: u8 = 0x18;
    pub(in super::super) const LOAD: u8 = 0x79;
    pub(in super::super) const STORE: u8 = 0x7B;
    pub(in super::super) const MOVE_CONSTANT: u8 = 0xB7;
    pub(in super::super) const MOVE_32: u8 = 0xBC;
    pub(in super::super) const ADD: u8 = 0x0F;
    pub(in super::super) const ADD_CONSTANT: u8 = 0x07;
    pub(in super::super) const XOR_CONSTANT: u8 = 0xA7;
    pub(in super::super) const NEGATE: u8 = 0x87;
    pub(in super::super) const BIG_ENDIAN: u8 = 0xDC;
    pub(in super::super) const CALL: u8 = 0x85;
    pub(in super::super) const EXIT: u8 = 0x95;
    pub(in super::super) const JUMP: u8 = 0x05;
    pub(in super::super) const JUMP_UNLESS_ABOVE_CONSTANT: u8 = 0xB5;
    /// The second operand of a calculation or jump is a register and not a constant.
    pub(in super::super) const BY_REGISTER: u8 = 0x08;
    /// Jumps that compare 64 bits with a constant, without regard to a sign: if equal, above, not below, unequal,
    /// below, not above.
    pub(in super::super) const JUMPS_BY_CONSTANT: [u8; 6] = [0x15, 0x25, 0x35, 0x55, 0xA5, 0xB5];
    /// Classes of jumps, comparing 64 and 32 bits.
    pub(in super::super) const JUMP_CLASSES: [u8; 2] = [0x05, 0x06];
}

/// Loads of packet bytes as classic BPF has them: opcode, whether a register is added to the offset,
/// bits, and the opcode of the plain load of that width.
pub(super) const PACKET_LOADS: [(u8, bool, i32, u8); 8] = [
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

/// The program is no capture filter.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) struct BadFilter;

/// One eBPF instruction.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Instruction {
    pub(super) opcode: u8,
    pub(super) destination: u8,
    pub(super) source: u8,
    pub(super) offset: i16,
    pub(super) constant: i32,
}

impl Instruction {
    /// From PacketLab's encoding (spec/protocol.md 6.2).
    pub(super) fn decode(bytes: [u8; INSTRUCTION_LEN]) -> Self {
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
    pub(super) fn encode(self) -> [u8; INSTRUCTION_LEN] {
        let registers = self.source << 4 | self.destination;
        let [o1, o2] = self.offset.to_le_bytes();
        let [c1, c2, c3, c4] = self.constant.to_le_bytes();
        [self.opcode, registers, o1, o2, c1, c2, c3, c4]
    }

    pub(super) fn jumps(self) -> bool {
        opcode::JUMP_CLASSES.contains(&(self.opcode & 0x07)) && self.opcode != opcode::EXIT
    }

    /// What does the same on rbpf, with the packet at the address `packet`.
    pub(super) fn translated(self, packet: u64) -> Vec<Self> {
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
