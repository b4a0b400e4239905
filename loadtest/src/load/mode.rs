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
}

impl Mode {
    /// What the mlet is told to do.
    pub(super) fn mlet_role(self) -> &'static str {
        match self {
            Self::Short => "exit",
            Self::Storm | Self::Idle | Self::Echo => "echo",
            Self::Up => "sink",
            Self::Down => "source",
        }
    }
}
