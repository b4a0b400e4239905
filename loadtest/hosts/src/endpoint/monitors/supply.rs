//! From CDATA to START: which monitor programs a chain demands, and which have come (spec/monitors.md 2, 6).
//!
//! Not here: the messages of the set-up (`setup`).
//!
//! Invariant: a program is started once for each place where it is demanded, when it comes; who comes first has the
//! lower index. Those of the endpoint's own operator are started at START, behind all others.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use monitors::{Compiled, Unfit, Unusable};
use packetlab::certificate::Certificate;
use packetlab::message::{Message, Outcome, Status};
use packetlab::program::{Program, ProgramDigest, ProgramLanguage};
use tokio::time::timeout;

use super::super::chain_limits::Memories;
use super::super::filter;
use super::super::ledger::{CertificateId, LedgerError};
use super::super::monitor_error::MonitorError;
use super::super::session_end::EndpointError;
use super::super::sockets::MemoryView;
use super::rule::{MonitorRule, MonitorSettings};
use super::session::{Place, SessionMonitors};
use super::view::{Keeps, View};

/// The CDATA hints there are (spec/protocol.md 1.4). No certificate can demand filters.
const MONITOR: &[u8] = b"monitor";
const FILTER: &[u8] = b"filter";

/// A program that a certificate demands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Demand {
    pub(in super::super) digest: ProgramDigest,
    pub(in super::super) certificate: CertificateId,
}

/// What the certificates of a chain demand, in their order.
pub(in super::super) fn demands(certificates: &[Certificate]) -> Vec<Demand> {
    let of = |certificate: &Certificate| {
        let id = CertificateId::of(certificate);
        let demand = move |digest| Demand { digest, certificate: id.clone() };
        certificate.limits().monitor.into_iter().map(demand)
    };
    certificates.iter().flat_map(of).collect()
}

/// What is demanded, and what of it is there.
#[derive(Debug)]
pub(in super::super) struct Supply {
    rule: MonitorRule,
    /// Each with whether it is there.
    demanded: Vec<(Demand, bool)>,
    /// Those that are there, eBPF as well, which are in no place among the monitors that run. The two differ in no session that
    /// begins: where monitors run, none does with one in eBPF.
    count: u16,
    /// Those of the endpoint's own operator.
    own: Arc<[Program]>,
    memory: MemoryView,
    monitors: SessionMonitors,
    /// The program that is compiled or started now.
    under_way: Option<ProgramDigest>,
    /// The first program that cannot be run, and why.
    unusable: Option<(ProgramDigest, Cause)>,
    /// The first in eBPF, by its index.
    ebpf: Option<(u16, ProgramDigest)>,
}

/// Why a program that is demanded cannot be run.
#[derive(Debug)]
enum Cause {
    Program(Unusable),
    Memory(LedgerError),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Program(cause) => cause.fmt(f),
            Self::Memory(cause) => cause.fmt(f),
        }
    }
}

impl Supply {
    /// Nothing has come yet for a session at this endpoint.
    pub(in super::super) fn new(
        rule: MonitorRule,
        demanded: Vec<Demand>,
        own: Arc<[Program]>,
        memory: MemoryView,
        memories: Memories,
        endpoint: String,
    ) -> Self {
        let report_crash = matches!(rule, MonitorRule::Run(settings) if settings.report_crash);
        Self {
            rule,
            demanded: demanded.into_iter().map(|demand| (demand, false)).collect(),
            count: 0,
            own,
            memory,
            monitors: SessionMonitors::new(memories, report_crash, endpoint),
            under_way: None,
            unusable: None,
            ebpf: None,
        }
    }

    /// The program that is compiled or started now; if [`Supply::take`] was abandoned, the one it was about.
    pub(in super::super) fn under_way(&self) -> Option<ProgramDigest> {
        self.under_way
    }

    /// How many are demanded.
    pub(in super::super) fn demanded(&self) -> usize {
        self.demanded.len()
    }

