//! What systemd, or an init system that follows its protocols, says to a service in its environment: where it wants to be
//! told how the service is, listening sockets that it hands over, and where credentials are.
//!
//! Not here: what it is told (`engine::sys::service_manager`). Mlets get an environment of their own and none of this.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;

use engine::sys::service_manager::{self, Notifier, ServiceManager};

use crate::exit::{Exit, Failure};

/// The credential whose first line is the passphrase of the controller key.
const PASSPHRASE: &str = "passphrase";

/// What the environment says. To be called before anything is opened, as it takes descriptors over by their numbers.
///
/// # Errors
/// The environment makes no sense, or what was handed over is no listening socket.
pub(crate) fn read() -> Result<ServiceManager, Failure> {
    let notifier = std::env::var_os("NOTIFY_SOCKET").map(|address| {
        Notifier::new(&address).map_err(|error| {
            let problem = format!("the init system cannot be told of the run: {error}");
            Failure::new(Exit::Config, format!("NOTIFY_SOCKET: {problem}; unset it"))
        })
    });
    let watchdog_us = number("WATCHDOG_USEC")?.filter(|us| *us > 0 && is_for_us("WATCHDOG_PID"));
    let count = number("LISTEN_FDS")?.filter(|_| is_for_us("LISTEN_PID")).unwrap_or_default();
    let listening = service_manager::take_listening(usize::try_from(count).unwrap_or(usize::MAX));
    Ok(ServiceManager {
        notifier: notifier.transpose()?,
        watchdog: watchdog_us.map(Duration::from_micros),
        listening: listening.map_err(|error| {
            let advice = "of the socket unit ListenStream= with a TCP port is understood";
            let problem = format!("LISTEN_FDS={count}: {error}; {advice}");
            Failure::new(Exit::Listen, problem)
        })?,
    })
}

/// The file of the passphrase among the credentials of the service, if there is one.
pub(crate) fn passphrase_file() -> Option<PathBuf> {
    let file = PathBuf::from(std::env::var_os("CREDENTIALS_DIRECTORY")?).join(PASSPHRASE);
    file.exists().then_some(file)
}

/// Whether what else is said is said to this process, and not to one that has started it.
fn is_for_us(pid_variable: &str) -> bool {
    let pid = std::env::var_os(pid_variable);
    pid.is_none_or(|pid| pid == OsStr::new(&std::process::id().to_string()))
}

fn number(variable: &str) -> Result<Option<u64>, Failure> {
    let Some(value) = std::env::var_os(variable) else { return Ok(None) };
    let number = value.to_str().and_then(|text| text.parse().ok());
    number.map(Some).ok_or_else(|| {
        Failure::new(Exit::Config, format!("{variable} is no number; unset it, or see who set it"))
    })
}
