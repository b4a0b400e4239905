//! The attacker: a thread of its own, tied to a core if one is told, and the listener that accepts and closes.
//!
//! Invariant: it connects to loopback only; when its time is over or it is stopped, whichever is first, all
//! its connections are closed.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use engine::sys::cpu;
use tokio::net::TcpListener;
use tokio::runtime::{self, Runtime};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

use super::plan::Plan;
use super::tally::{Count, Tally};
use crate::load::error::LoadError;
use crate::load::host_process::Doors;

/// An attack that goes on.
pub(super) struct Running {
    stop: oneshot::Sender<()>,
    attack: JoinHandle<Result<Tally, LoadError>>,
}

impl Running {
    /// Begins. Without doors the attack goes to a listener that accepts and closes, on the attacker's thread.
    pub(super) fn start(
        background: &Runtime,
        plan: Plan,
        at: Option<Doors>,
        core: Option<usize>,
        longest: Duration,
    ) -> Result<Self, LoadError> {
        if at.is_some_and(|doors| doors.iter().any(|door| !door.ip().is_loopback())) {
            return Err(LoadError::Unfit("attacks go to loopback only"));
        }
        let (stop, stopped) = oneshot::channel();
        // From the background, so that the thread is not tied to the core of the honest.
        let attack = background.spawn_blocking(move || {
            if let Some(core) = core {
                cpu::pin_this_thread(core)?;
            }
            let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(attack(plan, at, stopped, longest)).map_err(LoadError::Io)
        });
        Ok(Self { stop, attack })
    }

    /// Ends it.
    pub(super) async fn stop(self) -> Result<Tally, LoadError> {
        // It fails if the attack is over already.
        let _ = self.stop.send(());
        self.attack.await.map_err(io::Error::other)?
    }
}

async fn attack(
    plan: Plan,
    at: Option<Doors>,
    stopped: oneshot::Receiver<()>,
    longest: Duration,
) -> io::Result<Tally> {
    let (count, began) = (Count::default(), Instant::now());
    let mut tasks = JoinSet::new();
    let doors = match at {
        Some(doors) => doors,
        None => [accept_and_close(&mut tasks).await?; 2],
    };
    plan.start(doors, &count, &mut tasks);
    tokio::select! {
        _ = stopped => {}
        () = sleep(longest) => {}
    }
    let lasted = began.elapsed();
    tasks.shutdown().await;
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    Ok(Tally { connections: read(&count.connections), steps: read(&count.steps), lasted })
}

/// A listener that accepts and closes; its address.
async fn accept_and_close(tasks: &mut JoinSet<()>) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tasks.spawn(async move {
        loop {
            // Errors are of one connection, or pass when some have been closed.
            if listener.accept().await.is_err() {
                sleep(Duration::from_millis(10)).await;
            }
        }
    });
    Ok(address)
}
