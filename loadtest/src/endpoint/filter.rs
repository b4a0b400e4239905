//! Capture filters: eBPF programs that say how many bytes of a packet are wanted (protocol.md 1.4, 6.2).
//!
//! They run on `rbpf`, after translation. PacketLab writes registers and numbers the other way round,
//! and filters read the packet with the loads of classic BPF, which the kernel offers to socket filters:
//! big-endian, counted from the packet's first byte, a load past the end rejects the packet. rbpf's own
//! version of these loads has neither property, so that each becomes plain instructions here.
//!
//! Not here: where packets come from; WebAssembly, which endpoints do not run as filters.
//!
//! Invariant: a translated filter ends, whatever the packet, because it only ever jumps forward; and it
//! sees nothing but a copy of the packet and its own stack.

use engine::wire::program::{Program, ProgramLanguage};
use rbpf::EbpfVmMbuff;

/// Largest packet, and largest encoded filter (protocol.md 7).
const LEN_MAX: usize = 0x1_0000;
/// Most instructions after translation: rbpf computes jumps with 16-bit numbers.
const INSTRUCTIONS_MAX: usize = 0x7FFF;
const INSTRUCTION_LEN: usize = 8;

/// Opcodes that mean more than themselves here.
mod opcode {
    pub(super) const LOAD_WIDE: u8 = 0x18;
    pub(super) const MOVE_32: u8 = 0xBC;
    pub(super) const ADD: u8 = 0x0F;
    pub(super) const ADD_CONSTANT: u8 = 0x07;
    pub(super) const XOR_CONSTANT: u8 = 0xA7;
    pub(super) const NEGATE: u8 = 0x87;
    pub(super) const BIG_ENDIAN: u8 = 0xDC;
    pub(super) const CALL: u8 = 0x85;
    pub(super) const EXIT: u8 = 0x95;
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

impl Filter {
    /// Translates the encoded form that NCAP carries.
    ///
    /// # Errors
    /// It is no eBPF program, too long, or not one that surely ends and calls nobody.
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
        Ok(Self { program, packet })
    }

    /// How many bytes of `packet` are wanted; 0 if it is not.
    pub(super) fn wanted_len(&mut self, packet: &[u8]) -> usize {
        let Some(copy) = self.packet.get_mut(..packet.len()) else { return 0 };
        copy.copy_from_slice(packet);
        // The machine borrows the program, and so cannot be kept beside it.
        let wanted = EbpfVmMbuff::new(Some(&self.program))
            .and_then(|machine| machine.execute_program(copy, &[]));
        // An error is a load from outside the packet: it is not of the kind looked for.
        usize::try_from(wanted.unwrap_or(0)).unwrap_or(usize::MAX).min(packet.len())
    }
}

