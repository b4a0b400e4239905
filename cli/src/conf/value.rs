//! The value types of the config file (spec/pktxpmgr.md 2.3): each takes the bytes and says what is wrong.
//!
//! Paths are looked up (is it a regular file, a directory), not opened; names are not resolved.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use packetlab::address::HostPort;
use packetlab::channel::ChannelId;
use packetlab::escape::Escaped;

use super::text::{Complaint, Located, Value, keep};
use command_line::units;

use crate::c_number::c_number;

/// `0` or `1`, nothing else.
pub(super) fn switch(value: Value<'_>) -> Result<bool, Complaint> {
    match value.bytes {
        b"0" => Ok(false),
        b"1" => Ok(true),
        b"" => Err(value.complain("a value is missing", "write 0 or 1")),
        _ => Err(value
            .complain(format!("'{value}' is neither 0 nor 1"), blank_hint(value, "write 0 or 1"))),
    }
}

/// A 64-bit number as C's `strtoull` base 10 reads it, with nothing behind it: sign allowed, `-1` is
/// the maximum, too large is the maximum.
pub(super) fn number(value: Value<'_>) -> Result<u64, Complaint> {
    let number = c_number(value.text()?, 10);
    if number.rest.is_empty() && !value.bytes.is_empty() {
        Ok(number.value)
    } else {
        let advice = blank_hint(value, "write decimal digits only");
        Err(value.complain(format!("'{value}' is no number"), advice))
    }
}

/// Nanoseconds, as in the original, or a number with a unit.
pub(super) fn time(value: Value<'_>) -> Result<Duration, Complaint> {
    number(value).map(Duration::from_nanos).or_else(|_| {
        let advice =
            blank_hint(value, "write nanoseconds, or a unit as in 500ms, 10s, 5m, 2h, 365d");
        units::duration(value.text()?)
            .map_err(|_| value.complain(format!("'{value}' is no length of time"), advice))
    })
}

/// A regular file, existing where it must. Symbolic links are followed.
pub(super) fn file(value: Value<'_>) -> Result<Located<PathBuf>, Complaint> {
    let path = PathBuf::from(OsStr::from_bytes(value.bytes));
    match std::fs::metadata(&path) {
        _ if !value.must_exist => Ok(value.located(path)),
        Ok(found) if found.is_file() => Ok(value.located(path)),
        Ok(_) => Err(value.complain(format!("'{value}' is not a regular file"), "name a file")),
        Err(error) => Err(unreachable_path(value, &error)),
    }
}

/// Files, separated by commas; none of the names may be empty.
pub(super) fn files(value: Value<'_>) -> Result<Vec<Located<PathBuf>>, Vec<Complaint>> {
    elements(value, "name a file, or remove the comma", file)
}

/// A directory, existing where it must.
pub(super) fn directory(value: Value<'_>) -> Result<Located<PathBuf>, Complaint> {
    let path = PathBuf::from(OsStr::from_bytes(value.bytes));
    match std::fs::metadata(&path) {
        _ if !value.must_exist => Ok(value.located(path)),
        Ok(found) if found.is_dir() => Ok(value.located(path)),
        Ok(_) => Err(value.complain(format!("'{value}' is not a directory"), "name a directory")),
        Err(error) => Err(unreachable_path(value, &error)),
    }
}

fn unreachable_path(value: Value<'_>, error: &std::io::Error) -> Complaint {
    let mut advice = "check the path".to_owned();
    if !value.bytes.starts_with(b"/") {
        let here = std::env::current_dir().unwrap_or_default();
        advice = format!("relative paths start at {}", Escaped(here.as_os_str().as_bytes()));
    }
    if value.bytes.starts_with(b"~") || value.bytes.starts_with(b"$") {
        advice = "~ and $VAR are not expanded here; write the whole path".to_owned();
    }
    value.complain(format!("cannot use '{value}': {error}"), blank_hint(value, &advice))
}

/// Three capital letters each, separated by commas (ISO 3166-1 alpha-3).
pub(super) fn countries(value: Value<'_>) -> Result<Vec<String>, Vec<Complaint>> {
    elements(value, "write three capital letters for each country, such as USA,DEU", country)
}

