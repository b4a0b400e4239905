//! Reads the sources: in no crate of the workspace do modules import from one another in a circle, so that each can be
//! read and changed with those below it alone.
//!
//! A module is a file, and imports whatever its paths name: in `use` or anywhere else, from its parent or from its
//! children. Tests do not count. Which folder may import which at all is said in `tidy/walls.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Files by their paths from the workspace's root on.
type Files = BTreeMap<PathBuf, String>;

/// For each file, those that it imports from.
type Graph = BTreeMap<PathBuf, BTreeSet<PathBuf>>;

#[test]
fn modules_import_in_no_circle() {
    let engine = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = engine.parent().expect("the engine lies in the workspace");
    let mut files = Files::new();
    for member in ["engine", "cli", "loadtest", "bench"] {
        collect(root, &root.join(member), &mut files);
    }
    let graph = graph(&files);
    assert!(graph.len() > 200, "only {} files found", graph.len());
    assert!(graph.values().map(BTreeSet::len).sum::<usize>() > 300, "too few imports found");
    let told =
        circles(&graph).iter().map(|circle| told(circle, &graph)).collect::<Vec<_>>().join("\n\n");
    assert!(told.is_empty(), "modules that import from one another:\n{told}");
}

fn collect(root: &Path, folder: &Path, files: &mut Files) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() && !path.ends_with("target") {
            collect(root, &path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root).expect("below the root").to_owned();
            files.insert(name, fs::read_to_string(&path).expect("a readable text"));
        }
    }
}

fn graph(files: &Files) -> Graph {
    let is_source = |path: &Path| {
        let is_test = |part: &str| part == "tests" || part == "tests.rs";
        let parts = || path.iter().filter_map(|part| part.to_str());
        parts().any(|part| part == "src") && !parts().any(is_test)
    };
    let sources = files.iter().filter(|(path, _)| is_source(path));
    let imports = sources.map(|(path, text)| {
        let modules = paths(&without_tests(text)).into_iter();
        let modules = modules.filter_map(|names| module(files, path, &names));
        (path.clone(), modules.filter(|module| module != path).collect())
    });
    imports.collect()
}

/// The code of a file, without comments, items for tests, and rooms that a visibility names. Relies on the lines of
/// rustfmt.
fn without_tests(text: &str) -> String {
    let mut code = String::new();
    // How far the item is indented that is left out.
    let mut left_out = None;
    for line in text.lines() {
        let trimmed = line.trim();
        let indent = line.len() - line.trim_start().len();
        if let Some(of_item) = left_out {
            let is_end = indent == of_item && trimmed.ends_with(['}', ';', ',']);
            left_out = left_out.filter(|_| !is_end);
        } else if trimmed.starts_with("#[cfg(test)]") {
            left_out = Some(indent);
        } else if !trimmed.starts_with("//") {
            code.push_str(line.split(" // ").next().unwrap_or_default());
            code.push('\n');
        }
    }
    let parts = code.split("pub(in ").enumerate();
    let visible = |(index, part): (usize, &str)| match part.split_once(')') {
        Some((_, behind)) if index > 0 => behind.to_owned(),
        _ => part.to_owned(),
    };
    parts.map(visible).collect()
}

/// Every path of more than one name, those of `use` written out.
fn paths(code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut rest = String::new();
    for statement in code.split_inclusive(';') {
        let start = statement.rfind("use ").filter(|at| {
            let before = statement[..*at].trim_end();
            before.is_empty() || before.ends_with(['}', '{', ')', ']']) || before.ends_with("pub")
        });
        let (before, tree) = statement.split_at(start.unwrap_or(statement.len()));
        rest.push_str(before);
        if let Some(tree) = tree.strip_prefix("use ") {
            write_out(tree.trim_end_matches(';'), &[], &mut found);
        }
    }
    let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let words = rest.split(|c| !is_path(c)).filter(|word| word.contains("::"));
    found.extend(words.map(|word| word.split("::").map(str::to_owned).collect()));
    found
}

/// What a tree of `use` names, below what stands before it.
fn write_out(tree: &str, above: &[String], found: &mut Vec<Vec<String>>) {
    let mut depth = 0;
    let parts = tree.split(|c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    });
    for part in parts.map(str::trim).filter(|part| !part.is_empty()) {
        let (path, inner) = part.split_once('{').unwrap_or((part, ""));
        let path = path.split(" as ").next().unwrap_or_default();
        let names = path.split("::").map(str::trim).filter(|name| !name.is_empty());
        let names = above.iter().cloned().chain(names.map(str::to_owned)).collect::<Vec<_>>();
        match inner.rsplit_once('}') {
            Some((inner, _)) => write_out(inner, &names, found),
            None => found.push(names),
        }
    }
}

