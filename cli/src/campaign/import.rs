//! `pktxpmgr campaign import`: puts the results in managers' folders back into a database that has lost them.
//!
//! Not here: which of several results of an endpoint counts, which the database decides. Invariant: what the campaign has
//! refused is not put back, and what a manager had measured and not reported is.

use std::collections::HashSet;
use std::iter;
use std::path::PathBuf;

use ::campaign::administration::{Imported, JournalResult};
use clap::Args;
use packetlab::words::counted;

use super::manager_folder::ManagerFolder;
use super::named::{Named, failed};
use super::status::print;
use crate::results::failure::Failure;

const EXAMPLES: &str = "\
Examples:
  pktxpmgr campaign import 'postgres://lab@db/lab#eu26' host1/eu26 host2/eu26";

const NOTES: &str = "\
DIR is the folder that a manager was given with --out, or one that merge has
written. Results that the database has, or has of a later start of the same
endpoint, stay as they are. The campaign must be there (create --created, if the
database has lost it), and no manager. A folder of another campaign, mlet or
arguments is refused, and then nothing is put back. Lines that are no records
are told and passed over.";

#[derive(Debug, Args)]
#[command(before_help = EXAMPLES, after_help = NOTES)]
pub(super) struct Options {
    #[command(flatten)]
    named: Named,

    /// Folders of its managers
    #[arg(value_name = "DIR", required = true)]
    folders: Vec<PathBuf>,
}

/// A session, by its run and its number.
type Place = (String, u64);

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let campaign = options.named.campaign()?;
    let mut administration = options.named.open()?;
    let origin = administration.origin().map_err(failed)?;
    let folders = options.folders.iter().map(|path| ManagerFolder::open(path, &campaign, &origin));
    let folders = folders.collect::<Result<Vec<_>, _>>()?;
    let refused = refused(&folders)?;
    let results = folders.iter().flat_map(|folder| results_of(folder, &refused));
    let results = results.map(|result| result.map_err(|failure| failure.to_string()));
    let Imported { accepted, known } = administration.import(results).map_err(failed)?;
    let accepted = counted(accepted, "endpoint");
    print(&format!("the results of {accepted} are put back; those of {known} the database had\n"))
}

/// What the campaign has refused. It stands behind the results, of which only one is in memory at a time.
fn refused(folders: &[ManagerFolder]) -> Result<HashSet<Place>, Failure> {
    let mut refused = HashSet::new();
    for folder in folders {
        for line in folder.lines()? {
            let line = line?;
            if line.is_refusal() {
                refused.insert((line.run, line.sid));
            }
        }
    }
    Ok(refused)
}

