//! Where citations lead (docs/contributing.md "Citations").

use std::collections::HashMap;

use super::{files, root, sources};

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
        if path.ends_with("tests/tidy/citations.rs") || path.starts_with(docs.join("spec")) {
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
