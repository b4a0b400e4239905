//! Messages between manager and supervisor, one per packet of their SOCK_SEQPACKET pair.
//!
//! ```text
//! SPAWN        1 | owner | output | variables 1 | { name length 1 | name | value length 2 | value }   + descriptors
//! END ALL      2 | eof grace 8 | term grace 8
//! PROVE        3
//! END ONE      4 | owner | pid 4 | eof grace 8 | term grace 8
//! SPAWNED      1 | owner | pid 4 | errno 4
//! SPAWN FAILED 2 | owner | errno 4
//! EXITED       3 | owner | pid 4 | how 1 | code or signal 4 | run time 8 | errno 4
//! PROVED       5 | errno 4
//! ```
//! With SPAWN come the descriptor of the session's socket and, if the mlet is offered pipes, those of what it reads and writes.
//! The output is 0 for what is inherited, 1 for none, 2 | name length 1 | name for a folder, 3 | capture for the recorder.
//! The errno of SPAWNED is why that output could not be had, that of EXITED why it may not be whole. The supervisor's first
//! message is SET UP (`sys/forked.rs`), and only that is. An errno of 0 says that all is well. What does not decode to its last
//! byte is refused whole.

use std::fmt;
use std::io::Write as _;
use std::time::Duration;

use super::output::MletOutput;
use crate::sys::children::Graces;
use crate::sys::mlet_owner::MletOwner;
use crate::sys::packet::{LEN_MAX, Reader, encode_short_text, nanoseconds};
use crate::sys::recorder::Capture;

const SPAWN: u8 = 1;
const END_ALL: u8 = 2;
const PROVE: u8 = 3;
const END_ONE: u8 = 4;
const SPAWNED: u8 = 1;
const SPAWN_FAILED: u8 = 2;
const EXITED: u8 = 3;
const PROVED: u8 = 5;
const INHERITED: u8 = 0;
const DISCARDED: u8 = 1;
const IN_FOLDER: u8 = 2;
const RECORDED: u8 = 3;
const BY_CODE: u8 = 0;
const BY_SIGNAL: u8 = 1;

/// Manager to supervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SupervisorRequest {
    /// Start a mlet whose session comes with this message.
    Spawn { owner: MletOwner, environment: Vec<(String, String)>, output: MletOutput },
    /// TERM to every mlet after the first grace, KILL after the second; no mlet is started any more.
    EndAll(Graces),
    /// The same for one mlet and its process group, if it still runs.
    EndOne { owner: MletOwner, pid: i32, graces: Graces },
    /// Find out whether a mlet could be started now.
    Prove,
}

/// What the supervisor tells of one mlet; `owner` is the one it was asked for with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SupervisorEvent {
    /// The mlet runs: exec has succeeded.
    Spawned {
        /// As asked for.
        owner: MletOwner,
        /// Its process, which is also its process group.
        pid: i32,
        /// Why its output is not kept as asked for, but thrown away; 0 if it is kept.
        output_errno: i32,
        /// For how long it ran when this was told.
        age: Duration,
    },
    /// There is no mlet; its socket is closed.
    SpawnFailed {
        /// As asked for.
        owner: MletOwner,
        /// Why: ENOENT, EACCES, ENOEXEC and others of exec, EAGAIN of fork, ECANCELED after
        /// [`end_all`](super::Supervisor::end_all).
        errno: i32,
    },
    /// The mlet has ended. Comes exactly once for each `Spawned`, after it.
    Exited {
        /// As asked for.
        owner: MletOwner,
        /// Its former process.
        pid: i32,
        /// How it ended.
        status: MletStatus,
        /// From before it was started until it was reaped.
        run_time: Duration,
        /// ENOSPC if its output went to files of its own and their file system was full then, so that they may not be whole;
        /// 0 otherwise.
        output_errno: i32,
    },
    /// Answers [`prove`](super::Supervisor::prove).
    Proved {
        /// Why no mlet could be started; 0 if one could.
        errno: i32,
    },
}

/// How a mlet ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MletStatus {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl fmt::Display for MletStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

