//! What the endpoints of a run do, by name.
//!
//! Not here: doing it (`modes`).

use clap::ValueEnum;
use serde::Serialize;

/// What the endpoints do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// Connect, set up, and end with the mlet, which exits at once; again and again
    Short,
    /// Connect all in one instant; each then makes one request
    Storm,
    /// Set up sessions and let them be
    Idle,
    /// Send a message to the mlet, which sends it back; again and again
    Echo,
    /// Send messages to the mlet as fast as it takes them
    Up,
    /// Take messages from the mlet as fast as it sends them
    Down,
    /// Echo alone, and then beside one session more in bulk (--bulk)
    Mix,
    /// Echo directly, and then through a proxy
    Through,
}

impl Mode {
    /// Endpoints beside those that are asked for.
    pub(super) fn more_endpoints(self) -> usize {
        usize::from(self == Self::Mix)
    }

    /// Whether the same is timed again and again.
    pub(super) fn is_timed(self) -> bool {
        matches!(self, Self::Short | Self::Echo | Self::Mix | Self::Through)
    }

    /// What the mlet is told to do.
    pub(super) fn mlet_role(self) -> &'static str {
        match self {
            Self::Short => "exit",
            Self::Storm | Self::Idle | Self::Echo | Self::Through => "echo",
            Self::Up => "sink",
            Self::Down => "source",
            Self::Mix => "asked",
        }
    }
}
