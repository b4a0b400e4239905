//! `pktfleet fleet`: many endpoints of one operator in one process, each with its own key, certificates
//! and subscription at a broker.
//!
//! Identities are made at the start, with the operator's private key, and are gone with the process unless a directory
//! keeps them (`identities`).
//!
//! Not here: what an endpoint does (`endpoint`). What goes on at the endpoints is logged for the first of
//! them, which speaks for all; `-v` logs it for every one.

mod identities;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use engine::sys::limits;
use packetlab::address::HostPort;
use packetlab::key::PublicKey;
use tokio::task::JoinSet;
use tokio::time::interval;
use tracing::Dispatch;
use tracing::instrument::WithSubscriber;
use tracing::subscriber::NoSubscriber;

use command_line::log::LogWriter;
use command_line::status_beside_log::StatusLine;
use command_line::status_line::Way;
use command_line::units::count;
use hosts::credentials::{self, KeyOptions};
use hosts::endpoint::Endpoint;
use hosts::endpoint::hosted::{self, ServingOptions};
use hosts::endpoint::subscribe::Subscriber;
use hosts::home::{EndpointIdentity, HomeError};
use hosts::hosting::{self, HostError, LogOptions};
use identities::Kept;

/// Files that are open beside those of endpoints.
const FDS_BASE: usize = 64;
/// Files of an endpoint that measures: its subscription, its session and one socket.
const FDS_MEASURING: usize = 3;
/// How often progress is looked at, and logged if there is any.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
/// Stands for an endpoint's number in its attributes. No attribute may contain it otherwise.
const NUMBER: &str = "{}";

const EXAMPLES: &str = "\
Examples:
  pktfleet fleet --endpoints 100 --key k_eop --subscribe broker.example";

/// What `pktfleet fleet` can be told.
#[derive(Debug, Args)]
#[command(
    mut_arg("key", |key| key.help(
        "Private key of the operator, PEM, which signs what the endpoints show; only its owner may read the file",
    )),
    before_help = EXAMPLES,
    // clap's own is one line of 86 columns.
    override_usage = "pktfleet fleet [OPTIONS] --endpoints <N> --key <FILE>
         --subscribe <HOST[:PORT]>"
)]
pub(crate) struct Options {
    /// Number of endpoints
    #[arg(long, value_name = "N", value_parser = count)]
    endpoints: usize,
    /// Serve the experiments that this broker tells of, until a signal [default port: 20557]
    #[arg(long, value_name = "HOST[:PORT]")]
    subscribe: HostPort,
    /// The operator's, which signs the endpoints' certificates
    #[command(flatten)]
    key: KeyOptions,
    /// Public key of a further endpoint operator whose experiments are served; repeatable
    #[arg(long, value_name = "FILE")]
    operator: Vec<PathBuf>,
    /// What the endpoints are; {} stands for the number of each, such as `hostid=EP{};`
    #[arg(long, value_name = "TEXT", default_value = "", value_parser = attributes)]
    attributes: String,
    /// Address of endpoint 1, from which everything is done; each further one has the next address
    /// [default: as the system chooses]
    #[arg(long, value_name = "IP")]
    address: Option<IpAddr>,
    /// Keep the endpoints' keys and certificates in this directory and have the same endpoints again: those that are in
    /// it, and new ones if it holds fewer; it is made if there is none
    #[arg(long, value_name = "DIR")]
    identities: Option<PathBuf>,
    #[command(flatten)]
    serving: ServingOptions,
    #[command(flatten)]
    log: LogOptions,
}

/// They must be right for endpoint 1, and so for all.
fn attributes(text: &str) -> Result<String, String> {
    hosted::attributes(&text.replace(NUMBER, "1")).map(|_| text.to_owned())
}

/// Serves until a signal.
pub(crate) fn run(options: &Options) -> ExitCode {
    hosting::run_alone(&options.log, async |log| serve(options, log).await, || Ok(()))
}

async fn serve(options: &Options, log: &Arc<LogWriter>) -> Result<(), HostError> {
    allow_files(options.endpoints)?;
    let started = Instant::now();
    let kept = options.identities.as_deref().map(Kept::open).transpose()?;
    let members = members(options, kept.as_ref())?;
    let total = members.len();
    tracing::info!(
        "{total} endpoints have their identities, after {:.1} s",
        started.elapsed().as_secs_f64()
    );
    let subscribed = Arc::new(AtomicUsize::new(0));
    let mut fleet = JoinSet::new();
    // Not `Dispatch::none`: what that is not interested in first would never be logged by anybody.
    let silent = Dispatch::new(NoSubscriber::default());
    for (index, (endpoint, subscriber)) in members.into_iter().enumerate() {
        let subscribed = Arc::clone(&subscribed);
        let experiments_max = options.serving.experiments_max;
        let serving = async move {
            hosted::serve_subscribed(endpoint, subscriber, experiments_max, &subscribed).await;
        };
        if index == 0 || options.log.is_verbose() {
            fleet.spawn(serving);
        } else {
            fleet.spawn(serving.with_subscriber(silent.clone()));
        }
    }
    let so_far = Arc::clone(&subscribed);
    let line = move |_| told(so_far.load(Ordering::Relaxed), total, started);
    let _line = match Way::on_stderr(options.log.is_quiet()) {
        way @ Way::Terminal => Some(StatusLine::start(way, Arc::clone(log), line)?),
        // The log tells whenever something has changed.
        Way::Lines | Way::Hidden => None,
    };
    report(&subscribed, total, started).await;
    Ok(())
}