impl SupervisorRequest {
    /// The bytes of this request, `None` if it cannot be said: a variable name that is empty or holds `=`, a NUL, or
    /// more than fits one message.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        match self {
            Self::Spawn { owner, environment, output } => {
                let variables = environment.iter().map(|(name, value)| (&name[..], value as _));
                encode_spawn(*owner, variables, output, &mut out)?;
            }
            Self::EndAll(graces) => {
                out.push(END_ALL);
                encode_graces(*graces, &mut out);
            }
            Self::EndOne { owner, pid, graces } => {
                out.push(END_ONE);
                owner.encode(&mut out);
                out.extend(pid.to_be_bytes());
                encode_graces(*graces, &mut out);
            }
            Self::Prove => out.push(PROVE),
        }
        (out.len() <= LEN_MAX).then_some(out)
    }

    /// The request in these bytes, `None` if they are none.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let request = match reader.u8()? {
            SPAWN => {
                let owner = MletOwner::decode(&mut reader)?;
                let output = decode_output(&mut reader)?;
                let count = reader.u8()?;
                let environment =
                    (0..count).map(|_| decode_variable(&mut reader)).collect::<Option<_>>()?;
                Self::Spawn { owner, environment, output }
            }
            PROVE => Self::Prove,
            END_ALL => Self::EndAll(decode_graces(&mut reader)?),
            END_ONE => {
                let (owner, pid) = (MletOwner::decode(&mut reader)?, reader.i32()?);
                Self::EndOne { owner, pid, graces: decode_graces(&mut reader)? }
            }
            _ => return None,
        };
        reader.is_at_end().then_some(request)
    }
}

impl SupervisorEvent {
    /// The bytes of this event.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match *self {
            Self::Spawned { owner, pid, output_errno, age } => {
                out.push(SPAWNED);
                owner.encode(&mut out);
                out.extend(pid.to_be_bytes());
                out.extend(output_errno.to_be_bytes());
                out.extend(nanoseconds(age));
            }
            Self::SpawnFailed { owner, errno } => {
                out.push(SPAWN_FAILED);
                owner.encode(&mut out);
                out.extend(errno.to_be_bytes());
            }
            Self::Exited { owner, pid, status, run_time, output_errno } => {
                let (how, number) = match status {
                    MletStatus::Code(code) => (BY_CODE, code),
                    MletStatus::Signal(signal) => (BY_SIGNAL, signal),
                };
                out.push(EXITED);
                owner.encode(&mut out);
                out.extend(pid.to_be_bytes());
                out.push(how);
                out.extend(number.to_be_bytes());
                out.extend(nanoseconds(run_time));
                out.extend(output_errno.to_be_bytes());
            }
            Self::Proved { errno } => {
                out.push(PROVED);
                out.extend(errno.to_be_bytes());
            }
        }
        out
    }

    /// The event in these bytes, `None` if they are none.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let event = match reader.u8()? {
            SPAWNED => {
                let (owner, pid) = (MletOwner::decode(&mut reader)?, reader.i32()?);
                let (output_errno, age) = (reader.i32()?, reader.duration()?);
                Self::Spawned { owner, pid, output_errno, age }
            }
            SPAWN_FAILED => {
                Self::SpawnFailed { owner: MletOwner::decode(&mut reader)?, errno: reader.i32()? }
            }
            PROVED => Self::Proved { errno: reader.i32()? },
            EXITED => {
                let (owner, pid) = (MletOwner::decode(&mut reader)?, reader.i32()?);
                let how = reader.u8()?;
                let number = reader.i32()?;
                let status = match how {
                    BY_CODE => MletStatus::Code(number),
                    BY_SIGNAL => MletStatus::Signal(number),
                    _ => return None,
                };
                let (run_time, output_errno) = (reader.duration()?, reader.i32()?);
                Self::Exited { owner, pid, status, run_time, output_errno }
            }
            _ => return None,
        };
        reader.is_at_end().then_some(event)
    }
}

