//! What is attacked, as processes of its own, on free ports of loopback: `pktxpmgr`, or `pktfleet broker`,
//! or `pktfleet proxy` with a `pktxpmgr` whose snikey a stranger wants.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::options::Attack;
use crate::binaries;
use crate::load::error::LoadError;
use crate::load::host_process::{self, Doors};
use crate::load::mode::Mode;
use crate::load::options::Options;
use crate::load::placement::core_name;
use crate::load::process::{Usage, resident_bytes};
use crate::pktxpmgr::Pktxpmgr;
use hosts::home::{Agent, Home};

/// Between two looks at the resident memory.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Sessions of the manager under `onekey`: one key must be able to take them all.
const ONEKEY_SESSIONS_MAX: &str = "256";
/// Any free port of loopback.
const FREE: &str = "127.0.0.1:0";

/// What is to be started.
pub(super) struct Parts {
    kind: Attack,
    pktxpmgr: PathBuf,
    /// Options of pktxpmgr, and its mlet behind them; where it listens or registers is still to be said.
    options: Vec<OsString>,
    mlet: Vec<OsString>,
    /// Key and certificate of broker or proxy.
    agent: [PathBuf; 2],
    /// Where the manager runs, and so does broker or proxy.
    cores: Vec<usize>,
}

impl Parts {
    pub(super) fn new(
        (options, cores): (&Options, &[usize]),
        kind: Attack,
        home: &Home,
        agent: &Agent,
    ) -> Result<Self, LoadError> {
        let config = match kind {
            Attack::Proxy => home.proxy_config_path(),
            _ => home.config_path(),
        };
        let mut words: Vec<OsString> = vec!["-c".into(), config.into()];
        words.extend(["--cores", &options.cores].map(OsString::from));
        if kind == Attack::Onekey {
            words.extend(["--sessions-max", ONEKEY_SESSIONS_MAX].map(OsString::from));
        }
        // One that lives for as long as its session, for attackers hold theirs.
        let role = Mode::Echo.mlet_role();
        let program = binaries::find("mlet-load", options.mlet.as_deref(), "--mlet")?;
        let core = core_name(options.mlet_core);
        Ok(Self {
            kind,
            pktxpmgr: binaries::find("pktxpmgr", options.pktxpmgr.as_deref(), "--pktxpmgr")?,
            options: words,
            mlet: vec![program.into(), role.into(), options.size.to_string().into(), core.into()],
            agent: host_process::agent_files(home, agent)?,
            cores: cores.to_vec(),
        })
    }
}

/// A running victim.
pub(super) struct Victim {
    /// Whose memory and log count.
    main: Pktxpmgr,
    /// The manager behind a proxy.
    manager: Option<Pktxpmgr>,
    honest: Doors,
    attacked: Doors,
}

impl Victim {
    pub(super) async fn start(parts: Parts) -> Result<Self, LoadError> {
        let manager = |at: &str| {
            let mut words: Vec<OsString> = ["-a", at].map(OsString::from).into();
            words.extend(parts.options.iter().cloned());
            words.push("--".into());
            words.extend(parts.mlet.iter().cloned());
            words
        };
        match parts.kind {
            Attack::Broker => {
                let words = ["broker", "--publish", FREE, "--subscribe", FREE];
                let (main, doors) = host_process::start(&words, &parts.agent, &parts.cores).await?;
                Ok(Self { main, manager: None, honest: doors, attacked: doors })
            }
            Attack::Proxy => {
                let words = ["proxy", "--controllers", FREE, "--endpoints", FREE];
                let (main, [controllers, endpoints]) =
                    host_process::start(&words, &parts.agent, &parts.cores).await?;
                let filled = |line: &str| line.contains("backlog filled").then_some(());
                let words = manager(&controllers.to_string());
                let (owner, ()) = Pktxpmgr::start(&parts.pktxpmgr, words, filled).await?;
                let (honest, attacked) = ([endpoints; 2], [controllers; 2]);
                Ok(Self { main, manager: Some(owner), honest, attacked })
            }
            _ => {
                let (main, at) = Pktxpmgr::listening(&parts.pktxpmgr, manager(FREE)).await?;
                Ok(Self { main, manager: None, honest: [at; 2], attacked: [at; 2] })
            }
        }
    }

    /// Where those come who are measured.
    pub(super) fn honest(&self) -> Doors {
        self.honest
    }

    /// Where attackers come.
    pub(super) fn attacked(&self) -> Doors {
        self.attacked
    }

    pub(super) fn pid(&self) -> u32 {
        self.main.pid()
    }

    pub(super) fn usage(&self) -> Result<Usage, LoadError> {
        Usage::of(self.pid())
    }

    pub(super) fn log_bytes(&self) -> u64 {
        self.main.log_bytes()
    }

    pub(super) fn read_log(&self, is_read: bool) {
        self.main.read_log(is_read);
    }

    /// Ends it, the owner of the snikey first.
    pub(super) async fn stop(self) -> Result<(), LoadError> {
        if let Some(manager) = self.manager {
            manager.stop().await?;
        }
        self.main.stop().await?;
        Ok(())
    }
}

/// Looks at the resident memory of a process again and again.
pub(super) struct Watch {
    stop: oneshot::Sender<()>,
    most: JoinHandle<u64>,
}

impl Watch {
    pub(super) fn start(background: &Runtime, pid: u32) -> Self {
        let (stop, mut stopped) = oneshot::channel();
        let most = background.spawn(async move {
            let mut most = 0;
            loop {
                most = most.max(resident_bytes(pid));
                tokio::select! {
                    _ = &mut stopped => return most,
                    () = sleep(LOOK_INTERVAL) => {}
                }
            }
        });
        Self { stop, most }
    }

    /// The most bytes it had.
    pub(super) async fn stop(self) -> u64 {
        // It ends with this message only.
        let _ = self.stop.send(());
        self.most.await.unwrap_or(0)
    }
}
