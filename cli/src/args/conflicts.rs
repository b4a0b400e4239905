//! Options that do not go together, or not alone: no option silently cancels another.
//!
//! Not here: what the value of an option may be. Invariant: whoever is refused is told both options and why; a test goes
//! through all pairs (`cli/tests/common/option_pairs.rs`).

use std::os::unix::ffi::OsStrExt;
use std::path::{PathBuf, absolute};

use clap::ArgMatches;
use clap::parser::ValueSource;
use engine::config::{Halt, HaltOn};
use packetlab::escape::Escaped;

/// Options that exclude each other, whatever their values, and why.
const EXCLUSIVE: [(&str, &str, &str); 11] = [
    ("single", "mlet-timeout", "the one mlet of all sessions may run as long as the run does"),
    ("single", "joblog", "it has a line for each mlet, and one mlet serves all sessions"),
    ("single", "stream", "its one mlet has two files in any case"),
    ("single", "tag", "lines of the one mlet belong to no single session"),
    ("campaign", "count", "for how many endpoints it is was said when it was created"),
    (
        "campaign",
        "resume",
        "who is measured is known to all its managers; name the folder with --out",
    ),
    ("quiet", "verbose", "one logs less and the other more"),
    ("quiet", "trace", "messages are logged as information, which is left out"),
    ("quiet", "trace-session", "messages are logged as information, which is left out"),
    ("trace", "trace-session", "one logs the messages of all sessions and the other those of one"),
    ("check", "dry-run", "what would be done is told by --dry-run, which checks as well"),
];

/// Options that mean nothing without one of others, and why.
const DEPENDENT: [(&str, &[&str], &str); 15] = [
    ("keep", &["out", "resume"], "it says whose output stays in a results folder"),
    ("note", &["out", "resume"], "it is kept in a results folder"),
    ("stream", &["out", "resume"], "it says how output lies in a results folder"),
    ("max-output", &["out", "resume"], "it says how much output a results folder keeps"),
    ("resume-anyway", &["resume"], "it is about the run that is gone on with"),
    ("campaign", &["out"], "a result is in a folder of its manager before the campaign has it"),
    ("campaign-password-file", &["campaign"], "it is for the campaign's database"),
    ("campaign-root", &["campaign"], "it is for the campaign's database"),
    ("campaign-cert", &["campaign"], "it is for the campaign's database"),
    ("campaign-key", &["campaign"], "it is for the campaign's database"),
    ("campaign-cert", &["campaign-key"], "the key proves whose the certificate is"),
    ("campaign-key", &["campaign-cert"], "it proves whose the certificate is"),
    ("fence", &["campaign"], "it is about the lease that the campaign gives"),
    ("single-facts", &["single"], "it is what the one mlet of all sessions is told"),
    ("check-mlet", &["check"], "no other run asks a mlet about its arguments"),
];

/// Files of a results folder that a run writes to.
const OWN_FILES: [&str; 2] = ["events.jsonl", "run.json"];

/// Why these options are not taken, if they are not; `count` is the number of sessions that `-n` gives. What has its value
/// from elsewhere than the command line is not given.
pub(super) fn refusal(matches: &ArgMatches, count: Option<u64>) -> Option<String> {
    let given = Given(matches);
    let exclusive = EXCLUSIVE.iter().find(|(one, other, _)| given.has(one) && given.has(other));
    let dependent = DEPENDENT
        .iter()
        .find(|(one, others, _)| given.has(one) && !others.iter().any(|other| given.has(other)));
    exclusive
        .map(|(one, other, why)| apart(&name(one), &name(other), why))
        .or_else(|| dependent.map(|(one, others, why)| alone(&name(one), others, why)))
        .or_else(|| of_outputs(given))
        .or_else(|| of_files(given))
        .or_else(|| of_endpoints(given))
        .or_else(|| of_counts(given, count))
}

/// What was given on the command line, by the long names of options.
#[derive(Clone, Copy)]
struct Given<'a>(&'a ArgMatches);

impl Given<'_> {
    fn has(self, option: &str) -> bool {
        self.0.value_source(&id(option)) == Some(ValueSource::CommandLine)
    }

    /// It has this value.
    fn is(self, option: &str, value: &str) -> bool {
        let raw = self.0.get_raw(&id(option)).and_then(Iterator::last);
        self.has(option) && raw.is_some_and(|raw| raw == value)
    }

    /// The whole path that it names: of the same file the same, unless links lead to it.
    fn path(self, option: &str) -> Option<PathBuf> {
        let path = self.0.get_one::<PathBuf>(&id(option))?;
        Some(absolute(path).unwrap_or_else(|_| path.clone()))
    }

    fn has_results(self) -> bool {
        self.has("out") || self.has("resume")
    }
}

/// Its names as people type it.
fn name(option: &str) -> String {
    let short = match option {
        "single" => "-s",
        "quiet" => "-q",
        "verbose" => "-v",
        _ => return format!("--{option}"),
    };
    format!("{short} (--{option})")
}