/// Adds the bytes of [`SupervisorRequest::Spawn`], `None` if it cannot be said; see [`SupervisorRequest::encode`].
pub(super) fn encode_spawn<'a>(
    owner: MletOwner,
    environment: impl ExactSizeIterator<Item = (&'a str, &'a dyn fmt::Display)>,
    output: &MletOutput,
    out: &mut Vec<u8>,
) -> Option<()> {
    out.push(SPAWN);
    owner.encode(out);
    encode_output(output, out)?;
    out.push(u8::try_from(environment.len()).ok()?);
    for (name, value) in environment {
        encode_short_text(name, out)?;
        let len_at = out.len();
        out.extend([0; 2]);
        let value_at = out.len();
        write!(out, "{value}").ok()?;
        let value = out.get(value_at..)?;
        if !is_variable(name.as_bytes(), value) {
            return None;
        }
        let value_len = u16::try_from(value.len()).ok()?;
        out.get_mut(len_at..value_at)?.copy_from_slice(&value_len.to_be_bytes());
    }
    (out.len() <= LEN_MAX).then_some(())
}

/// `None` for a folder that no file system has.
fn encode_output(output: &MletOutput, out: &mut Vec<u8>) -> Option<()> {
    match output {
        MletOutput::Inherited => out.push(INHERITED),
        MletOutput::Discarded => out.push(DISCARDED),
        MletOutput::Folder(name) => {
            out.push(IN_FOLDER);
            encode_short_text(name, out)?;
        }
        MletOutput::Recorded(capture) => {
            out.push(RECORDED);
            capture.encode(out)?;
        }
    }
    Some(())
}

/// True if the environment of a process can hold it.
fn is_variable(name: &[u8], value: &[u8]) -> bool {
    let is_name = |byte: &u8| !matches!(byte, b'=' | 0);
    !name.is_empty() && name.iter().all(is_name) && !value.contains(&0)
}

fn encode_graces(Graces { eof, term }: Graces, out: &mut Vec<u8>) {
    out.extend(nanoseconds(eof));
    out.extend(nanoseconds(term));
}

fn decode_graces(reader: &mut Reader<'_>) -> Option<Graces> {
    Some(Graces { eof: reader.duration()?, term: reader.duration()? })
}

fn decode_output(reader: &mut Reader<'_>) -> Option<MletOutput> {
    match reader.u8()? {
        INHERITED => Some(MletOutput::Inherited),
        DISCARDED => Some(MletOutput::Discarded),
        IN_FOLDER => reader.short_text().map(|name| MletOutput::Folder(name.to_owned())),
        RECORDED => Capture::decode(reader).map(MletOutput::Recorded),
        _ => None,
    }
}

