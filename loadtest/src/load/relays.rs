//! The relays that endpoints can be put in front of, and how each is started.
//!
//! `socat` and `haproxy` cannot judge PacketLab chains: they ask endpoints for no certificate, and there
//! is no set-up and no START, but TLS to bytes.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;
use tokio::net::{TcpStream, UnixStream};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::error::LoadError;
use super::mode::Mode;
use super::placement::Placement;

/// For a relay or a mlet to listen.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two attempts to connect.
const RETRY: Duration = Duration::from_millis(10);

/// What stands between endpoints and mlets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Relay {
    /// The experiment manager
    Pktxpmgr,
    /// tokio-relay beside this program: the same with tokio-rustls (short, echo, up, down, mix)
    Tokio,
    /// socat OPENSSL-LISTEN,fork EXEC, without client certificates (short)
    Socat,
    /// haproxy to a unix socket, without client certificates (up, down)
    Haproxy,
}

impl Relay {
    /// Whether `mode` can be measured with it.
    pub(super) fn can(self, mode: Mode) -> bool {
        match self {
            Self::Pktxpmgr => true,
            Self::Tokio => !matches!(mode, Mode::Storm | Mode::Idle | Mode::Through),
            Self::Socat => mode == Mode::Short,
            Self::Haproxy => matches!(mode, Mode::Up | Mode::Down),
        }
    }
}

/// A running `socat` or `haproxy`, with its mlet; both are killed with it.
#[derive(Debug)]
pub(super) struct Foreign {
    relay: Child,
    /// The mlet that `haproxy` connects to.
    _mlet: Option<Child>,
}

impl Foreign {
    pub(super) fn pid(&self) -> u32 {
        self.relay.id().unwrap_or(0)
    }

    /// `socat`, which runs `mlet` for each connection.
    pub(super) async fn socat(
        home: &Path,
        mlet: &Path,
        placement: Placement,
    ) -> Result<(Self, SocketAddr), LoadError> {
        let address = free_address()?;
        let pem = pem(home)?;
        let listen = format!(
            "OPENSSL-LISTEN:{},bind={},reuseaddr,fork,backlog=1024,verify=0,cert={},\
             openssl-min-proto-version=TLS1.3",
            address.port(),
            address.ip(),
            pem.display()
        );
        let arguments = [listen.into(), format!("EXEC:{}", mlet.display()).into()];
        let relay = start("socat", &arguments, placement.relay)?;
        Ok((Self { relay, _mlet: None }.listening(address).await?, address))
    }

    /// `haproxy`, with a `mlet` that listens for it on a unix socket.
    pub(super) async fn haproxy(
        home: &Path,
        mlet: &Path,
        mlet_arguments: Vec<OsString>,
        placement: Placement,
    ) -> Result<(Self, SocketAddr), LoadError> {
        let address = free_address()?;
        let (pem, socket, config) = (pem(home)?, home.join("mlet"), home.join("haproxy.conf"));
        let mut command = Command::new(mlet);
        command.args(mlet_arguments).arg(&socket).stdin(Stdio::null()).kill_on_drop(true);
        let mlet = command.spawn()?;
        until(async || UnixStream::connect(&socket).await.is_ok(), "the mlet").await?;
        let mut text = String::from("global\n nbthread 1\n tune.bufsize 32768\n");
        if let Some(core) = placement.relay {
            let _ = writeln!(text, " cpu-map 1/1 {core}");
        }
        let (pem, socket) = (pem.display(), socket.display());
        let _ = write!(
            text,
            "defaults\n mode tcp\n timeout connect 10s\n timeout client 600s\n \
             timeout server 600s\nlisten load\n \
             bind {address} ssl crt {pem} ssl-min-ver TLSv1.3\n server mlet unix@{socket}\n"
        );
        fs::write(&config, text)?;
        let relay = start("haproxy", &["-db".into(), "-f".into(), config.into()], None)?;
        Ok((Self { relay, _mlet: Some(mlet) }.listening(address).await?, address))
    }

    async fn listening(mut self, address: SocketAddr) -> Result<Self, LoadError> {
        let relay = &mut self.relay;
        until(
            async || {
                // One that has ended cannot listen; somebody else may.
                matches!(relay.try_wait(), Ok(None)) && TcpStream::connect(address).await.is_ok()
            },
            "the relay",
        )
        .await?;
        Ok(self)
    }

    /// Ends it. Sessions that `socat` still has end with their endpoints.
    pub(super) async fn stop(mut self) -> io::Result<()> {
        self.relay.kill().await
    }
}

async fn until(mut ready: impl AsyncFnMut() -> bool, who: &str) -> Result<(), LoadError> {
    let waited = timeout(START_TIMEOUT, async {
        while !ready().await {
            sleep(RETRY).await;
        }
    });
    waited.await.map_err(|_| LoadError::Endpoint(format!("{who} did not listen within 10 s")))
}

fn start(name: &str, arguments: &[OsString], core: Option<usize>) -> Result<Child, LoadError> {
    let mut command = match core {
        Some(core) => {
            let mut command = Command::new("taskset");
            command.args(["-c", &core.to_string(), name]);
            command
        }
        None => Command::new(name),
    };
    if !installed(name) {
        let missing = format!("{name} is not installed; install the package of that name");
        return Err(LoadError::Endpoint(missing));
    }
    Ok(command.args(arguments).stdin(Stdio::null()).kill_on_drop(true).spawn()?)
}

fn installed(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(name).is_file())
}

/// An address on which nobody listens at the moment.
fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// The controller's chain and key in one file, as both programs want it.
fn pem(home: &Path) -> io::Result<PathBuf> {
    let mut pem = Vec::new();
    let parts = ["certs/pubcmd_exper_xc.cert", "certs/exppriv_eop_exper.cert", "keys/k_xc"];
    for part in parts {
        pem.extend(fs::read(home.join(part))?);
        pem.push(b'\n');
    }
    let path = home.join("load.pem");
    fs::write(&path, pem)?;
    fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_relay_is_named() {
        let error = start("no-such-relay", &[], None).unwrap_err().to_string();
        assert!(error.contains("no-such-relay is not installed"), "{error}");
    }

    #[test]
    fn a_relay_is_measured_only_in_modes_it_can_serve() {
        assert!(Relay::Pktxpmgr.can(Mode::Storm));
        assert!(Relay::Tokio.can(Mode::Echo) && !Relay::Tokio.can(Mode::Storm));
        assert!(Relay::Socat.can(Mode::Short) && !Relay::Socat.can(Mode::Up));
        assert!(Relay::Haproxy.can(Mode::Up) && !Relay::Haproxy.can(Mode::Echo));
    }
}
