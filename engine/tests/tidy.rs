//! Reads the sources: the walls between the folders, what every file owes its reader, and where citations lead.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a folder must not name.
const WALLS: [(&str, &[&str]); 11] = [
    (
        "engine/packetlab/src",
        &[
            "tokio",
            "nix::",
            "socket2",
            "io_uring",
            "std::net::Tcp",
            "std::fs",
            "std::thread",
            "engine::",
        ],
    ),
    ("engine/src", &["rustls::"]),
    (
        "engine/src/proto",
        &[
            "crate::shard",
            "crate::control",
            "crate::sys",
            "tokio",
            "nix::",
            "socket2",
            "io_uring::",
        ],
    ),
    (
        "engine/src/records",
        &[
            "crate::shard",
            "crate::control",
            "crate::mailbox",
            "crate::driver",
            "tokio",
            "use nix::",
            "socket2",
            "io_uring::",
            "std::fs",
            "std::thread",
        ],
    ),
    (
        "engine/src/shard",
        &["crate::control", "crate::sys", "tokio", "io_uring::", "epoll", "socket2"],
    ),
    (
        "engine/src/driver",
        &["crate::proto", "crate::records", "crate::shard", "crate::control", "tokio"],
    ),
    ("engine/src/control", &["crate::shard", "crate::driver::Uring", "crate::driver::Epoll"]),
    (
        "engine/src/sys",
        &["crate::proto", "crate::records", "crate::shard", "crate::control", "crate::driver"],
    ),
    ("engine/home/src", &["tokio", "engine::", "rustls::"]),
    ("engine/command-line/src", &["tokio", "engine::", "packetlab::", "rustls::"]),
    ("loadtest/mlet/src", &["tokio", "engine::", "hosts::", "rustls"]),
];

/// The one file of such a folder that may name this, which the others must not.
const DOORS: [(&str, &str); 2] = [
    ("engine/src/records/journal.rs", "std::fs"),
    ("engine/src/records/journal.rs", "std::thread"),
];

/// Traces of work that is not done. Joined here so that this file does not find itself.
const LEFTOVERS: [&str; 5] = [
    concat!("to", "do!("),
    concat!("unimple", "mented!("),
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
];

/// Where a Debug form stands in the code of a program, and why no user ever sees it.
const DEBUG_FORMS: [(&str, &str, &str); 3] = [
    ("engine/packetlab/src/tls/alert.rs", "words(&format!(\"{named:?}\"))", "made into words"),
    ("engine/src/shard/mod.rs", "unreachable!", "a fault of ours, told to whoever mends it"),
    ("engine/packetlab/src/program.rs", "\"Program({:?}", "the Debug form of a program itself"),
];

fn root() -> PathBuf {
    let engine = Path::new(env!("CARGO_MANIFEST_DIR"));
    engine.parent().expect("the engine lies in the workspace").to_owned()
}

fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    files(folder, "rs")
}

fn files(folder: &Path, ending: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else { return found };
    for path in entries.map(|entry| entry.expect("a readable folder").path()) {
        if path.is_dir() && !path.ends_with("target") {
            found.extend(files(&path, ending));
        } else if path.extension().is_some_and(|extension| extension == ending) {
            let text = fs::read_to_string(&path).expect("a readable text");
            found.push((path, text));
        }
    }
    found
}

fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_code = |(_, line): &(usize, &str)| !line.trim_start().starts_with("//");
    text.lines().enumerate().map(|(index, line)| (index + 1, line)).filter(is_code)
}

#[test]
fn folders_import_in_one_direction_only() {
    let mut checked = 0;
    for (folder, forbidden) in WALLS {
        for (path, text) in sources(&root().join(folder)) {
            checked += 1;
            let is_test = path.to_string_lossy().contains("tests");
            for (number, line) in code_lines(&text).take_while(|(_, line)| *line != "mod tests {") {
                for name in forbidden {
                    let is_door =
                        DOORS.iter().any(|(file, door)| door == name && path.ends_with(file));
                    assert!(
                        is_test || is_door || !line.contains(name),
                        "{}:{number} names {name}, which {folder} must not",
                        path.display()
                    );
                }
            }
        }
    }
    assert!(checked > 30, "only {checked} files found");
}

/// The crates that the library or program of this package is built from.
fn crates_of(package: &str, options: &[&str]) -> Vec<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let words = ["tree", "--locked", "--offline", "-e", "normal,build", "--prefix", "none", "-p"];
    let ended = Command::new(cargo)
        .args(words)
        .arg(package)
        .args(options)
        .current_dir(root())
        .output()
        .expect("cargo runs this test, and is there");
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let tree = String::from_utf8_lossy(&ended.stdout);
    let names = tree.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned);
    names.collect::<BTreeSet<_>>().into_iter().collect()
}

