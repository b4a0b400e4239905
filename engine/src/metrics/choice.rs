//! Chooses one in N at random, so that no rhythm in what is chosen from makes the choice one-sided: messages of two
//! directions that alternate, or sessions that take turns.
//!
//! Not here: what is chosen. Invariant: of a long row, one in N is.

use std::num::NonZeroU32;

/// Chooses one in so many.
#[derive(Debug)]
pub(super) struct OneIn {
    n: u64,
    /// How many are passed over before the next.
    passed_over: u64,
    /// Of the generator, xorshift64; never 0.
    state: u64,
}

impl OneIn {
    /// Chooses one in `n`; another `seed` makes another row.
    pub(super) fn new(n: NonZeroU32, seed: u32) -> Self {
        let state = u64::from(seed) << 32 | 0x9e37_79b9;
        let mut choice = Self { n: u64::from(n.get()), passed_over: 0, state };
        choice.passed_over = choice.random() % choice.n;
        choice
    }

    /// Whether this one is chosen.
    pub(super) fn draw(&mut self) -> bool {
        let is_chosen = self.passed_over == 0;
        self.passed_over = match is_chosen {
            // 0 to 2(n-1), which is n-1 on average.
            true => self.random() % (2 * self.n - 1),
            false => self.passed_over - 1,
        };
        is_chosen
    }

    fn random(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }
}