fn results_of<'a>(
    folder: &'a ManagerFolder,
    refused: &'a HashSet<Place>,
) -> Box<dyn Iterator<Item = Result<JournalResult, Failure>> + 'a> {
    match folder.lines_again() {
        Ok(lines) => Box::new(lines.filter_map(|line| match line {
            Ok(line) => {
                let result = JournalResult { host: folder.host_of(&line.run), ..line.result()? };
                (!refused.contains(&(line.run, line.sid))).then_some(Ok(result))
            }
            Err(failure) => Some(Err(failure)),
        })),
        Err(failure) => Box::new(iter::once(Err(failure))),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::fs;

    use ::campaign::administration::Origin;

    use super::*;

    fn line(ev: &str, run: &str, sid: u64, outcome: &str) -> String {
        let key = "ab".repeat(32);
        format!(
            r#"{{"v":1,"t":"","ev":"{ev}","run":"{run}","sid":{sid},"outcome":"{outcome}","campaign":"c","epoch":2,"ep":{{"key":"{key}"}}}}"#
        )
    }

    /// A folder with these lines, of the runs 7 and 8, of which 8 was of no campaign.
    fn folder(name: &str, lines: &[String]) -> PathBuf {
        let path = std::env::temp_dir().join(format!("import-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        fs::write(path.join("events.jsonl"), lines.join("\n")).unwrap();
        let digest = "00".repeat(32);
        let mlet = format!(r#""mlet":{{"sha256":"{digest}","arguments":["-q"]}}"#);
        let runs = format!(
            r#"{{"v":1,"runs":[{{"run":"7",{mlet},"campaign":{{"name":"c","created":"then"}}}},
                {{"run":"8",{mlet}}}]}}"#
        );
        fs::write(path.join("run.json"), runs).unwrap();
        path
    }

    fn origin() -> Origin {
        Origin { created: "then".into(), mlet_digest: [0; 32], argv: vec!["-q".into()] }
    }

    #[test]
    fn results_are_read_that_the_campaign_has_not_refused() {
        let lines = [
            r#"{"v":1,"ev":"run.start","run":"7"}"#.to_owned(),
            line("session.result", "7", 1, "ok"),
            line("session.end", "7", 1, "ok"),
            line("session.result", "7", 2, "ok"),
            line("session.end", "7", 2, "duplicate"),
            line("session.result", "7", 3, "mlet_failed"),
            line("session.result", "8", 4, "ok"),
            line("session.end", "7", 5, "killed"),
            "torn".to_owned(),
        ];
        let path = folder("refused", &lines);
        let folders = [ManagerFolder::open(&path, "c", &origin()).unwrap()];
        let refused = refused(&folders).unwrap();
        let results = results_of(&folders[0], &refused).map(Result::unwrap);
        let told: Vec<_> =
            results.map(|result| (result.session, result.epoch, result.record)).collect();
        let expected = [(1, 2, lines[1].clone()), (3, 2, lines[5].clone())];
        assert_eq!(told, expected, "3 was never settled, and 4 is of a run of no campaign");
        for (name, origin, why) in [
            ("d", origin(), "of the campaign c"),
            ("c", Origin { created: "now".into(), ..origin() }, "--created then"),
            ("c", Origin { mlet_digest: [1; 32], ..origin() }, "of another mlet, whose SHA-256"),
            (
                "c",
                Origin { argv: Vec::new(), ..origin() },
                "with other arguments, which are [\"-q\"] and not []",
            ),
        ] {
            let error = ManagerFolder::open(&path, name, &origin).err().unwrap().to_string();
            assert!(error.contains(why), "{why}: {error}");
        }
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn what_is_no_line_of_a_run_is_passed_over_and_told_with_its_number() {
        thread_local!(static TOLD: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) });
        let whole = |sid| line("session.result", "7", sid, "ok");
        let with = |more: &str| whole(9).replace("\"ep\"", &format!("{more},\"ep\""));
        let lines = [
            whole(1),
            "torn".to_owned(),
            r#"{"v":1,"ev":"#.to_owned(),
            with(r#""reason":"\ud800""#),
            with(r#""more":1e400"#),
            with(r#""ms":5"#),
            line("session.result", "5", 9, "ok"),
            whole(9).replace(r#""epoch":2"#, r#""epoch":3000000000"#),
            whole(9).replace(r#""v":1"#, r#""v":2"#),
            r#"{"v":1,"t":"","ev":"of.tomorrow","run":"7","sid":"one"}"#.to_owned(),
            whole(2).replace(r#""t":"""#, r#""t":"2026-11-30T23:00:00.5+23:00""#),
            whole(3)[..40].to_owned(),
        ];
        let path = folder("faults", &lines);
        let folder = ManagerFolder::open(&path, "c", &origin()).unwrap();
        let told = |failure: Failure| TOLD.with_borrow_mut(|told| told.push(failure.to_string()));
        let read = folder.lines_telling(told).unwrap().map(|line| line.unwrap().result().unwrap());
        let read = read.map(|result| (result.session, result.at)).collect::<Vec<_>>();
        let at = "2026-11-30T00:00:00.500000Z".to_owned();
        assert_eq!(read, [(1, None), (2, Some(at))], "in the only zone that the database is told");
        let place = format!("{}/events.jsonl: line ", path.display());
        let told = TOLD.take();
        let told: Vec<_> = told.iter().map(|told| told.strip_prefix(&place).unwrap()).collect();
        assert_eq!(
            told,
            [
                "2 is passed over: it is no JSON object",
                "3 is passed over: it is no JSON",
                "4 is passed over: its JSON cannot be read: unexpected end of hex escape",
                "5 is passed over: its JSON cannot be read: number out of range",
                "6 is passed over: it is no record: invalid type: integer `5`, expected an object",
                "7 is passed over: it is of a run 5, which run.json does not name",
                "8 is passed over: it is no result of a campaign: endpoint, claim or outcome is not in it",
                "9 is passed over: it is of version 2, and 1 is what is known here",
                "12 is passed over: it has no end yet, or was torn when its manager was killed",
            ]
        );
        assert_eq!(folder.lines_again().unwrap().count(), 2);
        fs::write(path.join("events.jsonl"), "torn\nas well\n").unwrap();
        let last = folder.lines_again().unwrap().last().unwrap().err().unwrap();
        assert!(last.to_string().ends_with("no line of it is a record of pktxpmgr"), "{last}");
        fs::remove_dir_all(path).unwrap();
    }
}