/// Logs how many are subscribed, whenever that has changed; for ever.
async fn report(subscribed: &AtomicUsize, total: usize, started: Instant) {
    let mut ticks = interval(PROGRESS_INTERVAL);
    let mut last = usize::MAX;
    loop {
        ticks.tick().await;
        let now = subscribed.load(Ordering::Relaxed);
        if now != last {
            tracing::info!("{}", told(now, total, started));
            last = now;
        }
    }
}

fn told(subscribed: usize, total: usize, started: Instant) -> String {
    let seconds = started.elapsed().as_secs_f64();
    format!("{subscribed} of {total} endpoints are subscribed, after {seconds:.1} s")
}

/// All endpoints, as they are kept or new.
fn members(
    options: &Options,
    kept: Option<&Kept>,
) -> Result<Vec<(Endpoint, Subscriber)>, HostError> {
    let key = options.key.read()?;
    let mut operators = vec![key.public_key()];
    operators.extend(credentials::public_keys(&options.operator)?);
    let roots = options.serving.broker_roots()?;
    let own_monitors = options.serving.monitors.own()?;
    let failed = |error: HomeError| HostError::Usage(error.to_string());
    let addresses = (0..options.endpoints).map(|index| address(options, index));
    let identities = match kept {
        None => {
            let made = addresses.map(|address| EndpointIdentity::new(address, &key));
            made.collect::<Result<_, _>>().map_err(failed)?
        }
        Some(kept) => {
            let (all, new) = kept.identities(addresses, &key)?;
            tracing::info!("identities: {} were kept, {new} are new", all.len() - new);
            all
        }
    };
    let member = |(index, identity): (usize, EndpointIdentity)| {
        let (endpoint, subscriber) = member(options, index, &identity, &operators, &roots)?;
        Ok((Endpoint { own_monitors: Arc::clone(&own_monitors), ..endpoint }, subscriber))
    };
    identities.into_iter().enumerate().map(member).collect::<Result<_, _>>().map_err(failed)
}

fn member(
    options: &Options,
    index: usize,
    identity: &EndpointIdentity,
    operators: &[PublicKey],
    roots: &[PublicKey],
) -> Result<(Endpoint, Subscriber), HomeError> {
    let attributes = options.attributes.replace(NUMBER, &(index + 1).to_string());
    let subscriber = identity.subscriber(
        options.subscribe.clone(),
        roots.to_vec(),
        operators,
        &options.serving.channels(),
        &attributes,
    )?;
    let endpoint = Endpoint {
        host_id: hosted::host_id(&attributes),
        monitors: options.serving.monitors.rule(),
        ..identity.endpoint(operators)?
    };
    Ok((endpoint, subscriber))
}

/// Where the endpoint with this index is.
fn address(options: &Options, index: usize) -> IpAddr {
    options.address.map_or_else(|| Ipv4Addr::UNSPECIFIED.into(), |first| nth(first, index))
}

/// The address `index` after the first.
fn nth(first: IpAddr, index: usize) -> IpAddr {
    match first {
        IpAddr::V4(first) => {
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            Ipv4Addr::from_bits(first.to_bits().saturating_add(index)).into()
        }
        IpAddr::V6(first) => {
            Ipv6Addr::from_bits(first.to_bits().saturating_add(index as u128)).into()
        }
    }
}

/// Raises the soft limit on open files. One for each endpoint is needed, more while they measure.
fn allow_files(endpoints: usize) -> Result<(), HostError> {
    let limit = usize::try_from(limits::raise_open_files()?).unwrap_or(usize::MAX);
    let idle = endpoints + FDS_BASE;
    let measuring = endpoints * FDS_MEASURING + FDS_BASE;
    if limit < idle {
        return Err(HostError::Resource(io::Error::other(format!(
            "{endpoints} endpoints need {idle} open files even when idle, and {limit} are allowed; \
             raise the hard limit (`ulimit -Hn {measuring}`) or use fewer --endpoints"
        ))));
    }
    if limit < measuring {
        let at_once = (limit - idle) / (FDS_MEASURING - 1);
        tracing::warn!(
            "about {at_once} of {endpoints} endpoints can measure at once: all of them need \
             {measuring} open files and {limit} are allowed; raise the hard limit \
             (`ulimit -Hn {measuring}`)"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_endpoint_has_the_next_address() {
        let nth = |first: &str, index| nth(first.parse().unwrap(), index).to_string();
        assert_eq!(nth("127.1.0.1", 0), "127.1.0.1");
        assert_eq!(nth("127.1.0.1", 299), "127.1.1.44");
        assert_eq!(nth("2001:db8::ffff", 1), "2001:db8::1:0");
    }
}
