//! Which sessions are wanted, and in what order.
//!
//! Not here: what is shown of them. Invariant: of a chosen session only its place is kept in memory, so that a hundred
//! thousand of them cost some megabytes.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use packetlab::time::Ticks;

use super::failure::{Failure, shown_path};
use super::folder::Folder;
use super::lines::Place;
use super::outcome::OUTCOMES;
use super::record::{Event, Folded, Session};
use super::time;

/// Longest key, in hexadecimal digits.
const KEY_LEN: usize = 64;

/// A folder, and which of its sessions are wanted, as typed.
#[derive(Debug, Args)]
pub(crate) struct Wanted {
    /// The results folder
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,

    #[command(flatten)]
    pub(crate) filter: Filter,
}

impl Wanted {
    /// Opens the folder, which has records of the run that is asked for.
    ///
    /// # Errors
    /// It is no results folder, cannot be read, or has none of that run.
    pub(crate) fn open(&self) -> Result<Folder, Failure> {
        let folder = Folder::open(&self.dir)?;
        if let Some(wanted) = &self.filter.run {
            let mut is_there = false;
            // Whoever reads the folder next tells of its faults.
            folder.scan_telling(
                |event, _| is_there |= self.filter.takes_run(run_of(&event)),
                |_| {},
            )?;
            if !is_there {
                let shown = shown_path(&self.dir);
                return Err(Failure::Usage(format!("{shown} has no run {wanted}")));
            }
        }
        Ok(folder)
    }
}

/// The name of the run that a record is of.
fn run_of(event: &Event) -> &str {
    match event {
        Event::RunStart(start) => &start.run,
        Event::Session(session) => &session.run,
        Event::Folded(folded) => &folded.run,
        Event::RunEnd(end) => &end.run,
        Event::Other => "",
    }
}

/// Which sessions are wanted. Each option takes away from all.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Which sessions")]
pub(crate) struct Filter {
    /// ok, failed, or names of outcomes
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = OutcomeChoice::parse)]
    outcome: Vec<OutcomeChoice>,

    /// Endpoints whose keys begin so, in hexadecimal digits
    #[arg(long, value_name = "PREFIX[,..]", value_delimiter = ',', value_parser = hexadecimal)]
    key: Vec<String>,

    /// Accepted then or later: 2026-11-23T11:40:00Z, or a date
    #[arg(long, value_name = "TIME", value_parser = time::first_moment)]
    since: Option<Ticks>,

    /// Accepted before then; a date is taken whole
    #[arg(long, value_name = "TIME", value_parser = time::end)]
    until: Option<Ticks>,

    /// Of this run alone; the front of its name will do
    #[arg(long, value_name = "ID", value_parser = hexadecimal)]
    run: Option<String>,
}

/// One word of `--outcome`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum OutcomeChoice {
    /// What counts as failed (`outcome.rs`).
    Failed,
    Named(String),
}

impl OutcomeChoice {
    fn parse(text: &str) -> Result<Self, String> {
        let name = text.to_ascii_lowercase();
        match &*name {
            "failed" => Ok(Self::Failed),
            _ if OUTCOMES.contains(&&*name) => Ok(Self::Named(name)),
            _ => {
                Err(format!("no outcome has this name; there are failed, {}", OUTCOMES.join(", ")))
            }
        }
    }

    fn takes(&self, outcome: &str, has_failed: bool) -> bool {
        match self {
            Self::Failed => has_failed,
            Self::Named(name) => name == outcome,
        }
    }
}

/// Reads the front of a key or of the name of a run.
///
/// # Errors
/// It is not one, in words.
pub(crate) fn hexadecimal(text: &str) -> Result<String, String> {
    let is_digits = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match is_digits && (1..=KEY_LEN).contains(&text.len()) {
        true => Ok(text.to_ascii_lowercase()),
        false => Err("write 1 to 64 hexadecimal digits".into()),
    }
}

