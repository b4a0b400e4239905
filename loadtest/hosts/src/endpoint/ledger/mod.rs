//! What controllers have used up of what their certificates allow, over all sessions of an endpoint
//! (spec/protocol.md 4.3, `cert_limit`).
//!
//! Each certificate of a chain counts for itself, by the key that signed it and its serial number: whatever a
//! chain does is entered for all of its certificates, and a certificate that is part of many chains has one
//! account for all of them. Totals and burst rates go on from session to session, and sessions at the same time
//! share them, and the sockets that may be open. With a [`Store`] totals outlive the process.
//!
//! ```text
//! account  what one certificate has used up     bounds  how many there may be
//! store    the totals in a file
//! burst    what was sent within the windows of burst rates
//! ```
//!
//! Not here: which limits there are (`chain_limits`); the clock.
//!
//! Invariant: there are at most [`ACCOUNTS_MAX`] accounts, at most [`ACCOUNTS_PER_PRIVILEGE_MAX`] of chains that
//! end in one certificate; one is forgotten only when its certificate has expired or has used nothing up, that of a program of
//! the endpoint's own operator when no session was begun with it for a year.

mod account;
mod bounds;
mod burst;
mod store;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use monitors::Persistent;
use packetlab::key::Hex;
use packetlab::time::Ticks;
use tokio::sync::Notify;

pub(super) use account::{Account, Accounts, CertificateId};
pub use bounds::LedgerError;
use bounds::{ACCOUNTS_MAX, ACCOUNTS_PER_PRIVILEGE_MAX, MEMORIES_MAX, MEMORIES_PER_PRIVILEGE_MAX};
pub(super) use burst::Turn;
pub use store::StateError;
use store::Store;

/// Of both so many are told of, before there are too many.
const CROWDED_PERCENT: usize = 80;
/// Bytes of one session that wait to be sent; room for the largest NSEND.
pub(super) const WAITING_MAX: usize = 32 << 20;
/// The same of all sessions of an endpoint.
pub(super) const ALL_WAITING_MAX: usize = 128 << 20;
/// What a session may have waiting however much others have.
const WAITING_SHARE: usize = 1 << 20;
/// How often totals are written while they change.
const SAVE_INTERVAL: Duration = Duration::from_secs(1);

/// The accounts of all certificates, which the sessions of an endpoint share.
#[derive(Debug, Default)]
pub struct Ledger {
    accounts: Mutex<Accounts>,
    store: Option<Store>,
    /// When a monitor program last had all written, and whether that succeeded.
    flushed: Mutex<Option<(Instant, bool)>>,
    /// Totals could not be written.
    unsaved: Notify,
    /// Bytes that wait to be sent in all sessions.
    waiting_bytes: AtomicUsize,
}

/// What waits to be sent in one session.
#[derive(Debug, Default)]
pub(super) struct WaitingSends {
    ledger: Arc<Ledger>,
    bytes: usize,
}

impl WaitingSends {
    /// Nothing yet.
    pub(super) fn new(ledger: &Arc<Ledger>) -> Self {
        Self { ledger: Arc::clone(ledger), bytes: 0 }
    }

    /// Whether the session may have so many bytes waiting.
    pub(super) fn may_be(&self, bytes: usize) -> bool {
        let others = self.ledger.waiting_bytes.load(Relaxed).saturating_sub(self.bytes);
        bytes <= WAITING_SHARE || bytes <= WAITING_MAX && others + bytes <= ALL_WAITING_MAX
    }

    /// So many are waiting now.
    pub(super) fn set(&mut self, bytes: usize) {
        self.ledger.waiting_bytes.fetch_add(bytes, Relaxed);
        self.ledger.waiting_bytes.fetch_sub(self.bytes, Relaxed);
        self.bytes = bytes;
    }
}

impl Drop for WaitingSends {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// How many accounts there are, all and those below one privilege, and how many more there shall be.
struct Crowding {
    before: [usize; 2],
    missing: usize,
}

impl Crowding {
    /// Whether there would be more than so much of what there may be.
    fn goes_beyond(&self, percent: usize) -> bool {
        self.missing > 0 && self.is_beyond(percent).any(|(_, after)| after)
    }

    /// Whether that was not so before.
    fn crosses(&self, percent: usize) -> bool {
        self.is_beyond(percent).any(|(before, after)| after && !before)
    }

    fn is_beyond(&self, percent: usize) -> impl Iterator<Item = (bool, bool)> {
        let most = [ACCOUNTS_MAX, ACCOUNTS_PER_PRIVILEGE_MAX].map(|most| most * percent / 100);
        let missing = self.missing;
        self.before
            .into_iter()
            .zip(most)
            .map(move |(before, most)| (before > most, before + missing > most))
    }
}

impl Ledger {
    /// One whose totals are kept in this directory, which is made if there is none.
    ///
    /// # Errors
    /// The directory is unusable, in use by another endpoint, or what is in it cannot be read.
    pub(crate) fn open(directory: &Path) -> Result<Self, StateError> {
        let (store, accounts) = Store::open(directory)?;
        Ok(Self { accounts: Mutex::new(accounts), store: Some(store), ..Self::default() })
    }

