//! The limits of `cert_limit` (spec/protocol.md 4.3): their values, read and written.
//!
//! Only `monitor` matters to a controller; endpoints enforce the rest.

use std::fmt;
use std::net::IpAddr;

use super::super::escape::clipped;
use super::super::key::Hex;
use super::super::name_value::{self, Dialect, Pair};
use super::super::program::ProgramDigest;
use super::error::{CertificateError, SHOWN_LEN};

/// Limits of one certificate; absent ones limit nothing. All certificates of a chain limit
/// together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CertificateLimits {
    /// Digests of the programs that the controller must supply, in order.
    pub monitor: Vec<ProgramDigest>,
    /// Highest allowed experiment priority.
    pub max_num_priority: Option<u64>,
    /// Most sockets open at once.
    pub max_socket_count: Option<u64>,
    /// Longest experiment in ticks.
    pub max_exp_period: Option<u64>,
    /// Most bytes sent.
    pub max_send_byte: Option<u64>,
    /// Most packets sent.
    pub max_send_pkt: Option<u64>,
    /// Most bytes received.
    pub max_recv_byte: Option<u64>,
    /// Most packets received.
    pub max_recv_pkt: Option<u64>,
    /// Bytes per window; all apply.
    pub max_burst_rate_byte: Vec<BurstRate>,
    /// Packets per window; all apply.
    pub max_burst_rate_pkt: Vec<BurstRate>,
    /// Allowed destinations; empty allows all.
    pub valid_dest: Vec<Destination>,
    /// Whether packets may carry foreign source addresses.
    pub src_ip_spoofing: Option<bool>,
    /// Limits without meaning to PacketLab, in order, with the `*` of optional ones.
    pub auxiliary: Vec<Pair>,
    /// Known limits that were written as optional (`*name`). They are read like the others, but the
    /// original crashes on them (Q2): never present such a certificate to it.
    pub optional_known_limits: Vec<&'static str>,
}

/// At most `count` within every `window`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BurstRate {
    /// Bytes or packets.
    pub count: u64,
    /// Ticks, more than zero.
    pub window: u64,
}

/// A network or host, e.g. `10.0.0.0/8` or `2001:db8::1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destination {
    /// The address as written, also its host bits.
    pub address: IpAddr,
    /// Leading bits that count; all of them for a host.
    pub prefix_len: u8,
}

/// A limit that PacketLab knows: how to read and write the field of the same name.
struct KnownLimit {
    name: &'static str,
    /// Result code for a value that cannot be read (spec/protocol.md 4.4).
    code: u8,
    /// Whether a value can be read; of a list no item is kept.
    check: fn(&str) -> bool,
    read: fn(&mut CertificateLimits, &str) -> Option<()>,
    write: fn(&CertificateLimits) -> Option<String>,
}

macro_rules! known {
    ($field:ident, $code:literal, $check:expr, $read:expr, $write:expr) => {
        KnownLimit {
            name: stringify!($field),
            code: $code,
            check: $check,
            read: |limits, value| {
                limits.$field = $read(value)?;
                Some(())
            },
            write: |limits| $write(&limits.$field),
        }
    };
}

/// One value.
macro_rules! known_value {
    ($field:ident, $code:literal, $read:expr, $write:expr) => {
        known!(
            $field,
            $code,
            |value| $read(value).is_some(),
            |value| $read(value).map(Some),
            $write
        )
    };
}

/// Values of which each is read when the one before it has been.
macro_rules! known_list {
    ($field:ident, $code:literal, $items:expr, $write:expr) => {
        known!(
            $field,
            $code,
            |value| $items(value).all(|item| item.is_some()),
            |value| $items(value).collect::<Option<_>>(),
            $write
        )
    };
}

/// In the order in which they are written (spec/protocol.md 4.3).
const KNOWN: [KnownLimit; 12] = [
    known_list!(monitor, 17, digests, write_digests),
    known_value!(max_num_priority, 16, read_number, write_number),
    known_value!(max_socket_count, 23, read_number, write_number),
    known_value!(max_exp_period, 24, read_number, write_number),
    known_value!(max_send_byte, 25, read_number, write_number),
    known_value!(max_send_pkt, 26, read_number, write_number),
    known_value!(max_recv_byte, 27, read_number, write_number),
    known_value!(max_recv_pkt, 28, read_number, write_number),
    known_list!(max_burst_rate_byte, 22, rates, write_list),
    known_list!(max_burst_rate_pkt, 22, rates, write_list),
    known_list!(valid_dest, 20, destinations, write_list),
    known_value!(src_ip_spoofing, 21, read_flag, write_flag),
];

