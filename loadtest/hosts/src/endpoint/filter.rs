//! Capture filters: eBPF programs that say how many bytes of a packet are wanted (spec/protocol.md 1.4, 6.2).
//!
//! They run on `rbpf`, after translation. PacketLab writes registers and numbers the other way round,
//! and filters read the packet with the loads of classic BPF, which the kernel offers to socket filters:
//! big-endian, counted from the packet's first byte, a load past the end rejects the packet. rbpf's own
//! version of these loads has neither property, so that each becomes plain instructions here.
//!
//! ```text
//! instruction  one of them, and what it becomes on rbpf
//! verify       the kernel's rules, which the original's endpoints hold filters to
//! ```
//!
//! Not here: where packets come from; WebAssembly, which endpoints do not run as filters.
//!
//! Invariant: a translated filter ends, whatever the packet: it may jump back, and before it does it counts how
//! far, up to [`BUDGET`]. It sees nothing but a copy of the packet, its length and its own stack, without the
//! two cells below that which the count needs.

mod instruction;
mod verify;

use packetlab::program::{Program, ProgramLanguage};
use rbpf::EbpfVmMbuff;

pub(super) use instruction::BUDGET;
use instruction::{BadFilter, Instruction, opcode};

/// Largest packet, and largest encoded filter (spec/protocol.md 7).
const LEN_MAX: usize = 0x1_0000;
/// Most instructions after translation: rbpf computes jumps with 16-bit numbers.
const INSTRUCTIONS_MAX: usize = 0x7FFF;
/// Which of the instructions before a jump back adds to the count.
const COUNTED_AT: usize = 2;

/// Whether that is the encoded form of a program in eBPF: instructions that there are, which jump within it.
pub(super) fn is_program(encoded: &[u8]) -> bool {
    instructions(encoded)
        .and_then(|instructions| translate(&instructions, 0))
        .is_ok_and(|program| EbpfVmMbuff::new(Some(&program)).is_ok())
}

fn instructions(encoded: &[u8]) -> Result<Vec<Instruction>, BadFilter> {
    let program = Program::decode(encoded).map_err(|_| BadFilter)?;
    if encoded.len() > LEN_MAX || program.language() != ProgramLanguage::Ebpf {
        return Err(BadFilter);
    }
    let (instructions, _) = encoded.get(1..).unwrap_or_default().as_chunks();
    Ok(instructions.iter().copied().map(Instruction::decode).collect())
}

/// A filter that can run.
#[derive(Debug)]
pub(super) struct Filter {
    /// For rbpf.
    program: Vec<u8>,
    /// Where packets are copied to; `program` knows the address.
    packet: Box<[u8]>,
}

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
        let instructions = instructions(encoded)?;
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

#[cfg(test)]
mod tests;