fn decode_variable(reader: &mut Reader<'_>) -> Option<(String, String)> {
    let name = reader.short_text()?;
    let value_len = usize::from(u16::from_be_bytes(reader.array()?));
    let value = std::str::from_utf8(reader.bytes(value_len)?).ok()?;
    is_variable(name.as_bytes(), value.as_bytes()).then(|| (name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sys::recorder::tests::any_capture;

    fn spawn(environment: &[(&str, &str)]) -> SupervisorRequest {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let environment = environment.iter().map(own).collect();
        let output = MletOutput::Inherited;
        SupervisorRequest::Spawn { owner: MletOwner::Session(7), environment, output }
    }

    #[test]
    fn a_spawn_request_has_these_bytes() {
        let bytes = b"\x01\0\0\0\0\0\0\0\0\x07\0\x01\x06EPADDR\0\x03::1";
        let request = spawn(&[("EPADDR", "::1")]);
        assert_eq!(request.encode().unwrap(), bytes);
        assert_eq!(SupervisorRequest::decode(bytes), Some(request));
    }

    #[test]
    fn an_environment_that_no_process_can_have_is_not_encoded() {
        for bad in [("", "x"), ("A=B", "x"), ("A\0", "x"), ("A", "x\0")] {
            assert_eq!(spawn(&[bad]).encode(), None, "{bad:?}");
        }
        let long = "x".repeat(LEN_MAX);
        assert_eq!(spawn(&[("A", &long)]).encode(), None);
        assert_eq!(spawn(&[(&long[..256], "")]).encode(), None);
        assert!(spawn(&[(&long[..255], &long[..2000])]).encode().is_some());
        assert_eq!(spawn(&[("A", ""); 256]).encode(), None);
    }

    #[test]
    fn an_environment_that_no_process_can_have_is_not_decoded() {
        for (name, value) in [("", "x"), ("=", "x"), ("\0", "x"), ("A", "\0")] {
            let mut bytes = spawn(&[]).encode().unwrap();
            *bytes.last_mut().unwrap() = 1;
            bytes.push(name.len() as u8);
            bytes.extend(name.as_bytes());
            bytes.extend((value.len() as u16).to_be_bytes());
            bytes.extend(value.as_bytes());
            assert_eq!(SupervisorRequest::decode(&bytes), None, "{name:?}={value:?}");
        }
    }

    fn any_owner() -> impl Strategy<Value = MletOwner> {
        prop_oneof![any::<u64>().prop_map(MletOwner::Session), Just(MletOwner::AllSessions)]
    }

    fn any_graces() -> impl Strategy<Value = Graces> {
        any::<(u64, u64)>().prop_map(|(eof, term)| Graces {
            eof: Duration::from_nanos(eof),
            term: Duration::from_nanos(term),
        })
    }

    fn any_request() -> impl Strategy<Value = SupervisorRequest> {
        let variable = ("[^=\0]{1,60}", "[^\0]{0,60}");
        let environment = prop::collection::vec(variable, 0..5);
        let output = prop_oneof![
            Just(MletOutput::Inherited),
            Just(MletOutput::Discarded),
            ".{0,60}".prop_map(MletOutput::Folder),
            any_capture().prop_map(MletOutput::Recorded)
        ];
        prop_oneof![
            (any_owner(), environment, output).prop_map(|(owner, environment, output)| {
                SupervisorRequest::Spawn { owner, environment, output }
            }),
            any_graces().prop_map(SupervisorRequest::EndAll),
            (any_owner(), any::<i32>(), any_graces()).prop_map(|(owner, pid, graces)| {
                SupervisorRequest::EndOne { owner, pid, graces }
            }),
            Just(SupervisorRequest::Prove),
        ]
    }

    fn any_event() -> impl Strategy<Value = SupervisorEvent> {
        let status = prop_oneof![
            any::<i32>().prop_map(MletStatus::Code),
            any::<i32>().prop_map(MletStatus::Signal)
        ];
        prop_oneof![
            (any_owner(), any::<(i32, i32, u64)>()).prop_map(|(owner, (pid, output_errno, ns))| {
                let age = Duration::from_nanos(ns);
                SupervisorEvent::Spawned { owner, pid, output_errno, age }
            }),
            (any_owner(), any::<i32>())
                .prop_map(|(owner, errno)| SupervisorEvent::SpawnFailed { owner, errno }),
            (any_owner(), any::<(i32, i32, u64)>(), status).prop_map(
                |(owner, (pid, output_errno, ns), status)| {
                    let run_time = Duration::from_nanos(ns);
                    SupervisorEvent::Exited { owner, pid, status, run_time, output_errno }
                }
            ),
            any::<i32>().prop_map(|errno| SupervisorEvent::Proved { errno }),
        ]
    }

    proptest! {
        #[test]
        fn requests_survive_the_way_there_and_no_shorter_or_longer_form_does(
            request in any_request()
        ) {
            let mut bytes = request.encode().unwrap();
            prop_assert_eq!(SupervisorRequest::decode(&bytes), Some(request));
            for len in 0..bytes.len() {
                prop_assert_eq!(SupervisorRequest::decode(&bytes[..len]), None);
            }
            bytes.push(0);
            prop_assert_eq!(SupervisorRequest::decode(&bytes), None);
        }

        #[test]
        fn events_survive_the_way_back_and_no_shorter_or_longer_form_does(event in any_event()) {
            let mut bytes = event.encode();
            prop_assert_eq!(SupervisorEvent::decode(&bytes), Some(event));
            for len in 0..bytes.len() {
                prop_assert_eq!(SupervisorEvent::decode(&bytes[..len]), None);
            }
            bytes.push(0);
            prop_assert_eq!(SupervisorEvent::decode(&bytes), None);
        }

        #[test]
        fn any_bytes_decode_to_nothing_or_to_what_encodes_to_them(
            bytes in prop::collection::vec(any::<u8>(), 0..80)
        ) {
            if let Some(request) = SupervisorRequest::decode(&bytes) {
                prop_assert_eq!(request.encode(), Some(bytes.clone()));
            }
            if let Some(event) = SupervisorEvent::decode(&bytes) {
                prop_assert_eq!(event.encode(), bytes);
            }
        }
    }
}