/// What a pair of the text of a cert_limit extension says.
enum Limit<'a> {
    Known(&'static KnownLimit),
    /// Without meaning to PacketLab.
    Auxiliary(&'a str),
}

/// Checks the text of a cert_limit extension, and keeps nothing of it: a list may be many times as large as its text.
///
/// # Errors
/// As of [`CertificateLimits::parse`].
pub(super) fn check(text: &[u8]) -> Result<(), CertificateError> {
    each(text, |limit, value, _| match limit {
        Limit::Known(known) => (known.check)(value),
        Limit::Auxiliary(_) => true,
    })
}

/// Gives `read` each limit with its value and whether it was written as optional; `read` says whether it could read it.
fn each(
    text: &[u8],
    mut read: impl FnMut(&Limit<'_>, &str, bool) -> bool,
) -> Result<(), CertificateError> {
    let bad = CertificateError::Limits;
    let text = name_value::check(Dialect::CertLimit, text).map_err(|e| bad(e.to_string()))?;
    let mut seen = [false; KNOWN.len()];
    for (written, value) in name_value::pairs(text) {
        let (plain, optional) = name_value::limit_name(written);
        let Some(index) = KNOWN.iter().position(|known| known.name == plain) else {
            read(&Limit::Auxiliary(written), value, optional);
            continue;
        };
        let known = &KNOWN[index];
        let (name, code) = (known.name, known.code);
        // The grammar takes `x` and `*x` for two names, but which of them should hold?
        if std::mem::replace(&mut seen[index], true) {
            return Err(bad(format!("has {name} twice, once as optional")));
        }
        if !read(&Limit::Known(known), value, optional) {
            let value = clipped(value, SHOWN_LEN);
            return Err(CertificateError::Limit { name, code, value });
        }
    }
    Ok(())
}

impl CertificateLimits {
    /// Reads the text of a cert_limit extension.
    ///
    /// # Errors
    /// The text is not name-value pairs, a name is repeated, or a known limit has an
    /// unreadable value.
    pub fn parse(text: &[u8]) -> Result<Self, CertificateError> {
        let mut limits = Self::default();
        each(text, |limit, value, optional| match *limit {
            Limit::Known(known) => {
                if optional {
                    limits.optional_known_limits.push(known.name);
                }
                (known.read)(&mut limits, value).is_some()
            }
            Limit::Auxiliary(name) => {
                limits.auxiliary.push(Pair::from((name, value)));
                true
            }
        })?;
        Ok(limits)
    }

    /// The text of a cert_limit extension; empty if nothing is limited. Known limits are never
    /// written as optional.
    #[must_use]
    pub fn to_text(&self) -> String {
        let known = KNOWN.iter().filter_map(|known| {
            let value = (known.write)(self)?;
            Some(Pair { name: known.name.to_owned(), value })
        });
        let pairs: Vec<Pair> = known.chain(self.auxiliary.iter().cloned()).collect();
        name_value::encode(&pairs)
    }
}

/// Zero or more digests of 64 hexadecimal digits, one after the other.
fn digests(value: &str) -> impl Iterator<Item = Option<ProgramDigest>> {
    value.as_bytes().chunks(64).map(|digits| {
        let digits: &[u8; 64] = digits.try_into().ok()?;
        let mut digest = [0; 32];
        let (pairs, _) = digits.as_chunks::<2>();
        for (byte, [high, low]) in digest.iter_mut().zip(pairs) {
            let digit = |d: u8| char::from(d).to_digit(16).and_then(|d| u8::try_from(d).ok());
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Some(digest)
    })
}

fn write_digests(digests: &[ProgramDigest]) -> Option<String> {
    let text: String = digests.iter().map(|digest| Hex(digest).to_string()).collect();
    Some(text).filter(|text| !text.is_empty())
}

/// As C's strtoull over the whole value: empty is 0, and blanks and a minus may lead (Q33; the
/// grammar has no plus).
fn read_number(value: &str) -> Option<u64> {
    if value.is_empty() {
        return Some(0);
    }
    let value = value.trim_start();
    match value.strip_prefix('-') {
        Some(digits) => decimal(digits).map(u64::wrapping_neg),
        None => decimal(value),
    }
}

/// Plain decimal digits only.
fn decimal(digits: &str) -> Option<u64> {
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

fn write_number(number: &Option<u64>) -> Option<String> {
    number.map(|number| number.to_string())
}

fn rates(value: &str) -> impl Iterator<Item = Option<BurstRate>> {
    value.split(',').map(BurstRate::parse)
}

impl BurstRate {
    /// Reads `count/window`: plain decimal digits, the window in ticks and not zero.
    fn parse(text: &str) -> Option<Self> {
        let (count, window) = text.split_once('/')?;
        let (count, window) = (decimal(count)?, decimal(window)?);
        (window > 0).then_some(Self { count, window })
    }
}

fn destinations(value: &str) -> impl Iterator<Item = Option<Destination>> {
    // A stranger's list may be long, and its pieces are too short for the search that a pattern of one plain character
    // starts: it would cost a fifth more.
    value.split([',']).map(Destination::parse)
}

impl Destination {
    /// Reads `address` or `address/prefix`, of IPv4 or IPv6.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once(['/']) {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        // Told apart first, because lists may be long and trying both costs twice.
        let address = if address.as_bytes().contains(&b':') {
            IpAddr::V6(address.parse().ok()?)
        } else {
            IpAddr::V4(address.parse().ok()?)
        };
        let longest = address_bits(&address);
        let prefix_len = match prefix {
            Some(prefix) => u8::try_from(decimal(prefix)?).ok().filter(|len| *len <= longest)?,
            None => longest,
        };
        Some(Self { address, prefix_len })
    }

    /// Whether bits behind the prefix are set: original endpoints then match nothing (Q3).
    #[must_use]
    pub fn has_host_bits(&self) -> bool {
        let (bits, longest) = match self.address {
            IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
            IpAddr::V6(address) => (address.to_bits(), 128),
        };
        let host_len = longest - u32::from(self.prefix_len).min(longest);
        bits.checked_shl(128 - host_len).is_some_and(|host_bits| host_bits != 0)
    }
}

fn address_bits(address: &IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn write_list<T: fmt::Display>(items: &[T]) -> Option<String> {
    let texts: Vec<String> = items.iter().map(T::to_string).collect();
    (!texts.is_empty()).then(|| texts.join(","))
}

impl fmt::Display for BurstRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, self.window)
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.prefix_len == address_bits(&self.address) {
            return self.address.fmt(f);
        }
        write!(f, "{}/{}", self.address, self.prefix_len)
    }
}

fn read_flag(value: &str) -> Option<bool> {
    match value {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    }
}

fn write_flag(flag: &Option<bool>) -> Option<String> {
    flag.map(|flag| u8::from(flag).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_values_follow_their_grammar() {
        for (text, expected) in [
            ("monitor=;", 0),
            ("monitor=00;", 17),
            ("max_num_priority=18446744073709551616;", 16),
            ("max_num_priority=1x;", 16),
            ("max_socket_count=1.5;", 23),
            ("max_exp_period=--1;", 24),
            ("max_send_byte= ;", 25),
            ("max_send_pkt=-;", 26),
            ("max_recv_byte=1 ;", 27),
            ("max_recv_pkt=0x1;", 28),
            ("max_burst_rate_byte=;", 22),
            ("max_burst_rate_byte=1/0;", 22),
            ("max_burst_rate_pkt=1;", 22),
            ("max_burst_rate_pkt=1/2,;", 22),
            ("valid_dest=;", 20),
            ("valid_dest=10.0.0.0/33;", 20),
            ("valid_dest=::1/129;", 20),
            ("valid_dest=10.0.0.0/;", 20),
            ("valid_dest=example.org;", 20),
            ("valid_dest=0.0.0.0/0,::/0;", 0),
            ("src_ip_spoofing=2;", 21),
            ("src_ip_spoofing=;", 21),
            ("filter=anything goes;*filter2=;", 0),
            ("max_send_pkt=1;*max_send_pkt=2;", 15),
            ("x=1;*x=2;", 0),
        ] {
            let result = CertificateLimits::parse(text.as_bytes());
            assert_eq!(check(text.as_bytes()), result.clone().map(drop), "{text}");
            assert_eq!(result.map_or_else(|error| error.code(), |_| 0), expected, "{text}");
        }
    }

    #[test]
    fn numbers_are_read_as_the_original_reads_them() {
        for (value, expected) in [
            ("", 0),
            (" 5", 5),
            ("\t5", 5),
            ("007", 7),
            ("-1", u64::MAX),
            ("18446744073709551615", u64::MAX),
        ] {
            let limits =
                CertificateLimits::parse(format!("max_send_pkt={value};").as_bytes()).unwrap();
            assert_eq!(limits.max_send_pkt, Some(expected), "{value:?}");
        }
    }

    #[test]
    fn digests_may_have_digits_of_either_case() {
        let text = format!("monitor={}{};", "aB".repeat(32), "01".repeat(32));
        let limits = CertificateLimits::parse(text.as_bytes()).unwrap();
        assert_eq!(limits.monitor, [[0xab; 32], [0x01; 32]]);
        assert_eq!(limits.to_text(), text.to_lowercase());
    }

    #[test]
    fn host_bits_behind_the_prefix_are_seen() {
        for (text, expected) in [
            ("10.0.0.0/8", false),
            ("10.0.0.1/8", true),
            ("10.0.0.1", false),
            ("0.0.0.0/0", false),
            ("128.0.0.0/0", true),
            ("2001:db8::/32", false),
            ("2001:db8::1/32", true),
            ("::1/128", false),
            ("8000::/0", true),
        ] {
            assert_eq!(Destination::parse(text).unwrap().has_host_bits(), expected, "{text}");
        }
    }
}
