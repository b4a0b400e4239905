//! `--check` and `--dry-run`: everything that can be known without the network and, unless `--check-mlet` asks one, without
//! a mlet, and no run.
//!
//! Not here: what is wrong (`engine_config`, `mlet_file`, `mlet_arguments`), and what would be done in words (`dry_run`).
//! The invariant: no socket is made, no name looked up, nothing written but to standard output and standard error.

use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::SystemTime;

use engine::sys::lack::Lack;
use engine::sys::secrecy;
use packetlab::escape::Escaped;
use packetlab::time::Ticks;

use crate::args::Args;
use crate::engine_config::{self, Kept, Loaded, Purpose};
use crate::exit::{Exit, Failure};
use crate::findings::Findings;
use crate::mlet_file::{self, Flaw};
use crate::{commands, dry_run, joblog, logging, messages, mlet_arguments, report, results_folder};

/// Tells everything that is wrong or odd on standard error; of what could be run, what was checked or would be done on
/// standard output.
///
/// # Errors
/// Something is wrong.
pub(crate) fn run(args: &Args) -> Result<Exit, Failure> {
    logging::warnings_alone();
    // Here too before a key is read.
    secrecy::hide_memory().map_err(Lack::when("hide memory (prctl)"))?;
    let mut findings = Findings::default();
    let can_run = args.has_mlet() && findings.keep(mlet(args.mlet())).is_some();
    if can_run && args.check_mlet {
        findings.keep(mlet_arguments::check(args.mlet(), args.mlet_arguments()));
    }
    results_folder::check_lists(args, &mut findings);
    findings.keep(joblog::check(args));
    messages::check(args).for_each(|failure| findings.add(failure));
    let earlier = results_folder::check(args, can_run, &mut findings);
    report::warn_of_count(args);
    let now = SystemTime::now();
    let purpose = (Purpose::Check, &[][..]);
    let loaded = engine_config::load(args, now, purpose, &mut Kept::default(), &mut findings)?;
    report::findings(&findings);
    let Some(mut loaded) = loaded.filter(|_| findings.is_empty()) else {
        let count = findings.iter().len();
        return Err(Failure::new(Exit::Config, format!("no run can begin: errors: {count}")));
    };
    let done = earlier.and_then(|earlier| earlier.count_in(&mut loaded.config));
    print(&match args.dry_run {
        true => dry_run::text(args, &loaded, done.as_deref(), Ticks::from_system_time(now)),
        false => checked(args, &loaded, done.as_deref()),
    })?;
    Ok(Exit::Success)
}

/// What was checked, in one line, and if all that is asked for is `done` already, that in another.
fn checked(args: &Args, loaded: &Loaded, done: Option<&str>) -> String {
    let config = &loaded.config;
    let key = config.controller_key.public_key().key_id().short();
    let mlet = match args.has_mlet() {
        true => format!("mlet {}", Escaped(args.mlet().as_os_str().as_bytes())),
        false => "no mlet".into(),
    };
    let judged = if args.check_mlet { ", which takes its arguments" } else { "" };
    let done = done.map_or_else(String::new, |done| format!("{done}\n"));
    format!(
        "ok: {}, controller key {key}, experiments: {}, programs: {}, {mlet}{judged}\n{done}",
        Escaped(loaded.path.as_os_str().as_bytes()),
        config.experiments.len(),
        config.programs.len()
    )
}

/// Nobody reading any more is no failure.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let problem = format!("cannot write to standard output: {error}");
            Err(Failure::new(Exit::Config, problem))
        }
        _ => Ok(()),
    }
}

/// Refuses a mlet that could not be started: better now than at the first endpoint.
///
/// # Errors
/// Why it could not.
pub(crate) fn mlet(path: &Path) -> Result<(), Failure> {
    mlet_file::check(path).map_err(|flaw| {
        let shown = Escaped(path.as_os_str().as_bytes());
        let hint = match (&flaw, commands::hint(path.as_os_str())) {
            (Flaw::Unreachable(_) | Flaw::NotRegular, Some(hint)) => format!("; {hint}"),
            (Flaw::Unreachable(_), None) => "; the mlet is a path, not searched in PATH".into(),
            _ => String::new(),
        };
        Failure::new(Exit::Config, format!("cannot run the mlet {shown}: {flaw}{hint}"))
    })
}
