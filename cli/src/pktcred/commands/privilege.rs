//! `pktcred add-privilege`: a privilege that an endpoint operator gave, put into the home and into both
//! config files, after its chain was checked.
//!
//! Invariant: a second run with the same input changes nothing, and no line but the default flag of
//! `ExpExec` lines is ever changed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use packetlab::certificate::Certificate;
use packetlab::key::PublicKey;
use packetlab::time::Ticks;
use packetlab::trust::{TrustMode, verify_chain};
use packetlab_home::{self as home, CERTIFICATES, CONFIG, KEYS, PROXY_CONFIG, PUBCMD, file};

use crate::commands::show;
use crate::failure::{Exit, Failure, note, print, shown};
use crate::files::{self, Place};

const EXAMPLES: &str = "\
Examples:
  pktcred add-privilege --cert exppriv.cert --eop-key caida_k_eop.pub
  pktcred add-privilege --cert their.cert --eop-key eop.pub --default";

#[derive(Debug, Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct Options {
    /// The exppriv certificate, and the delpriv ones if the privilege was delegated, in one file or
    /// several; may be repeated
    #[arg(long, value_name = "FILE", required = true)]
    cert: Vec<PathBuf>,
    /// Public key of the endpoint operator; caida_k_eop.pub in a new home is that of the public
    /// endpoints
    #[arg(long, value_name = "PUBKEY")]
    eop_key: PathBuf,
    /// Use it for endpoints that ask for no experiment by name, instead of the present default
    #[arg(long)]
    default: bool,
}

pub(crate) fn run(options: &Options, place: &Place, now: Ticks) -> Result<Exit, Failure> {
    let home = place.home()?;
    let home = fs::canonicalize(&home)
        .map_err(|error| Failure::of_file(&home, format!("{error}; pktcred init makes a home")))?;
    let operator = place.public_key(&options.eop_key)?;
    let pubcmd_path = home.join(CERTIFICATES).join(PUBCMD);
    let mut chain = place.certificates(&pubcmd_path)?;
    for name in &options.cert {
        let certificates = place.certificates(name)?;
        for warning in certificates.iter().flat_map(|one| show::warnings(&one.limits())) {
            note(format!("warning: {}: {warning}", shown(name)));
        }
        chain.extend(certificates);
    }
    check(&chain, &operator, now)?;
    let configs = [CONFIG, PROXY_CONFIG].map(|name| home.join(name));
    if configs.iter().all(|path| !path.exists()) {
        let problem = format!("holds neither {CONFIG} nor {PROXY_CONFIG}");
        return Err(Failure::of_file(&home, problem));
    }

    let certificates = options
        .cert
        .iter()
        .map(|name| keep(&place.find(CERTIFICATES, name)?, &home.join(CERTIFICATES)))
        .collect::<Result<Vec<_>, _>>()?;
    let operator = keep(&place.find(KEYS, &options.eop_key)?, &home.join(KEYS))?;
    let mut line_chain: Vec<&Path> = certificates.iter().map(PathBuf::as_path).collect();
    line_chain.push(&pubcmd_path);
    let line = home::experiment_line(options.default, "", &line_chain, &operator)?;
    let mut report = String::from("the chain verifies\n");
    for config in configs {
        report.push_str(&amend(&config, &line, options.default)?);
    }
    print(&report)?;
    Ok(Exit::Success)
}

/// Whether endpoints of this operator will accept the chain.
fn check(chain: &[Certificate], operator: &PublicKey, now: Ticks) -> Result<(), Failure> {
    let mode = TrustMode::EndpointAuthenticatesController;
    let verified = verify_chain(chain, std::slice::from_ref(operator), mode, now);
    let verified = verified.map_err(|error| {
        Failure::unusable(format!(
            "endpoints of this operator would refuse the chain: {error} (0 is the home's {PUBCMD}, \
             then come those of the --cert files); nothing was changed"
        ))
    })?;
    if verified.certificates.len() < chain.len() {
        return Err(Failure::usage(
            "a certificate of --cert has no place in the chain; leave it out",
        ));
    }
    Ok(())
}

/// Copies a file into a folder of the home, unless a file of the same contents is there: the path of
/// either. A name that is taken gets a number.
fn keep(path: &Path, folder: &Path) -> Result<PathBuf, Failure> {
    let contents = files::read(path)?;
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let suffix = path.extension().map(|suffix| format!(".{}", suffix.to_string_lossy()));
    let suffix = suffix.unwrap_or_default();
    for number in 1_u32.. {
        let name = match number {
            1 => format!("{stem}{suffix}"),
            _ => format!("{stem}-{number}{suffix}"),
        };
        let kept = folder.join(name);
        match file::create(&kept, &contents) {
            Ok(()) => return Ok(kept),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if fs::read(&kept).is_ok_and(|present| *present == **contents) {
                    return Ok(kept);
                }
            }
            Err(error) => return Err(Failure::of_file(&kept, error)),
        }
    }
    Err(Failure::of_file(path, "no name is left for it in the home"))
}

