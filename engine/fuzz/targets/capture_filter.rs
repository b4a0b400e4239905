//! A capture filter and a packet: the bytes of the packet behind their number, then the filter's instructions.
//!
//! A filter that is taken wants as many bytes as the same instructions on a plain machine of its own, which has the kernel's
//! rules and knows neither translation nor rbpf; and it ends where that one ends.

#![no_main]

mod script;

use hosts::endpoint::fuzz::{FILTER_BUDGET, wanted_lens};
use libfuzzer_sys::fuzz_target;
use script::Script;

/// A program in eBPF, as its first byte.
const EBPF: u8 = 0;

/// More instructions than there are in a filter, and are gone through again within the budget.
const STEPS_MAX: usize = FILTER_BUDGET + (1 << 16);

fuzz_target!(|input: &[u8]| {
    let mut script = Script(input);
    let packet = script.bytes();
    let (instructions, _) = script.0.as_chunks::<8>();
    let encoded = [&[EBPF][..], instructions.as_flattened()].concat();
    let Some(wanted) = wanted_lens(&encoded, &[packet, &[], packet]) else { return };
    match (wanted[0], Machine::new(packet).run(instructions)) {
        (Some(len), Some(result)) => assert_eq!(len, (result as usize).min(packet.len())),
        (None, _) => {
            let is_back = |bytes: &[u8; 8]| matches!(bytes[0] & 7, 5 | 6) && bytes[2] & 0x80 != 0;
            assert!(instructions.iter().any(is_back), "over budget without a jump back");
        }
        (Some(_), None) => panic!("it goes on beyond its budget"),
    }
    assert_eq!(wanted[0], wanted[2], "nothing is left of the packet before");
});

/// Where the stack ends, and where the context is: numbers that nothing else has, by which addresses are known.
const STACK_END: u64 = 1 << 40;
const CONTEXT: u64 = 1 << 50;
const STACK_LEN: usize = 512;

/// A machine for one packet.
struct Machine<'p> {
    packet: &'p [u8],
    registers: [u64; 11],
    stack: [u8; STACK_LEN],
}

impl<'p> Machine<'p> {
    fn new(packet: &'p [u8]) -> Self {
        let mut registers = [0; 11];
        (registers[1], registers[10]) = (CONTEXT, STACK_END);
        Self { packet, registers, stack: [0; STACK_LEN] }
    }

    /// What the filter returns; `None` if it goes on for too long.
    fn run(mut self, instructions: &[[u8; 8]]) -> Option<u32> {
        let mut at = 0;
        for _ in 0..STEPS_MAX {
            let [opcode, registers, o1, o2, c1, c2, c3, c4] = instructions[at];
            let (to, from) = (usize::from(registers >> 4), usize::from(registers & 0x0F));
            let offset = i16::from_be_bytes([o1, o2]);
            let constant = i32::from_be_bytes([c1, c2, c3, c4]);
            at += 1;
            let operand = match opcode & 0x08 {
                0 => i64::from(constant) as u64,
                // Where an instruction has no use for a register it may name one that there is not.
                _ => self.registers.get(from).copied().unwrap_or_default(),
            };
            match opcode & 0x07 {
                0 if opcode == 0x18 => {
                    let [_, _, _, _, high @ ..] = instructions[at];
                    let high = u64::from(u32::from_be_bytes(high));
                    self.registers[to] = high << 32 | u64::from(constant as u32);
                    at += 1;
                }
                0 => {
                    let index = if opcode & 0xE0 == 0x40 { self.registers[from] as u32 } else { 0 };
                    let Some(number) =
                        self.of_packet(i64::from(index) + i64::from(constant), opcode)
                    else {
                        return Some(0);
                    };
                    self.registers[0] = number;
                }
                1 => self.registers[to] = self.load(self.address(from, offset), opcode),
                2 => self.store(self.address(to, offset), opcode, i64::from(constant) as u64),
                3 => self.store(self.address(to, offset), opcode, self.registers[from]),
                class @ (4 | 7) if opcode & 0xF0 == 0xD0 => {
                    assert_eq!(class, 4, "an operation that there is not");
                    self.registers[to] = in_order(self.registers[to], opcode & 8 != 0, constant);
                }
                4 => {
                    let result = narrow(opcode, self.registers[to] as u32, operand as u32);
                    self.registers[to] = u64::from(result);
                }
                7 => self.registers[to] = wide(opcode, self.registers[to], operand),
                5 if opcode == 0x95 => return Some(self.registers[0] as u32),
                class => {
                    let (left, right) = (self.registers[to], operand);
                    let jumps = match class {
                        5 => holds(opcode, (left, right), (left as i64, right as i64)),
                        _ => {
                            let (left, right) = (left as u32, right as u32);
                            let signed = (left as i32).into()..(right as i32).into();
                            holds(opcode, (left.into(), right.into()), (signed.start, signed.end))
                        }
                    };
                    if jumps {
                        at = at.checked_add_signed(offset.into()).unwrap();
                    }
                }
            }
        }
        None
    }

