//! Which endpoints a run measures: `--only`, `--skip`, `--once-per-endpoint` and `--resume`.
//!
//! A file holds a key id a line, or how it begins; what stands behind `#` is a remark. A results folder stands for the
//! endpoints that have been `ok` in it.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use engine::config::{EndpointChoice, KeyPrefixes};
use packetlab::escape::Escaped;
use packetlab_home::file;

use super::earlier::Earlier;
use crate::args::Args;
use crate::exit::{Exit, Failure};
use crate::findings::Findings;
use crate::results::folder::Folder;

/// Longest list of keys: some hundred thousand of them.
const LIST_LEN_MAX: u64 = 16 << 20;

/// As the options have it, behind what is in the folder already.
///
/// # Errors
/// A list cannot be read, or holds something else.
pub(crate) fn choose(args: &Args, earlier: Option<&Earlier>) -> Result<EndpointChoice, Failure> {
    let is_shared = args.campaign.address().is_some();
    // In a campaign that is known to all of its managers alone: one whose result was refused is measured again.
    let earlier = earlier.filter(|_| !is_shared);
    let measured = earlier.map(|earlier| earlier.measured.iter().copied().collect());
    Ok(EndpointChoice {
        only: only(args)?,
        skip: skip(args)?.unwrap_or_default(),
        once: args.once_per_endpoint || args.resume.is_some() || is_shared,
        measured: measured.unwrap_or_default(),
    })
}

/// Finds what a run would refuse of the lists of endpoints.
pub(crate) fn check_lists(args: &Args, findings: &mut Findings) {
    findings.keep(only(args));
    findings.keep(skip(args));
}

/// # Errors
/// As of a list, or nobody would be measured.
fn only(args: &Args) -> Result<Option<KeyPrefixes>, Failure> {
    let Some(path) = args.only.as_deref() else { return Ok(None) };
    let only = keys("--only", path)?;
    if only == KeyPrefixes::default() {
        let held = if path.is_dir() { "no endpoint has been ok in it" } else { "it names no key" };
        return Err(refused("--only", path, &format!("{held}, so nobody would be measured")));
    }
    Ok(Some(only))
}

fn skip(args: &Args) -> Result<Option<KeyPrefixes>, Failure> {
    args.skip.as_deref().map(|path| keys("--skip", path)).transpose()
}

fn keys(option: &str, path: &Path) -> Result<KeyPrefixes, Failure> {
    let refuse = |problem: String| refused(option, path, &problem);
    if path.is_dir() {
        return of_folder(path)
            .map_err(|problem| Failure::new(Exit::Config, format!("{option} {problem}")));
    }
    let bytes = file::read(path, LIST_LEN_MAX).map_err(|error| refuse(error.to_string()))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| refuse("it is no text".into()))?;
    of_list(text).map_err(refuse)
}

fn refused(option: &str, path: &Path, problem: &str) -> Failure {
    let shown = Escaped(path.as_os_str().as_bytes());
    Failure::new(Exit::Config, format!("{option} {shown}: {problem}"))
}

/// # Errors
/// It is no results folder, or cannot be read; names it.
fn of_folder(path: &Path) -> Result<KeyPrefixes, String> {
    Folder::open(path).map_err(|failure| failure.to_string())?;
    let earlier = Earlier::read(path)?;
    let mut keys = KeyPrefixes::default();
    for key in &earlier.measured {
        keys.insert(&key.to_string());
    }
    Ok(keys)
}

fn of_list(text: &str) -> Result<KeyPrefixes, String> {
    let mut keys = KeyPrefixes::default();
    for (index, line) in text.lines().enumerate() {
        let key = line.split('#').next().unwrap_or_default().trim();
        if !key.is_empty() && !keys.insert(key) {
            let shown = Escaped(key.as_bytes()).cut(100);
            let number = index + 1;
            return Err(format!(
                "line {number}: {shown} is no key id; write up to 64 hexadecimal digits of one"
            ));
        }
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use packetlab::key::KeyId;

    use super::*;

    #[test]
    fn a_list_has_a_key_a_line_and_remarks() {
        let keys = of_list("# those of the pilot\nabab  # Vienna\n\nCD\n").unwrap();
        assert!(keys.contain(KeyId([0xab; 32])) && keys.contain(KeyId([0xcd; 32])));
        assert!(!keys.contain(KeyId([0xef; 32])));
        let error = of_list("ab\nno key\n").unwrap_err();
        assert!(error.starts_with("line 2: no key is no key id"), "{error}");
        assert_eq!(of_list(""), Ok(KeyPrefixes::default()));
    }
}
