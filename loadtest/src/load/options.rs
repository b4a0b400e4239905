//! What `pktfleet load` can be told.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use packetlab::escape::Escaped;
use packetlab::message::PAYLOAD_LEN_MAX;
use serde::{Serialize, Serializer};

use super::attack::options::AttackOptions;
use super::bulk::Direction;
use super::error::LoadError;
use super::mode::Mode;
use super::relays::Relay;
use super::start_times::Pace;
use crate::binaries;

/// Rounds of a comparison, unless told otherwise.
const ROUNDS: u32 = 5;

const EXAMPLES: &str = "\
Examples:
  pktfleet load echo --endpoints 64 --seconds 10
  pktfleet load idle --ramp 10,100,1000 --plot costs.svg
  pktfleet load short --json --compare ./other/pktxpmgr";

/// What `pktfleet load` can be told; as JSON, what it was told.
#[derive(Debug, Clone, Args, Serialize)]
#[command(before_help = EXAMPLES)]
pub(crate) struct Options {
    /// What the endpoints do
    #[arg(value_enum)]
    pub(super) mode: Mode,
    /// Endpoints at once
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(super) endpoints: usize,
    /// Payload bytes of a message (echo, up, down, mix, through)
    #[arg(long, value_name = "BYTES", default_value_t = 60)]
    #[arg(value_parser = clap::value_parser!(u32).range(..=PAYLOAD_LEN_MAX as i64))]
    #[serde(rename = "size_bytes")]
    pub(super) size: u32,
    /// Which way the session in bulk goes, in messages of 60,000 bytes (mix) [default: down]
    #[arg(long, value_enum)]
    pub(super) bulk: Option<Direction>,
    /// How long to measure (all but storm); mix and through so long each way
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    pub(super) seconds: u64,
    /// Work so long before anything is measured (all but storm and idle)
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    #[serde(rename = "warm_up_seconds")]
    pub(super) warm_up: u64,
    /// Begin so many a second, over all endpoints, whether or not the ones before are over; times then count
    /// from the start that was due (short, echo, mix, through) [default: each endpoint begins when it is through]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    #[serde(rename = "rate_per_s")]
    pub(super) rate: Option<u32>,
    /// Append all times to this file, in HdrHistogram's log format, in nanoseconds (short, echo, mix, through)
    #[arg(long, value_name = "FILE")]
    #[serde(serialize_with = "path")]
    pub(super) hlog: Option<PathBuf>,
    /// Measure so many times, and tell medians and ranges too [default with --compare: 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(super) repeat: Option<u32>,
    /// Measure by turns with another pktxpmgr and its options, in words between blanks, and tell the ratios
    #[arg(long, value_name = "COMMAND")]
    pub(super) compare: Option<String>,
    /// Run the other one twice a round, to see how much it differs from itself
    #[arg(long, requires = "compare")]
    pub(super) itself: bool,
    /// Measure with each of these numbers of endpoints
    #[arg(long, value_name = "N,N", value_delimiter = ',', group = "series")]
    #[arg(conflicts_with = "endpoints")]
    pub(super) ramp: Vec<usize>,
    /// Measure at each of these rates (short, echo, mix, through)
    #[arg(
        long,
        value_name = "N,N",
        value_delimiter = ',',
        group = "series",
        conflicts_with = "rate"
    )]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    #[serde(rename = "ramp_rate_per_s")]
    pub(super) ramp_rate: Vec<u32>,
    /// Draw into this file, as SVG, how each cost and time grows with the number of endpoints, or with the rate
    #[arg(long, value_name = "FILE", requires = "series")]
    #[serde(serialize_with = "path")]
    pub(super) plot: Option<PathBuf>,
    /// Cores for pktxpmgr: a count, or a list such as 0,2-3
    #[arg(long, value_name = "N", default_value = "1")]
    pub(super) cores: String,
    /// The core this program runs on [default: any]
    #[arg(long, value_name = "CORE")]
    pub(super) own_core: Option<usize>,
    /// The core that mlet-load runs on [default: any]
    #[arg(long, value_name = "CORE")]
    pub(super) mlet_core: Option<usize>,
    /// What stands between endpoints and mlets
    #[arg(long, value_enum, default_value = "pktxpmgr")]
    pub(super) relay: Relay,
    /// One mlet for all sessions (storm, idle, echo with pktxpmgr)
    #[arg(long)]
    pub(super) singleton: bool,
    /// Let the mlet write each message by itself, as mlets do, not many at once (down)
    #[arg(long)]
    pub(super) each: bool,
    /// What mlets are offered beside their sockets by pktxpmgr, but for that of --compare
    #[arg(long, value_enum, value_name = "WHAT", default_value_t)]
    pub(super) mlet_io: MletIo,
    /// Print JSON instead of a table
    #[arg(long)]
    #[serde(skip)]
    pub(super) json: bool,
    /// The pktxpmgr to run [default: the one beside this program]
    #[arg(long, value_name = "PATH")]
    #[serde(serialize_with = "path")]
    pub(super) pktxpmgr: Option<PathBuf>,
    /// The mlet to run [default: mlet-load beside this program; for short one without libc]
    #[arg(long, value_name = "PATH")]
    #[serde(serialize_with = "path")]
    pub(super) mlet: Option<PathBuf>,
    #[command(flatten)]
    #[serde(skip_serializing_if = "AttackOptions::is_none")]
    pub(super) attack: AttackOptions,
}

