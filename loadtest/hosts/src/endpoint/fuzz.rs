//! The door of fuzz targets to the monitor programs that come before START, to the requests of a mlet behind it, over any
//! stream, and to its capture filters.
//!
//! It is there with the feature `fuzz` alone, which no program is built with.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use packetlab::message::{MessageType, Status};
use packetlab::program::ProgramDigest;
use packetlab::time::Ticks;
use tokio::io::{AsyncRead, AsyncWrite};

use super::chain_limits::ChainLimits;
use super::filter::{self, Filter};
use super::ledger::CertificateId;
use super::machine::Machine;
use super::monitors::{Asked, Demand, MonitorRule, MonitorSettings, SessionMonitors, Supply};
use super::requests::{self, SessionTerms};
use super::session_end::{End, EndpointError};
use super::sockets::Sockets;
use crate::link::Link;

/// More than monitors may take to begin, a second each.
const BEGIN_TIME: Duration = Duration::from_secs(10);

/// Serves an endpoint's requests at this address, with a chain that limits nothing and demands no monitor.
///
/// # Errors
/// The session failed.
pub async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    own: IpAddr,
) -> Result<End, EndpointError> {
    let limits = ChainLimits::default();
    let monitors = SessionMonitors::new(limits.memories(), false, "endpoint".to_owned());
    let sockets = Sockets::new(Machine::new(own, "host".to_owned()), limits);
    let (ran, not_after) = (Duration::ZERO, Ticks::MAX);
    let terms = SessionTerms { sockets, monitors, ran, not_after, leave_at: None };
    requests::serve(&mut Link::new(stream), terms, std::future::pending(), || ()).await
}

/// Has the CDATA of a session taken, each with its hint, and lets the monitors begin that `demanded` are, each as often as it is
/// there; then all are asked about `nsend`, a payload. `None` if START is refused; otherwise whether `nsend` may be carried out.
///
/// # Panics
/// START is not refused, though not every monitor that is demanded is there.
pub async fn supply(
    demanded: &[ProgramDigest],
    cdata: &[(&[u8], &[u8])],
    limits: monitors::Limits,
    nsend: &[u8],
) -> Option<bool> {
    let chain = ChainLimits::default();
    let memories = chain.memories();
    let machine = Machine::new(Ipv4Addr::LOCALHOST.into(), "host".to_owned());
    let sockets = Sockets::new(machine, chain);
    let demand = |digest: &ProgramDigest| {
        let certificate = CertificateId::of_program(digest);
        Demand { digest: *digest, certificate }
    };
    let rule = MonitorRule::Run(MonitorSettings { limits, report_crash: true, debug: true });
    let mut supply = Supply::new(
        rule,
        demanded.iter().map(demand).collect(),
        Arc::default(),
        sockets.memory(),
        memories,
        "endpoint".to_owned(),
    );
    for (hint, data) in cdata {
        let _ = supply.take(hint, data).await;
    }
    supply.complete().ok()?;
    let (_, mut monitors) = supply.begin(BEGIN_TIME).await.ok()?;
    assert_eq!(monitors.len(), demanded.len(), "all that are demanded are there");
    match monitors.ask(MessageType::NSEND, nsend.to_vec()).await {
        Asked::Not(_) => Some(demanded.is_empty()),
        Asked::Passed(check) => {
            monitors.tell(MessageType::NSEND, check, Status::SUCCESS).await;
            Some(true)
        }
        Asked::Refused(_) => Some(false),
    }
}

/// How many bytes of `packets` a capture filter, in its encoded form, wants, one after the other: `None` of one that has cost
/// more than [`FILTER_BUDGET`]. `None` if it is refused.
///
/// # Panics
/// It is taken, and is no program.
pub fn wanted_lens(encoded: &[u8], packets: &[&[u8]]) -> Option<Vec<Option<usize>>> {
    let mut filter = Filter::decode(encoded).ok()?;
    assert!(filter::is_program(encoded), "a filter is a program");
    Some(packets.iter().map(|packet| filter.wanted_len(packet).ok()).collect())
}

/// Instructions that one packet may cost beyond going through a filter once, roughly.
pub const FILTER_BUDGET: usize = filter::BUDGET as usize;
