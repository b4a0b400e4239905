//! `pktxpmgr campaign import`: puts the results in managers' folders back into a database that has lost them.
//!
//! Not here: which of several results of an endpoint counts, which the database decides. Invariant: what the campaign has
//! refused is not put back, and what a manager had measured and not reported is.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use ::campaign::administration::{Imported, JournalResult};
use clap::Args;
use packetlab::key::KeyId;
use serde::Deserialize;

use super::named::{Named, failed};
use super::status::print;
use crate::results::failure::Failure;
use crate::results::folder::EVENTS;
use crate::results::lines::Lines;

const EXAMPLES: &str = "\
Examples:
  pktxpmgr campaign import 'postgres://lab@db/lab#eu26' host1/eu26 host2/eu26";

const NOTES: &str = "\
DIR is the folder that a manager was given with --out. Results that the database
has, or has of a later start of the same endpoint, stay as they are. The
campaign must be there (create), and no manager.";

#[derive(Debug, Args)]
#[command(before_help = EXAMPLES, after_help = NOTES)]
pub(super) struct Options {
    #[command(flatten)]
    named: Named,

    /// Folders of its managers
    #[arg(value_name = "DIR", required = true)]
    folders: Vec<PathBuf>,
}

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let campaign = options.named.campaign()?;
    let mut results = BTreeMap::new();
    for folder in &options.folders {
        let events = folder.join(EVENTS);
        let read = File::open(&events)
            .and_then(|file| read(BufReader::new(file), &campaign, &mut results));
        read.map_err(|error| of_events(&events, &error))?;
    }
    let imported = options.named.open()?.import(results.into_values().map(Ok)).map_err(failed)?;
    let Imported { accepted, known } = imported;
    print(&format!("{accepted} results are put back; of {known} the database knew\n"))
}

fn of_events(events: &Path, error: &io::Error) -> Failure {
    Failure::of_path(events, format!("it cannot be read: {error}; name the folder of --out"))
}

/// A session, by its run and its number.
type Place = (String, u64);

/// What is read of a line.
#[derive(Deserialize)]
struct Line {
    ev: String,
    run: String,
    sid: u64,
    outcome: String,
    campaign: Option<String>,
    epoch: Option<u32>,
    ep: Endpoint,
}

#[derive(Deserialize)]
struct Endpoint {
    key: Option<String>,
}

/// Adds the results in these lines, and takes away those that the campaign has refused. What is no such line is passed over.
fn read(
    journal: impl BufRead,
    wanted: &str,
    results: &mut BTreeMap<Place, JournalResult>,
) -> io::Result<()> {
    let mut lines = Lines::new(journal);
    while let Some(line) = lines.next()? {
        let Ok(text) = str::from_utf8(line.text) else { continue };
        let Ok(Line { ev, run, sid, outcome, campaign, epoch, ep }) = serde_json::from_str(text)
        else {
            continue;
        };
        let endpoint = ep.key.as_deref().and_then(KeyId::from_hex);
        let (Some(epoch), Some(endpoint)) = (epoch, endpoint) else { continue };
        if campaign.as_deref() != Some(wanted) {
            continue;
        }
        let place = (run, sid);
        if ev == "session.result" {
            let (endpoint, record) = (endpoint.0, text.to_owned());
            let result = JournalResult { endpoint, epoch, session: sid, outcome, record };
            results.insert(place, result);
        } else if ev == "session.end" && outcome == "duplicate" {
            results.remove(&place);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(ev: &str, sid: u64, outcome: &str, campaign: &str) -> String {
        let key = "ab".repeat(32);
        format!(
            r#"{{"v":1,"ev":"{ev}","run":"7","sid":{sid},"outcome":"{outcome}","campaign":"{campaign}","epoch":2,"ep":{{"key":"{key}"}}}}"#
        )
    }

    #[test]
    fn results_are_read_that_the_campaign_has_not_refused() {
        let lines = [
            r#"{"v":1,"ev":"run.start","run":"7"}"#.to_owned(),
            line("session.result", 1, "ok", "c"),
            line("session.end", 1, "ok", "c"),
            line("session.result", 2, "ok", "c"),
            line("session.end", 2, "duplicate", "c"),
            line("session.result", 3, "mlet_failed", "c"),
            line("session.result", 4, "ok", "other"),
            line("session.end", 5, "killed", "c"),
            "torn".to_owned(),
        ];
        let mut results = BTreeMap::new();
        read(lines.join("\n").as_bytes(), "c", &mut results).unwrap();
        let told: Vec<_> = results
            .values()
            .map(|result| (result.session, &*result.outcome, result.epoch))
            .collect();
        assert_eq!(told, [(1, "ok", 2), (3, "mlet_failed", 2)], "3 was never settled");
        assert_eq!(results[&("7".to_owned(), 1)].record, lines[1]);
    }
}
