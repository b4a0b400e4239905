//! `pktxpmgr campaign create`: fixes what all managers measure. Mlet, arguments and config file are read as a run reads them.
//!
//! Not here: the tables, which are made where they are missing (the crate `campaign`).

use std::ffi::OsString;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use ::campaign::administration::{Lost, NewCampaign};
use clap::{Args, ValueEnum, ValueHint};
use packetlab::time::Ticks;

use super::named::{Named, failed, told};
use super::waves::Waves;
use super::{member, texts};
use crate::args;
use crate::engine_config::{self, Kept, Loaded, Purpose};
use crate::findings::Findings;
use crate::results::failure::{Failure, shown_path};
use crate::{logging, mlet_file};

const EXAMPLES: &str = "\
Examples:
  pktxpmgr campaign create 'postgres://lab@db/lab#eu26' -n 1000 ./mlet ARG
  pktxpmgr campaign create URL#NAME -c proxy.conf -a proxy.example ./mlet
  pktxpmgr campaign create URL#NAME --waves hostid:1hex --tries 2 ./mlet";

const NOTES: &str = "\
The config file, -a, -p and -i are those of a manager's run: from them comes the
text by which endpoints are called, which no manager can change. It ends with
PubPeriod from now on.";

#[derive(Debug, Args)]
#[command(before_help = EXAMPLES, after_help = NOTES)]
pub(super) struct Options {
    #[command(flatten)]
    named: Named,

    /// For so many endpoints [default: all that come]
    #[arg(short = 'n', long, value_name = "COUNT")]
    count: Option<NonZeroU64>,

    /// An endpoint is started so often at most
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    tries: u32,

    /// A manager that is silent for so long is lost
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = command_line::units::duration)]
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

    /// Call parts: hostid:1hex, hostid:2hex, country:AT,DE
    #[arg(long, value_name = "PARTS", value_parser = Waves::parse)]
    waves: Option<Waves>,

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
    if options.hostid.is_some() && options.waves.as_ref().is_some_and(Waves::name_host_ids) {
        let why = "a wave would call whoever matches either";
        return Err(Failure::Usage(format!("-i and --waves hostid do not go together: {why}")));
    }
    let args = args::Args::parse_words(options.words_of_a_run())
        .map_err(|error| Failure::Usage(error.to_string()))?;
    mlet_file::check(args.mlet()).map_err(|flaw| {
        Failure::Unusable(format!("cannot run the mlet {}: {flaw}", shown_path(args.mlet())))
    })?;
    let now = SystemTime::now();
    let mut findings = Findings::default();
    let purpose = (Purpose::Check, &[][..]);
    let loaded = engine_config::load(&args, now, purpose, &mut Kept::default(), &mut findings);
    let Some(Loaded { config, drawn_snikeys, .. }) = loaded.map_err(told)? else {
        return Err(told(findings.into_failure()));
    };
    if let Some(line) = drawn_snikeys.first() {
        return Err(Failure::Unusable(format!(
            "line {line} of the config file draws a snikey at random, which would be another for each manager: \
             name one"
        )));
    }
    let mut plan = member::plan_of(&args, &config).map_err(told)?;
    let text = texts::text_of(&config, Ticks::from_system_time(now));
    plan.descriptor = Some(text.map_err(Failure::Unusable)?);
    let new = NewCampaign {
        plan,
        n: options.count.map(NonZeroU64::get),
        tries: options.tries,
        lease: options.lease,
        lost: match options.lost {
            LostArg::Again => Lost::Again,
            LostArg::Skip => Lost::Skip,
        },
        waves: options.waves.clone().map_or_else(Vec::new, |Waves(waves)| waves),
    };
    options.named.open()?.create(&new).map_err(failed)
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
