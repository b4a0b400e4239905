//! `pktxpmgr campaign create`: fixes what all managers measure. Mlet, arguments and config file are read as a run reads them;
//! keys and certificates that this names are not.
//!
//! Not here: the tables, which are made where they are missing (the crate `campaign`).

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use ::campaign::administration::{LEASE_MAX, LEASE_MIN, Lost, NewCampaign};
use clap::{Args, ValueEnum, ValueHint};
use packetlab::time::Ticks;

use super::named::{Named, failed, told};
use super::waves::Waves;
use super::{member, texts};
use crate::args;
use crate::engine_config::of_campaign;
use crate::findings::Findings;
use crate::results::failure::{Failure, shown_path};
use crate::results::time::rfc3339;
use crate::{logging, mlet_file};

const EXAMPLES: &str = "\
Examples:
  pktxpmgr campaign create 'postgres://lab@db/lab#eu26' -n 1000 ./mlet ARG
  pktxpmgr campaign create URL#NAME -c proxy.conf -a proxy.example ./mlet
  pktxpmgr campaign create URL#NAME --waves hostid:1hex --tries 2 ./mlet";

const NOTES: &str = "\
The config file, -a, -p and -i are those of a manager's run: from them comes the
text by which endpoints are called, which no manager can change. It ends with
PubPeriod from now on. Files that the config file names are not needed here. After the database has lost the campaign, --created makes
it the same one again for the folders of its managers.";

/// Of a shorter lease an operator is warned: what a network or a database does now and then may take as long.
const LEASE_USUAL_MIN: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
#[command(before_help = EXAMPLES, after_help = NOTES)]
pub(super) struct Options {
    #[command(flatten)]
    named: Named,

    /// For so many endpoints [default: all that come]
    #[arg(short = 'n', long, value_name = "COUNT", value_parser = endpoints)]
    count: Option<u64>,

    /// An endpoint is claimed so often at most, started or not
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = tries)]
    tries: u32,

    /// A manager that is silent for so long is lost
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = lease)]
    lease: Duration,

    /// Endpoints of lost managers: again, skip
    #[arg(
        long,
        value_enum,
        default_value = "again",
        value_name = "HOW",
        hide_possible_values = true
    )]
    lost: LostArg,

    /// Call parts: hostid:1hex, hostid:2hex, country:AUT,DEU
    #[arg(long, value_name = "PARTS", value_parser = Waves::parse)]
    waves: Option<Waves>,

    /// For one that was lost: its time in run.json
    #[arg(long, value_name = "TIME", value_parser = created)]
    created: Option<Ticks>,

    /// Config file [default: ~/.pktlab/xpmgr.conf]
    #[arg(short = 'c', long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Own address or proxy, as of the managers
    #[arg(short = 'a', long, value_name = "HOST[:PORT]")]
    addr: Option<OsString>,

    /// Address to publish instead of the config file's
    #[arg(short = 'p', long, value_name = "ADDR")]
    publish_addr: Option<OsString>,

    /// Pattern of endpoint host ids to publish
    #[arg(short = 'i', long, value_name = "GLOB")]
    hostid: Option<OsString>,

    /// The mlet and its arguments, as of the managers
    #[arg(value_name = "MLET", required = true, trailing_var_arg = true, value_hint = ValueHint::FilePath)]
    mlet_and_arguments: Vec<OsString>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LostArg {
    Again,
    Skip,
}

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    logging::warnings_alone();
    if options.lease < LEASE_USUAL_MIN {
        tracing::warn!(
            "--lease {} s: a manager that does not reach the database for {:.1} s loses its sessions",
            options.lease.as_secs_f64(),
            options.lease.as_secs_f64() * 0.8
        );
    }
    let args = args::Args::parse_words(options.words_of_a_run())
        .map_err(|error| Failure::Usage(error.to_string()))?;
    mlet_file::check(args.mlet()).map_err(|flaw| {
        Failure::Unusable(format!("cannot run the mlet {}: {flaw}", shown_path(args.mlet())))
    })?;
    let now = SystemTime::now();
    let mut findings = Findings::default();
    let Some(from) = of_campaign::read(&args, now, &mut findings) else {
        return Err(told(findings.into_failure()));
    };
    if let Some(line) = from.drawn_snikeys.first() {
        return Err(Failure::Unusable(format!(
            "line {line} of the config file draws a snikey at random, which would be another for each manager: \
             name one"
        )));
    }
    let mut plan = member::plan_of(&args, &from.experiments).map_err(told)?;
    let text = texts::text_of(&from, Ticks::from_system_time(now)).map_err(Failure::Unusable)?;
    if let Some(waves) = &options.waves {
        waves.check(&text).map_err(|why| Failure::Usage(format!("--waves: {why}")))?;
    }
    plan.descriptor = Some(text);
    let new = NewCampaign {
        plan,
        n: options.count,
        tries: options.tries,
        lease: options.lease,
        lost: match options.lost {
            LostArg::Again => Lost::Again,
            LostArg::Skip => Lost::Skip,
        },
        waves: options.waves.clone().map_or_else(Vec::new, |Waves(waves)| waves),
        created: options.created.map(Ticks::timestamp),
    };
    options.named.open()?.create(&new).map_err(failed)
}

/// As many as the database counts.
fn endpoints(text: &str) -> Result<u64, String> {
    let count = text.parse().ok().filter(|count| *count > 0 && i64::try_from(*count).is_ok());
    count.ok_or_else(|| format!("write a whole number from 1 to {}", i64::MAX))
}

/// The same.
fn tries(text: &str) -> Result<u32, String> {
    let tries = text.parse().ok().filter(|tries| *tries > 0 && i32::try_from(*tries).is_ok());
    tries.ok_or_else(|| format!("write a whole number from 1 to {}", i32::MAX))
}

fn lease(text: &str) -> Result<Duration, String> {
    let lease = command_line::units::duration(text)?;
    match (LEASE_MIN..=LEASE_MAX).contains(&lease) {
        true => Ok(lease),
        false => Err("a lease is at least 1s and at most 24h".into()),
    }
}

fn created(text: &str) -> Result<Ticks, String> {
    rfc3339(text).ok_or_else(|| "write it as run.json has it: 2026-11-30T00:12:00.123456Z".into())
}

impl Options {
    /// The command line of a manager's run, as far as it says what is measured.
    fn words_of_a_run(&self) -> Vec<OsString> {
        let config = self.config.clone().map(OsString::from);
        let options = [
            ("-c", config),
            ("-a", self.addr.clone()),
            ("-p", self.publish_addr.clone()),
            ("-i", self.hostid.clone()),
        ];
        let given = options.into_iter().filter_map(|(option, value)| Some([option.into(), value?]));
        let program = std::iter::once("pktxpmgr".into());
        let before = program.chain(given.flatten()).chain(std::iter::once("--".into()));
        before.chain(self.mlet_and_arguments.iter().cloned()).collect()
    }
}