/// `--mlet-io` of pktxpmgr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum MletIo {
    /// Nothing
    #[default]
    Socket,
    /// Pipes, which mlet-load uses
    Pipe,
}

impl Options {
    /// That the options go together, but for those of an attack.
    ///
    /// # Errors
    /// They do not.
    pub(super) fn check(&self) -> Result<(), LoadError> {
        let mode = self.mode;
        let is_held = matches!(mode, Mode::Storm | Mode::Idle);
        let is_attacked = self.attack.kind().is_some();
        let has_rate = self.rate.is_some() || !self.ramp_rate.is_empty();
        let is_paced = has_rate || self.warm_up > 0 || self.hlog.is_some();
        let is_series = self.repeat.is_some() || self.compare.is_some() || self.is_ramp();
        let refused = [
            (!self.relay.can(mode), "this relay cannot be measured in this mode; see --help"),
            (
                self.singleton
                    && (self.relay != Relay::Pktxpmgr || !(is_held || mode == Mode::Echo)),
                "--singleton goes with storm, idle and echo of pktxpmgr",
            ),
            (
                has_rate && !mode.is_timed(),
                "--rate and --ramp-rate go with short, echo, mix and through",
            ),
            (
                self.hlog.is_some() && !mode.is_timed(),
                "--hlog goes with short, echo, mix and through",
            ),
            (self.warm_up > 0 && is_held, "--warm-up goes without storm and idle"),
            (
                is_attacked && (is_paced || is_series),
                "--attack goes without --rate, --warm-up, --hlog, --repeat, --compare, --ramp and --ramp-rate",
            ),
            (self.bulk.is_some() && mode != Mode::Mix, "--bulk goes with mix"),
            (self.each && mode != Mode::Down, "--each goes with down"),
            (
                self.mlet_io == MletIo::Pipe && (self.relay != Relay::Pktxpmgr || self.singleton),
                "--mlet-io goes with pktxpmgr, without --singleton",
            ),
            (
                self.compare.is_some() && self.relay != Relay::Pktxpmgr,
                "--compare goes with pktxpmgr, and without another --relay",
            ),
        ];
        refused
            .iter()
            .find(|(is_so, _)| *is_so)
            .map_or(Ok(()), |(_, why)| Err(LoadError::Unfit(why)))
    }

    /// The program of `--compare`, and its options.
    ///
    /// # Errors
    /// There is no such program.
    pub(super) fn other(&self) -> Result<Option<(PathBuf, Vec<OsString>)>, LoadError> {
        let Some(command) = &self.compare else { return Ok(None) };
        let mut words = command.split_whitespace();
        let program = words.next().ok_or(LoadError::Unfit("--compare names no program"))?;
        let program = binaries::find("pktxpmgr", Some(Path::new(program)), "--compare")?;
        Ok(Some((program, words.map(OsString::from).collect())))
    }

    /// Several results are asked for.
    pub(super) fn is_ramp(&self) -> bool {
        !self.ramp.is_empty() || !self.ramp_rate.is_empty()
    }

    /// What is measured, one after the other.
    pub(super) fn steps(&self) -> Vec<Self> {
        let with = |&endpoints| Self { endpoints, ..self.clone() };
        let at = |&rate| Self { rate: Some(rate), ..self.clone() };
        match self.is_ramp() {
            true => self.ramp.iter().map(with).chain(self.ramp_rate.iter().map(at)).collect(),
            false => vec![self.clone()],
        }
    }

    /// What grows from step to step, and how large it is in this one.
    pub(super) fn grown(&self) -> (&'static str, u32) {
        match self.rate {
            Some(rate) if !self.ramp_rate.is_empty() => ("begun a second", rate),
            _ => ("endpoints", u32::try_from(self.endpoints).unwrap_or(u32::MAX)),
        }
    }

    /// How often it is measured, or with `--compare` how often both are.
    pub(super) fn rounds(&self) -> u32 {
        self.repeat.unwrap_or_else(|| if self.compare.is_some() { ROUNDS } else { 1 })
    }

    /// Runs with each number of endpoints.
    pub(super) fn runs_of_each(&self) -> usize {
        let of_round = match (&self.compare, self.itself) {
            (None, _) => 1,
            (Some(_), false) => 2,
            (Some(_), true) => 3,
        };
        self.rounds() as usize * of_round
    }

    /// How the run spends its time.
    pub(super) fn pace(&self) -> Pace {
        Pace {
            warm_up: Duration::from_secs(self.warm_up),
            duration: Duration::from_secs(self.seconds),
            per_second: self.rate,
        }
    }
}

/// As its user would see it: a path need not be text.
fn path<S: Serializer>(path: &Option<PathBuf>, json: S) -> Result<S::Ok, S::Error> {
    match path {
        Some(path) => json.collect_str(&Escaped(path.as_os_str().as_bytes())),
        None => json.serialize_none(),
    }
}
