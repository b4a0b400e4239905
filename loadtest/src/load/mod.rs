//! `pktfleet load`: many endpoints against a running `pktxpmgr`, and what that costs it.
//!
//! ```text
//! options    what it can be told       error    why there is no result
//! series     several runs: repeated, compared with another program, with more and more endpoints
//! run        one of them                    ratios  what is made of several
//! told       what is told of it all         plot    how costs grow, as a picture
//! mode       what the endpoints do, by name
//! modes      what each does: repeated (short, echo), held (storm, idle), bulk (up, down),
//!            mix, through
//! turns      when each session begins anew: closed and open loop
//! sessions   one session: opened, a message sent and answered
//! conditions what holds for a measurement, and what comes of it
//! host_process  pktfleet broker and proxy as processes of a run
//! attack     short and echo while somebody attacks
//! relays     what they are put in front of instead of pktxpmgr, to compare with
//! placement  on which cores
//! process    what the relay uses, read from /proc
//! bare       the same round trip without a relay, to compare with
//! about      of what a result is one: parameters, programs, machine
//! report     the figures, as a table and as JSON
//! histogram  of times                       hlog    the same in a file, second by second
//! ```
//!
//! Figures of one run may be compared with one another, not with those of another machine or day.

mod about;
mod attack;
mod bare;
mod bulk;
mod conditions;
mod error;
mod exit_mlet;
mod histogram;
mod hlog;
mod host_process;
mod mix;
mod mode;
mod modes;
mod options;
mod placement;
mod plot;
mod process;
mod ratios;
mod relays;
mod repeat_compare_ramp;
mod report;
mod run;
mod sessions;
mod short_and_echo;
mod start_times;
mod storm_and_idle;
mod tables_and_json;
mod through;

use std::io::{self, Write};
use std::process::ExitCode;

use engine::sys::limits;

use crate::console;
use about::About;
use error::{LoadError, fds_needed};
pub(crate) use options::Options;
use serde::Serialize;
use tables_and_json::{Figures, Told};

/// Measures what the options ask for: 0 when it came about and was told.
pub(crate) fn run(options: &Options) -> ExitCode {
    match try_run(options).and_then(|told| tell(options, &told)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            console::note(format_args!("load: {error}"));
            error.exit_code().into()
        }
    }
}

fn tell(options: &Options, all: &[Told]) -> Result<(), LoadError> {
    options.plot.as_deref().map_or(Ok(()), |path| plot::write(path, all))?;
    let text = match (options.json, all) {
        (false, _) => all.iter().map(Told::table).collect::<Vec<_>>().join("\n\n"),
        (true, [one]) if !options.is_ramp() => json(one)?,
        (true, all) => json(all)?,
    };
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(LoadError::Output)
}

fn json(told: &(impl Serialize + ?Sized)) -> Result<String, LoadError> {
    serde_json::to_string(told).map_err(|error| LoadError::Output(error.into()))
}

fn try_run(options: &Options) -> Result<Vec<Told>, LoadError> {
    let cores = check(options)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let Some(kind) = options.attack.kind() else {
        return runtime.block_on(repeat_compare_ramp::measure(options, &cores));
    };
    let about = runtime.block_on(About::begin(options, &cores))?;
    let figures = Figures::Once(attack::run(options, kind, cores)?);
    Ok(vec![Told { about, figures }])
}

/// The cores of the relay, if the options go together and there is what they need.
fn check(options: &Options) -> Result<Vec<usize>, LoadError> {
    options.check()?;
    let attacker = options.attack.core();
    for (option, core) in [
        ("--own-core", options.own_core),
        ("--mlet-core", options.mlet_core),
        ("--attack-core", attacker),
    ] {
        placement::check(option, core.as_slice())?;
    }
    let cores = placement::cores(&options.cores)?;
    let endpoints = options.steps().iter().map(|step| step.endpoints).max().unwrap_or(0);
    let endpoints = endpoints.saturating_add(options.mode.more_endpoints());
    let endpoints = endpoints.saturating_add(options.attack.sessions()) as u64;
    let limit = limits::raise_open_files()?;
    if fds_needed(endpoints) > limit {
        return Err(LoadError::FewFds { endpoints, limit });
    }
    options.attack.kind().map_or(Ok(()), |kind| attack::check(options, kind))?;
    Ok(cores)
}
