//! The processes beside the manager that mlets have to do with.
//!
//! Not here: what they do. Invariant: the supervisor is dropped first, without which the recorder ends by itself.

use super::recorder::{self, OutputRecorder, RecorderPlan};
use super::supervisor::{self, MletCommand, StartError, Supervisor};

/// The supervisor, and the recorder if there is one.
#[derive(Debug)]
pub struct MletProcesses {
    /// It starts and ends mlets.
    pub supervisor: Supervisor,
    /// It reads what they write.
    pub recorder: Option<OutputRecorder>,
}

impl MletProcesses {
    /// Forks them and waits until they are ready; a recorder only where there is a plan for one. Call it before keys are
    /// read, limits raised, signals blocked or threads started.
    ///
    /// # Errors
    /// [`StartError`]; no process is left then.
    pub fn start(command: &MletCommand, plan: Option<&RecorderPlan>) -> Result<Self, StartError> {
        let (recorder, of_supervisor) = plan.map(recorder::start).transpose()?.unzip();
        let supervisor = supervisor::start(command, of_supervisor)?;
        Ok(Self { supervisor, recorder })
    }
}
