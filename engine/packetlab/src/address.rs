//! Address text: `host`, `host:port`, `[v6]`, `[v6]:port` or a bare IPv6 literal (spec/pktxpmgr.md 1.3).
//!
//! Not here: resolution and default ports (`cli`). A `HostPort` that was parsed prints as text that
//! parses to the same.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use super::escape::Escaped;

/// A host and perhaps a port, not resolved.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// Name or literal, without brackets; an IPv6 literal may carry a zone (`fe80::1%eth0`).
    pub host: String,
    /// `None` asks for the default; `Some(0)`, also written `host:`, is any free port.
    pub port: Option<u16>,
}

impl HostPort {
    /// Understands address text.
    ///
    /// # Errors
    /// Empty, no host, a bad port, or colons that are neither a port nor an IPv6 literal.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        if is_ipv6_literal(text) {
            return Ok(Self { host: text.to_owned(), port: None });
        }
        let (host, port) = match text.strip_prefix('[') {
            Some(bracketed) => split_brackets(bracketed, text)?,
            None => match text.rsplit_once(':') {
                Some((host, "")) => (host, Some(0)),
                Some((host, port)) => (host, Some(parse_port(port, text)?)),
                None => (text, None),
            },
        };
        if host.is_empty() {
            return Err(AddressError::NoHost { text: text.to_owned() });
        }
        if host.contains(['[', ']']) || host.contains(':') && !is_ipv6_literal(host) {
            return Err(AddressError::BadHost { text: text.to_owned() });
        }
        if host.contains(char::is_whitespace) {
            return Err(AddressError::Blank { text: text.to_owned() });
        }
        Ok(Self { host: host.to_owned(), port })
    }

    /// `*` listens on every address.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        self.host == "*"
    }
}

impl FromStr for HostPort {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::parse(text)
    }
}

/// Brackets where a port follows an IPv6 literal, and nowhere else.
impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            None => write!(f, "{}", self.host),
            Some(port) if self.host.contains(':') => write!(f, "[{}]:{port}", self.host),
            Some(port) => write!(f, "{}:{port}", self.host),
        }
    }
}

/// `v6` or `v6%zone`; a zone holds no colon, so that it cannot swallow a port.
fn is_ipv6_literal(text: &str) -> bool {
    let address = match text.split_once('%') {
        Some((address, zone)) if !zone.is_empty() && !zone.contains([':', '[', ']']) => address,
        Some(_) => return false,
        None => text,
    };
    address.parse::<Ipv6Addr>().is_ok()
}

/// The original takes names in brackets as well, so they stay allowed.
fn split_brackets<'t>(
    bracketed: &'t str,
    text: &str,
) -> Result<(&'t str, Option<u16>), AddressError> {
    let Some((host, after)) = bracketed.split_once(']') else {
        return Err(AddressError::OpenBracket { text: text.to_owned() });
    };
    if after.is_empty() {
        return Ok((host, None));
    }
    match after.strip_prefix(':') {
        Some(port) => Ok((host, Some(parse_port(port, text)?))),
        None => Err(AddressError::AfterBracket { text: text.to_owned() }),
    }
}

fn parse_port(port: &str, text: &str) -> Result<u16, AddressError> {
    // u16's own parser would also take a plus sign.
    let digits = port.bytes().all(|c| c.is_ascii_digit());
    port.parse()
        .ok()
        .filter(|_| digits)
        .ok_or_else(|| AddressError::BadPort { text: text.to_owned(), port: port.to_owned() })
}

/// Why a text is no address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddressError {
    /// No text at all.
    Empty,
    /// A port alone, or empty brackets.
    NoHost {
        /// The whole text.
        text: String,
    },
    /// The port is no number up to 65535.
    BadPort {
        /// The whole text.
        text: String,
        /// What stands for the port.
        port: String,
    },
    /// `[` without `]`.
    OpenBracket {
        /// The whole text.
        text: String,
    },
    /// Something other than `:port` after `]`.
    AfterBracket {
        /// The whole text.
        text: String,
    },
    /// Colons or brackets in a host that is no IPv6 literal.
    BadHost {
        /// The whole text.
        text: String,
    },
    /// A blank in a host, such as one behind a comma.
    Blank {
        /// The whole text.
        text: String,
    },
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN_MAX: usize = 100;
        let cut = |text: &str| Escaped(text.as_bytes()).cut(SHOWN_MAX);
        match self {
            Self::Empty => write!(f, "the address is empty; write host or host:port"),
            Self::NoHost { text } => write!(
                f,
                "address \"{}\" has no host; write host or host:port, * for every address",
                cut(text)
            ),
            Self::BadPort { text, port } => write!(
                f,
                "address \"{}\" has the port \"{}\"; write a number from 0 to 65535",
                cut(text),
                cut(port)
            ),
            Self::OpenBracket { text } => write!(
                f,
                "address \"{}\" lacks the closing bracket; write [v6] or [v6]:port",
                cut(text)
            ),
            Self::AfterBracket { text } => write!(
                f,
                "address \"{}\" goes on after its bracket; write [v6] or [v6]:port",
                cut(text)
            ),
            Self::BadHost { text } => write!(
                f,
                "address \"{}\" is no IPv6 literal and has more than a port's colon or bracket; \
                 write host:port, [v6]:port or an IPv6 literal alone",
                cut(text)
            ),
            Self::Blank { text } => write!(
                f,
                "address \"{}\" has a blank in its host, which no name has; remove it",
                cut(text)
            ),
        }
    }
}

