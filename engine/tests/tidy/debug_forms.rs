//! That no user is shown a form for programmers.

use super::{code_lines, root, sources};

/// Where a Debug form stands in the code of a program, and why no user ever sees it.
const DEBUG_FORMS: [(&str, &str, &str); 3] = [
    ("engine/packetlab/src/tls/alert.rs", "words(&format!(\"{named:?}\"))", "made into words"),
    ("engine/src/shard/turn.rs", "unreachable!", "a fault of ours, told to whoever mends it"),
    ("engine/packetlab/src/program.rs", "\"Program({:?}", "the Debug form of a program itself"),
];

/// Forms for programmers: `{:?}` of a format string, `?error` of a log line, an error that leaves `main`.
/// Tests may use them.
#[test]
fn no_program_prints_debug_forms() {
    let mut checked = 0;
    for folder in [
        "engine/packetlab/src",
        "engine/guards/src",
        "engine/home/src",
        "engine/campaign/src",
        "engine/command-line/src",
        "engine/monitor-module/src",
        "engine/src",
        "cli/src",
        "loadtest/src",
        "loadtest/hosts/src",
        "loadtest/hosts/monitors/src",
        "loadtest/mlet/src",
        "loadtest/mlet-tls/src",
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
