//! Values of options as typed, and what the engine calls them.
//!
//! Not here: the options (`args.rs`), and limits (`limits.rs`).

use std::num::NonZeroU64;

use clap::ValueEnum;
use command_line::units::size;
use engine::config::{Io, Keep, MletIo};

use crate::c_number::c_number;

/// `--mlet-io` as typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum MletIoArg {
    #[default]
    Socket,
    Pipe,
}

impl From<MletIoArg> for MletIo {
    fn from(typed: MletIoArg) -> Self {
        match typed {
            MletIoArg::Socket => Self::Socket,
            MletIoArg::Pipe => Self::Pipe,
        }
    }
}

/// `--io` as typed.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub(crate) enum IoArg {
    #[default]
    Auto,
    Uring,
    Epoll,
}

impl From<IoArg> for Io {
    fn from(typed: IoArg) -> Self {
        match typed {
            IoArg::Auto => Self::Auto,
            IoArg::Uring => Self::Uring,
            IoArg::Epoll => Self::Epoll,
        }
    }
}

/// `--keep` as typed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum KeepArg {
    #[default]
    All,
    Failed,
    None,
}

impl From<KeepArg> for Keep {
    fn from(typed: KeepArg) -> Self {
        match typed {
            KeepArg::All => Self::All,
            KeepArg::Failed => Self::Failed,
            KeepArg::None => Self::None,
        }
    }
}

/// `-n` as typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Count {
    /// How many sessions; `None` is no limit.
    pub(crate) sessions: Option<NonZeroU64>,
    /// What stands behind the number and is ignored, as in the original; worth a warning.
    pub(crate) ignored: String,
}

impl Count {
    /// C's `strtoumax` base 0, as the original: `0x10`, `010`, blanks and sign allowed, rest ignored,
    /// a negative number wraps to what nobody reaches; that, as all above 2^32 - 1, means no limit. A result of 0 is
    /// refused.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let number = c_number(text, 0);
        if number.value == 0 {
            return Err("give the number of sessions, 1 or more; leave -n out for no limit".into());
        }
        let is_limit = number.value <= u64::from(u32::MAX) && !text.trim_start().starts_with('-');
        let sessions = NonZeroU64::new(number.value).filter(|_| is_limit);
        Ok(Self { sessions, ignored: number.rest.to_owned() })
    }
}

/// `--max-output` as typed: something is kept.
pub(super) fn kept_size(text: &str) -> Result<usize, String> {
    match size(text)? {
        0 => Err("nothing would be kept; --keep none says so".into()),
        size => Ok(size),
    }
}