    /// Takes what CDATA brings.
    ///
    /// # Errors
    /// It is not welcome, or cannot be run.
    pub(in super::super) async fn take(&mut self, hint: &[u8], data: &[u8]) -> Result<(), Status> {
        match hint {
            MONITOR | FILTER if data.len() < 2 => return Err(Status::ECRTBADHDAT),
            MONITOR => {}
            FILTER => return Err(Status::ECRTBADHDAT),
            _ => return Err(Status::ECRTBADHINT),
        }
        let program = Program::decode(data).map_err(|_| Status::ECRTBADHDAT)?;
        let is_ebpf = program.language() == ProgramLanguage::Ebpf;
        if !self.demanded.iter().any(|(demand, _)| demand.digest == *program.digest()) {
            return Err(Status::ECRTBADHDAT);
        }
        if is_ebpf && !filter::is_program(data) {
            let cause = Cause::Program(Unusable::Unfit(Unfit::Ebpf));
            self.unusable.get_or_insert_with(|| (*program.digest(), cause));
            return Err(Status::ECRTBADHDAT);
        }
        match self.rule {
            MonitorRule::Run(settings) if !is_ebpf => {
                self.under_way = Some(*program.digest());
                let started = self.start(&program, settings).await;
                self.under_way = None;
                started.map_err(|cause| {
                    self.unusable.get_or_insert_with(|| (*program.digest(), cause));
                    Status::ECRTBADHDAT
                })
            }
            _ => {
                if is_ebpf && self.ebpf.is_none() {
                    self.ebpf = Some((self.count, *program.digest()));
                }
                for (demand, is_there) in &mut self.demanded {
                    if demand.digest == *program.digest() && !*is_there {
                        *is_there = true;
                        self.count += 1;
                    }
                }
                Ok(())
            }
        }
    }

    /// Starts a program for every place where it is demanded and not there yet.
    async fn start(&mut self, program: &Program, settings: MonitorSettings) -> Result<(), Cause> {
        let digest = *program.digest();
        let is_wanted = |(demand, is_there): &(Demand, bool)| demand.digest == digest && !is_there;
        if !self.demanded.iter().any(is_wanted) {
            return Ok(());
        }
        let compiled = Compiled::of(program).await.map_err(Cause::Program)?;
        for place in 0..self.demanded.len() {
            let Some((demand, _)) = self.demanded.get(place).filter(|one| is_wanted(one)) else {
                continue;
            };
            let keeps =
                Keeps { certificate: demand.certificate.clone(), index: self.count, _own: None };
            self.add(compiled.clone(), digest, keeps, settings).await?;
            if let Some((_, is_there)) = self.demanded.get_mut(place) {
                *is_there = true;
            }
        }
        Ok(())
    }

    /// Starts those of the endpoint's own operator.
    async fn start_own(&mut self, settings: MonitorSettings) -> Result<(), Cause> {
        for program in Arc::clone(&self.own).iter() {
            let digest = *program.digest();
            self.under_way = Some(digest);
            let compiled = Compiled::of(program).await.map_err(Cause::Program)?;
            let own = self.monitors.memories.own(&digest).map_err(Cause::Memory)?;
            let keeps = Keeps { certificate: own.id.clone(), index: 0, _own: Some(own) };
            self.add(compiled, digest, keeps, settings).await?;
        }
        self.under_way = None;
        Ok(())
    }

    /// Starts one behind those that are there.
    async fn add(
        &mut self,
        compiled: Compiled,
        digest: ProgramDigest,
        keeps: Keeps,
        settings: MonitorSettings,
    ) -> Result<(), Cause> {
        let SessionMonitors { monitors, places, memories, endpoint, .. } = &mut self.monitors;
        let persistent = memories.read(&keeps.certificate, keeps.index).map_err(Cause::Memory)?;
        let view = View {
            endpoint: endpoint.clone(),
            index: self.count,
            digest,
            keeps,
            memory: self.memory.clone(),
            memories: memories.clone(),
            debug: settings.debug,
            debug_lines: Mutex::default(),
        };
        let adding = monitors.add(compiled, settings.limits, Arc::new(view), persistent);
        adding.await.map_err(Cause::Program)?;
        places.push(Place { digest, objections: 0, crashes: 0 });
        self.count += 1;
        Ok(())
    }

