//! Numbers and durations as people read them.
//!
//! Not here: text from outside (`escape.rs`), and what goes to programs, which get numbers as they are.

/// `1 session`, `2 sessions`: for what gets an s where there are several.
#[must_use]
pub fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// A duration of so many milliseconds, in at most eight characters up to 99 days: `41.2 ms`, `8.124 s`, `2h13m05s`.
#[must_use]
pub fn duration(milliseconds: f64) -> String {
    // What rounding would make a second is one.
    if milliseconds < 999.5 {
        let digits = usize::from(milliseconds < 99.95);
        return format!("{milliseconds:.digits$} ms");
    }
    if milliseconds < 99_999.5 {
        return format!("{:.3} s", milliseconds / 1000.0);
    }
    let seconds = (milliseconds / 1000.0).round() as u64;
    match seconds {
        ..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..360_000 => {
            format!("{}h{:02}m{:02}s", seconds / 3600, seconds / 60 % 60, seconds % 60)
        }
        _ => format!("{}d{:02}h{:02}m", seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_a_kind_has_no_plural() {
        assert_eq!([0, 1, 2].map(|count| counted(count, "mlet")), ["0 mlets", "1 mlet", "2 mlets"]);
    }

    #[test]
    fn durations_have_few_characters() {
        for (milliseconds, told) in [
            (0.0, "0.0 ms"),
            (41.24, "41.2 ms"),
            (99.94, "99.9 ms"),
            (99.96, "100 ms"),
            (999.4, "999 ms"),
            (999.6, "1.000 s"),
            (8123.9, "8.124 s"),
            (99_999.4, "99.999 s"),
            (99_999.6, "1m40s"),
            (3_599_400.0, "59m59s"),
            (3_599_600.0, "1h00m00s"),
            (7_985_000.0, "2h13m05s"),
            (359_999_000.0, "99h59m59s"),
            (360_000_000.0, "4d04h00m"),
            (2_591_999_990.0, "30d00h00m"),
        ] {
            assert_eq!(duration(milliseconds), told);
        }
    }
}
