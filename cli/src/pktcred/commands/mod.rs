//! The commands of `pktcred`, a file each.

pub(crate) mod digest;
pub(crate) mod init;
pub(crate) mod issue;
pub(crate) mod key;
pub(crate) mod privilege;
pub(crate) mod show;
pub(crate) mod verify;
