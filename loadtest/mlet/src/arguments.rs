//! The words that a mlet is called with, and `--check-args` before them: judge the words, run nothing
//! (behaviour.md "What a mlet is asked before a run").
//!
//! Not here: what the words mean, which each mlet says.
//!
//! Invariant: that they are right is said by `ARGUMENTS_OK` and exit code 0 together, so that a program that knows
//! nothing of `--check-args` says so by accident as little as by silence.

use std::ffi::OsString;
use std::net::IpAddr;
use std::process::ExitCode;

use packetlab::address::HostPort;
use packetlab::message::Family;

use crate::client_error::ClientError;
use crate::lines::{complain, print_line};
use crate::mlet_error::MletError;
use crate::names::{host_port, no_address};

/// Exit code of a mlet whose arguments make no sense. The same number as clap's.
pub const USAGE_ERROR: u8 = 2;

/// Asks a mlet, as its first word, to judge the words behind it and to do nothing else.
pub const CHECK_ARGS: &str = "--check-args";

/// What a mlet prints, alone on a line, if the words are right.
const ARGUMENTS_OK: &str = "arguments ok";

/// The words of this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    /// They are only to be judged: [`ok`] is what follows if they are right.
    pub is_check: bool,
    /// Those behind the name of the program, and behind `--check-args`.
    pub words: Vec<OsString>,
}

impl CommandLine {
    /// Of this process.
    #[must_use]
    pub fn of_process() -> Self {
        Self::of(std::env::args_os().skip(1))
    }

    fn of(words: impl Iterator<Item = OsString>) -> Self {
        let mut words: Vec<OsString> = words.collect();
        let is_check = words.first().is_some_and(|first| first == CHECK_ARGS);
        if is_check {
            words.remove(0);
        }
        Self { is_check, words }
    }
}

/// What `judge` makes of the words of this process, for mlets that [`run_with`](crate::run_with) does not run.
///
/// # Errors
/// It ends with this code: it was asked for its help, for its version, or for this judgement alone, or the words are no good.
pub fn judged<A>(
    usage: &str,
    judge: impl FnOnce(&[String]) -> Result<A, MletError>,
) -> Result<A, ExitCode> {
    let CommandLine { is_check, words } = CommandLine::of_process();
    let words: Result<Vec<String>, _> = words.into_iter().map(OsString::into_string).collect();
    let first = words.as_ref().ok().and_then(|words| words.first());
    if let Some(told) = tell_about_itself(usage, "", first.map(String::as_str)) {
        return Err(told);
    }
    let no_text = |word: OsString| {
        MletError::Failed(format!("'{}' is no text", word.to_string_lossy().escape_debug()))
    };
    let judged = words.map_err(no_text).and_then(|words| judge(&words));
    let judged = judged.map_err(|error| refused(usage, &error))?;
    if is_check { Err(ok()) } else { Ok(judged) }
}

