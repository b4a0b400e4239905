//! For how many sessions at once open files have room.
//!
//! Not here: what takes them (`engine.rs` counts), and who is let in (`mailbox.rs`). Invariant: of the open files those that
//! pktxpmgr needs for itself are set aside.

use std::fmt;

/// Open files, and who takes them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SessionRoom {
    /// How many may be open.
    pub(crate) open_files: usize,
    /// Those that are set aside.
    pub(crate) own_fds: usize,
    /// Those that a session takes.
    pub(crate) fds: usize,
}

/// More sessions than there is room for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NoRoom {
    wanted: usize,
    room: SessionRoom,
}

impl SessionRoom {
    /// So many sessions.
    pub(crate) fn sessions(self) -> usize {
        self.beside_own().max(1)
    }

    /// Not one, so that one at a time is tried.
    pub(crate) fn is_lacking(self) -> bool {
        self.beside_own() == 0
    }

    /// So many sessions for `--sessions-max`, of which 0 is as many as there is room for.
    ///
    /// # Errors
    /// There is room for fewer.
    pub(crate) fn for_sessions(self, wanted: usize) -> Result<usize, NoRoom> {
        match wanted {
            0 => Ok(self.sessions()),
            _ if wanted > self.sessions() => Err(NoRoom { wanted, room: self }),
            _ => Ok(wanted),
        }
    }

    fn beside_own(self) -> usize {
        self.open_files.saturating_sub(self.own_fds) / self.fds
    }
}

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { wanted, room } = self;
        let needed = wanted.saturating_mul(room.fds).saturating_add(room.own_fds);
        write!(
            f,
            "--sessions-max {wanted} needs `ulimit -n {needed}`, but it is {}: at most {} sessions at once",
            room.open_files,
            room.sessions()
        )
    }
}
