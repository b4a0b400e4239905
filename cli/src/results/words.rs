//! Quantities and texts of records as people read them.
//!
//! Not here: what goes to programs, which get numbers as they are (`columns.rs`).

use nix::sys::signal::Signal;
use packetlab::escape::Escaped;
pub(crate) use packetlab::words::{counted, duration};

/// Digits of a key, and characters of a snikey, that are shown to people, as `--tag` of a run shows them.
const FRONT_LEN: usize = 12;

/// Text of a record, safe to show. What is already escaped is not escaped once more.
pub(crate) fn shown(text: &str) -> String {
    Escaped(text.as_bytes()).to_string().replace("\\\\", "\\")
}

/// The front of a key or snikey; a dash for none.
pub(crate) fn front(name: Option<&str>) -> String {
    name.map_or_else(|| "-".into(), |name| shown(&name.chars().take(FRONT_LEN).collect::<String>()))
}

/// A duration of so many microseconds: `84 us`, `1.2 ms`.
pub(crate) fn microseconds(microseconds: f64) -> String {
    match microseconds {
        ..999.5 => format!("{microseconds:.0} us"),
        _ => duration(microseconds / 1000.0),
    }
}

/// A size in at most eight characters: `9999 B`, `881 KiB`, `8.79 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    if bytes < 10_000 {
        return format!("{bytes} B");
    }
    let mut amount = bytes as f64;
    let mut unit = "";
    for next in ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"] {
        if unit.is_empty() || amount >= 1023.5 {
            amount /= 1024.0;
            unit = next;
        }
    }
    let digits = match amount {
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    format!("{amount:.digits$} {unit}")
}

/// How a mlet ended: its exit code, or the name of the signal without `SIG`; a dash for neither.
pub(crate) fn end_of_mlet(exit: Option<i64>, signal: Option<i32>) -> String {
    match (exit, signal) {
        (Some(code), _) => code.to_string(),
        (None, Some(number)) => Signal::try_from(number).map_or_else(
            |_| format!("sig {number}"),
            |signal| signal.as_str().trim_start_matches("SIG").to_owned(),
        ),
        (None, None) => "-".into(),
    }
}

/// A time of a record as `11-23 11:39:54`, in UTC.
pub(crate) fn short_time(time: Option<&str>) -> String {
    let short = time.and_then(|time| time.get(5..19)).unwrap_or("-");
    shown(short).replace('T', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn microseconds_and_sizes_have_few_characters() {
        assert_eq!([microseconds(84.4), microseconds(1240.0)], ["84 us", "1.2 ms"]);
        for (bytes, told) in [
            (0, "0 B"),
            (9_999, "9999 B"),
            (10_000, "9.77 KiB"),
            (920_346, "899 KiB"),
            (1_048_000, "1023 KiB"),
            (1_048_200, "1.00 MiB"),
            (9_212_500, "8.79 MiB"),
            (1 << 40, "1.00 TiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(size(bytes), told);
            assert!(size(bytes).len() <= 8);
        }
    }

    #[test]
    fn what_a_peer_said_steers_no_terminal_and_is_escaped_once() {
        assert_eq!(shown("\u{1b}[31m\n"), r"\u{1b}[31m\n");
        assert_eq!(shown(r#"no snikey "a\n""#), r#"no snikey "a\n""#);
        assert_eq!(front(Some(&"ab".repeat(32))), "abababababab");
        assert_eq!(front(None), "-");
    }

    #[test]
    fn an_end_of_a_mlet_is_a_code_or_a_signal() {
        for (exit, signal, told) in [
            (Some(3), None, "3"),
            (None, Some(9), "KILL"),
            (None, Some(40), "sig 40"),
            (None, None, "-"),
        ] {
            assert_eq!(end_of_mlet(exit, signal), told);
        }
        assert_eq!(short_time(Some("2026-11-23T11:39:54.001000Z")), "11-23 11:39:54");
        assert_eq!(short_time(Some("soon")), "-");
    }
}