/// Its name in clap.
fn id(option: &str) -> String {
    option.replace('-', "_")
}

fn apart(one: &str, other: &str, why: &str) -> String {
    format!("{one} and {other} do not go together: {why}")
}

fn alone(one: &str, others: &[&str], why: &str) -> String {
    format!("{one} needs --{}: {why}", others.join(" or --"))
}

/// What is to be written, and is not there.
fn of_outputs(given: Given<'_>) -> Option<String> {
    for (option, shown) in [("events", "--events -"), ("joblog", "--joblog -")] {
        if given.is(option, "-") && !given.has_results() {
            let why = "standard output is the mlets', unless their output is kept in a folder";
            return Some(alone(shown, &["out", "resume"], why));
        }
        if given.is(option, "-") && given.has("tag") {
            return Some(apart(shown, "--tag", "both would go to standard output; name a file"));
        }
    }
    if given.is("events", "-") && given.is("joblog", "-") {
        let why = "both would go to standard output; name a file for one";
        return Some(apart("--events -", "--joblog -", why));
    }
    let of_kept = ["stream", "max-output"].into_iter().find(|option| given.has(option));
    if let Some(option) = of_kept
        && given.is("keep", "none")
    {
        return Some(apart("--keep none", &format!("--{option}"), "no output is kept"));
    }
    if given.has("latency") && given.0.get_one("latency_sample") == Some(&0_u32) {
        let why = "nothing is timed, so there is nothing to write";
        return Some(apart("--latency", "--latency-sample 0", why));
    }
    if given.has("single") && given.is("mlet-io", "pipe") {
        let why = "the one mlet of all sessions is handed a socket for each";
        return Some(apart(&name("single"), "--mlet-io pipe", why));
    }
    if given.has("single") && given.is("keep", "failed") {
        let why = "all sessions have one output, of which all or none is kept";
        return Some(apart(&name("single"), "--keep failed", why));
    }
    None
}

/// One file or folder for two that are written.
fn of_files(given: Given<'_>) -> Option<String> {
    let (out, resume) = (given.path("out"), given.path("resume"));
    if out.is_some() && resume.is_some() && out != resume {
        let why = "--resume writes to its own folder; leave --out out, or name the same one";
        return Some(apart("--out", "--resume", why));
    }
    let folder = if resume.is_some() { "resume" } else { "out" };
    let results = resume.or(out);
    let own = results.iter().flat_map(|results| OWN_FILES.map(|name| (folder, results.join(name))));
    // --capture has a folder that is its own as well.
    let own = own.chain(results.iter().map(|results| (folder, results.clone())));
    let named = ["events", "joblog", "latency", "capture", "pcap"].into_iter();
    let named =
        named.filter(|option| !given.is(option, "-") || !["events", "joblog"].contains(option));
    let named = named.filter_map(|option| Some((option, given.path(option)?)));
    // What is no file, such as /dev/null, takes any number of writers.
    let files = own.chain(named).filter(|(_, path)| !path.starts_with("/dev"));
    let files: Vec<_> = files.collect();
    let twice = files.iter().enumerate().find_map(|(index, (option, path))| {
        let mut before = files.iter().take(index);
        before.find(|(_, earlier)| earlier == path).map(|(earlier, _)| (*earlier, *option, path))
    });
    twice.map(|(one, other, path)| {
        let shown = Escaped(path.as_os_str().as_bytes());
        let why = format!("both would write to {shown}; name another place for one of them");
        apart(&format!("--{one}"), &format!("--{other}"), &why)
    })
}

/// Nobody would be measured.
fn of_endpoints(given: Given<'_>) -> Option<String> {
    let only = given.path("only")?;
    if given.path("skip").as_ref() == Some(&only) {
        return Some(apart("--only", "--skip", "they name the same endpoints, so none is left"));
    }
    if given.path("resume") == Some(only) {
        let why = "those that were ok in that folder are not measured again, so none is left";
        return Some(apart("--only", "--resume", why));
    }
    None
}

/// More `ok` sessions are asked for than there can be.
fn of_counts(given: Given<'_>, count: Option<u64>) -> Option<String> {
    let enough = match given.0.get_one("halt") {
        Some(Halt { on: HaltOn::Ok(enough), .. }) => Some(*enough),
        _ => None,
    };
    let require = given.0.get_one::<u64>("require").copied();
    let bounds = [("-n (--count)", count), ("--halt ok=N", enough)];
    let wishes = [("--halt ok=N", enough), ("--require", require)];
    bounds.iter().find_map(|(bounding, bound)| {
        let bound = (*bound)?;
        let (wishing, wish) = wishes
            .iter()
            .find_map(|(option, wish)| Some((option, wish.filter(|n| *n > bound)?)))?;
        let why = format!("the run ends at {bound}, before there can be {wish} that are ok");
        Some(apart(bounding, wishing, &why))
    })
}
