//! Several runs: repeated, by turns with another program, and with growing numbers of endpoints or rates.
//!
//! Not here: one run (`run`). A round of a comparison has the other program's run first, then this one's, and with
//! `--itself` the other's again, so that the machine's drift strikes both alike.

use std::ffi::OsString;
use std::io::{self, Stderr};
use std::path::PathBuf;
use std::pin::pin;

use command_line::status_line::{Progress, Way};
use tokio::time::interval;

use super::about::About;
use super::error::LoadError;
use super::hlog::Hlog;
use super::options::Options;
use super::ratios::Round;
use super::report::Report;
use super::run::{self, Subject};
use super::tables_and_json::{Figures, Told};
use hosts::interrupts::Interrupts;

/// All that the options ask for: one result, or with `--ramp` and `--ramp-rate` one for each step.
///
/// # Errors
/// A run failed, or measured nothing.
pub(super) async fn measure(options: &Options, cores: &[usize]) -> Result<Vec<Told>, LoadError> {
    // Before there is anything to clean up: from here on a signal only asks.
    let mut interrupts = Interrupts::listen()?;
    // Before anything is measured in vain.
    let hlog = options.hlog.as_deref().map(Hlog::open).transpose()?;
    let other = options.other()?;
    let steps = options.steps();
    let mut series = Series {
        begun: 0,
        total: steps.len() * options.runs_of_each(),
        progress: Progress::new(Way::on_stderr(false), io::stderr()),
        cores,
        interrupts: &mut interrupts,
        hlog,
        other,
    };
    let mut all = Vec::new();
    for options in steps {
        let about = About::begin(&options, cores).await?;
        let figures = series.figures(&options).await?;
        all.push(Told { about, figures });
    }
    Ok(all)
}

/// Waits for something, and shows meanwhile how long all has lasted.
async fn show_while<T>(
    working: impl Future<Output = T>,
    progress: &mut Progress<Stderr>,
    what: &str,
) -> T {
    let mut looks = interval(progress.pause());
    let mut working = pin!(working);
    loop {
        tokio::select! {
            done = &mut working => return done,
            _ = looks.tick() => {
                progress.show(format_args!("{what}, after {} s", progress.lasted().as_secs()));
            }
        }
    }
}

struct Series<'a> {
    /// Runs that have begun, and all there will be.
    begun: usize,
    total: usize,
    progress: Progress<Stderr>,
    cores: &'a [usize],
    interrupts: &'a mut Interrupts,
    hlog: Option<Hlog>,
    /// The program to compare with, and its options.
    other: Option<(PathBuf, Vec<OsString>)>,
}

impl Series<'_> {
    async fn figures(&mut self, options: &Options) -> Result<Figures, LoadError> {
        if self.other.is_none() {
            let mut runs = Vec::new();
            for _ in 0..options.rounds() {
                runs.push(self.this(options).await?);
            }
            return Ok(match options.repeat {
                None => Figures::Once(runs.remove(0)),
                Some(_) => Figures::Repeated(runs),
            });
        }
        let mut rounds = Vec::new();
        for _ in 0..options.rounds() {
            let other = self.other(options).await?;
            let this = self.this(options).await?;
            let other_again = match options.itself {
                true => Some(self.other(options).await?),
                false => None,
            };
            rounds.push(Round { other, this, other_again });
        }
        Ok(Figures::Compared(rounds))
    }

    async fn this(&mut self, options: &Options) -> Result<Report, LoadError> {
        let tag = if self.other.is_some() { "this-" } else { "" };
        self.run(options, Subject::default(), tag).await
    }

    async fn other(&mut self, options: &Options) -> Result<Report, LoadError> {
        let (program, arguments) = self.other.clone().unwrap_or_default();
        self.run(options, Subject { pktxpmgr: Some(program), arguments }, "other-").await
    }

    async fn run(
        &mut self,
        options: &Options,
        subject: Subject,
        tag: &str,
    ) -> Result<Report, LoadError> {
        self.begun += 1;
        let what = format!("load: run {} of {}", self.begun, self.total);
        let measuring = run::measure(options, self.cores, &subject, self.interrupts);
        let outcome = show_while(measuring, &mut self.progress, &what).await;
        self.progress.clear();
        let outcome = outcome?;
        if let Some(hlog) = &mut self.hlog {
            let number = match options.is_ramp() {
                true => format!("{}-", options.grown().1),
                false => String::new(),
            };
            hlog.write(&format!("{tag}{number}"), &outcome.tagged)?;
        }
        Ok(outcome.report)
    }
}
