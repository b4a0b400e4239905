//! Programs by the digest with which certificates name them (spec/protocol.md 6.3).

use std::collections::HashMap;

use super::Program;

/// SHA-256 of a program's encoded form, as certificates name it (spec/protocol.md 6.3).
pub type ProgramDigest = [u8; 32];

impl Program {
    /// SHA-256 of the encoded form including the type byte (spec/protocol.md 6.3).
    #[must_use]
    pub fn digest(&self) -> &ProgramDigest {
        &self.digest
    }
}

/// The programs a controller has at hand, by digest.
#[derive(Debug, Clone, Default)]
pub struct Programs(HashMap<ProgramDigest, Program>);

impl Programs {
    /// Adds a program; the same program twice is kept once.
    pub fn insert(&mut self, program: Program) {
        self.0.insert(program.digest, program);
    }

    /// The program that a certificate demands by `digest`, if it was loaded.
    #[must_use]
    pub fn find(&self, digest: &ProgramDigest) -> Option<&Program> {
        self.0.get(digest)
    }

    /// How many programs there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Program> for Programs {
    fn from_iter<I: IntoIterator<Item = Program>>(programs: I) -> Self {
        Self(programs.into_iter().map(|program| (program.digest, program)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_by_their_digest() {
        let (one, two) = (Program::from_wasm(b"1").unwrap(), Program::from_wasm(b"2").unwrap());
        let programs: Programs = [one.clone(), one.clone()].into_iter().collect();
        assert_eq!(programs.len(), 1);
        assert_eq!(programs.find(one.digest()), Some(&one));
        assert_eq!(programs.find(two.digest()), None);
    }
}
