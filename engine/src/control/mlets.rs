//! Mlets, as far as the control thread has to do with them: it asks the supervisor for them and hears of their ends;
//! in singleton mode it hands every session to the one there is.
//!
//! Not here: the supervisor's process (`sys/supervisor`), and what becomes of sessions (`sessions.rs`).

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use nix::libc::{EAGAIN, EINVAL, EMFILE, ENFILE, ENOENT, ENOEXEC, ENOMEM};
use tokio::io::Interest;
use tracing::{debug, error, info, warn};

use super::Control;
use super::clock::now;
use super::singleton::{ControlSocket, Heard, Mlets};
use crate::config::SingletonForm;
use crate::guards::{Guard, holds};
use crate::mailbox::{SessionPlace, ToShard};
use crate::mlet_request::{DirectRequests, environment};
use crate::proto::mlet_facts::MletFacts;
use crate::proto::session_end::Force;
use crate::records::{Claim, Output, SessionFacts, SessionId};
use crate::run_error::{RunError, WAITING, lack};
use crate::sys::children::{self, Graces};
use crate::sys::lack::remedy;
use crate::sys::mlet_ends::MletEnds;
use crate::sys::socket;
use crate::sys::supervisor::{
    Flushed, MletOutput, MletOwner, MletStatus, STARTING_A_MLET, SupervisorEvent,
};
use crate::sys::watch::Watched;
use packetlab::escape::Escaped;
use packetlab::words::counted;

impl Control {
    /// Starts the one mlet of singleton mode, and waits until it runs.
    ///
    /// # Errors
    /// It cannot be started.
    pub(crate) async fn start_singleton(&mut self, form: SingletonForm) -> Result<(), RunError> {
        let pair = socket::session_pair();
        let (ours, theirs) = pair.map_err(lack("talk to the singleton mlet (socketpair)"))?;
        let output = self.output.of_all_sessions();
        self.spawn(MletOwner::AllSessions, &[], &output, MletEnds::of_socket(theirs));
        loop {
            match self.await_event().await? {
                SupervisorEvent::Spawned { pid, output_errno, .. } => {
                    info!("singleton mlet runs as process {pid}");
                    self.sessions.singleton_runs(output_errno);
                    if output_errno == 0 {
                        self.recorder.begin_singleton();
                    }
                    let socket = Watched::new(ControlSocket::new(ours, form))
                        .map_err(lack("watch a descriptor (epoll_ctl)"))?;
                    let (control_socket, runs) = (Some(socket), Some((pid, now())));
                    self.mlets = Mlets::OfAllSessions { control_socket, runs };
                    return Ok(());
                }
                SupervisorEvent::SpawnFailed { errno, .. } => {
                    return Err(RunError::SingletonNotStarted(self.why_not_started(errno)));
                }
                event => self.take_event(event),
            }
        }
    }

    /// Which mlet could not be started, and why, as far as its first line tells more than the kernel does.
    fn why_not_started(&self, errno: i32) -> String {
        let mlet = self.supervisor.inner.mlet();
        let error = io::Error::from_raw_os_error(errno);
        let hint = match errno {
            ENOENT if mlet.exists() => match interpreter(mlet) {
                Some(path) => format!("; the interpreter {path} of its first line is not there"),
                None => {
                    "; its loader is not there, or its first line names an interpreter that is not"
                        .into()
                }
            },
            ENOEXEC => "; a script needs a first line such as #!/bin/sh".into(),
            EAGAIN | EMFILE | ENFILE | ENOMEM => format!("; {}", remedy(&error)),
            _ => String::new(),
        };
        format!("{}: {error}{hint}", Escaped(mlet.as_os_str().as_bytes()))
    }

    /// Makes sure that a mlet could be started now.
    ///
    /// # Errors
    /// None could.
    pub(crate) async fn prove_mlets(&mut self) -> Result<(), RunError> {
        self.supervisor.inner.prove();
        loop {
            match self.await_event().await? {
                SupervisorEvent::Proved { errno: 0 } => return Ok(()),
                SupervisorEvent::Proved { errno } => {
                    return Err(lack(STARTING_A_MLET)(io::Error::from_raw_os_error(errno)));
                }
                event => self.take_event(event),
            }
        }
    }

    /// The next event of the supervisor, before the run.
    async fn await_event(&mut self) -> Result<SupervisorEvent, RunError> {
        while !self.supervisor_lost {
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.supervisor.ready(interest).await.map_err(lack(WAITING))?;
            self.flush_supervisor();
            match self.supervisor.inner.receive() {
                Ok(None) => {}
                Ok(Some(event)) => return Ok(event),
                Err(error) => self.lose_supervisor(&error),
            }
        }
        Err(RunError::SupervisorLost)
    }

