//! An input that is a list of operations: a byte says what is done, and those behind it with what.
//!
//! Not here: what the operations are. Invariant: whatever the bytes are, they are a list.

#![allow(dead_code, reason = "no target needs all of it")]

/// What is left of the input.
pub(crate) struct Script<'a>(pub(crate) &'a [u8]);

impl<'a> Script<'a> {
    /// The next operation, or `None` at the end.
    pub(crate) fn next(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    /// A number; 0 behind the end.
    pub(crate) fn number(&mut self) -> usize {
        self.next().map_or(0, usize::from)
    }

    /// A number of two bytes.
    pub(crate) fn long_number(&mut self) -> usize {
        self.number() << 8 | self.number()
    }

    /// Bytes behind their number in a byte, as many as there are.
    pub(crate) fn bytes(&mut self) -> &'a [u8] {
        let len = self.number().min(self.0.len());
        let (bytes, rest) = self.0.split_at(len);
        self.0 = rest;
        bytes
    }

    /// A whole message of this type, with a payload of so many bytes that differ from their neighbours.
    pub(crate) fn message(&mut self) -> Vec<u8> {
        let (message_type, len) = (self.number() as u8, self.long_number());
        let mut message = vec![message_type];
        message.extend_from_slice(&(len as u32).to_be_bytes()[1..]);
        message.extend((0..len).map(|position| (position % 251) as u8));
        message
    }
}