/// One country.
pub(super) fn country(value: Value<'_>) -> Result<String, Complaint> {
    let text = value.text()?;
    if is_country(text) {
        Ok(text.to_owned())
    } else {
        let advice = "write three capital letters for each country, such as USA,DEU";
        Err(value.complain(format!("'{value}' is no country"), blank_hint(value, advice)))
    }
}

/// Whether endpoints may name it as theirs.
pub(crate) fn is_country(text: &str) -> bool {
    text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_uppercase())
}

/// Maidenhead locators with wildcards, separated by commas.
pub(super) fn locations(value: Value<'_>) -> Result<Vec<String>, Vec<Complaint>> {
    elements(value, "write Maidenhead locators in capitals, such as IO91*,BK29", location)
}

/// One location.
pub(super) fn location(value: Value<'_>) -> Result<String, Complaint> {
    let text = value.text()?;
    let allowed =
        |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b"*?".contains(&byte);
    if !text.is_empty() && text.bytes().all(allowed) {
        Ok(text.to_owned())
    } else {
        let advice = "write Maidenhead locators in capitals, such as IO91*,BK29";
        Err(value.complain(format!("'{value}' is no location"), blank_hint(value, advice)))
    }
}

/// Channels in hexadecimal, separated by commas; an empty one stands for the key channel.
pub(super) fn channels(value: Value<'_>) -> Result<Vec<Option<ChannelId>>, Vec<Complaint>> {
    each(value, channel)
}

fn channel(value: Value<'_>) -> Result<Option<ChannelId>, Complaint> {
    if value.bytes.is_empty() {
        return Ok(None);
    }
    ChannelId::from_hex(value.text()?).map(Some).map_err(|error| {
        let advice = "write 1 to 32 bytes as pairs of hexadecimal digits, such as 02a1";
        value.complain(error.to_string(), blank_hint(value, advice))
    })
}

/// `host`, `host:port`, `[v6]:port` or a bare IPv6 address (spec/pktxpmgr.md 1.3). Not resolved here.
pub(super) fn address(value: Value<'_>) -> Result<Located<HostPort>, Complaint> {
    HostPort::parse(value.text()?).map(|address| value.located(address)).map_err(|error| {
        let advice = "forms are host, host:port, [v6 address]:port and a bare v6 address";
        value.complain(error.to_string(), blank_hint(value, advice))
    })
}

/// Addresses, separated by commas; none may be empty.
pub(super) fn addresses(value: Value<'_>) -> Result<Vec<Located<HostPort>>, Vec<Complaint>> {
    elements(value, "write an address, or remove the comma", address)
}

/// What a pattern of host ids cannot mean, in words: matching knows `*` and `?` alone.
pub(crate) fn pattern_flaw(pattern: &str) -> Option<&'static str> {
    pattern.contains(['[', ']']).then_some(
        "[ and ] stand for themselves, as there are no classes of characters: * and ? are all that \
         matches others",
    )
}

/// Reads the parts between commas, none of which may be empty.
fn elements<'a, T>(
    value: Value<'a>,
    advice: &str,
    read: fn(Value<'a>) -> Result<T, Complaint>,
) -> Result<Vec<T>, Vec<Complaint>> {
    each(value, |element| match element.bytes {
        b"" => Err(element.complain("an element of the list is empty", advice)),
        _ => read(element),
    })
}

/// Reads the parts between commas. Of so many bad ones all are told, and of more the first.
fn each<'a, T>(
    value: Value<'a>,
    read: impl Fn(Value<'a>) -> Result<T, Complaint>,
) -> Result<Vec<T>, Vec<Complaint>> {
    const TOLD_MAX: usize = 10;
    let mut complaints = Vec::new();
    let mut elements = Vec::new();
    for element in value.split(b',', usize::MAX) {
        elements.extend(keep(&mut complaints, read(element)));
        if complaints.len() == TOLD_MAX {
            break;
        }
    }
    if complaints.is_empty() { Ok(elements) } else { Err(complaints) }
}

/// The commonest mistake that cannot be seen: blanks at the end belong to the value.
fn blank_hint(value: Value<'_>, advice: &str) -> String {
    match value.bytes.last() {
        Some(b' ' | b'\t') => {
            format!("{advice}; blanks at the end of the line belong to the value")
        }
        _ => advice.to_owned(),
    }
}