#[test]
fn a_mlet_is_built_from_few_crates_and_without_tls_or_an_async_runtime() {
    let library = ["bitflags", "linux-raw-sys", "mlet", "packetlab", "rustix"];
    assert_eq!(crates_of("mlet", &["--no-default-features"]), library);
    let examples = crates_of("mlet", &[]);
    assert!(examples.len() < 50, "{} crates: {examples:?}", examples.len());
    for heavy in ["aws-lc-rs", "aws-lc-sys", "rustls", "tokio", "x509-parser", "engine"] {
        assert!(!examples.iter().any(|name| name == heavy), "a mlet depends on {heavy}");
    }
    let pktfleet = crates_of("loadtest", &[]);
    assert!(pktfleet.iter().any(|name| name == "aws-lc-sys"), "it would be found: {pktfleet:?}");
}

#[test]
fn every_file_says_what_it_is_and_nothing_is_left_over() {
    let mut checked = 0;
    for member in ["engine", "cli", "loadtest", "bench"] {
        for (path, text) in sources(&root().join(member)) {
            checked += 1;
            let shown = path.display();
            assert!(
                text.starts_with("//!") || text.starts_with("#!"),
                "{shown} does not begin with //!"
            );
            for leftover in LEFTOVERS {
                assert!(!text.contains(leftover), "{shown} holds {leftover}");
            }
        }
    }
    assert!(checked > 60, "only {checked} files found");
}

#[test]
fn unsafe_code_lives_in_sys_and_the_ring_alone_and_gives_its_reason() {
    let rooms = ["engine/src/sys", "engine/src/driver/uring.rs"].map(|room| root().join(room));
    let mut reasons = 0;
    for member in ["engine", "cli", "loadtest", "bench"] {
        for (path, text) in sources(&root().join(member)) {
            let opens = |line: &str| line.contains(concat!("unsafe", " {"));
            for (number, _) in code_lines(&text).filter(|(_, line)| opens(line)) {
                let is_allowed = rooms.iter().any(|room| path.starts_with(room));
                assert!(is_allowed, "{}:{number} is unsafe", path.display());
                let before = text.lines().take(number - 1).collect::<Vec<_>>();
                assert!(
                    before.iter().rev().take(4).any(|line| line.contains("SAFETY:")),
                    "{}:{number} gives no SAFETY reason",
                    path.display()
                );
                reasons += 1;
            }
        }
    }
    assert!(reasons > 5, "only {reasons} unsafe blocks found");
}

/// Forms for programmers: `{:?}` of a format string, `?error` of a log line, an error that leaves `main`.
/// Tests may use them.
#[test]
fn no_program_prints_debug_forms() {
    let mut checked = 0;
    for folder in [
        "engine/packetlab/src",
        "engine/home/src",
        "engine/command-line/src",
        "engine/src",
        "cli/src",
        "loadtest/src",
        "loadtest/hosts/src",
        "loadtest/mlet/src",
        "bench/src",
    ] {
        for (path, text) in sources(&root().join(folder)) {
            let shown =
                path.strip_prefix(root()).expect("within the workspace").display().to_string();
            if shown.contains("/tests/") || shown.ends_with("/tests.rs") {
                continue;
            }
            checked += 1;
            let allowed = |line: &str| {
                DEBUG_FORMS.iter().any(|(file, part, _)| *file == shown && line.contains(part))
            };
            for (number, line) in code_lines(&text).take_while(|(_, line)| *line != "mod tests {") {
                assert!(
                    !is_debug_form(line) || allowed(line),
                    "{shown}:{number} shows a Debug form: {line}"
                );
            }
        }
    }
    assert!(checked > 60, "only {checked} files found");
}

fn is_debug_form(line: &str) -> bool {
    let is_format = |(at, _): (usize, &str)| {
        let braces = line.get(..at).unwrap_or_default().rsplit('{').next().unwrap_or_default();
        line.contains('{') && braces.contains(':') && !braces.contains('}')
    };
    let formats = line.match_indices("?}").any(is_format) || line.contains("dbg!(");
    // In code a question mark stands behind something; in front of a name it is the sigil of tracing.
    let is_sigil = |(at, _): (usize, &str)| {
        let before = line.get(..at).and_then(|text| text.chars().next_back());
        let behind = line.get(at + 1..).and_then(|text| text.chars().next());
        before.is_none_or(|c| "(, =".contains(c)) && behind.is_some_and(|c| c.is_ascii_lowercase())
    };
    formats || line.match_indices('?').any(is_sigil) || line.contains("fn main() -> Result")
}

#[test]
fn debug_forms_are_known_from_other_code() {
    for line in [
        r#"write!(f, "failed: {error:?}")"#,
        r#"println!("{:#?}", x);"#,
        r#"println!("{x:>8?} {:02x?}", y);"#,
        "tracing::warn!(?error, name)",
        "debug!(cause = ?error.kind());",
        "fn main() -> Result<(), Error> {",
    ] {
        assert!(is_debug_form(line), "{line}");
    }
    for line in ["let x = f()?;", "where T: ?Sized,", r#"say("what? {name}")"#, "a?.b?", "x? y"] {
        assert!(!is_debug_form(line), "{line}");
    }
}

