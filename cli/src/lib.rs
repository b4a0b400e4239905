//! What `pktxpmgr` and `pktcred` share: passphrases and secret files.
//!
//! Not a library for others.

pub mod prompt;
pub mod secret;
