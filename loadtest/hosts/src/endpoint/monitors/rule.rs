//! Whether monitor programs are run, and with what limits: the operator's word.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use command_line::units::{duration, size};
use monitors::Limits;
use packetlab::program::Program;

use crate::credentials::{self, CredentialError};

/// What is done with the monitor programs that a controller's chain demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MonitorRule {
    /// They are run.
    Run(MonitorSettings),
    /// An experiment that demands any is refused.
    Refuse,
    /// They are taken and not run: for endpoints that measure a manager, and are their own operator.
    Ignore,
}

/// How monitor programs are run (spec/monitors.md 13).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MonitorSettings {
    /// What each may take.
    pub limits: Limits,
    /// Tell the controller that a monitor has crashed, and not only that it objects.
    pub report_crash: bool,
    /// Log what they write for their authors.
    pub debug: bool,
}

/// What an operator may say about monitor programs.
#[derive(Debug, Args)]
#[command(next_help_heading = "Monitor programs")]
pub struct MonitorOptions {
    /// Refuse experiments whose chain demands monitor programs, which are run otherwise
    #[arg(long)]
    no_monitors: bool,
    /// Ask this program of the operator's own, too, about every experiment, behind those that its chain demands;
    /// repeatable
    #[arg(long, value_name = "FILE", conflicts_with = "no_monitors")]
    monitor: Vec<PathBuf>,
    /// Longest that a monitor may run for a message, by the time of processors
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = duration)]
    monitor_deadline: Duration,
    /// Most memory of a monitor; at least 128k
    #[arg(long, value_name = "SIZE", default_value = "1M", value_parser = memory)]
    monitor_memory: usize,
    /// Tell controllers when a monitor has crashed, and not only that it objects
    #[arg(long)]
    monitor_report_crash: bool,
    /// Log what monitors write for their authors
    #[arg(long)]
    monitor_debug: bool,
}

impl MonitorOptions {
    /// The programs of the operator's own.
    ///
    /// # Errors
    /// A file cannot be read, or holds none that can be run.
    pub fn own(&self) -> Result<Arc<[Program]>, CredentialError> {
        credentials::monitors(&self.monitor)
    }

    /// What that means.
    pub fn rule(&self) -> MonitorRule {
        if self.no_monitors {
            return MonitorRule::Refuse;
        }
        MonitorRule::Run(MonitorSettings {
            limits: Limits { call: self.monitor_deadline, memory_len_max: self.monitor_memory },
            report_crash: self.monitor_report_crash,
            debug: self.monitor_debug,
        })
    }
}

fn memory(text: &str) -> Result<usize, String> {
    let len = size(text)?;
    if len < Limits::MEMORY_LEN_MIN {
        return Err(format!("a monitor has {} bytes from the beginning", Limits::MEMORY_LEN_MIN));
    }
    Ok(len)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Typed {
        #[command(flatten)]
        monitors: MonitorOptions,
    }

    fn typed(words: &[&str]) -> Result<MonitorRule, String> {
        let typed = Typed::try_parse_from([&["endpoint"], words].concat());
        typed.map(|typed| typed.monitors.rule()).map_err(|error| error.to_string())
    }

    #[test]
    fn monitors_are_run_unless_the_operator_says_otherwise_with_the_limits_he_names() {
        assert_eq!(typed(&[]), Ok(MonitorRule::Run(MonitorSettings::default())));
        assert_eq!(typed(&["--no-monitors"]), Ok(MonitorRule::Refuse));
        let words =
            ["--monitor-deadline", "5ms", "--monitor-memory", "128k", "--monitor-report-crash"];
        let limits = Limits { call: Duration::from_millis(5), memory_len_max: 131_072 };
        let settings = MonitorSettings { limits, report_crash: true, debug: false };
        assert_eq!(typed(&words), Ok(MonitorRule::Run(settings)));
        let refused = typed(&["--monitor-memory", "131071"]).unwrap_err();
        assert!(refused.contains("a monitor has 131072 bytes from the beginning"), "{refused}");
        assert!(typed(&["--monitors-not-enforced"]).is_err());
        assert!(typed(&["--no-monitors", "--monitor", "own.wasm"]).is_err());
    }
}
