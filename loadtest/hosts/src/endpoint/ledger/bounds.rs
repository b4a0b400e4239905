//! How many accounts and burst rates there may be, and what is said of more.

use std::fmt;

/// Certificates with accounts. A line of the file has 365 bytes at most.
pub(super) const ACCOUNTS_MAX: usize = 4096;
/// The same of chains whose last certificate is the same one. Whoever holds a privilege can make certificates without
/// end, by delegating, and must not take the place of others by that.
pub(super) const ACCOUNTS_PER_PRIVILEGE_MAX: usize = 256;
/// Burst rates of bytes, and of packets, of one account. Each costs every packet a look and an entry, under the lock
/// that all sessions share, and a delegate's certificate may hold thousands.
pub(super) const RATES_MAX: usize = 8;

/// Memories of monitor programs that are kept, of all certificates; a line of the file has 525 bytes at most.
pub(super) const MEMORIES_MAX: usize = 4096;
/// The same of chains whose last certificate is the same one.
pub(super) const MEMORIES_PER_PRIVILEGE_MAX: usize = 256;

/// Why certificates have no accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LedgerError {
    /// There is no place for one more account.
    Full,
    /// There is no place for the memory of one more monitor program.
    TooManyMemories,
    /// One of them has more burst rates than are kept account of.
    TooManyRates,
}

impl fmt::Display for LedgerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => write!(
                f,
                "too many certificates have used up a part of what they allow (at most {ACCOUNTS_MAX}, and \
                 {ACCOUNTS_PER_PRIVILEGE_MAX} below one privilege); they count until they expire"
            ),
            Self::TooManyMemories => write!(
                f,
                "too many monitor programs have kept something (at most {MEMORIES_MAX}, and \
                 {MEMORIES_PER_PRIVILEGE_MAX} below one privilege); it is kept until their certificates expire, of the \
                 operator's own for a year"
            ),
            Self::TooManyRates => write!(
                f,
                "a certificate of the controller's chain, or several of one serial number together, has more than \
                 {RATES_MAX} burst rates of bytes or of packets"
            ),
        }
    }
}