impl std::error::Error for AddressError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> (String, Option<u16>) {
        let HostPort { host, port } =
            HostPort::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        (host, port)
    }

    /// Items 22, 23.
    #[test]
    fn every_form_that_the_original_takes_is_taken() {
        for (text, host, port) in [
            ("broker.example", "broker.example", None),
            ("name:20556", "name", Some(20556)),
            ("198.51.100.7:5555", "198.51.100.7", Some(5555)),
            ("host:", "host", Some(0)),
            ("*", "*", None),
            ("*:80", "*", Some(80)),
            ("[2001:db8::1]:443", "2001:db8::1", Some(443)),
            ("[::]:0", "::", Some(0)),
            ("[fe80::1%eth0]:7", "fe80::1%eth0", Some(7)),
            ("[name]:7", "name", Some(7)),
            ("[192.0.2.1]:00080", "192.0.2.1", Some(80)),
            ("2001:db8::1", "2001:db8::1", None),
            ("2001:db8:0:0:0:0:0:1", "2001:db8:0:0:0:0:0:1", None),
            ("fe80::1%eth0", "fe80::1%eth0", None),
            ("2001:db8::192.0.2.1", "2001:db8::192.0.2.1", None),
        ] {
            assert_eq!(parsed(text), (host.to_owned(), port), "{text}");
        }
        assert!(HostPort::parse("*:1").unwrap().is_wildcard());
    }

    /// Item 24.
    #[test]
    fn short_ipv6_literals_and_short_names_are_understood() {
        for (text, host, port) in [
            ("::1", "::1", None),
            ("::", "::", None),
            ("a::b", "a::b", None),
            ("fe:1::", "fe:1::", None),
            ("[::1]", "::1", None),
            ("abcd:20556", "abcd", Some(20556)),
            ("1:2:3:4:5:6:7:8:80", "1:2:3:4:5:6:7:8", Some(80)),
            ("::1%lo:80", "::1%lo", Some(80)),
        ] {
            assert_eq!(parsed(text), (host.to_owned(), port), "{text}");
        }
    }

    /// Item 25.
    #[test]
    fn bad_addresses_are_refused_with_the_reason() {
        for (text, reason) in [
            ("", "is empty"),
            (":", "has no host"),
            (":80", "has no host"),
            ("[]", "has no host"),
            ("[]:80", "has no host"),
            ("host:http", "the port \"http\""),
            ("host:65536", "the port \"65536\""),
            ("host:-1", "the port \"-1\""),
            ("host:+80", "the port \"+80\""),
            ("host: 80", "the port \" 80\""),
            ("[::1]:", "the port \"\""),
            ("[::1]:x", "the port \"x\""),
            ("[::1", "closing bracket"),
            ("[::1]80", "after its bracket"),
            ("[a:b]:80", "no IPv6 literal"),
            ("a:b:80", "no IPv6 literal"),
            ("a]:80", "no IPv6 literal"),
            (" host", "a blank in its host"),
            ("host\t:80", "a blank in its host"),
            ("[[::1]]:80", "after its bracket"),
        ] {
            let error = HostPort::parse(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text:?} gave: {error}");
        }
    }

    #[test]
    fn an_error_shows_no_megabyte_and_steers_no_terminal() {
        let error = HostPort::parse(&format!("{}:80", "a:\x1b".repeat(1 << 19))).unwrap_err();
        let shown = error.to_string();
        assert!(shown.len() < 400 && !shown.contains('\x1b'), "{shown}");
    }

    #[test]
    fn brackets_are_printed_only_where_a_port_follows_colons() {
        for (text, printed) in [
            ("[::1]", "::1"),
            ("[::1]:80", "[::1]:80"),
            ("[name]:80", "name:80"),
            ("host:", "host:0"),
            ("host", "host"),
        ] {
            assert_eq!(HostPort::parse(text).unwrap().to_string(), printed);
        }
    }

    proptest! {
        #[test]
        fn what_parses_prints_as_text_that_parses_to_the_same(
            text in "[a-f0-9:.%*\\[\\]]{0,14}(:[0-9]{0,5})?",
        ) {
            if let Ok(address) = HostPort::parse(&text) {
                prop_assert_eq!(address.to_string().parse(), Ok(address));
            }
        }

        #[test]
        fn every_socket_address_of_the_standard_library_is_taken(
            address: Ipv6Addr, port: u16,
        ) {
            let with_port = std::net::SocketAddr::from((address, port)).to_string();
            prop_assert_eq!(parsed(&with_port), (address.to_string(), Some(port)));
            prop_assert_eq!(parsed(&address.to_string()), (address.to_string(), None));
        }
    }
}
