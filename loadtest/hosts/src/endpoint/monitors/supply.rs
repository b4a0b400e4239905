//! From CDATA to START: which monitor programs a chain demands, and which have come (spec/monitors.md 2, 6).
//!
//! Not here: the messages of the set-up (`setup`).
//!
//! Invariant: a program is started once for each place where it is demanded, when it comes; who comes first has the
//! lower index.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use monitors::{Compiled, Unfit, Unusable};
use packetlab::certificate::Certificate;
use packetlab::message::{Message, Outcome, Status};
use packetlab::program::{Program, ProgramDigest, ProgramLanguage};
use tokio::time::timeout;

use super::super::chain_limits::Memories;
use super::super::filter;
use super::super::ledger::{CertificateId, LedgerError};
use super::super::session_end::EndpointError;
use super::super::sockets::MemoryView;
use super::rule::{MonitorRule, MonitorSettings};
use super::session::{Place, SessionMonitors};
use super::view::View;

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
    /// Those that are there, eBPF as well.
    count: u16,
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

impl Supply {
    /// Nothing has come yet for a session at this endpoint.
    pub(in super::super) fn new(
        rule: MonitorRule,
        demanded: Vec<Demand>,
        memory: MemoryView,
        memories: Memories,
        endpoint: String,
    ) -> Self {
        let report_crash = matches!(rule, MonitorRule::Run(settings) if settings.report_crash);
        Self {
            rule,
            demanded: demanded.into_iter().map(|demand| (demand, false)).collect(),
            count: 0,
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
            self.unusable.get_or_insert((*program.digest(), cause));
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
        for (demand, is_there) in self.demanded.iter_mut().filter(|one| is_wanted(one)) {
            let SessionMonitors { monitors, places, memories, endpoint, .. } = &mut self.monitors;
            let (index, certificate) = (self.count, demand.certificate.clone());
            let persistent = memories.read(&certificate, index).map_err(Cause::Memory)?;
            let view = View {
                endpoint: endpoint.clone(),
                index,
                digest,
                certificate,
                memory: self.memory.clone(),
                memories: memories.clone(),
                debug: settings.debug,
                debug_lines: AtomicU32::new(0),
            };
            let adding =
                monitors.add(compiled.clone(), settings.limits, Arc::new(view), persistent);
            adding.await.map_err(Cause::Program)?;
            places.push(Place { digest, objections: 0, crashes: 0 });
            *is_there = true;
            self.count += 1;
        }
        Ok(())
    }

    /// Why the first program that cannot be run cannot: a controller that was told 0x20 may leave without a START.
    pub(in super::super) fn unusable(&self) -> Option<EndpointError> {
        let (digest, cause) = self.unusable.as_ref()?;
        let cause = match cause {
            Cause::Program(cause) => cause.to_string(),
            Cause::Memory(cause) => cause.to_string(),
        };
        Some(EndpointError::MonitorUnusable { digest: *digest, cause })
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
                let error = EndpointError::MonitorsNotRun { count: self.demanded.len() };
                Err((Outcome::MonitorFailed { monitor_index: 0 }, error))
            }
            (MonitorRule::Run(_), Some((monitor_index, digest))) => Err((
                Outcome::MonitorFailed { monitor_index },
                EndpointError::MonitorInEbpf { digest },
            )),
            _ => Ok(()),
        }
    }

    /// Lets all begin within a time. What is said to the controller at START, and the monitors.
    ///
    /// # Errors
    /// One crashed, or they took too long: what the controller is told, and why.
    pub(in super::super) async fn begin(
        self,
        limit: Duration,
    ) -> Result<(Vec<Vec<u8>>, SessionMonitors), (Outcome, EndpointError)> {
        let digest_of = |index: u16| {
            let place = self.monitors.places.get(usize::from(index));
            place.map_or([0; 32], |place| place.digest)
        };
        let texts = match timeout(limit, self.monitors.monitors.initialize()).await {
            Ok(Ok(texts)) => texts,
            Err(_) => {
                let index = self.monitors.monitors.beginning();
                let (count, digest) = (self.demanded.len(), digest_of(index));
                return Err((
                    Outcome::MonitorFailed { monitor_index: index },
                    EndpointError::MonitorsSlow { count, index, digest, limit },
                ));
            }
            Ok(Err((monitor_index, crash))) => {
                let digest = digest_of(monitor_index);
                let cause = format!("its initialize {crash}");
                return Err((
                    Outcome::MonitorFailed { monitor_index },
                    EndpointError::MonitorUnusable { digest, cause },
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
}
