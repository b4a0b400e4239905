//! What a certificate says, in one line.
//!
//! Not here: whether any of it is true.
//!
//! Invariant: a line is one write of at most `PIPE_BUF` bytes, whatever a server puts into its certificate, so that the
//! lines of many mlets never mix; and no byte of it is a control character but the tabs between columns.

use std::net::IpAddr;

use packetlab::escape::Escaped;
use packetlab::key::{Hex, sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Name;

/// Bytes that are shown at most of a subject or an issuer, and of all names together.
const NAME_LEN_MAX: usize = 512;
const NAMES_LEN_MAX: usize = 2048;
/// Ends what was cut.
const CUT_MARK: &str = " [cut]";
/// Stands for what is not there.
const NONE: &str = "-";

/// The line of a certificate that is DER: its SHA-256, dates, subject, issuer and names behind `start`.
pub(crate) fn line(start: &str, certificate: &[u8]) -> String {
    let digest = Hex(&sha256(certificate)).to_string();
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
        return format!("{start}\t{digest}\t-\t-\tno certificate that can be read\t-\t-");
    };
    let validity = certificate.validity();
    let (from, until) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    let [subject, issuer] = [certificate.subject(), certificate.issuer()].map(distinguished);
    let names = names(&certificate);
    format!("{start}\t{digest}\t{from}\t{until}\t{subject}\t{issuer}\t{names}")
}

fn distinguished(name: &X509Name<'_>) -> String {
    shown(&name.to_string(), NAME_LEN_MAX)
}

/// Names and addresses that it is for (RFC 5280, 4.2.1.6), with blanks between them.
fn names(certificate: &X509Certificate<'_>) -> String {
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let names = alternative.map(|names| names.value.general_names.iter().filter_map(name));
    shown(
        &names.map(|names| names.collect::<Vec<_>>().join(" ")).unwrap_or_default(),
        NAMES_LEN_MAX,
    )
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let ipv4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let ipv6 = || <[u8; 16]>::try_from(*bytes).map(IpAddr::from);
            ipv4.or_else(|_| ipv6()).map(|address| address.to_string()).ok()
        }
        _ => None,
    }
}

/// Text of a server's, without control characters, cut to so many bytes, and `-` if there is none.
fn shown(text: &str, len_max: usize) -> String {
    let mut shown = Escaped(text.as_bytes()).to_string();
    if shown.is_empty() {
        return NONE.to_owned();
    }
    if shown.len() > len_max {
        let end = (0..=len_max - CUT_MARK.len()).rev().find(|end| shown.is_char_boundary(*end));
        shown.truncate(end.unwrap_or(0));
        shown.push_str(CUT_MARK);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_of_a_server_is_longer_than_its_place_or_moves_the_cursor() {
        assert_eq!(shown("a b", 8), "a b");
        assert_eq!((shown("", 8), shown("12345678", 8)), ("-".to_owned(), "12345678".to_owned()));
        assert_eq!(shown("123456789", 8), "12 [cut]");
        assert_eq!(shown("ab\u{e9}\u{e9}\u{e9}\u{e9}", 9).len(), 8, "no character is cut");
        let told = shown("a\tb\u{1b}[2J\n", 80);
        assert!(!told.chars().any(char::is_control), "{told}");
        // The longest line: two names, all alternative names, and as much before them.
        const { assert!(2 * NAME_LEN_MAX + NAMES_LEN_MAX + 1000 < 4096) };
    }

    #[test]
    fn what_is_no_certificate_is_told_by_its_digest_alone() {
        let digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let told = format!("x\t{digest}\t-\t-\tno certificate that can be read\t-\t-");
        assert_eq!(line("x", b""), told);
    }
}