/// Adds the line to a config file, and tells what became of it.
fn amend(config: &Path, line: &str, default: bool) -> Result<String, Failure> {
    let name = shown(config);
    if !config.exists() {
        return Ok(format!("{name}: does not exist, left so\n"));
    }
    let before = files::read(config)?;
    let after = amended(&before, line.as_bytes(), default);
    if after == **before {
        return Ok(format!("{name}: has this privilege already\n"));
    }
    file::replace(config, &after).map_err(|error| Failure::of_file(config, error))?;
    Ok(format!("{name}: amended\n"))
}

/// The text with the line in it. As the default it takes that rank from any other; a privilege that
/// is there already keeps its rank otherwise.
fn amended(text: &[u8], line: &[u8], default: bool) -> Vec<u8> {
    let wanted = rest_of(line);
    let mut present = false;
    let mut amended = Vec::with_capacity(text.len() + line.len() + 2);
    for old in text.split_inclusive(|byte| *byte == b'\n') {
        let start = amended.len();
        amended.extend_from_slice(old);
        let Some(flag) = flag_at(old) else { continue };
        let bare = old.strip_suffix(b"\n").unwrap_or(old);
        let same = rest_of(bare.strip_suffix(b"\r").unwrap_or(bare)) == wanted;
        present |= same;
        if default && let Some(flag) = amended.get_mut(start + flag) {
            *flag = if same { b'1' } else { b'0' };
        }
    }
    if !present {
        if !amended.is_empty() && !amended.ends_with(b"\n") {
            amended.push(b'\n');
        }
        amended.extend_from_slice(line);
        amended.push(b'\n');
    }
    amended
}

/// What an `ExpExec` line says behind its default flag; `None` for other lines.
fn rest_of(line: &[u8]) -> Option<&[u8]> {
    line.get(flag_at(line)? + 1..)
}

/// Where the default flag of an `ExpExec` line stands.
fn flag_at(line: &[u8]) -> Option<usize> {
    let value = line.strip_prefix(b"ExpExec")?;
    let blanks = value.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    let flag = value.get(blanks..)?;
    let at = line.len() - flag.len();
    (blanks > 0 && matches!(flag, [b'0' | b'1', b':', ..])).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "ExpExec 0::a,b:c::";

    fn amend(text: &str, line: &str, default: bool) -> String {
        String::from_utf8(amended(text.as_bytes(), line.as_bytes(), default)).unwrap()
    }

    #[test]
    fn a_new_privilege_is_appended_and_a_known_one_is_not() {
        let text = "# x\nKey 1\nExpExec 1:demo:p,q:r::\n";
        let after = amend(text, LINE, false);
        assert_eq!(after, format!("{text}{LINE}\n"));
        assert_eq!(amend(&after, LINE, false), after);
        assert_eq!(amend("Key 1", LINE, false), format!("Key 1\n{LINE}\n"));
        assert_eq!(amend("", LINE, false), format!("{LINE}\n"));
        // A comment is no privilege.
        assert_eq!(amend(&format!("#{LINE}\n"), LINE, false), format!("#{LINE}\n{LINE}\n"));
    }

    #[test]
    fn a_new_default_takes_the_rank_from_the_old_one() {
        let line = "ExpExec 1::a,b:c::";
        let text = "ExpExec\t1:demo:p,q:r::\r\nKey 1\n";
        let after = amend(text, line, true);
        assert_eq!(after, "ExpExec\t0:demo:p,q:r::\r\nKey 1\nExpExec 1::a,b:c::\n");
        assert_eq!(amend(&after, line, true), after);
        // What is there may be made the default later, and stays so without the option.
        let plain = format!("ExpExec 1::x:y::\n{LINE}\n");
        let after = amend(&plain, line, true);
        assert_eq!(after, format!("ExpExec 0::x:y::\n{line}\n"));
        assert_eq!(amend(&after, LINE, false), after);
    }

    #[test]
    fn lines_that_only_look_similar_are_left_alone() {
        let text = "ExpExecutor 1:a\nExpExec1:a\nExpExec \nExpExec x:1\nExpExec\n ExpExec 1:a\n";
        assert_eq!(amend(text, "ExpExec 1:b", true), format!("{text}ExpExec 1:b\n"));
    }
}
