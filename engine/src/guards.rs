//! What the simulation of a shard must find the loss of: each guard stands for a defect that was in this code once.
//!
//! In a program every guard holds. A test can take one out, to show that the simulation notices.

#[cfg(test)]
use std::cell::Cell;

/// A condition without which something went wrong once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guard {
    /// A turn takes only the completions that were there when it began.
    TurnEnds,
    /// What is under way on a session that is over is cancelled once, not at every completion.
    CancelsOnce,
    /// Whoever found no buffer is helped when one is back.
    WakesForBuffers,
    /// A socket is closed only when no operation is under way on it.
    ClosesWhenQuiet,
    /// A message is for the session that it names, and not for whatever is in its slot.
    KnowsSessions,
    /// A look at sockets on which nothing moves is not due again in the same turn.
    ProbesLater,
    /// What a mlet writes when its endpoint has ended is read though that endpoint takes nothing more.
    ReadsBesideSends,
}

#[cfg(test)]
thread_local! {
    static TAKEN_OUT: Cell<Option<Guard>> = const { Cell::new(None) };
}

/// Takes a guard out for this thread.
#[cfg(test)]
pub(crate) fn take_out(guard: Option<Guard>) {
    TAKEN_OUT.set(guard);
}

/// Whether the guard holds.
#[cfg(test)]
pub(crate) fn holds(guard: Guard) -> bool {
    TAKEN_OUT.get() != Some(guard)
}

/// Whether the guard holds.
#[cfg(not(test))]
pub(crate) const fn holds(_guard: Guard) -> bool {
    true
}
