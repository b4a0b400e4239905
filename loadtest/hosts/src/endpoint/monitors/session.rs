//! The monitors of one session: what becomes of what they say (spec/monitors.md 8 to 10).
//!
//! Not here: how they came (`supply`).
//!
//! Invariant: of a message that one objects to nothing is carried out or passed on.

use std::time::Duration;

use engine::sys::cpu;
use monitors::{Check, Crash, Monitors, Objection, Scheduling, Verdict};
use nix::time::{ClockId, clock_gettime};
use packetlab::key::Hex;
use packetlab::message::{HEADER_LEN, MONITOR_CRASHED, Message, MessageType, Outcome, Status};
use packetlab::program::ProgramDigest;

use super::super::chain_limits::Memories;
use super::super::sockets::table::Checked;

/// The monitors of a session, by their indices.
#[derive(Debug)]
pub(in super::super) struct SessionMonitors {
    pub(super) monitors: Monitors,
    pub(super) places: Vec<Place>,
    pub(super) memories: Memories,
    report_crash: bool,
    /// There was no thread for one of them, which was told of.
    lacked_thread: bool,
    /// What of crashes is to be told to the controller: encoded LINFOs.
    reports: Vec<Vec<u8>>,
    /// Whose they are, for the log.
    pub(super) endpoint: String,
}

/// Which program a monitor is, and what it has said.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) digest: ProgramDigest,
    pub(super) objections: u64,
    pub(super) crashes: u64,
}

/// What monitors say to a request.
pub(in super::super) enum Asked {
    /// They are not asked about it: its payload.
    Not(Vec<u8>),
    /// It may be carried out.
    Passed(Check),
    /// It is refused.
    Refused(Outcome),
}

impl SessionMonitors {
    /// None yet.
    pub(in super::super) fn new(memories: Memories, report_crash: bool, endpoint: String) -> Self {
        let monitors = Monitors::new(Scheduling { step_back, processor_time });
        Self {
            monitors,
            places: Vec::new(),
            memories,
            report_crash,
            lacked_thread: false,
            reports: Vec::new(),
            endpoint,
        }
    }

    /// How many there are.
    pub(in super::super) fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is none, and nothing to ask.
    pub(in super::super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Asks about a request.
    pub(in super::super) async fn ask(
        &mut self,
        message_type: MessageType,
        payload: Vec<u8>,
    ) -> Asked {
        if self.is_empty() {
            return Asked::Not(payload);
        }
        let check = match Check::new(message_type, payload, 0) {
            Ok(check) => check,
            Err(payload) => return Asked::Not(payload),
        };
        let Some((verdict, check)) = self.verdict(message_type, check).await else {
            // An index there has to be.
            return Asked::Refused(self.failed(0));
        };
        match verdict {
            Verdict::Pass => Asked::Passed(check),
            Verdict::Objection { monitor, objection } => {
                let rejected =
                    |code| Outcome::MonitorRejected { monitor_index: monitor, monitor_errid: code };
                Asked::Refused(match objection {
                    Objection::Code(code) => rejected(code),
                    Objection::Silent => rejected(0),
                    Objection::Failed(_) => self.failed(monitor),
                })
            }
        }
    }

    /// Tells what became of a request that passed.
    pub(in super::super) async fn tell(
        &mut self,
        message_type: MessageType,
        check: Check,
        status: Status,
    ) {
        if let Err((monitor, crash)) = self.monitors.tell(check, status.0).await {
            self.crashed(monitor, &crash, format_args!("told of its {message_type}"));
        }
    }

    /// Asks about received data: an encoded NDATA.
    pub(in super::super) async fn ask_data(&mut self, ndata: Vec<u8>) -> Checked {
        let nblock = |code, check: &[u8]| {
            let Message::Ndata { sktid, time, packet } = Message::decode(MessageType::NDATA, check)
            else {
                return None;
            };
            let (socket, mut encoded) = (packet.socket(sktid), Vec::new());
            let message = Message::Nblock { socket, monitor_errid: code, time };
            message.encode(&mut encoded).is_ok().then_some(encoded)
        };
        // What was encoded here can be decoded.
        let Ok(check) = Check::new(MessageType::NDATA, ndata, HEADER_LEN) else {
            return Checked::Blocked(None);
        };
        let Some((verdict, check)) = self.verdict(MessageType::NDATA, check).await else {
            return Checked::Blocked(None);
        };
        match verdict {
            Verdict::Pass => Checked::Passed(check.into_bytes()),
            Verdict::Objection { objection, .. } => match objection {
                Objection::Code(code) => Checked::Blocked(nblock(code, check.payload())),
                Objection::Failed(_) if self.report_crash => {
                    Checked::Blocked(nblock(0, check.payload()))
                }
                Objection::Silent | Objection::Failed(_) => Checked::Blocked(None),
            },
        }
    }

    /// What they say, counted and logged. `None` if there was no thread to ask them on: nobody knows what they say, the
    /// check is lost, and the message must not pass.
    async fn verdict(
        &mut self,
        message_type: MessageType,
        check: Check,
    ) -> Option<(Verdict, Check)> {
        match self.monitors.check(check).await {
            Ok((verdict, check)) => {
                if let Verdict::Objection { monitor, objection } = &verdict {
                    if let Some(place) = self.places.get_mut(usize::from(*monitor)) {
                        place.objections += 1;
                    }
                    if let Objection::Failed(Some(crash)) = objection {
                        self.crashed(*monitor, crash, format_args!("asked about {message_type}"));
                    }
                }
                Some((verdict, check))
            }
            Err(crash) => {
                self.crashed(0, &crash, format_args!("asked about {message_type}"));
                None
            }
        }
    }

    fn failed(&self, monitor_index: u16) -> Outcome {
        if self.report_crash {
            Outcome::MonitorFailed { monitor_index }
        } else {
            Outcome::MonitorRejected { monitor_index, monitor_errid: 0 }
        }
    }

    /// What of crashes has to be told to the controller by now.
    pub(in super::super) fn take_reports(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.reports)
    }

