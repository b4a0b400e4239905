//! How much memory clients may make a program keep, in all and from one source.
//!
//! Not here: what it is kept for. What a connection costs that says nothing is bounded by their number
//! (`places`).
//!
//! Invariant: what was charged is given back when its [`Charge`] is dropped.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::source::{Source, share};

/// What is kept for all.
#[derive(Debug)]
pub(crate) struct Memory {
    max: usize,
    per_source_max: usize,
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    total: usize,
    by_source: HashMap<Source, usize>,
}

/// What may be kept for clients of one source.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    memory: Arc<Memory>,
    source: Source,
}

/// So many bytes are kept.
#[derive(Debug)]
pub(crate) struct Charge {
    budget: Budget,
    bytes: usize,
}

/// There is no memory left for this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryFull;

impl fmt::Display for MemoryFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the memory for what clients send is used up, in all or by this source's share")
    }
}

impl Memory {
    /// At most `max` bytes for all, and so many percent of them for one source.
    pub(crate) fn new(max: usize, per_source_percent: usize) -> Arc<Self> {
        let per_source_max = share(max, per_source_percent);
        Arc::new(Self { max, per_source_max, used: Mutex::default() })
    }

    /// For a client of this source.
    pub(crate) fn budget(self: &Arc<Self>, source: Source) -> Budget {
        Budget { memory: Arc::clone(self), source }
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Budget {
    /// Keeps so many bytes more.
    ///
    /// # Errors
    /// They are not there.
    pub(crate) fn charge(&self, bytes: usize) -> Result<Charge, MemoryFull> {
        let Memory { max, per_source_max, .. } = *self.memory;
        let mut used = self.memory.used();
        let of_source = used.by_source.get(&self.source).copied().unwrap_or_default();
        let (total, of_source) =
            (used.total.saturating_add(bytes), of_source.saturating_add(bytes));
        if total > max || of_source > per_source_max {
            return Err(MemoryFull);
        }
        used.total = total;
        used.by_source.insert(self.source, of_source);
        Ok(Charge { budget: self.clone(), bytes })
    }
}

impl Charge {
    /// Keeps so many bytes instead.
    ///
    /// # Errors
    /// They are not there; as many as before are kept.
    pub(crate) fn change_to(&mut self, bytes: usize) -> Result<(), MemoryFull> {
        match bytes.checked_sub(self.bytes) {
            Some(more) => {
                let mut rest = self.budget.charge(more)?;
                self.bytes += std::mem::take(&mut rest.bytes);
            }
            None => {
                let less = self.bytes - bytes;
                self.bytes = bytes;
                drop(Self { budget: self.budget.clone(), bytes: less });
            }
        }
        Ok(())
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let mut used = self.budget.memory.used();
        used.total -= self.bytes;
        if let Some(of_source) = used.by_source.get_mut(&self.budget.source) {
            *of_source -= self.bytes;
            if *of_source == 0 {
                used.by_source.remove(&self.budget.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_source_gets_its_share_and_what_is_given_back_can_be_had_again() {
        let memory = Memory::new(100, 60);
        let budget = |text: &str| memory.budget(Source::of(text.parse().unwrap()));
        let (one, other) = (budget("192.0.2.1"), budget("192.0.2.2"));
        let most = one.charge(60).unwrap();
        assert_eq!(one.charge(1).unwrap_err(), MemoryFull);
        let rest = other.charge(40).unwrap();
        assert_eq!(other.charge(1).unwrap_err(), MemoryFull);
        drop(most);
        assert!(other.charge(20).is_ok());
        let mut rest = rest;
        assert_eq!(rest.change_to(61), Err(MemoryFull));
        rest.change_to(60).unwrap();
        assert_eq!(one.charge(41).unwrap_err(), MemoryFull);
        rest.change_to(10).unwrap();
        assert!(other.charge(50).is_ok() && other.charge(51).is_err());
        drop(rest);
        let used = memory.used();
        assert_eq!((used.total, used.by_source.len()), (0, 0));
    }
}