    /// Why the first program that cannot be run cannot: a controller that was told 0x20 may leave without a START.
    pub(in super::super) fn unusable(&self) -> Option<EndpointError> {
        let (digest, cause) = self.unusable.as_ref()?;
        Some(MonitorError::Unusable { digest: *digest, cause: cause.to_string() }.into())
    }

    /// Whether everything is there that START needs.
    ///
    /// # Errors
    /// It is not: what the controller is told, and why.
    pub(in super::super) fn complete(&self) -> Result<(), (Outcome, EndpointError)> {
        let missing = self.demanded.iter().filter(|(_, is_there)| !is_there).count();
        if missing > 0 {
            let error = self.unusable();
            let error = error.unwrap_or(EndpointError::ProgramsMissing { count: missing });
            return Err((Outcome::Status(Status::ECRTNOHDAT), error));
        }
        match (self.rule, self.ebpf) {
            (MonitorRule::Refuse, _) if self.count > 0 => {
                let error = MonitorError::NotRun { count: self.demanded.len() };
                Err((Outcome::MonitorFailed { monitor_index: 0 }, error.into()))
            }
            (MonitorRule::Run(_), Some((monitor_index, digest))) => Err((
                Outcome::MonitorFailed { monitor_index },
                MonitorError::InEbpf { digest }.into(),
            )),
            _ => Ok(()),
        }
    }

    /// Lets all begin within a time, those of the endpoint's own operator with them. What is said to the controller at
    /// START, and the monitors.
    ///
    /// # Errors
    /// One cannot be run or crashed, or they took too long: what the controller is told, and why.
    pub(in super::super) async fn begin(
        mut self,
        limit: Duration,
    ) -> Result<(Vec<Vec<u8>>, SessionMonitors), (Outcome, EndpointError)> {
        let texts = match timeout(limit, self.started()).await {
            Ok(Ok(texts)) => texts,
            Ok(Err(fault)) => return Err(fault),
            Err(_) => {
                // One of the operator's own that is being started is in no place yet.
                let (index, digest) = match self.under_way {
                    Some(digest) => (self.count, digest),
                    None => self.place(self.monitors.monitors.beginning()),
                };
                let count = self.demanded.len() + self.own.len();
                return Err((
                    Outcome::MonitorFailed { monitor_index: index },
                    MonitorError::Slow { count, index, digest, limit }.into(),
                ));
            }
        };
        let said = |(index, info): (u16, &Vec<u8>)| {
            let auxiliary = index.to_le_bytes();
            let linfo = Message::Linfo { name: MONITOR, auxiliary: &auxiliary, info };
            let mut encoded = Vec::new();
            linfo.encode(&mut encoded).is_ok().then_some(encoded)
        };
        let said = (0..).zip(&texts).filter_map(said).collect();
        Ok((said, self.monitors))
    }

    /// The texts with which all begin.
    async fn started(&mut self) -> Result<Vec<Vec<u8>>, (Outcome, EndpointError)> {
        if let MonitorRule::Run(settings) = self.rule {
            self.start_own(settings).await.map_err(|cause| {
                let digest = self.under_way.unwrap_or_default();
                self.fault(self.count, digest, cause.to_string())
            })?;
        }
        self.monitors.monitors.initialize().await.map_err(|(index, crash)| {
            let (_, digest) = self.place(index);
            self.fault(index, digest, format!("its initialize {crash}"))
        })
    }

    /// An index with its program.
    fn place(&self, index: u16) -> (u16, ProgramDigest) {
        let place = self.monitors.places.get(usize::from(index));
        (index, place.map_or([0; 32], |place| place.digest))
    }

    /// What is said of one that cannot be run at START.
    fn fault(&self, index: u16, digest: ProgramDigest, cause: String) -> (Outcome, EndpointError) {
        let error = if usize::from(index) < self.demanded.len() {
            MonitorError::Unusable { digest, cause }
        } else {
            MonitorError::OwnUnusable { digest, cause }
        };
        (Outcome::MonitorFailed { monitor_index: index }, error.into())
    }
}