/// The whole program for rbpf.
fn translate(instructions: &[Instruction], packet: u64) -> Result<Vec<u8>, BadFilter> {
    if instructions.last().is_none_or(|last| last.opcode != opcode::EXIT) {
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
    for (index, instruction) in instructions.iter().enumerate().filter(|(_, i)| i.jumps()) {
        let distance = usize::try_from(instruction.offset).map_err(|_| BadFilter)?;
        let target = *starts.get(index + 1 + distance).ok_or(BadFilter)?;
        let start = starts.get(index).copied().ok_or(BadFilter)?;
        let jump = translated.get_mut(start).ok_or(BadFilter)?;
        jump.offset = i16::try_from(target - start - 1).map_err(|_| BadFilter)?;
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
    /// From PacketLab's encoding (protocol.md 6.2).
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
mod tests {
    use super::*;

    /// The filter of the original's ping: ICMP echo replies with identifier 0x15be, whole.
    const ECHO_REPLIES: &str = "00bf61000000000000b770000000000000300000000000000057000000fffffff0\
        5500000800000040300000000000000955000006000000012800000000000014550000040000000028000000000000\
        18b77000000000ffff15000001000015beb770000000000000bf070000000000009500000000000000";

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<char> = hex.chars().collect();
        let byte = |pair: &[char]| u8::from_str_radix(&String::from_iter(pair), 16).unwrap();
        digits.chunks(2).map(byte).collect()
    }

    /// The filter written as text, as monitors are (protocol.md 6.1).
    fn filter(text: &str) -> Result<Filter, BadFilter> {
        Filter::decode(Program::from_ebpf_text(text.as_bytes()).unwrap().encoded())
    }

    #[test]
    fn the_originals_ping_filter_takes_its_replies_and_nothing_else() {
        let mut filter = Filter::decode(&bytes(ECHO_REPLIES)).unwrap();
        let reply = bytes("4500001cabfc00004001d0957f4d00017f0000010000ea4115be0000");
        assert_eq!(filter.wanted_len(&reply), reply.len());
        for (at, value) in [(0, 0x60), (9, 0x11), (20, 8), (24, 0x16), (25, 0)] {
            let mut other = reply.clone();
            other[at] = value;
            assert_eq!(filter.wanted_len(&other), 0, "byte {at}");
        }
        // Long enough for the last load, or not.
        assert_eq!(filter.wanted_len(&reply[..26]), 26);
        assert_eq!(filter.wanted_len(&reply[..25]), 0);
        assert_eq!(filter.wanted_len(&[]), 0);
    }

    #[test]
    fn packet_loads_are_big_endian_of_every_width_and_bounded_by_the_packet() {
        let packet = [1, 2, 3, 4, 5, 6, 7, 8, 9];
        // if load == expected { return 9 } else { return 0 }
        let text = |load: &str, low: &str, high: &str| {
            format!(
                "0xb7 6 0 0 1\n{load}\n0x18 1 0 0 {low}\n0 0 0 0 {high}\n0x1d 0 1 2 0\n\
                 0xb7 0 0 0 0\n0x95 0 0 0 0\n0xb7 0 0 0 9\n0x95 0 0 0 0"
            )
        };
        for (load, low, high) in [
            ("0x30 0 0 0 8", "9", "0"),
            ("0x28 0 0 0 7", "0x0809", "0"),
            ("0x20 0 0 0 1", "0x02030405", "0"),
            ("0x38 0 0 0 1", "0x06070809", "0x02030405"),
            ("0x50 0 6 0 7", "9", "0"),
            ("0x48 0 6 0 0", "0x0203", "0"),
            ("0x40 0 6 0 0xffffffff", "0x01020304", "0"),
            ("0x58 0 6 0 0", "0x06070809", "0x02030405"),
        ] {
            let mut filter = filter(&text(load, low, high)).unwrap();
            assert_eq!(filter.wanted_len(&packet), 9, "{load}");
            assert_eq!(filter.wanted_len(&packet[..1]), 0, "{load} past the end");
        }
        for load in ["0x30 0 0 0 9", "0x30 0 0 0 0xffffffff", "0x28 0 0 0 8", "0x58 0 6 0 1"] {
            let mut filter = filter(&text(load, "0", "0")).unwrap();
            assert_eq!(filter.wanted_len(&packet), 0, "{load}");
        }
    }

    #[test]
    fn a_filter_may_want_a_part_of_the_packet() {
        let mut filter = filter("0xb7 0 0 0 5\n0x95 0 0 0 0").unwrap();
        assert_eq!((filter.wanted_len(&[7; 9]), filter.wanted_len(&[7; 3])), (5, 3));
        assert_eq!(filter.wanted_len(&vec![0; LEN_MAX + 1]), 0);
    }

    #[test]
    fn the_smallest_number_has_a_negative() {
        let text = "0x18 0 0 0 0\n0 0 0 0 0x80000000\n0x87 0 0 0 0\n0x95 0 0 0 0";
        assert_eq!(filter(text).unwrap().wanted_len(&[1]), 1);
    }

    #[test]
    fn what_may_not_end_or_is_no_program_is_refused() {
        let exit = "0x95 0 0 0 0";
        for text in [
            "",
            "0xb7 0 0 0 1",
            &format!("5 0 0 0xffff 0\n{exit}"),
            &format!("0xb7 0 0 0 0\n0x15 0 0 0xfffe 0\n{exit}"),
            &format!("5 0 0 9 0\n{exit}"),
            &format!("0x85 0 0 0 1\n{exit}"),
            &format!("0xff 0 0 0 0\n{exit}"),
            &format!("0xb7 11 0 0 0\n{exit}"),
            &format!("0x18 0 0 0 0\n0xb7 0 0 0 0\n{exit}"),
            &format!("0xb7 0 0 0 0\n0x15 0 0 1 0\n0x18 0 0 0 0\n0 0 0 0 0\n{exit}"),
        ] {
            assert_eq!(filter(text).err(), Some(BadFilter), "{text}");
        }
        let wasm = Program::from_wasm(b"\0asm").unwrap();
        assert_eq!(Filter::decode(wasm.encoded()).err(), Some(BadFilter));
        let long = format!("{}{exit}", "0x30 0 0 0 0\n".repeat(9000));
        assert_eq!(filter(&long).err(), Some(BadFilter));
    }
}