/// Answers `--help` and `--version`, for mlets that [`run`](crate::run) does not run: `options` of the manager stand before
/// `usage`, whose first word is the mlet's name. `None` if `word` is neither of them.
pub fn tell_about_itself(usage: &str, options: &str, word: Option<&str>) -> Option<ExitCode> {
    let name = usage.split(' ').next().unwrap_or(usage);
    let text = match word? {
        "--help" | "-h" => format!("usage: pktxpmgr {options}[OPTIONS] {usage}"),
        "--version" | "-V" => format!("{name} {}", env!("CARGO_PKG_VERSION")),
        _ => return None,
    };
    Some(if print_line(&text).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Says that the words of this process are right, which is how a check ends well.
#[must_use]
pub fn ok() -> ExitCode {
    if print_line(ARGUMENTS_OK).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Says in one line what is wrong with the words of this process; the code that it ends with.
#[must_use]
pub fn refused(usage: &str, error: &MletError) -> ExitCode {
    let name = usage.split(' ').next().unwrap_or(usage);
    let call = usage.lines().next().unwrap_or(usage);
    complain(&format!("{name}: {error}; usage: {call}"));
    USAGE_ERROR.into()
}

/// Takes `-4` or `-6` from the front of the words: which family a name is to have an address of.
///
/// # Errors
/// There is another option.
pub fn family(words: &[String]) -> Result<(Option<Family>, &[String]), MletError> {
    let (family, rest) = match words {
        [first, rest @ ..] if first == "-4" => (Some(Family::Ipv4), rest),
        [first, rest @ ..] if first == "-6" => (Some(Family::Ipv6), rest),
        rest => (None, rest),
    };
    Ok((family, without_options(rest)?))
}

/// Words among which there is to be no option.
///
/// # Errors
/// There is one.
pub fn without_options(words: &[String]) -> Result<&[String], MletError> {
    match words.iter().find(|word| word.starts_with('-')) {
        Some(unknown) => {
            let unknown = unknown.escape_debug();
            Err(MletError::Failed(format!("it has no option '{unknown}'")))
        }
        None => Ok(words),
    }
}

/// The name of a host, perhaps with a port, as far as it can be judged without looking it up.
///
/// # Errors
/// It is none, or the port is 0; why.
pub fn host(name: &str) -> Result<String, MletError> {
    match host_port(name) {
        Ok(_) => Ok(name.to_owned()),
        Err(ClientError::Unresolved { cause, .. }) => Err(MletError::Failed(cause.to_string())),
        Err(error) => Err(error.into()),
    }
}

/// As [`host`], which is to have an address of this family, if one is asked for.
///
/// # Errors
/// As there, or it is an address of the other family.
pub fn host_of(name: &str, family: Option<Family>) -> Result<String, MletError> {
    let address = HostPort::parse(name).ok().and_then(|parsed| parsed.host.parse::<IpAddr>().ok());
    match family.zip(address) {
        Some((family, address)) if Family::of(address) != family => Err(no_address(name, family)),
        _ => host(name),
    }
}

/// As [`host_of`], of one that packets without ports are for.
///
/// # Errors
/// As there, or it has a port.
pub fn host_alone(name: &str, family: Option<Family>) -> Result<String, MletError> {
    match HostPort::parse(name) {
        Ok(HostPort { port: Some(_), .. }) => Err(MletError::Failed(format!(
            "{} has a port, and the packets have none; name the host alone",
            name.escape_debug()
        ))),
        _ => host_of(name, family),
    }
}

/// A whole number of this type; with one such as [`NonZeroU16`](std::num::NonZeroU16) of something that there has to be
/// one of.
///
/// # Errors
/// It is none, or beyond the type.
pub fn number<N: std::str::FromStr>(word: &str) -> Result<N, MletError> {
    let problem = || format!("'{}' is no whole number that it takes", word.escape_debug());
    word.parse().map_err(|_| MletError::Failed(problem()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_checked_alone_where_that_is_the_first_of_them() {
        let of = |words: &[&str]| CommandLine::of(words.iter().map(OsString::from));
        let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        let check = CommandLine { is_check: true, words: words(&["a", "--check-args"]) };
        assert_eq!(of(&["--check-args", "a", "--check-args"]), check);
        let run = CommandLine { is_check: false, words: words(&["a", "--check-args"]) };
        assert_eq!(of(&["a", "--check-args"]), run);
        assert_eq!(of(&["--check-args"]).words, words(&[]));
    }

    #[test]
    fn a_family_comes_first_and_no_other_option_is_taken() {
        let words = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
        let target = words(&["a"]);
        assert_eq!(family(&words(&["-6", "a"])).unwrap(), (Some(Family::Ipv6), &target[..]));
        assert_eq!(family(&words(&["-4", "a"])).unwrap(), (Some(Family::Ipv4), &target[..]));
        assert_eq!(family(&target).unwrap(), (None, &target[..]));
        for (bad, named) in [(&["-x"][..], "'-x'"), (&["-6", "-4"], "'-4'"), (&["a", "-6"], "'-6'")]
        {
            let error = family(&words(bad)).unwrap_err().to_string();
            assert!(error.ends_with(named), "{error}");
        }
    }

    #[test]
    fn what_is_no_host_and_no_number_is_named() {
        assert_eq!(host("[2001:db8::1]:53").unwrap(), "[2001:db8::1]:53");
        for bad in ["", ":80", "a:b", "a b", "a:65536", "a:0", "a:"] {
            assert!(host(bad).is_err(), "{bad}");
        }
        for (name, family, is_right) in [
            ("a:80", Some(Family::Ipv6), true),
            ("192.0.2.1:80", None, true),
            ("192.0.2.1:80", Some(Family::Ipv4), true),
            ("192.0.2.1:80", Some(Family::Ipv6), false),
            ("::1", Some(Family::Ipv4), false),
            ("a:0", None, false),
        ] {
            assert_eq!(host_of(name, family).is_ok(), is_right, "{name}");
        }
        let error = host_alone("a:80", None).unwrap_err().to_string();
        assert_eq!(error, "a:80 has a port, and the packets have none; name the host alone");
        for (name, family, is_right) in [
            ("a", None, true),
            ("2001:db8::1", None, true),
            ("[2001:db8::1]:53", None, false),
            ("192.0.2.1", Some(Family::Ipv6), false),
            ("a b", None, false),
        ] {
            assert_eq!(host_alone(name, family).is_ok(), is_right, "{name}");
        }
        assert_eq!(number::<u16>("65535").unwrap(), 65_535);
        let error = number::<u16>("65536\u{1b}").unwrap_err().to_string();
        assert_eq!(error, r"'65536\u{1b}' is no whole number that it takes");
    }
}
