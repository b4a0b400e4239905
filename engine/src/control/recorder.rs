//! What the recorder tells of the output of mlets, and what is done when it is lost.
//!
//! Not here: its process (`sys/recorder`), and what becomes of records (`sessions.rs`).

use std::io;

use tracing::{error, warn};

use super::Control;
use super::clock::now;
use super::recorder_link::MLET_TARGET;
use crate::sys::recorder::RecorderEvent;
use crate::sys::supervisor::MletOwner;
use packetlab::escape::Escaped;

/// Messages that are taken before there is a look at anything else.
const MESSAGES_AT_ONCE: usize = 1024;

impl Control {
    /// Takes what the recorder has told.
    pub(super) fn take_recorded(&mut self) {
        for _ in 0..MESSAGES_AT_ONCE {
            match self.recorder.receive() {
                Ok(None) => return,
                Ok(Some(event)) => {
                    // A mlet that its shard has asked for itself may be over before the mail is taken that tells of its session.
                    self.take_mail_at_hand();
                    self.take_recorder_event(event);
                }
                Err(error) => self.lose_recorder(&error),
            }
        }
        // The rest is waited for no longer than for anything else.
        self.retry_at.get_or_insert_with(now);
    }

    fn take_recorder_event(&mut self, event: RecorderEvent) {
        match event {
            RecorderEvent::Closed { owner: MletOwner::Session(id), output } => {
                self.sessions.output_closed(id, output, now());
            }
            RecorderEvent::Closed { owner: MletOwner::AllSessions, output } => {
                self.recorder.end_singleton();
                self.sessions.singleton_output_closed(&output);
            }
            RecorderEvent::Line { owner: MletOwner::Session(id), line } => {
                warn!(target: MLET_TARGET, session = id, "mlet: {}", Escaped(&line));
            }
            RecorderEvent::Line { owner: MletOwner::AllSessions, line } => {
                warn!(target: MLET_TARGET, "mlet: {}", Escaped(&line));
            }
            RecorderEvent::StdoutLost { errno } => {
                let error = io::Error::from_raw_os_error(errno);
                error!(
                    "standard output takes nothing more ({error}): lines of mlets are lost from now on"
                );
                self.sessions.note_loss();
            }
        }
    }

    /// The recorder is gone. Sessions go on without it.
    fn lose_recorder(&mut self, error: &io::Error) {
        let open = self.sessions.open_outputs() + usize::from(self.recorder.reads_singleton());
        self.recorder.lose();
        // Without a supervisor it ends by itself.
        if self.supervisor_lost && open == 0 {
            return;
        }
        error!(
            "the recorder of mlets' output is gone ({error}): what it had not written is lost, and so is all that mlets \
             write from now on; sessions go on (mlets whose output is lost now: {open})"
        );
        self.sessions.note_loss();
        self.sessions.lose_outputs(now());
    }

    /// Nothing more is read of what mlets wrote.
    pub(super) fn are_outputs_closed(&self) -> bool {
        self.sessions.open_outputs() == 0 && !self.recorder.reads_singleton()
    }
}
