//! `pktfleet load MODE --attack KIND`: what honest endpoints get while somebody attacks.
//!
//! ```text
//! options    what of it can be told
//! honest     who is measured: endpoints, or clients of a broker
//! victim     what is attacked, as processes of its own: pktxpmgr, pktfleet broker, pktfleet proxy
//! attacker   the attacker's thread, and the listener that accepts and closes
//! tally      what it has done
//! plan       what the attacker does
//! hellos     attacks at pktxpmgr before a handshake is over: silent, half-open, trickle, hello
//! sessions   the others at pktxpmgr: linfo, longchain, onekey, keyupdate, empty
//! at_hosts   attacks at a broker and a proxy
//! rounds     the figures of all rounds as a report
//! ```
//!
//! The attacker takes processor time from the victim, so honest figures are compared with those beside
//! the same attack at a listener that accepts and closes. Each round has three phases, by turns and each
//! with a fresh victim: alone, that base, and the attack.
//!
//! Invariant: an attack goes to loopback only, and ends by itself.

mod at_hosts;
mod attacker;
mod hellos;
mod honest;
pub(super) mod options;
mod plan;
mod rounds;
mod sessions;
mod tally;
mod victim;

use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::sys::cpu;
use tokio::runtime::{self, Runtime};
use tokio::time::sleep;

use super::error::LoadError;
use super::host_process::Doors;
use super::mode::Mode;
use super::options::Options;
use super::relays::Relay;
use super::report::Report;
use super::run::measuring;
use attacker::Running;
use honest::Honest;
use hosts::home::{Agent, Home, Surroundings};
use hosts::interrupts::Interrupts;
use options::Attack;
use plan::Plan;
use rounds::{Figures, LEAD, Phase};
use sessions::Flood;
use tally::Tally;
use victim::{Victim, Watch};

/// After the attack, until the memory is looked at again.
const SETTLE: Duration = Duration::from_secs(1);
/// Bytes of a ClientHello that come at once under `trickle`.
const TRICKLE_LEN: usize = 4;
/// One run and what it needs.
struct AttackRun<'a> {
    options: &'a Options,
    kind: Attack,
    /// Where the victim runs.
    cores: Vec<usize>,
    home: Home,
    /// Of broker or proxy.
    agent: Agent,
    /// Starts the victim and reads its log, so that this costs the honest nothing.
    background: Runtime,
}

/// That it goes with the other options.
///
/// # Errors
/// It does not.
pub(super) fn check(options: &Options, kind: Attack) -> Result<(), LoadError> {
    if options.relay != Relay::Pktxpmgr || options.singleton {
        return Err(LoadError::Unfit("--attack goes with pktxpmgr, and without --singleton"));
    }
    match (options.mode, kind) {
        (Mode::Short, _) => Ok(()),
        (Mode::Echo, Attack::Broker | Attack::Proxy) => {
            Err(LoadError::Unfit("--attack broker and --attack proxy go with short"))
        }
        (Mode::Echo, _) if options.endpoints < 2 => Err(LoadError::Unfit(
            "echo with --attack needs two --endpoints: one of them opens new sessions",
        )),
        (Mode::Echo, _) => Ok(()),
        _ => Err(LoadError::Unfit("--attack goes with short and echo")),
    }
}

/// Measures all rounds.
pub(super) fn run(options: &Options, kind: Attack, cores: Vec<usize>) -> Result<Report, LoadError> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    // Before there is anything to clean up: from here on a signal only asks.
    let mut interrupts = runtime.block_on(async { Interrupts::listen() })?;
    let agent = Agent::new()?;
    let proxy_root = (kind == Attack::Proxy).then(|| agent.key.public_key());
    // The attackers' keys behind those of the honest.
    let identities = options.endpoints + options.attack.count(kind).min(500);
    let home = Home::create(identities, false, Surroundings { broker: None, proxy_root })?;
    let background = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let run = AttackRun { options, kind, cores, home, agent, background };
    // The worker of the background is started by now, and runs where it likes.
    run.background.block_on(async { tokio::task::yield_now().await });
    if let Some(core) = options.own_core {
        cpu::pin_this_thread(core)?;
    }
    let mut figures = Vec::new();
    for _ in 0..options.attack.rounds {
        for phase in Phase::WITH_A_VICTIM {
            figures.extend(runtime.block_on(run.measure(phase, &mut interrupts))?);
        }
    }
    rounds::report(&figures)
}

