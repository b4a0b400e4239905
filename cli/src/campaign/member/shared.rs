//! The client of a campaign, which the end of the membership takes away from whoever may still ask.
//!
//! Not here: what is asked (`permits.rs`).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::campaign::{Ask, Client};

/// The client, for as long as the run is a member: whoever asks late finds none, and keeps nobody from leaving.
pub(super) struct Shared<C>(Arc<Mutex<Option<C>>>);

impl<C> Shared<C> {
    pub(super) fn new(client: C) -> Self {
        Self(Arc::new(Mutex::new(Some(client))))
    }

    /// For a test: nobody ever was a member.
    #[cfg(test)]
    pub(super) fn of_nobody() -> Self {
        Self(Arc::default())
    }

    /// Nobody asks any more.
    pub(super) fn take(&self) -> Option<C> {
        self.lock().take()
    }

    /// Held for as long as it takes to ask, which is no time.
    fn lock(&self) -> MutexGuard<'_, Option<C>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C> Clone for Shared<C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl Shared<Client> {
    pub(super) fn ask(&self, ask: Ask) {
        if let Some(client) = &*self.lock() {
            client.ask(ask);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_leaves_has_the_client_whoever_else_may_ask() {
        let shared = Shared(Arc::new(Mutex::new(Some("client"))));
        let other = shared.clone();
        assert_eq!(shared.lock().take(), Some("client"));
        assert_eq!(*other.lock(), None, "nobody asks any more");
    }
}
