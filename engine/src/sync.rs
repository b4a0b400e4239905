//! What threads share is made of: the standard library's, by names that models of their interleavings
//! (`engine/interleavings`) give to loom's. Files that are modelled take it from here.
//!
//! Not here: what is shared.

pub(crate) use std::sync::{Arc, Mutex, MutexGuard, PoisonError, atomic, mpsc};