impl Filter {
    /// Whether every session is wanted.
    pub(crate) fn takes_all(&self) -> bool {
        let Self { outcome, key, since, until, run } = self;
        outcome.is_empty() && key.is_empty() && since.is_none() && until.is_none() && run.is_none()
    }

    /// Whether this session is wanted.
    pub(crate) fn takes(&self, session: &Session) -> bool {
        let key = session.ep.key.as_deref().unwrap_or_default();
        let is_of_key = |prefix: &String| key.starts_with(prefix.as_str());
        self.takes_outcome(&session.outcome, session.failed)
            && (self.key.is_empty() || self.key.iter().any(is_of_key))
            && self.takes_run(&session.run)
            && self.takes_time(|| session.accepted_at())
    }

    /// Whether these connections are wanted, of which no key is known.
    pub(crate) fn takes_folded(&self, folded: &Folded) -> bool {
        self.takes_outcome(&folded.outcome, false)
            && self.key.is_empty()
            && self.takes_run(&folded.run)
            && self.takes_time(|| time::rfc3339(&folded.t))
    }

    /// Whether sessions of this run may be wanted.
    pub(crate) fn takes_run(&self, run: &str) -> bool {
        self.run.as_deref().is_none_or(|wanted| run.starts_with(wanted))
    }

    fn takes_outcome(&self, outcome: &str, has_failed: bool) -> bool {
        let takes = |choice: &OutcomeChoice| choice.takes(outcome, has_failed);
        self.outcome.is_empty() || self.outcome.iter().any(takes)
    }

    fn takes_time(&self, time: impl FnOnce() -> Option<Ticks>) -> bool {
        if self.since.is_none() && self.until.is_none() {
            return true;
        }
        let is_within = |time| {
            self.since.is_none_or(|since| since <= time) && self.until.is_none_or(|end| time < end)
        };
        time().is_some_and(is_within)
    }
}

/// What comes first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sort {
    /// The lowest number.
    #[default]
    Session,
    /// The earliest.
    Started,
    /// The mlet that ran longest.
    Run,
    /// The most bytes.
    Bytes,
}

impl Sort {
    /// By which sessions come one after another, lowest first.
    fn rank(self, session: &Session) -> u64 {
        match self {
            Self::Session => session.number,
            Self::Started => session.accepted_at().unwrap_or(Ticks::MAX).0,
            // Whole microseconds are as exact as records are.
            Self::Run => session
                .ms
                .run
                .map_or(u64::MAX, |run| (u64::MAX - 1).saturating_sub((run * 1000.0) as u64)),
            Self::Bytes => u64::MAX - session.bytes_relayed(),
        }
    }
}

/// Sessions in their order.
#[derive(Debug, Default)]
pub(crate) struct Chosen(Vec<(u64, u64, Place)>);