    /// How a shard asks for the mlets of its sessions itself; each has one of its own, and nothing is counted.
    pub(crate) fn direct_requests(&self) -> DirectRequests {
        DirectRequests::new(self.supervisor.inner.spawn_sender(), self.output)
    }

    /// A session's START has succeeded, and its mlet is asked for.
    pub(super) fn begin_session(&mut self, place: SessionPlace, session: Arc<SessionFacts>) {
        let (id, now) = (place.id, now());
        let claim = self.permitting.begin(id);
        match &mut self.mlets {
            Mlets::OfEachSession { awaited } => {
                awaited.push_back((now + self.experiments.limits.setup_timeout, place));
                let output = self.output.at_first(self.recorder.is_there());
                self.sessions.begin(session, (true, output), claim, now);
                if self.supervisor_lost {
                    self.sessions.mlet_not_started(id, "its supervisor is gone".into(), now);
                }
            }
            Mlets::OfAllSessions { .. } => {
                self.sessions.begin(session, (false, Output::Uncounted), claim, now);
            }
        }
        if matches!(claim, Claim::Lost(_)) {
            self.end_fenced(id);
        }
    }

    /// Starts the mlet of a session, or hands the session to the one that serves all.
    pub(super) fn start_mlet(&mut self, id: SessionId, ends: MletEnds, facts: &MletFacts) {
        match &mut self.mlets {
            Mlets::OfEachSession { .. } => {
                if let Some(session) = self.sessions.under_way().facts(id) {
                    let output = self.output.of_session(session);
                    self.spawn(MletOwner::Session(id), &environment(&id, facts), &output, ends);
                }
            }
            Mlets::OfAllSessions { control_socket: Some(control_socket), .. } => {
                control_socket.inner.push(id, facts, ends.socket);
            }
            // The session ends as its mlet's socket closes.
            Mlets::OfAllSessions { control_socket: None, .. } => {
                self.sessions.recorder().mlet_not_taken(id);
            }
        }
    }

    /// Ends the sessions whose mlets were asked for long ago and do not run yet: the supervisor does not answer.
    pub(super) fn tend_mlets(&mut self) {
        let Mlets::OfEachSession { awaited } = &mut self.mlets else { return };
        while let Some((due, place)) = awaited.front().copied() {
            if self.sessions.recorder().awaits_mlet(place.id) {
                if now() < due {
                    return;
                }
                warn!(
                    session = place.id,
                    "the supervisor of mlets does not answer: no mlet within the --setup-timeout; the session ends"
                );
                self.shards[place.shard].push(ToShard::MletLate(place));
            }
            awaited.pop_front();
        }
    }

    /// When [`Self::tend_mlets`] has something to do.
    pub(super) fn mlets_due(&self) -> Option<Instant> {
        match &self.mlets {
            Mlets::OfEachSession { awaited } => awaited.front().map(|(due, _)| *due),
            Mlets::OfAllSessions { .. } => None,
        }
    }

    /// By the end of a run by force the supervisor should have told the end of every mlet. If it has not, it does not
    /// answer, or one cannot be ended even by KILL. Without it mlets are ours, and those that can be ended are.
    pub(super) fn end_stuck_supervisor(&mut self) {
        let is_late = self.force_until().is_some_and(|until| now() >= until);
        let mlets = self.sessions.running_mlets() + usize::from(self.mlets.singleton_runs());
        if self.supervisor_lost || !is_late || mlets == 0 {
            return;
        }
        warn!(
            "the supervisor has not told the end of {} in time; killing it and whatever mlets are left",
            counted(mlets as u64, "mlet")
        );
        self.supervisor_lost = true;
        self.supervisor.inner.kill();
        if let Err(error) = children::end_all_children(Graces::NONE, || false) {
            error!("mlets may be left behind: {error}");
        }
    }

    fn spawn(
        &mut self,
        owner: MletOwner,
        environment: &[(&str, &dyn Display)],
        output: &MletOutput,
        ends: MletEnds,
    ) {
        // The session's record tells of that, and the session ends as the socket closes.
        if self.supervisor_lost {
            return;
        }
        if let Err(error) = self.supervisor.inner.spawn(owner, environment, output, ends) {
            let errno = error.raw_os_error().unwrap_or(EINVAL);
            self.take_event(SupervisorEvent::SpawnFailed { owner, errno });
        }
    }

    pub(super) fn take_events(&mut self) {
        while !self.supervisor_lost {
            match self.supervisor.inner.receive() {
                Ok(Some(event)) => {
                    // The session that it is about may have begun since the mail was taken.
                    self.take_mail_at_hand();
                    self.take_event(event);
                }
                Ok(None) => return,
                Err(error) => self.lose_supervisor(&error),
            }
        }
    }

