//! What a result is a result of: all parameters of the run, the programs, and the machine.
//!
//! Not here: the figures. Whoever has both can make the run again, and knows with what it may be compared.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use command_line::provenance::{self, kernel_value};
use engine::sys::cpu;
use packetlab::escape::Escaped;
use packetlab::key::{Hex, sha256};
use packetlab::time::Ticks;
use serde::Serialize;
use tokio::process::Command;
use tokio::time::timeout;

use super::error::LoadError;
use super::options::Options;
use super::relays::Relay;
use crate::binaries;

/// For a program to tell its version.
const VERSION_TIMEOUT: Duration = Duration::from_secs(5);

/// Where, when, of what and with what something was measured.
#[derive(Debug, Serialize)]
pub(super) struct About {
    date: String,
    program: &'static str,
    commit: Option<&'static str>,
    host: Option<String>,
    kernel: Option<String>,
    /// Cores that this program may use.
    cores: usize,
    tcp_congestion_control: Option<String>,
    placement: Places,
    /// What is measured, where its file is known.
    relay: Option<Program>,
    /// What it is compared with.
    #[serde(skip_serializing_if = "Option::is_none")]
    other: Option<Program>,
    parameters: Options,
}

/// Which cores run what; none where the kernel chooses.
#[derive(Debug, Serialize)]
struct Places {
    relay_cores: Vec<usize>,
    endpoint_core: Option<usize>,
    mlet_core: Option<usize>,
}

/// A program that is measured.
#[derive(Debug, Serialize)]
pub(super) struct Program {
    path: String,
    version: Option<String>,
    sha256: Option<String>,
}

impl About {
    /// A run that begins now, with the relay on these cores.
    ///
    /// # Errors
    /// The program to be measured is not there.
    pub(super) async fn begin(options: &Options, relay_cores: &[usize]) -> Result<Self, LoadError> {
        let relay = match options.relay {
            Relay::Pktxpmgr => {
                Some(binaries::find("pktxpmgr", options.pktxpmgr.as_deref(), "--pktxpmgr")?)
            }
            Relay::Tokio => Some(binaries::find("tokio-relay", None, "--relay")?),
            Relay::Socat | Relay::Haproxy => None,
        };
        let relay = match relay {
            Some(path) => Some(Program::of(&path).await),
            None => None,
        };
        let other = match options.other()? {
            Some((path, _)) => Some(Program::of(&path).await),
            None => None,
        };
        Ok(Self {
            date: Ticks::from_system_time(SystemTime::now()).timestamp(),
            program: concat!("pktfleet ", env!("CARGO_PKG_VERSION")),
            commit: provenance::COMMIT,
            host: kernel_value("kernel/hostname"),
            kernel: kernel_value("kernel/osrelease"),
            cores: cpu::allowed_cores()?.len(),
            tcp_congestion_control: kernel_value("net/ipv4/tcp_congestion_control"),
            placement: Places {
                relay_cores: relay_cores.to_vec(),
                endpoint_core: options.own_core,
                mlet_core: options.mlet_core,
            },
            relay,
            other,
            parameters: options.clone(),
        })
    }

    /// What grows from one result of a series to the next, and how large it was for this one.
    pub(super) fn grown(&self) -> (&'static str, u32) {
        self.parameters.grown()
    }

    /// What stands above a table.
    pub(super) fn table(&self) -> String {
        let known = |value: &Option<String>| value.clone().unwrap_or_else(|| "unknown".to_owned());
        let core = |core: Option<usize>| {
            core.map_or_else(|| "any".to_owned(), |core| format!("core {core}"))
        };
        let relay_cores: Vec<_> = self.placement.relay_cores.iter().map(usize::to_string).collect();
        format!(
            "{}, Linux {}, {} cores, congestion control {}\n\
             placement: relay on core {}, endpoints on {}, mlets on {}\n",
            self.date,
            known(&self.kernel),
            self.cores,
            known(&self.tcp_congestion_control),
            relay_cores.join(", "),
            core(self.placement.endpoint_core),
            core(self.placement.mlet_core),
        )
    }
}

impl Program {
    async fn of(path: &Path) -> Self {
        Self {
            path: shown(path),
            version: version(path).await,
            sha256: fs::read(path).ok().map(|bytes| Hex(&sha256(&bytes)).to_string()),
        }
    }
}

/// The first line of what the program says to `--version`.
async fn version(program: &Path) -> Option<String> {
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).kill_on_drop(true);
    let said = timeout(VERSION_TIMEOUT, command.output()).await.ok()?.ok()?;
    let text = String::from_utf8(said.stdout).ok()?;
    said.status.success().then(|| text.lines().next().map(str::to_owned))?
}

fn shown(path: &Path) -> String {
    Escaped(path.as_os_str().as_bytes()).to_string()
}