    fn address(&self, register: usize, offset: i16) -> u64 {
        self.registers[register].wrapping_add_signed(offset.into())
    }

    /// A number of the packet, big-endian.
    fn of_packet(&self, at: i64, opcode: u8) -> Option<u64> {
        let at = usize::try_from(at).ok()?;
        let bytes = self.packet.get(at..at + width(opcode))?;
        Some(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn load(&self, address: u64, opcode: u8) -> u64 {
        if address == CONTEXT {
            assert_eq!(width(opcode), 4);
            return self.packet.len() as u64;
        }
        let at = place(address);
        let mut bytes = [0; 8];
        bytes[..width(opcode)].copy_from_slice(&self.stack[at..at + width(opcode)]);
        u64::from_le_bytes(bytes)
    }

    fn store(&mut self, address: u64, opcode: u8, number: u64) {
        let at = place(address);
        let len = width(opcode);
        self.stack[at..at + len].copy_from_slice(&number.to_le_bytes()[..len]);
    }
}

/// Where an address is in the stack.
fn place(address: u64) -> usize {
    (address + STACK_LEN as u64 - STACK_END) as usize
}

/// Bytes that a load or store moves.
fn width(opcode: u8) -> usize {
    [4, 2, 1, 8][usize::from(opcode >> 3 & 3)]
}

fn in_order(number: u64, is_big: bool, bits: i32) -> u64 {
    match (bits, is_big) {
        (16, false) => u64::from(number as u16),
        (16, true) => u64::from((number as u16).swap_bytes()),
        (32, false) => u64::from(number as u32),
        (32, true) => u64::from((number as u32).swap_bytes()),
        (64, false) => number,
        (64, true) => number.swap_bytes(),
        _ => panic!("an order of {bits} bits"),
    }
}

fn wide(opcode: u8, left: u64, right: u64) -> u64 {
    match opcode >> 4 {
        0x0 => left.wrapping_add(right),
        0x1 => left.wrapping_sub(right),
        0x2 => left.wrapping_mul(right),
        0x3 => left.checked_div(right).unwrap_or(0),
        0x4 => left | right,
        0x5 => left & right,
        0x6 => left << (right & 63),
        0x7 => left >> (right & 63),
        0x8 => left.wrapping_neg(),
        0x9 => left.checked_rem(right).unwrap_or(left),
        0xA => left ^ right,
        0xB => right,
        0xC => (left as i64 >> (right & 63)) as u64,
        _ => panic!("an operation that there is not"),
    }
}

fn narrow(opcode: u8, left: u32, right: u32) -> u32 {
    match opcode >> 4 {
        0x0 => left.wrapping_add(right),
        0x1 => left.wrapping_sub(right),
        0x2 => left.wrapping_mul(right),
        0x3 => left.checked_div(right).unwrap_or(0),
        0x4 => left | right,
        0x5 => left & right,
        0x6 => left << (right & 31),
        0x7 => left >> (right & 31),
        0x8 => left.wrapping_neg(),
        0x9 => left.checked_rem(right).unwrap_or(left),
        0xA => left ^ right,
        0xB => right,
        0xC => (left as i32 >> (right & 31)) as u32,
        _ => panic!("an operation that there is not"),
    }
}

/// Whether a jump is taken, by its numbers without and with a sign.
fn holds(opcode: u8, (left, right): (u64, u64), signed: (i64, i64)) -> bool {
    match opcode >> 4 {
        0x0 => true,
        0x1 => left == right,
        0x2 => left > right,
        0x3 => left >= right,
        0x4 => left & right != 0,
        0x5 => left != right,
        0x6 => signed.0 > signed.1,
        0x7 => signed.0 >= signed.1,
        0xA => left < right,
        0xB => left <= right,
        0xC => signed.0 < signed.1,
        0xD => signed.0 <= signed.1,
        _ => panic!("a jump that there is not"),
    }
}