impl Chosen {
    /// Looks for the sessions that are wanted.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub(crate) fn find(folder: &Folder, filter: &Filter, sort: Sort) -> Result<Self, Failure> {
        let mut chosen = Self::default();
        folder.scan(|event, place| {
            if let Event::Session(session) = event
                && filter.takes(&session)
            {
                chosen.push(&session, sort, place);
            }
        })?;
        chosen.sort();
        Ok(chosen)
    }

    /// Adds a session that was found there.
    pub(crate) fn push(&mut self, session: &Session, sort: Sort, place: Place) {
        self.0.push((sort.rank(session), session.number, place));
    }

    /// Brings what was added into its order.
    pub(crate) fn sort(&mut self) {
        self.0.sort_unstable_by_key(|(rank, number, place)| (*rank, *number, place.number));
    }

    /// Keeps the first so many.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }

    /// Adds all of these behind the others.
    pub(crate) fn append(&mut self, mut others: Self) {
        self.0.append(&mut others.0);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The numbers of the sessions, in their order.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = u64> {
        self.0.iter().map(|(_, number, _)| *number)
    }

    /// The sessions, each read when its turn comes.
    pub(crate) fn sessions(
        &self,
        folder: &Folder,
    ) -> impl Iterator<Item = Result<Session, Failure>> {
        self.0.iter().map(|(_, _, place)| folder.session_at(*place))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::results::record;

    #[derive(Parser)]
    struct Typed {
        #[command(flatten)]
        filter: Filter,
    }

    fn filter(words: &str) -> Result<Filter, clap::Error> {
        let words = std::iter::once("x").chain(words.split_whitespace());
        Typed::try_parse_from(words).map(|typed| typed.filter)
    }

    fn event(line: &str) -> Event {
        record::read(format!(r#"{{"v":1,"t":"2026-11-23T12:00:00Z",{line}}}"#).as_bytes()).unwrap()
    }

    fn session(members: &str) -> Session {
        match event(&format!(r#""ev":"session.end","run":"7f3a","sid":7,{members}"#)) {
            Event::Session(session) => *session,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_option_takes_away_from_all() {
        let ok = r#""outcome":"ok","ms":{"tls":1},"ep":{"key":"ab12"},"accepted":"2026-11-23T11:00:00.5Z""#;
        let failed = r#""outcome":"mlet_failed","failed":true,"ms":{"tls":1},"ep":{"key":"cd34"}"#;
        let stranger = r#""outcome":"tls_failed""#;
        for (words, expected) in [
            ("", [true, true, true]),
            ("--outcome ok", [true, false, false]),
            ("--outcome failed", [false, true, false]),
            ("--outcome OK,Failed", [true, true, false]),
            ("--outcome ok,tls_failed", [true, false, true]),
            ("--key AB", [true, false, false]),
            ("--key cd34,ab12", [true, true, false]),
            ("--run 7F3", [true, true, true]),
            ("--run 8", [false, false, false]),
            ("--since 2026-11-23", [true, false, false]),
            ("--since 2026-11-23T11:01", [false, false, false]),
            ("--since 2026-11-23T11:00:00.6Z", [false, false, false]),
            ("--until 2026-11-23", [true, false, false]),
            ("--until 2026-11-23T11:00:00.5Z", [false, false, false]),
            ("--outcome failed --key ab", [false, false, false]),
        ] {
            let filter = filter(words).unwrap();
            let taken = [ok, failed, stranger].map(|members| filter.takes(&session(members)));
            assert_eq!(taken, expected, "{words}");
        }
    }

    #[test]
    fn connections_without_records_of_their_own_have_no_key_and_never_count_as_failed() {
        let line = r#""ev":"session.folded","run":"7f3a","outcome":"tls_failed","count":312"#;
        let Event::Folded(folded) = event(line) else { panic!() };
        for (words, expected) in [
            ("", true),
            ("--outcome tls_failed", true),
            ("--outcome failed", false),
            ("--key ab", false),
            ("--run 7f", true),
            ("--since 2026-11-23T12:00:00Z", true),
            ("--until 2026-11-23T12:00:00Z", false),
        ] {
            assert_eq!(filter(words).unwrap().takes_folded(&folded), expected, "{words}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for words in [
            "--outcome okay",
            "--outcome ok,",
            "--key xyz",
            "--key ab,",
            "--run x",
            "--since noon",
            "--until 11:00",
        ] {
            assert!(filter(words).is_err(), "{words}");
        }
    }

    #[test]
    fn the_longest_come_first_and_what_never_ran_last() {
        let ran = |run: &str| session(&format!(r#""outcome":"ok","ms":{{"run":{run}}}"#));
        let mut ranks = ["2.5", "10.25", "null", "0"].map(|run| (Sort::Run.rank(&ran(run)), run));
        ranks.sort_unstable();
        assert_eq!(ranks.map(|(_, run)| run), ["10.25", "2.5", "0", "null"]);
    }
}
