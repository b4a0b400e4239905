//! What `pktxpmgr` and `pktcred` share: passphrases, secret files, quantities as typed, help.
//!
//! Not a library for others.

pub mod prompt;
pub mod secret;
pub mod units;
pub mod usage;