    /// Tells of the first crash of each monitor; one that crashes does so at every message. For want of a thread none is to
    /// blame.
    fn crashed(&mut self, monitor: u16, crash: &Crash, occasion: std::fmt::Arguments<'_>) {
        if *crash == Crash::NoThread {
            if !std::mem::replace(&mut self.lacked_thread, true) {
                self.report(None, format!("its monitors, {occasion}, {crash}"));
            }
            return;
        }
        let Some(place) = self.places.get_mut(usize::from(monitor)) else { return };
        place.crashes += 1;
        if place.crashes == 1 {
            let digest = Hex(place.digest.get(..8).unwrap_or(&place.digest));
            let report = format!("monitor {monitor} ({digest}), {occasion}, {crash}");
            self.report(Some(monitor), report);
        }
    }

    fn report(&mut self, monitor: Option<u16>, report: String) {
        tracing::warn!("{}: {report}", self.endpoint);
        let index = monitor.map(u16::to_le_bytes);
        let (name, auxiliary) = match &index {
            Some(index) => (MONITOR_CRASHED, &index[..]),
            None => (&b"pktfleet"[..], &[][..]),
        };
        let (info, mut encoded) = (report.as_bytes(), Vec::new());
        let linfo = Message::Linfo { name, auxiliary, info };
        if self.report_crash && linfo.encode(&mut encoded).is_ok() {
            self.reports.push(encoded);
        }
    }
}

/// Where that is barred, others have less of the machine.
fn step_back() {
    let _ = cpu::run_when_idle();
}

/// The kernel has this clock for every thread.
fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

/// What they said, at the end.
impl Drop for SessionMonitors {
    fn drop(&mut self) {
        for (index, place) in
            self.places.iter().enumerate().filter(|(_, p)| p.objections + p.crashes > 0)
        {
            let Place { digest, objections, crashes, .. } = place;
            tracing::info!(
                "{}: monitor {index} ({}) in this session: objections {objections}, crashes {crashes}",
                self.endpoint,
                Hex(digest.get(..8).unwrap_or(digest))
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn for_want_of_a_thread_no_monitor_is_blamed_and_it_is_told_once() {
        let mut monitors = SessionMonitors::new(Memories::default(), true, "EP1".to_owned());
        monitors.places.push(Place { digest: [0xab; 32], objections: 0, crashes: 0 });
        let mut crash = |crash: &Crash| {
            monitors.crashed(0, crash, format_args!("asked about NSEND"));
            (monitors.take_reports(), monitors.places[0].crashes)
        };
        let told = |reports: &[Vec<u8>]| match reports {
            [encoded] => match Message::decode(MessageType::LINFO, &encoded[HEADER_LEN..]) {
                Message::Linfo { name, auxiliary, info } => {
                    format!("{name:?} {auxiliary:?} {}", String::from_utf8_lossy(info))
                }
                other => panic!("{other:?}"),
            },
            _ => format!("{} reports", reports.len()),
        };
        let (reports, crashes) = crash(&Crash::NoThread);
        let expected = "its monitors, asked about NSEND, found no thread to go on with";
        assert_eq!(told(&reports), format!("{:?} [] {expected}", b"pktfleet"));
        assert_eq!((crashes, crash(&Crash::NoThread)), (0, (vec![], 0)));
        let (reports, crashes) = crash(&Crash::Missing("f"));
        let expected = "monitor 0 (abababababababab), asked about NSEND, has no";
        assert!(told(&reports).starts_with(&format!("{MONITOR_CRASHED:?} [0, 0] {expected}")));
        assert_eq!((reports.len(), crashes), (1, 1));
    }
}