/// docs/contributing.md "Citations". The specification itself is left out: it cites what its authors read.
#[test]
fn every_citation_names_a_page_and_a_heading_that_is_there() {
    let docs = root().join("docs");
    let pages = files(&docs, "md").into_iter().map(|(path, text)| {
        let name = path.strip_prefix(&docs).expect("below docs").display().to_string();
        (name, headings(&text))
    });
    let pages = pages.collect::<HashMap<_, _>>();
    let members = ["engine", "cli", "loadtest", "bench"];
    let texts = members.into_iter().flat_map(|member| sources(&root().join(member)));
    let mut checked = 0;
    for (path, text) in texts.chain(files(&docs, "md")) {
        // Below, citations are wrong on purpose.
        if path.ends_with("tests/tidy.rs") || path.starts_with(docs.join("spec")) {
            continue;
        }
        for citation in citations(&text) {
            checked += 1;
            assert_eq!(fault_of(&citation, &pages), None, "{}", path.display());
        }
    }
    assert!(checked > 200, "only {checked} citations found");
}

/// What may be cited of a page: the numbers of its sections, and its headings as they are read.
fn headings(page: &str) -> Vec<String> {
    let lines = page.lines().filter(|line| line.starts_with('#'));
    let headings = lines.map(|line| line.trim_start_matches('#').trim().replace('`', ""));
    let number = |heading: &str| {
        let first = heading.split(' ').next().unwrap_or_default().trim_end_matches('.').to_owned();
        first.starts_with(|c: char| c.is_ascii_digit()).then_some(first)
    };
    headings.flat_map(|heading| number(&heading).into_iter().chain([heading])).collect()
}

/// A page as it is named, and the place in it if one is.
type Citation = (String, Option<String>);

/// Every page that a text names with a place, or by a path from docs on. A line may end within a citation.
fn citations(text: &str) -> Vec<Citation> {
    let words = text.lines().map(|line| line.trim().trim_start_matches(['/', '!']).trim());
    let text = words.collect::<Vec<_>>().join(" ");
    let mut found = Vec::new();
    for (at, ending) in text.match_indices(".md") {
        let (before, behind) = (&text[..at], &text[at + ending.len()..]);
        let is_path = |c: char| c.is_ascii_alphanumeric() || "/_-".contains(c);
        let page = format!("{}.md", before.rsplit(|c| !is_path(c)).next().unwrap_or_default());
        let places = places(behind);
        if places.is_empty() && (page.starts_with("docs/") || page.starts_with("spec/")) {
            found.push((page, None));
        } else {
            found.extend(places.into_iter().map(|place| (page.clone(), Some(place))));
        }
    }
    found
}

/// The heading in quotation marks, or the numbers as far as they go on (`1.3, 1.4`; `4.5 to 4.7`), behind a page.
fn places(behind: &str) -> Vec<String> {
    let Some(behind) = behind.strip_prefix(' ') else { return Vec::new() };
    if let Some((heading, _)) = behind.strip_prefix('"').and_then(|rest| rest.split_once('"')) {
        return vec![heading.to_owned()];
    }
    let mut places = Vec::new();
    for word in behind.split(' ') {
        let number = word.trim_end_matches(|c: char| !c.is_ascii_digit());
        let is_number = number.starts_with(|c: char| c.is_ascii_digit())
            && number.chars().all(|c| c.is_ascii_digit() || c == '.');
        if is_number {
            places.push(number.to_owned());
        }
        let goes_on = is_number && ["", ","].contains(&&word[number.len()..]);
        if !goes_on && !["to", "and"].contains(&word) {
            break;
        }
    }
    places
}

fn fault_of((page, place): &Citation, pages: &HashMap<String, Vec<String>>) -> Option<String> {
    let Some(headings) = pages.get(page.trim_start_matches("docs/")) else {
        return Some(format!("{page} is not below docs"));
    };
    let place = place.as_ref().filter(|place| !headings.contains(place))?;
    Some(format!("{page} has no section or heading {place}"))
}

#[test]
fn wrong_citations_are_known_from_right_ones() {
    let page = "# 1. Messages\n## 1.4 Payloads [x.c: f]\n## 1.5 Lists\n## Counting: `-n`\n";
    let pages = HashMap::from([("spec/a.md".to_owned(), headings(page))]);
    for (text, faults) in [
        ("/// As said (spec/a.md 1.4, 1.5, and the mlet).", &[][..]),
        ("as docs/spec/a.md 1.4 to 1.5, step 9, has it", &[]),
        ("see spec/a.md \"Counting: -n\", [a.md](x/a.md) and CHANGES.md", &[]),
        ("/// (spec/a.md\n    /// 1, 1.9). 7 more", &["spec/a.md has no section or heading 1.9"]),
        ("// spec/a.md 1.4 and 1.6)", &["spec/a.md has no section or heading 1.6"]),
        ("`spec/a.md 2`", &["spec/a.md has no section or heading 2"]),
        ("spec/a.md \"Counting\"", &["spec/a.md has no section or heading Counting"]),
        ("(a.md 1.4)", &["a.md is not below docs"]),
        ("docs/b.md says so", &["docs/b.md is not below docs"]),
    ] {
        let found = citations(text);
        let found = found.iter().filter_map(|citation| fault_of(citation, &pages));
        assert_eq!(found.collect::<Vec<_>>(), faults, "{text}");
    }
}