/// The file of the module that a path in `from` leads into, if that is one of the same crate.
fn module(files: &Files, from: &Path, names: &[String]) -> Option<PathBuf> {
    let mut names = names.iter().map(String::as_str).peekable();
    let mut folder = folder_of(from);
    match names.peek().copied()? {
        "crate" => {
            names.next();
            let is_root = |folder: &&Path| root_in(files, folder).is_some();
            folder = from.ancestors().skip(1).find(is_root)?.to_owned();
        }
        "self" | "super" => {
            while let Some(name) = names.next_if(|name| ["self", "super"].contains(name)) {
                if name == "super" {
                    folder.pop();
                }
            }
        }
        child => _ = file_of(files, &folder, child)?,
    }
    let mut file = head_of(files, &folder)?;
    while let Some(next) = names.next().and_then(|name| file_of(files, &folder, name)) {
        folder = folder_of(&next);
        file = next;
    }
    Some(file)
}

/// Where the children of a module are.
fn folder_of(file: &Path) -> PathBuf {
    match ["mod.rs", "main.rs", "lib.rs"].iter().any(|head| file.ends_with(head)) {
        true => file.parent().unwrap_or_else(|| Path::new("")).to_owned(),
        false => file.with_extension(""),
    }
}

fn root_in(files: &Files, folder: &Path) -> Option<PathBuf> {
    ["main.rs", "lib.rs"].map(|name| folder.join(name)).into_iter().find(|p| files.contains_key(p))
}

/// The file of the module whose children are in this folder.
fn head_of(files: &Files, folder: &Path) -> Option<PathBuf> {
    let beside = [folder.join("mod.rs"), folder.with_extension("rs")];
    beside.into_iter().find(|path| files.contains_key(path)).or_else(|| root_in(files, folder))
}

/// The file of a child in this folder.
fn file_of(files: &Files, folder: &Path, name: &str) -> Option<PathBuf> {
    let places = [folder.join(format!("{name}.rs")), folder.join(name).join("mod.rs")];
    places.into_iter().find(|path| files.contains_key(path))
}

/// Sets of files of which each leads to all others.
fn circles(graph: &Graph) -> Vec<BTreeSet<PathBuf>> {
    let reached = |from: &PathBuf| {
        let (mut reached, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(file) = next.pop() {
            let imported = graph.get(file).into_iter().flatten();
            next.extend(imported.filter(|file| reached.insert((*file).clone())));
        }
        reached
    };
    let reached = graph.keys().map(|file| (file, reached(file))).collect::<BTreeMap<_, _>>();
    let leads =
        |from: &PathBuf, to: &PathBuf| reached.get(from).is_some_and(|all| all.contains(to));
    let mut circles = graph
        .keys()
        .filter(|file| leads(file, file))
        .map(|file| {
            graph.keys().filter(|other| leads(file, other) && leads(other, file)).cloned().collect()
        })
        .collect::<Vec<BTreeSet<_>>>();
    circles.dedup();
    circles.sort();
    circles.dedup();
    circles
}

/// A circle, each file with those of it that it imports from.
fn told(circle: &BTreeSet<PathBuf>, graph: &Graph) -> String {
    let line = |file: &PathBuf| {
        let within = graph.get(file).into_iter().flatten().filter(|other| circle.contains(*other));
        let within = within.map(|other| other.display().to_string()).collect::<Vec<_>>();
        format!("{} -> {}", file.display(), within.join(", "))
    };
    circle.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn circles_are_found_and_what_is_none_is_not_taken_for_one() {
    let found = |sources: &[(&str, &str)]| {
        let owned = |(path, text): &(&str, &str)| (PathBuf::from(*path), (*text).to_owned());
        let files = sources.iter().map(owned).collect::<Files>();
        circles(&graph(&files)).iter().map(BTreeSet::len).collect::<Vec<_>>()
    };
    let lib = ("a/src/lib.rs", "mod low;\nmod room;\npub use room::Room;\n");
    let low = ("a/src/low.rs", "pub struct Low;\n");
    let head = |text| ("a/src/room/mod.rs", text);
    let part = |text| ("a/src/room/part.rs", text);
    // A child takes from its parent what the parent has of another child, or defines, or through the root.
    let facade = head("mod part;\npub use self::part::{Part, Whole as Room};\n");
    for circular in [
        "use super::Room;\n",
        "fn f() -> super::Room { g() }\n",
        "use crate::{low::Low, room::Room};\n",
        "pub(in crate::low) use crate::low::Low;\nuse crate::Room as Other;\n",
    ] {
        assert!(!found(&[lib, low, facade, part(circular)]).is_empty(), "{circular}");
    }
    let two = [
        ("a/src/one.rs", "use super::two::{self, Two};"),
        ("a/src/two.rs", "fn f() { crate::one::f() }"),
        ("a/src/lib.rs", "mod one; mod two;"),
        ("b/src/main.rs", "mod x;\nfn main() { x::f() }\n"),
        ("b/src/x.rs", "fn f() { super::main() }"),
    ];
    assert_eq!(found(&two), [2, 2]);
    for straight in [
        "use crate::low::{Low};\nuse std::fmt;\n",
        "/// [`super::Room`]\nfn f() {} // super::Room\n",
        "pub(in super::super) fn f() {}\n",
        "#[cfg(test)]\nuse super::Room;\n",
        "#[cfg(test)]\nmod tests {\n    use super::super::Room;\n}\n",
        "    #[cfg(test)]\n    fn f(\n        a: super::Room,\n    ) {\n        g();\n    }\n",
    ] {
        assert!(found(&[lib, low, facade, part(straight)]).is_empty(), "{straight}");
    }
}
