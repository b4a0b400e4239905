//! The payload of RESULT (spec/protocol.md 1.4).

use std::fmt;

use super::payload_reader::PayloadReader;
use super::status::Status;

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// A plain status. `ECTLMONREJ` and `ECTLMONUKN` have no encoding here: they need their monitor.
    Status(Status),
    /// A monitor rejected it (`ECTLMONREJ`).
    MonitorRejected {
        /// Position of the monitor in the chain's list.
        monitor_index: u16,
        /// The monitor's own code.
        monitor_errid: u16,
    },
    /// A monitor crashed or is unusable (`ECTLMONUKN`).
    MonitorFailed {
        /// Position of the monitor in the chain's list.
        monitor_index: u16,
    },
}

impl Outcome {
    /// All went well.
    pub const SUCCESS: Self = Self::Status(Status::SUCCESS);

    /// The status, whatever the form.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            Self::Status(status) => *status,
            Self::MonitorRejected { .. } => Status::ECTLMONREJ,
            Self::MonitorFailed { .. } => Status::ECTLMONUKN,
        }
    }

    /// All went well.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.status() == Status::SUCCESS
    }

    /// Lengths other than 0, 2, 4 and 6 are malformed, and so is a monitor form that is too short
    /// (Q11); bytes that the form does not need are ignored.
    pub(super) fn read(reader: &mut PayloadReader<'_>) -> Option<Self> {
        if reader.is_empty() {
            return Some(Self::SUCCESS);
        }
        let status = Status(reader.u16()?);
        let fields = reader.rest();
        if !matches!(fields.len(), 0 | 2 | 4) {
            return None;
        }
        let mut fields = PayloadReader::new(fields);
        Some(match status {
            Status::ECTLMONREJ => {
                Self::MonitorRejected { monitor_index: fields.u16()?, monitor_errid: fields.u16()? }
            }
            Status::ECTLMONUKN => Self::MonitorFailed { monitor_index: fields.u16()? },
            status => Self::Status(status),
        })
    }

    /// Success is written as the empty payload.
    pub(super) fn write(&self, out: &mut Vec<u8>) -> Result<(), &'static str> {
        let mut put = |number: u16| out.extend_from_slice(&number.to_be_bytes());
        match self {
            Self::Status(Status::SUCCESS) => {}
            Self::Status(Status::ECTLMONREJ | Status::ECTLMONUKN) => {
                return Err("a status that blames a monitor must name it; use the monitor forms");
            }
            Self::Status(status) => put(status.0),
            Self::MonitorRejected { monitor_index, monitor_errid } => {
                put(Status::ECTLMONREJ.0);
                put(*monitor_index);
                put(*monitor_errid);
            }
            Self::MonitorFailed { monitor_index } => {
                put(Status::ECTLMONUKN.0);
                put(*monitor_index);
            }
        }
        Ok(())
    }
}

/// The status, and the monitor if one is to blame.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.status().fmt(f)?;
        match self {
            Self::Status(_) => Ok(()),
            Self::MonitorRejected { monitor_index, monitor_errid } => {
                write!(f, " (monitor {monitor_index}, its code {monitor_errid})")
            }
            Self::MonitorFailed { monitor_index } => write!(f, " (monitor {monitor_index})"),
        }
    }
}