    pub(super) fn take_event(&mut self, event: SupervisorEvent) {
        match event {
            SupervisorEvent::Spawned { owner: MletOwner::Session(id), pid, output_errno, age } => {
                debug!(session = id, "mlet runs as process {pid}");
                if self.sessions.mlet_runs(id, (pid, output_errno), (age, now())) {
                    self.end_mlet(id, pid, self.graces_of(id));
                }
            }
            SupervisorEvent::SpawnFailed { owner: MletOwner::Session(id), errno } => {
                self.sessions.mlet_not_started(id, self.why_not_started(errno), now());
            }
            SupervisorEvent::Exited {
                owner: MletOwner::AllSessions,
                status,
                run_time,
                output_errno,
                ..
            } => {
                self.mlets.handle_singleton_end();
                self.sessions.singleton_ended(output_errno);
                info!("singleton mlet ended: {status} after {:.3} s", run_time.as_secs_f64());
                if status != MletStatus::Code(0) {
                    self.note_failure(RunError::SingletonFailed(status));
                }
            }
            // Answers that are waited for before the run, and nobody waits for any more.
            SupervisorEvent::Proved { .. }
            | SupervisorEvent::Spawned { owner: MletOwner::AllSessions, .. }
            | SupervisorEvent::SpawnFailed { owner: MletOwner::AllSessions, .. } => {}
            SupervisorEvent::Exited {
                owner: MletOwner::Session(id),
                status,
                run_time,
                output_errno,
                ..
            } => {
                self.sessions.mlet_ended(id, (status, run_time), (output_errno, now()));
            }
        }
    }

    /// The supervisor died: its mlets are ours now, and nobody can start more.
    pub(super) fn lose_supervisor(&mut self, error: &io::Error) {
        error!("the supervisor of mlets is gone ({error}); ending every mlet and the run");
        // Their mlets may have been started.
        self.take_mail_at_hand();
        self.supervisor_lost = true;
        self.mlets.handle_singleton_end();
        self.note_failure(RunError::SupervisorLost);
        self.close_sessions(Force::Stop);
        self.flush_shards();
        // A further signal to stop shortens the wait, as it does where the supervisor ends them.
        let graces = self.graces();
        let is_hurried = || {
            let mut is_hurried = false;
            while let Ok(Some(signal)) = self.signals.inner.receive() {
                is_hurried |= self.answer_signal(signal).is_some();
            }
            is_hurried
        };
        if holds(Guard::EndsMletsOfLost)
            && let Err(error) = children::end_all_children(graces, is_hurried)
        {
            error!("mlets may be left behind: {error}");
        }
        self.sessions.lose_mlets(now());
    }

    pub(super) fn hear_singleton(&mut self) {
        let Some(socket) = self.mlets.control_socket() else { return };
        match socket.inner.listen() {
            Heard::Nothing => {}
            Heard::Closed => {
                info!("the singleton mlet closed its control socket; no new endpoints");
                if self.sessions.served() == 0 {
                    warn!(
                        "it served nobody: a mlet that is not made for -s has to run without it,"
                    );
                    warn!("or as `-s mlet-single MLET`, or use sessions()");
                }
                self.close_singleton();
                self.drain();
            }
            Heard::Bytes => {
                error!("the singleton mlet wrote on its control socket, which it must not");
                self.close_singleton();
                self.note_failure(RunError::SingletonSpoke);
                self.drain();
            }
        }
    }

    /// Closes the control socket of the one mlet. Sessions that it has not taken end.
    pub(super) fn close_singleton(&mut self) {
        let Mlets::OfAllSessions { control_socket, .. } = &mut self.mlets else { return };
        let Some(socket) = control_socket.take() else { return };
        for id in socket.inner.close() {
            self.sessions.recorder().mlet_not_taken(id);
        }
    }

    /// Hands sessions to the one mlet of singleton mode.
    pub(super) fn flush_singleton(&mut self) -> Flushed {
        let Mlets::OfAllSessions { control_socket: Some(socket), .. } = &mut self.mlets else {
            return Flushed::All;
        };
        let flushed = socket.inner.flush();
        for id in socket.inner.take_not_taken() {
            self.sessions.recorder().mlet_not_taken(id);
        }
        flushed
    }

    pub(super) fn flush_supervisor(&mut self) -> Flushed {
        if self.supervisor_lost {
            return Flushed::All;
        }
        match self.supervisor.inner.flush() {
            Ok(flushed) => flushed,
            Err(error) => {
                self.lose_supervisor(&error);
                Flushed::All
            }
        }
    }
}

/// The interpreter that the first line of a script names.
fn interpreter(script: &Path) -> Option<String> {
    // The kernel looks no further.
    const LINE_LEN_MAX: u64 = 256;
    let mut start = Vec::new();
    let file = File::open(script).ok().filter(|_| script.is_file())?;
    file.take(LINE_LEN_MAX).read_to_end(&mut start).ok()?;
    let line = start.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?.trim_ascii();
    let path = line.split(u8::is_ascii_whitespace).next()?;
    Some(Escaped(path).to_string())
}