impl AttackRun<'_> {
    async fn measure(
        &self,
        phase: Phase,
        interrupts: &mut Interrupts,
    ) -> Result<Vec<(Phase, Figures)>, LoadError> {
        let victim = interrupts.unless(self.in_background(self.victim())).await??;
        let measured = interrupts.unless(self.measure_at(phase, &victim)).await;
        let stopped = self.in_background(victim.stop()).await;
        let figures = measured??;
        stopped.map(|()| figures)
    }

    /// The figures of this phase, and of the one that may follow at the same victim.
    async fn measure_at(
        &self,
        phase: Phase,
        victim: &Victim,
    ) -> Result<Vec<(Phase, Figures)>, LoadError> {
        let mut honest = self.honest(victim)?;
        honest.prepare().await?;
        let mut figures = vec![(phase, self.measure_phase(phase, victim, &mut honest).await?)];
        if phase == Phase::Attack {
            let after = self.measure_phase(Phase::After, victim, &mut honest).await?;
            figures.push((Phase::After, after));
        }
        Ok(figures)
    }

    async fn measure_phase(
        &self,
        phase: Phase,
        victim: &Victim,
        honest: &mut Honest,
    ) -> Result<Figures, LoadError> {
        let options = &self.options.attack;
        let duration = Duration::from_secs(self.options.seconds);
        let before = victim.usage()?;
        let attack = match phase {
            Phase::Alone | Phase::After => None,
            Phase::Base => Some(self.attack(None)?),
            Phase::Attack => Some(self.attack(Some(victim.attacked()))?),
        };
        victim.read_log(!(options.log_unread && phase == Phase::Attack));
        sleep(LEAD).await;
        let watch = Watch::start(&self.background, victim.pid());
        let (log_bytes, began) = (victim.log_bytes(), Instant::now());
        let measured = honest.measure(duration, Duration::from_millis(options.pause)).await?;
        let elapsed = began.elapsed();
        let log_bytes = victim.log_bytes() - log_bytes;
        let during = victim.usage()?;
        let tally = match attack {
            Some(attack) => attack.stop().await?,
            None => Tally::default(),
        };
        victim.read_log(true);
        sleep(SETTLE).await;
        let resident_max_bytes = watch.stop().await;
        let after = victim.usage()?;
        Ok(Figures {
            measured,
            window: duration,
            elapsed,
            before,
            during,
            after,
            resident_max_bytes,
            log_bytes_per_s: log_bytes as f64 / elapsed.as_secs_f64(),
            tally,
        })
    }

    /// Runs this where the victim's log is read.
    async fn in_background<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, LoadError>> + Send + 'static,
    ) -> Result<T, LoadError> {
        self.background.spawn(work).await.map_err(std::io::Error::other)?
    }

    /// Starts the attack, at what is attacked or at a listener that accepts and closes.
    fn attack(&self, at: Option<Doors>) -> Result<Running, LoadError> {
        let options = &self.options.attack;
        let longest = Duration::from_secs(self.options.seconds) + LEAD + 2 * honest::PATIENCE;
        Running::start(&self.background, self.plan()?, at, options.attack_core, longest)
    }

    fn plan(&self) -> Result<Plan, LoadError> {
        let options = &self.options.attack;
        let (count, rate) = (options.count(self.kind), options.rate(self.kind));
        // Where they go is told when they are started.
        let nowhere = ([127, 0, 0, 1], 0).into();
        let endpoints = || -> Result<Vec<_>, LoadError> {
            let mut endpoints = measuring(&self.home, nowhere)?;
            Ok(endpoints.split_off(self.options.endpoints))
        };
        let hello = || hellos::hello(&plan::first(endpoints()?)?.tls);
        let (sources, size) = (options.attack_sources, self.options.size as usize);
        Ok(match self.kind {
            Attack::Linfo => Plan::linfo(endpoints()?, count, rate),
            Attack::Longchain => Plan::long_chain(endpoints()?, count, rate, options.chain_len)?,
            Attack::Silent => Plan::stall(Arc::default(), 1, count, sources),
            Attack::HalfOpen => Plan::stall(hello()?, usize::MAX, count, sources),
            Attack::Trickle => Plan::stall(hello()?, TRICKLE_LEN, count, sources),
            Attack::Hello => Plan::Hello { hello: hello()?, count, per_second: rate, sources },
            Attack::Keyupdate => Plan::flood(endpoints()?, count, rate, (Flood::KeyUpdates, size)),
            Attack::Empty => Plan::flood(endpoints()?, count, rate, (Flood::EmptyRecords, size)),
            Attack::Onekey => Plan::one_key(endpoints()?, count)?,
            Attack::Broker => Plan::broker(count)?,
            Attack::Proxy => Plan::proxy(count)?,
        })
    }

    fn honest(&self, victim: &Victim) -> Result<Honest, LoadError> {
        if self.kind == Attack::Broker {
            return Honest::at_broker(self.options.endpoints, victim.honest());
        }
        let [address, _] = victim.honest();
        let mut endpoints = measuring(&self.home, address)?;
        endpoints.truncate(self.options.endpoints);
        Ok(Honest::at_manager(
            endpoints,
            self.options.mode == Mode::Echo,
            self.options.size as usize,
        ))
    }

    /// Starts what is to be attacked. The future borrows nothing, so that it can run elsewhere.
    fn victim(&self) -> impl Future<Output = Result<Victim, LoadError>> + Send + 'static + use<> {
        let parts =
            victim::Parts::new((self.options, &self.cores), self.kind, &self.home, &self.agent);
        async move { Victim::start(parts?).await }
    }
}
