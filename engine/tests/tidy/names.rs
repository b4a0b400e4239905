//! What the code of a file names.

use super::code_lines;

/// What the code of a file names by a path, with line numbers, up to the tests at its end: `use std::{fs, io};` names
/// `std::fs` and `std::io`.
pub(super) fn named(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut lines = code_lines(text).take_while(|(_, line)| *line != "mod tests {");
    while let Some((number, line)) = lines.next() {
        let line = line.trim_start();
        let item = line
            .strip_prefix("pub")
            .map_or(line, |line| line.split_once(") ").map_or(line, |(_, item)| item).trim_start());
        if line == "#[cfg(test)]" {
            lines.next();
        } else if let Some(start) = item.strip_prefix("use ") {
            let mut tree = start.to_owned();
            while !tree.contains(';') {
                let Some((_, more)) = lines.next() else { break };
                tree.push_str(more);
            }
            let names = names_in("", tree.split(';').next().unwrap_or_default());
            found.extend(names.into_iter().map(|name| (number, name)));
        } else {
            let is_name = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
            let names = line.split(|c| !is_name(c)).filter(|word| word.contains("::"));
            found.extend(names.map(|name| (number, name.to_owned())));
        }
    }
    found
}

/// The names in a tree of `use`, behind what stands before it.
fn names_in(before: &str, tree: &str) -> Vec<String> {
    let mut depth = 0;
    let branches = tree.split(|c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    });
    let branches = branches.map(str::trim).filter(|branch| !branch.is_empty());
    let names = branches.flat_map(|branch| match branch.split_once('{') {
        Some((path, rest)) => {
            let inner = rest.rsplit_once('}').map_or(rest, |(inner, _)| inner);
            names_in(&format!("{before}{}", path.trim()), inner)
        }
        None => vec![format!("{before}{branch}")],
    });
    names.collect()
}

/// A name from the root of its crate on, where it is given from the module `module` upwards.
pub(super) fn from_root(module: &[&str], name: &str) -> String {
    let (mut above, mut rest) = (module.to_vec(), name);
    while let Some(behind) = rest.strip_prefix("super::") {
        above.pop();
        rest = behind;
    }
    match rest.len() == name.len() {
        true => name.to_owned(),
        false => [&["crate"], &above[..], &[rest]].concat().join("::"),
    }
}

#[test]
fn names_are_found_in_trees_and_from_any_module() {
    let text = "use std::{fs, io::{self, Read as _}};\npub(crate) use super::super::a::{\n    B,\n};\n\
                // std::env\n#[cfg(test)]\nuse c::D;\nfn f() -> super::G { std::thread::spawn(x) }\n\
                mod tests {\n    use h::I;\n";
    let names = named(text).into_iter().map(|(line, name)| (line, from_root(&["m", "n"], &name)));
    let expected = [
        (1, "std::fs"),
        (1, "std::io::self"),
        (1, "std::io::Read as _"),
        (2, "crate::a::B"),
        (8, "crate::m::G"),
        (8, "std::thread::spawn"),
    ];
    let names = names.collect::<Vec<_>>();
    assert_eq!(names.iter().map(|(at, name)| (*at, name.as_str())).collect::<Vec<_>>(), expected);
}