    /// Its accounts.
    pub(super) fn accounts(&self) -> MutexGuard<'_, Accounts> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees to accounts for a session of these certificates, leaf first, which expire then.
    ///
    /// # Errors
    /// There are too many.
    pub(super) fn admit(
        &self,
        ids: &[(CertificateId, Ticks)],
        privilege: &CertificateId,
        now: Ticks,
    ) -> Result<(), LedgerError> {
        let mut accounts = self.accounts();
        let crowding = |accounts: &Accounts| {
            let missing = ids.iter().filter(|(id, _)| !accounts.contains_key(id)).count();
            let below = accounts.values().filter(|account| account.privilege == *privilege).count();
            Crowding { before: [accounts.len(), below], missing }
        };
        if crowding(&accounts).goes_beyond(CROWDED_PERCENT) {
            accounts.retain(|_, account| !account.is_idle(now));
        }
        let crowding = crowding(&accounts);
        if crowding.goes_beyond(100) {
            return Err(LedgerError::Full);
        }
        if crowding.crosses(CROWDED_PERCENT) {
            let [all, below] = crowding.before.map(|before| before + crowding.missing);
            tracing::warn!(
                "{all} certificates have used up a part of what they allow (at most {ACCOUNTS_MAX}), {below} of them \
                 (at most {ACCOUNTS_PER_PRIVILEGE_MAX}) below the privilege with serial number {}; beyond that no new \
                 session begins until some expire",
                Hex(&privilege.serial)
            );
        }
        for (id, not_after) in ids {
            let new = || Account::new(privilege.clone(), *not_after);
            let account = accounts.entry(id.clone()).or_insert_with(new);
            account.sessions += 1;
            // Certificates of one number have one account, until the last of them has expired.
            account.not_after = account.not_after.max(*not_after);
        }
        Ok(())
    }

    /// A session of these certificates is over.
    pub(super) fn dismiss<'a>(&self, ids: impl Iterator<Item = &'a CertificateId>) {
        let mut accounts = self.accounts();
        for id in ids {
            if let Some(account) = accounts.get_mut(id) {
                account.sessions = account.sessions.saturating_sub(1);
                if account.sessions == 0 {
                    account.memories.retain(|_, memory| memory.iter().any(|byte| *byte != 0));
                }
            }
        }
    }

    /// What the monitor with this index among those of its session has kept under a certificate that has an account;
    /// zeros at first. There is a place for what it will keep.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn memory(&self, id: &CertificateId, index: u16) -> Result<Persistent, LedgerError> {
        let mut accounts = self.accounts();
        let zeros = [0; size_of::<Persistent>()];
        let Some(account) = accounts.get(id) else { return Ok(zeros) };
        if let Some(memory) = account.memories.get(&index) {
            return Ok(*memory);
        }
        let of_privilege = |other: &&Account| other.privilege == account.privilege;
        let count = |account: &Account| account.memories.len();
        if accounts.values().map(count).sum::<usize>() >= MEMORIES_MAX
            || accounts.values().filter(of_privilege).map(count).sum::<usize>()
                >= MEMORIES_PER_PRIVILEGE_MAX
        {
            return Err(LedgerError::TooManyMemories);
        }
        if let Some(account) = accounts.get_mut(id) {
            account.memories.insert(index, zeros);
        }
        Ok(zeros)
    }

    /// Has a monitor's memory kept.
    pub(super) fn keep_memory(&self, id: &CertificateId, index: u16, memory: &Persistent) {
        if let Some(account) = self.accounts().get_mut(id) {
            account.memories.insert(index, *memory);
        }
    }

    /// Writes the totals, if they are kept and were not written yet. Takes the time that the disk takes.
    ///
    /// # Errors
    /// They cannot be written.
    pub(crate) fn save(&self) -> Result<(), StateError> {
        match &self.store {
            Some(store) => store.save(|| self.accounts(), false),
            None => Ok(()),
        }
    }

    /// The same for a monitor program that asks for it. One may ask without end, and each write costs all sessions: within
    /// [`SAVE_INTERVAL`] there is one for all that ask, and what comes behind it is in the next one, as totals are. False
    /// if nothing outlives the process, or the write failed.
    ///
    /// # Errors
    /// It cannot be written, which is told once of each write.
    pub(super) fn flush(&self) -> Result<bool, StateError> {
        if self.store.is_none() {
            return Ok(false);
        }
        // Held while it is written: who asks meanwhile has to know what it comes to.
        let mut flushed = self.flushed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, is_written)) = flushed.filter(|(at, _)| at.elapsed() < SAVE_INTERVAL) {
            return Ok(is_written);
        }
        let saved = self.save();
        *flushed = Some((Instant::now(), saved.is_ok()));
        saved.map(|()| true)
    }

    /// The same as [`Self::save`], off the runtime's threads; `anew` also if they were written already. If they cannot be written, the
    /// sessions end.
    ///
    /// # Errors
    /// As for [`Self::save`].
    pub(super) async fn saved(self: &Arc<Self>, anew: bool) -> Result<(), StateError> {
        let ledger = Arc::clone(self);
        let save = move || match &ledger.store {
            Some(store) => store.save(|| ledger.accounts(), anew),
            None => Ok(()),
        };
        if self.store.is_none() {
            return Ok(());
        }
        // It is not abandoned and does not panic.
        let saved = tokio::task::spawn_blocking(save).await.unwrap_or(Ok(()));
        saved.inspect_err(|_| self.unsaved.notify_waiters())
    }

    /// Waits until totals could not be written: nothing more may be used up then.
    pub(super) async fn failed(&self) {
        self.unsaved.notified().await;
    }

    /// Writes the totals again and again while they change, for ever.
    pub(super) async fn keep_saved(self: &Arc<Self>) {
        loop {
            tokio::time::sleep(SAVE_INTERVAL).await;
            if let Err(error) = self.saved(false).await {
                tracing::error!("{error}");
            }
        }
    }
}

#[cfg(test)]
mod tests;
